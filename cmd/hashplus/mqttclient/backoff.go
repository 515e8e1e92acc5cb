package mqttclient

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is how long to wait between attempts to connect: the wait doubles
// from Min to Max, and each one is drawn at random between a half and the whole
// of that, so that many clients that lost one server do not come back at one
// moment. The zero value means 1 s to 60 s.
type Backoff struct{ Min, Max time.Duration }

// Wait is the time before the attempt after attempt failures, counted from 1.
func (b Backoff) Wait(attempt int) time.Duration {
	if b.Min <= 0 {
		b.Min = time.Second
	}
	if b.Max <= 0 {
		b.Max = time.Minute
	}
	d := b.Min
	for i := 1; i < attempt && d < b.Max; i++ {
		d *= 2
	}
	d = min(d, max(b.Max, b.Min))
	return d/2 + rand.N(d/2+1)
}

// sleep waits for d and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
