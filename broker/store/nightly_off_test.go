//go:build !nightly

package store

const nightly = false
