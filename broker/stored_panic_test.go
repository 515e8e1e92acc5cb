package broker

import (
	"fmt"
	"strings"
	"testing"

	"hashplus/broker/wire"
)

// An Authorizer or an Observer that panics says no, to the one that it is asked
// about: others get the message, and acknowledgements leave.
func TestStored_PanicOfAnAuthorizerIsANo(t *testing.T) {
	everyLoops(func(loops int) {
		az := &testAuthorizer{}
		s := newStored(t, loops, Options{Authorizer: az, Observer: panickingObserver{}})
		clients := map[string]*simConn{}
		for i := range loops {
			for _, name := range []string{"good", "bad"} {
				id := s.idOn(i, name)
				c := s.join(0, id, wire.V5, 600)
				s.sub(c, wire.V5, wire.Subscription{Filter: "t", QoS: 2}, wire.Subscription{Filter: "$share/g/t", QoS: 1})
				clients[id] = c
			}
		}
		az.receive = func(id *Identity, _ string) bool {
			if strings.HasPrefix(id.ClientID, "bad") {
				panic("broken")
			}
			return true
		}
		x := s.join(0, "x", wire.V5, 600)
		for i := 1; i <= 6; i++ {
			for _, l := range s.b.loops {
				l.budget = i % 3 // some of it is put off
			}
			x.feed(pub(wire.V5, "t", fmt.Sprint(i), byte(1+i%2), uint16(i)))
			s.store()
		}
		if got := len(x.take()); got != 6 {
			t.Errorf("%d loops: %d of 6 messages were acknowledged", loops, got)
		}
		for id, c := range clients {
			want := 6
			if strings.HasPrefix(id, "bad") {
				want = 0
			}
			seen := map[string]bool{}
			for _, g := range c.publishes(wire.V5) {
				seen[string(g.pub.Payload)] = true
			}
			if len(seen) != want {
				t.Errorf("%d loops: %s got %d of the messages, want %d", loops, id, len(seen), want)
			}
		}
		az.publish = func(*Identity, string) bool { panic("broken") }
		s.send(x, pub(wire.V5, "t", "no", 1, 7))
		if r := x.acked(wire.V5); r != wire.NotAuthorized {
			t.Errorf("%d loops: a PUBLISH about which it panics gets %v", loops, r)
		}
	})
}

// panickingObserver is one that nothing works in.
type panickingObserver struct{}

func (panickingObserver) Connected(ClientEvent)              { panic("broken") }
func (panickingObserver) Disconnected(ClientEvent)           { panic("broken") }
func (panickingObserver) Subscribed(*Identity, string, byte) { panic("broken") }
func (panickingObserver) Unsubscribed(*Identity, string)     { panic("broken") }
func (panickingObserver) Dropped(string, []byte, DropReason) { panic("broken") }

// panickingSink stands for anything of ours that panics amid a message.
type panickingSink struct{}

func (panickingSink) room() int                        { return 1 }
func (panickingSink) accept(*message, byte, bool) bool { panic("broken") }

// Whatever panics amid the way of a message, the acknowledgements of its publisher
// and of others leave, and nothing is handed in twice.
func TestStored_PanicLeavesNoPostingOpen(t *testing.T) {
	for _, budget := range []int{0, 1, 1000} {
		for _, filter := range []string{"t", "$share/g/t", "$share/h/t"} {
			for at := range 3 {
				s := newStored(t, 3, Options{})
				s.survives = true
				for i := range 3 {
					c := s.join(0, s.idOn(i, "c"), wire.V5, 600)
					s.sub(c, wire.V5, wire.Subscription{Filter: "t", QoS: 1}, wire.Subscription{Filter: "$share/g/t", QoS: 1})
				}
				l := s.b.loops[at]
				broken := &session{id: "broken", loop: l, sink: panickingSink{}, traffic: &l.idle}
				group, name, _ := strings.Cut(strings.TrimPrefix(filter, "$share/"), "/")
				if !strings.HasPrefix(filter, "$share/") {
					group, name = "", filter
				}
				broken.put(nil, &subscription{filter: filter, topic: name, qos: 1}, group, func() {})
				s.store()
				x := s.join(0, s.idOn(0, "x"), wire.V5, 600)
				y := s.join(0, s.idOn(0, "y"), wire.V5, 600)
				for i := 1; i <= 8; i++ {
					for _, l := range s.b.loops {
						l.budget = budget
					}
					x.feed(pub(wire.V5, "t", fmt.Sprint(i), 1, uint16(i)))
					y.feed(pub(wire.V5, "t", fmt.Sprint(i), 1, uint16(i)))
					s.turnOf(0)
					if i%2 == 0 {
						s.store()
					}
				}
				s.store()
				if s.panics == 0 {
					t.Fatalf("budget %d, %s on loop %d: nothing has panicked", budget, filter, at)
				}
				if a, b := len(x.take()), len(y.take()); a != 8 || b != 8 {
					t.Errorf("budget %d, %s on loop %d: %d and %d of 8 messages were acknowledged", budget, filter, at, a, b)
				}
			}
		}
	}
}

// What is told to some when a batch is stored does not keep it from others.
func TestStored_PanicBesideOthersThatWait(t *testing.T) {
	s := newStored(t, 1, Options{})
	s.survives = true
	x := s.join(0, "x", wire.V5, 600)
	s.b.loops[0].notes().after(func() { panic("broken") })
	told := false
	s.b.loops[0].notes().after(func() { told = true })
	s.run()
	s.send(x, pub(wire.V5, "nobody", "1", 2, 1))
	if s.panics != 1 || !told || len(x.take()) != 1 {
		t.Errorf("%d panics, told %v", s.panics, told)
	}
}
