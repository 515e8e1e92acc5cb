//go:build race

package topic

// raceEnabled: the race detector allocates, so allocations are not counted.
const raceEnabled = true
