package broker

import (
	"context"
	"errors"
	"testing"

	"hashplus/broker/record"
	"hashplus/broker/wire"
)

// A will is published once, to every stored session that is to have it, whatever
// point between two commits the broker crashes at.
func TestStored_WillIsPublishedOnce(t *testing.T) { // [MQTT-3.1.2-8] [MQTT-4.3.3-10]
	leave := wire.Disconnect{Reason: wire.DisconnectWithWillMessage, HasSessionExpiry: true}
	for name, tc := range map[string]struct {
		expiry, delay uint32
		begin         func(s *storedSim, c *simConn)
	}{
		"connection lost, no session": {0, 0, func(_ *storedSim, c *simConn) { c.end(nil) }},
		"connection lost":             {600, 0, func(_ *storedSim, c *simConn) { c.end(nil) }},
		"end of the session":          {600, 0, func(_ *storedSim, c *simConn) { c.feed(leave.Append(nil)) }},
		"end of the delay":            {600, 5, func(s *storedSim, c *simConn) { c.end(nil); s.advance(6) }},
		"the session ends first":      {5, 600, func(s *storedSim, c *simConn) { c.end(nil); s.advance(6) }},
		"taken over, and clean":       {600, 60, func(s *storedSim, c *simConn) { again(s, true) }},
		"taken over":                  {600, 0, func(s *storedSim, c *simConn) { again(s, false) }},
	} {
		for loops := 1; loops <= 3; loops++ {
			for steps := range 12 {
				s := newStored(t, loops, Options{})
				var ids []string
				for i := range loops {
					ids = append(ids, s.idOn(i, "sub"))
					c := s.join(0, ids[i], wire.V5, 6000)
					s.sub(c, wire.V5, wire.Subscription{Filter: "will", QoS: 2})
					c.cut()
				}
				c := s.join(0, "w", wire.V5, tc.expiry, func(p *wire.Connect) {
					p.Will = &wire.Will{Topic: "will", Payload: []byte("gone"), QoS: 2, Delay: tc.delay, ExpiryAt: -1}
				})
				s.store()
				tc.begin(s, c)
				for i := range steps { // turns of the loops and of the ledger, one at a time
					if i%(loops+1) == loops {
						s.b.ledger.turn()
					} else {
						s.turnOf(i % (loops + 1))
					}
				}
				s.crash()
				s.store()
				s.advance(1 + 2*float64(tc.delay))
				s.store()
				for _, id := range ids {
					if q := s.sessionOf(id).pending; q.count != 1 {
						t.Errorf("%s, %d loops, crash after %d steps: %d wills wait for %s", name, loops, steps, q.count, id)
					}
				}
				s.crash()
				s.store()
				if n := s.m.kinds(); n[record.KindWill] != 0 {
					t.Errorf("%s, %d loops, crash after %d steps: %d wills are left in the store", name, loops, steps, n[record.KindWill])
				}
			}
		}
	}
}

// again connects the client of the test above once more.
func again(s *storedSim, clean bool) {
	c := s.dial(0)
	p := wire.Connect{Version: wire.V5, ClientID: "w", CleanStart: clean, SessionExpiry: 600, ReceiveMaximum: 10}
	c.feed(p.Append(nil))
}

