package broker

import (
	"context"
	"errors"
	"fmt"

	"hashplus/broker/wire"
	"hashplus/transport/link"
)

// clientState is where a connection stands. The moves are
//
//	awaitConnect ─▶ authenticating ⇄ exchanging
//	      │               │
//	      └───────────────┴─▶ moving ─▶ open ─▶ closed
//
// and from each of them to closed.
type clientState uint8

const (
	awaitConnect   clientState = iota // nothing but CONNECT may come
	authenticating                    // an authenticator is at work; reads are paused
	exchanging                        // the client's next AUTH is awaited
	moving                            // on the way to the loop of its session
	open                              // CONNACK was sent
	closed                            // nothing that comes counts any more
)

// moves has for each state those that may follow it, as bits.
var moves = [...]uint8{
	awaitConnect:   1<<authenticating | 1<<moving | 1<<closed,
	authenticating: 1<<exchanging | 1<<moving | 1<<closed,
	exchanging:     1<<authenticating | 1<<closed,
	moving:         1<<open | 1<<closed,
	open:           1 << closed,
	closed:         0,
}

// become moves c to another state.
func (c *client) become(next clientState) {
	if invariants && moves[c.state]>>next&1 == 0 {
		panic(fmt.Sprintf("broker: a client moves from state %d to %d", c.state, next))
	}
	c.state = next
}

// client is one connection and what belongs to it alone. It is owned by the
// loop that its connection is on.
type client struct {
	b    *Broker
	l    *loop
	conn link.Conn

	announced *settings // those in force when it came: what it is told, and held to

	state    clientState
	version  wire.Version
	framing  link.Framing
	problems bool // Request Problem Information
	reauth   bool // an AUTH exchange runs on an open connection
	choked   bool // held until the client has read what it asked for
	holds    int8 // reasons for which reads are paused, see hold

	receiveMaximum uint16 // the client's
	aliasMaximum   uint16 // the client's, limited by ours
	maxPacket      int    // the client's Maximum Packet Size

	session    *session
	will       *will
	keepAlive  int64  // nanoseconds, 0: off
	lastPacket int64  // when the last MQTT packet came
	expires    int64  // when its Grant ends; maxTime: never
	walks      int    // of messages of its own that were put off, see ahead
	dear       uint64 // the tick in which it last caused much work, 0: never; see effort
	timer      link.Timer

	grounds    any    // of its Grant
	authMethod string // of CONNECT, "" without extended authentication
	throttle   *throttle
	aliasIn    []string // topic of alias i+1
	aliasOut   map[string]uint16

	pending *pendingConnect // until open, and during a re-authentication
	owed    owed
}

func newClient(l *loop, conn link.Conn) *client {
	c := &client{
		b: l.b, l: l, conn: conn, announced: l.b.options(), framing: conn.Framing(), maxPacket: maxPacketSize, expires: maxTime,
	}
	c.timer.Owner = c
	l.arm(&c.timer, l.now()+int64(c.announced.ConnectTimeout))
	return c
}

// maxPacketSize is the largest packet that MQTT can express.
const maxPacketSize = 268_435_455 + 5

// Data implements link.Stream.
func (c *client) Data(b []byte) (n int) {
	if c.ahead() {
		c.lastPacket = c.l.now() // it is not silent: we don't listen
		c.conn.Yield()
		return 0
	}
	if c.choke() {
		return 0
	}
	for range packetBudget {
		h, err := wire.ReadHeader(b[n:])
		if err != nil {
			c.fail(err)
			return len(b)
		}
		if h.Size == 0 {
			return n
		}
		size := h.Size + h.Remaining
		if err := c.admit(h, size); err != nil {
			c.fail(err)
			return len(b)
		}
		if size > len(b)-n {
			return n
		}
		filters := h.Type == wire.SUBSCRIBE || h.Type == wire.UNSUBSCRIBE
		if (filters || c.dear != 0 && h.Type == wire.PUBLISH) && !c.l.effort.admits(c) {
			c.lastPacket = c.l.now() // it waits for us
			c.conn.Yield()
			return n
		}
		if filters {
			before := c.l.effort.left
			c.l.effort.left -= subscribeEffort * size
			c.l.effort.note(c, before)
		}
		body := b[n+h.Size : n+size]
		n += size
		c.lastPacket = c.l.now()
		c.l.stats.got(size)
		if err := c.packet(h, body); err != nil {
			c.fail(err)
		}
		switch {
		case c.state == closed:
			return len(b)
		case c.state == moving || c.holds > 0:
			return n
		case n == len(b):
			return n
		case c.ahead():
			c.conn.Yield()
			return n
		}
	}
	c.conn.Yield()
	return n
}

