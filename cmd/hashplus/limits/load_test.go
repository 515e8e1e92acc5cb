package limits

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"hashplus/broker/wire"
	"hashplus/cmd/hashplus/launch"
)

// latencies are round trips, to be asked for percentiles.
type latencies []time.Duration

func (l latencies) p(percent int) time.Duration {
	if len(l) == 0 {
		return 0
	}
	slices.Sort(l)
	return l[min(len(l)-1, len(l)*percent/100)]
}

// pair is an honest pair of clients: a request, a reply, and the next request.
type pair struct {
	asks, answers *client
	topic         string // of requests
}

// pairs connects n of them, half over WebSocket.
func (s *server) pairs(n int) []pair {
	s.t.Helper()
	var all []pair
	for i := range n {
		dial := s.dial
		if i%2 == 1 {
			dial = s.dialWS
		}
		name := unique("pair")
		p := pair{dial(v5), dial(v5), name + "/request"}
		for c, topic := range map[*client]string{p.asks: name + "/reply", p.answers: p.topic} {
			c.join()
			c.subscribe(0, topic)
		}
		go p.answers.echo(name + "/reply")
		all = append(all, p)
	}
	return all
}

// echo answers everything until the connection ends.
func (c *client) echo(to string) {
	for {
		h, body, err := c.read(time.Hour)
		if err != nil || h.Type != wire.PUBLISH {
			return
		}
		if c.trySend(c.encode(publish{Topic: []byte(to), Payload: c.decode(h, body).Payload})) != nil {
			return
		}
	}
}

