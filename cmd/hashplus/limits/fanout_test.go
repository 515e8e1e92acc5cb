package limits

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"hashplus/broker/wire"
)

// batch writes what it is given in large pieces.
type batch struct {
	c *client
	b []byte
}

func (b *batch) add(p []byte) {
	if b.b = append(b.b, p...); len(b.b) > 32<<10 {
		b.flush()
	}
}

func (b *batch) flush() {
	b.c.t.Helper()
	b.c.send(b.b)
	b.b = b.b[:0]
}

func TestRetainedReplay_StallsNobodyAndLosesNothing(t *testing.T) {
	s := serve(t)
	const names, readers = 100_000, 6
	pub := s.dial(v5)
	pub.join()
	out := batch{c: pub}
	for i := range names {
		out.add(pub.encode(publish{Retain: true, Topic: fmt.Appendf(nil, "r/%d/%d/%d", i%10, i/10%100, i), Payload: fmt.Appendf(nil, "%040d", i)}))
	}
	out.flush()
	pub.alive()
	honest := s.pairs(4)
	base := during(t, honest, rest)
	loaded := during(t, honest, func() {
		var wg sync.WaitGroup
		for i := range readers {
			dial := s.dial
			if i%2 == 1 {
				dial = s.dialWS
			}
			c := dial(v5)
			c.join()
			wg.Go(func() { c.takesRetained(t, names, byte(i/4)) })
		}
		wg.Wait()
	})
	undisturbed(t, "six replays of 100,000 names", base, loaded)
	s.memory(250)
}

// takesRetained subscribes to everything and expects each name below r/ once.
func (c *client) takesRetained(t *testing.T, names int, qos byte) {
	if err := c.trySend(c.filters(qos, "#")); err != nil {
		t.Error(err)
		return
	}
	seen := make([]bool, names)
	for left := names; left > 0; {
		h, body, err := c.read(patience)
		if err != nil {
			t.Errorf("%v with %d names to come", err, left)
			return
		}
		if h.Type != wire.PUBLISH {
			continue
		}
		p := c.decode(h, body)
		if !p.Retain {
			continue // of the honest pairs
		}
		var n int
		if _, err := fmt.Sscan(string(p.Topic[strings.LastIndexByte(string(p.Topic), '/')+1:]), &n); err != nil || seen[n] {
			t.Errorf("%q is a name twice, or wrong: %v", p.Topic, err)
			return
		}
		seen[n] = true
		left--
	}
	c.drop()
}

// overlapping are the 2^12 filters that match a/a/a/a/a/a/a/a/a/a/a/a.
func overlapping() (filters []string) {
	for i := range 1 << 12 {
		levels := make([]string, 12)
		for bit := range levels {
			levels[bit] = "a"
			if i>>bit&1 == 1 {
				levels[bit] = "+"
			}
		}
		filters = append(filters, strings.Join(levels, "/"))
	}
	return filters
}

func TestMessageThatMatches4096Filters_StallsNobody(t *testing.T) {
	filters := overlapping()
	name := strings.Repeat("a/", 11) + "a"
	for what, share := range map[string][][]string{
		"one session has all filters":     {filters},
		"two sessions have half of them":  {filters[:2048], filters[2048:]},
		"sessions have every other":       {alternate(filters, 0), alternate(filters, 1)},
		"sixty-four sessions share alike": parts(filters, 64),
	} {
		t.Run(what, func(t *testing.T) {
			s := serve(t)
			var subs []*client
			for _, own := range share {
				c := s.dial(v5)
				c.join()
				for len(own) > 0 {
					n := min(512, len(own))
					c.subscribe(0, own[:n]...)
					own = own[n:]
				}
				subs = append(subs, c)
			}
			pub := s.dialWS(v5)
			pub.join()
			pub.post(1, name, []byte("x"))
			for _, c := range subs {
				if p := c.message(); string(p.Topic) != name {
					t.Errorf("message of %q", p.Topic)
				}
				c.alive() // and no second copy
				go sink(c)
			}
			honest := s.pairs(4)
			base := during(t, honest, rest)
			message := pub.encode(publish{Topic: []byte(name), Payload: []byte("x")})
			sent := 0
			loaded := during(t, honest, func() {
				for end := time.Now().Add(2 * time.Second); time.Now().Before(end); sent += 20 {
					for range 20 {
						pub.send(message)
					}
					if err := pub.tryPing(); err != nil {
						t.Fatal(err)
					}
				}
			})
			t.Logf("%d such messages", sent)
			undisturbed(t, "4,096 matches of a message", base, loaded)
			s.memory(150)
		})
	}
}

// tryPing waits for the answer to a ping.
func (c *client) tryPing() error {
	if err := c.trySend(ping()); err != nil {
		return err
	}
	for {
		h, _, err := c.read(patience)
		if err != nil || h.Type == wire.PINGRESP {
			return err
		}
	}
}

func alternate(all []string, first int) (some []string) {
	for i := first; i < len(all); i += 2 {
		some = append(some, all[i])
	}
	return some
}

func parts(all []string, n int) (shares [][]string) {
	for i := range n {
		shares = append(shares, all[i*len(all)/n:(i+1)*len(all)/n])
	}
	return shares
}

func TestMessageFor20000Sessions_StallsNobody(t *testing.T) {
	s := serve(t, "--sys-interval=200ms")
	// Sessions without a connection, so that the test needs no 20,000 sockets:
	// the broker walks over all of them just the same.
	const sessions, online = 20_000, 100
	var wg sync.WaitGroup
	for w := range 20 {
		wg.Go(func() {
			for i := range sessions / 20 {
				if err := s.leaveSession(fmt.Sprintf("s%d-%d", w, i), "flood"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for i := range online {
		c := s.dial(v5)
		c.join()
		c.subscribe(byte(i%2), "flood")
		go sink(c)
	}
	s.sys(func(v map[string]int) bool { return v["subscriptions/count"] >= sessions+online })
	honest := s.pairs(4)
	base := during(t, honest, rest)
	pub := s.dial(v5)
	pub.join()
	once := during(t, honest, func() {
		for range 50 {
			pub.post(1, "flood", []byte("x"))
			time.Sleep(10 * time.Millisecond)
		}
	})
	undisturbed(t, "a message to 20,000 sessions now and then", base, once)
	flood := bytes.Repeat(pub.encode(publish{Topic: []byte("flood"), Payload: []byte("x")}), 1000)
	loaded := during(t, honest, func() {
		// The flooder is read as fast as its messages can be dealt with, and no
		// faster.
		if err := pub.conn.SetWriteDeadline(time.Now().Add(3 * time.Second)); err != nil {
			t.Error(err)
		}
		for {
			if _, err := pub.conn.Write(flood); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
				return
			}
		}
	})
	undisturbed(t, "a flood of them", base, loaded)
	s.memory(300)
}

// leaveSession leaves a session behind that is subscribed to filter.
func (s *server) leaveSession(id, filter string) error {
	c := s.bare()
	if c == nil {
		return fmt.Errorf("no connection for %s", id)
	}
	defer c.drop()
	all := append(c.request(lasting(id)), c.filters(0, filter)...)
	if err := c.trySend(append(all, 0xe0, 0)); err != nil {
		return err
	}
	for _, want := range []wire.Type{wire.CONNACK, wire.SUBACK} {
		if h, _, err := c.read(patience); err != nil || h.Type != want {
			return fmt.Errorf("%s: %v (%v) instead of %v", id, h.Type, err, want)
		}
	}
	_, _, _ = c.read(patience) // the end
	return nil
}