// choke stops reading from a client that does not read: what goes past high
// water are answers to its own packets, which nothing else bounds.
func (c *client) choke() bool {
	if c.state != open || c.conn.Buffered() < 2*c.b.options().WriteQueueBytes {
		return false
	}
	c.choked = true
	c.hold()
	c.conn.NotifyBelow(c.b.options().WriteQueueBytes / 2)
	return true
}

// admit checks what can be told from a fixed header, before the packet has
// come: a packet that may not come is refused before memory is spent on it.
func (c *client) admit(h wire.Header, size int) error {
	limit := c.announced.MaximumPacketSize
	if c.state == awaitConnect && h.Type != wire.CONNECT {
		return &wire.Error{Reason: wire.ProtocolError, Clause: "MQTT-3.1.0-1",
			Detail: "the first packet is " + h.Type.String() + ", not CONNECT"}
	}
	if c.state != open {
		limit = min(limit, c.announced.MaxConnectSize)
	}
	if size > limit {
		return &wire.Error{Reason: wire.PacketTooLarge, Clause: "MQTT-3.2.2-15",
			Detail: fmt.Sprintf("%s of %d bytes, %d are allowed", h.Type, size, limit)}
	}
	return nil
}

// packet handles one packet. An error ends the connection with its reason.
func (c *client) packet(h wire.Header, body []byte) error {
	if c.state == open {
		switch h.Type {
		case wire.PUBLISH:
			return c.publish(h, body)
		case wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP:
			return c.ack(h, body)
		case wire.PINGREQ:
			c.pingresp()
			return nil
		case wire.SUBSCRIBE:
			return c.subscribe(h, body)
		case wire.UNSUBSCRIBE:
			return c.unsubscribe(h, body)
		case wire.DISCONNECT:
			return c.disconnect(h, body)
		case wire.AUTH:
			return c.authPacket(h, body)
		case wire.CONNECT:
			return &wire.Error{Reason: wire.ProtocolError, Clause: "MQTT-3.1.0-2", Detail: "a second CONNECT"}
		}
		return &wire.Error{Reason: wire.ProtocolError, Detail: h.Type.String() + " from a client"}
	}
	if c.state == awaitConnect {
		return c.connect(h, body)
	}
	if c.state == exchanging && h.Type == wire.AUTH {
		return c.authPacket(h, body)
	}
	if c.state == exchanging && h.Type == wire.DISCONNECT {
		return c.disconnect(h, body)
	}
	return &wire.Error{Reason: wire.ProtocolError, Clause: "MQTT-4.12.0-4",
		Detail: h.Type.String() + " before CONNACK"}
}

// hold pauses reads until as many calls of unhold.
func (c *client) hold() {
	if c.holds++; c.holds == 1 && c.state != closed {
		c.conn.Pause()
	}
}

// unhold takes back one hold. The keep alive clock starts anew: it stood still
// while the client could not be heard.
func (c *client) unhold() {
	c.holds--
	if c.holds == 0 && c.state != closed {
		c.lastPacket = c.l.now()
		c.conn.Resume()
	}
}

// reserve makes room for a packet of n bytes on the write queue, framed.
func (c *client) reserve(n int) []byte {
	hl := c.framing.HeaderLen(n)
	b := c.conn.Reserve(hl + n)
	c.framing.PutHeader(b, n)
	c.l.stats.sent(n)
	return b[hl:]
}

// write queues a packet, unless the client does not take one of its size
// [MQTT-3.1.2-24].
func (c *client) write(packet []byte) {
	if len(packet) <= c.maxPacket {
		copy(c.reserve(len(packet)), packet)
	}
}

