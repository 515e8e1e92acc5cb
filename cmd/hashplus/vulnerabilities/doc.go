// Package vulnerabilities holds a test for every known vulnerability of other
// brokers, named after it: what brought those down or let the wrong client in is
// tried here on the built binary, over real sockets. It has no code of its own,
// and shares none with the broker: its packets are bytes written down.
//
// The list of them is in list_test.go; the table in docs/security.md is made
// from it with go test ./cmd/hashplus/vulnerabilities -run TestList -update.
package vulnerabilities
