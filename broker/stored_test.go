package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hashplus/broker/record"
	"hashplus/broker/wire"
)

// stored is a sim whose ledger stores at once whenever something is sent.
type storedSim struct {
	failed chan struct{}
	*sim
	m *mapStore
	o Options
}

func newStored(t *testing.T, loops int, o Options) *storedSim {
	m := newMapStore()
	return &storedSim{sim: newStoredSim(t, loops, o, m), m: m, o: o}
}

// crash gives the broker up and starts another on what it has stored.
func (s *storedSim) crash() {
	s.sim = newStoredSim(s.t, len(s.loops), s.o, s.m)
}

// join is sim.join, with the store at work.
func (s *storedSim) join(loop int, id string, v wire.Version, expiry uint32, more ...func(*wire.Connect)) *simConn {
	s.t.Helper()
	c := s.dial(loop)
	p := wire.Connect{Version: v, ClientID: id, CleanStart: expiry == 0, SessionExpiry: expiry,
		ReceiveMaximum: 65535, RequestProblem: true}
	for _, f := range more {
		f(&p)
	}
	c.send(p.Append(nil))
	s.store()
	packets := c.take()
	if len(packets) == 0 || packets[0].h.Type != wire.CONNACK || packets[0].body[1] != 0 {
		s.t.Fatalf("%s got %v in place of CONNACK", id, packets)
	}
	for _, g := range packets[1:] {
		c.out = append(c.out, repack(g)...)
	}
	return c
}

// sub is simConn.sub, with the store at work.
func (s *storedSim) sub(c *simConn, v wire.Version, filters ...wire.Subscription) {
	s.t.Helper()
	p := wire.Subscribe{PacketID: 1, Filters: filters}
	c.send(p.Append(nil, v))
	s.store()
	for _, g := range c.take() {
		if g.h.Type != wire.SUBACK {
			c.out = append(c.out, repack(g)...)
		}
	}
}

func (s *storedSim) send(c *simConn, b []byte) {
	c.send(b)
	s.store()
}

// types are the types of the packets that c has got.
func (c *simConn) types() (list []wire.Type) {
	for _, g := range c.take() {
		list = append(list, g.h.Type)
	}
	return list
}

func wantTypes(t *testing.T, c *simConn, when string, want ...wire.Type) {
	t.Helper()
	if got := c.types(); !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", when, got, want)
	}
}

// A client that waits for the store in vain is told that it is not its fault.
func TestStored_SlowStoreRefusesAsUnavailable(t *testing.T) {
	everyLoops(func(loops int) {
		s := newStored(t, loops, Options{})
		five, three := s.dial(0), s.dial(0)
		p := wire.Connect{Version: wire.V5, ClientID: "five", SessionExpiry: 60}
		five.send(p.Append(nil))
		p = wire.Connect{Version: wire.V311, ClientID: "three"}
		three.send(p.Append(nil))
		s.advance(11)
		for _, c := range []struct {
			*simConn
			code byte
		}{{five, byte(wire.ServerUnavailable)}, {three, 3}} {
			if got := c.take(); len(got) != 1 || got[0].h.Type != wire.CONNACK || got[0].body[1] != c.code {
				t.Errorf("got %v, want CONNACK with %#x", got, c.code)
			}
		}
	})
}

