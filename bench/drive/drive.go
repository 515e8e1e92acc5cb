package drive

import (
	"context"
	"errors"
	"time"
)

// peek is how often a loop looks for what other processes received, if its
// senders wait for that.
const peek = 200 * time.Microsecond

// Schedule is when a run's parts begin, in the clock's time.
type Schedule struct {
	Start   int64 `json:"start"`   // publishing, warm-up first
	Measure int64 `json:"measure"` // counting latency
	End     int64 `json:"end"`     // nothing is published from here on
	Stall   bool  `json:"stall"`   // whether clients that are to stall do so at Measure
}

// Drive publishes by s, then waits for what is still out. It publishes no more,
// and still waits and accounts for everything, when ctx ends or no publisher of
// any process is connected any more. It may be called again: latency then
// starts afresh, the tally goes on.
func (l *Loop) Drive(ctx context.Context, s Schedule) error {
	l.start, l.measure, l.end = s.Start, s.Measure, s.End
	l.due = 0
	l.latency.Reset()
	for i := range l.senders {
		l.senders[i].bursts, l.senders[i].owed = 0, 0
	}
	if l.plan.OpenRate > 0 {
		if len(l.senders) == 0 {
			return errors.New("an open loop without senders")
		}
		l.interval = 1e9 / l.plan.OpenRate * float64(l.senders[0].Burst)
	}
	for l.now < l.end && ctx.Err() == nil && l.shared.Total(Publishing) > 0 && !l.allSent() {
		if err := l.tick(l.publishDue(&s)); err != nil {
			return err
		}
	}
	l.leftovers(ctx)
	l.sending = false
	return l.drain(ctx)
}

// publishDue publishes what the schedule says is due, and tells how long the loop
// may wait after it.
func (l *Loop) publishDue(s *Schedule) (wait time.Duration) {
	wait = min(10*time.Millisecond, time.Duration(l.end-l.now))
	if l.abroad {
		wait = min(wait, peek)
	}
	if l.now < l.start {
		return min(wait, time.Duration(l.start-l.now))
	}
	if !l.sending {
		l.sending = true
		for i := range l.senders {
			l.senders[i].progress = l.now
			l.wake(&l.senders[i])
		}
		l.settle()
	}
	if s.Stall && l.now >= l.measure {
		s.Stall = false
		l.stallClients()
	}
	if l.interval > 0 {
		wait = min(wait, time.Duration(l.schedule(l.now)-l.now))
		l.settle()
	}
	return wait
}

// leftovers sends what an open loop owes: what was due before the end but found
// the loop late, or the connection full. What still cannot leave counts as unsent.
func (l *Loop) leftovers(ctx context.Context) {
	if l.interval == 0 || ctx.Err() != nil {
		return
	}
	l.schedule(l.end - 1)
	l.settle()
	for i := range l.senders {
		if s := &l.senders[i]; s.conn != nil {
			l.count.unsent += uint64(s.owed * s.Burst)
		}
	}
}

// allSent tells whether every sender is one that stops, and has.
func (l *Loop) allSent() bool {
	for i := range l.senders {
		if s := &l.senders[i]; !s.Once || s.conn != nil && s.conn.phase == ready && s.sent < uint64(s.Flows) {
			return false
		}
	}
	return len(l.senders) > 0
}

// drain waits until all is delivered and acknowledged, or nothing more comes.
// Somebody who has ended ctx does not wait for more than the plan's Drain in all.
func (l *Loop) drain(ctx context.Context) error {
	last, quiet, impatient := l.count.received, l.now, int64(0)
	for l.shared.Total(Ready) > 0 {
		if l.shared.Total(Delivered) >= l.shared.Total(Expected) && !l.unacked() {
			return nil
		}
		if ctx.Err() != nil {
			if impatient == 0 {
				impatient = l.now
			}
			if l.now-impatient > int64(l.plan.Drain) {
				return nil
			}
		}
		if l.count.received != last {
			last, quiet = l.count.received, l.now
		}
		if l.now-quiet > int64(l.plan.Drain) {
			return nil
		}
		if err := l.tick(5 * time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (l *Loop) unacked() bool {
	for i := range l.senders {
		s := &l.senders[i]
		if c := s.conn; c != nil && c.phase == ready && c.unacked > s.forgiven {
			return true
		}
	}
	return false
}

// stallClients makes the clients that are to stall deaf.
func (l *Loop) stallClients() {
	for _, c := range l.conns {
		if c != nil && c.client.Stall && c.phase == ready {
			c.deaf = true
			// It cannot fail for a descriptor that is being watched.
			_ = l.sys.unwatch(c.fd)
		}
	}
}
