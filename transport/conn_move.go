package transport

import (
	"hashplus/transport/link"
)

// Move implements link.Conn.
func (c *conn) Move(to int) {
	if c.state != open || c.has(moving) {
		return // one that has ended stays, and its stream hears of the end here
	}
	c.set(moving)
	c.moveTo = int32(to)
	c.loop.moving = append(c.loop.moving, c)
}

// moveAway sends the connections for which Move was called during the tick.
func (l *loop) moveAway() {
	for i, c := range l.moving {
		l.moving[i] = nil
		if c.has(moving) && c.state == open {
			l.give(c, l.server.loops[c.moveTo])
		}
	}
	l.moving = l.moving[:0]
}

// give hands c over. Everything that belongs to it goes in one message, and
// from that on this loop does not touch it.
func (l *loop) give(c *conn, to *loop) {
	l.forget(c)
	// Off this loop before it is on the other, so that no event finds two owners.
	c.loop = to
	if err := c.sock.detach(l, to); err != nil {
		l.log.Error("a connection could not be taken off its loop", "cause", err)
	}
	l.Send(to.id, (*arrival)(c))
}

// arrival is a connection on its way to the loop that runs it.
type arrival conn

func (a *arrival) Run(link.Loop) {
	c := (*conn)(a)
	l := c.loop
	c.unset(moving | full)
	if err := l.adopt(c); err != nil {
		c.abort(err)
		return
	}
	c.schedule()
	c.callArrived()
	if l.draining {
		c.turnAway(link.CloseGoingAway, "server shutting down")
	}
	c.endIfUnwanted() // it may have been on its way when others were told
	if c.unsent() {
		l.makeDirty(c)
	}
	// Nobody tells of what came while no loop looked, and the stream may have
	// left complete packets behind.
	c.set(again)
	c.set(readable)
	c.serve()
	c.checkBelow()
}

func (a *arrival) discard() { (*conn)(a).lose() }

// adopt makes c one of l's connections and asks for its events.
func (l *loop) adopt(c *conn) error {
	l.addSlot(c)
	return c.sock.attach(l, c.slot, c.gen)
}
