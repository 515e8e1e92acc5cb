package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hashplus/broker/wire"
	"hashplus/cmd/hashplus/launch"
)

// system is a broker that can be crashed. Its calls come from one goroutine.
type system interface {
	// start starts the broker on the state that it has and returns its address.
	start() (address string, err error)
	// crash ends it as the system under test ends. cut ends the clients'
	// connections; a system that cannot end them itself calls it first.
	crash(cut func()) error
	// stop ends it for good.
	stop() error
}

// plan is a run of the harness. The zero value of a field means its default.
type plan struct {
	seed   uint64
	rounds int           // crashes
	life   time.Duration // of the broker between two of them, on average; default 1.2 s
	stay   time.Duration // of a client on one connection, on average; 0: as long as it lasts
	pause  time.Duration // of a publisher between bursts, on average; default 12 ms
	window int           // of a publisher; default 8

	patience time.Duration // until everything is delivered at the end; default 2 min

	publishers int  // default 20
	foreign    bool // the broker is not ours: no overlapping subscriptions, no share group

	settling atomic.Bool // all clients shall stay connected
}

// seed returns the seed of a test, and says it.
func seed(t testing.TB) uint64 {
	t.Helper()
	s := rand.Uint64()
	if v := os.Getenv("HASHPLUS_CRASH_SEED"); v != "" {
		var err error
		if s, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("HASHPLUS_CRASH_SEED: %v", err)
		}
	}
	t.Logf("HASHPLUS_CRASH_SEED=%d", s)
	return s
}

