//go:build invariants || race

package broker

// invariants compiles in checks that a release build does without: illegal
// moves of a client's state, messages used after their release, the traffic of
// idle sessions written to. Build tag invariants, or the race detector.
const invariants = true
