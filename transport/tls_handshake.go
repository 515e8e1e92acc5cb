package transport

import (
	"container/list"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"hashplus/transport/link"
)

// A handshake costs a hundred microseconds and more of computing, and waits for
// its peer in the middle of it, where crypto/tls cannot be left. So it has a
// goroutine, and three things are bounded: how many begin in a second, how many
// compute at a time, and how many are under way. One begins only when the
// client's first record is complete: a peer that connects and says nothing costs
// what any idle connection does. Bytes go through the loop in both directions.

const (
	// maxWaitingHandshakes is how many may wait for their turn.
	maxWaitingHandshakes = 4096

	// patience is how long a handshake that waits for its peer is safe from
	// giving its place to another.
	patience = time.Second

	// maxFed is how many bytes a peer may send before its handshake answers.
	maxFed = 32 << 10
)

var (
	// Each follows "TLS handshake: ".
	errClosedByLoop   = errors.New("closed by this side")
	errHandshakeTime  = errors.New("took too long")
	errHandshakeSlow  = errors.New("was slow, and others wait")
	errHandshakeQueue = errors.New("too many wait")
	errHandshakePanic = errors.New("panic")
)

// handshakes runs the handshakes of a server.
type handshakes struct {
	// Immutable after newHandshakes.
	server *Server

	// Any goroutine.
	waiting chan *handshake // have their first record; made by startTLS
	compute chan struct{}   // has an element for each that computes
	freed   chan struct{}   // has an element after a place became free
	ctx     context.Context // ends when the server shuts down
	cancel  context.CancelFunc
	once    sync.Once // starts dispatch

	mu    sync.Mutex
	under *list.List // guarded by mu: *handshake, the oldest first

	// Owned by dispatch.
	next time.Time // when another may begin
}

func newHandshakes(s *Server) *handshakes {
	h := &handshakes{
		server:  s,
		compute: make(chan struct{}, s.opts.TLSWorkers),
		freed:   make(chan struct{}, 1),
		under:   list.New(),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// add lets s wait for its turn. It reports false where too many do.
func (h *handshakes) add(s *handshake) bool {
	select {
	case h.waiting <- s:
		return true
	default:
		return false
	}
}

// dispatch begins handshakes in the order in which they came, until ctx ends.
func (h *handshakes) dispatch() {
	for {
		var s *handshake
		select {
		case s = <-h.waiting:
		case <-h.ctx.Done():
			return
		}
		if s.why() != nil {
			continue
		}
		if !h.pace() || !h.place(s) {
			return
		}
		if s.turn != nil {
			close(s.turn)
			continue
		}
		select {
		case h.compute <- struct{}{}:
		case <-h.ctx.Done():
			h.leave(s)
			return
		}
		h.server.routines.Go(s.run)
	}
}

// pace waits until another handshake may begin.
func (h *handshakes) pace() bool {
	interval := time.Second / time.Duration(h.server.options().TLSHandshakeRate)
	now := time.Now()
	// A tenth of a second's worth may come at once.
	if burst := now.Add(-time.Second / 10); h.next.Before(burst) {
		h.next = burst
	}
	h.next = h.next.Add(interval)
	return h.sleep(h.next.Sub(now))
}

func (h *handshakes) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-h.ctx.Done():
		return false
	}
}

// place waits until fewer than TLSHandshakes are under way, and counts s among them. If
// all places are taken the one that has waited longest for its peer gives up its
// own: a peer that is slow on purpose keeps nobody out.
func (h *handshakes) place(s *handshake) bool {
	for {
		h.mu.Lock()
		if h.under.Len() < h.server.options().TLSHandshakes {
			s.begun = time.Now()
			s.element = h.under.PushBack(s)
			h.mu.Unlock()
			return true
		}
		victim, wait := h.victim(time.Now())
		h.mu.Unlock()
		if victim != nil {
			victim.cancel(errHandshakeSlow)
		}
		t := time.NewTimer(wait)
		select {
		case <-h.freed:
		case <-t.C:
		case <-h.ctx.Done():
			t.Stop()
			return false
		}
		t.Stop()
	}
}

// victim is the oldest handshake that waits for its peer, if its time is up, and
// how long to wait for a place. mu is held.
func (h *handshakes) victim(now time.Time) (victim *handshake, wait time.Duration) {
	for e := h.under.Front(); e != nil; e = e.Next() {
		s := e.Value.(*handshake)
		if left := patience - now.Sub(s.begun); left > 0 {
			return nil, left // all others are younger
		}
		if s.parked() {
			return s, patience
		}
	}
	return nil, patience
}

// leave ends what place began.
func (h *handshakes) leave(s *handshake) {
	h.mu.Lock()
	h.under.Remove(s.element)
	h.mu.Unlock()
	select {
	case h.freed <- struct{}{}:
	default:
	}
}

