package broker

import (
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"testing"

	"hashplus/broker/wire"
	"hashplus/transport/link"
)

// sim runs a broker on loops that are function calls: one goroutine, a clock
// that only the test moves, connections that are byte slices. What a test does
// it does in the same order every time.
type sim struct {
	t     testing.TB
	b     *Broker
	loops []*simLoop
	now   int64
	// survives has panics end what is called and no more, as in a transport. It
	// counts them.
	survives bool
	panics   int
}

// guard calls f.
func (s *sim) guard(f func()) {
	if s.survives {
		defer func() {
			if recover() != nil {
				s.panics++
			}
		}()
	}
	f()
}

type simLoop struct {
	s     *sim
	id    int
	wheel *link.Wheel
	tasks []link.Task // sent by loops
	busy  []*simConn  // that have something to do

	mu     sync.Mutex
	posted []link.Task
}

func (l *simLoop) ID() int                  { return l.id }
func (l *simLoop) Now() int64               { return l.s.now }
func (l *simLoop) Send(to int, t link.Task) { l.s.loops[to].tasks = append(l.s.loops[to].tasks, t) }

// Post may be called by an authenticator's goroutine; all else is the test's.
func (l *simLoop) Post(t link.Task) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posted = append(l.posted, t)
	return true
}

// collect puts what was posted behind what was sent.
func (l *simLoop) collect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tasks = append(l.tasks, l.posted...)
	l.posted = nil
}

// mail empties the mailbox.
func (l *simLoop) mail() []link.Task {
	l.collect()
	tasks := l.tasks
	l.tasks = nil
	return tasks
}

func (l *simLoop) Arm(t *link.Timer, at int64) {
	l.wheel.Arm(t, at)
}
func (l *simLoop) Disarm(t *link.Timer) { l.wheel.Disarm(t) }
func (l *simLoop) AppendFrame(dst []byte, _ link.Framing, packet []byte, _ int) ([]byte, int) {
	return append(dst, packet...), len(dst)
}

// newSim starts a broker with o on the given number of loops.
func newSim(t testing.TB, loops int, o Options) *sim {
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.SysInterval == 0 {
		o.SysInterval = -1
	}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s := &sim{t: t, b: b, now: second}
	var ls []link.Loop
	for i := range loops {
		l := &simLoop{s: s, id: i, wheel: link.NewWheel(s.now)}
		s.loops = append(s.loops, l)
		ls = append(ls, l)
	}
	b.Start(ls)
	s.run()
	return s
}

// turn gives every loop one turn and reports whether there is more to do.
func (s *sim) turn() (more bool) {
	for _, l := range s.loops {
		busy := l.busy
		l.busy = nil
		for _, c := range busy {
			c.listed = false
			more = c.serve() || more
		}
		tasks := l.mail()
		for _, t := range tasks {
			s.guard(func() { t.Run(l) })
		}
		s.guard(func() { more = s.b.Tick(l) || more })
		more = more || len(tasks) > 0
		for _, c := range append(busy, l.busy...) {
			more = c.depart() || more
		}
	}
	for _, l := range s.loops { // a tick may have sent to a loop that was before it
		more = more || len(l.tasks) > 0
	}
	return more
}

// run turns the loops until nothing is left to do.
func (s *sim) run() {
	for i := 0; s.turn(); i++ {
		if i > 1_000_000 {
			s.t.Fatal("the loops never come to rest")
		}
	}
}

// advance moves the clock by d seconds, a quarter at a time.
func (s *sim) advance(seconds float64) {
	for end := s.now + int64(seconds*1e9); s.now < end; {
		s.now = min(s.now+second/4, end)
		for _, l := range s.loops {
			l.wheel.Advance(s.now)
		}
		s.run()
	}
}

