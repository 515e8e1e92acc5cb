package broker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"hashplus/broker/wire"
	"hashplus/transport/link"
)

// Messages that one connection publishes arrive in order at every subscriber,
// on whichever loop it lives, even when one message takes many ticks to reach
// all of them.
func TestDeliver_OrderHoldsAcrossTicksAndLoops(t *testing.T) { // [MQTT-4.6.0-6]
	const subscribers, messages = 20_000, 5
	for loops := 1; loops <= 3; loops++ {
		s := newSim(t, loops, Options{})
		var subs []*simConn
		for i := range subscribers {
			c := s.join(i%loops, fmt.Sprint("s", i), wire.V311, 0)
			c.sub(wire.V311, wire.Subscription{Filter: "a/+"})
			subs = append(subs, c)
			if i%1000 == 0 {
				// One that matches two filters, in both of which it may be met
				// in a different tick.
				c.sub(wire.V311, wire.Subscription{Filter: "#"})
			}
		}
		p := s.join(0, "p", wire.V311, 0)
		var burst []byte
		for i := range messages {
			burst = append(burst, pub(wire.V311, "a/b", fmt.Sprint(i), 0, 0)...)
		}
		p.send(burst)
		for i, c := range subs {
			var seen string
			for _, g := range c.publishes(wire.V311) {
				seen += string(g.pub.Payload)
			}
			if seen != "01234" {
				t.Fatalf("%d loops: subscriber %d got %q", loops, i, seen)
			}
		}
		for _, l := range s.b.loops {
			if n := l.inbox.pending.Load(); n != 0 || len(l.walks) != 0 {
				t.Fatalf("%d loops: inbox holds %d bytes, %d walks are left", loops, n, len(l.walks))
			}
		}
	}
}

// A burst for many is in every write queue after one tick, so that it leaves in
// one write for each of them.
func TestDeliver_BurstStaysTogether(t *testing.T) {
	const subscribers, burst = fanoutBudget / 2, 8
	s := newSim(t, 1, Options{})
	var subs []*simConn
	for i := range subscribers {
		c := s.join(0, fmt.Sprint("s", i), wire.V311, 0)
		c.sub(wire.V311, wire.Subscription{Filter: "a"})
		c.deaf = true // what is written stays in the queue
		subs = append(subs, c)
	}
	one := pub(wire.V311, "a", "payload", 0, 0)
	p := s.join(0, "p", wire.V311, 0)
	p.feed(bytes.Repeat(one, burst))
	s.turn()
	for i, c := range subs {
		if n := len(c.queue) / len(one); n != burst {
			t.Fatalf("subscriber %d has %d messages of %d after a tick", i, n, burst)
		}
	}
}

// A message for other filters does not wait for one that takes many ticks.
func TestDeliver_LongFanoutDelaysNobodyElse(t *testing.T) {
	s := newSim(t, 1, Options{})
	for i := range 3 * fanoutBudget {
		s.join(0, fmt.Sprint("s", i), wire.V311, 0).sub(wire.V311, wire.Subscription{Filter: "big"})
	}
	quick := s.join(0, "quick", wire.V311, 0)
	quick.sub(wire.V311, wire.Subscription{Filter: "small"})
	p, q := s.join(0, "p", wire.V311, 0), s.join(0, "q", wire.V311, 0)
	p.feed(pub(wire.V311, "big", "x", 0, 0))
	q.feed(pub(wire.V311, "small", "y", 0, 0))
	s.turn()
	if len(s.b.loops[0].walks) == 0 {
		t.Fatal("the fan-out was over in one tick: it shows nothing")
	}
	s.turn()
	if len(quick.publishes(wire.V311)) != 1 {
		t.Fatal("the small message waited for the big one")
	}
}