// handshake is one that waits or is under way.
type handshake struct {
	// Immutable after newHandshake.
	set    *handshakes
	conn   *conn
	loop   *loop // the conn stays there until the handshake has ended
	secure *secure
	wake   chan struct{} // has an element after in or cause has changed

	// For a net.Conn, which has a goroutine already.
	turn chan struct{} // closed when it is its turn; nil for a file descriptor
	stop func() error  // closes it

	// Owned by dispatch, then guarded by set.mu.
	begun   time.Time
	element *list.Element

	// Owned by run.
	out []byte // what has been written since the last flight

	mu     sync.Mutex
	in     []byte // guarded by mu: records that the peer has sent
	left   int    // guarded by mu: of the first of them, if it is not whole any more
	cause  error  // guarded by mu: why it is to end
	starve bool   // guarded by mu: run waits for the peer
}

func newHandshake(c *conn) *handshake {
	return &handshake{set: c.endpoint.server.handshakes, conn: c, loop: c.loop, secure: c.sock.tls,
		wake: make(chan struct{}, 1)}
}

// feed gives b, which is not kept, to the handshake. Loop only.
func (s *handshake) feed(b []byte) {
	s.mu.Lock()
	s.in = append(s.in, b...)
	s.mu.Unlock()
	s.rouse()
}

// cancel ends the handshake with cause. Any goroutine.
func (s *handshake) cancel(cause error) {
	s.mu.Lock()
	if s.cause == nil {
		s.cause = cause
	}
	s.mu.Unlock()
	if s.stop != nil {
		_ = s.stop() // that is the purpose
	}
	s.rouse()
}

// unread is what the peer has sent behind the handshake, which is over. Loop only.
func (s *handshake) unread() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in
}

func (s *handshake) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// why is what cancel was called with, or nil.
func (s *handshake) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

func (s *handshake) parked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.starve && s.cause == nil
}

// read is net.Conn's Read for crypto/tls: it waits for the peer, and lets others
// compute meanwhile.
func (s *handshake) read(b []byte) (int, error) {
	for sent := false; ; {
		s.mu.Lock()
		n, cause := s.take(b), s.cause
		s.starve = n == 0 && cause == nil
		s.mu.Unlock()
		if cause != nil {
			return 0, cause
		}
		if n > 0 {
			return n, nil
		}
		<-s.set.compute
		if !sent {
			sent = true
			s.loop.Post(&flight{s, s.out})
			s.out = nil
		}
		<-s.wake
		s.set.compute <- struct{}{}
	}
}

// take gives the front of in, and nothing of the record behind the one it is
// in: what follows the handshake is for the loop. mu is held.
func (s *handshake) take(b []byte) int {
	if s.left == 0 && len(s.in) >= recordHeader {
		s.left = recordHeader + int(binary.BigEndian.Uint16(s.in[recordHeader-2:]))
	}
	n := copy(b, s.in[:min(s.left, len(s.in))])
	s.in = s.in[n:]
	s.left -= n
	return n
}

// run makes the handshake. It has a place and may compute.
func (s *handshake) run() {
	done := &outcome{shake: s}
	done.err = s.shakeHands(done)
	<-s.set.compute
	s.set.leave(s)
	done.out = s.out
	s.secure.shake = nil
	// From here on everything is the loop's. With nobody to tell, the loop has
	// stopped and closed the connection.
	s.loop.Post(done)
}

func (s *handshake) shakeHands(done *outcome) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.loop.log.Error("panic in a TLS handshake", "listener", s.conn.info.Listener,
				"remote", s.conn.info.Remote, "panic", r, "stack", string(debug.Stack()))
			err = errHandshakePanic
		}
	}()
	credentials := s.conn.endpoint.credentials
	s.secure.shake = s
	s.secure.tls = tls.Server(s.secure, credentials.current.Load().config)
	if err := s.secure.tls.Handshake(); err != nil {
		return err
	}
	state := s.secure.tls.ConnectionState()
	done.info, done.chain = credentials.describe(&state)
	trimTLS(s.secure.tls)
	return nil
}

// flight is what a handshake has to say before it waits for its peer.
type flight struct {
	shake *handshake
	out   []byte
}

func (f *flight) Run(link.Loop) {
	c := f.shake.conn
	if c.state != securing {
		return
	}
	s := c.sock.tls
	if len(f.out) > 0 {
		s.queue(c, f.out)
	}
	s.fed = 0
	c.receive()
}

// outcome ends a handshake.
type outcome struct {
	shake *handshake
	out   []byte // for the peer
	err   error
	info  *link.TLS
	chain []chainKey
}

func (o *outcome) Run(link.Loop) {
	c := o.shake.conn
	if c.state != securing {
		return
	}
	s := c.sock.tls
	s.begun = nil
	if len(o.out) > 0 {
		s.queue(c, o.out)
	}
	if o.err != nil {
		c.failTLS(o.err)
		return
	}
	if c.distrusted(o.chain) {
		c.failTLS(errRevoked) // meanwhile
		return
	}
	c.loop.server.counts.handshakes.Add(1)
	s.stage = tlsOpen
	s.held = true // crypto/tls has read all that it got
	s.chain = o.chain
	s.keepRest(append(o.shake.unread(), s.rest...), &c.loop.pool)
	c.info.TLS = o.info
	c.secured()
}

// handshakeError says in one line what a handshake failed of.
func handshakeError(err error) error {
	var header tls.RecordHeaderError
	if errors.As(err, &header) {
		if plain := checkHello(header.RecordHeader[:]); plain != nil {
			err = plain
		}
	}
	return fmt.Errorf("TLS handshake: %w", err)
}
