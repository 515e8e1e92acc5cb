package broker

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"hashplus/broker/wire"
)

// acked returns the reason of the acknowledgement that c got, 0xFF if none came.
func (c *simConn) acked(v wire.Version) wire.ReasonCode {
	c.s.t.Helper()
	for _, g := range c.take() {
		if g.h.Type == wire.PUBACK || g.h.Type == wire.PUBREC {
			_, reason, err := wire.ReadAck(g.h, g.body, v, &wire.Limits{})
			if err != nil {
				c.s.t.Fatal(err)
			}
			return reason
		}
	}
	return 0xFF
}

func TestLimits_RetainedMessages(t *testing.T) {
	everyLoops(func(loops int) {
		s := newSim(t, loops, Options{Limits: Limits{MaxRetainedMessages: 3}, SysInterval: time.Second})
		live := s.join(0, "live", wire.V5, 0)
		live.sub(wire.V5, wire.Subscription{Filter: "r/#"})
		p := s.join(0, "p", wire.V5, 0)
		for i := range 3 {
			p.send(retained(wire.V5, fmt.Sprint("r/", i), "x", 1, 1))
			if got := p.acked(wire.V5); got != wire.Success {
				t.Fatalf("message %d: %v", i, got)
			}
		}
		for qos := byte(1); qos <= 2; qos++ {
			p.send(retained(wire.V5, "r/3", "x", qos, 1))
			if got := p.acked(wire.V5); got != wire.QuotaExceeded {
				t.Errorf("one too many at QoS %d: %v", qos, got)
			}
		}
		if n := len(live.publishes(wire.V5)); n != 3 {
			t.Errorf("%d were delivered, one of them was refused", n)
		}
		// Who cannot be told has it delivered.
		p.send(retained(wire.V5, "r/3", "x", 0, 0))
		old := s.join(0, "old", wire.V311, 0)
		old.send(retained(wire.V311, "r/3", "x", 1, 1))
		if got := old.acked(wire.V311); got != wire.Success {
			t.Errorf("version 3.1.1: %v", got)
		}
		if n := len(live.publishes(wire.V5)); n != 2 {
			t.Errorf("%d were delivered, want 2", n)
		}
		// Another value for a topic that has one, and a topic that makes room.
		p.send(retained(wire.V5, "r/2", "yy", 1, 1))
		if got := p.acked(wire.V5); got != wire.Success {
			t.Errorf("another value: %v", got)
		}
		p.send(retained(wire.V5, "r/0", "", 1, 1))
		p.take()
		p.send(retained(wire.V5, "r/3", "x", 1, 1))
		if got := p.acked(wire.V5); got != wire.Success {
			t.Errorf("after one was removed: %v", got)
		}
		s.advance(2)
		if sys := sysOf(s); sys["refused/retained"] != "4" {
			t.Errorf("$SYS says %q were refused", sys["refused/retained"])
		}
	})
}

func TestLimits_RetainedBytes(t *testing.T) {
	size := (&message{topic: []byte("r/0"), payload: make([]byte, 933)}).size()
	s := newSim(t, 1, Options{Limits: Limits{MaxRetainedBytes: 2 * size}})
	p := s.join(0, "p", wire.V5, 0)
	for i, test := range []struct {
		topic string
		bytes int
		want  wire.ReasonCode
	}{
		{"r/0", 933, 0}, {"r/1", 934, wire.QuotaExceeded}, {"r/1", 933, 0}, {"r/2", 1, wire.QuotaExceeded},
		{"r/1", 934, wire.QuotaExceeded}, {"r/1", 933, 0}, {"r/1", 900, 0}, {"r/0", 966, 0}, {"r/0", 967, wire.QuotaExceeded},
	} {
		p.send(retained(wire.V5, test.topic, strings.Repeat("x", test.bytes), 1, 1))
		if got := p.acked(wire.V5); got != test.want && !(test.want == 0 && got == wire.NoMatchingSubscribers) {
			t.Errorf("%d: %d bytes on %s: %v, want %v", i, test.bytes, test.topic, got, test.want)
		}
	}
	if err := s.b.SetLimits(Limits{}); err != nil {
		t.Fatal(err)
	}
	p.send(retained(wire.V5, "r/2", "x", 1, 1))
	if got := p.acked(wire.V5); got >= 0x80 {
		t.Errorf("under new limits: %v", got)
	}
	if s.b.SetLimits(Limits{PublishRate: -1, MaxRetainedBytes: 1}) == nil {
		t.Error("limits that are none are accepted")
	}
}

