package broker

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"hashplus/broker/wire"
)

// A burst for more than a tick can reach goes in step: who has got one message
// of it has all of them, so that they leave in one write.
func TestWalk_BurstGoesInStep(t *testing.T) {
	const subscribers, burst = 3 * fanoutBudget, 8
	s := newSim(t, 1, Options{})
	var subs []*simConn
	for i := range subscribers {
		c := s.join(0, fmt.Sprint("s", i), wire.V311, 0)
		c.sub(wire.V311, wire.Subscription{Filter: "a"})
		c.deaf = true // what is written stays in the queue
		subs = append(subs, c)
	}
	one := pub(wire.V311, "a", "payload", 0, 0)
	p := s.join(0, "p", wire.V311, 0)
	p.feed(bytes.Repeat(one, burst))
	for turn := 0; ; turn++ {
		s.turn()
		got := 0
		for i, c := range subs {
			switch n := len(c.queue) / len(one); n {
			case 0:
			case burst:
				got++
			default:
				t.Fatalf("subscriber %d has %d messages of %d after %d ticks", i, n, burst, turn+1)
			}
		}
		if got == subscribers {
			break
		}
		if turn > 20 {
			t.Fatalf("only %d subscribers were reached", got)
		}
	}
}

// TestWalk_OrderHoldsWhateverHappensMeanwhile publishes bursts for many from two
// clients, to filters that overlap, while members come and go.
func TestWalk_OrderHoldsWhateverHappensMeanwhile(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 11))
	s := newSim(t, 1, Options{})
	const n = fanoutBudget + 500
	filters := []string{"big/a", "big/+", "#"}
	type reader struct {
		*simConn
		first [2]int // the message of each publisher from which on it must have all
		gone  bool
	}
	var all []*reader
	next := [2]int{}
	add := func(i int) {
		c := s.join(0, fmt.Sprint("s", i), wire.V311, 0)
		c.feed((&wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{
			{Filter: filters[i%3], QoS: byte(i % 2)}, {Filter: filters[(i+1+i/3%2)%3]},
		}[:1+i%2]}).Append(nil, wire.V311))
		all = append(all, &reader{simConn: c, first: next})
	}
	for i := range n {
		add(i)
	}
	s.run()
	p := [2]*simConn{s.join(0, "p0", wire.V311, 0), s.join(0, "p1", wire.V311, 0)}
	for range 12 {
		for k := range p {
			var b []byte
			for range rng.IntN(6) {
				b = append(b, pub(wire.V311, "big/a", fmt.Sprintf("%d %d", k, next[k]), 0, 0)...)
				next[k]++
			}
			if len(b) > 0 {
				p[k].feed(b)
			}
		}
		for range rng.IntN(3) {
			s.turn()
		}
		for range 5 {
			r := all[rng.IntN(len(all))]
			if !r.gone {
				r.gone = true
				r.end(nil)
			}
		}
	}
	s.run()
	add(n) // comes when all is done
	s.run()
	for i, r := range all {
		if r.gone {
			continue
		}
		at := r.first
		for _, g := range r.publishes(wire.V311) {
			var k, number int
			if _, err := fmt.Sscan(string(g.pub.Payload), &k, &number); err != nil {
				t.Fatal(err)
			}
			if number != at[k] {
				t.Fatalf("subscriber %d got %d of publisher %d, not %d", i, number, k, at[k])
			}
			at[k]++
		}
		if at != next {
			t.Fatalf("subscriber %d is at %v, not %v", i, at, next)
		}
	}
	if l := s.b.loops[0]; len(l.walks) != 0 {
		t.Errorf("%d walks are left", len(l.walks))
	}
}
