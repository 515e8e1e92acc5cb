package broker

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"hashplus/broker/wire"
)

func TestRetain_Handling(t *testing.T) { // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
	everyLoops(func(loops int) {
		s := newSim(t, loops, Options{})
		s.join(0, "p", wire.V5, 0).send(retained(wire.V5, "q", "x", 1, 1))
		for handling, want := range []string{"x x", "x", ""} {
			c := s.join(0, fmt.Sprint("c", handling), wire.V5, 0)
			sub := wire.Subscription{Filter: "q", QoS: 1, RetainHandling: byte(handling)}
			c.sub(wire.V5, sub)
			c.sub(wire.V5, sub)
			list := c.publishes(wire.V5)
			if got := payloads(list); got != want {
				t.Errorf("%d loops: handling %d: got %q, want %q", loops, handling, got, want)
			}
			for _, g := range list {
				if !g.pub.Retain {
					t.Errorf("%d loops: handling %d: the flag is not set", loops, handling)
				}
			}
		}
	})
}

// What a SUBSCRIBE has asked for comes, even if the next one, in the same read,
// asks for nothing: with the options of the latest, and once.
func TestRetain_ComesForASubscriptionThatIsReplacedAtOnce(t *testing.T) { // [MQTT-3.3.1-9]
	everyLoops(func(loops int) {
		for _, stored := range []bool{false, true} {
			s := newSim(t, loops, Options{})
			join, store := s.join, s.run
			if stored {
				s := newStored(t, loops, Options{})
				join, store = s.join, s.store
			}
			x := join(0, "x", wire.V5, 0)
			x.feed(retained(wire.V5, "r", "kept", 2, 1))
			x.feed(ackOf(wire.PUBREL, wire.V5, 1, 0))
			store()
			c := join(0, "c", wire.V5, 600)
			first := wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{{Filter: "r", QoS: 2}}}
			second := wire.Subscribe{PacketID: 2, Filters: []wire.Subscription{{Filter: "r", QoS: 1, RetainHandling: 2}}}
			c.feed(first.Append(nil, wire.V5))
			c.feed(second.Append(nil, wire.V5))
			store()
			if got := c.publishes(wire.V5); len(got) != 1 || string(got[0].pub.Payload) != "kept" || got[0].pub.QoS != 1 {
				t.Errorf("%d loops, stored %v: got %+v, want the retained message at QoS 1", loops, stored, got)
			}
		}
	})
}

func TestRetain_AsPublished(t *testing.T) { // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
	everyLoops(func(loops int) {
		s := newSim(t, loops, Options{})
		kept, cleared := s.join(0, "kept", wire.V5, 0), s.join(0, "cleared", wire.V5, 0)
		kept.sub(wire.V5, wire.Subscription{Filter: "q", QoS: 1, RetainAsPublished: true})
		cleared.sub(wire.V5, wire.Subscription{Filter: "q", QoS: 1})
		p := s.join(0, "p", wire.V5, 0)
		p.send(retained(wire.V5, "q", "r", 1, 1))
		p.send(pub(wire.V5, "q", "n", 1, 2))
		for c, want := range map[*simConn]string{kept: "true false", cleared: "false false"} {
			list := c.publishes(wire.V5)
			if len(list) != 2 || fmt.Sprint(list[0].pub.Retain, " ", list[1].pub.Retain) != want {
				t.Errorf("%d loops: got %d, want the flags %s", loops, len(list), want)
			}
		}
	})
}

// retainNames publishes n retained messages below base, each with its number.
func retainNames(s *sim, base string, n int, qos byte) {
	p := s.join(0, "publisher", wire.V311, 0)
	for i := range n {
		p.feed(retained(wire.V311, base+strconv.Itoa(i), strconv.Itoa(i), qos, uint16(i%60000)+1))
		if qos == 2 {
			p.feed(ackOf(wire.PUBREL, wire.V311, uint16(i%60000)+1, 0))
		}
	}
	s.run()
	p.cut()
}