func TestLimits_PublishRatePausesReads(t *testing.T) {
	for name, l := range map[string]Limits{
		"messages": {PublishRate: 10},
		"bytes":    {PublishBytes: 10 * len(pub(wire.V5, "q", "0000", 0, 0))},
	} {
		s := newSim(t, 2, Options{Limits: l})
		c := s.join(0, "c", wire.V5, 0)
		c.sub(wire.V5, wire.Subscription{Filter: "q"})
		p := s.join(0, "p", wire.V5, 0)
		var all []byte
		for i := range 100 {
			all = append(all, pub(wire.V5, "q", fmt.Sprintf("%04d", i), 0, 0)...)
		}
		p.send(all)
		got := c.publishes(wire.V5)
		if len(got) != 10 {
			t.Errorf("%s: %d came at once, want 10", name, len(got))
		}
		// A tenth of a second for each: at a quarter of a second each turn.
		for range 5 {
			s.advance(1)
			got = append(got, c.publishes(wire.V5)...)
		}
		if len(got) < 50 || len(got) > 61 {
			t.Errorf("%s: %d came within 5 seconds, want 60", name, len(got))
		}
		s.advance(6)
		got = append(got, c.publishes(wire.V5)...)
		if len(got) != 100 {
			t.Errorf("%s: %d came in the end", name, len(got))
		}
		for i, g := range got {
			if string(g.pub.Payload) != fmt.Sprintf("%04d", i) {
				t.Fatalf("%s: message %d is %q", name, i, g.pub.Payload)
			}
		}
		if s.b.Stats().Throttled == 0 {
			t.Errorf("%s: no pause was counted", name)
		}
		s.advance(2)
		p.send(pub(wire.V5, "q", "last", 0, 0))
		if n := len(c.publishes(wire.V5)); n != 1 {
			t.Errorf("%s: one message after a pause did not come at once", name)
		}
		p.cut()
	}
}

func TestLimits_KeepAliveStandsStillWhileAPublisherIsPaused(t *testing.T) {
	s := newSim(t, 2, Options{Limits: Limits{PublishBytes: 100}})
	p := s.join(0, "p", wire.V5, 0, func(c *wire.Connect) { c.KeepAlive = 2 })
	p.send(pub(wire.V5, "q", strings.Repeat("x", 2000), 0, 0))
	s.advance(18)
	p.feed([]byte{byte(wire.PINGREQ) << 4, 0}) // in time, but we don't listen
	if s.advance(0.5); p.gone || len(p.take()) > 0 {
		t.Fatal("it is gone, or was listened to")
	}
	if s.advance(2.5); p.gone || len(p.take()) != 1 {
		t.Fatal("no answer after the pause")
	}
	if s.advance(3.5); !p.gone {
		t.Error("the keep alive does not run after the pause")
	}
}

func TestLimits_PublisherThatGoesWhileItIsPaused(t *testing.T) {
	s := newSim(t, 2, Options{Limits: Limits{PublishRate: 1}})
	p := s.join(0, "p", wire.V5, 0)
	p.send(append(pub(wire.V5, "q", "1", 0, 0), pub(wire.V5, "q", "2", 0, 0)...))
	p.cut()
	s.advance(5)
	s.join(0, "p", wire.V5, 0).send(pub(wire.V5, "q", "1", 0, 0))
	s.advance(5)
}