func (p *plan) ensureDefaults() {
	def(&p.life, 1200*time.Millisecond)
	def(&p.pause, 12*time.Millisecond)
	def(&p.window, 8)
	def(&p.patience, 2*time.Minute)
	def(&p.publishers, 20)
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// cast is who takes part in a run.
type cast struct {
	ledger      *ledger
	net         *network
	publishers  []*publisher
	subscribers []*subscriber
	stopping    atomic.Bool // publishers finish
	over        atomic.Bool // everybody goes
}

const share = "$share/crew/"

func newCast(p *plan, random *rand.Rand) *cast {
	c := &cast{ledger: &ledger{run: random.Uint32()}, net: &network{}}
	member := func(id string, v wire.Version) person {
		return person{id: fmt.Sprintf("%s-%x", id, c.ledger.run), v: v, net: c.net, ledger: c.ledger, plan: p,
			rand: rand.New(rand.NewPCG(random.Uint64(), random.Uint64())), done: &c.over}
	}
	versions := []wire.Version{v5, v311}
	for i := range p.publishers {
		pub := &publisher{person: member(fmt.Sprintf("pub%d", i), versions[i%2]), stopping: &c.stopping}
		for k, qos := range []byte{1, 2, 1, 2} {
			pub.streams = append(pub.streams, len(c.ledger.streams))
			c.ledger.streams = append(c.ledger.streams, &stream{topic: fmt.Sprintf("crash/%d/%d", i, k), qos: qos})
		}
		c.publishers = append(c.publishers, pub)
	}
	subscribe := func(name string, v wire.Version, window uint16, to *receiver, filters ...string) *subscriber {
		s := &subscriber{person: member(name, v), to: to, limit: 65535}
		if v == v5 && window > 0 {
			s.window = window
			s.limit = int(window)
		}
		for _, f := range filters {
			s.filters = append(s.filters, wire.Subscription{Filter: f, QoS: to.qos})
		}
		c.subscribers = append(c.subscribers, s)
		return s
	}
	receive := func(name string, qos byte, wants func(*stream) bool) *receiver {
		r := &receiver{name: name, qos: qos, wants: wants}
		c.ledger.receivers = append(c.ledger.receivers, r)
		return r
	}
	all := func(*stream) bool { return true }
	third := func(s *stream) bool { return strings.HasSuffix(s.topic, "/2") || strings.HasSuffix(s.topic, "/3") }
	var exact []string
	for _, s := range c.ledger.streams {
		exact = append(exact, s.topic)
	}
	subscribe("all5", v5, 0, receive("all5", 2, all), "crash/#")
	subscribe("all3", v311, 0, receive("all3", 2, all), "crash/+/+")
	subscribe("names3", v311, 0, receive("names3", 2, all), exact...)
	subscribe("ten5", v5, 10, receive("ten5", 2, all), exact...)
	subscribe("tenPart5", v5, 10, receive("tenPart5", 2, third), "crash/+/2", "crash/+/3")
	subscribe("once5", v5, 0, receive("once5", 1, all), "crash/#")
	late := subscribe("late5", v5, 100, receive("late5", 2, third), "crash/+/2", "crash/+/3")
	late.late = time.Second
	if !p.foreign {
		subscribe("overlap5", v5, 50, receive("overlap5", 2, all), "crash/#", "crash/+/1", "crash/0/1")
		crew := receive("crew", 2, all)
		crew.group = true
		for i, v := range []wire.Version{v5, v5, v311} {
			subscribe(fmt.Sprintf("crew%d", i), v, uint16(10*i), crew, share+"crash/#")
		}
	}
	return c
}

// run carries out p against sys, whose state is empty, and judges.
func run(t testing.TB, sys system, p *plan) report {
	t.Helper()
	p.ensureDefaults()
	random := rand.New(rand.NewPCG(p.seed, 1))
	c := newCast(p, random)
	address, err := sys.start()
	if err != nil {
		t.Fatal(err)
	}
	c.net.up(address)

	var publishing, subscribing sync.WaitGroup
	defer func() { // on any path
		c.over.Store(true)
		c.net.down()
		publishing.Wait()
		subscribing.Wait()
		if err := sys.stop(); err != nil {
			t.Errorf("broker: %v", err)
		}
	}()
	for _, s := range c.subscribers {
		subscribing.Go(s.live)
	}
	c.waitFor(t, "subscriptions", func() bool {
		for _, s := range c.subscribers {
			s.to.mu.Lock()
			missing := s.late == 0 && s.to.since == 0
			s.to.mu.Unlock()
			if missing {
				return false
			}
		}
		return true
	})
	for _, pub := range c.publishers {
		publishing.Go(pub.live)
	}
	for round := range p.rounds {
		time.Sleep(time.Duration(float64(p.life) * (0.3 + 1.4*random.Float64())))
		if err := sys.crash(c.net.down); err != nil {
			t.Fatalf("crash %d: %v", round+1, err)
		}
		address, err := sys.start()
		if err != nil {
			t.Fatalf("start after crash %d: %v", round+1, err)
		}
		c.net.up(address)
	}
	time.Sleep(p.life)
	c.settle(t, p, &publishing)
	sum := c.ledger.judge()
	t.Log(sum)
	c.ledger.mu.Lock()
	defer c.ledger.mu.Unlock()
	for _, n := range c.ledger.notes {
		t.Log(n)
	}
	return sum
}

// waitFor waits for what must come.
func (c *cast) waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(launch.Patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not there after %v: %s", launch.Patience, what)
		}
	}
}

// settle lets the publishers finish and waits until nothing moves any more.
func (c *cast) settle(t testing.TB, p *plan, publishing *sync.WaitGroup) {
	t.Helper()
	p.settling.Store(true)
	c.stopping.Store(true)
	finished := make(chan struct{})
	go func() { publishing.Wait(); close(finished) }()
	c.ledger.moved()
	quiet := func() time.Duration { return time.Since(time.Unix(0, c.ledger.activity.Load())) }
	for end := time.Now().Add(p.patience); ; {
		select {
		case <-finished:
			// Late duplicates get time to show; what is missing gets more.
			missing := c.missing()
			if q := quiet(); q > 15*time.Second || !missing && q > 700*time.Millisecond || time.Now().After(end) {
				return
			}
		default:
			if quiet() > 30*time.Second || time.Now().After(end) {
				c.over.Store(true)
				<-finished
				for _, pub := range c.publishers {
					if n := len(pub.flights); n > 0 {
						pub.broken("%d messages are never acknowledged", n)
					}
				}
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c *cast) missing() bool {
	c.ledger.mu.Lock()
	notes := len(c.ledger.notes)
	c.ledger.mu.Unlock()
	lost := c.ledger.judge().lost
	c.ledger.mu.Lock()
	c.ledger.notes = c.ledger.notes[:min(notes, len(c.ledger.notes))]
	c.ledger.mu.Unlock()
	return lost > 0
}
