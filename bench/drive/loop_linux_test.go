package drive

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hashplus/bench/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fan is a plan of p publishers and n subscribers that each get everything.
func fan(target Target, p, n int, qos byte) *Plan {
	plan := &Plan{Target: target, Streams: p * n, Stall: 20 * time.Second, Drain: 30 * time.Second}
	for i := range n {
		plan.Clients = append(plan.Clients, Client{
			ID: fmt.Sprint("s", i), Subs: []codec.Subscription{{Filter: "t/#", QoS: qos}}, Flows: uint32(p), StreamBase: uint32(i * p),
		})
	}
	for i := range p {
		plan.Flows = append(plan.Flows, Flow{Topic: fmt.Sprint("t/", i), Sender: int32(i)})
		plan.Senders = append(plan.Senders, Sender{Client: len(plan.Clients), FlowBase: uint32(i), Flows: 1, QoS: qos, Fan: n, Burst: 4, Window: 8})
		plan.Clients = append(plan.Clients, Client{ID: fmt.Sprint("p", i)})
	}
	return plan
}

func TestLoop_CountsACleanBrokerAsClean(t *testing.T) {
	for _, ws := range []bool{false, true} {
		for qos := range byte(3) {
			t.Run(fmt.Sprintf("ws=%v QoS %d", ws, qos), func(t *testing.T) {
				b := newCrooked(t, nil)
				o, lat := runPlan(t, fan(b.target(ws), 2, 3, qos), 400*time.Millisecond)
				n := o.Tally
				if n.Sent == 0 || n.Delivered != 3*n.Sent || n.Expected != n.Delivered || n.Trouble() != "" || n.Connected != 5 {
					t.Errorf("%+v %v", n, o.Errors)
				}
				if lat.count == 0 || lat.p50 <= 0 {
					t.Errorf("latency %+v", lat)
				}
			})
		}
	}
}

// TestLoop_CountsWhatTheBrokerGetsWrong is the promise of the whole generator:
// a broker that loses, doubles and reorders known messages is found to have done
// exactly that.
func TestLoop_CountsWhatTheBrokerGetsWrong(t *testing.T) {
	for _, ws := range []bool{false, true} {
		t.Run(fmt.Sprint("ws=", ws), func(t *testing.T) {
			// A slow machine needs longer to get everything wrong.
			d := 1500 * time.Millisecond
			for !countsFaults(t, ws, d) && !t.Failed() {
				if d *= 4; d > 2*time.Minute {
					t.Fatal("the broker was not wrong enough")
				}
			}
		})
	}
}

// countsFaults runs against a broker with faults of each kind. It reports whether
// there were some of each.
func countsFaults(t *testing.T, ws bool, d time.Duration) (wrong bool) {
	t.Helper()
	var lost, doubled, swapped, odd atomic.Uint64
	b := newCrooked(t, func(b *crooked) {
		b.forward = func(to *seat, m codec.Publish, send func()) {
			to.count++
			switch {
			case to.count%37 == 0:
				lost.Add(1)
				return
			case to.count%41 == 0:
				doubled.Add(1)
				send()
			case to.count%53 == 0 && m.Topic[2] == '0':
				// Hold it back until the next of the same publisher has gone.
				to.held = append(to.held, send)
				return
			case to.count%101 == 0:
				odd.Add(1)
				other := m
				other.Topic = []byte("t/elsewhere")
				to.write(codec.AppendPublish(nil, codec.V311, "t/elsewhere", 0, false, 0, m.Payload))
			}
			send()
			if m.Topic[2] == '0' {
				for _, late := range to.held {
					swapped.Add(1)
					late()
				}
				to.held = nil
			}
		}
	})
	plan := fan(b.target(ws), 2, 3, 0)
	plan.Stall, plan.Drain = 100*time.Millisecond, 2*time.Second
	o, _ := runPlan(t, plan, d)
	b.mu.Lock()
	held := 0
	for _, s := range b.seats {
		held += len(s.held)
	}
	b.mu.Unlock()
	n := o.Tally
	if n.Lost != lost.Load()+uint64(held) || n.Duplicates != doubled.Load() || n.Disordered != swapped.Load() || n.Strange != odd.Load() {
		t.Errorf("found %+v; the broker lost %d and kept %d, doubled %d, swapped %d, misdirected %d",
			n, lost.Load(), held, doubled.Load(), swapped.Load(), odd.Load())
	}
	wrong = lost.Load() > 0 && doubled.Load() > 0 && swapped.Load() > 0 && odd.Load() > 0
	if n.Delivered+n.Lost != n.Expected || wrong && n.Stalls == 0 {
		t.Errorf("%d delivered and %d lost are not the %d expected; %d stalls", n.Delivered, n.Lost, n.Expected, n.Stalls)
	}
	return wrong
}

