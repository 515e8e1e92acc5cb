//go:build linux && !nopoll

package transport

import (
	"bytes"
	"net"
	"testing"
	"time"

	"hashplus/transport/link"
)

// atOnce has l find what write does in one batch of events.
func atOnce(t *testing.T, l link.Loop, write func()) {
	t.Helper()
	held, release := make(chan struct{}), make(chan struct{})
	l.Post(link.TaskFunc(func(link.Loop) {
		close(held)
		<-release
	}))
	<-held
	write()
	close(release)
}

func writeAll(t *testing.T, clients []net.Conn, p func(i int) []byte) {
	t.Helper()
	for i, nc := range clients {
		if _, err := nc.Write(p(i)); err != nil {
			t.Error(err)
		}
	}
}

// What is read together comes to each in order, also what is larger than its
// piece, and what comes at the end of a stream.
func TestTogether_EverybodyReadsTheirOwnBytes(t *testing.T) {
	ringOrSkip(t)
	const n = ringSize + 60
	_, home, streams, clients := crowd(t, Options{}, n, "tcp")
	got := make([][]byte, n) // owned by the loop
	do(t, home, func() {
		for i, s := range streams {
			s.data = func(b []byte) int {
				used := len(b) &^ 7 // leftovers, too
				got[i] = append(got[i], b[:used]...)
				return used
			}
		}
	})
	offset := make([]int, n)
	for round := range 12 {
		atOnce(t, home, func() {
			writeAll(t, clients, func(i int) []byte {
				size := 1 + (i*round)%700
				if i%11 == 0 {
					size = maxTogether*(round%4) + round - 1 + 1
				}
				p := numbered(nil, uint32(i), offset[i], size)
				offset[i] += size
				return p
			})
			if round == 11 {
				for _, nc := range clients {
					_ = nc.(*net.TCPConn).CloseWrite()
				}
			}
		})
	}
	for _, s := range streams {
		if err := s.wait(t); err != nil {
			t.Fatal(err)
		}
	}
	for i := range streams {
		if want := numbered(nil, uint32(i), 0, offset[i]&^7); !bytes.Equal(got[i], want) {
			t.Fatalf("connection %d got %d of %d bytes, or others", i, len(got[i]), len(want))
		}
	}
}

// The first to be handled pauses, closes, aborts or moves the others, whose bytes
// have been read by then.
func TestTogether_WhoIsPausedMeanwhileGetsTheBytesLater(t *testing.T) {
	ringOrSkip(t)
	const n = 3 * minTogether
	_, home, streams, clients := crowd(t, Options{}, n, "tcp")
	got, calls := make([][]byte, n), 0 // owned by the loop
	first := -1
	do(t, home, func() {
		for i, s := range streams {
			s.data = func(b []byte) int {
				if calls++; calls == 1 {
					first = i
					for j, other := range streams {
						switch {
						case j == i:
						case j%4 == 1:
							other.conn.Close(link.CloseNormal, "")
						case j%4 == 2:
							other.conn.Abort()
						default:
							other.conn.Pause()
						}
					}
				}
				got[i] = append(got[i], b...)
				return len(b)
			}
		}
	})
	atOnce(t, home, func() { writeAll(t, clients, func(i int) []byte { return numbered(nil, uint32(i), 0, 80) }) })
	time.Sleep(20 * time.Millisecond)
	paused := func(i int) bool { return i != first && i%4 != 1 && i%4 != 2 }
	// More comes while they are paused, and stays behind.
	do(t, home, func() {
		if calls != 1 {
			t.Errorf("%d calls of Data", calls)
		}
	})
	for i, nc := range clients {
		if paused(i) {
			if _, err := nc.Write(numbered(nil, uint32(i), 80, 80)); err != nil {
				t.Error(err)
			}
			_ = nc.(*net.TCPConn).CloseWrite()
		}
	}
	time.Sleep(20 * time.Millisecond)
	do(t, home, func() {
		if calls != 1 {
			t.Errorf("%d calls of Data", calls)
		}
		for i, s := range streams {
			if paused(i) {
				s.conn.Resume()
			}
		}
	})
	for i, s := range streams {
		if i == first {
			continue
		}
		if err := s.wait(t); paused(i) && err != nil {
			t.Error(err)
		}
	}
	do(t, home, func() {
		for i := range streams {
			want := 0
			if i == first {
				want = 80
			} else if paused(i) {
				want = 160
			}
			if !bytes.Equal(got[i], numbered(nil, uint32(i), 0, want)) {
				t.Errorf("connection %d got %d bytes of %d, or others", i, len(got[i]), want)
			}
		}
	})
}

func TestTogether_WhoIsMovedMeanwhileTakesTheBytesAlong(t *testing.T) {
	ringOrSkip(t)
	const n = 3 * minTogether
	h := newScripted()
	s := start(t, Options{IOUring: On, Loops: 2}, h)
	address, err := s.Listen(Listener{Network: "ws", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	var streams []*stream
	var clients []*wsClient
	for range n {
		clients = append(clients, upgraded(t, dialURL(t, address)))
		st := next(t, h)
		done := make(chan struct{})
		st.arrived = func() { close(done) }
		home := st.conn.Loop()
		do(t, home, func() {
			if home.ID() == 0 {
				close(done)
				return
			}
			st.conn.Move(0)
		})
		<-done
		streams = append(streams, st)
	}
	home := h.loops[0]
	moved := false // owned by loop 0
	do(t, home, func() {
		for _, st := range streams {
			st.arrived = nil
			st.data = func(b []byte) int {
				if st.conn.Loop() == home && !moved {
					moved = true
					for _, other := range streams {
						if other != st {
							other.conn.Move(1)
						}
					}
				}
				send(st.conn, b)
				return len(b)
			}
		}
	})
	message := func(i, k int) []byte { return numbered(nil, uint32(i), 64*k, 64) }
	atOnce(t, home, func() {
		for i, c := range clients {
			if _, err := c.Write(message(i, 0)); err != nil {
				t.Error(err)
			}
		}
	})
	for i, c := range clients {
		if _, err := c.Write(message(i, 1)); err != nil {
			t.Error(err)
		}
		b := make([]byte, 128)
		for at := 0; at < len(b); {
			n, err := c.Read(b[at:])
			if err != nil {
				t.Fatal(i, at, err)
			}
			at += n
		}
		if !bytes.Equal(b, numbered(nil, uint32(i), 0, 128)) {
			t.Errorf("connection %d got other bytes back", i)
		}
	}
}
