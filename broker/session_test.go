package broker

import (
	"fmt"
	"strings"
	"testing"

	"hashplus/broker/wire"
)

// fillWindow has a session of id with messages 1 to n in flight, QoS 1, and
// its connection cut.
func fillWindow(s *sim, id string, v wire.Version, n int, more ...func(*wire.Connect)) {
	s.t.Helper()
	c := s.join(0, id, v, 600, more...)
	c.sub(v, wire.Subscription{Filter: "q/#", QoS: 2})
	p := s.join(0, "publisher-of-"+id, v, 0)
	for i := 1; i <= n; i++ {
		p.send(pub(v, "q/x", fmt.Sprint(i), 1, uint16(i)))
	}
	p.cut()
	c.cut()
}

func TestSession_ResumedSendsAgainInOrderWithDup(t *testing.T) { // [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1]
	everyLoops(func(loops int) {
		s := newSim(t, loops, Options{})
		fillWindow(s, "c", wire.V5, 5)
		c := s.join(0, "c", wire.V5, 600)
		list := c.publishes(wire.V5)
		if got := payloads(list); got != "1 2 3 4 5" {
			t.Fatalf("%d loops: sent again %q", loops, got)
		}
		for i, g := range list {
			if !g.pub.Dup || int(g.pub.PacketID) != i+1 {
				t.Errorf("%d loops: message %d: DUP %v, id %d", loops, i+1, g.pub.Dup, g.pub.PacketID)
			}
		}
		c.ack(wire.V5, list)
		c.cut()
		if got := s.join(0, "c", wire.V5, 600).publishes(wire.V5); len(got) != 0 {
			t.Errorf("%d loops: sent again after PUBACK: %q", loops, payloads(got))
		}
	})
}

// A lower Receive Maximum on reconnect holds for what is sent again: each
// acknowledgement lets one more go, in order.
func TestSession_LowerReceiveMaximumOnReconnect(t *testing.T) { // [MQTT-3.3.4-9]
	s := newSim(t, 1, Options{})
	fillWindow(s, "c", wire.V5, 7)
	c := s.join(0, "c", wire.V5, 600, func(p *wire.Connect) { p.ReceiveMaximum = 2 })
	var seen []string
	unacked := c.publishes(wire.V5)
	if len(unacked) != 2 {
		t.Fatalf("%d are in flight, 2 are allowed", len(unacked))
	}
	for len(unacked) > 0 {
		g := unacked[0]
		seen = append(seen, string(g.pub.Payload))
		c.send(puback(wire.V5, g.pub.PacketID))
		unacked = append(unacked[1:], c.publishes(wire.V5)...)
		if len(unacked) > 2 {
			t.Fatalf("%d are in flight, 2 are allowed", len(unacked))
		}
	}
	if got := strings.Join(seen, ""); got != "1234567" {
		t.Errorf("got %s", got)
	}
}

// An acknowledgement of what was sent on an earlier connection counts, even
// before it was sent again, and frees nothing that it does not hold.
func TestSession_AcknowledgementMayComeBeforeTheReSend(t *testing.T) { // [MQTT-3.3.4-9]
	s := newSim(t, 1, Options{})
	fillWindow(s, "c", wire.V5, 4)
	c := s.join(0, "c", wire.V5, 600, func(p *wire.Connect) { p.ReceiveMaximum = 1 })
	first := c.publishes(wire.V5)
	c.send(puback(wire.V5, 3)) // not sent again yet
	if got := c.publishes(wire.V5); len(got) != 0 {
		t.Fatalf("%q was sent beyond Receive Maximum", payloads(got))
	}
	c.ack(wire.V5, first)
	second := c.publishes(wire.V5)
	c.ack(wire.V5, second)
	if got := payloads(first) + payloads(second) + payloads(c.publishes(wire.V5)); got != "124" {
		t.Errorf("got %s, want 124", got)
	}
}

