package broker

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hashplus/broker/wire"
)

// overlapping are 2^levels filters that all match the name.
func overlapping(levels int) (filters []wire.Subscription, name string) {
	for i := range 1 << levels {
		f := slices.Repeat([]string{"a"}, levels)
		for bit := range f {
			if i>>bit&1 == 1 {
				f[bit] = "+"
			}
		}
		filters = append(filters, wire.Subscription{Filter: strings.Join(f, "/")})
	}
	return filters, strings.Repeat("a/", levels-1) + "a"
}

// effortOf is what handling b, which comes from c, takes off the tick's effort.
func (c *simConn) effortOf(b []byte) int {
	l := c.s.b.loops[c.l.id]
	before := l.effort.left
	if n := c.stream.Data(b); n != len(b) {
		c.s.t.Fatalf("took %d of %d bytes", n, len(b))
	}
	return before - l.effort.left
}

// Clients flat out with messages that match thousands of filters get as many of
// them through in a tick as its effort allows, each in its turn. Whoever publishes
// something cheap is served in the tick in which it comes.
func TestEffort_DearMessagesTakeTurns(t *testing.T) {
	const publishers, each = 4, 30
	s := newSim(t, 1, Options{})
	filters, name := overlapping(12)
	reader := s.join(0, "reader", wire.V5, 0)
	reader.sub(wire.V5, filters...)
	friend := s.join(0, "friend", wire.V5, 0)
	friend.sub(wire.V5, wire.Subscription{Filter: "quiet/+"})
	honest := s.join(0, "honest", wire.V5, 0)
	var flood []*simConn
	for i := range publishers {
		flood = append(flood, s.join(0, fmt.Sprint("p", i), wire.V5, 0))
	}
	for i, p := range flood {
		p.feed(bytes.Repeat(pub(wire.V5, name, fmt.Sprint(i), 0, 0), each))
	}
	got := make([]int, publishers)
	for turn, cheap := 0, 0; slices.Min(got) < each; turn++ {
		honest.feed(pub(wire.V5, "quiet/1", "", 0, 0))
		s.turn()
		// What a turn writes is read in the next one.
		if cheap += len(friend.publishes(wire.V5)); cheap != turn {
			t.Fatalf("turn %d: %d cheap messages came", turn, cheap)
		}
		dear := reader.publishes(wire.V5)
		for _, g := range dear {
			got[g.pub.Payload[0]-'0']++
		}
		// In the first turn none of them can be told from a cheap one.
		if most := 2; len(dear) > most && turn > 1 {
			t.Fatalf("turn %d: %d dear messages in a tick", turn, len(dear))
		}
		if slices.Max(got)-slices.Min(got) > 4 || turn > 2*publishers*each {
			t.Fatalf("turn %d: of the publishers came %v", turn, got)
		}
	}
}

// Clients that subscribe without end share a tick among them, and someone who
// comes with one filter has it in the next one.
func TestEffort_SubscribersTakeTurns(t *testing.T) {
	s := newSim(t, 1, Options{})
	have := func(c *simConn) int { return c.stream.(*client).session.subs.len() }
	one := s.join(0, "one", wire.V5, 0)
	var flood []*simConn
	for i := range 3 {
		flood = append(flood, s.join(0, fmt.Sprint("s", i), wire.V5, 0))
	}
	for i, c := range flood {
		for n := range 400 {
			p := wire.Subscribe{PacketID: uint16(n + 1)}
			for k := range 10 {
				p.Filters = append(p.Filters, wire.Subscription{Filter: fmt.Sprintf("client/%d/number/%d/%d/+", i, n, k)})
			}
			c.feed(p.Append(nil, wire.V5))
		}
	}
	for range 3 { // of whom nothing is known yet is served as he comes
		s.turn()
	}
	one.feed((&wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{{Filter: "a"}}}).Append(nil, wire.V5))
	s.turn()
	s.turn()
	if have(one) != 1 {
		t.Error("a client with one filter waits for those with many")
	}
	for range 9 {
		s.turn()
		a, b, c := have(flood[0]), have(flood[1]), have(flood[2])
		if max(a, b, c)-min(a, b, c) > 400 {
			t.Fatalf("they have %d, %d and %d subscriptions", a, b, c)
		}
	}
	s.run()
	for _, c := range flood {
		if n := have(c); n != 4000 {
			t.Errorf("%d subscriptions in the end", n)
		}
	}
}