// ask has all pairs go through requests until stop is closed, and returns what
// each took. A pair that gets no reply fails the test.
func ask(t *testing.T, all []pair, stop <-chan struct{}) latencies {
	t.Helper()
	var (
		mu   sync.Mutex
		took latencies
		wg   sync.WaitGroup
	)
	for _, p := range all {
		wg.Go(func() {
			request := p.asks.encode(publish{Topic: []byte(p.topic), Payload: []byte("?")})
			for {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				began := time.Now()
				err := p.asks.trySend(request)
				if err == nil {
					_, _, err = p.asks.read(patience)
				}
				if err != nil {
					t.Errorf("an honest client: %v after %v", err, time.Since(began))
					return
				}
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return took
}

// trips are round trips, and how slow the machine was meanwhile: how many times
// longer a piece of work took than it does where there is nothing else to do.
type trips struct {
	latencies
	slow float64
}

// during returns the round trips of all pairs while f runs.
func during(t *testing.T, all []pair, f func()) trips {
	t.Helper()
	stop, result := make(chan struct{}), make(chan latencies)
	go func() { result <- ask(t, all, stop) }()
	slow := slowness(stop)
	f()
	close(stop)
	return trips{<-result, <-slow}
}

// slowness measures how slow the machine is until stop is closed.
func slowness(stop <-chan struct{}) <-chan float64 {
	const usual = 5 * time.Millisecond // for the work, on a machine of 2024
	result := make(chan float64, 1)
	go func() {
		for took, n := time.Duration(0), time.Duration(1); ; n++ {
			began := time.Now()
			x := uint64(1)
			for range 2_000_000 {
				x ^= x << 13
				x ^= x >> 7
				x ^= x << 17
			}
			work.Store(x)
			took += time.Since(began)
			select {
			case <-stop:
				result <- max(1, float64(took/n)/float64(usual))
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return result
}

// work keeps slowness from being optimised away.
var work atomic.Uint64

// undisturbed compares the honest pairs' round trips with what they were
// without load. The bounds are generous, since the machine of a CI run is small
// and does the clients' work too, and whatever else it has to do: what is looked
// for is a loop that stands still, which shows in most of the round trips.
func undisturbed(t *testing.T, what string, base, loaded trips) {
	t.Helper()
	t.Logf("honest round trips: p50 %v, p99 %v; with %s p50 %v, p99 %v, max %v (%d), the machine %.1f times as slow as usual",
		base.p(50), base.p(99), what, loaded.p(50), loaded.p(99), loaded.p(100), len(loaded.latencies), loaded.slow)
	slow := loaded.slow
	if launch.Raced() {
		slow *= 5
	}
	bound := max(time.Duration(float64(500*time.Millisecond)*slow), 10*base.p(99))
	if loaded.p(50) > bound || loaded.p(99) > patience || float64(len(loaded.latencies)) < max(4, 10/slow) {
		t.Errorf("with %s an honest round trip takes %v (p99 %v, of %d), without %v",
			what, loaded.p(50), loaded.p(99), len(loaded.latencies), base.p(50))
	}
}

// rest is a while without load.
func rest() { time.Sleep(time.Second) }

// deaf subscribes and reads nothing more; the system's buffers for it are small.
func (s *server) deaf(c *client, qos byte, filter string, opts ...as) *client {
	s.t.Helper()
	conn := c.conn
	if w, ok := conn.(*webSocket); ok {
		conn = w.Conn
	}
	if err := conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		s.t.Fatal(err)
	}
	c.join(opts...)
	c.subscribe(qos, filter)
	return c
}

// sink reads and forgets until the connection ends.
func sink(c *client) { _, _ = io.Copy(io.Discard, c.conn) } // the end is not its own to judge

func TestSlowReader_ChangesNobodysLatency(t *testing.T) {
	s := serve(t, "--write-stall=60s", "--sys-interval=200ms")
	const subscribers, size, rate = 20, 16 << 10, 400
	var (
		mu   sync.Mutex
		got  latencies
		seen [subscribers]int // of got
	)
	arrived := func(n int) bool { // at each of them
		mu.Lock()
		defer mu.Unlock()
		return slices.Min(seen[:]) >= n
	}
	for i := range subscribers {
		dial := s.dial
		if i%2 == 1 {
			dial = s.dialWS
		}
		c := dial(v5)
		c.join()
		c.subscribe(byte(i%2), "feed")
		go func() {
			for {
				h, body, err := c.read(time.Hour)
				if err != nil || h.Type != wire.PUBLISH {
					return
				}
				p := c.decode(h, body)
				if p.QoS == 1 && c.trySend(ack(wire.PUBACK, p.PacketID)) != nil {
					return
				}
				took := time.Since(start.Add(time.Duration(binary.BigEndian.Uint64(p.Payload))))
				mu.Lock()
				got = append(got, took)
				seen[i]++
				mu.Unlock()
			}
		}()
	}
	pub := s.dial(v5)
	pub.join()
	feed := func(n int) trips {
		stop := make(chan struct{})
		slow := slowness(stop)
		payload := make([]byte, size)
		for i := range n {
			binary.BigEndian.PutUint64(payload, uint64(time.Since(start)))
			pub.post(byte(i%2), "feed", payload)
			time.Sleep(time.Second / rate)
			// Who reads never has so much to come that QoS 0 would be dropped.
			until(t, "those who read get it", func() bool { return arrived(i - 20) })
		}
		until(t, "those who read get everything", func() bool { return arrived(n) })
		close(stop)
		mu.Lock()
		defer mu.Unlock()
		all := got
		got, seen = nil, [subscribers]int{}
		return trips{all, <-slow}
	}
	base := feed(400)
	for range 3 {
		s.deaf(s.dial(v5), 0, "feed")
		s.deaf(s.dialWS(v5), 0, "feed")
	}
	feed(400) // fills buffers
	loaded := feed(400)
	undisturbed(t, "six deaf subscribers", base, loaded)
	s.sys(func(v map[string]int) bool {
		return v["dropped/slow-reader"] > 300 && v["publish/messages/dropped"] >= v["dropped/slow-reader"]
	})
	s.memory(150)
}

// start is what times in payloads count from.
var start = time.Now()

func TestSlowReader_KeepsItsQoS1MessagesInOrder(t *testing.T) {
	t.Parallel()
	s := serve(t, "--write-stall=60s")
	over(t, s, func(t *testing.T, dial func(wire.Version) *client) {
		pub, topic := dial(v5), unique("t")
		pub.join()
		c := s.deaf(dial(v5), 1, topic, lasting(unique("slow")))
		pub.numbered(topic, 1, 3000, 4<<10)
		c.takesNumbers(1, 3000)
		c.alive()
	})
}

func TestWriteStall_EndsTheConnectionAndKeepsTheSession(t *testing.T) {
	t.Parallel()
	// A reader that does read may be kept from it for a while by its machine.
	s := serve(t, "--write-stall=3s", "--sys-interval=200ms")
	over(t, s, func(t *testing.T, dial func(wire.Version) *client) {
		pub, topic, id := dial(v5), unique("t"), unique("slow")
		pub.join()
		c := s.deaf(dial(v5), 1, topic, lasting(id))
		pub.numbered(topic, 1, 3000, 4<<10)
		until(t, "the slow reader is disconnected", func() bool { return s.logged(id, "write queue has stalled") })
		// What was queued for it, and the reason, are there once it reads.
		c.ejected(wire.QuotaExceeded, 1008)
		c = dial(v5)
		if !c.join(lasting(id)).SessionPresent {
			t.Fatal("its session has gone")
		}
		c.takesNumbers(1, 3000) // none was acknowledged
		c.alive()
	})
	s.memory(150)
}

// logged reports whether the broker has logged a line about a client with text
// in it.
func (s *server) logged(id, text string) bool {
	for line := range strings.Lines(s.Log.String()) {
		if slices.Contains(strings.Fields(line), "client="+id) && strings.Contains(line, text) {
			return true
		}
	}
	return false
}

func TestDeafClient_CannotMakeTheBrokerQueueAnswers(t *testing.T) {
	for name, flood := range map[string][]byte{
		"PINGREQ":   ping(),
		"PUBLISH":   newClient(t, nil, v5).encode(publish{QoS: 1, PacketID: 7, Topic: []byte("t")}),
		"PUBREL":    ack(wire.PUBREL, 9),
		"SUBSCRIBE": newClient(t, nil, v5).filters(0, strings.Split(strings.Repeat("a ", 100)+"a", " ")...),
		"WebSocket": masked(ws.NewPingFrame(make([]byte, 125))),
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			var block []byte
			for len(block) < 64<<10 {
				block = append(block, flood...)
			}
			var conn net.Conn
			var c *client
			if name == "WebSocket" {
				c = s.deaf(s.dialWS(v5), 0, "nothing")
				conn = c.conn.(*webSocket).Conn
			} else {
				c = s.deaf(s.dial(v5), 0, "nothing")
				conn = c.conn
			}
			// For two seconds, and then up to the end of a block, so that the
			// client could go on.
			sent := 0
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
				if err := conn.SetWriteDeadline(end); err != nil {
					t.Fatal(err)
				}
				n, err := conn.Write(block)
				sent += n
				if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
			}
			t.Logf("after %d MiB of %s", sent>>20, name)
			s.memory(50)
			go sink(c) // now it reads: the broker goes on where it stopped
			rest := block[sent%len(flood):]
			if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(rest); err != nil {
				t.Errorf("the client reads again, but is not read: %v", err)
			}
		})
	}
}
