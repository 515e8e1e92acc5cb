package broker

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"hashplus/broker/wire"
	"hashplus/transport/link"
)

// register lets in who is in it, by a username whose entry is the grounds.
type register map[string]string

func (r register) Authenticate(_ context.Context, q *AuthRequest) (Grant, error) {
	if entry, ok := r[q.Username]; ok {
		return Grant{Username: q.Username, Grounds: entry}, nil
	}
	return Grant{}, &Refusal{Reason: wire.NotAuthorized}
}

func (r register) Holds(username string, grounds any) bool {
	entry, ok := r[username]
	return ok && grounds == any(entry)
}

// waiting is a register that a test opens.
type waiting struct {
	register
	asked, answer chan struct{}
}

func newWaiting(r register) *waiting {
	return &waiting{r, make(chan struct{}, 10), make(chan struct{}, 10)}
}

func (w *waiting) Authenticate(ctx context.Context, q *AuthRequest) (Grant, error) {
	w.asked <- struct{}{}
	<-w.answer
	return w.register.Authenticate(ctx, q)
}

func (w *waiting) Method() string                  { return "register" }
func (w *waiting) Begin(*AuthRequest) AuthExchange { return w }
func (w *waiting) Next(_ context.Context, data []byte) ([]byte, bool, Grant, error) {
	w.asked <- struct{}{}
	<-w.answer
	g, err := w.register.Authenticate(context.Background(), &AuthRequest{Username: string(data)})
	return nil, true, g, err
}

// reviewed runs Review beside the loops, and returns how many went.
func (s *sim) reviewed() (ended int) {
	s.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var err error
		if ended, err = s.b.Review(context.Background()); err != nil {
			s.t.Error(err)
		}
	}()
	for {
		select {
		case <-done:
			s.run()
			return ended
		default:
			s.run()
			time.Sleep(time.Millisecond)
		}
	}
}

func as(username string) func(*wire.Connect) {
	return func(p *wire.Connect) { p.HasUsername, p.Username = true, username }
}

// admit is join for an Authenticator that takes its time.
func (s *sim) admit(loop int, id string, v wire.Version, more ...func(*wire.Connect)) *simConn {
	s.t.Helper()
	c := s.dial(loop)
	p := wire.Connect{Version: v, ClientID: id, CleanStart: true, ReceiveMaximum: 10, RequestProblem: true}
	for _, f := range more {
		f(&p)
	}
	c.send(p.Append(nil))
	s.settle(func() bool { return len(c.out) > 0 })
	if reason, _ := c.connack(); reason != wire.Success {
		s.t.Fatalf("CONNACK has %v", reason)
	}
	return c
}

func TestReview_SendsThoseAwayWhoseGroundsAreGone(t *testing.T) {
	everyLoops(func(loops int) {
		s := newSim(t, loops, Options{Authenticator: register{"alice": "1", "bob": "1", "carol": "1"}})
		clients := map[string]*simConn{}
		for i, name := range []string{"alice", "bob", "carol"} {
			for _, v := range []wire.Version{wire.V311, wire.V5} {
				id := fmt.Sprint(name, v)
				clients[id] = s.admit(i%loops, id, v, as(name))
			}
		}
		// bob has another password, carol is gone, dave is new.
		if err := s.b.SetAuthenticators(register{"alice": "1", "bob": "2", "dave": "1"}); err != nil {
			t.Fatal(err)
		}
		s.run()
		for id, c := range clients {
			if c.closed {
				t.Errorf("%s went before the review", id)
			}
		}
		if n := s.reviewed(); n != 4 {
			t.Errorf("%d loops: %d went", loops, n)
		}
		for id, c := range clients {
			goes := !strings.HasPrefix(id, "alice")
			if c.closed != goes || goes && c.code != link.ClosePolicy {
				t.Errorf("%d loops: %s: closed %t with %d", loops, id, c.closed, c.code)
			}
			reason, told := c.disconnectReason()
			if told != (goes && strings.HasSuffix(id, fmt.Sprint(wire.V5))) || told && reason != wire.NotAuthorized {
				t.Errorf("%d loops: %s was told %v, %t", loops, id, reason, told)
			}
		}
		if n := s.reviewed(); n != 0 {
			t.Errorf("%d loops: another %d went", loops, n)
		}
	})
}

// Without an Authenticator everybody was let in; the one that comes says who of
// them may stay.
func TestReview_OfClientsThatNobodyWasAskedAbout(t *testing.T) {
	s := newSim(t, 2, Options{})
	c := s.join(0, "c", wire.V5, 0, as("alice"))
	if n := s.reviewed(); n != 0 {
		t.Errorf("without a Reviewer %d went", n)
	}
	if err := s.b.SetAuthenticators(register{"alice": "1", "": ""}); err != nil {
		t.Fatal(err)
	}
	if n := s.reviewed(); n != 1 || !c.closed {
		t.Errorf("%d went", n)
	}
	if err := s.b.SetAuthenticators(nil); err != nil {
		t.Fatal(err)
	}
	s.join(0, "d", wire.V5, 0)
}

// Whoever is let in by those who do not decide any more is not in yet.
func TestSetAuthenticators_HoldsForThoseOnTheirWayIn(t *testing.T) {
	before := newWaiting(register{"alice": "1", "bob": "1"})
	s := newSim(t, 2, Options{Authenticator: before})
	for name, want := range map[string]wire.ReasonCode{"alice": wire.Success, "bob": wire.NotAuthorized} {
		c := s.dial(0)
		p := wire.Connect{Version: wire.V5, ClientID: name, CleanStart: true, ReceiveMaximum: 10}
		as(name)(&p)
		if err := s.b.SetAuthenticators(before); err != nil {
			t.Fatal(err)
		}
		c.send(p.Append(nil))
		<-before.asked
		if err := s.b.SetAuthenticators(register{"alice": "1", "bob": "2"}); err != nil {
			t.Fatal(err)
		}
		s.reviewed()
		before.answer <- struct{}{}
		s.settle(func() bool { return len(c.out) > 0 })
		if reason, _ := c.connack(); reason != want {
			t.Errorf("%s: CONNACK has %v", name, reason)
		}
	}
}

