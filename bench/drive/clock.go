package drive

import (
	"time"
)

// Clock tells nanoseconds since a moment that all processes of a run share, so
// that a message stamped by one can be timed by another.
type Clock struct {
	base   time.Time
	offset int64
}

// NewClock returns a clock whose zero is the wall clock's epoch, read once:
// from then on it is monotonic.
func NewClock() Clock {
	now := time.Now()
	return Clock{base: now, offset: now.UnixNano()}
}

// Now is the current time. It costs one read of the monotonic clock.
func (c Clock) Now() int64 { return c.offset + int64(time.Since(c.base)) }