// A client that is back before the delay of its will is over, or says goodbye,
// leaves none in the store.
func TestStored_WillThatIsNotDueAnyMoreIsErased(t *testing.T) { // [MQTT-3.1.2-10] [MQTT-3.1.3-9]
	everyLoops(func(loops int) {
		for name, f := range map[string]func(s *storedSim, c *simConn){
			"DISCONNECT": func(s *storedSim, c *simConn) {
				d := wire.Disconnect{}
				s.send(c, d.Append(nil))
			},
			"back": func(s *storedSim, c *simConn) { c.cut(); s.store(); again(s, false); s.store() },
			"back, but gone before CONNACK": func(s *storedSim, c *simConn) {
				c.cut()
				s.store()
				c = s.dial(0)
				p := wire.Connect{Version: wire.V5, ClientID: "w", SessionExpiry: 600, ReceiveMaximum: 10}
				withWill(0, false)(&p)
				c.send(p.Append(nil))
				c.cut()
				s.store()
			},
		} {
			s := newStored(t, loops, Options{})
			w := s.join(0, "watcher", wire.V5, 6000)
			s.sub(w, wire.V5, wire.Subscription{Filter: "will", QoS: 1})
			f(s, s.join(0, "w", wire.V5, 600, withWill(60, false)))
			want, left := 0, 0
			if name == "back, but gone before CONNACK" {
				want, left = 1, 1 // that of the connection before
			}
			if n := s.m.kinds()[record.KindWill]; n != left {
				t.Errorf("%s, %d loops: %d wills are in the store, want %d", name, loops, n, left)
			}
			w.cut()
			s.crash()
			s.advance(70)
			s.store()
			if got := s.sessionOf("watcher").pending.count; got != want {
				t.Errorf("%s, %d loops: %d wills were published, want %d", name, loops, got, want)
			}
		}
	})
}

// claimed is Data that say which topic their client may publish to.
type claimed string

func (c claimed) MarshalBinary() ([]byte, error) { return []byte(c), nil }

// What a client's authenticator said of it counts for its will after a crash as
// it did before; where that can't be had back, its name alone gives no right.
func TestStored_WillIsJudgedByTheClaimsOfItsClient(t *testing.T) {
	az := &testAuthorizer{publish: func(id *Identity, topic string) bool {
		c, claims := id.Data.(claimed)
		return !claims && id.Username == "u" || string(c) == topic && id.Remote.IsValid() && id.Listener == "sim"
	}}
	read := func(b []byte) (any, error) { return claimed(b), nil }
	for name, tc := range map[string]struct {
		data any
		read func([]byte) (any, error)
		want int
	}{
		"no claims":          {nil, nil, 1},
		"claims":             {claimed("will"), read, 1},
		"nobody reads them":  {claimed("will"), nil, 0},
		"they can't be read": {claimed("will"), func([]byte) (any, error) { return nil, errors.New("no") }, 0},
	} {
		for _, expiry := range []uint32{0, 600} {
			for _, delay := range []uint32{0, 5} {
				s := newStored(t, 2, Options{Authorizer: az, ReadData: tc.read, Authenticator: grants{tc.data}})
				w := s.joined("watcher", 6000, nil)
				s.sub(w, wire.V5, wire.Subscription{Filter: "will", QoS: 1})
				s.joined("c", expiry, withWill(delay, true))
				s.crash()
				s.advance(10)
				s.store()
				if got := s.sessionOf("watcher").pending.count; got != tc.want {
					t.Errorf("%s, expiry %d, delay %d: %d wills, want %d", name, expiry, delay, got, tc.want)
				}
				if m := s.b.retained.tree.Get([]byte("will")); m != nil && (m.by != nil) != (tc.data == nil) {
					t.Errorf("%s: the retained message is one of %v", name, m.by)
				}
				if n := s.m.kinds()[record.KindWill]; n != 0 {
					t.Errorf("%s, expiry %d, delay %d: %d wills are left in the store", name, expiry, delay, n)
				}
			}
		}
	}
}

// grants lets everybody in with the same Data.
type grants struct{ data any }

func (g grants) Authenticate(context.Context, *AuthRequest) (Grant, error) {
	return Grant{Username: "u", Data: g.data}, nil
}

// joined is join for a broker with an Authenticator.
func (s *storedSim) joined(id string, expiry uint32, more func(*wire.Connect)) *simConn {
	s.t.Helper()
	c := s.dial(0)
	p := wire.Connect{Version: wire.V5, ClientID: id, CleanStart: expiry == 0, SessionExpiry: expiry, ReceiveMaximum: 10}
	if more != nil {
		more(&p)
	}
	c.send(p.Append(nil))
	s.settle(func() bool { s.store(); return len(c.out) > 0 })
	if reason, _ := c.connack(); reason != wire.Success {
		s.t.Fatalf("%s got %v", id, reason)
	}
	s.store()
	return c
}