// No answer leaves before what it promises is stored, and all leave then, in
// the order of what they answer.
func TestStored_AnswersWaitForTheStore(t *testing.T) { // [MQTT-4.6.0-2] [MQTT-4.6.0-3]
	everyLoops(func(loops int) {
		s := newStored(t, loops, Options{})
		c := s.dial(0)
		p := wire.Connect{Version: wire.V5, ClientID: "c", SessionExpiry: 60, ReceiveMaximum: 10}
		c.send(p.Append(nil))
		wantTypes(t, c, "before the session is stored")
		s.store()
		wantTypes(t, c, "when the session is stored", wire.CONNACK)

		sub := wire.Subscribe{PacketID: 7, Filters: []wire.Subscription{{Filter: "a/#", QoS: 2}}}
		c.send(sub.Append(nil, wire.V5))
		wantTypes(t, c, "before the subscription is stored")
		s.store()
		wantTypes(t, c, "when the subscription is stored", wire.SUBACK)

		x := s.join(0, "x", wire.V5, 0)
		x.send(pub(wire.V5, "a/b", "1", 1, 1))
		x.send(pub(wire.V5, "other", "2", 1, 2)) // has no receiver: its answer waits behind
		x.send(pub(wire.V5, "a/b", "3", 2, 3))
		wantTypes(t, x, "before the messages are stored")
		// A QoS 1 message may be sent before it is stored, one of QoS 2 not: its
		// identifier would be another one after a crash.
		if got := payloads(c.publishes(wire.V5)); got != "1" {
			t.Errorf("%d loops: got %q before the messages were stored", loops, got)
		}
		s.store()
		wantTypes(t, x, "when the messages are stored", wire.PUBACK, wire.PUBACK, wire.PUBREC)
		list := c.publishes(wire.V5)
		if got := payloads(list); got != "3" {
			t.Fatalf("%d loops: got %q when the messages were stored", loops, got)
		}
		c.send(ackOf(wire.PUBREC, wire.V5, list[0].pub.PacketID, 0))
		wantTypes(t, c, "before PUBREC is stored")
		s.store()
		wantTypes(t, c, "when PUBREC is stored", wire.PUBREL)

		x.send(ackOf(wire.PUBREL, wire.V5, 3, 0))
		wantTypes(t, x, "x has no session that is stored", wire.PUBCOMP)
		c.send(pub(wire.V5, "other", "4", 2, 9))
		wantTypes(t, c, "before the identifier is stored")
		s.store()
		wantTypes(t, c, "when the identifier is stored", wire.PUBREC)
		c.send(ackOf(wire.PUBREL, wire.V5, 9, 0))
		wantTypes(t, c, "before the identifier is removed")
		s.store()
		wantTypes(t, c, "when the identifier is removed", wire.PUBCOMP)

		un := wire.Unsubscribe{PacketID: 8, Filters: []string{"a/#"}}
		c.send(un.Append(nil, wire.V5))
		wantTypes(t, c, "before the subscription is removed")
		s.store()
		wantTypes(t, c, "when the subscription is removed", wire.UNSUBACK)
	})
}

