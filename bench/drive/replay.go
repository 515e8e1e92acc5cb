package drive

import (
	"context"
	"errors"
	"time"

	"hashplus/bench/codec"
)

// Replay subscribes the ready client i to subs and waits until each of the
// plan's flows has come once, as a retained message; latency counts from the
// SUBSCRIBE, over all calls. It gives up when the first has
// not come within the plan's Stall, or a further one within its Drain.
func (l *Loop) Replay(ctx context.Context, i int, subs []codec.Subscription) error {
	c := l.conns[i]
	if c == nil || c.phase != ready {
		return errors.New("the subscriber is not connected")
	}
	l.expected += uint64(len(l.plan.Flows))
	l.replay = l.clock.Now()
	l.subscribe(c, subs)
	l.settle()
	defer func() { l.replay = 0 }()
	last, quiet, patience := l.count.delivered, l.replay, l.plan.Stall
	for l.count.delivered < l.expected && ctx.Err() == nil && c.phase == ready {
		if err := l.tick(5 * time.Millisecond); err != nil {
			return err
		}
		if l.count.delivered != last {
			last, quiet, patience = l.count.delivered, l.now, l.plan.Drain
		}
		if l.now-quiet > int64(patience) {
			break
		}
	}
	return nil
}

// Clear publishes an empty retained message to every flow whose sender is here,
// so that the broker forgets what the run left.
func (l *Loop) Clear(ctx context.Context) error {
	l.payload = nil
	for i := range l.senders {
		l.senders[i].sent, l.senders[i].flow = 0, 0
	}
	return l.Drive(ctx, Schedule{End: l.clock.Now() + int64(time.Minute)})
}
