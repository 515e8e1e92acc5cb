package crash

import (
	"time"

	"hashplus/broker/wire"
)

// subscriber has a durable session with subscriptions, takes what comes and
// acknowledges it in order, not always at once.
type subscriber struct {
	person
	filters []wire.Subscription
	to      *receiver
	limit   int           // Receive Maximum, or what 3.1.1 leaves to the broker
	late    time.Duration // that it subscribes after the start

	subscribed bool
	received   map[uint16]string // QoS 2 identifiers between PUBLISH and PUBREL: payload's start
	before     map[string]uint16 // identifiers of what came on the connection before, by the payload's start
	now        map[string]uint16 // the same, on this connection
	life       int               // of the broker on the connection before

	held []byte          // acknowledgements that wait
	open map[uint16]bool // on this connection, not acknowledged to the end
}

// live runs until there is nothing left to do.
func (s *subscriber) live() {
	time.Sleep(s.late)
	s.received, s.now = map[uint16]string{}, map[string]uint16{}
	for {
		c, fresh := s.join()
		if c == nil {
			return
		}
		s.before, s.now = s.now, map[string]uint16{}
		if fresh {
			s.subscribed = false
			clear(s.received)
			clear(s.before)
		}
		s.held, s.open = nil, map[uint16]bool{}
		s.converse(c)
		s.life = c.life
		if s.done.Load() {
			c.close()
			return
		}
		s.leave(c)
		if s.plan.stay > 0 && !s.plan.settling.Load() && s.rand.IntN(2) == 0 {
			s.away()
		}
	}
}

// away stays away for a while.
func (s *subscriber) away() {
	for end := time.Now().Add(time.Duration(s.rand.IntN(600)) * time.Millisecond); time.Now().Before(end) && !s.plan.settling.Load(); {
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *subscriber) converse(c *conn) {
	if !s.subscribed {
		ask := wire.Subscribe{PacketID: 1, Filters: s.filters}
		if c.write(ask.Append(nil, s.v)) != nil {
			return
		}
	}
	until := s.until()
	for !s.done.Load() {
		if time.Now().After(until) && !s.plan.settling.Load() {
			return
		}
		p, err := c.next(time.Now().Add(5 * time.Millisecond))
		switch {
		case err == nil:
			if !s.handle(c, p) {
				return
			}
		case !timedOut(err):
			return
		}
		// Acknowledgements leave together, some of them late.
		if len(s.held) > 0 && (err != nil || !c.ready() && s.rand.IntN(4) > 0) {
			if c.write(s.held) != nil {
				return
			}
			s.held = s.held[:0]
		}
	}
}

// handle takes a packet in; false ends the connection.
func (s *subscriber) handle(c *conn, p *packet) bool {
	switch p.typ {
	case wire.SUBACK:
		for i, r := range p.reasons {
			if byte(r) != s.filters[i].QoS {
				s.broken("%v for %v", p, s.filters[i])
			}
		}
		s.subscribed = true
		s.to.mu.Lock()
		if s.to.since == 0 {
			s.to.since = s.ledger.clock.Add(1)
		}
		s.to.mu.Unlock()
	case wire.PUBLISH:
		return s.take(c, p)
	case wire.PUBREL:
		s.ledger.moved()
		delete(s.received, p.id)
		delete(s.open, p.id)
		s.held = appendAck(s.held, wire.PUBCOMP, p.id)
	case wire.DISCONNECT:
		if p.reason != wire.ServerShuttingDown && p.reason != wire.SessionTakenOver {
			s.broken("%v", p)
		}
		return false
	default:
		s.broken("unexpected %v", p)
		return false
	}
	return true
}

// checkAgain holds a message that came on the connection before, too, against the
// rules for it: DUP, and the same identifier [MQTT-3.3.1-1, 4.4.0-1]. At QoS 1 a
// crash may have made the broker forget that it was sent; and what the publisher
// sent again, or what went through other members of a group, is another message.
func (s *subscriber) checkAgain(c *conn, p *packet, key string) {
	id, again := s.before[key]
	if !again || p.publish.Dup && id == p.id {
		return
	}
	if p.publish.QoS == 1 {
		stream, number, ok := s.ledger.open(p.publish.Payload)
		if !ok || s.life != c.life || s.to.group || s.ledger.streams[stream].sentTimes(number) != 1 {
			return
		}
	}
	s.broken("%v: it was sent with identifier %d before (broker life %d, now %d)", p, id, s.life, c.life)
}

// take takes a message.
func (s *subscriber) take(c *conn, p *packet) bool {
	m := p.publish
	key := string(m.Payload[:min(len(m.Payload), stampSize)])
	if m.QoS > 0 {
		if s.open[p.id] && (m.QoS == 1 || !m.Dup) {
			s.broken("%v: the identifier is in use on this connection", p)
		}
		s.open[p.id] = true
		if len(s.open) > s.limit {
			s.broken("%d messages on the way, Receive Maximum is %d", len(s.open), s.limit)
		}
		s.now[key] = p.id
		s.checkAgain(c, p, key)
	}
	switch m.QoS {
	case 0:
		s.broken("%v at QoS 0", p)
	case 1:
		s.ledger.receive(s.to, m.Payload, string(m.Topic), 1, m.Dup, c.life)
		s.held = appendAck(s.held, wire.PUBACK, p.id)
		delete(s.open, p.id)
	case 2:
		s.held = appendAck(s.held, wire.PUBREC, p.id)
		was, again := s.received[p.id]
		switch {
		case again && was != key:
			s.broken("%v: another message had this identifier and was not released", p)
			s.ledger.receive(s.to, m.Payload, string(m.Topic), 2, m.Dup, c.life)
		case again:
			if !m.Dup {
				s.broken("%v was sent before", p)
			}
		default:
			s.ledger.receive(s.to, m.Payload, string(m.Topic), 2, m.Dup, c.life)
		}
		s.received[p.id] = key
	}
	return true
}