// What was acknowledged is there after a crash: subscriptions, what waits, what
// is in flight with its identifiers, and where QoS 2 exchanges stand.
func TestStored_SurvivesACrash(t *testing.T) { // [MQTT-4.1.0-1] [MQTT-4.4.0-1]
	everyLoops(func(loops int) {
		s := newStored(t, loops, Options{})
		c := s.join(0, "c", wire.V5, 600, func(p *wire.Connect) { p.ReceiveMaximum = 3 })
		s.sub(c, wire.V5, wire.Subscription{Filter: "a/#", QoS: 2})
		x := s.join(0, "x", wire.V5, 600)
		for i := 1; i <= 8; i++ {
			s.send(x, pub(wire.V5, "a/b", fmt.Sprint(i), byte(1+i%2), uint16(i)))
		}
		list := c.publishes(wire.V5)
		if got := payloads(list); got != "1 2 3" {
			t.Fatalf("%d loops: got %q", loops, got)
		}
		// 1 and 3 are of QoS 2.
		s.send(c, ackOf(wire.PUBREC, wire.V5, list[0].pub.PacketID, 0))
		s.crash()
		c = s.join(0, "c", wire.V5, 600, func(p *wire.Connect) { p.ReceiveMaximum = 3 })
		packets := c.take()
		var seen []string
		for _, g := range packets {
			if g.h.Type == wire.PUBLISH {
				if _, err := g.pub.DecodeFromServer(g.h, g.body, wire.V5, &wire.Limits{}, nil); err != nil {
					t.Fatal(err)
				}
				seen = append(seen, fmt.Sprintf("%s/%d/%v", g.pub.Payload, g.pub.PacketID, g.pub.Dup))
			} else {
				seen = append(seen, g.h.Type.String())
			}
		}
		if got := fmt.Sprint(seen); got != "[PUBREL 2/2/true 3/3/true 4/4/false]" {
			t.Errorf("%d loops: sent again after the crash: %s", loops, got)
		}
		x = s.join(0, "x", wire.V5, 600)
		s.send(x, pub(wire.V5, "a/b", "1", 2, 1)) // PUBREC did not arrive, say
		wantTypes(t, x, "QoS 2 again", wire.PUBREC)
		s.send(x, ackOf(wire.PUBREL, wire.V5, 1, 0))
		var rest []string
		for range 20 {
			for _, g := range packets {
				switch g.h.Type {
				case wire.PUBREL:
					s.send(c, ackOf(wire.PUBCOMP, wire.V5, uint16(g.body[0])<<8|uint16(g.body[1]), 0))
				case wire.PUBLISH:
					_, _ = g.pub.DecodeFromServer(g.h, g.body, wire.V5, &wire.Limits{}, nil)
					rest = append(rest, string(g.pub.Payload))
					s.send(c, ackOf([]wire.Type{wire.PUBACK, wire.PUBREC}[g.pub.QoS-1], wire.V5, g.pub.PacketID, 0))
				}
			}
			packets = c.take()
		}
		if got := fmt.Sprint(rest); got != "[2 3 4 5 6 7 8]" {
			t.Errorf("%d loops: got %s", loops, got)
		}
		s.store()
		n := s.m.kinds()
		if n[record.KindDelivery]+n[record.KindBody]+n[record.KindShared] != 0 {
			t.Errorf("%d loops: %d deliveries, %d and %d messages are left in the store", loops,
				n[record.KindDelivery], n[record.KindBody], n[record.KindShared])
		}
	})
}

// A message is stored once, however many sessions are to get it, and until the
// last one has.
func TestStored_MessageIsStoredOnce(t *testing.T) {
	everyLoops(func(loops int) {
		s := newStored(t, loops, Options{})
		for i := range 5 {
			c := s.join(i%loops, fmt.Sprint("c", i), wire.V5, 600)
			s.sub(c, wire.V5, wire.Subscription{Filter: "a", QoS: 1})
			c.cut()
		}
		s.store()
		x := s.join(0, "x", wire.V5, 0)
		s.send(x, pub(wire.V5, "a", "m", 1, 1))
		n := s.m.kinds()
		if n[record.KindShared] != 1 || n[record.KindBody] != 0 || n[record.KindDelivery] != 5 {
			t.Errorf("%d loops: %d messages, %d rows", loops, n[record.KindShared]+n[record.KindBody], n[record.KindDelivery])
		}
		for i := range 5 {
			if i == 2 {
				s.crash()
			}
			if n := s.m.kinds(); n[record.KindShared] != 1 {
				t.Errorf("%d loops: after %d receivers the message has gone", loops, i)
			}
			c := s.join(0, fmt.Sprint("c", i), wire.V5, 600)
			list := c.publishes(wire.V5)
			if got := payloads(list); got != "m" {
				t.Errorf("%d loops: client %d got %q", loops, i, got)
			}
			c.ack(wire.V5, list)
			s.store()
		}
		if n := s.m.kinds(); n[record.KindShared]+n[record.KindDelivery] != 0 {
			t.Errorf("%d loops: something is left in the store: %v", loops, n)
		}
	})
}

