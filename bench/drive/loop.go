package drive

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"hashplus/bench/codec"
)

// Loop carries out one Plan. All methods belong to one goroutine, which should
// be locked to its thread.
type Loop struct {
	// Immutable after New.
	plan     *Plan
	target   *Target
	clock    Clock
	sys      *sys
	shared   *Shared
	part     int
	mine     []int // indexes of the clients that belong to this loop
	senderOf []int32
	upgrade  []byte // the WebSocket request; one key serves all connections
	accept   string

	// Owned by the goroutine.
	conns    []*conn
	senders  []sender
	streams  []stream
	orders   []uint64
	pending  int // connections under way
	dirty    []*conn
	awake    []*sender
	ready    []event
	buf      []byte
	scratch  []byte
	payload  []byte
	errors   map[string]int
	arrivals chan *secure // TLS handshakes that have ended
	shaking  int          // those that have not, seen from the loop

	now      int64 // as fresh as the last wait or read
	count    count
	expected uint64
	latency  histogram
	connects histogram

	// The schedule of Drive.
	sending             bool
	start, measure, end int64
	interval            float64 // ns between two bursts of all senders; 0 in a closed loop
	due                 int64   // bursts scheduled so far
	chores              int64   // when housekeeping comes next
	keeping             bool    // some connection has a keep alive
	replay              int64   // when Replay subscribed; 0 outside of it
}

// shakePeek is how often a loop looks for ended TLS handshakes.
const shakePeek = 500 * time.Microsecond

// peek is how often a loop looks for what other processes received.
const peek = 200 * time.Microsecond

// Schedule is when a run's parts begin, in the clock's time.
type Schedule struct {
	Start   int64 `json:"start"`   // publishing, warm-up first
	Measure int64 `json:"measure"` // counting latency
	End     int64 `json:"end"`     // nothing is published from here on
	Stall   bool  `json:"stall"`   // whether clients that are to stall do so at Measure
}

