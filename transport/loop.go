package transport

import (
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"hashplus/transport/link"
	"hashplus/transport/ws"
)

const readBuffer = 64 << 10

// processStart is the zero of every loop's clock. It never changes.
var processStart = time.Now()

func monotonic() int64 { return int64(time.Since(processStart)) }

// loop is one event loop. Everything in it but the mailbox belongs to the
// goroutine of run.
type loop struct {
	// Immutable after newLoop.
	id      int
	opts    *Options
	server  *Server
	handler link.Handler
	log     *slog.Logger
	naps    bool // see wait

	// Any goroutine.
	box     mailbox
	wakeMu  sync.Mutex   // keeps the poller open while it is woken
	shut    bool         // guarded by wakeMu: the poller is closed
	lagged  atomic.Int64 // when a turn last took too long; 0: never
	longest atomic.Int64 // how long that one took

	// Owned by the loop.
	poller   poller
	wheel    *link.Wheel
	now      int64 // when the turn began
	turned   int64 // when the last turn ended, or the alarm after it went off
	stopping bool  // leave run
	draining bool  // connections that arrive are turned away
	more     bool  // the handler asked for another turn

	slots     []*conn // by the number in their events; nil if free
	freeSlots []uint32
	gen       uint32
	gates     []*gate // by the number in their events, less gateSlots

	ready  []*conn // to be served without an event; nil where one has gone
	dirty  []*conn // to be flushed; nil where one has gone
	moving []*conn
	ended  []*conn // Stream.Closed is due

	spare    []link.Task   // swapped with the mailbox
	own      []link.Task   // sent to itself
	outgoing [][]link.Task // by target
	targets  []int         // those with something outgoing

	pool       bufPool
	freeQueues []*writeQueue
	codec      ws.Codec
	vector     vector
	together   together
	bench      *tlsBench // nil until it is needed
	scratch    []byte
	trim       trimmer
	buf        [readBuffer]byte // what is read stands here while it is looked at
}

func newLoop(id int, s *Server) (*loop, error) {
	l := &loop{id: id, server: s, opts: &s.opts, handler: s.handler, log: s.opts.Logger,
		outgoing: make([][]link.Task, s.opts.Loops)}
	if err := l.poller.init(); err != nil {
		return nil, err
	}
	if err := l.openRing(); err != nil {
		l.poller.close()
		return nil, err
	}
	l.naps = canNap && runtime.GOMAXPROCS(0) > l.opts.Loops
	l.now = monotonic()
	l.turned = l.now
	l.wheel = link.NewWheel(l.now)
	l.trim.Owner = &l.trim
	l.trim.loop = l
	return l, nil
}

// ID implements link.Loop.
func (l *loop) ID() int { return l.id }

// Now implements link.Loop.
func (l *loop) Now() int64 { return l.now }

// Arm implements link.Loop.
func (l *loop) Arm(t *link.Timer, at int64) { l.wheel.Arm(t, at) }

// Disarm implements link.Loop.
func (l *loop) Disarm(t *link.Timer) { l.wheel.Disarm(t) }

// AppendFrame implements link.Loop.
func (l *loop) AppendFrame(dst []byte, f link.Framing, packet []byte, lit int) (frame []byte, at int) {
	if f.Compressed() {
		l.codec.MinSize = int(l.server.deflateMin.Load())
	}
	return l.codec.AppendFrame(dst, f, packet, lit)
}

// Send implements link.Loop.
func (l *loop) Send(to int, t link.Task) {
	if to == l.id {
		l.own = append(l.own, t)
		return
	}
	if len(l.outgoing[to]) == 0 {
		l.targets = append(l.targets, to)
	}
	l.outgoing[to] = append(l.outgoing[to], t)
}

// Post implements link.Loop.
func (l *loop) Post(t link.Task) bool {
	open, wake := l.box.post(t)
	if wake {
		l.wake()
	}
	return open
}

func (l *loop) wake() {
	l.wakeMu.Lock()
	defer l.wakeMu.Unlock()
	if !l.shut {
		l.poller.wake()
	}
}