// What waits for an absent client is in the store only; it is read in pieces,
// in order, while more is coming.
func TestStored_QueueOfAnAbsentClientIsCold(t *testing.T) {
	s := newStored(t, 1, Options{})
	c := s.join(0, "c", wire.V5, 600)
	s.sub(c, wire.V5, wire.Subscription{Filter: "a", QoS: 1})
	c.cut()
	x := s.join(0, "x", wire.V5, 0)
	const n = 3000
	for i := range n {
		x.feed(pub(wire.V5, "a", fmt.Sprint(i), 1, uint16(i+1)))
		if i%100 == 99 {
			s.store()
		}
	}
	q := &s.sessionOf("c").pending
	if q.count != n || q.front.count+q.back.count != 0 || q.cold.count != n {
		t.Fatalf("%d wait, of which %d are in memory", q.count, q.front.count+q.back.count)
	}
	c = s.join(0, "c", wire.V5, 600, func(p *wire.Connect) { p.ReceiveMaximum = 100 })
	next, late := 0, n
	for range 10 * n {
		list := c.publishes(wire.V5)
		for _, g := range list {
			if string(g.pub.Payload) != fmt.Sprint(next) {
				t.Fatalf("got %s, want %d", g.pub.Payload, next)
			}
			next++
		}
		c.ack(wire.V5, list)
		if late < n+500 {
			x.feed(pub(wire.V5, "a", fmt.Sprint(late), 1, uint16(late+1)))
			late++
		}
		s.store()
		if next == n+500 {
			break
		}
	}
	if next != n+500 {
		t.Errorf("got %d of %d", next, n+500)
	}
}

// A session whose client begins anew, or whose time is up, leaves nothing.
func TestStored_EndedSessionIsRemoved(t *testing.T) {
	s := newStored(t, 2, Options{})
	for _, id := range []string{"a", "b"} {
		c := s.join(0, id, wire.V5, 60)
		s.sub(c, wire.V5, wire.Subscription{Filter: "q/#", QoS: 2})
		c.cut()
	}
	x := s.join(0, "x", wire.V5, 0)
	for i := range 100 {
		s.send(x, pub(wire.V5, "q/1", "m", 2, uint16(i+1)))
	}
	s.join(0, "a", wire.V5, 0) // Clean Start
	s.advance(61)
	s.store()
	for s.b.ledger.clean() {
	}
	s.crash()
	n := s.m.kinds()
	delete(n, record.KindMeta)
	delete(n, record.KindGone)
	if len(n) != 0 {
		t.Errorf("left in the store: %v", n)
	}
	if s.sessionOf("a") != nil || s.sessionOf("b") != nil {
		t.Error("the sessions came back")
	}
}

// Time goes on while the broker is down: for sessions, messages and wills.
func TestStored_TimeGoesOnWhileTheBrokerIsDown(t *testing.T) { // [MQTT-3.1.2-23] [MQTT-3.3.2-5] [MQTT-3.1.3-9]
	s := newStored(t, 2, Options{})
	w := s.join(0, "watcher", wire.V5, 3000)
	s.sub(w, wire.V5, wire.Subscription{Filter: "will/#", QoS: 1}, wire.Subscription{Filter: "m", QoS: 1})
	will := func(name string, delay uint32) func(*wire.Connect) {
		return func(p *wire.Connect) {
			p.Will = &wire.Will{Topic: "will/" + name, Payload: []byte(name), QoS: 1, Delay: delay, ExpiryAt: -1}
		}
	}
	s.join(0, "short", wire.V5, 50, will("short", 500))
	s.join(0, "long", wire.V5, 1000, will("long", 500))
	s.join(0, "none", wire.V5, 0, will("none", 500)) // its session ends with the connection
	s.join(0, "later", wire.V5, 2000, will("later", 1500))
	x := s.join(0, "x", wire.V5, 0)
	o := wire.Outgoing{Version: wire.V5, QoS: 1, PacketID: 1, Topic: []byte("m"), Payload: []byte("old"),
		Props: []byte{2, 0, 0, 0, 100}, ExpiryAt: 1, Expiry: 100}
	b := make([]byte, o.Size())
	o.Put(b)
	w.cut()
	s.send(x, b)
	// The next process finds that the last one ended 700 seconds ago.
	s.m.turnBack(700)
	s.crash()
	s.advance(1)
	s.store()
	w = s.join(0, "watcher", wire.V5, 3000)
	if got := payloads(w.publishes(wire.V5)); got != "none short long" && got != "short none long" &&
		got != "short long none" && got != "none long short" && got != "long none short" && got != "long short none" {
		t.Errorf("the watcher got %q", got)
	}
	if s.sessionOf("short") != nil {
		t.Error("a session outlived its expiry")
	}
	if s.sessionOf("long") == nil || s.sessionOf("later") == nil {
		t.Error("a session ended too early")
	}
}

