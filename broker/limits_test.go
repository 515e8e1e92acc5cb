package broker

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"hashplus/broker/wire"
)

func TestLimits_QueueFullPolicies(t *testing.T) {
	for policy, want := range map[QueueFull]string{DropNewest: "1 2 3", DropOldest: "8 9 10", Disconnect: ""} {
		everyLoops(func(loops int) {
			seen := &events{}
			s := newSim(t, loops, Options{QueueFull: policy, MaxQueuedMessages: 3, Observer: seen})
			c := s.join(0, "c", wire.V5, 60)
			c.sub(wire.V5, wire.Subscription{Filter: "q", QoS: 1})
			c.cut()
			s.join(0, "p", wire.V5, 0).pubs("q", 1, 1, 10)
			dropped := s.b.Stats().Dropped[DropQueueFull.String()]
			if policy == Disconnect {
				if s.sessionOf("c") != nil {
					t.Errorf("%v: the session has lost messages and is still there", policy)
				}
				if dropped != 7 || s.b.Stats().Queued != 0 {
					t.Errorf("%v: %d dropped, %d queued", policy, dropped, s.b.Stats().Queued)
				}
				return
			}
			if got := payloads(s.join(0, "c", wire.V5, 60).publishes(wire.V5)); got != want {
				t.Errorf("%v: %d loops: got %q, want %q", policy, loops, got, want)
			}
			if dropped != 7 || len(seen.lost) != 7 {
				t.Errorf("%v: %d loops: %d are counted, the Observer saw %d, want 7", policy, loops, dropped, len(seen.lost))
			}
		})
	}
}

func TestLimits_QueueFullDisconnectsTheClient(t *testing.T) {
	s := newSim(t, 2, Options{QueueFull: Disconnect, MaxQueuedMessages: 3})
	c := s.join(0, "c", wire.V5, 60, receiveMaximum(1))
	c.sub(wire.V5, wire.Subscription{Filter: "q", QoS: 1})
	s.join(0, "p", wire.V5, 0).pubs("q", 1, 1, 5)
	if reason, ok := c.disconnectReason(); !ok || reason != wire.QuotaExceeded {
		t.Errorf("got DISCONNECT %v, %v", reason, ok)
	}
	if !c.gone || s.sessionOf("c") != nil {
		t.Error("the client or its session is still there")
	}
}

// The queue is bounded in bytes too, and a message that is larger than all of
// it makes no other one go.
func TestLimits_QueueIsBoundedInBytes(t *testing.T) {
	s := newSim(t, 1, Options{QueueFull: DropOldest, MaxQueuedBytes: 3000})
	c := s.join(0, "c", wire.V5, 60)
	c.sub(wire.V5, wire.Subscription{Filter: "q", QoS: 1})
	c.cut()
	p := s.join(0, "p", wire.V5, 0)
	for i := range 5 {
		p.send(pub(wire.V5, "q", strings.Repeat(fmt.Sprint(i), 900), 1, uint16(i+1)))
	}
	p.send(pub(wire.V5, "q", strings.Repeat("x", 4000), 1, 9))
	if bytes := s.sessionOf("c").pending.bytes; bytes > 3000 {
		t.Errorf("%d bytes wait", bytes)
	}
	list := s.join(0, "c", wire.V5, 60).publishes(wire.V5)
	if len(list) != 3 || list[0].pub.Payload[0] != '2' || list[2].pub.Payload[0] != '4' {
		t.Errorf("%d came", len(list))
	}
}

