package broker

import (
	"fmt"
	"testing"

	"hashplus/broker/wire"
)

// withWill gives a CONNECT a will on topic "will".
func withWill(delay uint32, retain bool) func(*wire.Connect) {
	return func(p *wire.Connect) {
		p.Will = &wire.Will{Topic: "will", Payload: []byte("gone"), QoS: 1, Retain: retain, Delay: delay, ExpiryAt: -1}
	}
}

// watcher subscribes to wills.
func (s *sim) watcher() *simConn {
	c := s.join(0, "watcher", wire.V5, 0)
	c.sub(wire.V5, wire.Subscription{Filter: "will", QoS: 1})
	return c
}

func TestWill_Timing(t *testing.T) { // [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.3-9] [MQTT-3.14.4-3]
	disconnect := func(reason wire.ReasonCode) func(*sim, *simConn) {
		return func(_ *sim, c *simConn) { c.send((&wire.Disconnect{Reason: reason}).Append(nil)) }
	}
	cut := func(_ *sim, c *simConn) { c.cut() }
	takeOver := func(s *sim, c *simConn) { s.join(0, "c", wire.V5, 60) }
	cleanTakeOver := func(s *sim, c *simConn) {
		s.join(0, "c", wire.V5, 60, func(p *wire.Connect) { p.CleanStart = true })
	}
	back := func(after float64) func(*sim, *simConn) {
		return func(s *sim, c *simConn) {
			c.cut()
			s.advance(after)
			s.join(0, "c", wire.V5, 60)
		}
	}
	for _, tc := range []struct {
		name          string
		delay, expiry uint32
		do            func(*sim, *simConn)
		now, later    int // how many wills at once, and within a minute and a half
	}{
		{"lost connection", 0, 60, cut, 1, 1},
		{"lost connection, delay", 10, 60, cut, 0, 1},
		{"lost connection, session ends at once", 10, 0, cut, 1, 1},
		{"lost connection, session ends before the delay", 80, 60, cut, 0, 1},
		{"disconnect", 0, 60, disconnect(wire.NormalDisconnection), 0, 0},
		{"disconnect, delay", 10, 60, disconnect(wire.NormalDisconnection), 0, 0},
		{"disconnect with will", 0, 60, disconnect(wire.DisconnectWithWillMessage), 1, 1},
		{"disconnect with will, delay", 10, 60, disconnect(wire.DisconnectWithWillMessage), 0, 1},
		{"take-over", 0, 60, takeOver, 1, 1},
		{"take-over, delay", 10, 60, takeOver, 0, 0},
		{"take-over, clean start, delay", 10, 60, cleanTakeOver, 1, 1},
		{"take-over, session ends with its connection", 10, 0, takeOver, 1, 1},
		{"back within the delay", 10, 60, back(5), 0, 0},
		{"back after the delay", 10, 60, back(11), 1, 1},
	} {
		everyLoops(func(loops int) {
			s := newSim(t, loops, Options{})
			w := s.watcher()
			c := s.join(0, "c", wire.V5, tc.expiry, withWill(tc.delay, false))
			tc.do(s, c)
			now := w.publishes(wire.V5)
			w.ack(wire.V5, now)
			s.advance(90)
			if got := len(now); got != tc.now {
				t.Errorf("%s, %d loops: %d wills at once, want %d", tc.name, loops, got, tc.now)
			}
			if got := len(now) + len(w.publishes(wire.V5)); got != tc.later {
				t.Errorf("%s, %d loops: %d wills, want %d", tc.name, loops, got, tc.later)
			}
		})
	}
}

// The delay is met to the second: not before, and no later than 2 s.
func TestWill_DelayIsExact(t *testing.T) { // [MQTT-3.1.3-9]
	s := newSim(t, 2, Options{})
	w := s.watcher()
	s.join(0, "c", wire.V5, 60, withWill(10, false)).cut()
	s.advance(9.5)
	if n := len(w.publishes(wire.V5)); n != 0 {
		t.Error("it came early")
	}
	s.advance(1)
	if n := len(w.publishes(wire.V5)); n != 1 {
		t.Error("it is late")
	}
}