// A session that leaves in the middle of a long fan-out disturbs nobody else's
// delivery.
func TestDeliver_MembersMayLeaveDuringFanout(t *testing.T) {
	s := newSim(t, 1, Options{})
	var subs []*simConn
	for i := range 2*fanoutBudget + 100 {
		c := s.join(0, fmt.Sprint("s", i), wire.V311, 0)
		c.sub(wire.V311, wire.Subscription{Filter: "big"})
		subs = append(subs, c)
	}
	p := s.join(0, "p", wire.V311, 0)
	p.feed(pub(wire.V311, "big", "x", 0, 0))
	s.turn()
	for i := 0; i < len(subs); i += 3 {
		subs[i].end(nil)
	}
	s.run()
	for i, c := range subs {
		if n := len(c.publishes(wire.V311)); i%3 != 0 && n != 1 {
			t.Fatalf("subscriber %d got %d messages", i, n)
		}
	}
	p.send(pub(wire.V311, "big", "y", 0, 0))
	for i, c := range subs {
		if n := len(c.publishes(wire.V311)); i%3 != 0 && n != 1 {
			t.Fatalf("subscriber %d got %d of the second message", i, n)
		}
	}
	for i, c := range subs {
		if i%3 != 0 {
			c.cut()
		}
	}
	if n := s.b.index.Len(); n != 0 {
		t.Fatalf("%d filters are left without members", n)
	}
}

// A payload that is large goes by reference, one copy for all.
func TestDeliver_LargePayloadIsShared(t *testing.T) {
	s := newSim(t, 2, Options{})
	a, b := s.join(0, "a", wire.V311, 0), s.join(1, "b", wire.V5, 0)
	a.sub(wire.V311, wire.Subscription{Filter: "x", QoS: 1})
	b.sub(wire.V5, wire.Subscription{Filter: "x", QoS: 0})
	big := string(make([]byte, 3*shareFrom))
	s.join(0, "p", wire.V5, 0).send(pub(wire.V5, "x", big, 1, 7))
	for v, c := range map[wire.Version]*simConn{wire.V311: a, wire.V5: b} {
		got := c.publishes(v)
		if len(got) != 1 || string(got[0].pub.Payload) != big || c.shared != 1 {
			t.Fatalf("%v: %d messages, %d shared", v, len(got), c.shared)
		}
	}
}

// No allocation for a delivery, at any QoS that is on the hot path.
func TestDeliver_AllocatesNothingPerDelivery(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const subscribers = 1000
	for qos := range byte(2) {
		s := newSim(t, 1, Options{})
		var subs []*simConn
		for i := range subscribers {
			c := s.join(0, fmt.Sprint("s", i), wire.V311, 0)
			c.sub(wire.V311, wire.Subscription{Filter: "a/b", QoS: qos})
			c.queue = make([]byte, 0, 1<<16)
			subs = append(subs, c)
		}
		p := s.join(0, "p", wire.V311, 0)
		packet := pub(wire.V311, "a/b", "0123456789abcdef", qos, 1)
		buf := make([]byte, len(packet))
		id, ack := uint16(0), make([]byte, 4)
		n := testing.AllocsPerRun(50, func() {
			copy(buf, packet)
			p.stream.Data(buf)
			id++
			for _, c := range subs {
				if qos == 1 {
					wire.PutAck(ack[:], wire.PUBACK, wire.V311, id, 0)
					c.stream.Data(ack)
				}
				c.queue = c.queue[:0]
			}
			p.queue = p.queue[:0]
			s.b.Tick(s.loops[0])
		})
		if n > 8 {
			t.Errorf("QoS %d: %v allocations for %d deliveries", qos, n, subscribers)
		}
	}
}

