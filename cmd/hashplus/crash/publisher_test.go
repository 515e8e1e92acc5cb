package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"hashplus/broker/wire"
)

// person is what publishers and subscribers have in common: a session that
// outlives its connections. One goroutine.
type person struct {
	id     string
	v      wire.Version
	window uint16 // Receive Maximum to announce; 0: none
	net    *network
	ledger *ledger
	rand   *rand.Rand
	plan   *plan
	done   *atomic.Bool // set when there is nothing left to do

	joined bool // once: the broker has a session for it
	old    *conn
}

// join connects until the broker lets it in, or there is nothing left to do
// (nil). fresh reports that the broker has no session of it, though it had.
func (p *person) join() (c *conn, fresh bool) {
	for !p.done.Load() {
		c, fresh, err := p.tryJoin()
		if err == nil {
			return c, fresh
		}
		time.Sleep(time.Duration(10+p.rand.IntN(30)) * time.Millisecond)
	}
	return nil, false
}

func (p *person) tryJoin() (c *conn, fresh bool, err error) {
	c, err = p.net.dial(p.v)
	if err != nil {
		return nil, false, err
	}
	opened := c
	defer func() {
		if p.old != nil { // that the broker has closed by now, or will not miss
			p.old.close()
			p.old = nil
		}
		if err != nil {
			opened.close()
		}
	}()
	hello := wire.Connect{Version: p.v, ClientID: p.id, RequestProblem: true, SessionExpiry: 3600, ReceiveMaximum: p.window}
	if err := c.write(hello.Append(nil)); err != nil {
		return nil, false, err
	}
	a, err := c.next(time.Now().Add(10 * time.Second))
	if err != nil {
		return nil, false, err
	}
	if a.typ != wire.CONNACK || a.reason != wire.Success {
		if a.typ != wire.CONNACK {
			p.broken("%v in place of CONNACK", a)
		}
		return nil, false, errors.New("refused")
	}
	if !a.connack.SessionPresent && p.joined {
		p.ledger.fault(&p.ledger.sessions, "%s: the broker has no session of it any more", p.id)
		fresh = true
	}
	p.joined = true
	return c, fresh, nil
}

// leave ends a connection in one of the ways that connections end.
func (p *person) leave(c *conn) {
	switch p.rand.IntN(5) {
	case 0: // left open, to be taken over
		p.old = c
		return
	case 1:
		if c.write([]byte{byte(wire.DISCONNECT) << 4, 0}) == nil {
			_, _ = c.next(time.Now().Add(100 * time.Millisecond)) // the end, mostly
		}
	}
	c.close()
}

func (p *person) broken(format string, args ...any) {
	p.ledger.fault(&p.ledger.broken, "%s: %s", p.id, fmt.Sprintf(format, args...))
}

// until is when the connection that has just begun shall end.
func (p *person) until() time.Time {
	if p.plan.stay == 0 {
		return time.Now().Add(time.Hour)
	}
	return time.Now().Add(time.Duration(float64(p.plan.stay) * (0.1 + p.rand.ExpFloat64())))
}

// flight is a message on the way to the broker.
type flight struct {
	id       uint16
	stream   int
	number   int
	received bool // QoS 2: PUBREC came; PUBREL is on the way
	size     int
}

// publisher sends its streams, re-sends what was not acknowledged, and never
// gives a message up.
type publisher struct {
	person
	streams  []int // in the ledger
	stopping *atomic.Bool
	flights  []flight // in the order of first sending
	nextID   uint16
	out      []byte
}

// live runs until it has been told to stop and all is acknowledged.
func (p *publisher) live() {
	for {
		c, fresh := p.join()
		if c == nil {
			return
		}
		if fresh {
			p.flights = nil // the session's state is gone, on this side as well [MQTT-3.2.2-5]
		}
		if p.converse(c) {
			_ = c.write([]byte{byte(wire.DISCONNECT) << 4, 0}) // nothing hangs on it
			c.close()
			return
		}
		p.leave(c)
		time.Sleep(time.Duration(p.rand.IntN(20)) * time.Millisecond)
	}
}

