//go:build linux && !nopoll

package transport

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hashplus/transport/link"
)

// ringOrSkip skips a test where the system keeps io_uring from us.
func ringOrSkip(t *testing.T) {
	t.Helper()
	var r ring
	if err := r.open(); err != nil {
		t.Skip(err)
	}
	r.close()
}

// crowd connects n raw clients to one loop of a server with io_uring.
func crowd(t *testing.T, o Options, n int, network string) (*Server, link.Loop, []*stream, []net.Conn) {
	t.Helper()
	o.IOUring, o.Loops = On, 1
	h := newScripted()
	s := start(t, o, h)
	l := Listener{Network: "tcp", Addr: "127.0.0.1:0"}
	if network == "tls" {
		l = withTLS(t, l)
	}
	address, err := s.Listen(l)
	if err != nil {
		t.Fatal(err)
	}
	var streams []*stream
	var clients []net.Conn
	for range n {
		nc := dialURL(t, address)
		if network == "tls" {
			nc = overTLS(t, nc, clientConfig())
		}
		clients = append(clients, nc)
		streams = append(streams, next(t, h))
	}
	return s, h.loops[0], streams, clients
}

// numbered appends n bytes of the stream of a connection from offset on: each
// aligned word of eight is its own place and the connection's number.
func numbered(dst []byte, who uint32, offset, n int) []byte {
	skip := offset % 8
	from := len(dst)
	for i := offset - skip; i < offset+n; i += 8 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(who)<<40|uint64(i/8))
	}
	copy(dst[from:], dst[from+skip:])
	return dst[:from+n]
}

// TestRing_EverybodyGetsTheirOwnBytes floods clients of all kinds in the same
// ticks: those that read, those that read late, so that sends are short and
// sockets full, and those that go away in the midst of it.
func TestRing_EverybodyGetsTheirOwnBytes(t *testing.T) {
	ringOrSkip(t)
	for _, network := range []string{"tcp", "tls"} {
		t.Run(network, func(t *testing.T) { testRingBytes(t, network) })
	}
}

func testRingBytes(t *testing.T, network string) {
	const n, rounds = ringSize + 70, 30
	_, home, streams, clients := crowd(t, Options{}, n, network)
	sent, received := make([]int, n), make([]int, n)
	rng := rand.New(rand.NewPCG(1, 2))
	var buf []byte
	round := func() {
		for i, s := range streams {
			size := 1 + rng.IntN(300)
			if i%10 == 0 {
				size = 1 + rng.IntN(200_000)
			}
			if s.conn.Buffered() > 4<<20 {
				continue
			}
			buf = numbered(buf[:0], uint32(i), sent[i], size)
			copy(s.conn.Reserve(size), buf)
			if i%7 == 0 { // in two segments: not for the ring
				buf = numbered(buf[:0], uint32(i), sent[i]+size, 9)
				s.conn.WriteShared(bytes.Clone(buf), counted{new(int)})
				size += 9
			}
			sent[i] += size
		}
	}
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			switch {
			case i%13 == 3:
				time.Sleep(time.Duration(i) * time.Millisecond / 4)
				if tc, ok := c.(*tls.Conn); ok {
					c = tc.NetConn()
				}
				c.(*net.TCPConn).SetLinger(0) // a reset
				c.Close()
				return
			case i%10 == 0:
				time.Sleep(100 * time.Millisecond)
			}
			got, b := 0, make([]byte, 32<<10)
			var want []byte
			c.SetReadDeadline(time.Now().Add(time.Minute))
			for {
				k, err := c.Read(b)
				want = numbered(want[:0], uint32(i), got, k)
				if !bytes.Equal(b[:k], want) {
					t.Errorf("client %d: wrong bytes between %d and %d", i, got, got+k)
					return
				}
				got += k
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Errorf("client %d after %d bytes: %v", i, got, err)
					return
				}
			}
			received[i] = got
		})
	}
	for range rounds {
		do(t, home, round)
	}
	do(t, home, func() {
		for _, s := range streams {
			s.conn.Close(link.CloseNormal, "")
		}
	})
	wg.Wait()
	for i := range n {
		if i%13 != 3 && received[i] != sent[i] {
			t.Errorf("client %d: %d bytes of %d", i, received[i], sent[i])
		}
	}
}

// TestRing_ThatBreaksIsReplacedByWrites takes the ring's descriptor away.
func TestRing_ThatBreaksIsReplacedByWrites(t *testing.T) {
	ringOrSkip(t)
	var log quiet
	_, home, streams, clients := crowd(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, 2*minTogether, "tcp")
	say := func(what string) {
		do(t, home, func() {
			for i, s := range streams {
				p := fmt.Append(nil, what, i)
				copy(s.conn.Reserve(len(p)), p)
			}
		})
		for i, c := range clients {
			want := fmt.Sprint(what, i)
			if got := string(readFull(t, c, len(want))); got != want {
				t.Fatalf("client %d got %q", i, got)
			}
		}
	}
	say("before ")
	do(t, home, func() {
		r := &home.(*loop).together.ring
		rawClose(r.fd)
		r.fd = 1 << 20 // no descriptor
	})
	say("after ")
	say("later ")
	do(t, home, func() {
		if home.(*loop).together.ring.isOpen() {
			t.Error("the broken ring is still in use")
		}
	})
	if !bytes.Contains([]byte(log.String()), []byte("io_uring failed")) {
		t.Errorf("the log says nothing of it: %s", log.String())
	}
}

// TestRing_ErrorsAreThoseOfASend: what a socket says comes back in its place.
func TestRing_ErrorsAreThoseOfASend(t *testing.T) {
	ringOrSkip(t)
	var r ring
	if err := r.open(); err != nil {
		t.Fatal(err)
	}
	defer r.close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := int32(pair[0]), int32(pair[1])
	defer rawClose(ours)
	p := make([]byte, 1<<20)
	var results [3]int32
	r.add(ours, p)
	r.add(ours, p) // full by now
	r.add(-1, p)
	n, err := r.flush(results[:])
	if n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if results[0] <= 0 || results[0] >= 1<<20 {
		t.Errorf("a short send: %d", results[0])
	}
	if err := sendError(results[1]); err != errAgain {
		t.Errorf("a full socket: %v", err)
	}
	if err := sendError(results[2]); err == nil || err == errAgain {
		t.Errorf("no socket: %v", err)
	}
	rawClose(theirs)
	r.add(ours, p)
	if n, err := r.flush(results[:]); n != 1 || err != nil || results[0] >= 0 {
		t.Errorf("a closed peer: %d %v %d", n, err, results[0])
	}
}

func TestRing_FlushAllocatesNothing(t *testing.T) {
	ringOrSkip(t)
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	_, home, streams, clients := crowd(t, Options{}, 3*minTogether, "tcp")
	for _, c := range clients {
		go io.Copy(io.Discard, c)
	}
	do(t, home, func() {
		l := home.(*loop)
		if n := testing.AllocsPerRun(100, func() {
			for _, s := range streams {
				s.conn.Reserve(100)[0] = 1
			}
			l.flushDirty()
		}); n > 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