// simConn is a connection of a sim. It takes what is written as far as room
// allows.
type simConn struct {
	s      *sim
	l      *simLoop
	stream link.Stream
	info   link.Info
	in     []byte
	out    []byte // what the peer has read
	queue  []byte // the write queue
	deaf   bool   // the peer reads nothing
	below  int
	paused bool
	moveTo int
	closed bool // by us
	gone   bool // Closed was called
	code   link.CloseCode
	reason string
	pong   int64
	listed bool // in its loop's busy
	shared int  // payloads that went by reference
}

func (c *simConn) wake() {
	if !c.listed && !c.gone {
		c.listed = true
		c.l.busy = append(c.l.busy, c)
	}
}

// dial opens a connection on loop number loop.
func (s *sim) dial(loop int) *simConn {
	c := &simConn{s: s, l: s.loops[loop], moveTo: -1, below: -1}
	c.info = link.Info{Listener: "sim", Transport: "tcp", Remote: netip.MustParseAddrPort("192.0.2.1:1")}
	c.stream = s.b.Open(c)
	return c
}

func (c *simConn) Loop() link.Loop            { return c.l }
func (c *simConn) Info() *link.Info           { return &c.info }
func (c *simConn) Handshake() *link.Handshake { return nil }
func (c *simConn) Admit()                     {}
func (c *simConn) Framing() link.Framing      { return link.Raw }
func (c *simConn) Reserve(n int) []byte {
	if c.closed || c.gone {
		return make([]byte, n)
	}
	c.wake()
	at := len(c.queue)
	if cap(c.queue)-at >= n {
		c.queue = c.queue[:at+n]
	} else {
		c.queue = append(c.queue, make([]byte, n)...)
	}
	return c.queue[at:]
}
func (c *simConn) WriteShared(p []byte, s link.Shared) {
	c.shared++
	copy(c.Reserve(len(p)), p)
	s.Release()
}
func (c *simConn) Buffered() int {
	if c.deaf {
		return len(c.queue)
	}
	return 0
}
func (c *simConn) NotifyBelow(n int) { c.below = n }
func (c *simConn) Pause()            { c.paused = true }
func (c *simConn) Resume()           { c.paused = false; c.wake() }
func (c *simConn) Yield()            { c.wake() }
func (c *simConn) Move(to int)       { c.moveTo = to; c.wake() }
func (c *simConn) LastPong() int64   { return c.pong }
func (c *simConn) Close(code link.CloseCode, reason string) {
	c.closed, c.code, c.reason = true, code, reason
	c.wake()
}
func (c *simConn) Abort() { c.closed = true; c.wake() }

// serve hands over what has come in and takes what goes out.
func (c *simConn) serve() (more bool) {
	if c.gone {
		return false
	}
	if !c.deaf && len(c.queue) > 0 {
		c.out = append(c.out, c.queue...)
		c.queue = c.queue[:0]
		more = true
		if c.below >= 0 {
			c.below = -1
			c.stream.Writable()
		}
	}
	if !c.paused && !c.closed && c.moveTo < 0 && len(c.in) > 0 {
		n := len(c.in)
		c.s.guard(func() { n = c.stream.Data(c.in) })
		c.in = c.in[n:]
		more = more || n > 0
	}
	if more {
		c.wake()
	}
	return more || c.listed
}

// depart moves or ends the connection at the end of a turn.
func (c *simConn) depart() bool {
	switch {
	case c.gone:
		return false
	case c.closed:
		if !c.deaf {
			c.out = append(c.out, c.queue...)
			c.queue = nil
		}
		c.end(nil)
		return true
	case c.moveTo >= 0:
		c.unlist()
		c.l, c.moveTo = c.s.loops[c.moveTo], -1
		c.wake()
		c.stream.Arrived()
		return true
	}
	return false
}

func (c *simConn) unlist() {
	c.listed = false
	for i, o := range c.l.busy {
		if o == c {
			c.l.busy = append(c.l.busy[:i:i], c.l.busy[i+1:]...)
			return
		}
	}
}

func (c *simConn) end(cause error) {
	c.gone = true
	c.unlist()
	c.stream.Closed(cause)
}

