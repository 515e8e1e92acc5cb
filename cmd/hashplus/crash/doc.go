// Package crash holds the tests of durable state: nothing that was acknowledged
// is lost, nothing at QoS 2 comes twice, nothing changes its order, whatever
// moment the broker dies at. It has no code of its own.
//
// The harness (run) drives publishers and durable subscribers of its own, whose
// session state is exact, against a system that can be crashed: the built binary
// under SIGKILL or SIGTERM, a broker in this process on a file system that
// forgets what was not synced, or another broker. Beside it, scripted clients
// crash the broker right after the bytes of one answer, for every rule of when a
// commit must come before what leaves.
//
// Environment:
//
//   - HASHPLUS_CRASH_SEED repeats a run's choices; they are printed at its start.
//   - HASHPLUS_CRASH_ROUNDS is the number of crashes of TestSIGKILL and
//     TestSlowStore.
//   - HASHPLUS_RECOVERY_SCALE divides the numbers of the nightly TestLargeState.
//   - HASHPLUS_CRASH_PEER=mosquitto runs the harness against mosquitto, which
//     loses messages (TestPeer); the figures are logged.
//   - HASHPLUS_CRASH_CUT=1 has the scripted clients' connections cut and the
//     broker live on, in memory.
//   - HASHPLUS_TEST_TAGS and HASHPLUS_TEST_RACE as in package launch.
package crash
