package transport

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hashplus/transport/link"
)

// hostOf is the host:port, or path, of a listener's URL.
func hostOf(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	return rest
}

func TestBind_AcceptsNobodyBeforeServe(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	b, err := s.Bind(Listener{Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	nc := dialURL(t, b.URL())
	select {
	case <-h.opened:
		t.Fatal("it is served")
	case <-time.After(50 * time.Millisecond):
	}
	b.Serve()
	next(t, h)
	echoes(t, nc)

	given, err := s.Bind(Listener{Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	given.Close()
	if nc, err := net.Dial("tcp", hostOf(given.URL())); err == nil {
		_ = nc.Close()
		t.Error("it listens after Close")
	}
	if _, err := s.Bind(Listener{Network: "tcp", Addr: hostOf(b.URL())}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("an address that is taken: %v", err)
	}
}

// Bound listeners that were never served do not keep a server from ending.
func TestBind_EndsWithTheServer(t *testing.T) {
	s := start(t, Options{}, newScripted())
	path := filepath.Join(t.TempDir(), "s")
	for _, l := range []Listener{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "unix", Addr: path}, withTLS(t, Listener{Network: "tcp", Addr: "127.0.0.1:0"})} {
		if _, err := s.Bind(l); err != nil {
			t.Fatal(err)
		}
	}
	s.StopAccepting()
	if nc, err := net.Dial("unix", path); err == nil {
		_ = nc.Close()
		t.Error("it still listens")
	}
}

func TestRetire_LeavesConnectionsUntilDismiss(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "tls"} {
		t.Run(network, func(t *testing.T) {
			h := newScripted()
			s := start(t, Options{}, h)
			l := Listener{Network: network, Addr: "127.0.0.1:0"}
			switch network {
			case "unix":
				l.Addr = filepath.Join(t.TempDir(), "s")
			case "tls":
				l = withTLS(t, Listener{Network: "tcp", Addr: "127.0.0.1:0"})
			}
			address, err := s.Listen(l)
			if err != nil {
				t.Fatal(err)
			}
			dial := func() net.Conn {
				kind := "tcp"
				if network == "unix" {
					kind = "unix"
				}
				nc, err := net.Dial(kind, hostOf(address))
				if err != nil {
					return nil
				}
				t.Cleanup(func() { _ = nc.Close() })
				if network == "tls" {
					return overTLS(t, nc, clientConfig())
				}
				return nc
			}
			stays, goes := dial(), []net.Conn{dial(), dial(), dial()}
			other, err := s.Listen(Listener{Network: "tcp", Addr: "127.0.0.1:0"})
			if err != nil {
				t.Fatal(err)
			}
			elsewhere := dialURL(t, other)
			for range 5 {
				next(t, h)
			}
			r, err := s.Retire(address)
			if err != nil {
				t.Fatal(err)
			}
			if dial() != nil {
				t.Fatal("it still listens")
			}
			echoes(t, stays)
			if err := r.Restore(); err != nil {
				t.Fatal(err)
			}
			again := dial()
			if again == nil {
				t.Fatal("it does not listen again")
			}
			next(t, h)
			if r, err = s.Retire(address); err != nil {
				t.Fatal(err)
			}
			r.Dismiss(100 * time.Millisecond)
			for _, nc := range append(goes, stays, again) {
				_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Errorf("a connection of it: %v", err)
				}
			}
			echoes(t, elsewhere)
			if _, err := s.Retire(address); err == nil {
				t.Error("it can be closed twice")
			}
		})
	}
}

// What is in the handshake when its listener goes does not get in.
func TestRetire_DismissesThoseInTheHandshakeToo(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	address, err := s.Listen(Listener{Network: "ws", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	nc := dialURL(t, strings.Replace(address, "ws://", "tcp://", 1))
	if _, err := io.WriteString(nc, "GET / HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	for s.Conns() == 0 {
		time.Sleep(time.Millisecond)
	}
	r, err := s.Retire(address)
	if err != nil {
		t.Fatal(err)
	}
	r.Dismiss(time.Minute)
	_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	answer, err := io.ReadAll(nc)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") {
		t.Errorf("%q, %v", answer, err)
	}
}

// A stream is told why, and has the last word.
func TestRetire_TellsTheStream(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	address, err := s.Listen(Listener{Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	nc := dialURL(t, address)
	st := next(t, h)
	do(t, st.conn.Loop(), func() {
		st.dismissed = func(why link.Dismissal) {
			send(st.conn, []byte(why.String()))
			st.conn.Close(link.CloseGoingAway, "")
		}
	})
	r, err := s.Retire(address)
	if err != nil {
		t.Fatal(err)
	}
	r.Dismiss(0)
	_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(nc); err != nil || string(got) != "the listener has been closed" {
		t.Errorf("%q, %v", got, err)
	}
}