func TestSession_PubrelIsSentAgain(t *testing.T) { // [MQTT-4.3.3-5] [MQTT-4.4.0-1] [MQTT-4.6.0-4]
	s := newSim(t, 1, Options{})
	c := s.join(0, "c", wire.V5, 600)
	c.sub(wire.V5, wire.Subscription{Filter: "q", QoS: 2})
	p := s.join(0, "p", wire.V5, 0)
	for i := range 3 {
		p.send(pub(wire.V5, "q", fmt.Sprint(i), 2, uint16(i+1)))
	}
	c.publishes(wire.V5)
	c.send(ackOf(wire.PUBREC, wire.V5, 2, 0))
	c.send(ackOf(wire.PUBREC, wire.V5, 1, 0))
	c.cut()
	c = s.join(0, "c", wire.V5, 600, func(p *wire.Connect) { p.ReceiveMaximum = 1 })
	var sent []string
	for _, g := range c.take() {
		sent = append(sent, fmt.Sprint(g.h.Type, g.h.Flags))
	}
	// The released ones hold nothing of Receive Maximum, so the third goes too.
	if got := strings.Join(sent, " "); got != "PUBREL 2 PUBREL 2 PUBLISH 12" {
		t.Errorf("sent again: %s", got)
	}
}

// A packet identifier that the client never acknowledges is not given to
// another message, and once it is free all goes on.
func TestSession_StuckPacketIDIsNotUsedAgain(t *testing.T) { // [MQTT-2.2.1-3] [MQTT-2.2.1-4]
	s := newSim(t, 1, Options{MaxQueuedMessages: 100})
	c := s.join(0, "c", wire.V311, 600)
	c.sub(wire.V311, wire.Subscription{Filter: "q", QoS: 1})
	p := s.join(0, "p", wire.V311, 0)
	packet := pub(wire.V311, "q", "x", 1, 1)
	var stuck uint16
	delivered := 0
	for range 66_000 {
		p.feed(packet)
		s.run()
		p.out = nil
		for _, g := range c.publishes(wire.V311) {
			delivered++
			if stuck == 0 {
				stuck = g.pub.PacketID
				continue
			}
			if g.pub.PacketID == stuck || g.pub.PacketID == 0 {
				t.Fatalf("message %d has identifier %d, which is in use", delivered, stuck)
			}
			c.feed(puback(wire.V311, g.pub.PacketID))
		}
		s.run()
	}
	if delivered < 65_000 {
		t.Fatalf("%d were delivered beside the stuck one", delivered)
	}
	c.send(puback(wire.V311, stuck))
	c.ack(wire.V311, c.publishes(wire.V311))
	p.send(pub(wire.V311, "q", "last", 1, 1))
	if got := payloads(c.publishes(wire.V311)); got != "last" {
		t.Errorf("after the stuck one was acknowledged: %q", got)
	}
}

func TestSession_ExpiryCounts(t *testing.T) { // [MQTT-3.1.2-23] [MQTT-4.1.0-2]
	everyLoops(func(loops int) {
		s := newSim(t, loops, Options{})
		for _, tc := range []struct {
			name    string
			connect uint32
			change  *uint32 // in DISCONNECT
			wait    float64
			present bool
		}{
			{"within", 10, nil, 9, true},
			{"after", 10, nil, 10.5, false},
			{"longer", 10, ptr(100), 50, true},
			{"shorter", 100, ptr(5), 6, false},
			{"ended", 100, ptr(0), 0, false},
			{"forever", neverExpires, nil, 100_000, true},
		} {
			c := s.join(0, tc.name, wire.V5, tc.connect)
			c.sub(wire.V5, wire.Subscription{Filter: "x"})
			if tc.change == nil {
				c.cut()
			} else {
				d := wire.Disconnect{HasSessionExpiry: true, SessionExpiry: *tc.change}
				c.send(d.Append(nil))
			}
			if tc.wait > 1000 { // in one step: a quarter second at a time takes too long
				s.now += int64(tc.wait) * second
				for _, l := range s.loops {
					l.wheel.Advance(s.now)
				}
			} else {
				s.advance(tc.wait)
			}
			if got := s.sessionOf(tc.name) != nil; got != tc.present {
				t.Errorf("%d loops: %s: session is there: %v, want %v", loops, tc.name, got, tc.present)
			}
		}
	})
}

func ptr(v uint32) *uint32 { return &v }

