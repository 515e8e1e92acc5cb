//go:build race

package conformance

// raced: the tests run under -race, and so does the broker.
const raced = true