// What a slow reader misses at QoS 0 is counted; at QoS 1 it waits, and comes
// in order. Nobody else misses anything.
func TestLimits_SlowReader(t *testing.T) {
	everyLoops(func(loops int) {
		seen := &events{}
		s := newSim(t, loops, Options{WriteQueueBytes: 4096, Observer: seen})
		slow, quick := s.join(0, "slow", wire.V5, 0), s.join(0, "quick", wire.V5, 0)
		for _, c := range []*simConn{slow, quick} {
			c.sub(wire.V5, wire.Subscription{Filter: "zero"}, wire.Subscription{Filter: "one", QoS: 1})
		}
		slow.deaf = true
		p := s.join(0, "p", wire.V5, 0)
		var want []string
		for i := range 100 {
			body := fmt.Sprint(i, strings.Repeat(".", 200))
			p.send(append(pub(wire.V5, "zero", body, 0, 0), pub(wire.V5, "one", body, 1, uint16(i+1))...))
			want = append(want, body)
		}
		if n := len(slow.queue); n > 4096+500 {
			t.Errorf("%d loops: %d bytes are in its write queue", loops, n)
		}
		if n := len(quick.publishes(wire.V5)); n != 200 {
			t.Errorf("%d loops: the quick reader got %d of 200", loops, n)
		}
		slow.deaf = false
		slow.wake()
		s.run()
		zero := 0
		var one []string
		for _, g := range slow.publishes(wire.V5) {
			if g.pub.QoS == 0 {
				zero++
			} else {
				one = append(one, string(g.pub.Payload))
			}
		}
		if got := strings.Join(one, " "); got != strings.Join(want, " ") {
			t.Errorf("%d loops: QoS 1 is not complete and in order: %d messages", loops, len(one))
		}
		dropped := s.b.Stats().Dropped[DropSlowReader.String()]
		if zero == 0 || int(dropped) != 100-zero || len(seen.lost) != int(dropped) {
			t.Errorf("%d loops: got %d at QoS 0, %d are counted as dropped", loops, zero, dropped)
		}
	})
}

// A client that sends and does not read is not read from either: what it asks
// for must not pile up.
func TestLimits_AnswersDoNotPileUp(t *testing.T) {
	s := newSim(t, 1, Options{WriteQueueBytes: 4096})
	c := s.join(0, "c", wire.V5, 0)
	c.deaf = true
	ping := []byte{byte(wire.PINGREQ) << 4, 0}
	for range 100_000 {
		c.in = append(c.in, ping...)
	}
	c.wake()
	s.run()
	if n := len(c.queue); n > 3*4096 {
		t.Fatalf("%d bytes of answers wait", n)
	}
	s.advance(100)
	if c.closed {
		t.Fatal("the keep alive ran while we did not listen")
	}
	c.deaf = false
	c.wake()
	s.run()
	if n := len(c.take()); n != 100_000 {
		t.Errorf("%d answers came", n)
	}
}

// A loop that falls behind pauses the publishers on other loops; when it has
// caught up they go on, and nothing is lost.
func TestLimits_CongestedInboxPausesPublishers(t *testing.T) {
	s := newSim(t, 3, Options{})
	c := s.join(0, s.idOn(2, "c"), wire.V311, 0)
	c.sub(wire.V311, wire.Subscription{Filter: "q"})
	other := s.join(0, s.idOn(0, "other"), wire.V311, 0)
	other.sub(wire.V311, wire.Subscription{Filter: "near"})
	var publishers []*simConn
	big := strings.Repeat("x", 100_000)
	const messages = 300
	for i := range 2 {
		publishers = append(publishers, s.join(0, s.idOn(i, "p"), wire.V311, 0))
	}
	for _, p := range publishers {
		for range messages {
			p.in = append(p.in, pub(wire.V311, "q", big, 0, 0)...)
		}
		p.wake()
	}
	step := func() { s.turnOf(0, 1) } // the third loop does nothing
	for range 20 {
		step()
	}
	if !publishers[0].paused || !publishers[1].paused {
		t.Fatal("a publisher goes on")
	}
	if n := s.b.loops[2].inbox.pending.Load(); n < inboxHigh || n > inboxHigh+3*100_200 {
		t.Errorf("%d bytes are on the way to a loop that is behind", n)
	}
	if other.paused {
		t.Error("a client that published nothing there is paused")
	}
	other.feed(pub(wire.V311, "near", "y", 0, 0))
	step()
	step()
	if got := payloads(other.publishes(wire.V311)); got != "y" {
		t.Errorf("on the other loops %q came, want y", got)
	}
	if err := s.b.Publish(Message{Topic: "near"}); !errors.Is(err, ErrOverloaded) {
		t.Errorf("Publish: %v", err)
	}
	s.run()
	if n := len(c.publishes(wire.V311)); n != 2*messages {
		t.Errorf("%d of %d came", n, 2*messages)
	}
	for _, l := range s.b.loops {
		if n := l.inbox.pending.Load(); n != 0 || l.inbox.waiting.Load() != 0 || len(l.blocked) != 0 {
			t.Errorf("loop %d: %d bytes, %d blocked are left", l.id, n, len(l.blocked))
		}
	}
}

