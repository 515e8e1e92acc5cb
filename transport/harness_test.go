package transport

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

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
	conn      link.Conn
	data      func(b []byte) int
	arrived   func()
	writable  func()
	stalled   func()
	dismissed func(link.Dismissal)
	onClosed  func()

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

func (s *stream) Dismissed(why link.Dismissal) {
	if s.dismissed != nil {
		s.dismissed(why)
	}
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
func (s *stream) wait(t testing.TB) error {
	t.Helper()
	select {
	case <-s.closed:
		return s.cause
	case <-time.After(time.Minute):
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
func do(t testing.TB, l link.Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(link.TaskFunc(func(link.Loop) { defer close(done); f() })) {
		t.Fatal("the loop has stopped")
	}
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the loop does not run tasks")
	}
}

// kind is one of the ways in which a connection can be served.
type kind struct {
	name      string
	websocket bool
	// connect connects to s and returns the client's end.
	connect func(t testing.TB, s *Server, l Listener) net.Conn
}

// kinds are those that the contract is tested with.
func kinds() []kind {
	return []kind{
		{"tcp/listener", false, connectListener},
		{"tcp/stream", false, connectStream},
		{"tcp/pipe", false, connectPipe},
		{"ws/listener", true, connectListener},
		{"ws/stream", true, connectStream},
		{"ws/pipe", true, connectPipe},
		{"tls/listener", false, connectTLS},
		{"tls/split", false, connectSplit},
		{"tls/stream", false, connectTLSStream},
		{"wss/listener", true, connectTLS},
		{"wss/split", true, connectSplit},
		{"wss/stream", true, connectTLSStream},
	}
}

// dial connects to s as to a listener like l, with the upgrade done.
func (k kind) dial(t testing.TB, s *Server, l Listener) net.Conn {
	t.Helper()
	l.Network = "tcp"
	if k.websocket {
		l.Network = "ws"
	}
	nc := k.connect(t, s, l)
	t.Cleanup(func() { nc.Close() })
	if k.websocket {
		return upgraded(t, nc)
	}
	return nc
}

// connectListener connects through a listener: a file descriptor in the poller
// where there is one.
func connectListener(t testing.TB, s *Server, l Listener) net.Conn {
	t.Helper()
	l.Addr = "127.0.0.1:0"
	address, err := s.Listen(l)
	if err != nil {
		t.Fatal(err)
	}
	return dialURL(t, address)
}

func dialURL(t testing.TB, address string) net.Conn {
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

// connectStream connects over TCP to a server that has a net.Conn of it.
func connectStream(t testing.TB, s *Server, l Listener) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc := dialURL(t, "tcp://"+ln.Addr().String())
	served, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ServeConn(served, l); err != nil {
		t.Fatal(err)
	}
	return nc
}

// connectPipe connects over a net.Pipe, which has no buffer at all.
func connectPipe(t testing.TB, s *Server, l Listener) net.Conn {
	t.Helper()
	nc, served := net.Pipe()
	if err := s.ServeConn(served, l); err != nil {
		t.Fatal(err)
	}
	return nc
}

// wsClient shows a WebSocket connection as a stream of bytes: each Write is a
// binary message, Read gives their payloads, and the end is the close frame.
type wsClient struct {
	net.Conn
	br   *bufio.Reader
	left int64 // of the current frame

	mu     sync.Mutex // guards writing
	silent bool       // does not answer close frames and pings

	code   ws.StatusCode // of the close frame that came
	reason string
	pings  int
	frames int // data frames seen
}

// upgraded does the client's handshake.
func upgraded(t testing.TB, nc net.Conn) *wsClient {
	t.Helper()
	u, _ := url.Parse("ws://localhost/mqtt")
	return upgradedBy(t, nc, ws.Dialer{Protocols: []string{"mqtt"}}, u)
}

func upgradedBy(t testing.TB, nc net.Conn, d ws.Dialer, u *url.URL) *wsClient {
	t.Helper()
	nc.SetDeadline(time.Now().Add(time.Minute))
	br, _, err := d.Upgrade(nc, u)
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Time{})
	if br == nil {
		br = bufio.NewReader(nc)
	}
	return &wsClient{Conn: nc, br: br}
}

func (c *wsClient) Write(p []byte) (int, error) {
	return len(p), c.writeFrame(ws.NewBinaryFrame(bytes.Clone(p)))
}

func (c *wsClient) writeFrame(f ws.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := ws.CompileFrame(ws.MaskFrameInPlace(f))
	if err != nil {
		return err
	}
	_, err = c.Conn.Write(b) // in one call, for net.Pipe has no buffer
	return err
}

func (c *wsClient) Read(p []byte) (int, error) {
	for c.left == 0 {
		h, err := ws.ReadHeader(c.br)
		if err != nil {
			return 0, err
		}
		if !h.OpCode.IsControl() {
			c.left = h.Length
			c.frames++
			continue
		}
		b := make([]byte, h.Length)
		if _, err := io.ReadFull(c.br, b); err != nil {
			return 0, err
		}
		switch h.OpCode {
		case ws.OpPing:
			c.pings++
			if !c.silent {
				go c.writeFrame(ws.NewPongFrame(b))
			}
		case ws.OpClose:
			if len(b) >= 2 {
				c.code, c.reason = ws.ParseCloseFrameData(b)
			}
			if !c.silent {
				if err := c.writeFrame(ws.NewCloseFrame(b)); err != nil {
					return 0, err
				}
			}
			return 0, io.EOF
		}
	}
	n, err := c.br.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
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
func readFull(t testing.TB, r net.Conn, n int) []byte {
	t.Helper()
	r.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, n)
	if k, err := io.ReadFull(r, b); err != nil {
		t.Fatalf("read %d of %d bytes: %v", k, n, err)
	}
	return b
}

// readEnd reads until the end and returns what came before it.
func readEnd(t testing.TB, r net.Conn) []byte {
	t.Helper()
	r.SetReadDeadline(time.Now().Add(time.Minute))
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("after %d bytes: %v", len(b), err)
	}
	return b
}

func next(t testing.TB, h *scripted) *stream {
	t.Helper()
	select {
	case s := <-h.opened:
		return s
	case <-time.After(time.Minute):
		t.Fatal("no connection was opened")
		return nil
	}
}
