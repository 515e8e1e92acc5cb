package broker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"hashplus/broker/wire"
)

// testAuthorizer allows what its functions do; nil ones allow all.
type testAuthorizer struct {
	publish   func(id *Identity, topic string) bool
	subscribe func(id *Identity, filter string) bool
	receive   func(id *Identity, topic string) bool
}

func (a *testAuthorizer) CanPublish(id *Identity, topic []byte) bool {
	return a.publish == nil || a.publish(id, string(topic))
}

func (a *testAuthorizer) CanSubscribe(id *Identity, filter string) bool {
	return a.subscribe == nil || a.subscribe(id, filter)
}

func (a *testAuthorizer) CanReceive(id *Identity, topic []byte) bool {
	return a.receive == nil || a.receive(id, string(topic))
}

// gate is an Authenticator that a test opens.
type gate struct {
	asked   chan string
	verdict chan error
	ended   chan error // the context's error
}

func newGate() *gate {
	return &gate{asked: make(chan string, 10), verdict: make(chan error, 10), ended: make(chan error, 10)}
}

func (g *gate) Authenticate(ctx context.Context, r *AuthRequest) (Grant, error) {
	g.asked <- r.ClientID
	select {
	case err := <-g.verdict:
		return Grant{Username: r.Username}, err
	case <-ctx.Done():
		g.ended <- ctx.Err()
		return Grant{}, ctx.Err()
	}
}

// connect feeds a CONNECT of id, and more bytes behind it.
func (s *sim) connect(id string, behind ...byte) *simConn {
	c := s.dial(0)
	p := wire.Connect{Version: wire.V5, ClientID: id, CleanStart: true, RequestProblem: true, KeepAlive: 10,
		HasUsername: true, Username: "u", ReceiveMaximum: 10}
	c.send(append(p.Append(nil), behind...))
	return c
}

// settle runs the loops until the authenticator's verdict has arrived.
func (s *sim) settle(arrived func() bool) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); !arrived(); {
		if time.Now().After(end) {
			s.t.Fatal("nothing comes back from the authenticator")
		}
		time.Sleep(time.Millisecond)
		s.run()
	}
}

// connack returns the reason of the CONNACK that has come, and its bytes.
func (c *simConn) connack() (reason wire.ReasonCode, body []byte) {
	c.s.t.Helper()
	list := c.take()
	if len(list) == 0 || list[0].h.Type != wire.CONNACK {
		c.s.t.Fatalf("got %v in place of CONNACK", list)
	}
	for _, g := range list[1:] {
		c.out = append(c.out, repack(g)...)
	}
	return wire.ReasonCode(list[0].body[1]), list[0].body
}

func TestAuth_PausesTheClientUntilTheVerdict(t *testing.T) {
	everyLoops(func(loops int) {
		g := newGate()
		s := newSim(t, loops, Options{Authenticator: g})
		c := s.connect("c", byte(wire.PINGREQ)<<4, 0)
		<-g.asked
		s.run()
		if !c.paused || len(c.out) > 0 {
			t.Fatalf("%d loops: it is heard, or answered, before the verdict", loops)
		}
		g.verdict <- nil
		s.settle(func() bool { return len(c.out) > 0 })
		if reason, _ := c.connack(); reason != wire.Success {
			t.Errorf("%d loops: CONNACK has %v", loops, reason)
		}
		s.run()
		if list := c.take(); len(list) != 1 || list[0].h.Type != wire.PINGRESP {
			t.Errorf("%d loops: what came behind CONNECT got %v", loops, list)
		}
	})
}

func TestAuth_RefusalNamesItsReason(t *testing.T) {
	for _, tc := range []struct {
		err    error
		reason wire.ReasonCode
		told   string
	}{
		{&Refusal{Reason: wire.BadUserNameOrPassword, Detail: "no such user"}, wire.BadUserNameOrPassword, "no such user"},
		{errors.New("the database at 10.0.0.7 says no"), wire.NotAuthorized, ""},
		{&Refusal{Reason: wire.ServerUnavailable, Detail: "the one at 10.0.0.7", Cause: errors.New("it is down")}, wire.ServerUnavailable, ""},
		{context.DeadlineExceeded, wire.ServerBusy, "too long"},
	} {
		g := newGate()
		s := newSim(t, 2, Options{Authenticator: g})
		c := s.connect("c")
		<-g.asked
		g.verdict <- tc.err
		s.settle(func() bool { return len(c.out) > 0 })
		reason, body := c.connack()
		if reason != tc.reason || !strings.Contains(string(body), tc.told) {
			t.Errorf("%v: CONNACK has %v %q", tc.err, reason, body)
		}
		if strings.Contains(string(body), "10.0.0.7") {
			t.Error("the client is told what is for the log")
		}
		if s.sessionOf("c") != nil || !c.gone {
			t.Errorf("%v: the client is in, or its connection open", tc.err)
		}
	}
}

// A client that leaves while its authenticator works ends the authenticator's
// context, and its verdict changes nothing.
func TestAuth_ConnectionClosedWhileItWorks(t *testing.T) {
	g := newGate()
	s := newSim(t, 2, Options{Authenticator: g})
	c := s.connect("c")
	<-g.asked
	c.cut()
	if err := <-g.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the context ended with %v", err)
	}
	time.Sleep(5 * time.Millisecond)
	s.run()
	if s.sessionOf("c") != nil || s.b.Stats().Connected != 0 {
		t.Error("a client that has left was let in")
	}
}

