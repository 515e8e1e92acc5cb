package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hashplus/broker/wire"
	"hashplus/topic"
)

// readable is an Authorizer that lets everybody receive what its filters match,
// subscribe to them, and publish what they match and more does. It counts the
// questions for a single message.
type readable struct {
	filters []string
	except  string // a name that is not
	mute    string // a name that nobody may publish
	asked   *int
}

func (r *readable) CanPublish(_ *Identity, name []byte) bool { return string(name) != r.mute }

func (r *readable) CanSubscribe(_ *Identity, filter string) bool {
	return slices.Contains(r.filters, filter)
}

func (r *readable) CanReceive(_ *Identity, name []byte) bool {
	if r.asked != nil {
		*r.asked++
	}
	return string(name) != r.except && slices.ContainsFunc(r.filters, func(f string) bool { return topic.Matches(f, string(name)) })
}

func (r *readable) CanReceiveAll(id *Identity, filter string) bool {
	return r.CanSubscribe(id, filter) && (r.except == "" || !topic.Matches(filter, r.except))
}

// authorize puts a in force.
func (s *sim) authorize(a Authorizer) {
	s.t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.b.SetAuthorizer(context.Background(), a) }()
	s.settle(func() bool { return len(done) > 0 })
	if err := <-done; err != nil {
		s.t.Fatal(err)
	}
}

// What is not allowed any more is not delivered, whatever path it takes, and
// comes again when it is allowed again.
func TestRights_RevocationHoldsOnEveryPath(t *testing.T) {
	all, none := &readable{filters: []string{"q/#", "q/x", "will"}}, &readable{filters: []string{"will"}, mute: "will"}
	for name, deliver := range map[string]func(s *sim, home int, revoke func()) (got *simConn){
		"live": func(s *sim, home int, revoke func()) *simConn {
			c := s.member(home, "c", "q/#", 1, 0)
			revoke()
			s.join(0, "p", wire.V5, 0).pubs("q/x", 1, 1, 2)
			return c
		},
		"retained": func(s *sim, home int, revoke func()) *simConn {
			retainNames(s, "q/", 3, 1)
			c := s.join(0, s.idOn(home, "c"), wire.V5, 0, receiveMaximum(1))
			c.sub(wire.V5, wire.Subscription{Filter: "q/#", QoS: 1})
			revoke() // one is under way, the replay of the others waits
			c.ack(wire.V5, c.publishes(wire.V5))
			return c
		},
		"queued while connected": func(s *sim, home int, revoke func()) *simConn {
			c := s.member(home, "c", "q/#", 1, 0, receiveMaximum(1))
			s.join(0, "p", wire.V5, 0).pubs("q/x", 1, 1, 3)
			revoke()
			c.ack(wire.V5, c.publishes(wire.V5))
			return c
		},
		"queued while away": func(s *sim, home int, revoke func()) *simConn {
			c := s.member(home, "c", "q/#", 1, 600)
			c.cut()
			s.join(0, "p", wire.V5, 0).pubs("q/x", 1, 1, 3)
			revoke()
			return s.join(0, s.idOn(home, "c"), wire.V5, 600)
		},
		"sent again": func(s *sim, home int, revoke func()) *simConn {
			c := s.member(home, "c", "q/#", 1, 600)
			s.join(0, "p", wire.V5, 0).pubs("q/x", 1, 1, 3)
			c.cut()
			revoke()
			return s.join(0, s.idOn(home, "c"), wire.V5, 600)
		},
		"shared": func(s *sim, home int, revoke func()) *simConn {
			c := s.member(1, "c", s.groupOn(home, "q/#"), 1, 0)
			revoke()
			s.join(0, "p", wire.V5, 0).pubs("q/x", 1, 1, 2)
			return c
		},
		"waiting in a share group": func(s *sim, home int, revoke func()) *simConn {
			c := s.member(1, "c", s.groupOn(home, "q/#"), 1, 0, receiveMaximum(1))
			s.join(0, "p", wire.V5, 0).pubs("q/x", 1, 1, 3)
			revoke()
			c.ack(wire.V5, c.publishes(wire.V5))
			return c
		},
		"will": func(s *sim, home int, revoke func()) *simConn {
			c := s.member(home, "c", "will", 1, 0)
			d := s.join(0, "d", wire.V5, 0, withWill(0, false))
			revoke()
			d.cut()
			return c
		},
		"will after its delay": func(s *sim, home int, revoke func()) *simConn {
			c := s.member(home, "c", "will", 1, 0)
			s.join(0, "d", wire.V5, 60, withWill(5, false)).cut()
			revoke()
			s.advance(6)
			return c
		},
	} {
		everyHome(func(home int) {
			run := func(revoke bool) string {
				s := newSim(t, 3, Options{Authorizer: all})
				c := deliver(s, home, func() {
					if revoke {
						s.authorize(none)
					}
				})
				got := payloads(c.publishes(wire.V5))
				if revoke && s.b.Stats().Queued != 0 {
					t.Errorf("%s: home %d: %d wait for nobody", name, home, s.b.Stats().Queued)
				}
				if revoke && !strings.Contains(name, "will") && !strings.Contains(name, "shared") {
					s.authorize(all)
					c.ack(wire.V5, nil)
					s.join(0, "p2", wire.V5, 0).pubs("q/x", 0, 9, 9)
					if back := payloads(c.publishes(wire.V5)); back != "9" {
						t.Errorf("%s: home %d: allowed again, it got %q, want 9", name, home, back)
					}
				}
				return got
			}
			if got := run(false); got == "" {
				t.Errorf("%s: home %d: nothing is delivered at all: it shows nothing", name, home)
			}
			if got := run(true); got != "" {
				t.Errorf("%s: home %d: got %q, which it may not have", name, home, got)
			}
		})
	}
}

