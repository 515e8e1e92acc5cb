package drive

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
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
	abroad   bool // senders here wait for what other processes receive

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
	l.abroad = plan.OpenRate == 0 && plan.crosses(part)
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

// Step keeps the connections alive for about d, without publishing.
func (l *Loop) Step(d time.Duration) error { return l.tick(d) }

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
	if l.abroad {
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
	c[Publishing].Store(l.count.publishing)
}
