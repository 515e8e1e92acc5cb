package link

import (
	"math/rand/v2"
	"testing"
)

type expiry struct {
	timer *Timer
	at    int64 // the wheel's clock at the call
}

// recorder is an Expirer that notes its calls.
type recorder struct {
	now    int64
	calls  []expiry
	expire func(t *Timer)
}

func (r *recorder) Expire(t *Timer) {
	r.calls = append(r.calls, expiry{t, r.now})
	if r.expire != nil {
		r.expire(t)
	}
}

func (r *recorder) advance(w *Wheel, now int64) {
	r.now = now
	w.Advance(now)
}

func TestWheel_ExpiresNeverEarlyAndAtMostOneTickLate(t *testing.T) {
	const ms = 1_000_000
	for _, start := range []int64{0, 7*ms + 3, 63 * Resolution, 4095 * Resolution, 1<<40 + 11} {
		for _, delay := range []int64{1, Resolution - 1, Resolution, 63 * Resolution, 64 * Resolution, 65 * Resolution,
			4095 * Resolution, 4096 * Resolution, 4097*Resolution + 1, 262144 * Resolution, wheelSpan*Resolution + 5} {
			w := NewWheel(start)
			r := &recorder{}
			timer := &Timer{Owner: r}
			at := start + delay
			w.Arm(timer, at)
			// Follow the wheel's own idea of when to wake, as a loop does.
			for wakes := 0; timer.Armed(); wakes++ {
				next, ok := w.Next()
				if !ok || wakes > 200 {
					t.Fatalf("start %d delay %d: armed, but Next = %v, %v after %d wake-ups", start, delay, next, ok, wakes)
				}
				r.advance(w, next)
			}
			if len(r.calls) != 1 {
				t.Fatalf("start %d delay %d: expired %d times", start, delay, len(r.calls))
			}
			if late := r.calls[0].at - at; late < 0 || late >= Resolution {
				t.Errorf("start %d delay %d: expired %d ns after its time", start, delay, late)
			}
		}
	}
}

func TestWheel_AgreesWithAPlainList(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	w := NewWheel(0)
	r := &recorder{}
	timers := make([]Timer, 300)
	want := map[*Timer]int64{}
	for i := range timers {
		timers[i].Owner = r
	}
	var now int64
	for range 20_000 {
		switch timer := &timers[rng.IntN(len(timers))]; rng.IntN(4) {
		case 0, 1:
			at := now + rng.Int64N(1<<rng.IntN(48)+1) - 1000
			w.Arm(timer, at)
			want[timer] = at
		case 2:
			w.Disarm(timer)
			delete(want, timer)
		case 3:
			now += rng.Int64N(1<<rng.IntN(42) + 1)
			r.calls = r.calls[:0]
			r.advance(w, now)
			for _, call := range r.calls {
				at, ok := want[call.timer]
				if !ok || at > now {
					t.Fatalf("at %d: expired a timer for %d (armed: %v)", now, at, ok)
				}
				delete(want, call.timer)
			}
			for _, at := range want {
				if at <= now-2*Resolution {
					t.Fatalf("at %d: a timer for %d did not expire", now, at)
				}
			}
		}
		for i := range timers {
			if _, ok := want[&timers[i]]; ok != timers[i].Armed() {
				t.Fatalf("Armed = %v, want %v", !ok, ok)
			}
		}
	}
}

func TestWheel_OwnerMayArmAgainAndCancelOthers(t *testing.T) {
	w := NewWheel(0)
	r := &recorder{}
	first, second, third := &Timer{Owner: r}, &Timer{Owner: r}, &Timer{Owner: r}
	r.expire = func(timer *Timer) {
		if timer == first {
			w.Disarm(second)
			w.Arm(first, 0) // has passed: must wait for the next tick, not spin
		}
	}
	for _, timer := range []*Timer{first, second, third} {
		w.Arm(timer, Resolution)
	}
	r.advance(w, Resolution)
	if len(r.calls) != 2 || r.calls[0].timer != first || r.calls[1].timer != third {
		t.Fatalf("calls: %+v", r.calls)
	}
	r.advance(w, 2*Resolution)
	if len(r.calls) != 3 || r.calls[2].timer != first {
		t.Fatalf("calls: %+v", r.calls)
	}
}

func TestWheel_NextSkipsIdleTime(t *testing.T) {
	w := NewWheel(0)
	if at, ok := w.Next(); ok {
		t.Fatalf("empty wheel: Next = %d", at)
	}
	r := &recorder{}
	timer := &Timer{Owner: r}
	w.Arm(timer, 25_000_000_000)
	wakes := 0
	for timer.Armed() {
		at, _ := w.Next()
		r.advance(w, at)
		wakes++
	}
	if wakes > wheelLevels {
		t.Errorf("%d wake-ups for one timer, want at most one a level", wakes)
	}
}

func TestWheel_ArmAllocatesNothing(t *testing.T) {
	w := NewWheel(0)
	r := &recorder{}
	timer := &Timer{Owner: r}
	var now int64
	if n := testing.AllocsPerRun(100, func() {
		now += 12_345_678
		w.Arm(timer, now+25_000_000_000)
		w.Advance(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWheel_Arm(b *testing.B) {
	w := NewWheel(0)
	timer := &Timer{Owner: &recorder{}}
	for i := 0; b.Loop(); i++ {
		w.Arm(timer, int64(i)*1000+25_000_000_000)
	}
}