// TestLoop_OpenLoopShowsAStallInEveryMessageThatWaited is the correction for
// coordinated omission: one stall of 300 ms at 1,000 messages per second must
// show in about 300 latencies, not in the one message that met it.
func TestLoop_OpenLoopShowsAStallInEveryMessageThatWaited(t *testing.T) {
	var seen atomic.Int64
	b := newCrooked(t, func(b *crooked) {
		b.delay = func(codec.Publish) {
			if seen.Add(1) == 200 {
				time.Sleep(300 * time.Millisecond)
			}
		}
	})
	plan := fan(b.target(false), 1, 1, 0)
	plan.OpenRate = 1000
	plan.Senders[0].Burst, plan.Senders[0].Window = 1, 1
	o, lat := runPlan(t, plan, time.Second)
	if n := o.Tally; n.Sent != 1000 || n.Delivered != 1000 || n.Trouble() != "" {
		t.Fatalf("%+v", n)
	}
	// The 300 messages due during the stall waited 300 ms down to nothing, so of
	// all 1,000 at least a tenth waited above 100 ms.
	if lat.max < 290e6 || lat.p99 < 200e6 {
		t.Errorf("p99 %v, max %v", time.Duration(lat.p99), time.Duration(lat.max))
	}
}

func TestLoop_LargePayloadsArriveWhole(t *testing.T) {
	for _, ws := range []bool{false, true} {
		b := newCrooked(t, nil)
		plan := fan(b.target(ws), 1, 2, 1)
		plan.Payload = 3 << 20
		plan.Senders[0].Burst, plan.Senders[0].Window = 1, 2
		o, _ := runPlan(t, plan, 200*time.Millisecond)
		if n := o.Tally; n.Sent == 0 || n.Delivered != 2*n.Sent || n.Trouble() != "" {
			t.Errorf("ws=%v: %+v %v", ws, n, o.Errors)
		}
	}
}

func TestLoop_TLSCarriesTheSame(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS()
	srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	for _, size := range []int{64, 1 << 20} {
		for _, ws := range []bool{false, true} {
			t.Run(fmt.Sprintf("ws=%v payload %d", ws, size), func(t *testing.T) {
				b := newCrooked(t, func(b *crooked) { b.tls = &tls.Config{Certificates: srv.TLS.Certificates} })
				target := b.target(ws)
				target.TLS = &tls.Config{RootCAs: roots, ServerName: "example.com"}
				plan := fan(target, 2, 3, 1)
				plan.Payload = size
				o, _ := runPlan(t, plan, 200*time.Millisecond)
				if n := o.Tally; n.Sent == 0 || n.Delivered != 3*n.Sent || n.Trouble() != "" || n.Connected != 5 {
					t.Errorf("%+v %v", n, o.Errors)
				}
			})
		}
	}
	t.Run("a certificate that nobody vouches for is refused", func(t *testing.T) {
		b := newCrooked(t, func(b *crooked) { b.tls = &tls.Config{Certificates: srv.TLS.Certificates} })
		plan := fan(b.target(false), 1, 1, 0)
		plan.Target.TLS = &tls.Config{ServerName: "example.com"}
		plan.EnsureDefaults()
		l, err := New(plan, NewClock(), NewShared(plan, 1, nil), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := l.Connect(t.Context(), 0, 2); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%v", err)
		}
	})
}