func TestLimits_ShortOfMemoryRefusesNewWork(t *testing.T) {
	everyLoops(func(loops int) {
		s := newSim(t, loops, Options{SysInterval: time.Second})
		sub := s.join(0, "sub", wire.V5, 0)
		sub.sub(wire.V5, wire.Subscription{Filter: "q/#"})
		p, old := s.join(0, "p", wire.V5, 0), s.join(0, "old", wire.V311, 0)
		s.b.SetMemory(1000, true)

		for v, want := range map[wire.Version]byte{wire.V5: byte(wire.ServerBusy), wire.V311: 3, wire.V31: 3} {
			c := s.dial(0)
			c.send((&wire.Connect{Version: v, ClientID: "new", CleanStart: true}).Append(nil))
			if got := c.take(); len(got) != 1 || got[0].h.Type != wire.CONNACK || got[0].body[1] != want || !c.gone {
				t.Errorf("version %d: %v", v, got)
			}
		}
		p.send(pub(wire.V5, "q/1", "x", 1, 1))
		if got := p.acked(wire.V5); got != wire.QuotaExceeded {
			t.Errorf("QoS 1: %v", got)
		}
		p.send(pub(wire.V5, "q/1", "x", 2, 1))
		if got := p.acked(wire.V5); got != wire.QuotaExceeded {
			t.Errorf("QoS 2: %v", got)
		}
		p.send(retained(wire.V5, "q/0", "x", 0, 0))
		if s.b.retained.tree.Get([]byte("q/0")) != nil {
			t.Error("a message of QoS 0 was retained")
		}
		subscribe := wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{{Filter: "q/#", QoS: 1}, {Filter: "new"}}}
		sub.publishes(wire.V5)
		sub.send(subscribe.Append(nil, wire.V5))
		for _, g := range sub.take() {
			if a, err := wire.DecodeSuback(g.h, g.body, wire.V5); g.h.Type == wire.SUBACK &&
				(err != nil || a.Reasons[0] != 1 || a.Reasons[1] != wire.QuotaExceeded) {
				t.Errorf("SUBACK %v %v", a, err)
			}
		}
		// Below version 5 one message is taken, and the rest waits.
		old.send(append(pub(wire.V311, "q/1", "1", 1, 1), pub(wire.V311, "q/1", "2", 1, 2)...))
		if n := len(sub.publishes(wire.V5)); n != 1 {
			t.Errorf("%d of version 3.1.1 came, want 1", n)
		}
		s.advance(3)
		s.b.SetMemory(10, false)
		s.run()
		if n := len(sub.publishes(wire.V5)); n != 1 {
			t.Errorf("%d came when there was memory again, want 1", n)
		}
		p.send(pub(wire.V5, "q/1", "x", 1, 1))
		if got := p.acked(wire.V5); got != wire.Success {
			t.Errorf("when there was memory again: %v", got)
		}
		s.advance(2)
		if sys := sysOf(s); sys["refused/memory"] != "8" || sys["memory/used"] != "10" || sys["memory/short"] != "0" {
			t.Errorf("$SYS says %v", sys)
		}
	})
}

// from makes a connection that comes from an address.
func (s *sim) from(address string) *simConn {
	c := s.dial(0)
	c.info.Remote = netip.AddrPortFrom(netip.MustParseAddr(address), 1)
	return c
}

// enter connects and returns what the CONNACK says.
func (c *simConn) enter(id, user, password string) wire.ReasonCode {
	c.s.t.Helper()
	p := wire.Connect{Version: wire.V5, ClientID: id, CleanStart: true}
	if user != "" {
		p.HasUsername, p.Username, p.HasPassword, p.Password = true, user, true, []byte(password)
	}
	c.feed(p.Append(nil))
	var reason wire.ReasonCode
	c.s.settle(func() bool {
		list := c.take()
		if len(list) == 0 {
			return false
		}
		a, err := wire.DecodeConnack(list[0].h, list[0].body, wire.V5)
		if err != nil {
			c.s.t.Fatal(err)
		}
		reason = a.Reason
		return true
	})
	return reason
}

// passwords lets in whoever says "right".
type passwords struct{}

func (passwords) Authenticate(_ context.Context, r *AuthRequest) (Grant, error) {
	switch string(r.Password) {
	case "right":
		return Grant{Username: r.Username}, nil
	case "down":
		return Grant{}, &Refusal{Reason: wire.ServerUnavailable}
	}
	return Grant{}, &Refusal{Reason: wire.BadUserNameOrPassword}
}

func TestBans_ForFailedAuthentications(t *testing.T) {
	rules := Bans{AuthFailures: 3, Address: true}
	s := newSim(t, 2, Options{Authenticator: passwords{}, Limits: Limits{Bans: rules}})
	for range 10 { // that the authenticator does not work is not the client's fault
		s.from("192.0.2.1").enter("c", "u", "down")
	}
	for i := range 3 {
		if got := s.from("192.0.2.1").enter("c", "u", "wrong"); got != wire.BadUserNameOrPassword {
			t.Fatalf("failure %d: %v", i, got)
		}
		if banned := s.b.Banned(netip.MustParseAddr("192.0.2.1")); banned != (i == 2) {
			t.Fatalf("banned after failure %d: %t", i, banned)
		}
	}
	if got := s.from("192.0.2.1").enter("other", "other", "right"); got != wire.Banned {
		t.Errorf("after three failures: %v", got)
	}
	if got := s.from("192.0.2.2").enter("c", "u", "right"); got != wire.Success {
		t.Errorf("the same user from elsewhere: %v", got)
	}
	// All of an IPv6 network of 64 bits is one.
	for i := range 3 {
		s.from(fmt.Sprintf("2001:db8:0:1::%d", i)).enter("c", "u", "wrong")
	}
	if got := s.from("2001:db8:0:1:ffff::").enter("c6", "u", "right"); got != wire.Banned {
		t.Errorf("the same network: %v", got)
	}
	if got := s.from("2001:db8:0:2::").enter("c6", "u", "right"); got != wire.Success {
		t.Errorf("the next network: %v", got)
	}
	st := s.b.Stats()
	if st.RefusedBanned != 2 || st.BansActive != 2 || st.Bans != 2 {
		t.Errorf("%+v", st)
	}
}