// A store that fails stops acknowledgements, refuses what would have to be
// stored, and lets all else go on; when it works again all is as if it had
// never failed.
func TestStored_FailureAndRecovery(t *testing.T) {
	s := newStored(t, 2, Options{})
	c := s.join(0, "c", wire.V5, 600)
	s.sub(c, wire.V5, wire.Subscription{Filter: "a/#", QoS: 2})
	plain := s.join(1, "plain", wire.V5, 0)
	plain.sub(wire.V5, wire.Subscription{Filter: "b/#", QoS: 1})
	x, old := s.join(0, "x", wire.V5, 0), s.join(0, "old", wire.V311, 0)

	x.send(pub(wire.V5, "a/1", "1", 1, 1))
	s.m.breakWith(errors.New("the disk is on fire"))
	s.failing(true)
	wantTypes(t, x, "after the store has failed")
	if s.b.Health() == nil {
		t.Error("the broker says that it is well")
	}
	x.send(pub(wire.V5, "b/1", "plain", 1, 2))
	if got := payloads(plain.publishes(wire.V5)); got != "plain" {
		t.Errorf("what need not be stored does not go on: got %q", got)
	}
	x.send(pub(wire.V5, "a/1", "qos 0", 0, 0))
	old.send(pub(wire.V311, "a/1", "refused", 1, 1))
	wantTypes(t, old, "an old client is not told of a refusal")
	x.send(pub(wire.V5, "a/1", "refused", 1, 3))

	s.m.breakWith(nil)
	s.failing(false)
	s.store()
	var reasons []wire.ReasonCode
	for _, g := range x.take() {
		if g.h.Type == wire.PUBACK {
			r := wire.Success
			if len(g.body) > 2 {
				r = wire.ReasonCode(g.body[2])
			}
			reasons = append(reasons, r)
		}
	}
	if !slices.Equal(reasons, []wire.ReasonCode{wire.Success, wire.Success, wire.QuotaExceeded}) {
		t.Errorf("the publisher was told %v", reasons)
	}
	if s.b.Health() != nil {
		t.Errorf("the broker is still unwell: %v", s.b.Health())
	}
	s.crash()
	c = s.join(0, "c", wire.V5, 600)
	if got := payloads(c.publishes(wire.V5)); got != "1" {
		t.Errorf("after a crash c gets %q", got)
	}
}

