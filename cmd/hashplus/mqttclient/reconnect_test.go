package mqttclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// accept is a CONNACK without properties.
func accept(v Version) []byte {
	if v == V5 {
		return []byte{0x20, 3, 0, 0, 0}
	}
	return []byte{0x20, 2, 0, 0}
}

func refuse(v Version, reason byte) []byte {
	b := accept(v)
	b[3] = reason
	return b
}

func TestReconnect_SubscribesAgainWhereTheServerKeptNoSession(t *testing.T) {
	both(t, func(t *testing.T, v Version) {
		address := startBroker(t)
		proxy := newCutter(t, address)
		got := make(chan string, 100)
		o := options(proxy.address, v)
		o.OnMessage = func(m Message) bool { got <- string(m.Payload); return true }
		c := connect(t, o)
		if r, err := c.Subscribe(within(t), Subscription{Filter: "a/+", QoS: 1}, Subscription{Filter: "b"}); err != nil || len(r) != 2 || r[0] != 1 || r[1] != 0 {
			t.Fatalf("reasons %v, %v", r, err)
		}
		other := connect(t, options(address, V5))
		for round := range 3 {
			proxy.cut()
			for _, topic := range []string{"a/x", "b"} {
				want := fmt.Sprintf("%d %s", round, topic)
				for arrived := false; !arrived; {
					if _, err := other.Publish(within(t), Message{Topic: topic, Payload: []byte(want)}); err != nil {
						t.Fatal(err)
					}
					select {
					case p := <-got:
						arrived = p == want
					case <-time.After(20 * time.Millisecond):
					case <-c.Done():
						t.Fatal(c.Err())
					}
				}
			}
		}
	})
}

func TestPublish_SurvivesTheLossOfConnections(t *testing.T) {
	both(t, func(t *testing.T, v Version) {
		for _, durable := range []bool{false, true} {
			t.Run(fmt.Sprintf("durable=%v", durable), func(t *testing.T) {
				address := startBroker(t)
				proxy := newCutter(t, address)
				var mu sync.Mutex
				seen := map[string]int{}
				sub := options(address, V5)
				sub.OnMessage = func(m Message) bool {
					mu.Lock()
					defer mu.Unlock()
					seen[string(m.Payload)]++
					return true
				}
				if _, err := connect(t, sub).Subscribe(within(t), Subscription{Filter: "#", QoS: 2}); err != nil {
					t.Fatal(err)
				}
				o := options(proxy.address, v)
				if durable {
					o.CleanStart, o.ClientID = false, "durable"
					if v == V5 {
						o.SessionExpiry = 60
					}
				}
				c := connect(t, o)
				stop := make(chan struct{})
				var published atomic.Int64
				var cuts sync.WaitGroup
				cuts.Go(func() {
					for last := int64(0); ; {
						select {
						case <-stop:
							return
						case <-time.After(30 * time.Millisecond):
						}
						// A message that costs connection after connection is given up.
						if n := published.Load(); n > last {
							last = n
							proxy.cut()
						}
					}
				})
				const n = 200
				for i := range n {
					published.Store(int64(i))
					if _, err := c.Publish(within(t), Message{Topic: "t", QoS: byte(1 + i%2), Payload: fmt.Append(nil, i)}); err != nil {
						t.Fatalf("message %d: %v", i, err)
					}
				}
				close(stop)
				cuts.Wait()
				for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
					mu.Lock()
					complete := len(seen) == n
					mu.Unlock()
					if complete {
						break
					}
					if time.Now().After(end) {
						t.Fatalf("%d of %d messages arrived", len(seen), n)
					}
				}
			})
		}
	})
}

func TestDial_TriesAgainOnlyWhereThatCanHelp(t *testing.T) {
	both(t, func(t *testing.T, v Version) {
		passing, fatal := byte(0x88), byte(0x87)
		if v != V5 {
			passing, fatal = 3, 5
		}
		server := func(answers ...byte) (address string, calls func() int) {
			var mu sync.Mutex
			count := 0
			return listen(t, func(n int, c net.Conn) {
					mu.Lock()
					count++
					mu.Unlock()
					if _, _, err := readPacket(c); err != nil {
						return
					}
					if n < len(answers) {
						_, _ = c.Write(refuse(v, answers[n]))
						return
					}
					_, _ = c.Write(accept(v))
					_, _, _ = readPacket(c) // until DISCONNECT
				}), func() int {
					mu.Lock()
					defer mu.Unlock()
					return count
				}
		}

		address, calls := server(passing, passing)
		o := options(address, v)
		o.RetryFirst = true
		connect(t, o)
		if calls() != 3 {
			t.Errorf("it took %d attempts", calls())
		}

		for _, retry := range []bool{false, true} {
			answers := []byte{fatal}
			if !retry {
				answers = []byte{passing} // without RetryFirst every failure is final
			}
			address, calls = server(answers...)
			o = options(address, v)
			o.RetryFirst = retry
			_, err := Dial(within(t), o)
			var e *Error
			if !errors.As(err, &e) || e.Stage != Connecting || e.Reason != answers[0] || calls() != 1 {
				t.Errorf("RetryFirst %v: %v after %d attempts", retry, err, calls())
			}
		}
	})
}