func TestSession_ReconnectStopsTheExpiryClock(t *testing.T) { // [MQTT-3.1.2-23]
	s := newSim(t, 1, Options{})
	c := s.join(0, "c", wire.V5, 10)
	c.cut()
	s.advance(8)
	c = s.join(0, "c", wire.V5, 10)
	s.advance(60)
	if s.sessionOf("c") == nil {
		t.Fatal("the session ended while its client was connected")
	}
	c.cut()
	s.advance(9)
	if s.sessionOf("c") == nil {
		t.Fatal("the clock did not begin anew")
	}
}

func TestSession_TakeOver(t *testing.T) { // [MQTT-3.1.4-3]
	everyLoops(func(loops int) {
		seen := &events{}
		s := newSim(t, loops, Options{Observer: seen})
		old := s.join(0, "c", wire.V5, 60)
		old.sub(wire.V5, wire.Subscription{Filter: "q", QoS: 1})
		s.join(0, "p", wire.V5, 0).send(pub(wire.V5, "q", "x", 1, 1))
		old.out = nil
		c := s.join(loops-1, "c", wire.V5, 60)
		if reason, ok := old.disconnectReason(); !ok || reason != wire.SessionTakenOver {
			t.Errorf("%d loops: the old connection got %v, %v", loops, reason, ok)
		}
		if !old.gone {
			t.Errorf("%d loops: the old connection is open", loops)
		}
		if got := payloads(c.publishes(wire.V5)); got != "x" {
			t.Errorf("%d loops: the new connection got %q", loops, got)
		}
		if got, want := seen.of("c"), "+c -c:Sessiontakenover +c:resumed"; got != want {
			t.Errorf("%d loops: observed %q, want %q", loops, got, want)
		}
		if st := s.b.Stats(); st.Sessions != 2 || st.Connected != 2 {
			t.Errorf("%d loops: %d sessions, %d connected", loops, st.Sessions, st.Connected)
		}
	})
}

// events is an Observer that notes connections.
type events struct {
	NopObserver
	list []string
	lost []string
}

func (e *events) Connected(c ClientEvent) {
	text := "+" + c.ClientID
	if c.Resumed {
		text += ":resumed"
	}
	e.list = append(e.list, text)
}

func (e *events) Disconnected(c ClientEvent) {
	e.list = append(e.list, "-"+c.ClientID+":"+strings.ReplaceAll(c.Reason.String(), " ", ""))
}

func (e *events) Dropped(id string, topic []byte, why DropReason) {
	e.lost = append(e.lost, id+" "+string(topic)+" "+why.String())
}

func (e *events) of(id string) string {
	var all []string
	for _, text := range e.list {
		if strings.HasPrefix(text[1:]+":", id+":") {
			all = append(all, text)
		}
	}
	return strings.Join(all, " ")
}

func TestSession_CleanStartForgetsIt(t *testing.T) { // [MQTT-3.1.2-4]
	s := newSim(t, 1, Options{})
	fillWindow(s, "c", wire.V5, 3)
	c := s.join(0, "c", wire.V5, 60, func(p *wire.Connect) { p.CleanStart = true })
	if got := c.publishes(wire.V5); len(got) != 0 {
		t.Errorf("sent again: %q", payloads(got))
	}
	s.join(0, "p", wire.V5, 0).send(pub(wire.V5, "q/x", "y", 1, 1))
	if got := c.publishes(wire.V5); len(got) != 0 {
		t.Errorf("a subscription has survived: %q", payloads(got))
	}
	if n := s.b.Stats().Sessions; n != 2 {
		t.Errorf("%d sessions", n)
	}
}

func TestSession_NoMoreThanMaxSessions(t *testing.T) {
	s := newSim(t, 2, Options{MaxSessions: 2})
	s.join(0, "a", wire.V5, 60).cut()
	s.join(0, "b", wire.V5, 60)
	for _, tc := range []struct {
		id    string
		clean bool
		want  wire.ReasonCode
	}{{"c", true, wire.QuotaExceeded}, {"a", false, wire.Success}, {"b", true, wire.Success}, {"d", false, wire.QuotaExceeded}} {
		c := s.dial(0)
		p := wire.Connect{Version: wire.V5, ClientID: tc.id, CleanStart: tc.clean, SessionExpiry: 60, ReceiveMaximum: 10}
		c.send(p.Append(nil))
		if got := wire.ReasonCode(c.take()[0].body[1]); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.id, got, tc.want)
		}
	}
}