// New prepares a loop for the clients of plan, which must be valid, that belong
// to process part. Call Close after it.
func New(plan *Plan, clock Clock, shared *Shared, part int) (*Loop, error) {
	s, err := newSys()
	if err != nil {
		return nil, err
	}
	l := &Loop{
		plan: plan, target: &plan.Target, clock: clock, sys: s, shared: shared, part: part,
		conns:    make([]*conn, len(plan.Clients)),
		senderOf: make([]int32, len(plan.Clients)),
		senders:  make([]sender, len(plan.Senders)),
		streams:  make([]stream, plan.Streams),
		orders:   make([]uint64, plan.Orders),
		buf:      make([]byte, 256<<10),
		payload:  make([]byte, plan.Payload),
		errors:   map[string]int{},
		arrivals: make(chan *secure, max(plan.Connecting, 1)),
		latency:  histogram{NewHistogram()},
		connects: histogram{NewHistogram()},
		now:      clock.Now(),
		end:      1<<63 - 1,
	}
	for i := range l.payload {
		l.payload[i] = byte('a' + i%26)
	}
	for i := range l.senderOf {
		l.senderOf[i] = -1
	}
	for i := range plan.Clients {
		if plan.Clients[i].Part == part {
			l.mine = append(l.mine, i)
		}
	}
	for i := range plan.Senders {
		l.senders[i] = sender{Sender: &plan.Senders[i], index: int64(i), elsewhere: make([]int64, len(shared.Arrived))}
		l.senderOf[plan.Senders[i].Client] = int32(i)
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	l.accept = codec.Accept(key)
	l.upgrade = codec.AppendUpgrade(nil, plan.Target.Host, plan.Target.Path, key, plan.Target.Header)
	return l, nil
}

// Close ends every connection and frees the loop.
func (l *Loop) Close() {
	for ; l.shaking > 0; l.shaking-- {
		if s := <-l.arrivals; s.err == nil {
			shut(s.fd, true)
		}
	}
	for _, c := range l.conns {
		if c != nil && c.phase < closed {
			c.phase = closed
			if c.fd >= 0 {
				shut(c.fd, true)
			}
		}
	}
	l.sys.close()
}

// Connect opens the clients from ≤ i < to, as far as they belong to this loop,
// and waits until each of them is ready or has failed. It fails only if ctx
// ends or nothing could connect.
func (l *Loop) Connect(ctx context.Context, from, to int) error {
	first, _ := slices.BinarySearch(l.mine, from)
	last, _ := slices.BinarySearch(l.mine, to)
	mine := l.mine[first:last]
	asked := len(mine) > 0
	for len(mine) > 0 || l.pending > 0 {
		for len(mine) > 0 && l.pending < l.plan.Connecting {
			l.dial(mine[0])
			mine = mine[1:]
		}
		if err := l.tick(100 * time.Millisecond); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	for i := range l.senders {
		l.senders[i].conn = l.conns[l.senders[i].Client]
	}
	if l.count.ready == 0 && asked {
		return fmt.Errorf("no client could connect: %s", l.firstError())
	}
	return nil
}

func (l *Loop) firstError() string {
	for e := range l.errors {
		return e
	}
	return "no reason given"
}

// Step keeps the connections alive for about d, without publishing.
func (l *Loop) Step(d time.Duration) error { return l.tick(d) }

// Drive publishes by s, then waits for what is still out. It ends early, and
// still accounts for everything, when ctx ends. It may be called again: latency
// then starts afresh, the tally goes on.
func (l *Loop) Drive(ctx context.Context, s Schedule) error {
	l.start, l.measure, l.end = s.Start, s.Measure, s.End
	l.due = 0
	l.latency.Reset()
	for i := range l.senders {
		l.senders[i].bursts, l.senders[i].owed = 0, 0
	}
	if l.plan.OpenRate > 0 {
		if len(l.senders) == 0 {
			return errors.New("an open loop without senders")
		}
		l.interval = 1e9 / l.plan.OpenRate * float64(l.senders[0].Burst)
	}
	for l.now < l.end && ctx.Err() == nil {
		wait := min(10*time.Millisecond, time.Duration(l.end-l.now))
		if len(l.shared.Arrived) > 1 {
			wait = min(wait, peek)
		}
		if l.now >= l.start {
			if !l.sending {
				l.sending = true
				for i := range l.senders {
					l.senders[i].progress = l.now
					l.wake(&l.senders[i])
				}
				l.settle()
			}
			if s.Stall && l.now >= l.measure {
				s.Stall = false
				l.stallClients()
			}
			if l.allSent() {
				break
			}
			if l.interval > 0 {
				wait = min(wait, time.Duration(l.schedule(l.now)-l.now))
				l.settle()
			}
		} else {
			wait = min(wait, time.Duration(l.start-l.now))
		}
		if err := l.tick(wait); err != nil {
			return err
		}
	}
	l.leftovers(ctx)
	l.sending = false
	return l.drain(ctx)
}

// leftovers sends what an open loop owes: what was due before the end but found
// the loop late, or the connection full. What still cannot leave counts as unsent.
func (l *Loop) leftovers(ctx context.Context) {
	if l.interval == 0 || ctx.Err() != nil {
		return
	}
	l.schedule(l.end - 1)
	l.settle()
	for i := range l.senders {
		if s := &l.senders[i]; s.conn != nil {
			l.count.unsent += uint64(s.owed * s.Burst)
		}
	}
}

// allSent tells whether every sender is one that stops, and has.
func (l *Loop) allSent() bool {
	for i := range l.senders {
		if s := &l.senders[i]; !s.Once || s.conn != nil && s.conn.phase == ready && s.sent < uint64(s.Flows) {
			return false
		}
	}
	return len(l.senders) > 0
}

// drain waits until all is delivered and acknowledged, or nothing more comes.
func (l *Loop) drain(ctx context.Context) error {
	last, quiet := l.count.received, l.now
	for ctx.Err() == nil {
		if l.shared.Total(Delivered) >= l.shared.Total(Expected) && !l.unacked() {
			return nil
		}
		if l.count.received != last {
			last, quiet = l.count.received, l.now
		}
		if l.now-quiet > int64(l.plan.Drain) {
			return nil
		}
		if err := l.tick(5 * time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (l *Loop) unacked() bool {
	for i := range l.senders {
		if c := l.senders[i].conn; c != nil && c.phase == ready && c.unacked > 0 {
			return true
		}
	}
	return false
}

// stallClients makes the clients that are to stall deaf.
func (l *Loop) stallClients() {
	for _, c := range l.conns {
		if c != nil && c.client.Stall && c.phase == ready {
			c.deaf = true
			// It cannot fail for a descriptor that is being watched.
			_ = l.sys.unwatch(c.fd)
		}
	}
}

// tick waits for at most d, handles what happened, and writes what it caused.
func (l *Loop) tick(d time.Duration) error {
	if l.shaking > 0 {
		d = min(d, shakePeek)
		l.greetArrivals()
	}
	var err error
	l.ready, err = l.sys.wait(l.ready[:0], d)
	if err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	l.now = l.clock.Now()
	if len(l.shared.Arrived) > 1 {
		l.collect()
	}
	for _, e := range l.ready {
		c := l.conns[e.token]
		if c == nil || c.phase == closed {
			continue
		}
		if e.writable {
			wasFull := c.full
			c.full = false
			switch {
			case c.phase == dialing:
				l.established(c)
			case c.sent < len(c.out) || wasFull:
				l.touch(c)
			}
			if wasFull && c.sender >= 0 {
				l.wake(&l.senders[c.sender])
			}
		}
		if e.readable && c.phase > dialing {
			l.receive(c, e.hangup)
		}
	}
	l.settle()
	if l.now >= l.chores {
		l.chores = l.now + int64(100*time.Millisecond)
		if l.sending && l.interval == 0 {
			l.forgive(l.now)
		}
		l.keepAlive()
	}
	return nil
}

// settle lets the senders send and writes everything, so that what one tick
// caused leaves in one write per connection.
func (l *Loop) settle() {
	if len(l.awake) > 0 {
		l.now = l.clock.Now()
	}
	// Pumping wakes nobody, so the list does not grow under the loop.
	for _, s := range l.awake {
		l.pump(s)
	}
	l.awake = l.awake[:0]
	for _, c := range l.dirty {
		c.dirty = false
		l.flush(c)
	}
	l.dirty = l.dirty[:0]
	l.publishCounters()
}

// keepAlive pings for the connections that have been silent too long.
func (l *Loop) keepAlive() {
	if !l.keeping {
		return
	}
	for _, c := range l.conns {
		if c != nil && c.phase == ready && !c.deaf && c.keep > 0 && l.now-c.lastSend > c.keep/2 {
			l.scratch = codec.AppendEmpty(l.scratch[:0], codec.PINGREQ)
			l.send(c, l.scratch)
		}
	}
}

func (l *Loop) publishCounters() {
	c := &l.shared.Counters[l.part]
	c[Sent].Store(l.count.sent)
	c[Expected].Store(l.expected)
	c[Delivered].Store(l.count.delivered)
	c[Connected].Store(l.count.connected)
	c[Ready].Store(l.count.ready)
	c[Failed].Store(l.count.failed)
	c[Stalls].Store(l.count.stalls)
	c[Lost].Store(l.count.disconnects)
}
