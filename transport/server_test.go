package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hashplus/transport/link"
)

func TestOptions_ValidateReportsEveryFault(t *testing.T) {
	o := Options{Loops: -1, WriteStall: -1, CloseTimeout: -1, MaxConns: -1, ReadBudget: -1, IOUring: 9}
	err := o.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	for _, name := range []string{"Loops", "WriteStall", "CloseTimeout", "MaxConns", "ReadBudget", "IOUring"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not in %q", name, err)
		}
	}
	if _, err := New(o, newScripted()); err == nil {
		t.Error("New took them")
	}
	o = Options{}
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
}

func TestListener_ValidateRefuses(t *testing.T) {
	for _, l := range []Listener{
		{Network: "udp"}, {Network: "tcp", Path: "/mqtt"}, {Network: "tcp", Deflate: true},
		{Network: "ws", Path: "mqtt"}, {Network: "ws", RequireSubprotocol: true, Subprotocols: []string{}},
		{Network: "ws", MaxMessage: -1},
	} {
		if l.Validate() == nil {
			t.Errorf("%+v is accepted", l)
		}
	}
}

func TestListen_URLsLeadToTheListener(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	path := filepath.Join(t.TempDir(), "mqtt.sock")
	for _, test := range []struct {
		l            Listener
		prefix, want string
	}{
		{Listener{Network: "tcp", Addr: "127.0.0.1:0"}, "tcp://127.0.0.1:", "127.0.0.1"},
		{Listener{Network: "tcp", Addr: "[::1]:0"}, "tcp://[::1]:", "::1"},
		{Listener{Network: "ws", Addr: "127.0.0.1:0", Path: "/mqtt"}, "ws://127.0.0.1:", "127.0.0.1"},
		{Listener{Network: "unix", Addr: path}, "unix://" + path, ""},
	} {
		address, err := s.Listen(test.l)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(address, test.prefix) || strings.HasSuffix(address, ":0") {
			t.Errorf("URL %q", address)
		}
		var nc net.Conn
		if test.l.Network == "unix" {
			nc, err = net.Dial("unix", path)
		} else {
			nc, err = net.Dial("tcp", strings.TrimSuffix(strings.SplitN(address, "://", 2)[1], test.l.Path))
		}
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if test.l.Network == "ws" {
			nc = upgraded(t, nc)
			if !strings.HasSuffix(address, "/mqtt") {
				t.Errorf("URL %q", address)
			}
		}
		if _, err := nc.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if b := readFull(t, nc, 5); string(b) != "hello" {
			t.Errorf("%s: got %q", address, b)
		}
		i := next(t, h).conn.Info()
		if i.Listener != address || i.Transport != test.l.Network || (i.Remote.IsValid() && i.Remote.Addr().String() != test.want) {
			t.Errorf("info %+v", i)
		}
	}
	stop(t, s)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket file is left: %v", err)
	}
}

func TestListen_ReplacesOnlyAStaleSocket(t *testing.T) {
	s := start(t, Options{}, newScripted())
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	ln, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(Listener{Network: "unix", Addr: stale}); err == nil {
		t.Error("a socket in use was taken")
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	if _, err := s.Listen(Listener{Network: "unix", Addr: stale}); err != nil {
		t.Errorf("a stale socket was not replaced: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(Listener{Network: "unix", Addr: file}); err == nil {
		t.Error("a file was replaced")
	}
}

func TestServe_TakesAnyListener(t *testing.T) {
	for name, wrap := range map[string]func(net.Listener) net.Listener{
		"plain":   func(ln net.Listener) net.Listener { return ln },
		"wrapped": func(ln net.Listener) net.Listener { return struct{ net.Listener }{ln} },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, Options{}, newScripted())
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error)
			go func() { served <- s.Serve(wrap(ln), Listener{Network: "tcp"}) }()
			nc := dialURL(t, "tcp://"+ln.Addr().String())
			if _, err := nc.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			readFull(t, nc, 5)
			s.StopAccepting()
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			if other, err := net.Dial("tcp", ln.Addr().String()); err == nil {
				other.Close()
				t.Error("still accepts")
			}
			if _, err := nc.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			readFull(t, nc, 5) // what is connected stays
			if err := s.Serve(ln, Listener{Network: "tcp"}); !errors.Is(err, ErrServerClosed) {
				t.Errorf("Serve after StopAccepting: %v", err)
			}
		})
	}
}

func TestServer_RefusesConnectionsPastTheLimit(t *testing.T) {
	s := start(t, Options{MaxConns: 1, DrainTimeout: 20 * time.Millisecond}, newScripted())
	first := connectListener(t, s, Listener{Network: "tcp"})
	if _, err := first.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	readFull(t, first, 5)
	over := connectListener(t, s, Listener{Network: "tcp"})
	if b, _ := io.ReadAll(over); len(b) > 0 {
		t.Errorf("got %q", b)
	}
	over = connectListener(t, s, Listener{Network: "ws"})
	if _, err := io.WriteString(over, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(over), nil)
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%v, %v", resp, err)
	}
	over.Close()
	first.Close()
	waitFor(t, "there is room again", func() bool { return s.Conns() == 0 })
	again := connectListener(t, s, Listener{Network: "tcp"})
	if _, err := again.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	readFull(t, again, 5)
}