// run serves the loop until a task sets stopping.
func (l *loop) run() {
	for !l.stopping {
		l.tick(l.wait())
	}
	l.stop()
}

// napTime is how long a loop without work keeps its processor, at least; twice
// as long at most.
const napTime = 4 * time.Millisecond

// wait returns the number of events, and sleeps until there is something to do.
// It sleeps in two stages. To tell the scheduler of a sleep, and to be let in
// again after it, costs as much as a small write; while there is traffic the next
// event is near, so the loop first takes a nap of which nobody is told. That
// keeps a processor from other goroutines, so it is done only where the loops
// leave them one.
func (l *loop) wait() int {
	if l.busy() {
		return l.poller.wait(0)
	}
	if l.naps {
		if n, rested := l.nap(); n > 0 || !rested {
			return n
		}
	} else if n := l.poller.wait(0); n > 0 {
		return n
	}
	// Others on this processor get their turn before the thread goes to sleep.
	runtime.Gosched()
	return l.sleep()
}

// nap waits for events until napTime after the last of them, or until the next
// timer is due. It reports whether it ended without any of these. Its end is an
// alarm that is not put off by events: it goes off, and is set again if there were
// some. So a nap costs no timer of its own, which in a virtual machine is two
// calls of the hypervisor, as dear as a small write.
func (l *loop) nap() (n int, rested bool) {
	end, next := l.now+int64(napTime), false
	if at, ok := l.wheel.Next(); ok && at < end {
		end, next = at, true
	}
	for {
		l.poller.setAlarm(end, l.turned)
		if !l.box.trySleep() {
			return l.poller.wait(0), false
		}
		n, alarm := l.poller.nap()
		l.box.awake()
		if !alarm {
			return n, false
		}
		if l.turned = monotonic(); l.turned >= end {
			return 0, !next
		}
	}
}

// sleep waits for events until the next timer is due, or without limit.
func (l *loop) sleep() int {
	timeout := time.Duration(-1)
	if at, ok := l.wheel.Next(); ok {
		timeout = max(0, time.Duration(at-monotonic()))
	}
	if timeout == 0 || !l.box.trySleep() {
		return l.poller.wait(0)
	}
	n := l.poller.wait(timeout)
	l.box.awake()
	return n
}

// busy reports whether the next tick has work that no event announces.
func (l *loop) busy() bool {
	return l.more || len(l.ready) > 0 || len(l.dirty) > 0 || len(l.ended) > 0 || len(l.moving) > 0 ||
		len(l.own) > 0 || l.box.filled.Load()
}

// tick is one turn of the loop, with n events to serve.
func (l *loop) tick(n int) {
	l.now = monotonic()

	// 1. Streams that ended in the last tick hear of it first, so that what
	// follows no longer finds them.
	l.tellEnded()

	// 2. Events, then connections with leftovers: new input is what most of the
	// rest of the tick is about. Events come first, since serving a leftover
	// may close a connection whose event was fetched already.
	for i := 0; i < n; {
		if n-i >= minTogether && l.together.ring.isOpen() {
			i = l.readTogether(i, n)
			continue
		}
		if slot, gen, what, ok := l.poller.event(i); ok {
			l.event(slot, gen, what)
		}
		i++
	}
	l.serveReady()

	// 3. Tasks of other loops after our own input: an answer that they carry
	// joins what the input caused in one write.
	l.runTasks()

	// 4. Timers after both, since what came in may have put them off.
	l.wheel.Advance(l.now)

	// 5. The handler sees everything that happened in this tick.
	l.more = l.callTick()

	// 6. Moves and posts leave before the writes: while we are in system
	// calls the other loops wake up and work.
	l.moveAway()
	l.flushPosts()

	// 7. One write per connection for all that was queued since 1.
	l.flushDirty()

	// 8. What came in during all of that has waited for so long.
	l.turned = monotonic()
	l.noteTurn(l.turned - l.now)
}

