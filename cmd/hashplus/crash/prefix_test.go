package crash

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"hashplus/broker"
	"hashplus/broker/store"
	"hashplus/broker/wire"
)

// gate is a store whose commits become durable one by one, when a test says so.
type gate struct {
	*store.Memory
	step chan struct{}
	open chan struct{} // closed: no commit waits any more
	once sync.Once
}

func newGate(m *store.Memory) *gate {
	return &gate{Memory: m, step: make(chan struct{}), open: make(chan struct{})}
}

func (g *gate) Apply(b *broker.Batch) (func() error, error) {
	wait, err := g.Memory.Apply(b)
	return func() error {
		select {
		case <-g.step:
		case <-g.open:
		}
		return wait()
	}, err
}

// next lets one commit become durable. It reports whether there was one.
func (g *gate) next() bool {
	for range 20 { // a commit may be on its way here
		select {
		case g.step <- struct{}{}:
			return true
		default:
			pause(1)
		}
	}
	return false
}

func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

// exact is a client's side of its session: enough to go on after any crash.
type exact struct {
	*client
	flights map[uint16]int  // as a publisher: message on the way by identifier
	acked   map[uint16]bool // of them, PUBREC has come
	joining bool            // CONNACK is to come
	qos     byte            // of what it publishes
}

// cut ends the connection, or leaves it to be taken over, and begins another.
func (e *exact) cut(takeOver bool) {
	e.t.Helper()
	if !takeOver {
		e.drop()
	}
	e.dial()
	e.joining = true
}

// again sends what a publisher has to after a reconnect.
func (e *exact) resend() {
	e.t.Helper()
	for id := range uint16(100) {
		m, on := e.flights[id]
		switch {
		case !on:
		case e.acked[id]:
			e.send(appendAck(nil, wire.PUBREL, id))
		default:
			e.put(wire.Outgoing{QoS: e.qos, Dup: true, PacketID: id}, fmt.Sprint("x/", m%2), fmt.Sprint(m))
		}
	}
}

// pump takes part in what has come, and waits for nothing.
func (e *exact) pump() {
	e.t.Helper()
	for {
		p, err := e.conn.next(deadline(3))
		if err != nil {
			if !timedOut(err) {
				e.t.Fatal(err)
			}
			return
		}
		switch p.typ {
		case wire.CONNACK:
			if !e.joining || !p.connack.SessionPresent || p.reason.Failed() {
				e.t.Fatal(p)
			}
			e.joining = false
			e.resend()
		case wire.PUBACK, wire.PUBCOMP:
			delete(e.flights, p.id)
			delete(e.acked, p.id)
		case wire.PUBREC:
			e.acked[p.id] = true
			e.send(appendAck(nil, wire.PUBREL, p.id))
		case wire.PUBREL:
			delete(e.received, p.id)
			e.send(appendAck(nil, wire.PUBCOMP, p.id))
		case wire.PUBLISH:
			e.got1(p)
		default:
			e.t.Fatal(p)
		}
	}
}

func (e *exact) got1(p *packet) {
	payload := string(p.publish.Payload)
	typ := wire.PUBACK
	if p.publish.QoS == 2 {
		typ = wire.PUBREC
		if !e.received[p.id] && slices.Contains(e.got, payload) {
			e.t.Errorf("%s: %v came before", e.id, p)
		}
	}
	e.send(appendAck(nil, typ, p.id))
	if !e.received[p.id] && !slices.Contains(e.got, payload) {
		e.got = append(e.got, payload)
	}
	if p.publish.QoS == 2 {
		e.received[p.id] = true
	}
}

func (e *exact) again(net *network, t testing.TB) *exact {
	return &exact{
		client:  &client{t: t, net: net, v: e.v, id: e.id, received: maps.Clone(e.received), got: slices.Clone(e.got)},
		flights: maps.Clone(e.flights), acked: maps.Clone(e.acked), qos: e.qos,
	}
}

// A crash leaves a prefix of the commits. Whatever has been answered by then,
// every prefix has to be a state to go on from: publishers send again what was
// not acknowledged, and every receiver gets all of it, in order, at QoS 2 once.
func TestEveryPrefixOfTheCommits_IsAStateToGoOnFrom(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		for _, members := range []int{0, 2} {
			for _, cuts := range []bool{false, true} {
				t.Run(fmt.Sprintf("QoS %d, %d in a group, cuts %v", qos, members, cuts), func(t *testing.T) {
					t.Parallel()
					everyPrefix(t, qos, members, cuts)
				})
			}
		}
	}
}

