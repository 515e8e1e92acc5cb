// Package limits holds the end-to-end tests of what protects the broker and its
// well-behaved clients: every limit that is a flag, deadlines, abuse of
// WebSocket and HTTP, slow readers, floods, and the end of the process. They
// run against the built binary over real sockets. It has no code of its own.
//
// Tests that measure other clients' latency or the process's memory run one by
// one; the others run in parallel after them.
//
// Environment:
//
//   - HASHPLUS_TEST_TAGS are build tags for the binary, as "nopoll".
//   - HASHPLUS_TEST_RACE=1 builds the binary with the race detector. Bounds on
//     memory are then not checked.
package limits
