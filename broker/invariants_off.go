//go:build !invariants && !race

package broker

const invariants = false