// distinct fails the test unless list holds each of n numbers once.
func distinct(t *testing.T, list []got, n int) {
	t.Helper()
	seen := map[string]bool{}
	for _, g := range list {
		if seen[string(g.pub.Payload)] {
			t.Fatalf("%s came twice", g.pub.Payload)
		}
		seen[string(g.pub.Payload)] = true
	}
	if len(seen) != n {
		t.Fatalf("%d of %d came", len(seen), n)
	}
}

// A replay pauses while the client does not read, drops nothing, and goes on.
func TestRetain_ReplayPausesAtHighWater(t *testing.T) {
	everyLoops(func(loops int) {
		s := newSim(t, loops, Options{WriteQueueBytes: 4096})
		retainNames(s, "r/", 3000, 0)
		c := s.join(0, "c", wire.V311, 0)
		c.sub(wire.V311, wire.Subscription{Filter: "x"})
		c.deaf = true
		sub := wire.Subscribe{PacketID: 2, Filters: []wire.Subscription{{Filter: "r/#"}}}
		c.send(sub.Append(nil, wire.V311))
		if n := len(c.queue); n < 4096 || n > 5000 {
			t.Fatalf("%d bytes wait for a client that does not read", n)
		}
		c.deaf = false
		c.wake()
		s.run()
		distinct(t, c.publishes(wire.V311), 3000)
		if n := s.b.Stats().Dropped[DropSlowReader.String()]; n != 0 {
			t.Errorf("%d were dropped", n)
		}
	})
}

// At QoS 1 and 2 a replay goes with the client's Receive Maximum.
func TestRetain_ReplayKeepsToReceiveMaximum(t *testing.T) { // [MQTT-3.3.4-9]
	everyLoops(func(loops int) {
		s := newSim(t, loops, Options{})
		retainNames(s, "r/", 500, 1)
		c := s.join(0, "c", wire.V5, 0, receiveMaximum(7))
		c.sub(wire.V5, wire.Subscription{Filter: "r/#", QoS: 2})
		var all []got
		for list := c.publishes(wire.V5); len(list) > 0; list = c.publishes(wire.V5) {
			if len(list) > 7 {
				t.Fatalf("%d in flight", len(list))
			}
			all = append(all, list...)
			c.ack(wire.V5, list)
		}
		distinct(t, all, 500)
	})
}

// A connection that ends amid a replay does not end it for the session.
func TestRetain_ReplayGoesOnWithTheNextConnection(t *testing.T) {
	s := newSim(t, 2, Options{})
	retainNames(s, "r/", 10, 1)
	c := s.join(0, "c", wire.V5, 60, receiveMaximum(3))
	c.sub(wire.V5, wire.Subscription{Filter: "r/#", QoS: 1})
	first := c.publishes(wire.V5)
	c.ack(wire.V5, first)
	c.cut()
	c = s.join(0, "c", wire.V5, 60)
	distinct(t, append(first, c.publishes(wire.V5)...), 10)
}

func TestRetain_UnsubscribeEndsTheReplay(t *testing.T) {
	s := newSim(t, 1, Options{})
	retainNames(s, "r/", 10, 1)
	retainNames(s, "z/", 2, 1)
	c := s.join(0, "c", wire.V5, 60, receiveMaximum(2))
	c.sub(wire.V5, wire.Subscription{Filter: "r/#", QoS: 1}, wire.Subscription{Filter: "z/#", QoS: 1})
	list := c.publishes(wire.V5)
	u := wire.Unsubscribe{PacketID: 5, Filters: []string{"r/#"}}
	c.send(u.Append(nil, wire.V5))
	c.ack(wire.V5, list)
	for _, g := range c.publishes(wire.V5) {
		if g.pub.Topic[0] != 'z' {
			t.Errorf("%s came after UNSUBACK", g.pub.Topic)
		}
		list = append(list, g)
	}
	if len(list) != 4 {
		t.Errorf("%d came, want 2 of each filter", len(list))
	}
}

