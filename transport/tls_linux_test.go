//go:build linux && !nopoll

package transport

import (
	"runtime"
	"testing"
	"time"
)

func TestTLS_IdleConnectionsHaveNoGoroutine(t *testing.T) {
	s := start(t, Options{}, newScripted())
	address := listenTLS(t, s, Listener{})
	echoes(t, overTLS(t, dialURL(t, address), clientConfig()))
	before := runtime.NumGoroutine()
	for range 100 {
		echoes(t, overTLS(t, dialURL(t, address), clientConfig()))
	}
	waitFor(t, "the handshakes' goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestTLS_IdleConnectionHoldsLittleMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("memory is not measured under the race detector")
	}
	h := newScripted()
	s := start(t, Options{Loops: 2}, h)
	address := listenTLS(t, s, Listener{})
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	// The clients are in this process, too: what is dropped with the server's
	// ends is theirs.
	const n = 400
	connect := func(n int) {
		for range n {
			tc := overTLS(t, dialURL(t, address), clientConfig())
			if _, err := tc.Write(noise(3000)); err != nil {
				t.Fatal(err)
			}
			readFull(t, tc, 3000)
		}
	}
	connect(50)
	connect(n)
	streams := h.streams
	full := heap()
	for _, l := range s.loops {
		do(t, l, func() {
			for _, c := range l.slots {
				if c != nil {
					c.sock.tls.tls = nil
					c.sock.tls = nil
					c.abort(ErrAborted)
				}
			}
		})
	}
	for _, st := range streams {
		st.wait(t)
		st.conn = nil
	}
	time.Sleep(10 * time.Millisecond)
	per := (full - heap()) / (n + 50)
	t.Logf("%d bytes of heap for each connection, its stream's in the test included", per)
	if per > 4500 {
		t.Errorf("an idle connection holds %d bytes", per)
	}
}