// A subscription whose filter is not allowed any more gets nothing, also of what
// its client may still read; another of its subscriptions does.
func TestRights_SubscriptionThatIsNotCoveredGetsNothing(t *testing.T) {
	s := newSim(t, 2, Options{Authorizer: &readable{filters: []string{"q/#", "q/+", "q/x"}}})
	wide := s.member(0, "wide", "q/#", 1, 0)
	both := s.member(1, "both", "q/#", 1, 0)
	sub := wire.Subscribe{PacketID: 2, Filters: []wire.Subscription{{Filter: "q/x", QoS: 0}}, SubscriptionID: 7}
	both.send(sub.Append(nil, wire.V5))
	both.take()
	p := s.join(0, "p", wire.V5, 0)
	p.pubs("q/x", 1, 1, 1)
	if got := both.publishes(wire.V5); payloads(got) != "1" || got[0].pub.QoS != 1 {
		t.Fatalf("got %q", payloads(got))
	}
	wide.take()
	s.authorize(&readable{filters: []string{"q/x"}})
	p.pubs("q/x", 1, 2, 2)
	if got := payloads(wide.publishes(wire.V5)); got != "" {
		t.Errorf("through a filter that is not allowed it got %q", got)
	}
	got := both.publishes(wire.V5)
	if payloads(got) != "2" || got[0].pub.QoS != 0 || fmt.Sprint(got[0].ids) != "[7]" {
		t.Errorf("through the filter that is allowed it got %q %+v", payloads(got), got)
	}
}

// What a subscription is cleared for is not asked for message by message; what
// it is not, is.
func TestRights_ClearedSubscriptionIsNotAskedFor(t *testing.T) {
	asked := 0
	s := newSim(t, 1, Options{Authorizer: &readable{filters: []string{"q/#"}, asked: &asked}})
	c := s.member(0, "c", "q/#", 1, 0)
	g := s.member(0, "g", "$share/g/q/#", 1, 0)
	p := s.join(0, "p", wire.V5, 0)
	p.pubs("q/x", 1, 1, 3)
	if asked != 0 || payloads(c.publishes(wire.V5)) != "1 2 3" || payloads(g.publishes(wire.V5)) != "1 2 3" {
		t.Errorf("asked %d times", asked)
	}
	s.authorize(&readable{filters: []string{"q/#"}, except: "q/y", asked: &asked})
	p.pubs("q/x", 0, 4, 4)
	p.pubs("q/y", 0, 5, 5)
	if asked == 0 || payloads(c.publishes(wire.V5)) != "4" || payloads(g.publishes(wire.V5)) != "4" {
		t.Errorf("asked %d times", asked)
	}
}

