// Package conformance holds black-box tests of an MQTT broker against the
// normative statements of MQTT 5.0 and MQTT 3.1.1, which testdata/mqtt5.txt
// and testdata/mqtt311.txt list. It has its own small codec, so that it agrees
// with the specification and not with our wire package.
//
// The broker under test is the hashplus binary, built and started once for
// each set of flags. HASHPLUS_TEST_TCP and HASHPLUS_TEST_WS, if set, give the
// addresses (host:port) of a running broker to test in its place;
// HASHPLUS_TEST_TCP_QOS and so on those of brokers with the flags that
// flagSets names "qos" and so on. A test whose broker is missing then skips.
//
// A test says in its first comment which statements it proves, as
// [MQTT-x.x.x-n] in the numbering of 5.0 or [MQTT3-x.x.x-n] in that of 3.1.1.
// docs/conformance.md is made from these tags:
//
//	go test ./broker/conformance -run TestDocument -update
package conformance
