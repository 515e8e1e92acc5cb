package broker

import (
	"context"
	"testing"
	"time"

	"hashplus/broker/wire"
)

// leases lets everybody in for as long as is asked for in the password, as a
// duration; without one for ever.
type leases struct{}

func (leases) lease(username string, text []byte) (g Grant, err error) {
	g.Username = username
	if len(text) > 0 {
		d, err := time.ParseDuration(string(text))
		if err != nil {
			return g, err
		}
		g.ExpiresAt = time.Now().Add(d)
	}
	return g, nil
}

func (l leases) Authenticate(_ context.Context, r *AuthRequest) (Grant, error) {
	return l.lease(r.Username, r.Password)
}

func (leases) Method() string                    { return "lease" }
func (l leases) Begin(*AuthRequest) AuthExchange { return l }

func (l leases) Next(_ context.Context, data []byte) ([]byte, bool, Grant, error) {
	g, err := l.lease("u", data)
	return nil, true, g, err
}

// lease lets a client in whose Grant lasts as long as lease says.
func (s *sim) lease(version wire.Version, lease string, more ...func(*wire.Connect)) *simConn {
	s.t.Helper()
	c := s.dial(0)
	p := wire.Connect{Version: version, ClientID: "c", CleanStart: true, RequestProblem: true, ReceiveMaximum: 10,
		HasUsername: true, Username: "u", HasPassword: lease != "", Password: []byte(lease)}
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

func byLease(lease string) func(*wire.Connect) {
	return func(p *wire.Connect) { p.HasAuthMethod, p.AuthMethod, p.AuthData = true, "lease", []byte(lease) }
}

// renew re-authenticates with another lease.
func (c *simConn) renew(lease string) {
	c.s.t.Helper()
	c.send((&wire.Auth{Reason: wire.ReAuthenticate, Method: "lease", Data: []byte(lease)}).Append(nil))
	c.s.settle(func() bool { return len(c.out) > 0 })
}

func TestGrant_EndsTheConnectionWithIt(t *testing.T) {
	everyLoops(func(loops int) {
		for _, version := range []wire.Version{wire.V311, wire.V5} {
			for _, keepAlive := range []uint16{0, 10, 600} {
				s := newSim(t, loops, Options{Authenticator: leases{}})
				c := s.lease(version, "1m", func(p *wire.Connect) { p.KeepAlive = keepAlive })
				for range 11 { // up to the 55th second
					s.advance(5)
					c.send([]byte{byte(wire.PINGREQ) << 4, 0})
					s.run()
				}
				if c.gone {
					t.Fatalf("keep alive %d: the connection ended before", keepAlive)
				}
				c.take()
				s.advance(6)
				if !c.gone {
					t.Fatalf("keep alive %d: the connection goes on", keepAlive)
				}
				list := c.take()
				switch {
				case version == wire.V311 && len(list) != 0:
					t.Errorf("version 3.1.1 got %v", list)
				case version == wire.V5 && (len(list) != 1 || list[0].h.Type != wire.DISCONNECT || wire.ReasonCode(list[0].body[0]) != wire.NotAuthorized):
					t.Errorf("version 5 got %v", list)
				}
			}
		}
	})
}

// The keep alive still ends a silent client whose Grant lasts.
func TestGrant_DoesNotStopTheKeepAlive(t *testing.T) { // [MQTT-3.1.2-22]
	s := newSim(t, 1, Options{Authenticator: leases{}})
	c := s.lease(wire.V5, "1h", func(p *wire.Connect) { p.KeepAlive = 10 })
	s.advance(14)
	if c.gone {
		t.Fatal("the keep alive ended it too early")
	}
	s.advance(2)
	if !c.gone {
		t.Fatal("the keep alive does not run")
	}
}

func TestGrant_IsRenewedByReauthentication(t *testing.T) {
	for _, tc := range []struct {
		name, first, second string
		until               float64 // seconds after the re-authentication, which comes at 30 s; 0: never ends
	}{
		{"longer", "1m", "2m", 120},
		{"shorter", "1h", "10s", 10},
		{"for ever", "1m", "", 0},
		{"from for ever", "", "1m", 60},
	} {
		s := newSim(t, 2, Options{EnhancedAuthenticators: []EnhancedAuthenticator{leases{}}})
		c := s.lease(wire.V5, "", byLease(tc.first))
		s.advance(30)
		c.renew(tc.second)
		if list := c.take(); len(list) != 1 || list[0].h.Type != wire.AUTH {
			t.Fatalf("%s: %v", tc.name, list)
		}
		if tc.until == 0 {
			s.advance(1e6)
			if c.gone {
				t.Errorf("%s: it ended", tc.name)
			}
			continue
		}
		// A Grant ends by the clock on the wall, which goes on meanwhile.
		s.advance(tc.until - 5)
		if c.gone {
			t.Errorf("%s: it ended before", tc.name)
		}
		s.advance(6)
		if !c.gone {
			t.Errorf("%s: it goes on", tc.name)
		}
	}
}

func TestGrant_ThatHasEndedLetsNobodyIn(t *testing.T) {
	s := newSim(t, 1, Options{Authenticator: leases{}, EnhancedAuthenticators: []EnhancedAuthenticator{leases{}}})
	c := s.dial(0)
	c.send((&wire.Connect{Version: wire.V5, ClientID: "c", ReceiveMaximum: 10, HasUsername: true, Username: "u",
		HasPassword: true, Password: []byte("-1s")}).Append(nil))
	s.settle(func() bool { return len(c.out) > 0 })
	if reason, _ := c.connack(); reason != wire.NotAuthorized || s.sessionOf("c") != nil {
		t.Errorf("CONNACK has %v", reason)
	}
	c = s.lease(wire.V5, "", byLease("1h"))
	c.renew("-1s")
	if list := c.take(); !c.gone || len(list) != 1 || list[0].h.Type != wire.DISCONNECT {
		t.Errorf("a re-authentication with it got %v", list)
	}
}

// Years that no clock of the broker can count to are for ever.
func TestGrant_FarAwayIsNever(t *testing.T) {
	s := newSim(t, 1, Options{})
	for _, at := range []time.Time{time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), time.Unix(1<<55, 0)} {
		c := s.dial(0)
		s.run()
		k := newClient(s.b.loops[0], c)
		if err := k.granted(Grant{ExpiresAt: at}); err != nil || k.expires != maxTime {
			t.Errorf("%v: %v, %d", at, err, k.expires)
		}
	}
}
