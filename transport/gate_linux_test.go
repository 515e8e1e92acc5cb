//go:build linux && !nopoll

package transport

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hashplus/transport/link"
)

// gateOf is the gate of the only listener of s, which has one loop.
func gateOf(t *testing.T, s *Server) (g *gate) {
	t.Helper()
	do(t, s.loops[0], func() { g = s.loops[0].gates[0] })
	return g
}

func TestGate_RestsWhileAcceptFails(t *testing.T) {
	var log quiet
	h := newScripted()
	var opened atomic.Int64
	h.open = func(c link.Conn) link.Stream {
		opened.Store(c.Loop().Now())
		return h.newStream(c)
	}
	s := start(t, Options{Loops: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))}, h)
	address, err := s.Listen(Listener{Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	dialURL(t, address)
	next(t, h) // so there is a gate
	g := gateOf(t, s)
	var begin int64
	do(t, s.loops[0], func() {
		begin = s.loops[0].Now()
		for range 3 {
			g.rest(syscall.EMFILE)
		}
	})
	nc := dialURL(t, address)
	if _, err := io.WriteString(nc, "hello"); err != nil {
		t.Fatal(err)
	}
	readFull(t, nc, 5)
	if d := time.Duration(opened.Load() - begin); d < 20*time.Millisecond { // by the loop's clock
		t.Errorf("accepted after %v", d)
	}
	if n := strings.Count(log.String(), "accept failed"); n != 3 {
		t.Errorf("%d log lines: %s", n, log.String())
	}
	do(t, s.loops[0], func() {
		if g.pause != 0 {
			t.Errorf("the next failure pauses for longer than %v", minAcceptPause)
		}
	})
}

func TestGate_ServeReturnsWhatEndsIt(t *testing.T) {
	h := newScripted()
	s := start(t, Options{Loops: 1}, h)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln, Listener{Network: "tcp"}) }()
	dialURL(t, "tcp://"+ln.Addr().String())
	next(t, h)
	g := gateOf(t, s)
	do(t, s.loops[0], func() { g.fail(syscall.ENOTSOCK) })
	if err := <-served; !errors.Is(err, syscall.ENOTSOCK) {
		t.Errorf("Serve: %v", err)
	}
}