func TestDial_EndsWithItsContext(t *testing.T) {
	both(t, func(t *testing.T, v Version) {
		address := listen(t, func(_ int, c net.Conn) { // says nothing
			for {
				if _, _, err := readPacket(c); err != nil {
					return
				}
			}
		})
		for _, retry := range []bool{false, true} {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			o := options(address, v)
			o.RetryFirst, o.ConnectTimeout = retry, 300*time.Millisecond
			began := time.Now()
			_, err := Dial(ctx, o)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 30*time.Second {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		}
		o := options(address, v)
		o.ConnectTimeout = 50 * time.Millisecond
		_, err := Dial(context.Background(), o)
		var e *Error
		if !errors.As(err, &e) || e.Stage != Dialing {
			t.Errorf("a server that says nothing: %v", err)
		}
	})
}

func TestRun_LossEndsTheClientWithoutReconnect(t *testing.T) {
	both(t, func(t *testing.T, v Version) {
		proxy := newCutter(t, startBroker(t))
		o := options(proxy.address, v)
		o.Reconnect = false
		c := connect(t, o)
		proxy.cut()
		select {
		case <-c.Done():
		case <-time.After(time.Minute):
			t.Fatal("it did not end")
		}
		var e *Error
		if !errors.As(c.Err(), &e) || e.Stage != Running {
			t.Errorf("it ended with %v", c.Err())
		}
		if _, err := c.Publish(within(t), Message{Topic: "a", QoS: 1}); !errors.Is(err, c.Err()) {
			t.Errorf("Publish after the end: %v", err)
		}
	})
}

func TestRun_TakeOverEndsTheClient(t *testing.T) {
	address := startBroker(t)
	o := options(address, V5)
	o.ClientID = "twin"
	first := connect(t, o)
	connect(t, o)
	select {
	case <-first.Done():
	case <-time.After(time.Minute):
		t.Fatal("it did not end")
	}
	var e *Error
	if !errors.As(first.Err(), &e) || e.Reason != 0x8E || !e.Fatal {
		t.Errorf("it ended with %v", first.Err())
	}
}

func TestRequest_ThatCostsEveryConnectionIsGivenUp(t *testing.T) {
	both(t, func(t *testing.T, v Version) {
		address := listen(t, func(_ int, c net.Conn) {
			if _, _, err := readPacket(c); err != nil {
				return
			}
			_, _ = c.Write(accept(v))
			_, _, _ = readPacket(c) // closes whatever comes
		})
		c := connect(t, options(address, v))
		_, err := c.Publish(within(t), Message{Topic: "a", QoS: 1})
		var e *Error
		if !errors.As(err, &e) || e.Stage != Running || !errors.Is(err, errLost) && !errors.Is(err, context.Canceled) {
			t.Errorf("Publish: %v", err)
		}
	})
}

func TestClose_EndsRequestsThatWait(t *testing.T) {
	both(t, func(t *testing.T, v Version) {
		address := listen(t, func(_ int, c net.Conn) {
			for first := true; ; first = false {
				if _, _, err := readPacket(c); err != nil {
					return
				}
				if first {
					_, _ = c.Write(accept(v))
				}
			}
		})
		c := connect(t, options(address, v))
		failed := make(chan error)
		go func() {
			_, err := c.Publish(context.Background(), Message{Topic: "a", QoS: 1})
			failed <- err
		}()
		time.Sleep(20 * time.Millisecond)
		c.Close()
		select {
		case err := <-failed:
			if err == nil {
				t.Error("Publish succeeded without an acknowledgement")
			}
		case <-time.After(time.Minute):
			t.Fatal("Publish waits on")
		}
		if c.Err() != nil {
			t.Errorf("Close left %v", c.Err())
		}
	})
}