// The same for a share group whose members' loop falls behind: the publisher
// sits on the group's home, or on another loop.
func TestLimits_CongestionBehindAShareGroup(t *testing.T) {
	for _, from := range []int{0, 1} {
		s := newSim(t, 3, Options{})
		share := s.groupOn(0, "q")
		c := s.member(2, "c", share, 0, 0)
		p := s.join(0, s.idOn(from, "p"), wire.V5, 0)
		big := strings.Repeat("x", 100_000)
		for range 300 {
			p.in = append(p.in, pub(wire.V5, "q", big, 0, 0)...)
		}
		p.wake()
		for range 20 {
			s.turnOf(0, 1)
		}
		if !p.paused {
			t.Fatalf("publisher on %d: it goes on", from)
		}
		s.run()
		if n := len(c.publishes(wire.V5)); n != 300 {
			t.Errorf("publisher on %d: %d of 300 came", from, n)
		}
	}
}

// Who has many unfinished fan-outs is not read until they are fewer; others
// are, and get through.
func TestLimits_WalksAreBounded(t *testing.T) {
	s := newSim(t, 1, Options{})
	for i := range 2 * fanoutBudget {
		s.join(0, fmt.Sprint("s", i), wire.V311, 0).sub(wire.V311, wire.Subscription{Filter: "big"})
	}
	c := s.join(0, "c", wire.V311, 0)
	c.sub(wire.V311, wire.Subscription{Filter: "big"})
	honest := s.join(0, "honest", wire.V311, 0)
	honest.sub(wire.V311, wire.Subscription{Filter: "small"})
	const publishers, each = 10, clientWalks + 4
	var all []*simConn
	for i := range publishers {
		all = append(all, s.join(0, fmt.Sprint("p", i), wire.V311, 0))
	}
	for _, p := range all {
		for range each {
			p.feed(pub(wire.V311, "big", "x", 0, 0))
		}
	}
	most := 0
	for range 4 {
		s.turn()
		most = max(most, len(s.b.loops[0].walks))
	}
	if most < maxWalks || most > maxWalks+publishers {
		t.Errorf("%d walks are under way", most)
	}
	honest.feed(pub(wire.V311, "small", "x", 0, 0))
	for range 2 {
		s.turn()
	}
	if n := len(honest.publishes(wire.V311)); n != 1 {
		t.Errorf("%d messages of another publisher came through", n)
	}
	s.run()
	if n := len(c.publishes(wire.V311)); n != publishers*each {
		t.Errorf("%d of %d came", n, publishers*each)
	}
}

func TestLimits_Subscriptions(t *testing.T) {
	s := newSim(t, 1, Options{MaxSubscriptions: 2})
	c := s.join(0, "c", wire.V5, 0)
	p := wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{{Filter: "a"}, {Filter: "b", QoS: 1}, {Filter: "c"}, {Filter: "a", QoS: 2}}}
	c.send(p.Append(nil, wire.V5))
	body := c.take()[0].body
	if got := fmt.Sprintf("%x", body[len(body)-4:]); got != "00019702" {
		t.Errorf("SUBACK has %s", got)
	}
}