func (l *loop) event(slot, gen uint32, what readiness) {
	if uint(slot) >= uint(len(l.slots)) {
		if slot >= gateSlots && l.gates[slot-gateSlots] != nil {
			l.gates[slot-gateSlots].accept()
		}
		return
	}
	// A connection that has gone may have left its descriptor's number and its
	// slot to another, while events of it were still to be looked at.
	if c := l.slots[slot]; c != nil && c.gen == gen {
		c.event(what)
	}
}

func (l *loop) serveReady() {
	// Only those that are there now: one that asks again waits for the next
	// tick, so that it does not hold up the others.
	for i := range len(l.ready) {
		if c := l.ready[i]; c != nil {
			l.ready[i] = nil
			c.readyAt = -1
			c.serve()
		}
	}
	l.ready = compact(l.ready, func(c *conn, i int32) { c.readyAt = i })
}

func (l *loop) runTasks() {
	tasks := l.box.take(l.spare[:0])
	for i, t := range tasks {
		tasks[i] = nil
		l.runTask(t)
	}
	l.spare = tasks[:0]
	// Tasks that these send to the same loop run in the next tick.
	for i := range len(l.own) {
		t := l.own[i]
		l.own[i] = nil
		l.runTask(t)
	}
	n := 0
	for _, t := range l.own {
		if t != nil {
			l.own[n] = t
			n++
		}
	}
	clear(l.own[n:])
	l.own = l.own[:n]
}

func (l *loop) runTask(t link.Task) {
	defer l.recovered("task")
	t.Run(l)
}

func (l *loop) callTick() bool {
	defer l.recovered("tick")
	return l.handler.Tick(l)
}

// recovered is deferred around calls of code that is not ours.
func (l *loop) recovered(what string) {
	if r := recover(); r != nil {
		l.log.Error("panic in "+what, "loop", l.id, "panic", r, "stack", string(debug.Stack()))
	}
}

func (l *loop) tellEnded() {
	// Closed may end further connections; those hear of it in the next tick.
	for i := range len(l.ended) {
		c := l.ended[i]
		l.ended[i] = nil
		c.tellClosed()
	}
	l.ended = compact(l.ended, func(*conn, int32) {})
}

func (l *loop) flushPosts() {
	for _, to := range l.targets {
		tasks := l.outgoing[to]
		target := l.server.loops[to]
		open, wake := target.box.post(tasks...)
		if wake {
			target.wake()
		}
		if !open {
			discard(tasks)
		}
		clear(tasks)
		l.outgoing[to] = tasks[:0]
	}
	l.targets = l.targets[:0]
}

func (l *loop) flushDirty() {
	if len(l.dirty) >= minTogether && l.together.ring.isOpen() {
		l.flushTogether()
	}
	for i := range len(l.dirty) {
		if c := l.dirty[i]; c != nil {
			l.dirty[i] = nil
			c.dirtyAt = -1
			c.flush()
		}
	}
	l.dirty = compact(l.dirty, func(c *conn, i int32) { c.dirtyAt = i })
}

// shutdown begins to close every connection.
func (l *loop) shutdown(code link.CloseCode, reason string) {
	l.draining = true
	for _, c := range l.slots {
		if c != nil {
			c.turnAway(code, reason)
		}
	}
}

// stop ends the loop: nothing can be posted to it any more, and what it still
// has is closed at once.
func (l *loop) stop() {
	discard(l.box.close())
	discard(l.own)
	for _, c := range l.slots {
		if c != nil {
			c.abort(ErrServerClosed)
		}
	}
	for len(l.ended) > 0 {
		l.tellEnded()
	}
	for _, tasks := range l.outgoing {
		discard(tasks)
	}
	l.wakeMu.Lock()
	defer l.wakeMu.Unlock()
	l.shut = true
	l.together.ring.close()
	l.poller.close()
}

// discarder is a task that holds something to be freed if it cannot run.
type discarder interface{ discard() }

func discard(tasks []link.Task) {
	for _, t := range tasks {
		if d, ok := t.(discarder); ok {
			d.discard()
		}
	}
}