// Nor is one whose session is being stored.
func TestSetAuthenticators_HoldsForThoseWhoWaitForTheStore(t *testing.T) {
	for name, want := range map[string]wire.ReasonCode{"alice": wire.Success, "bob": wire.NotAuthorized} {
		s := newStoredSim(t, 1, Options{Authenticator: register{"alice": "1", "bob": "1"}}, newMapStore())
		c := s.dial(0)
		p := wire.Connect{Version: wire.V5, ClientID: "c", CleanStart: true, ReceiveMaximum: 10, SessionExpiry: 60}
		as(name)(&p)
		c.send(p.Append(nil))
		s.settle(func() bool { return s.sessionOf("c") != nil && s.sessionOf("c").arriving != nil })
		if err := s.b.SetAuthenticators(register{"alice": "1", "bob": "2"}); err != nil {
			t.Fatal(err)
		}
		s.store()
		if reason, _ := c.connack(); reason != want {
			t.Errorf("%s: CONNACK has %v", name, reason)
		}
		if kept := s.sessionOf("c"); kept != nil && kept.arriving != nil {
			t.Errorf("%s: the session waits for its client", name)
		}
	}
}

func TestSetAuthenticators_HoldsForAReauthenticationUnderWay(t *testing.T) {
	before := newWaiting(register{"alice": "1"})
	s := newSim(t, 1, Options{Authenticator: before, EnhancedAuthenticators: []EnhancedAuthenticator{before}})
	before.answer <- struct{}{}
	c := s.admit(0, "c", wire.V5, func(p *wire.Connect) {
		p.HasAuthMethod, p.AuthMethod, p.AuthData = true, "register", []byte("alice")
	})
	<-before.asked
	again := (&wire.Auth{Reason: wire.ReAuthenticate, Method: "register", Data: []byte("alice")}).Append(nil)
	c.send(again)
	<-before.asked
	if err := s.b.SetAuthenticators(register{"alice": "2"}); err != nil {
		t.Fatal(err)
	}
	before.answer <- struct{}{}
	s.settle(func() bool { return len(c.out) > 0 })
	if reason, ok := c.disconnectReason(); !ok || reason != wire.NotAuthorized {
		t.Errorf("got DISCONNECT %v, %t", reason, ok)
	}
}

// A method that is switched off is not there for a re-authentication either.
func TestSetAuthenticators_WithoutAMethodEndsReauthentications(t *testing.T) {
	before := newWaiting(register{"alice": "1"})
	s := newSim(t, 1, Options{EnhancedAuthenticators: []EnhancedAuthenticator{before}})
	before.answer <- struct{}{}
	c := s.admit(0, "c", wire.V5, func(p *wire.Connect) {
		p.HasAuthMethod, p.AuthMethod, p.AuthData = true, "register", []byte("alice")
	})
	if err := s.b.SetAuthenticators(register{"alice": "1"}); err != nil {
		t.Fatal(err)
	}
	c.send((&wire.Auth{Reason: wire.ReAuthenticate, Method: "register", Data: []byte("alice")}).Append(nil))
	s.run()
	if reason, ok := c.disconnectReason(); !ok || reason != wire.NotAuthorized {
		t.Errorf("got DISCONNECT %v, %t", reason, ok)
	}
	if err := s.b.SetAuthenticators(nil, before, before); err == nil {
		t.Error("two of one method are let through")
	}
}

// Many go one after the other, and who is proven again meanwhile stays.
func TestReview_SpreadsTheDisconnects(t *testing.T) {
	s := newSim(t, 2, Options{Authenticator: register{"alice": "1"}})
	const n = 300
	var clients []*simConn
	for i := range n {
		clients = append(clients, s.admit(i%2, fmt.Sprint("c", i), wire.V5, as("alice")))
	}
	if err := s.b.SetAuthenticators(register{}); err != nil {
		t.Fatal(err)
	}
	gone := func() (k int) {
		for _, c := range clients {
			if c.closed {
				k++
			}
		}
		return k
	}
	ended := make(chan int)
	go func() {
		k, err := s.b.Review(context.Background())
		if err != nil {
			t.Error(err)
		}
		ended <- k
	}()
	for gone() == 0 {
		s.run()
		time.Sleep(time.Millisecond)
	}
	if k := gone(); k > n/2 {
		t.Errorf("%d of %d went at once", k, n)
	}
	if err := s.b.SetAuthenticators(register{"alice": "1"}); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case k := <-ended:
			if k != gone() || k == n {
				t.Errorf("%d are said to have gone, %d did", k, gone())
			}
			return
		default:
			s.run()
			time.Sleep(time.Millisecond)
		}
	}
}

func TestClient_IsToldWhyItsListenerDismissesIt(t *testing.T) {
	for why, want := range map[link.Dismissal]wire.ReasonCode{link.Revoked: wire.NotAuthorized, link.ListenerClosed: wire.AdministrativeAction} {
		s := newSim(t, 1, Options{})
		c := s.join(0, "c", wire.V5, 0)
		c.stream.Dismissed(why)
		s.run()
		if reason, ok := c.disconnectReason(); !ok || reason != want || !c.gone {
			t.Errorf("%v: DISCONNECT %v, %t", why, reason, ok)
		}
	}
}