// A filter that gets its first member on a loop while a message for it is
// still on its way to others there is not confused by that message.
func TestDeliver_FilterMayAppearDuringFanout(t *testing.T) {
	s := newSim(t, 2, Options{})
	for i := range fanoutBudget + 100 {
		s.join(0, s.idOn(0, fmt.Sprint("s", i)), wire.V311, 0).sub(wire.V311, wire.Subscription{Filter: "a/b"})
	}
	s.join(1, s.idOn(1, "far"), wire.V311, 0).sub(wire.V311, wire.Subscription{Filter: "a/+"})
	late := s.join(0, s.idOn(0, "late"), wire.V311, 0)
	later := s.join(0, s.idOn(0, "later"), wire.V311, 0)
	p := s.join(0, s.idOn(0, "p"), wire.V311, 0)
	p.feed(pub(wire.V311, "a/b", "x", 0, 0))
	s.loops[0].busy = nil
	p.listed = false
	p.stream.Data(p.in)
	p.in = nil
	if len(s.b.loops[0].walks) != 1 {
		t.Fatal("the fan-out was over at once: it shows nothing")
	}
	sub := wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{{Filter: "a/+"}}}
	late.stream.Data(sub.Append(nil, wire.V311))
	sub.Filters[0].Filter = "a/b"
	later.stream.Data(sub.Append(nil, wire.V311))
	s.run()
	part := s.sessionOf(s.idOn(0, "late")).subs.list[0].node.Value.loops[0]
	if part.walks != 0 {
		t.Fatalf("%d walks are counted where there are none", part.walks)
	}
	if got := payloads(late.publishes(wire.V311)) + payloads(later.publishes(wire.V311)); got != "" {
		t.Errorf("the late subscribers got %q, which was published before", got)
	}
	p.send(pub(wire.V311, "a/b", "y", 0, 0))
	if got := payloads(late.publishes(wire.V311)); got != "y" {
		t.Errorf("the late subscriber got %q, want y", got)
	}
}

// A second subscription that is made while a message is on its way takes
// nothing from the first.
func TestDeliver_OverlapMadeDuringFanoutLosesNothing(t *testing.T) {
	s := newSim(t, 1, Options{})
	both := s.join(0, "both", wire.V311, 0)
	for i := range fanoutBudget + 100 {
		s.join(0, fmt.Sprint("s", i), wire.V311, 0).sub(wire.V311, wire.Subscription{Filter: "a/b"})
	}
	for i := range fanoutBudget {
		s.join(0, fmt.Sprint("t", i), wire.V311, 0).sub(wire.V311, wire.Subscription{Filter: "a/+"})
	}
	both.sub(wire.V311, wire.Subscription{Filter: "a/+"})
	p := s.join(0, "p", wire.V311, 0)
	p.feed(pub(wire.V311, "a/b", "x", 0, 0))
	l := s.b.loops[0]
	for s.turn(); len(l.walks) > 0 && l.walks[0].node == 0; {
		s.turn()
	}
	if len(l.walks) == 0 {
		t.Fatal("the fan-out was over too soon: it shows nothing")
	}
	sub := wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{{Filter: "a/b"}}}
	both.feed(sub.Append(nil, wire.V311))
	s.run()
	if got := payloads(both.publishes(wire.V311)); got != "x" {
		t.Errorf("got %q, want x once", got)
	}
}

// A panic in the middle of one message leaves nothing of it to the next.
func TestDeliver_PanicLeavesNothingBehind(t *testing.T) {
	s := newSim(t, 1, Options{})
	c := s.join(0, "c", wire.V311, 60)
	c.sub(wire.V311, wire.Subscription{Filter: "a", QoS: 1})
	c.cut()
	d := s.join(0, "d", wire.V311, 0)
	d.sub(wire.V311, wire.Subscription{Filter: "a", QoS: 1})
	p := s.join(0, "p", wire.V311, 0)
	broken := &session{id: "broken", loop: s.b.loops[0], sink: panickingSink{}, traffic: &s.b.loops[0].idle}
	broken.put(nil, &subscription{filter: "a", topic: "a", qos: 1}, "", func() {})
	func() {
		defer func() { recover() }()
		p.stream.Data(pub(wire.V311, "a", "one", 1, 1))
	}()
	broken.end()
	p.send(pub(wire.V311, "a", "two", 1, 2))
	if got := payloads(d.publishes(wire.V311)); got != "one two" {
		t.Errorf("got %q, want one two", got)
	}
	if got := payloads(s.join(0, "c", wire.V311, 60).publishes(wire.V311)); got != "one two" {
		t.Errorf("got %q, want one two", got)
	}
}