// Rules that come to a broker without any hold for those that are there.
func TestRights_FirstRulesHoldForTheClientsThatAreThere(t *testing.T) {
	everyHome(func(home int) {
		s := newSim(t, 3, Options{})
		c := s.member(home, "c", "q/#", 1, 600)
		g := s.member(1, "g", s.groupOn(home, "q/#"), 1, 600)
		s.authorize(&testAuthorizer{
			subscribe: func(id *Identity, _ string) bool { return id.Username == "" && id.ClientID != "" },
			receive: func(id *Identity, topic string) bool {
				return topic != "q/secret" && id.Listener == "sim" && id.Remote.IsValid()
			},
			publish: func(_ *Identity, topic string) bool { return topic != "q/mute" },
		})
		p := s.join(0, "p", wire.V5, 0)
		p.pubs("q/secret", 1, 1, 1)
		p.pubs("q/mute", 1, 2, 2)
		p.pubs("q/x", 1, 3, 3)
		if a, b := payloads(c.publishes(wire.V5)), payloads(g.publishes(wire.V5)); a != "3" || b != "3" {
			t.Errorf("home %d: got %q and %q, want 3", home, a, b)
		}
		s.authorize(nil)
		p.pubs("q/secret", 1, 4, 4)
		if a, b := payloads(c.publishes(wire.V5)), payloads(g.publishes(wire.V5)); a != "4" || b != "4" {
			t.Errorf("home %d: without rules got %q and %q, want 4", home, a, b)
		}
	})
}

// What its client may not have takes no room in the queue of a session that is
// away; of one whose client nobody remembers, all is kept until it comes.
func TestRights_QueueOfOneWhoIsAway(t *testing.T) {
	s := newSim(t, 1, Options{Authorizer: &testAuthorizer{receive: func(_ *Identity, topic string) bool { return topic != "q/secret" }}})
	s.member(0, "c", "q/#", 1, 600).cut()
	s.member(0, "d", "q/#", 1, 600).cut()
	d := s.sessionOf(s.idOn(0, "d"))
	d.identity = nil
	d.renewed(nil)
	p := s.join(0, "p", wire.V5, 0)
	p.pubs("q/secret", 1, 1, 1)
	p.pubs("q/x", 1, 2, 2)
	if n := s.b.Stats().Queued; n != 3 {
		t.Errorf("%d wait, want 1 and 2", n)
	}
	for _, id := range []string{"c", "d"} {
		if got := payloads(s.join(0, s.idOn(0, id), wire.V5, 600).publishes(wire.V5)); got != "2" {
			t.Errorf("%s got %q, want 2", id, got)
		}
	}
}

// A session that is resumed with other claims has the rights of these.
func TestRights_ResumedSessionHasTheRightsOfItsNewIdentity(t *testing.T) {
	everyHome(func(home int) {
		az := &testAuthorizer{subscribe: func(id *Identity, _ string) bool { return id.Data == "good" }}
		a := &claimant{data: "good"}
		s := newSim(t, 3, Options{Authorizer: az, Authenticator: a})
		enter := func() *simConn {
			c := s.dial(0)
			p := wire.Connect{Version: wire.V5, ClientID: s.idOn(1, "c"), SessionExpiry: 60, ReceiveMaximum: 100}
			c.send(p.Append(nil))
			s.settle(func() bool { return len(c.out) > 0 })
			c.out = nil
			return c
		}
		c := enter()
		c.sub(wire.V5, wire.Subscription{Filter: "q"}, wire.Subscription{Filter: s.groupOn(home, "r"), QoS: 1})
		publish := func() {
			for _, name := range []string{"q", "r"} {
				if err := s.b.Publish(Message{Topic: name, Payload: []byte(name), QoS: 1}); err != nil {
					t.Fatal(err)
				}
			}
			s.run()
		}
		publish()
		if got := len(c.publishes(wire.V5)); got != 2 {
			t.Errorf("home %d: with good claims it got %d", home, got)
		}
		c.cut()
		a.data = "bad"
		c = enter()
		publish()
		if got := payloads(c.publishes(wire.V5)); got != "" {
			t.Errorf("home %d: with bad claims it got %q", home, got)
		}
	})
}

