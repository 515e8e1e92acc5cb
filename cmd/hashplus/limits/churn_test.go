package limits

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hashplus/broker/wire"
	"hashplus/cmd/hashplus/launch"
)

func TestTakeOver_StormLeavesNothingBehind(t *testing.T) {
	s := serve(t, "--sys-interval=200ms", "--log-level=warn")
	s.dial(v5).join()
	fds, memory := s.fds(), s.rss()
	var joined atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(2 * time.Second)
	for range 50 {
		wg.Go(func() {
			for time.Now().Before(end) {
				c := s.bare()
				if c == nil {
					t.Error("no connection")
					return
				}
				will := func(p *wire.Connect) {
					p.Will = &wire.Will{Topic: "will", ExpiryAt: -1, Delay: 1}
				}
				if c.trySend(append(c.request(lasting("the same"), will), c.filters(1, "storm")...)) == nil {
					if h, _, err := c.read(patience); err == nil && h.Type == wire.CONNACK {
						joined.Add(1)
					}
				}
				c.drop()
			}
		})
	}
	wg.Wait()
	t.Logf("%d connections with one client identifier", joined.Load())
	if joined.Load() < 100 {
		t.Error("hardly one of them was let in")
	}
	c := s.dialWS(v5)
	if !c.join(lasting("the same")).SessionPresent {
		t.Error("the session is lost")
	}
	c.subscribe(1, "storm")
	c.numbered("storm", 1, 1, 20)
	c.drop()
	s.sys(func(v map[string]int) bool {
		// The first client, the one that asks, and the session.
		return v["clients/total"] == 3 && v["clients/connected"] == 2 && v["subscriptions/count"] == 2
	})
	until(t, "all descriptors are closed", func() bool { return s.fds() <= fds+1 })
	if grown := s.rss() - memory; grown > 40+garbage && !launch.Raced() {
		t.Errorf("RSS grew by %d MiB", grown)
	}
}

func TestChurn_OfConnectionsLeavesNothingBehind(t *testing.T) {
	s := serve(t, "--sys-interval=200ms", "--log-level=warn")
	s.dial(v5).join()
	cycle := func(n int) {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for i := range n / 10 {
					c := s.bare()
					if c == nil {
						t.Error("no connection")
						return
					}
					all := append(c.request(), c.filters(1, "churn/+/"+unique("t"))...)
					if i%2 == 0 {
						all = append(all, byte(wire.DISCONNECT)<<4, 0)
					}
					if err := c.trySend(all); err != nil {
						t.Error(err)
						return
					}
					for range 2 {
						if _, _, err := c.read(patience); err != nil {
							t.Error(err)
							return
						}
					}
					c.drop()
				}
			})
		}
		wg.Wait()
	}
	settled := func() bool { return s.fds() <= 20 }
	cycle(2000) // warms everything up
	until(t, "all descriptors are closed", settled)
	fds, memory := s.fds(), s.rss()
	cycle(10_000)
	s.sys(func(v map[string]int) bool {
		return v["clients/total"] == 2 && v["clients/connected"] == 2 && v["subscriptions/count"] == 1
	})
	until(t, "all descriptors are closed", func() bool { return s.fds() <= fds+1 })
	if grown := s.rss() - memory; grown > 20+garbage && !launch.Raced() {
		t.Errorf("RSS grew by %d MiB", grown)
	} else {
		t.Logf("RSS grew by %d MiB over 10,000 connections", grown)
	}
}