func TestBans_ByUsername(t *testing.T) {
	s := newSim(t, 1, Options{Authenticator: passwords{}, Limits: Limits{Bans: Bans{AuthFailures: 2, Username: true}}})
	for i := range 2 {
		s.from(fmt.Sprintf("192.0.2.%d", i)).enter("c", "u", "wrong")
	}
	if got := s.from("192.0.2.9").enter("c", "u", "right"); got != wire.Banned {
		t.Errorf("the user: %v", got)
	}
	if got := s.from("192.0.2.1").enter("c", "v", "right"); got != wire.Success {
		t.Errorf("another user: %v", got)
	}
}

func TestBans_ForFlapping(t *testing.T) {
	s := newSim(t, 2, Options{Limits: Limits{Bans: Bans{Connects: 3, ClientID: true}}})
	for i := range 3 {
		if got := s.from(fmt.Sprintf("192.0.2.%d", i)).enter("c", "", ""); got != wire.Success {
			t.Fatalf("connection %d: %v", i, got)
		}
	}
	if got := s.from("192.0.2.9").enter("c", "", ""); got != wire.Banned {
		t.Errorf("the fourth: %v", got)
	}
	if got := s.from("192.0.2.1").enter("d", "", ""); got != wire.Success {
		t.Errorf("another client: %v", got)
	}
	// By address.
	if err := s.b.SetLimits(Limits{Bans: Bans{Connects: 2, Address: true}}); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		s.from("192.0.2.30").enter(fmt.Sprint(i), "", "")
	}
	if got := s.from("192.0.2.30").enter("e", "", ""); got != wire.Banned {
		t.Errorf("the third from one address: %v", got)
	}
}

func TestBans_NeverOfAnExemptConnection(t *testing.T) {
	s := newSim(t, 1, Options{Authenticator: passwords{}, Limits: Limits{Bans: Bans{AuthFailures: 1, Connects: 1, Address: true, ClientID: true, Username: true}}})
	enter := func(password string) wire.ReasonCode {
		c := s.from("127.0.0.1")
		c.info.Exempt = true
		return c.enter("c", "u", password)
	}
	for range 3 {
		if got := enter("wrong"); got != wire.BadUserNameOrPassword {
			t.Fatal(got)
		}
		if got := enter("right"); got != wire.Success {
			t.Fatal(got)
		}
	}
}

func TestBans_EndAndAreBounded(t *testing.T) {
	b := newBans()
	rules := &Bans{Window: time.Second, Time: 10 * time.Second}
	s := b.named(byClientID, "c")
	// One in each window is not too many.
	for i := range int64(10) {
		if b.note(s, flapping, 2, rules, i*second) {
			t.Fatal("banned for what was long ago")
		}
	}
	if !b.note(s, flapping, 2, rules, 9*second+1) {
		t.Fatal("not banned for two within a window")
	}
	if !b.banned(s, 19*second) || b.banned(s, 19*second+1) {
		t.Error("a ban of ten seconds does not last ten seconds")
	}
	if b.active.Load() != 0 {
		t.Error("it is counted still")
	}
	for i := range 3 * maxSuspects {
		b.note(b.named(byUsername, fmt.Sprint(i)), authFailure, 2, rules, 0)
	}
	if len(b.counts) > maxSuspects {
		t.Errorf("%d suspects", len(b.counts))
	}
	for i := range 2 * maxBanned {
		b.note(b.named(byUsername, fmt.Sprint("b", i)), authFailure, 1, rules, int64(i))
	}
	if len(b.until) > maxBanned {
		t.Errorf("%d bans", len(b.until))
	}
	if b.sweep(20 * second); b.active.Load() != 0 {
		t.Errorf("%d bans are left", b.active.Load())
	}
}
