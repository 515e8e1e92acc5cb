package broker

import (
	"fmt"
	"testing"

	"hashplus/broker/wire"
)

// CONNACK to a client whose stored session has ended, in whatever way, says that
// it has gone only when the store knows.
func TestStored_ConnackComesBehindTheEndOfTheSessionBefore(t *testing.T) { // [MQTT-3.1.2-4]
	for name, end := range map[string]func(s *storedSim, c *simConn){
		"DISCONNECT with expiry 0": func(_ *storedSim, c *simConn) {
			d := wire.Disconnect{HasSessionExpiry: true}
			c.feed(d.Append(nil))
		},
		"Clean Start": func(_ *storedSim, c *simConn) { c.gone = true; c.stream.Closed(nil) },
		"its time":    func(s *storedSim, c *simConn) { c.gone = true; c.stream.Closed(nil); s.sessionOf("c").end() },
	} {
		everyLoops(func(loops int) {
			s := newStored(t, loops, Options{})
			c := s.join(0, "c", wire.V5, 600)
			s.sub(c, wire.V5, wire.Subscription{Filter: "t", QoS: 1})
			end(s, c)
			again := s.dial(0)
			p := wire.Connect{Version: wire.V5, ClientID: "c", CleanStart: name == "Clean Start", ReceiveMaximum: 10}
			again.send(p.Append(nil))
			if got := again.types(); len(got) > 0 {
				t.Errorf("%s, %d loops: got %v before the end was stored", name, loops, got)
			}
			s.store()
			wantTypes(t, again, name, wire.CONNACK)
			if l := s.b.home("c"); len(l.ending) > 0 {
				t.Errorf("%s, %d loops: the loop goes on waiting for %v", name, loops, l.ending)
			}
			again.cut()
			s.crash()
			if s.sessionOf("c") != nil {
				t.Errorf("%s, %d loops: the session came back", name, loops)
			}
		})
	}
}

// An acknowledgement waits for all receivers, also for those that their loop, or
// the only one there is, does not come to in the same tick.
func TestStored_AnswersWaitForAFanoutThatIsPutOff(t *testing.T) {
	everyLoops(func(loops int) {
		for qos := byte(1); qos <= 2; qos++ {
			s := newStored(t, loops, Options{})
			const n = stride*writeCost + 100 // one slice of a walk, and more
			var clients []*simConn
			for i := range loops * n {
				c := s.dial(0)
				p := wire.Connect{Version: wire.V5, ClientID: fmt.Sprint("c", i), SessionExpiry: 600, ReceiveMaximum: 10}
				c.feed(p.Append(nil))
				q := wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{{Filter: "t", QoS: 2}}}
				c.feed(q.Append(nil, wire.V5))
				clients = append(clients, c)
			}
			s.store()
			for _, c := range clients {
				c.end(nil)
			}
			x := s.join(0, "x", wire.V5, 0)
			for _, l := range s.b.loops {
				l.perTick, l.budget = 1, 1
			}
			x.feed(pub(wire.V5, "t", "m", qos, 1))
			for s.turn(); len(x.queue)+len(x.out) == 0; s.turn() {
				s.b.ledger.turn()
			}
			s.crash()
			for i := range loops * n {
				if q := s.sessionOf(fmt.Sprint("c", i)).pending; q.count != 1 {
					t.Fatalf("%d loops, QoS %d: after a crash %d messages wait for client %d", loops, qos, q.count, i)
				}
			}
		}
	})
}

// A client that goes before it has got its CONNACK leaves the session of before
// as it was, whatever its CONNECT said.
func TestStored_ConnectThatWasNotAnsweredChangesNothing(t *testing.T) {
	everyLoops(func(loops int) {
		for _, crash := range []bool{false, true} {
			s := newStored(t, loops, Options{})
			c := s.join(0, "c", wire.V5, 600)
			s.sub(c, wire.V5, wire.Subscription{Filter: "t", QoS: 1})
			c.cut()
			x := s.join(0, "x", wire.V5, 0)
			s.send(x, pub(wire.V5, "t", "m", 1, 1))
			c = s.dial(0)
			p := wire.Connect{Version: wire.V5, ClientID: "c", ReceiveMaximum: 10}
			c.send(p.Append(nil))
			c.cut()
			s.store()
			if crash {
				s.crash()
			} else {
				s.advance(100)
			}
			if o := s.sessionOf("c"); o == nil || o.expiry != 600 {
				t.Fatalf("%d loops, crash %v: the session has changed", loops, crash)
			}
			if got := payloads(s.join(0, "c", wire.V5, 600).publishes(wire.V5)); got != "m" {
				t.Errorf("%d loops, crash %v: got %q", loops, crash, got)
			}
		}
	})
}
