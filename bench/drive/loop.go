package drive

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"hashplus/bench/codec"
)

// Loop carries out one Plan. All methods belong to one goroutine, which should
// be locked to its thread.
type Loop struct {
	// Immutable after New.
	plan         *Plan
	target       *Target
	clock        Clock
	sys          *sys
	counters     *Counters
	senderOf     []int32
	upgrade      []byte // the WebSocket request; one key serves all connections
	accept       string
	SourceOffset int // how many clients the workers before this one have

	// Owned by the goroutine.
	conns    []*conn
	senders  []sender
	streams  []stream
	orders   []uint64
	seq      []uint64 // per flow: messages published
	forgiven []uint64 // per flow: below it nobody waits any more
	pending  int      // connections under way
	dirty    []*conn
	awake    []*sender
	ready    []event
	buf      []byte
	scratch  []byte
	payload  []byte
	errors   map[string]int

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
}

// Schedule is when a run's parts begin, in the clock's time.
type Schedule struct {
	Start   int64 `json:"start"`   // publishing, warm-up first
	Measure int64 `json:"measure"` // counting latency
	End     int64 `json:"end"`     // nothing is published from here on
}

// New prepares a loop for plan, which must be valid. Call Close after it.
func New(plan *Plan, clock Clock, counters *Counters) (*Loop, error) {
	s, err := newSys()
	if err != nil {
		return nil, err
	}
	l := &Loop{
		plan: plan, target: &plan.Target, clock: clock, sys: s, counters: counters,
		conns:    make([]*conn, len(plan.Clients)),
		senderOf: make([]int32, len(plan.Clients)),
		senders:  make([]sender, len(plan.Senders)),
		streams:  make([]stream, plan.Streams),
		orders:   make([]uint64, plan.Orders),
		seq:      make([]uint64, len(plan.Flows)),
		forgiven: make([]uint64, len(plan.Flows)),
		buf:      make([]byte, 256<<10),
		payload:  make([]byte, plan.Payload),
		errors:   map[string]int{},
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
	for i := range plan.Senders {
		l.senders[i] = sender{Sender: &plan.Senders[i], index: int64(i)}
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
	for _, c := range l.conns {
		if c != nil && c.phase < closed {
			c.phase = closed
			shut(c.fd, true)
		}
	}
	l.sys.close()
}

// Connect opens the clients from ≤ i < to and waits until each of them is
// ready or has failed. It fails only if ctx ends or nothing could connect.
func (l *Loop) Connect(ctx context.Context, from, to int) error {
	next := from
	for next < to || l.pending > 0 {
		for next < to && l.pending < l.plan.Connecting {
			l.dial(next)
			next++
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
	if l.count.ready == 0 && to > from {
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
// still accounts for everything, when ctx ends.
func (l *Loop) Drive(ctx context.Context, s Schedule) error {
	l.start, l.measure, l.end = s.Start, s.Measure, s.End
	if l.plan.OpenRate > 0 {
		if len(l.senders) == 0 {
			return errors.New("an open loop without senders")
		}
		l.interval = 1e9 / l.plan.OpenRate * float64(l.senders[0].Burst)
	}
	stalled := false
	for l.now < l.end && ctx.Err() == nil {
		wait := min(10*time.Millisecond, time.Duration(l.end-l.now))
		if l.now >= l.start {
			if !l.sending {
				l.sending = true
				for i := range l.senders {
					l.senders[i].progress = l.now
					l.wake(&l.senders[i])
				}
				l.settle()
			}
			if !stalled && l.now >= l.measure {
				stalled = true
				l.stallClients()
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
	l.sending = false
	return l.drain(ctx)
}

// drain waits until all is delivered and acknowledged, or nothing more comes.
func (l *Loop) drain(ctx context.Context) error {
	last, quiet := l.count.received, l.now
	for ctx.Err() == nil {
		if l.count.delivered >= l.expected && !l.unacked() {
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
	var err error
	l.ready, err = l.sys.wait(l.ready[:0], d)
	if err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	l.now = l.clock.Now()
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
			case c.sent < len(c.out):
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
	if l.target.KeepAlive == 0 {
		return
	}
	limit := int64(l.target.KeepAlive) * int64(time.Second) / 2
	for _, c := range l.conns {
		if c != nil && c.phase == ready && !c.deaf && l.now-c.lastSend > limit {
			l.scratch = codec.AppendEmpty(l.scratch[:0], codec.PINGREQ)
			l.send(c, l.scratch)
		}
	}
}

func (l *Loop) publishCounters() {
	c := l.counters
	c[Sent].Store(l.count.sent)
	c[Delivered].Store(l.count.delivered)
	c[Connected].Store(l.count.connected)
	c[Ready].Store(l.count.ready)
	c[Failed].Store(l.count.failed)
	c[Stalls].Store(l.count.stalls)
	c[Duplicates].Store(l.count.duplicates)
	c[Received].Store(l.count.received)
}

// Finish counts what was lost and hands the results over.
func (l *Loop) Finish() (*Outcome, error) {
	o := &Outcome{Errors: l.errors}
	n := &l.count
	o.Tally = Tally{
		Sent: n.sent, Expected: l.expected, Delivered: n.delivered, Duplicates: n.duplicates, Flagged: n.flagged,
		Disordered: n.disordered, Strange: n.strange, Refused: n.refused, StrayAcks: n.strayAcks, Stalls: n.stalls,
		Connected: n.connected, Failed: n.failed, Disconnects: n.disconnects, Lost: l.lost(),
	}
	var err error
	if o.Latency, err = l.latency.Encode(hdrVersion); err != nil {
		return nil, err
	}
	o.Connects, err = l.connects.Encode(hdrVersion)
	return o, err
}

// lost sums the gaps of all streams, each of them once.
func (l *Loop) lost() (n uint64) {
	seen := make([]bool, len(l.streams))
	for i := range l.plan.Clients {
		cl := &l.plan.Clients[i]
		if cl.Echo || cl.Stall {
			continue
		}
		for k := range cl.Flows {
			if at := cl.StreamBase + k; !seen[at] {
				seen[at] = true
				n += l.streams[at].missing(l.seq[cl.FlowBase+k])
			}
		}
	}
	return n
}
