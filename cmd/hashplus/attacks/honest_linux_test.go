package attacks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hashplus/bench/codec"
	"hashplus/bench/drive"
)

// honestOrders is what the honest clients are told when they start.
type honestOrders struct {
	WS    string  // address of the broker
	Pairs int     // of clients, of which one asks and one answers
	Rate  float64 // requests per second, of all of them
}

// window is an order to measure for a while; the answer is a measurement.
type window struct{ For time.Duration }

// measurement is what somebody saw in a window.
type measurement struct {
	P50, P99, Max time.Duration
	Round         int    // how many round trips
	Lost          uint64 // messages, since the beginning
	Disconnected  uint64 // clients, since the beginning
	Trouble       string // all that went wrong, since the beginning
	Connect       time.Duration
}

// honest starts pairs at a broker and waits until all are connected.
func honest(ws string, pairs int, rate float64) (*helper, measurement, error) {
	var m measurement
	h, err := start("honest", honestOrders{ws, pairs, rate}, false)
	if err != nil {
		return nil, m, err
	}
	if err := h.answer(&m); err != nil {
		h.close()
		return nil, m, err
	}
	return h, m, nil
}

// beHonest is the process of the honest clients. They ask and answer on topics
// of their own, at a rate that does not depend on how fast the answers come.
func beHonest(text []byte) error {
	var o honestOrders
	if err := json.Unmarshal(text, &o); err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(o.WS)
	if err != nil {
		return err
	}
	plan := drive.Plan{
		Target:   drive.Target{Addr: to, WebSocket: true, Host: o.WS, Path: "/mqtt", Version: codec.V5, KeepAlive: 60},
		OpenRate: o.Rate, Streams: 2 * o.Pairs, Drain: 30 * time.Second,
	}
	for i := range o.Pairs {
		ask, reply := fmt.Sprintf("honest/%d/ask", i), fmt.Sprintf("honest/%d/reply", i)
		plan.Clients = append(plan.Clients,
			drive.Client{ID: fmt.Sprintf("answers-%d", i), Subs: []codec.Subscription{{Filter: ask}}, FlowBase: uint32(i), Flows: 1, StreamBase: uint32(o.Pairs + i), Echo: true},
			drive.Client{ID: fmt.Sprintf("asks-%d", i), Subs: []codec.Subscription{{Filter: reply}}, FlowBase: uint32(i), Flows: 1, StreamBase: uint32(i)})
		plan.Flows = append(plan.Flows, drive.Flow{Topic: ask, Reply: reply, Sender: int32(i)})
		plan.Senders = append(plan.Senders, drive.Sender{Client: 2*i + 1, FlowBase: uint32(i), Flows: 1, Fan: 1})
	}
	plan.EnsureDefaults()
	if err := plan.Validate(); err != nil {
		return err
	}
	runtime.LockOSThread()
	clock, shared := drive.NewClock(), drive.NewShared(&plan, 1, nil)
	loop, err := drive.New(&plan, clock, shared, 0)
	if err != nil {
		return err
	}
	defer loop.Close()
	ctx := context.Background()
	began := time.Now()
	if err := loop.Connect(ctx, 0, len(plan.Clients)); err != nil {
		return err
	}
	m, err := finish(loop)
	if err != nil {
		return err
	}
	m.Connect = time.Since(began)
	return serveOrders(m, func(w window) (measurement, error) {
		now := clock.Now()
		if err := loop.Drive(ctx, drive.Schedule{Start: now, Measure: now, End: now + int64(w.For)}); err != nil {
			return m, err
		}
		return finish(loop)
	}, func() error { return loop.Step(20 * time.Millisecond) })
}

// finish is what loop has seen.
func finish(loop *drive.Loop) (m measurement, err error) {
	o, err := loop.Finish()
	if err != nil {
		return m, err
	}
	h, err := hdrhistogram.Decode(o.Latency)
	if err != nil {
		return m, err
	}
	m = measurement{
		P50: time.Duration(h.ValueAtQuantile(50)), P99: time.Duration(h.ValueAtQuantile(99)), Max: time.Duration(h.Max()), Round: int(h.TotalCount()),
		Lost: o.Tally.Lost, Disconnected: o.Tally.Disconnects + o.Tally.Failed, Trouble: o.Tally.Trouble(),
	}
	if len(o.Errors) > 0 {
		m.Trouble += fmt.Sprint(" ", o.Errors)
	}
	return m, nil
}

// serveOrders says first and then measures as it is told, until its orders end.
// Between orders it idles.
func serveOrders(first measurement, measure func(window) (measurement, error), idle func() error) error {
	orders := make(chan window)
	go func() {
		defer close(orders)
		for in := json.NewDecoder(os.Stdin); ; {
			var w window
			if err := in.Decode(&w); err != nil {
				return
			}
			orders <- w
		}
	}()
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(first); err != nil {
		return err
	}
	for {
		select {
		case w, more := <-orders:
			if !more {
				return nil
			}
			m, err := measure(w)
			if err != nil {
				return err
			}
			if err := out.Encode(m); err != nil {
				return err
			}
		default:
			if err := idle(); err != nil {
				return err
			}
		}
	}
}

// beControl is the process that echoes bytes over loopback: as many connections
// and round trips as the honest clients make, timed in the same way, without a
// broker.
func beControl([]byte) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c) //nolint:errcheck // up to the end of the process
		}
	}()
	var all [pairs]net.Conn
	for i := range all {
		if all[i], err = net.Dial("tcp", l.Addr().String()); err != nil {
			return err
		}
	}
	return serveOrders(measurement{}, func(w window) (measurement, error) {
		var mu sync.Mutex
		var took []time.Duration
		var failed error
		var wg sync.WaitGroup
		began := time.Now()
		for i, c := range all {
			wg.Go(func() {
				message := make([]byte, 64)
				for due := began.Add(time.Second * time.Duration(i) / rate); due.Before(began.Add(w.For)); due = due.Add(time.Second * pairs / rate) {
					time.Sleep(time.Until(due))
					_, err := c.Write(message)
					if err == nil {
						_, err = io.ReadFull(c, message)
					}
					mu.Lock()
					failed = errors.Join(failed, err)
					took = append(took, time.Since(due))
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if failed != nil || len(took) == 0 {
			return measurement{}, errors.Join(errors.New("no echo"), failed)
		}
		slices.Sort(took)
		return measurement{P50: took[len(took)/2], P99: took[len(took)*99/100], Max: took[len(took)-1], Round: len(took)}, nil
	}, func() error { time.Sleep(10 * time.Millisecond); return nil })
}