// Those that are being told that there are too many take nobody's place.
func TestServer_RefusedConnectionsLeaveRoom(t *testing.T) {
	s := start(t, Options{MaxConns: 1}, newScripted())
	first := connectListener(t, s, Listener{Network: "tcp"})
	if _, err := first.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	readFull(t, first, 5)
	for range 3 { // none of them reads, or goes
		connectListener(t, s, Listener{Network: "ws"})
	}
	waitFor(t, "all are refused", func() bool { return s.turned.Load() == 3 })
	first.Close()
	waitFor(t, "the first one goes", func() bool { return s.Conns() == 3 })
	again := connectListener(t, s, Listener{Network: "tcp"})
	if _, err := again.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	readFull(t, again, 5)
}

// Descriptors are used again as soon as they are free: connections that come
// and go at once must never see each other's bytes or end.
func TestServer_ReusedDescriptorsStayApart(t *testing.T) {
	h := newScripted()
	h.open = func(c link.Conn) link.Stream {
		s := h.newStream(c)
		s.data = func(b []byte) int {
			switch b[0] {
			case 'a':
				c.Abort()
			case 'c':
				send(c, b)
				c.Close(link.CloseNormal, "")
			case 'm':
				send(c, b)
				c.Move(1 - c.Loop().ID())
			default:
				send(c, b)
			}
			return len(b)
		}
		return s
	}
	s := start(t, Options{DrainTimeout: 50 * time.Millisecond}, h)
	address, err := s.Listen(Listener{Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 60 {
				nc, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
				if err != nil {
					t.Error(err)
					return
				}
				nc.SetDeadline(time.Now().Add(time.Minute))
				for _, what := range []byte("emee"[:1+i%4] + "cam"[i%3:i%3+1]) {
					text := fmt.Sprintf("%c %d %d", what, worker, i)
					if _, err := io.WriteString(nc, text); err != nil {
						t.Error(err)
						break
					}
					b := make([]byte, len(text))
					_, err := io.ReadFull(nc, b)
					if what != 'a' && (err != nil || string(b) != text) {
						t.Errorf("sent %q, got %q, %v", text, b, err)
					}
				}
				nc.Close()
			}
		})
	}
	group.Wait()
	waitFor(t, "every connection goes", func() bool { return s.Conns() == 0 })
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, st := range h.streams {
		st.wait(t)
	}
}

func TestServer_AcceptsAStorm(t *testing.T) {
	h := newScripted()
	s := start(t, Options{Loops: 2}, h)
	address, err := s.Listen(Listener{Network: "ws", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	const clients = 400
	var group sync.WaitGroup
	var echoed atomic.Int32
	gate := make(chan struct{})
	for range clients {
		group.Go(func() {
			<-gate
			c := upgraded(t, dialURL(t, address))
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Error(err)
				return
			}
			c.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
				t.Error(err)
				return
			}
			echoed.Add(1)
		})
	}
	close(gate)
	group.Wait()
	if n := echoed.Load(); n != clients || s.Conns() != clients {
		t.Errorf("%d answered, %d connected", n, s.Conns())
	}
}

// failing is a listener that is out of descriptors for a while.
type failing struct {
	net.Listener
	failures atomic.Int32
	err      error
}

func (f *failing) Accept() (net.Conn, error) {
	if f.failures.Add(-1) >= 0 {
		return nil, f.err
	}
	return f.Listener.Accept()
}

func TestServer_BacksOffWhileAcceptFails(t *testing.T) {
	var log quiet
	s := start(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, newScripted())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &failing{Listener: ln, err: os.NewSyscallError("accept4", syscall.EMFILE)}
	f.failures.Store(3)
	served := make(chan error, 1)
	begin := time.Now()
	go func() { served <- s.Serve(f, Listener{Network: "tcp"}) }()
	nc := dialURL(t, "tcp://"+ln.Addr().String())
	if _, err := nc.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	readFull(t, nc, 5)
	if d := time.Since(begin); d < 30*time.Millisecond { // 5 + 10 + 20
		t.Errorf("tried again after %v", d)
	}
	if n := strings.Count(log.String(), "accept failed"); n != 3 {
		t.Errorf("%d log lines: %s", n, log.String())
	}
	s.StopAccepting()
	if err := <-served; err != nil {
		t.Error(err)
	}
	f = &failing{Listener: ln, err: net.ErrClosed}
	f.failures.Store(1)
	if err := start(t, Options{}, newScripted()).Serve(f, Listener{Network: "tcp"}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve of a broken listener: %v", err)
	}
}

func TestServer_ShutdownForcesAfterItsContext(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	c := kind{websocket: true, connect: connectListener}.dial(t, s, Listener{}).(*wsClient)
	c.silent = true // never answers the close frame
	st := next(t, h)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	st.wait(t)
	if n := s.Conns(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("a second Shutdown: %v", err)
	}
}

func TestServer_ShutdownReachesConnectionsThatMove(t *testing.T) {
	h := newScripted()
	h.open = func(c link.Conn) link.Stream {
		s := h.newStream(c)
		hop := func() { c.Move(1 - c.Loop().ID()) }
		s.arrived = hop
		s.data = func(b []byte) int { hop(); return len(b) }
		return s
	}
	s := start(t, Options{DrainTimeout: 20 * time.Millisecond}, h)
	for range 20 {
		nc := connectListener(t, s, Listener{Network: "tcp"})
		if _, err := nc.Write([]byte("go")); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(5 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	for range 20 {
		next(t, h).wait(t)
	}
}
