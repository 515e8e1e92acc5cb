//go:build linux && !nopoll

package transport

import (
	"runtime"
	"testing"
	"time"
)

func TestPoller_AnAlarmEndsANapAndIsNeverPutOff(t *testing.T) {
	var p poller
	if err := p.init(); err != nil {
		t.Fatal(err)
	}
	defer p.close()
	// rest naps until the alarm goes off. Signals end a nap, too.
	rest := func() int64 {
		for {
			if n, alarm := p.nap(); alarm {
				return monotonic()
			} else if n > 0 {
				t.Fatalf("%d events", n)
			}
		}
	}
	const ms = int64(time.Millisecond)
	for _, c := range []struct {
		name         string
		first, later int64 // ms from now
		want         int64
	}{
		{"a later time", 20, 3600_000, 20},
		{"an earlier time", 3600_000, 20, 20},
		{"a time that has passed", 3600_000, -1, -1},
	} {
		now := monotonic()
		p.setAlarm(now+c.first*ms, now)
		p.setAlarm(now+c.later*ms, now)
		if at := rest() - now; at < c.want*ms {
			t.Errorf("%s: it went off after %d µs", c.name, at/1000)
		}
	}
	// It is told of beside an event, too, and can be set again.
	now := monotonic()
	p.setAlarm(now+ms, now)
	time.Sleep(10 * time.Millisecond)
	p.wake()
	for seen := 0; seen < 2; {
		n, alarm := p.nap()
		if alarm {
			seen++
		}
		for i := range n {
			if _, _, _, ok := p.event(i); ok {
				t.Error("an event that is nobody's")
			}
			seen++
		}
	}
	now = monotonic()
	p.setAlarm(now+5*ms, now)
	if at := rest() - now; at < 5*ms {
		t.Errorf("it went off after %d µs", at/1000)
	}
}

// A nap keeps a processor from other goroutines, so it must end where nothing
// comes, also after a turn without any event of a socket.
func TestLoop_ANapEnds(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("no loop naps on one processor")
	}
	h := newScripted()
	start(t, Options{Loops: 1}, h)
	l := h.loops[0].(*loop)
	// napped reports whether the loop was at it when it was woken after d.
	napped := func(d time.Duration) (was bool) {
		time.Sleep(d)
		do(t, l, func() { was = l.poller.alarm != 0 })
		return was
	}
	for end := time.Now().Add(10 * time.Second); !napped(0); {
		if time.Now().After(end) {
			t.Fatal("it never naps")
		}
	}
	for end := time.Now().Add(10 * time.Second); napped(3 * napTime); {
		if time.Now().After(end) {
			t.Fatal("it never ends")
		}
	}
}
