package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"hashplus/transport/link"
)

// scripted is a Handler whose streams do what a test says. Functions that are
// nil do nothing; data that is nil echoes.
type scripted struct {
	loops []link.Loop
	open  func(c link.Conn) link.Stream
	tick  func(l link.Loop) bool

	mu      sync.Mutex
	streams []*stream
	opened  chan *stream
}

func newScripted() *scripted { return &scripted{opened: make(chan *stream, 4096)} }

func (h *scripted) Start(loops []link.Loop) { h.loops = loops }

func (h *scripted) Open(c link.Conn) link.Stream {
	if h.open != nil {
		return h.open(c)
	}
	return h.newStream(c)
}

func (h *scripted) newStream(c link.Conn) *stream {
	s := &stream{conn: c, closed: make(chan struct{})}
	h.mu.Lock()
	h.streams = append(h.streams, s)
	h.mu.Unlock()
	h.opened <- s
	return s
}

func (h *scripted) Tick(l link.Loop) bool { return h.tick != nil && h.tick(l) }

// stream is a scripted Stream. Its functions are set in Open, or on its loop.
type stream struct {
	conn     link.Conn
	data     func(b []byte) int
	arrived  func()
	writable func()
	stalled  func()
	onClosed func()

	closed chan struct{} // closed by Closed
	cause  error         // set before that
	calls  int
}

func (s *stream) Data(b []byte) int {
	if s.data != nil {
		return s.data(b)
	}
	send(s.conn, b)
	return len(b)
}

func (s *stream) Arrived() {
	if s.arrived != nil {
		s.arrived()
	}
}

func (s *stream) Writable() {
	if s.writable != nil {
		s.writable()
	}
}

func (s *stream) Stalled() {
	if s.stalled != nil {
		s.stalled()
		return
	}
	s.conn.Close(link.ClosePolicy, "too slow")
}

func (s *stream) Closed(cause error) {
	if s.calls++; s.calls > 1 {
		panic("Closed was called again")
	}
	if s.onClosed != nil {
		s.onClosed()
	}
	s.cause = cause
	close(s.closed)
}

// wait waits for Closed and returns its cause.
func (s *stream) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-s.closed:
		return s.cause
	case <-time.After(10 * time.Second):
		t.Fatal("Closed was not called")
		return nil
	}
}

// send queues p in one packet, framed as c needs it.
func send(c link.Conn, p []byte) {
	f := c.Framing()
	if f.Compressed() {
		f = link.WebSocket
	}
	b := c.Reserve(f.HeaderLen(len(p)) + len(p))
	copy(b[f.PutHeader(b, len(p)):], p)
}

// do runs f on l and waits for it.
func do(t *testing.T, l link.Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(link.TaskFunc(func(link.Loop) { defer close(done); f() })) {
		t.Fatal("the loop has stopped")
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the loop does not run tasks")
	}
}

// kind is one of the ways in which a connection can be served.
type kind struct {
	name string
	// dial connects to s and returns the client's end.
	dial func(t *testing.T, s *Server, l Listener) net.Conn
}

// kinds are those that the contract is tested with.
func kinds() []kind {
	return []kind{
		{"listener", dialListener},
		{"stream", dialStream},
		{"pipe", dialPipe},
	}
}

// dialListener connects through a listener: a file descriptor in the poller
// where there is one.
func dialListener(t *testing.T, s *Server, l Listener) net.Conn {
	t.Helper()
	l.Addr = "127.0.0.1:0"
	address, err := s.Listen(l)
	if err != nil {
		t.Fatal(err)
	}
	return dial(t, address)
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	_, rest, _ := strings.Cut(address, "://")
	host, _, _ := strings.Cut(rest, "/")
	nc, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}

// dialStream connects over TCP to a server that has a net.Conn of it.
func dialStream(t *testing.T, s *Server, l Listener) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc := dial(t, "tcp://"+ln.Addr().String())
	served, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ServeConn(served, l); err != nil {
		t.Fatal(err)
	}
	return nc
}

// dialPipe connects over a net.Pipe, which has no buffer at all.
func dialPipe(t *testing.T, s *Server, l Listener) net.Conn {
	t.Helper()
	nc, served := net.Pipe()
	t.Cleanup(func() { nc.Close() })
	if err := s.ServeConn(served, l); err != nil {
		t.Fatal(err)
	}
	return nc
}

// quiet is a logger whose lines a test can look at.
type quiet struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (q *quiet) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.b.Write(p)
}

func (q *quiet) String() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.b.String()
}

// start runs a server until the test ends.
func start(t testing.TB, o Options, h link.Handler) *Server {
	t.Helper()
	if o.Loops == 0 {
		o.Loops = 2
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	s, err := New(o, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

// stop ends s, with force where that is needed.
func stop(t testing.TB, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if n := s.Conns(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// readFull reads n bytes within a deadline.
func readFull(t *testing.T, r net.Conn, n int) []byte {
	t.Helper()
	r.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, n)
	if k, err := io.ReadFull(r, b); err != nil {
		t.Fatalf("read %d of %d bytes: %v", k, n, err)
	}
	return b
}

// readEnd reads until the end and returns what came before it.
func readEnd(t *testing.T, r net.Conn) []byte {
	t.Helper()
	r.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("after %d bytes: %v", len(b), err)
	}
	return b
}

func next(t *testing.T, h *scripted) *stream {
	t.Helper()
	select {
	case s := <-h.opened:
		return s
	case <-time.After(10 * time.Second):
		t.Fatal("no connection was opened")
		return nil
	}
}
