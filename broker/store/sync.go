package store

import (
	"fmt"
	"strings"
	"time"
)

// Sync says when what was committed is on the medium. In each policy the wait of
// Apply returns only once the operating system has the data, so the death of the
// process (kill -9, a panic) loses nothing that was waited for; they differ in
// what the loss of power, or a crash of the operating system, may take. That is
// always a suffix of the commits: none survives without those before it.
//
// The zero value is always.
type Sync struct {
	// Every is 0 for an fsync before each wait returns, negative for none, else
	// the interval between them.
	Every time.Duration
}

// The policies without a parameter.
var (
	SyncAlways = Sync{}          // power loss takes nothing that was waited for
	SyncNever  = Sync{Every: -1} // it takes what the operating system has not written by itself, some 30 s on Linux
)

// SyncEvery is an fsync at most every d: the loss of power takes the commits of
// that long at most, and of the time that the fsync took.
func SyncEvery(d time.Duration) Sync { return Sync{Every: d} }

// UnmarshalText reads always, never or interval=DURATION.
func (s *Sync) UnmarshalText(b []byte) error {
	switch text := strings.TrimSpace(string(b)); text {
	case "always":
		*s = SyncAlways
	case "never":
		*s = SyncNever
	default:
		rest, ok := strings.CutPrefix(text, "interval=")
		d, err := time.ParseDuration(rest)
		if !ok || err != nil || d < time.Millisecond || d > time.Minute {
			return fmt.Errorf("%q is not always, never or interval=DURATION with 1ms to 1m, such as interval=10ms", text)
		}
		*s = SyncEvery(d)
	}
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (s Sync) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Sync) String() string {
	switch {
	case s.Every == 0:
		return "always"
	case s.Every < 0:
		return "never"
	}
	return "interval=" + s.Every.String()
}
