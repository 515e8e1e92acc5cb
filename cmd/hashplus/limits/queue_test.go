package limits

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"hashplus/broker/wire"
)

// numbered publishes messages first to last at QoS 1, each with its number in a
// payload of size bytes, and waits until they have been taken.
func (c *client) numbered(topic string, first, last, size int) {
	c.t.Helper()
	for n := first; n <= last; n++ {
		c.send(c.encode(publish{QoS: 1, Topic: []byte(topic), Payload: fmt.Appendf(nil, "%-*d", size, n)}))
	}
	for range last - first + 1 {
		c.await(wire.PUBACK)
	}
}

// number is what numbered put into p.
func number(t testing.TB, p *wire.Publish) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(string(p.Payload[:min(len(p.Payload), 12)]), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// takesNumbers expects messages first to last, in order and once each, and
// acknowledges them.
func (c *client) takesNumbers(first, last int) {
	c.t.Helper()
	for want := first; want <= last; want++ {
		if got := number(c.t, c.take()); got != want {
			c.t.Fatalf("message %d instead of %d", got, want)
		}
	}
}

// quiet fails if anything comes within a moment.
func (c *client) quiet() {
	c.t.Helper()
	h, _, err := c.read(300 * time.Millisecond)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("%v %v instead of silence", h.Type, err)
	}
}

func TestQueueFull_Policies(t *testing.T) {
	t.Parallel()
	const limit, sent = 10, 30
	for _, test := range []struct {
		policy      string
		first, last int // of what is left
	}{
		{"drop-newest", 1, limit}, {"drop-oldest", sent - limit + 1, sent}, {"disconnect", 0, -1},
	} {
		t.Run(test.policy, func(t *testing.T) {
			t.Parallel()
			s := serve(t, "--max-queued-messages="+strconv.Itoa(limit), "--queue-full="+test.policy, "--max-inflight=5", "--sys-interval=200ms")
			pub := s.dial(v5)
			pub.join()
			id, topic := unique("q"), unique("t")
			c := s.dialWS(v5)
			c.join(lasting(id))
			c.subscribe(1, topic)
			c.drop()
			s.sys(func(v map[string]int) bool { return v["clients/disconnected"] == 1 })
			pub.numbered(topic, 1, sent, 20)
			c = s.dialWS(v5)
			if present := c.join(lasting(id)).SessionPresent; present != (test.last > 0) {
				t.Errorf("session present: %v", present)
			}
			c.takesNumbers(test.first, test.last)
			c.quiet()
			if test.last > 0 {
				s.sys(func(v map[string]int) bool { return v["dropped/queue-full"] == sent-limit })
			}

			// A client that is connected and does not acknowledge: five in
			// flight, ten in the queue, then the policy.
			c.subscribe(1, topic)
			pub.numbered(topic, 1, sent, 20)
			if test.policy == "disconnect" {
				c.ejected(wire.QuotaExceeded, 1008)
				if s.dial(v5).join(lasting(id)).SessionPresent {
					t.Error("the session is still there")
				}
				return
			}
			var held []uint16
			for n := 1; n <= 5; n++ {
				p := c.message()
				if got := number(t, p); got != n {
					t.Fatalf("message %d instead of %d", got, n)
				}
				held = append(held, p.PacketID)
			}
			c.quiet()
			for _, id := range held {
				c.send(ack(wire.PUBACK, id))
			}
			first := 6
			if test.policy == "drop-oldest" {
				first = sent - limit + 1
			}
			c.takesNumbers(first, first+limit-1)
			c.quiet()
			c.alive()
		})
	}
}

func TestMaxQueuedBytes_BoundsTheQueue(t *testing.T) {
	t.Parallel()
	s := serve(t, "--max-queued-bytes=64KiB", "--sys-interval=200ms")
	id, topic := unique("q"), unique("t")
	c := s.dial(v5)
	c.join(lasting(id))
	c.subscribe(1, topic)
	c.drop()
	s.sys(func(v map[string]int) bool { return v["clients/disconnected"] == 1 })
	pub := s.dial(v5)
	pub.join()
	pub.numbered(topic, 1, 100, 4<<10)
	kept := 0
	s.sys(func(v map[string]int) bool {
		kept = v["messages/queued"]
		return v["dropped/queue-full"] == 100-kept && kept > 0
	})
	if kept < 13 || kept > 16 {
		t.Errorf("%d messages of 4 KiB wait in 64 KiB", kept)
	}
	c = s.dial(v5)
	c.join(lasting(id))
	c.takesNumbers(1, kept)
	c.quiet()
}

func TestMaxInflight_IsAWindow(t *testing.T) {
	t.Parallel()
	s := serve(t, "--max-inflight=5")
	over(t, s, func(t *testing.T, dial func(wire.Version) *client) {
		for _, test := range []struct {
			v                wire.Version
			receive, allowed int
		}{{v5, 0, 5}, {v5, 3, 3}, {v5, 100, 5}, {v311, 0, 5}} {
			topic := unique("t")
			c, pub := dial(test.v), dial(v5)
			pub.join()
			c.join(func(c *wire.Connect) { c.ReceiveMaximum = uint16(test.receive) })
			c.subscribe(1, topic)
			pub.numbered(topic, 1, 40, 20)
			var held []uint16
			for n := 1; n <= 40; n++ {
				p := c.message()
				if number(t, p) != n {
					t.Fatalf("message %d instead of %d", number(t, p), n)
				}
				held = append(held, p.PacketID)
				if len(held) < test.allowed {
					continue
				}
				if n == test.allowed {
					c.quiet()
				}
				c.send(ack(wire.PUBACK, held[0])) // lets exactly one more in
				held = held[1:]
			}
		}
	})
}
