package broker

import (
	"fmt"
	"strings"

	"hashplus/broker/wire"
)

// ackOf encodes PUBACK, PUBREC, PUBREL or PUBCOMP.
func ackOf(t wire.Type, v wire.Version, id uint16, reason wire.ReasonCode) []byte {
	b := make([]byte, wire.AckSize)
	return b[:wire.PutAck(b, t, v, id, reason)]
}

// idOn returns a client identifier beginning with name whose session lives on
// the given loop.
func (s *sim) idOn(loop int, name string) string {
	for i := 0; ; i++ {
		if id := fmt.Sprintf("%s-%d", name, i); s.b.home(id).id == loop {
			return id
		}
	}
}

// sessionOf returns the session of a client identifier, or nil.
func (s *sim) sessionOf(id string) *session { return s.b.home(id).sessions[id] }

// payloads are the payloads of list, with a space between two.
func payloads(list []got) string {
	var all []string
	for _, g := range list {
		all = append(all, string(g.pub.Payload))
	}
	return strings.Join(all, " ")
}

// ack acknowledges each of list, which is of QoS 1.
func (c *simConn) ack(v wire.Version, list []got) {
	for _, g := range list {
		c.feed(puback(v, g.pub.PacketID))
	}
	c.s.run()
}

// retained encodes a PUBLISH with the retain flag.
func retained(v wire.Version, topic, payload string, qos byte, id uint16) []byte {
	b := pub(v, topic, payload, qos, id)
	b[0] |= 1
	return b
}

// disconnectReason returns the reason of the DISCONNECT that has arrived.
func (c *simConn) disconnectReason() (reason wire.ReasonCode, found bool) {
	for _, g := range c.take() {
		if g.h.Type == wire.DISCONNECT {
			if len(g.body) == 0 {
				return 0, true
			}
			return wire.ReasonCode(g.body[0]), true
		}
	}
	return 0, false
}

// everyLoops runs f for 1, 2 and 3 loops.
func everyLoops(f func(loops int)) {
	for loops := 1; loops <= 3; loops++ {
		f(loops)
	}
}

// turnOf gives the loops named a turn while the others do nothing.
func (s *sim) turnOf(loops ...int) {
	for _, i := range loops {
		l := s.loops[i]
		busy := l.busy
		l.busy = nil
		for _, c := range busy {
			c.listed = false
			c.serve()
		}
		for _, t := range l.mail() {
			s.guard(func() { t.Run(l) })
		}
		s.guard(func() { s.b.Tick(l) })
		for _, c := range append(busy, l.busy...) {
			c.depart()
		}
	}
}