// Before its CONNACK a client may send nothing large.
func TestLimits_StrangersSendLittle(t *testing.T) {
	s := newSim(t, 1, Options{MaxConnectSize: 1000})
	c := s.dial(0)
	c.send([]byte{byte(wire.CONNECT) << 4, 0xE9, 0x07}) // the header of a packet of 1,004 bytes
	if !c.closed {
		t.Error("it may go on")
	}
}

// A packet that the client's Maximum Packet Size forbids is not sent, whatever
// it is.
func TestLimits_ClientMaximumPacketSize(t *testing.T) { // [MQTT-3.1.2-24]
	s := newSim(t, 1, Options{})
	c := s.join(0, "c", wire.V5, 0, func(p *wire.Connect) { p.MaximumPacketSize = 60 })
	p := wire.Subscribe{PacketID: 1}
	for i := range 100 {
		p.Filters = append(p.Filters, wire.Subscription{Filter: fmt.Sprint("f", i)})
	}
	c.send(p.Append(nil, wire.V5))
	for _, g := range c.take() {
		if n := g.h.Size + g.h.Remaining; n > 60 {
			t.Errorf("%v of %d bytes", g.h.Type, n)
		}
	}
	s.join(0, "p", wire.V5, 0).send(pub(wire.V5, "f1", "x", 0, 0))
	if got := payloads(c.publishes(wire.V5)); got != "x" {
		t.Errorf("got %q", got)
	}
}

// Publish never blocks, and takes no more than may wait: messages, or bytes.
func TestLimits_PublishIsOverloaded(t *testing.T) {
	for size, want := range map[int]int{0: publishCredit, 1 << 20: inboxHigh>>20 + 1} {
		s := newSim(t, 2, Options{})
		c := s.join(0, "c", wire.V311, 0)
		c.sub(wire.V311, wire.Subscription{Filter: "q"})
		m := Message{Topic: "q", Payload: make([]byte, size)}
		taken := 0
		var err error
		for ; err == nil && taken <= publishCredit; taken++ {
			err = s.b.Publish(m)
		}
		if taken--; !errors.Is(err, ErrOverloaded) || taken > want || taken < want-2 {
			t.Errorf("%d bytes: %d were taken, then %v; want %d", size, taken, err, want)
		}
		s.run()
		if n := len(c.publishes(wire.V311)); n != taken {
			t.Errorf("%d bytes: %d of %d came", size, n, taken)
		}
		if err := s.b.Publish(m); err != nil {
			t.Errorf("%d bytes: afterwards: %v", size, err)
		}
		s.run()
	}
}

// SUBSCRIBEs full of filters take turns, so that others are heard in between.
func TestLimits_ManyFiltersShareTheBudget(t *testing.T) {
	s := newSim(t, 1, Options{})
	var all []*simConn
	for i := range 20 {
		all = append(all, s.join(0, fmt.Sprint("c", i), wire.V5, 0))
	}
	for i, c := range all {
		sub := wire.Subscribe{PacketID: 2}
		for n := range 400 {
			sub.Filters = append(sub.Filters, wire.Subscription{Filter: fmt.Sprintf("filters/%d/of/%d", n, i)})
		}
		c.feed(append(sub.Append(nil, wire.V5), byte(wire.PINGREQ)<<4, 0))
	}
	for turns := 1; s.turn(); turns++ {
		served := 0
		for i := range all {
			served += s.sessionOf(fmt.Sprint("c", i)).subs.len() / 400
		}
		if served > 3*turns {
			t.Fatalf("%d clients were served in %d turns", served, turns)
		}
	}
	for i, c := range all {
		if got := s.sessionOf(fmt.Sprint("c", i)).subs.len(); got != 400 {
			t.Errorf("client %d has %d of 400 subscriptions", i, got)
		}
		if got := fmt.Sprintf("%v", c.types()); got != "[SUBACK PINGRESP]" {
			t.Errorf("client %d got %s", i, got)
		}
	}
}
