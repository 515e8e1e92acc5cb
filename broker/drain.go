package broker

import (
	"context"
	"time"
)

const (
	// drainGap is the longest time between two clients that are sent away: a
	// few of them need not wait for as long as very many do.
	drainGap  = 100 * time.Millisecond
	drainStep = 10 * time.Millisecond
)

// Drain sends all clients away one after the other, evenly spread over a time, so
// that they do not all come back, here or elsewhere, in one moment; it then does
// what Shutdown does. Those that are still there are served as before; nobody is
// let in any more. Few clients are gone sooner: 100 ms are the most between two.
// When ctx ends, or with over being 0, the rest goes at once.
func (b *Broker) Drain(ctx context.Context, over time.Duration) error {
	b.draining.Store(true)
	if over > 0 {
		b.stagger(ctx, over)
	}
	return b.Shutdown(ctx)
}

// stagger sends clients away until all are, or ctx ends.
func (b *Broker) stagger(ctx context.Context, over time.Duration) {
	counts := make([]int, len(b.loops))
	if b.each(ctx, func(l *loop) {
		for _, s := range l.sessions {
			if s.client != nil {
				l.leaving = append(l.leaving, s.client)
			}
		}
		counts[l.id] = len(l.leaving)
	}) != nil {
		return // Shutdown will find the same
	}
	b.oneByOne(ctx, counts, func(total int) time.Duration { return min(over/time.Duration(total), drainGap) }, (*loop).dismiss)
}

// oneByOne has the loops work off lists, evenly and in step: counts says how long
// they are, gap the time between two of all. do is told how many are to be left.
// It ends early when ctx does, or when nobody is connected.
func (b *Broker) oneByOne(ctx context.Context, counts []int, gap func(total int) time.Duration, do func(l *loop, left int)) {
	total := 0
	for _, n := range counts {
		total += n
	}
	if total == 0 {
		return
	}
	between := max(gap(total), 1)
	began := time.Now()
	step := time.NewTicker(drainStep)
	defer step.Stop()
	for due := 0; due < total && b.connected() > 0; {
		due = min(total, 1+int(time.Since(began)/between))
		for i, l := range b.loops {
			left := counts[i] - counts[i]*due/total
			l.call(func(l *loop) { do(l, left) })
		}
		if due == total {
			return
		}
		select {
		case <-step.C:
		case <-ctx.Done():
			return
		}
	}
}

// connected is the number of clients that are connected.
func (b *Broker) connected() (n int64) {
	for _, l := range b.loops {
		n += l.stats.connected.Load()
	}
	return n
}

// dismiss sends clients away until only left of those that Drain found are there.
func (l *loop) dismiss(left int) {
	for n := len(l.leaving); n > left; n-- {
		c := l.leaving[n-1]
		l.leaving[n-1] = nil
		l.leaving = l.leaving[:n-1]
		if c.state == open {
			c.shutdown()
		}
	}
}