// claimant lets everybody in with data.
type claimant struct{ data any }

func (c *claimant) Authenticate(context.Context, *AuthRequest) (Grant, error) {
	return Grant{Data: c.data}, nil
}

// Asking an Authorizer for each delivery allocates nothing of our own.
func TestRights_AskingAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for name, az := range map[string]Authorizer{"cleared": filtering{}, "screened": allowing{}} {
		s := newSim(t, 1, Options{Authorizer: az})
		for i := range 100 {
			s.member(0, fmt.Sprint("c", i), "q/+", 0, 0)
		}
		p := s.join(0, "p", wire.V311, 0)
		packet := pub(wire.V311, "q/x", "payload", 0, 0)
		allocs := func(n int) float64 {
			return testing.AllocsPerRun(5, func() { // within the budget of a tick
				for range n {
					p.stream.Data(packet)
				}
				for _, l := range s.loops { // queues are emptied, without a turn
					for _, c := range l.busy {
						c.queue = c.queue[:0]
					}
				}
			})
		}
		allocs(5)
		if n := allocs(5); n != 0 {
			t.Errorf("%s: %v allocations for 500 deliveries", name, n)
		}
	}
}

// allowing asks nothing of anybody.
type allowing struct{}

func (allowing) CanPublish(*Identity, []byte) bool   { return true }
func (allowing) CanSubscribe(*Identity, string) bool { return true }
func (allowing) CanReceive(*Identity, []byte) bool   { return true }

type filtering struct{ allowing }

func (filtering) CanReceiveAll(*Identity, string) bool { return true }

// What was stored under other rules is held to those that are in force after a
// restart: what waits, what is sent again, what is retained, a will.
func TestRights_HoldForWhatWasStored(t *testing.T) {
	everyLoops(func(loops int) {
		name := func(p *wire.Connect) { p.HasUsername, p.Username = true, "u" }
		s := newStored(t, loops, Options{Authenticator: named{}})
		enter := func(id string, expiry uint32, more ...func(*wire.Connect)) *simConn {
			c := s.dial(0)
			p := wire.Connect{Version: wire.V5, ClientID: id, CleanStart: expiry == 0, SessionExpiry: expiry, ReceiveMaximum: 100}
			for _, f := range append(more, name) {
				f(&p)
			}
			c.send(p.Append(nil))
			s.settle(func() bool { s.store(); return len(c.out) > 0 })
			return c
		}
		c := enter("c", 600)
		s.sub(c, wire.V5, wire.Subscription{Filter: "q/#", QoS: 1}, wire.Subscription{Filter: "$share/g/q/#", QoS: 1}, wire.Subscription{Filter: "will", QoS: 1})
		x := enter("x", 0, withWill(0, false))
		for i, topic := range []string{"q/secret", "q/open"} {
			s.send(x, pub(wire.V5, topic, topic, 1, uint16(i+1)))
			s.send(x, retained(wire.V5, "kept/"+topic, topic, 1, uint16(i+3)))
		}
		c.cut()
		s.store()
		s.send(x, pub(wire.V5, "q/secret", "queued", 1, 9))
		s.store()
		s.o.Authorizer = &testAuthorizer{
			receive: func(id *Identity, topic string) bool { return id.Username == "u" && topic != "q/secret" },
			publish: func(id *Identity, topic string) bool {
				return id.Username == "u" && !(id.ClientID == "x" && (topic == "kept/q/secret" || topic == "will"))
			},
		}
		s.crash()
		c = enter("c", 600)
		s.store()
		if got := payloads(c.publishes(wire.V5)); strings.Contains(got, "secret") || strings.Contains(got, "queued") || strings.Contains(got, "gone") || !strings.Contains(got, "q/open") {
			t.Errorf("%d loops: got %q", loops, got)
		}
		s.sub(c, wire.V5, wire.Subscription{Filter: "kept/#", QoS: 0})
		if got := payloads(c.publishes(wire.V5)); got != "q/open" {
			t.Errorf("%d loops: retained came %q, want what its publisher may still publish", loops, got)
		}
	})
}

// named lets everybody in under the name they give.
type named struct{}

func (named) Authenticate(_ context.Context, r *AuthRequest) (Grant, error) {
	return Grant{Username: r.Username}, nil
}
