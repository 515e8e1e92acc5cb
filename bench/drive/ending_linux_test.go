package drive

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"hashplus/bench/codec"
)

// TestLoop_AnInterruptedRunWaitsForWhatIsOut: what is on its way when somebody
// ends a run is not lost.
func TestLoop_AnInterruptedRunWaitsForWhatIsOut(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	b := newCrooked(t, func(b *crooked) {
		b.delay = func(codec.Publish) {
			stop()
			time.Sleep(20 * time.Millisecond)
		}
	})
	began := time.Now()
	o, _ := runPlanUntil(ctx, t, fan(b.target(false), 2, 3, 1), time.Hour)
	if n := o.Tally; n.Sent == 0 || n.Delivered != 3*n.Sent || n.Trouble() != "" {
		t.Errorf("%+v", n)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("ended after %v", d)
	}
}

// TestLoop_NobodyWaitsLongForALostMessageAfterAnInterruption: no longer than for
// one drain, however much goes on coming.
func TestLoop_NobodyWaitsLongForALostMessageAfterAnInterruption(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	b := newCrooked(t, func(b *crooked) { b.forward = func(*seat, codec.Publish, func()) { stop() } })
	plan := fan(b.target(false), 1, 1, 0)
	plan.Drain = 200 * time.Millisecond
	began := time.Now()
	o, _ := runPlanUntil(ctx, t, plan, time.Hour)
	if n := o.Tally; n.Sent == 0 || n.Lost != n.Sent {
		t.Errorf("%+v", n)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("ended after %v", d)
	}
}

func TestLoop_EndsWhenNoPublisherIsConnectedAnyMore(t *testing.T) {
	b := newCrooked(t, func(b *crooked) { b.delay = func(codec.Publish) { go b.hangUp() } })
	began := time.Now()
	o, _ := runPlan(t, fan(b.target(true), 2, 3, 0), time.Hour)
	if n := o.Tally; n.Sent == 0 || n.Disconnects != 5 {
		t.Errorf("%+v", n)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("ended after %v", d)
	}
}

func TestLoop_ABurstAboveTheReceiveMaximumIsToldNotWaitedFor(t *testing.T) {
	b := newCrooked(t, nil)
	l := connectPlan(t, fan(b.target(false), 1, 1, 1)) // bursts of 4
	l.senders[0].conn.quota = 4
	if err := l.appoint(); err != nil {
		t.Error(err)
	}
	if o, err := l.Finish(); err != nil || o.Quota != 4 {
		t.Errorf("%+v %v", o, err)
	}
	l.senders[0].conn.quota = 3
	if err := l.appoint(); err == nil || !strings.Contains(err.Error(), "Receive Maximum 3") {
		t.Errorf("%v", err)
	}
}

// TestLoop_ConnectsOnSchedule: at a rate, a CONNACK's latency counts from when
// the connection was due, so a broker that takes one after the other shows it.
func TestLoop_ConnectsOnSchedule(t *testing.T) {
	const n = 20
	clients := func(target Target) *Plan {
		plan := &Plan{Target: target}
		for i := range n {
			plan.Clients = append(plan.Clients, Client{ID: fmt.Sprint(i)})
		}
		return plan
	}
	t.Run("no faster than the rate", func(t *testing.T) {
		b := newCrooked(t, nil)
		plan := clients(b.target(false))
		plan.DialRate = 200
		began := time.Now()
		connectPlan(t, plan)
		if d := time.Since(began); d < 19*5*time.Millisecond {
			t.Errorf("%d connections at 200/s took %v", n, d)
		}
	})
	t.Run("late ones wait in their latency", func(t *testing.T) {
		var one sync.Mutex
		b := newCrooked(t, func(b *crooked) {
			b.greeted = func() {
				one.Lock()
				defer one.Unlock()
				time.Sleep(10 * time.Millisecond)
			}
		})
		plan := clients(b.target(false))
		plan.DialRate, plan.Connecting = 1000, 1
		l := connectPlan(t, plan)
		// The last was due after 19 ms and came after 200.
		if max := time.Duration(l.connects.Max()); max < 150*time.Millisecond {
			t.Errorf("the last CONNACK took %v", max)
		}
	})
}

func TestLoop_ConnectionsSpreadOverSourceAddresses(t *testing.T) {
	b := newCrooked(t, nil)
	plan := fan(b.target(false), 2, 3, 0)
	plan.SourceSize = 2
	connectPlan(t, plan)
	from := map[string]int{}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.rooms {
		host, _, _ := strings.Cut(c.RemoteAddr().String(), ":")
		from[host]++
	}
	if fmt.Sprint(from) != "map[127.0.0.1:2 127.0.0.2:2 127.0.0.3:1]" {
		t.Errorf("%v", from)
	}
}

func TestPlan_CrossesWhereReceiversAreElsewhere(t *testing.T) {
	plan := fan(Target{}, 2, 3, 0) // clients 0 to 2 receive, 3 and 4 send
	if plan.crosses(0) {
		t.Error("all is in one process")
	}
	plan.Clients[1].Part = 1
	if !plan.crosses(0) || plan.crosses(1) {
		t.Errorf("a receiver is in process 1, all senders in 0: %v, %v", plan.crosses(0), plan.crosses(1))
	}
	plan.Clients[4].Part = 1
	if !plan.crosses(0) || !plan.crosses(1) {
		t.Error("each has a sender whose receivers are partly in the other")
	}
}

// TestLoop_LateAcknowledgementsAreNoMistakeOfTheBroker: they come after the
// publisher has given up, for messages that it did send.
func TestLoop_LateAcknowledgementsAreNoMistakeOfTheBroker(t *testing.T) {
	// A loop looks for stalls ten times a second.
	b := newCrooked(t, func(b *crooked) { b.delay = func(codec.Publish) { time.Sleep(300 * time.Millisecond) } })
	plan := fan(b.target(false), 1, 1, 1)
	plan.Stall = 20 * time.Millisecond
	plan.Senders[0].Burst, plan.Senders[0].Window = 1, 1
	o, _ := runPlan(t, plan, time.Second)
	if n := o.Tally; n.Stalls == 0 || n.StrayAcks != 0 || n.Lost != 0 || n.Delivered != n.Sent {
		t.Errorf("%+v", n)
	}
}