func everyPrefix(t *testing.T, qos byte, members int, cuts bool) {
	g := newGate(store.NewMemory())
	stop := make(chan struct{})
	var idle sync.WaitGroup
	idle.Go(func() { // all commits pass while the test prepares
		for {
			select {
			case g.step <- struct{}{}:
			case <-stop:
				return
			}
		}
	})
	n, err := newNode(broker.Options{}, func() (broker.Store, error) { return g, nil })
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, store: g.Memory, node: n}
	l.net.up(n.address)
	t.Cleanup(func() {
		g.release()
		l.net.down()
		n.abandon()
	})
	var all []*exact
	join := func(v wire.Version, id, name string) *exact {
		c := l.client(v, id)
		c.renew()
		if name != "" {
			c.subscribe(filter(name, 2))
		}
		c.received = map[uint16]bool{}
		e := &exact{client: c, flights: map[uint16]int{}, acked: map[uint16]bool{}}
		all = append(all, e)
		return e
	}
	for _, id := range []string{"away0", "away1"} {
		join(v5, id, "x/+").leave()
	}
	if members > 0 {
		for i := range members {
			join(v5, fmt.Sprint("crew", i), "$share/crew/x/#")
		}
	} else {
		join(v5, "online0", "x/#")
		join(v311, "online1", "x/#")
	}
	online := all[2:]
	pub := join(v311, "pub", "")
	pub.qos = qos
	pause(50)
	close(stop)
	idle.Wait()

	messages := 8
	if cuts {
		messages = 20
	}
	random := rand.New(rand.NewPCG(seed(t), 5))
	sent := 0
	for step := 0; ; step++ {
		if cuts && random.IntN(3) == 0 && !pub.joining {
			pub.cut(random.IntN(2) == 0)
		}
		if e := online[random.IntN(len(online))]; cuts && random.IntN(2) == 0 && !e.joining {
			e.cut(random.IntN(2) == 0)
		}
		for n := random.IntN(3); n > 0 && sent < messages && !pub.joining; n-- {
			id := uint16(sent + 1)
			pub.put(wire.Outgoing{QoS: qos, PacketID: id}, fmt.Sprint("x/", sent%2), fmt.Sprint(sent))
			pub.flights[id] = sent
			sent++
		}
		pause(4)
		pub.pump()
		for _, e := range online {
			e.pump()
		}
		for k := range g.Pending() + 1 {
			goOn(t, fmt.Sprintf("step %d, %d of %d commits", step, k, g.Pending()), g.Crash(k), qos, sent, all)
			if t.Failed() {
				return
			}
		}
		if !g.next() && sent == messages && len(pub.flights) == 0 {
			break
		}
	}
}

// goOn starts a broker on what a crash has left. all are the clients, the
// publisher last.
func goOn(t *testing.T, what string, left *store.Memory, qos byte, n int, all []*exact) {
	t.Helper()
	node, err := newNode(broker.Options{}, func() (broker.Store, error) { return left, nil })
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer node.abandon()
	var net network
	net.up(node.address)
	defer net.down()
	pub := all[len(all)-1].again(&net, t)
	pub.resume()
	pub.resend()
	var subs []*exact
	for _, e := range all[:len(all)-1] {
		s := e.again(&net, t)
		s.resume()
		subs = append(subs, s)
	}
	groups := map[string]map[string]int{}
	done := func() bool {
		clear(groups)
		for _, s := range subs {
			name := s.id
			if s.id[:4] == "crew" {
				name = "crew"
			}
			if groups[name] == nil {
				groups[name] = map[string]int{}
			}
			for _, m := range s.got {
				groups[name][m]++
			}
		}
		for _, g := range groups {
			if len(g) < n {
				return false
			}
		}
		return len(pub.flights) == 0
	}
	settled := 0
	for range 1000 {
		pub.pump()
		for _, s := range subs {
			s.pump()
		}
		if done() {
			if settled++; settled == 3 {
				break
			}
		}
	}
	if !done() {
		t.Errorf("%s: of %d messages came %v; on the way %v", what, n, groups, pub.flights)
	}
	for name, g := range groups {
		for m, times := range g {
			if times > 1 && qos == 2 {
				t.Errorf("%s: message %s came %d times to %s", what, m, times, name)
			}
		}
	}
	for _, s := range subs {
		last := [2]int{-1, -1}
		for _, m := range s.got {
			var i int
			fmt.Sscan(m, &i)
			if i < last[i%2] && s.id[:4] != "crew" {
				t.Errorf("%s: %s got %v", what, s.id, s.got)
			}
			last[i%2] = i
		}
	}
}