// converse uses a connection until its end; over means that all is done.
func (p *publisher) converse(c *conn) (over bool) {
	until := p.until()
	p.out = p.out[:0]
	for i := range p.flights {
		p.append(c, &p.flights[i], true)
	}
	pause := time.Now()
	for !p.done.Load() {
		stopping := p.stopping.Load()
		if stopping && len(p.flights) == 0 {
			return true
		}
		if !stopping && !time.Now().Before(pause) {
			for n := p.rand.IntN(p.plan.window + 1); n > 0 && len(p.flights) < p.plan.window; n-- {
				p.begin(c)
			}
			pause = time.Now().Add(time.Duration(float64(p.plan.pause) * p.rand.ExpFloat64()))
		}
		if len(p.out) > 0 {
			if c.write(p.out) != nil {
				return false
			}
			p.out = p.out[:0]
		}
		if time.Now().After(until) && !stopping {
			return false
		}
		wait := time.Now().Add(20 * time.Millisecond)
		for {
			a, err := c.next(wait)
			if err != nil {
				if timedOut(err) {
					break
				}
				return false
			}
			if !p.handle(c, a) {
				return false
			}
			if !c.ready() {
				break
			}
		}
	}
	return false
}

// begin adds a new message to out.
func (p *publisher) begin(c *conn) {
	for p.busy(p.nextID) || p.nextID == 0 {
		p.nextID++
	}
	size := 16 + p.rand.IntN(200)
	if p.rand.IntN(100) == 0 {
		size = 5000 + p.rand.IntN(15000)
	}
	f := flight{id: p.nextID, stream: p.streams[p.rand.IntN(len(p.streams))], size: size}
	p.nextID++
	f.number = p.ledger.begin(p.ledger.streams[f.stream])
	p.flights = append(p.flights, f)
	p.append(c, &f, false)
}

func (p *publisher) busy(id uint16) bool {
	for i := range p.flights {
		if p.flights[i].id == id {
			return true
		}
	}
	return false
}

// append adds what is due for f to out. Re-sent are PUBLISH and PUBREL with
// their packet identifiers, in the order they had [MQTT-4.4.0-1, 4.6.0-1].
func (p *publisher) append(c *conn, f *flight, again bool) {
	s := p.ledger.streams[f.stream]
	if f.received {
		s.tell(f.number, c, "PUBREL")
		p.out = appendAck(p.out, wire.PUBREL, f.id)
		return
	}
	if again {
		s.again(f.number)
		s.tell(f.number, c, fmt.Sprintf("sent again with %d", f.id))
	} else {
		s.tell(f.number, c, fmt.Sprintf("sent with %d, %d bytes", f.id, f.size))
	}
	p.out = appendPublish(p.out, &wire.Outgoing{
		Version: p.v, QoS: s.qos, Dup: again, PacketID: f.id, Topic: []byte(s.topic),
		Payload: p.ledger.payload(f.stream, f.number, f.size),
	})
}

// handle takes a packet in; false ends the connection.
func (p *publisher) handle(c *conn, a *packet) bool {
	at := -1
	for i := range p.flights {
		if p.flights[i].id == a.id {
			at = i
		}
	}
	if a.typ == wire.DISCONNECT {
		if a.reason != wire.ServerShuttingDown && a.reason != wire.SessionTakenOver {
			p.broken("%v", a)
		}
		return false
	}
	if at < 0 {
		p.broken("%v for nothing on the way", a)
		return false
	}
	f := &p.flights[at]
	s := p.ledger.streams[f.stream]
	s.tell(f.number, c, a.typ.String())
	switch {
	case a.typ == wire.PUBACK && s.qos == 1, a.typ == wire.PUBREC && s.qos == 2 && a.reason.Failed():
		if a.reason.Failed() {
			p.broken("%v: a message is refused", a)
		} else {
			s.acked(f.number)
		}
		p.flights = append(p.flights[:at], p.flights[at+1:]...)
	case a.typ == wire.PUBREC && s.qos == 2:
		s.acked(f.number)
		f.received = true
		p.append(c, f, false)
	case a.typ == wire.PUBCOMP && f.received:
		p.flights = append(p.flights[:at], p.flights[at+1:]...)
	default:
		p.broken("%v for number %d of %s, QoS %d, PUBREC seen: %v", a, f.number, s.topic, s.qos, f.received)
		return false
	}
	p.ledger.moved()
	return true
}
