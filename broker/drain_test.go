package broker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"hashplus/broker/wire"
)

// drained runs Drain and returns when, since its beginning, each client got its
// DISCONNECT, in the order in which they did.
func drained(s *sim, clients []*simConn, over time.Duration) (at []time.Duration, reasons []wire.ReasonCode) {
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- s.b.Drain(context.Background(), over) }()
	told := make(map[*simConn]bool)
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				s.t.Error(err)
			}
			running = false
		default:
		}
		s.run()
		for _, c := range clients {
			if reason, ok := c.disconnectReason(); ok && !told[c] {
				told[c] = true
				at = append(at, time.Since(began))
				reasons = append(reasons, reason)
			}
		}
		time.Sleep(time.Millisecond)
	}
	return at, reasons
}

func TestDrain_SpreadsTheDisconnects(t *testing.T) {
	s := newSim(t, 2, Options{})
	var clients []*simConn
	for i := range 100 {
		clients = append(clients, s.join(i%2, fmt.Sprint("c", i), wire.V5, 0))
	}
	const over = 600 * time.Millisecond
	at, reasons := drained(s, clients, over)
	if len(at) != 100 {
		t.Fatalf("%d clients were told", len(at))
	}
	early := 0
	for i, d := range at {
		if d < over/2 {
			early++
		}
		if reasons[i] != wire.ServerShuttingDown {
			t.Errorf("reason %v", reasons[i])
		}
	}
	// The machine may be slow, so only what cannot be too soon is checked.
	if early > 55 || at[99] < over*9/10 {
		t.Errorf("%d were told within the first half of the time, the last after %v", early, at[99])
	}
}

func TestDrain_ServesThoseWhoAreStillThereAndLetsNobodyIn(t *testing.T) {
	s := newSim(t, 1, Options{ServerReference: "other:1883"})
	a, b, c := s.join(0, "a", wire.V5, 0), s.join(0, "b", wire.V5, 0), s.join(0, "c", wire.V5, 0)
	all := []*simConn{a, b, c}
	for _, x := range all {
		x.sub(wire.V5, wire.Subscription{Filter: "q"})
	}
	done := make(chan error, 1)
	go func() { done <- s.b.Drain(context.Background(), time.Minute) }()
	var stays []*simConn
	s.settle(func() bool {
		stays = stays[:0]
		for _, x := range all {
			if !x.gone {
				stays = append(stays, x)
			}
		}
		return len(stays) < 3
	})
	if len(stays) == 2 { // the next one goes after 100 ms
		stays[0].send(pub(wire.V5, "q", "x", 0, 0))
		if n := len(stays[1].publishes(wire.V5)); n != 1 && !stays[0].gone && !stays[1].gone {
			t.Errorf("%d messages came", n)
		}
	}
	late := s.dial(0)
	late.send((&wire.Connect{Version: wire.V5, ClientID: "late", CleanStart: true}).Append(nil))
	got := late.take()
	if len(got) != 1 {
		t.Fatalf("%v in place of CONNACK", got)
	}
	ack, err := wire.DecodeConnack(got[0].h, got[0].body, wire.V5)
	if err != nil || ack.Reason != wire.UseAnotherServer || ack.ServerReference != "other:1883" {
		t.Errorf("CONNACK %+v %v", ack, err)
	}
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			s.run()
			for _, x := range all {
				if !x.gone {
					t.Error("a client is still there")
				}
			}
			return
		default:
			s.run()
			time.Sleep(time.Millisecond)
		}
	}
}

func TestDrain_OfOneClientOrNoneTakesNoTime(t *testing.T) {
	for n := range 2 {
		s := newSim(t, 2, Options{})
		var clients []*simConn
		if n == 1 {
			clients = append(clients, s.join(0, "c", wire.V5, 0))
		}
		began := time.Now()
		drained(s, clients, time.Minute)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%d clients: %v", n, took)
		}
	}
}
