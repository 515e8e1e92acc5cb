// Package clients holds the end-to-end tests: MQTT clients that people use,
// driven against the built binary over WebSocket, TCP and a Unix socket. It
// has no code of its own.
//
// A test is written once against the client contract (client_test.go) and runs
// for each kind: a library, a transport and a protocol version. Libraries that
// are not Go run in a process of their own, a driver, which speaks one JSON
// object a line (drivers_test.go).
//
// Environment:
//
//   - HASHPLUS_SKIP_CLIENTS=1 skips all of them. Without it a missing tool is a
//     failure; .ci/deps installs what they need.
//   - HASHPLUS_TEST_TCP, HASHPLUS_TEST_WS, HASHPLUS_TEST_UNIX are the URLs of a
//     broker that runs already. Tests of what only hashplus does are then
//     skipped. Without them the binary is built and started.
//   - HASHPLUS_TEST_TAGS are build tags for the binary, as "nopoll".
//   - HASHPLUS_TEST_RACE=1 builds the binary with the race detector.
//   - HASHPLUS_PAHO_TESTING is a checkout of the Eclipse interoperability suite,
//     for the tests with the build tag nightly.
package clients