// All that a message makes the broker do counts, not only what it delivers.
func TestEffort_CountsWhatAMessageCosts(t *testing.T) {
	const levels, sessions, groups = 10, 20, 200
	s := newSim(t, 1, Options{})
	p := s.join(0, "p", wire.V5, 0)
	filters, name := overlapping(levels)
	s.join(0, "reader", wire.V5, 0).sub(wire.V5, filters...)
	alone := p.effortOf(pub(wire.V5, name, "", 0, 0))
	if least := filterEffort << levels; alone < least {
		t.Errorf("%d filters that match take %d off, want %d", 1<<levels, alone, least)
	}
	if miss := p.effortOf(pub(wire.V5, name[:len(name)-1]+"b", "", 0, 0)); miss < 1<<levels {
		t.Errorf("%d levels of filters that match nothing take %d off", 1<<levels, miss)
	}
	for i := range sessions {
		many := []wire.Subscription{{Filter: "#"}}
		for k := range 1 << levels {
			many = append(many, wire.Subscription{Filter: fmt.Sprintf("other/%d", k)})
		}
		s.join(0, fmt.Sprint("s", i), wire.V5, 0).sub(wire.V5, many...)
	}
	merged := p.effortOf(pub(wire.V5, name, "", 0, 0))
	if least := alone + sessions*mergeEffort<<levels; merged < least {
		t.Errorf("with %d sessions that have many subscriptions it takes %d off, want %d", sessions, merged, least)
	}
	var shared []wire.Subscription
	for i := range groups {
		shared = append(shared, wire.Subscription{Filter: fmt.Sprintf("$share/g%d/shared", i)})
	}
	s.join(0, "shares", wire.V5, 0).sub(wire.V5, shared...)
	if n := p.effortOf(pub(wire.V5, "shared", "", 0, 0)); n < groups*groupEffort {
		t.Errorf("%d share groups take %d off, want %d", groups, n, groups*groupEffort)
	}
}

// A fan-out to sessions whose subscriptions have to be merged is put off when
// that has used up the tick's budget, however few deliveries there were.
func TestWalk_MergingCountsAgainstTheBudget(t *testing.T) {
	const levels, sessions = 10, 3 * fanoutBudget * writeCost * mergeShare >> 10
	s := newSim(t, 1, Options{})
	filters, name := overlapping(levels)
	s.join(0, "reader", wire.V5, 0).sub(wire.V5, filters...)
	l := s.b.loops[0]
	// Filters that match nothing, which all sessions share to save time.
	var others subscriptions
	for k := range 1 << levels {
		others.add(&subscription{filter: fmt.Sprint(k)})
	}
	for i := range sessions {
		c := s.join(0, fmt.Sprint("s", i), wire.V5, 0)
		c.sub(wire.V5, wire.Subscription{Filter: "#"})
		subs := &c.stream.(*client).session.subs
		subs.list, subs.index = append(subs.list, others.list...), others.index
	}
	p := s.join(0, "p", wire.V5, 0)
	p.feed(pub(wire.V5, name, "", 0, 0))
	s.turn()
	if len(l.walks) == 0 {
		t.Error("all of it was done in one tick")
	}
}

// Another loop's work for messages of many filters is bounded like that of many
// bytes: whoever goes on publishing them waits.
func TestEffort_DearMessagesFillAnInbox(t *testing.T) {
	s := newSim(t, 2, Options{})
	filters, name := overlapping(12)
	on := func(loop int, id string) *simConn {
		for i := 0; ; i++ {
			if c := s.join(loop, fmt.Sprint(id, i), wire.V5, 0); c.l.id == loop {
				return c
			}
		}
	}
	on(1, "reader").sub(wire.V5, filters...)
	p := on(0, "p")
	for n := 0; !p.paused; n++ {
		if n > 100 {
			t.Fatalf("%d dear messages wait for the other loop, and its publisher does not", n)
		}
		p.stream.Data(pub(wire.V5, name, "", 0, 0))
		s.b.Tick(s.loops[0])
	}
	s.run()
	if p.paused || s.b.loops[1].inbox.pending.Load() != 0 {
		t.Errorf("at rest the publisher is paused: %v, and %d bytes wait", p.paused, s.b.loops[1].inbox.pending.Load())
	}
}