type panicking struct{}

func (panicking) Authenticate(context.Context, *AuthRequest) (Grant, error) { panic("secret of mine") }

func TestAuth_PanicRefusesTheClient(t *testing.T) {
	s := newSim(t, 2, Options{Authenticator: panicking{}})
	c := s.connect("c")
	s.settle(func() bool { return len(c.out) > 0 })
	reason, body := c.connack()
	if reason != wire.NotAuthorized || strings.Contains(string(body), "secret") {
		t.Errorf("CONNACK has %v %q", reason, body)
	}
}

// Whoever takes longer than the connect deadline is told that the server is
// busy.
func TestAuth_Deadline(t *testing.T) {
	g := newGate()
	s := newSim(t, 1, Options{Authenticator: g, ConnectTimeout: time.Minute})
	c := s.connect("c")
	<-g.asked
	s.advance(61)
	if reason, _ := c.connack(); reason != wire.ServerBusy || !c.gone {
		t.Errorf("CONNACK has %v", reason)
	}
	if err := <-g.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the context ended with %v", err)
	}
}

// Of two connections with one client identifier the one that was authenticated
// later stays, whichever came first.
func TestAuth_LaterVerdictWins(t *testing.T) { // [MQTT-3.1.4-3]
	g := newGate()
	s := newSim(t, 2, Options{Authenticator: g})
	first := s.connect("c")
	<-g.asked
	second := s.connect("c")
	<-g.asked
	g.verdict <- nil
	g.verdict <- nil
	s.settle(func() bool { return len(first.out) > 0 && len(second.out) > 0 })
	if first.gone == second.gone {
		t.Fatalf("first gone: %v, second gone: %v", first.gone, second.gone)
	}
	if n := s.b.Stats().Connected; n != 1 {
		t.Errorf("%d are connected", n)
	}
}

func TestAuth_SessionIsItsUsersOnly(t *testing.T) {
	g := newGate()
	s := newSim(t, 2, Options{Authenticator: g})
	dial := func(user string) *simConn {
		c := s.dial(0)
		p := wire.Connect{Version: wire.V5, ClientID: "c", SessionExpiry: 60, HasUsername: true, Username: user, ReceiveMaximum: 10}
		c.send(p.Append(nil))
		<-g.asked
		g.verdict <- nil
		s.settle(func() bool { return len(c.out) > 0 })
		return c
	}
	mine := dial("me")
	if reason, _ := dial("other").connack(); reason != wire.NotAuthorized {
		t.Errorf("another user got %v", reason)
	}
	if mine.gone {
		t.Error("another user has taken the connection over")
	}
}

// A client that was being let in when the broker began to shut down is not let
// in behind its back.
func TestAuth_NobodyIsLetInAfterShutdown(t *testing.T) {
	g := newGate()
	s := newSim(t, 2, Options{Authenticator: g})
	c := s.connect("c")
	<-g.asked
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.b.Shutdown(ctx) // the loops answer only when s runs them
	s.run()
	g.verdict <- nil
	s.settle(func() bool { return len(c.out) > 0 })
	if reason, _ := c.connack(); reason != wire.ServerShuttingDown {
		t.Errorf("CONNACK has %v", reason)
	}
}

// The keep alive does not run while we pause the client ourselves.
func TestAuth_KeepAliveStandsStillWhileHeld(t *testing.T) { // [MQTT-3.1.2-22]
	s := newSim(t, 1, Options{})
	c := s.join(0, "c", wire.V5, 0, func(p *wire.Connect) { p.KeepAlive = 2 })
	k := s.sessionOf("c").client
	k.hold()
	s.advance(60)
	if c.gone {
		t.Fatal("it was cut off for a silence of our making")
	}
	k.unhold()
	s.advance(2.5)
	if c.gone {
		t.Fatal("the clock did not begin anew")
	}
	s.advance(1)
	if !c.gone {
		t.Fatal("the clock does not run again")
	}
}

// The connect deadline ends with CONNECT, also for a connection that moves to
// another loop then.
func TestConnect_DeadlineEndsWithConnect(t *testing.T) {
	s := newSim(t, 2, Options{ConnectTimeout: 5 * time.Second})
	silent := s.dial(0)
	moved := s.join(0, s.idOn(1, "c"), wire.V311, 0)
	s.advance(6)
	if !silent.gone {
		t.Error("a connection without CONNECT is still there")
	}
	if moved.gone {
		t.Error("a client that has connected is cut off")
	}
}

// What a close frame holds is text, however long the reason is: it is cut where
// the frame is made.
func TestFail_CloseReasonIsText(t *testing.T) {
	s := newSim(t, 1, Options{})
	c := s.dial(0)
	p := wire.Connect{Version: wire.V5, ClientID: "c", HasAuthMethod: true, AuthMethod: strings.Repeat("€", 60)}
	c.send(p.Append(nil))
	if !utf8.ValidString(c.reason) || !strings.Contains(c.reason, "€") {
		t.Errorf("closed with reason %q", c.reason)
	}
}