// A client that subscribes to very many retained names holds up nobody.
func TestRetain_ManyNamesDoNotStallOthers(t *testing.T) {
	s := newSim(t, 1, Options{})
	const names = 100_000
	retainNames(s, "r/", names, 0)
	c, quick := s.join(0, "c", wire.V311, 0), s.join(0, "quick", wire.V311, 0)
	quick.sub(wire.V311, wire.Subscription{Filter: "q"})
	p := s.join(0, "p", wire.V311, 0)
	sub := wire.Subscribe{PacketID: 2, Filters: []wire.Subscription{{Filter: "#"}}}
	c.feed(sub.Append(nil, wire.V311))
	before := s.b.Stats().PublishSent
	for i := 0; s.b.Stats().PublishSent-before < names; i++ {
		p.feed(pub(wire.V311, "q", "x", 0, 0))
		was := s.b.Stats().PublishSent
		s.turn()
		if n := s.b.Stats().PublishSent - was; n > replayBudget+10 {
			t.Fatalf("%d retained messages in one turn", n)
		}
		s.turn()
		if i > 0 && len(quick.publishes(wire.V311)) == 0 {
			t.Fatalf("turn %d: a small message waited", i)
		}
		if i > names {
			t.Fatal("the replay does not end")
		}
	}
	s.run()
}

// Many sessions that replay at once share a tick's budget, and all come to
// their end.
func TestRetain_ManyReplaysShareTheBudget(t *testing.T) {
	s := newSim(t, 1, Options{})
	retainNames(s, "r/", 400, 0)
	var all []*simConn
	for i := range 200 {
		all = append(all, s.join(0, fmt.Sprint("c", i), wire.V311, 0))
	}
	for _, c := range all {
		sub := wire.Subscribe{PacketID: 2, Filters: []wire.Subscription{{Filter: "#"}}}
		c.feed(sub.Append(nil, wire.V311))
	}
	for s.turn() {
		if n := s.b.Stats().PublishSent; n > 0 {
			if n > 2*replayBudget {
				t.Fatalf("%d retained messages in one turn", n)
			}
			break
		}
	}
	s.run()
	for _, c := range all {
		distinct(t, c.publishes(wire.V311), 400)
	}
}

// Around a SUBSCRIBE the subscriber gets the value of a name live, retained or
// both, never neither, and never an older one after a newer one; wherever it
// and the publishers live, and in whatever order the loops take turns.
func TestRetain_NoValueIsLostOrOutdatedAroundSubscribe(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 1))
		loops := 1 + int(seed%3)
		s := newSim(t, loops, Options{})
		var publishers []*simConn
		for i := range loops {
			publishers = append(publishers, s.join(0, s.idOn(i, "p"), wire.V5, 0))
		}
		c := s.join(0, s.idOn(rng.IntN(loops), "c"), wire.V5, 0)
		qos := byte(rng.IntN(2))
		// A subscriber beside it gives every loop an interest in the names.
		for i := range loops {
			s.join(0, s.idOn(i, "other"), wire.V5, 0).sub(wire.V5, wire.Subscription{Filter: "r/+", QoS: 1})
		}
		names := make([]int, 5) // the latest value of each; a name has one publisher
		step := func() {
			n := rng.IntN(len(names))
			names[n]++
			p := publishers[n%loops]
			p.stream.Data(retained(wire.V5, fmt.Sprint("r/", n), strconv.Itoa(names[n]), qos, 1))
		}
		// Loops run a part of a turn at a time, in any order, as if they ran
		// at once: mailboxes fill up meanwhile.
		oneLoop := func() {
			l := s.loops[rng.IntN(loops)]
			l.collect()
			for range rng.IntN(len(l.tasks) + 1) {
				task := l.tasks[0]
				l.tasks = l.tasks[1:]
				task.Run(l)
			}
			if rng.IntN(2) == 0 {
				s.b.Tick(l)
			}
		}
		act := func(n int) {
			for range n {
				if rng.IntN(2) == 0 {
					step()
				} else {
					oneLoop()
				}
			}
		}
		sub := wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{{Filter: "r/#", QoS: qos}}}
		act(20)
		before := append([]int(nil), names...)
		c.stream.Data(sub.Append(nil, wire.V5))
		act(20)
		if seed%2 == 0 { // and again, while much is on its way
			c.stream.Data(sub.Append(nil, wire.V5))
			act(20)
		}
		s.run()
		latest := make([]int, len(names))
		live := make([]map[int]bool, len(names))
		for _, g := range c.publishes(wire.V5) {
			var n int
			fmt.Sscanf(string(g.pub.Topic), "r/%d", &n)
			v, _ := strconv.Atoi(string(g.pub.Payload))
			if v < latest[n] {
				t.Fatalf("seed %d: r/%d: %d came after %d", seed, n, v, latest[n])
			}
			latest[n] = v
			if live[n] == nil {
				live[n] = map[int]bool{}
			}
			live[n][v] = true
		}
		for n := range names {
			if names[n] > 0 && latest[n] != names[n] {
				t.Fatalf("seed %d: r/%d: %d came last, want %d", seed, n, latest[n], names[n])
			}
			for v := before[n] + 1; v <= names[n]; v++ {
				if !live[n][v] {
					t.Fatalf("seed %d: r/%d: %d was published after SUBSCRIBE and did not come", seed, n, v)
				}
			}
		}
	}
}