// A message whose time passes after it was sent first keeps an interval of 0,
// not one that has gone below.
func TestSession_ReSendAfterExpiryAnnouncesNothingLeft(t *testing.T) { // [MQTT-3.3.2-6] [MQTT-4.3.3-7]
	s := newSim(t, 1, Options{})
	c := s.join(0, "c", wire.V5, 600)
	c.sub(wire.V5, wire.Subscription{Filter: "q", QoS: 1})
	if err := s.b.Publish(Message{Topic: "q", QoS: 1, PassProperties: wire.PassProperties{HasExpiry: true, Expiry: 10}}); err != nil {
		t.Fatal(err)
	}
	s.run()
	if got := c.publishes(wire.V5); len(got) != 1 || got[0].pub.Expiry != 10 {
		t.Fatalf("got %v", got)
	}
	c.cut()
	s.advance(100)
	got := s.join(0, "c", wire.V5, 600).publishes(wire.V5)
	if len(got) != 1 || got[0].pub.Expiry != 0 {
		t.Fatalf("sent again: %d, with an interval of %d", len(got), got[0].pub.Expiry)
	}
}

// What waits counts its time; what has none left is dropped and counted.
func TestSession_QueuedMessageExpires(t *testing.T) { // [MQTT-3.3.2-5] [MQTT-3.3.2-6]
	seen := &events{}
	s := newSim(t, 2, Options{Observer: seen})
	c := s.join(0, "c", wire.V5, 600)
	c.sub(wire.V5, wire.Subscription{Filter: "q", QoS: 1})
	c.cut()
	for _, expiry := range []uint32{5, 50} {
		m := Message{Topic: "q", Payload: fmt.Append(nil, expiry), QoS: 1, PassProperties: wire.PassProperties{HasExpiry: true, Expiry: expiry}}
		if err := s.b.Publish(m); err != nil {
			t.Fatal(err)
		}
	}
	s.run()
	s.advance(20)
	got := s.join(0, "c", wire.V5, 600).publishes(wire.V5)
	if payloads(got) != "50" || got[0].pub.Expiry != 30 {
		t.Errorf("got %q with %d s left, want 50 with 30", payloads(got), got[0].pub.Expiry)
	}
	if fmt.Sprint(seen.lost) != "[c q expired]" {
		t.Errorf("dropped: %v", seen.lost)
	}
}

// The right to receive is asked for again when a message is sent again.
func TestSession_ReSendAsksTheAuthorizer(t *testing.T) {
	az := &testAuthorizer{}
	s := newSim(t, 1, Options{Authorizer: az})
	fillWindow(s, "c", wire.V5, 3)
	az.receive = func(*Identity, string) bool { return false }
	c := s.join(0, "c", wire.V5, 600)
	if got := c.publishes(wire.V5); len(got) != 0 {
		t.Errorf("got %q, which it may not have", payloads(got))
	}
	az.receive = nil
	s.join(0, "p", wire.V5, 0).send(pub(wire.V5, "q/x", "new", 1, 1))
	if got := payloads(c.publishes(wire.V5)); got != "new" {
		t.Errorf("got %q, want new", got)
	}
}

// No Local holds for a client, not for one of its connections or sessions.
func TestSession_NoLocalKnowsTheClientAgain(t *testing.T) { // [MQTT-3.8.3-3]
	s := newSim(t, 1, Options{})
	c := s.join(0, "c", wire.V5, 0)
	c.send(retained(wire.V5, "q", "mine", 0, 0))
	c.cut()
	s.join(0, "d", wire.V5, 0).send(retained(wire.V5, "r", "other", 0, 0))
	c = s.join(0, "c", wire.V5, 60)
	c.sub(wire.V5, wire.Subscription{Filter: "+", QoS: 1, NoLocal: true})
	if got := payloads(c.publishes(wire.V5)); got != "other" {
		t.Errorf("got %q, want other", got)
	}
}