// cut ends the connection from the peer's side.
func (c *simConn) cut() {
	c.end(io.ErrUnexpectedEOF)
	c.s.run()
}

// send makes b arrive and lets the broker come to rest.
func (c *simConn) send(b []byte) {
	c.feed(b)
	c.s.run()
}

// feed makes b arrive in the next turn.
func (c *simConn) feed(b []byte) {
	c.in = append(c.in, b...)
	c.wake()
}

// got is one packet that the peer has received.
type got struct {
	h    wire.Header
	body []byte
	pub  wire.Publish
	ids  []uint32
}

// take returns what has arrived at the peer since the last call.
func (c *simConn) take() (packets []got) {
	c.s.t.Helper()
	for len(c.out) > 0 {
		h, err := wire.ReadHeader(c.out)
		if err != nil || h.Size == 0 || len(c.out) < h.Size+h.Remaining {
			c.s.t.Fatalf("the broker sent %x: %v", c.out, err)
		}
		g := got{h: h, body: append([]byte(nil), c.out[h.Size:h.Size+h.Remaining]...)}
		c.out = c.out[h.Size+h.Remaining:]
		packets = append(packets, g)
	}
	return packets
}

// publishes decodes the PUBLISH packets of take and drops the others.
func (c *simConn) publishes(v wire.Version) (list []got) {
	c.s.t.Helper()
	for _, g := range c.take() {
		if g.h.Type != wire.PUBLISH {
			continue
		}
		ids, err := g.pub.DecodeFromServer(g.h, g.body, v, &wire.Limits{}, nil)
		if err != nil {
			c.s.t.Fatal(err)
		}
		g.ids = ids
		list = append(list, g)
	}
	return list
}

// join dials on the given loop and connects as id; the session is kept for
// expiry seconds. The CONNACK is taken.
func (s *sim) join(loop int, id string, v wire.Version, expiry uint32, more ...func(*wire.Connect)) *simConn {
	s.t.Helper()
	c := s.dial(loop)
	p := wire.Connect{Version: v, ClientID: id, CleanStart: expiry == 0, SessionExpiry: expiry,
		ReceiveMaximum: 65535, RequestProblem: true}
	for _, f := range more {
		f(&p)
	}
	c.send(p.Append(nil))
	packets := c.take()
	if len(packets) == 0 || packets[0].h.Type != wire.CONNACK || packets[0].body[1] != 0 {
		s.t.Fatalf("%s got %v in place of CONNACK", id, packets)
	}
	c.out = nil
	for _, g := range packets[1:] { // what was sent again
		c.out = append(c.out, repack(g)...)
	}
	return c
}

func repack(g got) []byte {
	b := []byte{byte(g.h.Type)<<4 | g.h.Flags}
	n := len(g.body)
	for ; n > 127; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(append(b, byte(n)), g.body...)
}

// sub subscribes c and takes the SUBACK, leaving what else came.
func (c *simConn) sub(v wire.Version, filters ...wire.Subscription) {
	c.s.t.Helper()
	p := wire.Subscribe{PacketID: 1, Filters: filters}
	c.send(p.Append(nil, v))
	var rest []byte
	acked := false
	for _, g := range c.take() {
		if g.h.Type == wire.SUBACK {
			acked = true
			continue
		}
		rest = append(rest, repack(g)...)
	}
	c.out = rest
	if !acked {
		c.s.t.Fatal("no SUBACK")
	}
}

// pub encodes a PUBLISH.
func pub(v wire.Version, topic, payload string, qos byte, id uint16) []byte {
	o := wire.Outgoing{Version: v, QoS: qos, PacketID: id, Topic: []byte(topic), Payload: []byte(payload), ExpiryAt: -1}
	b := make([]byte, o.Size())
	o.Put(b)
	return b
}

func puback(v wire.Version, id uint16) []byte {
	b := make([]byte, wire.AckSize)
	return b[:wire.PutAck(b, wire.PUBACK, v, id, 0)]
}