// Messages that expire while their receiver is away leave the store, and
// neither those before nor those behind them.
func TestStored_ExpiredMessagesAreRemoved(t *testing.T) { // [MQTT-3.3.2-5]
	s := newStored(t, 2, Options{})
	c := s.join(0, "c", wire.V5, 6000)
	s.sub(c, wire.V5, wire.Subscription{Filter: "m", QoS: 1})
	c.cut()
	x := s.join(0, "x", wire.V5, 0)
	const n = 1000
	for i := range n {
		o := wire.Outgoing{Version: wire.V5, QoS: 1, PacketID: uint16(i + 1), Topic: []byte("m"), Payload: fmt.Append(nil, i), ExpiryAt: -1}
		if i%3 > 0 {
			o.Props, o.ExpiryAt, o.Expiry = []byte{2, 0, 0, 0, 100}, 1, 100
		}
		b := make([]byte, o.Size())
		o.Put(b)
		x.feed(b)
	}
	s.store()
	s.m.turnBack(500)
	s.crash()
	for range 12 {
		s.b.ledger.searchExpired()
		s.store()
	}
	if got, want := s.m.kinds()[record.KindDelivery], (n+2)/3; got != want {
		t.Errorf("%d messages are left, want %d", got, want)
	}
	if q := s.sessionOf("c").pending; q.count != (n+2)/3 || q.cold.count != q.count {
		t.Errorf("the queue counts %d, of which %d are cold", q.count, q.cold.count)
	}
	c = s.join(0, "c", wire.V5, 6000)
	next := 0
	for range n {
		list := c.publishes(wire.V5)
		for _, g := range list {
			if string(g.pub.Payload) != fmt.Sprint(next) {
				t.Fatalf("got %s, want %d", g.pub.Payload, next)
			}
			next += 3
		}
		c.ack(wire.V5, list)
		s.store()
	}
	if next != (n+2)/3*3 {
		t.Errorf("the last that came is %d", next-3)
	}
	if s.b.ledger.searchExpired(); s.b.ledger.expiring {
		t.Error("it goes on searching where nothing can expire")
	}
}

// The payload of a large retained message is not kept in memory; every
// subscriber gets it all the same, in its turn and the value of then.
func TestStored_LargeRetainedMessageIsCold(t *testing.T) {
	everyLoops(func(loops int) {
		s := newStored(t, loops, Options{})
		x := s.join(0, "x", wire.V5, 0)
		large := strings.Repeat("0123456789abcdef", coldPayload/16)
		for i, p := range []string{"a", large + "b", "c", large + "d", "e"} {
			s.send(x, retained(wire.V5, fmt.Sprint("r/", i), p, 1, uint16(i+1)))
		}
		for round := range 3 {
			if m := s.b.retained.tree.Get([]byte("r/1")); !m.cold || len(m.payload) != 0 || m.size() > 1000 {
				t.Errorf("%d loops: the payload is in memory", loops)
			}
			for qos := byte(0); qos <= 2; qos++ {
				c := s.join(0, fmt.Sprint("c", round, qos), wire.V5, 0)
				s.sub(c, wire.V5, wire.Subscription{Filter: "r/#", QoS: qos})
				got := strings.Fields(payloads(c.publishes(wire.V5)))
				slices.SortFunc(got, func(a, b string) int { return int(a[len(a)-1]) - int(b[len(b)-1]) })
				if want := []string{"a", large + "b", "c", large + "d", "e"}; !slices.Equal(got, want) {
					t.Errorf("%d loops, QoS %d: got %d messages", loops, qos, len(got))
				}
				c.cut()
			}
			switch round {
			case 0:
				s.crash()
			case 1:
				x = s.join(0, "x", wire.V5, 0)
				s.send(x, retained(wire.V5, "r/1", large+"b", 1, 1))
			}
		}
		x.cut()
		x = s.join(0, "x", wire.V5, 0)
		s.send(x, retained(wire.V5, "r/1", "", 1, 1))
		s.crash()
		if s.b.retained.tree.Get([]byte("r/1")) != nil {
			t.Errorf("%d loops: what was cleared came back", loops)
		}
	})
}

