package broker

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"hashplus/topic"
	"hashplus/transport/link"
)

// crossing carries one message to another loop, with the filters that it
// matched there: one post, however many subscribers.
type crossing struct {
	to      *loop
	m       *message
	nodes   []*topic.Node[filter]
	posting *posting // of m, or nil
}

var crossings = sync.Pool{New: func() any { return new(crossing) }}

// cross posts m to another loop.
func (l *loop) cross(m *message, to *loop) {
	x := crossings.Get().(*crossing)
	x.to, x.m, x.posting = to, m.own(), l.posting.enter()
	bit := uint64(1) << to.id
	for _, n := range l.nodes {
		if n.Value.interest.Load()&bit != 0 {
			x.nodes = append(x.nodes, n)
		}
	}
	if to.inbox.pending.Add(int64(x.weight())) > inboxHigh {
		l.flooding = true
	}
	l.link.Send(to.id, x)
}

// weight is what x counts for in the inbox. The time that many filters take on
// the other loop counts as if it were bytes.
func (x *crossing) weight() int {
	w := x.m.size()
	if len(x.nodes) > manyFilters {
		w += len(x.nodes) * filterWeight
	}
	return w
}

// Run implements link.Task.
func (x *crossing) Run(link.Loop) {
	l, m := x.to, x.m
	l.goOn(x.posting)
	l.deliver(m, x.nodes, x.weight())
	l.closeSheet()
	m.release()
	clear(x.nodes)
	x.to, x.m, x.nodes, x.posting = nil, nil, x.nodes[:0], nil
	crossings.Put(x)
}

// inbox bounds what other loops' publishers may have on the way to a loop. It
// may be used by any goroutine.
type inbox struct {
	_       [64]byte
	pending atomic.Int64  // bytes posted and not yet delivered
	waiting atomic.Uint64 // a bit for each loop with publishers that wait
	_       [64]byte
}

// High and low water of an inbox, in bytes of messages.
const (
	inboxHigh = 8 << 20
	inboxLow  = 2 << 20
)

// filterWeight makes high water of an inbox about ten milliseconds of the work
// that messages of many filters cause.
const filterWeight = 64

// congested returns a loop whose inbox is past its high water, or nil. A
// loop's own may be: of what it has handed over for share groups.
func (b *Broker) congested() *loop {
	for _, o := range b.loops {
		if o.inbox.pending.Load() > inboxHigh {
			return o
		}
	}
	return nil
}

// block pauses c, which has just published, while an inbox is full. Messages
// are never dropped for it.
func (l *loop) block(c *client) {
	if !l.flooding {
		return
	}
	l.flooding = false
	o := l.b.congested()
	if o == nil {
		return
	}
	c.hold()
	l.blocked = append(l.blocked, c)
	l.await(o)
}

// await asks o to wake l when its inbox has drained. The second look closes the
// gap between the first one and the bit.
func (l *loop) await(o *loop) {
	o.inbox.waiting.Or(uint64(1) << l.id)
	if o.inbox.pending.Load() <= inboxLow {
		o.inbox.waiting.And(^(uint64(1) << l.id))
		l.call((*loop).unblock)
	}
}

// unblock resumes the publishers that block paused, unless another inbox is
// full now.
func (l *loop) unblock() {
	if o := l.b.congested(); o != nil {
		l.await(o)
		return
	}
	for i, c := range l.blocked {
		l.blocked[i] = nil
		if c.state != closed {
			c.unhold()
		}
	}
	l.blocked = l.blocked[:0]
}

// delivered takes n bytes off l's inbox.
func (l *loop) delivered(n int) {
	if n > 0 {
		l.took(l, n)
	}
}

// took takes n bytes off o's inbox and wakes the loops that wait for it.
func (l *loop) took(o *loop, n int) {
	if o.inbox.pending.Add(-int64(n)) > inboxLow || o.inbox.waiting.Load() == 0 {
		return
	}
	for w := o.inbox.waiting.Swap(0); w != 0; w &= w - 1 {
		// A task even for l itself: no connection resumes amid a delivery.
		to := l.b.loops[bits.TrailingZeros64(w)]
		l.link.Send(to.id, link.TaskFunc(func(link.Loop) { to.unblock() }))
	}
}
