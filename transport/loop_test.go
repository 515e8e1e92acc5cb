package transport

import (
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hashplus/transport/link"
)

func TestLoop_PostKeepsTheOrderOfEachPoster(t *testing.T) {
	h := newScripted()
	start(t, Options{Loops: 2}, h)
	const posters, each = 8, 2000
	var last [posters]int // owned by loop 0
	var done sync.WaitGroup
	done.Add(posters * each)
	for p := range posters {
		go func() {
			for i := range each {
				h.loops[0].Post(link.TaskFunc(func(l link.Loop) {
					defer done.Done()
					if l.ID() != 0 || last[p] != i {
						t.Errorf("poster %d: task %d after %d, on loop %d", p, i, last[p], l.ID())
					}
					last[p] = i + 1
				}))
			}
		}()
	}
	done.Wait()
}

// Two loops that send to each other and to themselves lose nothing, keep the
// order and never miss a wake-up.
func TestLoop_SendKeepsOrderAndWakes(t *testing.T) {
	h := newScripted()
	start(t, Options{Loops: 2}, h)
	const rounds = 3000
	var seen int
	done := make(chan struct{})
	var volley func(l link.Loop)
	volley = func(l link.Loop) {
		if seen++; seen == rounds {
			close(done)
			return
		}
		to := seen / 3 % 2 // itself, too
		for i := range 3 {
			task := link.TaskFunc(func(link.Loop) {})
			if i == 2 {
				task = volley
			}
			l.Send(to, task)
		}
	}
	h.loops[0].Post(link.TaskFunc(volley))
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("a task was lost, or a loop overslept")
	}
}

func TestLoop_TimersExpireOnTime(t *testing.T) {
	h := newScripted()
	start(t, Options{Loops: 1}, h)
	late := make(chan time.Duration, 3)
	for _, after := range []int64{1e6, 35e6, 80e6} {
		do(t, h.loops[0], func() {
			l := h.loops[0]
			e := &expirer{}
			e.timer.Owner = e
			at := l.Now() + after
			e.expire = func() { late <- time.Duration(monotonic() - at) }
			l.Arm(&e.timer, at)
		})
	}
	for range 3 {
		if d := <-late; d < 0 || d > 10*time.Second {
			t.Errorf("%v late", d)
		}
	}
}

type expirer struct {
	timer  link.Timer
	expire func()
}

func (e *expirer) Expire(*link.Timer) { e.expire() }

func TestLoop_PanicInATaskOrTickIsLoggedAndTheLoopGoesOn(t *testing.T) {
	h := newScripted()
	var log quiet
	var asked atomic.Bool
	h.tick = func(link.Loop) bool {
		if asked.CompareAndSwap(true, false) {
			panic("in Tick")
		}
		return false
	}
	start(t, Options{Loops: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))}, h)
	h.loops[0].Post(link.TaskFunc(func(link.Loop) { panic("in a task") }))
	asked.Store(true)
	do(t, h.loops[0], func() {})
	do(t, h.loops[0], func() {})
	if s := log.String(); !strings.Contains(s, "in a task") || !strings.Contains(s, "in Tick") {
		t.Errorf("log: %s", s)
	}
}

func TestLoop_TickIsCalledAgainWhileThereIsMore(t *testing.T) {
	h := newScripted()
	var left atomic.Int32
	done := make(chan struct{})
	h.tick = func(link.Loop) bool {
		if n := left.Add(-1); n == 0 {
			close(done)
		} else if n > 0 {
			return true
		}
		return false
	}
	start(t, Options{Loops: 1}, h)
	left.Store(1000)
	h.loops[0].Post(link.TaskFunc(func(link.Loop) {}))
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the loop went to sleep")
	}
}

func TestLoop_FramesAsAConnectionNeedsThem(t *testing.T) {
	h := newScripted()
	start(t, Options{Loops: 1}, h)
	packet := []byte("\x32\x30\x00\x05topic\x00\x00" + strings.Repeat("payload", 100))
	do(t, h.loops[0], func() {
		for _, f := range []link.Framing{link.Raw, link.WebSocket, link.Deflate + 15, link.Deflate + 9} {
			frame, at := h.loops[0].AppendFrame([]byte("before"), f, packet, 11)
			if string(frame[at:at+11]) != string(packet[:11]) {
				t.Errorf("framing %d: the first bytes are not at %d of %q", f, at, frame)
			}
			if f.Compressed() != (len(frame) < len(packet)) {
				t.Errorf("framing %d: %d bytes for %d", f, len(frame), len(packet))
			}
		}
	})
}

// An event that was fetched for a connection that has gone since must not reach
// the one that has its slot now.
func TestLoop_IgnoresEventsOfAnEarlierGeneration(t *testing.T) {
	h := newScripted()
	s := start(t, Options{Loops: 1}, h)
	connectListener(t, s, Listener{Network: "tcp"})
	first := next(t, h).conn.(*conn)
	slot, gen := first.slot, first.gen
	do(t, h.loops[0], first.Abort)
	waitFor(t, "the connection goes", func() bool { return s.Conns() == 0 })
	connectListener(t, s, Listener{Network: "tcp"})
	second := next(t, h).conn.(*conn)
	do(t, h.loops[0], func() {
		l := h.loops[0].(*loop)
		if second.slot != slot || second.gen == gen {
			t.Fatalf("slot %d generation %d follows slot %d generation %d", second.slot, second.gen, slot, gen)
		}
		l.event(slot, gen, canRead|peerGone)
		if second.has(ending) {
			t.Error("the event reached the wrong connection")
		}
		l.event(second.slot, second.gen, canRead|peerGone)
		if !second.has(ending) {
			t.Error("an event of its own did not reach it")
		}
		l.event(slot+100, gen, canRead) // no such slot
	})
}