// A subscription that another replaces before its SUBACK has left does not take the
// other's place in the store when its replay is over.
func TestStored_ReplacedSubscriptionDoesNotComeBack(t *testing.T) { // [MQTT-3.8.4-3]
	everyLoops(func(loops int) {
		s := newStored(t, loops, Options{})
		x := s.join(0, "x", wire.V5, 0)
		s.send(x, retained(wire.V5, "r", "retained", 1, 1))
		c := s.join(0, "c", wire.V5, 600)
		first := wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{{Filter: "r", QoS: 2}}}
		second := wire.Subscribe{PacketID: 2, Filters: []wire.Subscription{{Filter: "r", QoS: 0, RetainHandling: 2}}}
		c.feed(first.Append(nil, wire.V5))
		s.send(c, second.Append(nil, wire.V5))
		s.store()
		c.ack(wire.V5, c.publishes(wire.V5))
		s.store()
		s.crash()
		c, x = s.join(0, "c", wire.V5, 600), s.join(0, "x", wire.V5, 0)
		s.send(x, pub(wire.V5, "r", "live", 1, 1))
		if got := c.publishes(wire.V5); len(got) != 1 || got[0].pub.QoS != 0 {
			t.Errorf("%d loops: got %+v, want one message at QoS 0", loops, got)
		}
	})
}

// A replay of retained messages that the crash of the broker interrupts begins
// anew, and only such a one.
func TestStored_InterruptedReplayBeginsAnew(t *testing.T) {
	everyLoops(func(loops int) {
		s := newStored(t, loops, Options{})
		x := s.join(0, "x", wire.V5, 0)
		for i := range 20 {
			s.send(x, retained(wire.V5, fmt.Sprint("r/", i), fmt.Sprint(i), 1, uint16(i+1)))
		}
		c := s.join(0, "c", wire.V5, 600, func(p *wire.Connect) { p.ReceiveMaximum = 5 })
		s.sub(c, wire.V5, wire.Subscription{Filter: "r/#", QoS: 1})
		c.ack(wire.V5, c.publishes(wire.V5)[:2])
		s.store()
		s.crash()
		c = s.join(0, "c", wire.V5, 600)
		seen := make(map[string]bool)
		for range 10 {
			list := c.publishes(wire.V5)
			for _, g := range list {
				seen[string(g.pub.Payload)] = true
			}
			c.ack(wire.V5, list)
			s.store()
		}
		if len(seen) != 20 {
			t.Errorf("%d loops: %d of 20 came", loops, len(seen))
		}
		s.crash()
		c = s.join(0, "c", wire.V5, 600)
		if got := payloads(c.publishes(wire.V5)); got != "" {
			t.Errorf("%d loops: after the replay was over and the broker began anew %q came", loops, got)
		}
	})
}

// What a member of a share group had not acknowledged goes to the others when its
// session ends, also if the broker crashed in between.
func TestStored_GroupGetsBackWhatAMemberLeaves(t *testing.T) { // [MQTT-4.8.2-4]
	everyLoops(func(loops int) {
		for _, resumed := range []bool{false, true} {
			s := newStored(t, loops, Options{})
			a := s.join(0, "a", wire.V5, 60)
			s.sub(a, wire.V5, wire.Subscription{Filter: "$share/g/t", QoS: 1})
			x := s.join(0, "x", wire.V5, 0)
			for i := range 5 {
				s.send(x, pub(wire.V5, "t", fmt.Sprint(i), 1, uint16(i+1)))
			}
			if got := payloads(a.publishes(wire.V5)); got != "0 1 2 3 4" {
				t.Fatalf("%d loops: a got %q", loops, got)
			}
			s.crash()
			b := s.join(0, "b", wire.V5, 600)
			s.sub(b, wire.V5, wire.Subscription{Filter: "$share/g/t", QoS: 1})
			if resumed {
				a = s.join(0, "a", wire.V5, 60)
				a.ack(wire.V5, a.publishes(wire.V5)[:2])
				s.store()
				a.cut()
			}
			s.advance(61)
			s.store()
			for s.b.ledger.clean() {
				s.store()
			}
			s.store()
			want := "0 1 2 3 4"
			if resumed {
				want = "2 3 4"
			}
			list := b.publishes(wire.V5)
			if got := payloads(list); got != want {
				t.Errorf("%d loops, resumed %v: b got %q, want %q", loops, resumed, got, want)
			}
			b.ack(wire.V5, list)
			s.store()
			if n := s.m.kinds(); n[record.KindDelivery]+n[record.KindBody]+n[record.KindShared] != 0 {
				t.Errorf("%d loops, resumed %v: left in the store: %v", loops, resumed, n)
			}
		}
	})
}