func TestWill_Retained(t *testing.T) { // [MQTT-3.1.2-14] [MQTT-3.1.2-15]
	for _, retain := range []bool{false, true} {
		s := newSim(t, 2, Options{})
		s.join(0, "c", wire.V5, 0, withWill(0, retain)).cut()
		if n := len(s.watcher().publishes(wire.V5)); (n == 1) != retain {
			t.Errorf("retain %v: %d came", retain, n)
		}
	}
}

// The Authorizer is asked at CONNECT, and again when the will fires.
func TestWill_IsCheckedTwice(t *testing.T) {
	az := &testAuthorizer{}
	s := newSim(t, 2, Options{Authorizer: az})
	w := s.watcher()
	c := s.join(0, "c", wire.V5, 0, withWill(0, false))
	az.publish = func(_ *Identity, topic string) bool { return topic != "will" }
	c.cut()
	if n := len(w.publishes(wire.V5)); n != 0 {
		t.Error("it was published though that is not allowed any more")
	}
	d := s.dial(0)
	p := wire.Connect{Version: wire.V5, ClientID: "d", CleanStart: true}
	withWill(0, false)(&p)
	d.send(p.Append(nil))
	if got := wire.ReasonCode(d.take()[0].body[1]); got != wire.NotAuthorized {
		t.Errorf("CONNACK has %v", got)
	}
}

// The expiry of a will counts from its publication.
func TestWill_ExpiryCountsFromPublication(t *testing.T) { // [MQTT-3.3.2-6]
	s := newSim(t, 1, Options{})
	w := s.watcher()
	s.join(0, "c", wire.V5, 60, func(p *wire.Connect) {
		props, at := (&wire.PassProperties{HasExpiry: true, Expiry: 30}).Append(nil)
		p.Will = &wire.Will{Topic: "will", Payload: []byte("x"), Delay: 20, Props: props, ExpiryAt: at, Expiry: 30}
	}).cut()
	s.advance(21)
	list := w.publishes(wire.V5)
	if len(list) != 1 || list[0].pub.Expiry != 30 {
		t.Errorf("got %d, %v", len(list), list)
	}
}

// A client's own will, delivered to its own session, does not disturb the end
// of that session.
func TestWill_ToItsOwnSession(t *testing.T) {
	everyLoops(func(loops int) {
		for _, expiry := range []uint32{0, 60} {
			s := newSim(t, loops, Options{})
			c := s.join(0, "c", wire.V5, expiry, withWill(0, false))
			c.sub(wire.V5, wire.Subscription{Filter: "will", QoS: 1}, wire.Subscription{Filter: "$share/g/will", QoS: 1})
			c.cut()
			s.run()
			want := map[uint32]int{0: 0, 60: 2}[expiry]
			if got := len(s.join(0, "c", wire.V5, expiry).publishes(wire.V5)); got != want {
				t.Errorf("%d loops: expiry %d: %d came, want %d", loops, expiry, got, want)
			}
		}
	})
}

func TestWill_KeepAliveTimeoutSendsIt(t *testing.T) { // [MQTT-3.1.2-22]
	for _, pongs := range []bool{false, true} {
		s := newSim(t, 2, Options{})
		w := s.watcher()
		c := s.join(0, "c", wire.V5, 0, withWill(0, false), func(p *wire.Connect) { p.KeepAlive = 10 })
		c.info.PongGrace = pongs
		var at []float64
		for now := 0.5; now <= 60; now += 0.5 {
			s.advance(0.5)
			if !c.gone {
				c.pong = s.now
			}
			if len(w.publishes(wire.V5)) > 0 {
				at = append(at, now)
			}
		}
		want := map[bool]string{false: "[15]", true: "[30]"}[pongs]
		if got := fmt.Sprint(at); got != want {
			t.Errorf("pongs count %v: the will came after %s s, want %s", pongs, got, want)
		}
	}
}