// A message that goes to another loop costs no allocation either: not for
// itself, not for the way, not for a delivery; to a share group neither.
func TestDeliver_AllocatesNothingAcrossLoops(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	if invariants {
		t.Skip("messages are not recycled")
	}
	const subscribers = 100
	for name, filter := range map[string]func(*sim) string{
		"plain":  func(*sim) string { return "a/b" },
		"shared": func(s *sim) string { return s.groupOn(0, "a/b") },
	} {
		for qos := range byte(2) {
			s := newSim(t, 2, Options{})
			var subs []*simConn
			for i := range subscribers {
				c := s.join(0, s.idOn(1, fmt.Sprint("s", i)), wire.V311, 0)
				c.sub(wire.V311, wire.Subscription{Filter: filter(s), QoS: qos})
				c.queue = make([]byte, 0, 1<<16)
				subs = append(subs, c)
			}
			p := s.join(0, s.idOn(0, "p"), wire.V311, 0)
			p.queue = make([]byte, 0, 1<<16)
			packet := pub(wire.V311, "a/b", "0123456789abcdef", qos, 1)
			buf := make([]byte, len(packet))
			ack := make([]byte, 4)
			for _, l := range s.loops {
				l.tasks = make([]link.Task, 0, 1024)
			}
			mail := func(l *simLoop) {
				for i := 0; i < len(l.tasks); i++ {
					l.tasks[i].Run(l)
				}
				l.tasks = l.tasks[:0]
				s.b.Tick(l)
			}
			n := testing.AllocsPerRun(300, func() {
				copy(buf, packet)
				p.stream.Data(buf)
				p.queue = p.queue[:0]
				mail(s.loops[0])
				mail(s.loops[1])
				for _, c := range subs {
					if qos == 1 && len(c.queue) > 0 {
						id := binary.BigEndian.Uint16(c.queue[len(c.queue)-len("0123456789abcdef")-2:])
						wire.PutAck(ack, wire.PUBACK, wire.V311, id, 0)
						c.stream.Data(ack)
					}
					c.queue = c.queue[:0]
				}
				mail(s.loops[1])
				mail(s.loops[0])
			})
			if n > 0 {
				t.Errorf("%s, QoS %d: %v allocations", name, qos, n)
			}
			if got := s.b.Stats().PublishSent; got < 300 {
				t.Errorf("%s, QoS %d: %d were delivered", name, qos, got)
			}
		}
	}
}

// A publish is posted once to each other loop that has a subscriber,
// however many subscribers and filters there are.
func TestDeliver_OnePostForEachInterestedLoop(t *testing.T) {
	s := newSim(t, 4, Options{})
	for i := range 90 { // none on loop 3
		id := s.idOn(i%3, fmt.Sprint("s", i))
		s.join(i%3, id, wire.V311, 0).sub(wire.V311,
			wire.Subscription{Filter: "a/b"}, wire.Subscription{Filter: "a/+", QoS: 1}, wire.Subscription{Filter: "#"})
	}
	p := s.join(0, s.idOn(0, "p"), wire.V311, 0)
	for qos := range byte(2) {
		p.stream.Data(pub(wire.V311, "a/b", "x", qos, 1))
		for i, l := range s.loops {
			if n, want := len(l.tasks), [4]int{0, 1, 1, 0}[i]; n != want {
				t.Errorf("QoS %d: %d posts to loop %d, want %d", qos, n, i, want)
			}
		}
		s.run()
	}
}