func (c *client) writeAck(t wire.Type, id uint16, reason wire.ReasonCode) {
	var b [wire.AckSize]byte
	n := wire.PutAck(b[:], t, c.version, id, reason)
	copy(c.reserve(n), b[:n])
}

func (c *client) pingresp() {
	b := c.reserve(2)
	b[0], b[1] = byte(wire.PINGRESP)<<4, 0
}

// Arrived implements link.Stream: the connection is on its session's loop.
func (c *client) Arrived() {
	c.l = c.b.loops[c.conn.Loop().ID()]
	if c.state == moving {
		c.enter()
	}
}

// Writable implements link.Stream.
func (c *client) Writable() {
	if c.state != open {
		return
	}
	if c.choked {
		c.choked = false
		c.unhold()
	}
	s := c.session
	s.pump()
	s.wantReplay()
	s.roomChanged()
}

// Stalled implements link.Stream: the client takes nothing.
func (c *client) Stalled() {
	c.fail(&wire.Error{Reason: wire.QuotaExceeded, Detail: "the client does not read: its write queue has stalled"})
}

// Dismissed implements link.Stream.
func (c *client) Dismissed(why link.Dismissal) {
	reason := wire.AdministrativeAction
	if why == link.Revoked {
		reason = wire.NotAuthorized
	}
	c.fail(refusal(reason, why.String()))
}

// Closed implements link.Stream.
func (c *client) Closed(cause error) {
	if c.state == closed {
		return
	}
	if cause == nil {
		cause = errHungUp
	}
	if c.state == open {
		c.b.log.Debug("connection lost", "client", c.session.id, "remote", c.remote(), "cause", cause)
	} else {
		c.b.log.Debug("connection closed before CONNACK", "remote", c.remote(), "cause", cause)
	}
	c.leave(wire.UnspecifiedError, true)
}

// errHungUp is the cause where the end of the stream came in order, but no DISCONNECT
// before it.
var errHungUp = errors.New("the client closed it without DISCONNECT")

// Expire implements link.Expirer: the connect deadline, which begins anew where
// CONNACK waits for the store; then the keep alive and the end of the Grant, which
// share the timer.
func (c *client) Expire(*link.Timer) {
	switch c.state {
	case closed:
	case open:
		now := c.l.now()
		if now >= c.expires {
			c.fail(refusal(wire.NotAuthorized, "the credentials of the client have expired"))
			return
		}
		if at := c.deadline(); now < at {
			c.l.arm(&c.timer, at)
			return
		}
		c.fail(&wire.Error{Reason: wire.KeepAliveTimeout, Clause: "MQTT-3.1.2-22",
			Detail: "nothing heard for one and a half times the keep alive"})
	case authenticating:
		c.fail(authError(context.DeadlineExceeded))
	case exchanging:
		c.fail(&wire.Error{Reason: wire.ProtocolError, Detail: "the client's next AUTH did not come within the deadline"})
	case moving: // see arrive
		c.fail(refusal(wire.ServerUnavailable, "the session could not be stored within the deadline"))
	case awaitConnect:
		c.fail(&wire.Error{Reason: wire.ProtocolError, Detail: "no complete CONNECT within the deadline"})
	}
}

// deadline is when the timer of an open client has to look at it.
func (c *client) deadline() int64 {
	if c.keepAlive == 0 {
		return c.expires
	}
	return min(c.expires, c.aliveUntil())
}

// aliveUntil is when the client counts as gone: one and a half keep alives
// after its last packet. Where pongs count they stretch that, to three keep
// alives at the most: a browser throttles the timers of a hidden page, but its
// network stack answers pings.
func (c *client) aliveUntil() int64 {
	if c.holds > 0 {
		return c.l.now() + max(c.keepAlive, 10*second)
	}
	at := c.lastPacket + c.keepAlive*3/2
	if pong := c.conn.LastPong(); pong > c.lastPacket && c.conn.Info().PongGrace && !c.b.options().Strict {
		at = max(at, min(pong+c.keepAlive*3/2, c.lastPacket+3*c.keepAlive))
	}
	return at
}

func (c *client) remote() string {
	if r := c.conn.Info().Remote; r.IsValid() {
		return r.String()
	}
	return c.conn.Info().Listener
}