// An acknowledgement counts that comes before the message was read back from the
// store and sent again.
func TestStored_AcknowledgementBeforeTheReSend(t *testing.T) { // [MQTT-3.3.4-9]
	for _, crash := range []bool{false, true} {
		s := newStored(t, 1, Options{})
		var clients []*simConn
		for i := range 2 { // two, so that the messages are filed
			c := s.join(0, fmt.Sprint("c", i), wire.V5, 600)
			s.sub(c, wire.V5, wire.Subscription{Filter: "t", QoS: 2})
			clients = append(clients, c)
		}
		x := s.join(0, "x", wire.V5, 0)
		s.send(x, pub(wire.V5, "t", "1", 1, 1))
		s.send(x, pub(wire.V5, "t", "2", 2, 2))
		for _, c := range clients {
			c.cut()
		}
		s.store()
		if crash {
			s.crash()
		}
		for i := range 2 {
			c := s.dial(0)
			p := wire.Connect{Version: wire.V5, ClientID: fmt.Sprint("c", i), SessionExpiry: 600, ReceiveMaximum: 10}
			c.send(p.Append(nil))
			for s.b.ledger.backlog.Load() > 0 {
				s.b.ledger.turn()
			}
			// Before the loop hears of what was read: the CONNACK is there.
			c.feed(ackOf(wire.PUBACK, wire.V5, 1, 0))
			c.feed(ackOf(wire.PUBREC, wire.V5, 2, 0))
			s.store()
			c.feed(ackOf(wire.PUBCOMP, wire.V5, 2, 0))
			s.store()
		}
		if n := s.m.kinds(); n[record.KindDelivery]+n[record.KindBody]+n[record.KindShared] != 0 {
			t.Errorf("after a crash %v: left in the store: %v", crash, n)
		}
	}
}

// owed has the absent client c wait for six messages at QoS 1.
func (s *storedSim) owed() {
	s.t.Helper()
	c := s.join(0, "c", wire.V5, 600)
	s.sub(c, wire.V5, wire.Subscription{Filter: "t", QoS: 1})
	c.cut()
	x := s.join(0, "x", wire.V5, 0)
	for i := range 6 {
		s.send(x, pub(wire.V5, "t", fmt.Sprint(i), 1, uint16(i+1)))
	}
}

// A record that is damaged while the broker runs costs its own message only, and
// holds up no other; at the start it is an error that says so.
func TestStored_DamagedRecords(t *testing.T) {
	s := newStored(t, 1, Options{})
	s.owed()
	damage := func(kind byte, nth int) {
		for _, k := range s.m.keys {
			if k[0] == kind {
				if nth--; nth < 0 {
					s.m.values[k] = []byte{0xFF}
					return
				}
			}
		}
	}
	damage(record.KindDelivery, 1)
	damage(record.KindBody, 3)
	c := s.join(0, "c", wire.V5, 600)
	list := c.publishes(wire.V5)
	if got := payloads(list); got != "0 2 4 5" {
		t.Errorf("got %q", got)
	}
	c.ack(wire.V5, list)
	s.store()
	if q := s.sessionOf("c").pending; q.count != 0 || q.cold.count != 0 {
		t.Errorf("the queue counts %d", q.count)
	}

	damage(record.KindSession, 0)
	o := s.o
	o.OpenStore = func() (Store, error) { return s.m, nil }
	broken := newSim(t, 1, o)
	broken.b.ledger.byHand = true
	done := make(chan error, 1)
	go func() { done <- broken.b.Recover(t.Context()) }()
	for {
		broken.run()
		select {
		case err := <-done:
			if !errors.Is(err, ErrStoreDamaged) {
				t.Errorf("the start says %v", err)
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
}