// A long fan-out that is under way when a session subscribes gives it nothing
// older than the replay did.
func TestRetain_ReplayWaitsForWalks(t *testing.T) {
	s := newSim(t, 1, Options{})
	for i := range 2 * fanoutBudget {
		s.join(0, fmt.Sprint("s", i), wire.V311, 0).sub(wire.V311, wire.Subscription{Filter: "r"})
	}
	c := s.join(0, "c", wire.V311, 0)
	c.sub(wire.V311, wire.Subscription{Filter: "r"})
	p := s.join(0, "p", wire.V311, 0)
	p.feed(append(retained(wire.V311, "r", "1", 0, 0), retained(wire.V311, "r", "2", 0, 0)...))
	s.turn()
	if len(s.b.loops[0].walks) != 2 {
		t.Fatal("the fan-outs are over: it shows nothing")
	}
	again := wire.Subscribe{PacketID: 2, Filters: []wire.Subscription{{Filter: "r"}}}
	c.feed(again.Append(nil, wire.V311))
	s.run()
	if got := payloads(c.publishes(wire.V311)); got != "1 2 2" {
		t.Errorf("got %q, want 1 2 live and 2 retained", got)
	}
}

func TestRetain_SweepRemovesExpired(t *testing.T) { // [MQTT-3.3.2-5]
	s := newSim(t, 2, Options{})
	for i := range 5000 {
		m := Message{Topic: fmt.Sprint("r/", i), Payload: []byte("x"), Retain: true}
		if i%2 == 0 {
			m.HasExpiry, m.Expiry = true, 30
		}
		if err := s.b.Publish(m); err != nil {
			t.Fatal(err)
		}
		s.run()
	}
	c := s.join(0, "c", wire.V5, 0)
	s.advance(40)
	c.sub(wire.V5, wire.Subscription{Filter: "r/#"})
	if n := len(c.publishes(wire.V5)); n != 2500 {
		t.Errorf("%d came of 2,500 that have not expired", n)
	}
	s.advance(90)
	if n := s.b.Stats().Retained; n != 2500 {
		t.Errorf("%d are kept", n)
	}
}

// The sweep never takes a value that came in the place of an expired one.
func TestRetain_SweepSparesANewerValue(t *testing.T) {
	s := newSim(t, 1, Options{})
	r := &s.b.retained
	old := &message{topic: []byte("r"), payload: []byte("old"), deadline: 1, static: true}
	r.set(old, s.b.live.Load())
	fresh := &message{topic: []byte("r"), payload: []byte("new"), static: true}
	r.set(fresh, s.b.live.Load())
	r.expire([]byte("r"), s.now)
	if m := r.tree.Get([]byte("r")); m == nil || string(m.payload) != "new" {
		t.Fatalf("got %v", m)
	}
}

func TestRetain_AuthorizerIsAskedForEachValue(t *testing.T) {
	az := &testAuthorizer{receive: func(_ *Identity, topic string) bool { return topic != "r/1" }}
	s := newSim(t, 2, Options{Authorizer: az})
	retainNames(s, "r/", 3, 1)
	c := s.join(0, "c", wire.V5, 0)
	c.sub(wire.V5, wire.Subscription{Filter: "r/#", QoS: 1})
	list := c.publishes(wire.V5)
	if len(list) != 2 || string(list[0].pub.Topic) == "r/1" || string(list[1].pub.Topic) == "r/1" {
		t.Errorf("got %q", payloads(list))
	}
}
