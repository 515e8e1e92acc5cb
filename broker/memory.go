package broker

import (
	"sync/atomic"

	"hashplus/broker/wire"
)

// memory is what somebody who watches the process has said of it.
type memory struct {
	short atomic.Bool
	used  atomic.Int64
}

// SetMemory says how much memory the process uses and whether that is too much.
// As long as it is, work that would need more is refused: connections with 0x89
// Server busy, QoS 1 and 2 messages and new subscriptions with 0x97 Quota
// exceeded; a client of a version that cannot be told is not read from when it
// has sent such a message; at QoS 0 no message becomes the retained one. Any
// goroutine.
func (b *Broker) SetMemory(used int64, short bool) {
	b.memory.used.Store(used)
	if b.memory.short.Swap(short) && !short {
		for _, l := range b.loops {
			l.call((*loop).relieve)
		}
	}
}

// refusePublish reports whether a QoS 1 or 2 message of c is refused because
// memory is short. Below version 5 there is no way to say so: that one message
// is taken, and nothing after it is read until there is memory again.
func (c *client) refusePublish() bool {
	c.b.refused.memory.Add(1)
	if c.version == wire.V5 {
		return true
	}
	c.hold()
	c.l.starved = append(c.l.starved, c)
	return false
}

// relieve resumes the clients that wait for memory.
func (l *loop) relieve() {
	if l.b.memory.short.Load() {
		return // short again; that it ends will be told again
	}
	for i, c := range l.starved {
		l.starved[i] = nil
		if c.state != closed {
			c.unhold()
		}
	}
	l.starved = l.starved[:0]
}