func TestLoop_ASharedGroupIsJudgedAsAWhole(t *testing.T) {
	b := newCrooked(t, func(b *crooked) {
		b.forward = func(to *seat, m codec.Publish, send func()) {
			// Each message to one of the two members: each sees every other number.
			if _, seq, _ := readHeader(m.Payload); to.id == fmt.Sprint("s", seq%2) {
				send()
			}
		}
	})
	plan := fan(b.target(false), 1, 2, 0)
	plan.Senders[0].Fan = 1
	plan.Streams, plan.Orders = 1, 2
	for i := range 2 {
		plan.Clients[i].StreamBase, plan.Clients[i].Shared, plan.Clients[i].OrderBase = 0, true, uint32(i)
	}
	o, _ := runPlan(t, plan, 100*time.Millisecond)
	if n := o.Tally; n.Sent == 0 || n.Delivered != n.Sent || n.Trouble() != "" {
		t.Errorf("%+v", n)
	}
}

func TestLoop_PingsWithinHalfTheKeepAlive(t *testing.T) {
	var pings atomic.Int64
	b := newCrooked(t, func(b *crooked) { b.pinged = func() { pings.Add(1) } })
	plan := fan(b.target(true), 1, 1, 0)
	plan.Target.KeepAlive = 1
	plan.EnsureDefaults()
	l, err := New(plan, NewClock(), NewShared(plan, 1, nil), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Connect(t.Context(), 0, 2); err != nil {
		t.Fatal(err)
	}
	// Two clients that are silent: each must ping after a half second, twice.
	began := time.Now()
	for pings.Load() < 4 && time.Since(began) < time.Minute {
		if err := l.Step(20 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if n, most := pings.Load(), 2+2*int64(time.Since(began)/(400*time.Millisecond)); n < 4 || n > most {
		t.Errorf("%d pings, at most %d", n, most)
	}
}

func TestLoop_RequestCountsRoundTrips(t *testing.T) {
	b := newCrooked(t, nil)
	plan := &Plan{
		Target: b.target(true), Streams: 2,
		Clients: []Client{
			{ID: "responder", Subs: []codec.Subscription{{Filter: "ask"}}, Flows: 1, StreamBase: 1, Echo: true},
			{ID: "requester", Subs: []codec.Subscription{{Filter: "reply"}}, Flows: 1},
		},
		Flows:   []Flow{{Topic: "ask", Reply: "reply"}},
		Senders: []Sender{{Client: 1, Flows: 1, Fan: 1, Burst: 1, Window: 1}},
	}
	o, lat := runPlan(t, plan, 100*time.Millisecond)
	if n := o.Tally; n.Sent == 0 || n.Delivered != n.Sent || n.Trouble() != "" || uint64(lat.count) != n.Delivered {
		t.Errorf("%+v, %d latencies", n, lat.count)
	}
}

func TestLoop_RefusedConnectionsAreToldNotHidden(t *testing.T) {
	b := newCrooked(t, nil)
	plan := fan(b.target(false), 1, 1, 0)
	plan.EnsureDefaults()
	b.l.Close()
	l, err := New(plan, NewClock(), NewShared(plan, 1, nil), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Connect(t.Context(), 0, 2); err == nil {
		t.Error("nothing listened, and nobody noticed")
	}
	o, err := l.Finish()
	if err != nil || o.Tally.Failed != 2 || len(o.Errors) == 0 {
		t.Errorf("%+v %v", o, err)
	}
}

func TestShared_PartsDoNotOverlap(t *testing.T) {
	plan := &Plan{Senders: make([]Sender, 3), Flows: make([]Flow, 5)}
	s := NewShared(plan, 2, nil)
	n := uint64(0)
	for _, words := range [][]atomic.Uint64{s.Counters[0][:], s.Counters[1][:], s.Arrived[0], s.Arrived[1], s.Seq, s.Forgiven} {
		for i := range words {
			n++
			if words[i].Swap(n) != 0 {
				t.Fatal("a word is used twice")
			}
		}
	}
	if int(n)*8 != SharedSize(plan, 2) {
		t.Errorf("%d words, size %d", n, SharedSize(plan, 2))
	}
}
