//go:build race

package transport

// raceEnabled: the race detector allocates, so promises about that are not checked.
const raceEnabled = true
