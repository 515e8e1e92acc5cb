package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hashplus/transport/link"
)

// The contract of link.Conn and link.Stream, over every kind of connection.

func overAll(t *testing.T, test func(t *testing.T, k kind)) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) { test(t, k) })
	}
}

// noise is n bytes that differ from place to place.
func noise(n int) []byte {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
	return b[:n]
}

// writeParts writes b in parts of all sizes up to limit.
func writeParts(nc net.Conn, b []byte, limit int) {
	rng := rand.New(rand.NewPCG(2, 2))
	for len(b) > 0 {
		n := min(len(b), 1+rng.IntN(1+rng.IntN(limit)))
		if _, err := nc.Write(b[:n]); err != nil {
			return
		}
		b = b[n:]
	}
}

func TestConn_EchoesWhatCameInOrder(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		nc := k.dial(t, start(t, Options{}, newScripted()), Listener{})
		sent := noise(3 << 20)
		go writeParts(nc, sent, 200_000)
		if !bytes.Equal(readFull(t, nc, len(sent)), sent) {
			t.Fatal("the echo differs")
		}
	})
}

func TestConn_TakesInputByteByByte(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		nc := k.dial(t, start(t, Options{}, newScripted()), Listener{})
		sent := noise(3000)
		go writeParts(nc, sent, 1)
		if !bytes.Equal(readFull(t, nc, len(sent)), sent) {
			t.Fatal("the echo differs")
		}
	})
}

func TestConn_OffersLeftoversWithWhatComesLater(t *testing.T) {
	for _, packet := range []int{10, 3000, 100_000} { // the last is more than a read buffer holds
		overAll(t, func(t *testing.T, k kind) {
			h := newScripted()
			h.open = func(c link.Conn) link.Stream {
				s := h.newStream(c)
				s.data = func(b []byte) int {
					used := 0
					for len(b)-used >= packet {
						send(c, b[used:used+packet])
						used += packet
					}
					return used
				}
				return s
			}
			nc := k.dial(t, start(t, Options{}, h), Listener{})
			sent := noise(7 * packet)
			go writeParts(nc, sent, packet*2)
			if !bytes.Equal(readFull(t, nc, len(sent)), sent) {
				t.Fatal("the echo differs")
			}
		})
	}
}

func TestConn_YieldOffersTheRestAgain(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		h.open = func(c link.Conn) link.Stream {
			s := h.newStream(c)
			s.data = func(b []byte) int {
				n := min(len(b), 10)
				send(c, b[:n])
				if n < len(b) {
					c.Yield()
				}
				return n
			}
			return s
		}
		nc := k.dial(t, start(t, Options{}, h), Listener{})
		sent := noise(5000)
		go nc.Write(sent)
		if !bytes.Equal(readFull(t, nc, len(sent)), sent) {
			t.Fatal("the echo differs")
		}
	})
}

// A stream that yields is not read for until it takes more: what it has
// left does not grow meanwhile.
func TestConn_YieldEndsTheTick(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		const size = 300_000
		h := newScripted()
		calls, most, left, sum := 0, 0, 0, 0 // owned by the loop
		over := make(chan [2]int, 1)
		h.tick = func(link.Loop) bool { calls = 0; return false }
		h.open = func(c link.Conn) link.Stream {
			s := h.newStream(c)
			s.data = func(b []byte) int {
				calls++
				most, left = max(most, calls), max(left, len(b))
				n := min(len(b), 3000)
				if sum += n; sum == size {
					over <- [2]int{most, left}
					send(c, []byte("done"))
				}
				c.Yield()
				return n
			}
			return s
		}
		nc := k.dial(t, start(t, Options{Loops: 1}, h), Listener{})
		go nc.Write(noise(size))
		readFull(t, nc, 4)
		seen := <-over
		if seen[0] > 2 { // for an event, and as one that had left something
			t.Errorf("called %d times in a tick", seen[0])
		}
		if seen[1] > 2*readBuffer {
			t.Errorf("%d bytes were kept for it", seen[1])
		}
	})
}

func TestConn_ReportsTheEndAfterTheLastBytes(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		var got []byte
		h.open = func(c link.Conn) link.Stream {
			s := h.newStream(c)
			s.data = func(b []byte) int { got = append(got, b...); return len(b) }
			return s
		}
		nc := k.dial(t, start(t, Options{}, h), Listener{})
		s := next(t, h)
		if _, err := nc.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		nc.Close()
		err := s.wait(t)
		if want := map[bool]error{true: io.ErrUnexpectedEOF}[k.websocket]; err != want {
			t.Errorf("cause %v, want %v", err, want)
		}
		if string(got) != "last words" {
			t.Errorf("got %q", got)
		}
	})
}

func TestConn_CloseDeliversWhatWasQueued(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		body := noise(800_000)
		h.open = func(c link.Conn) link.Stream {
			s := h.newStream(c)
			s.data = func(b []byte) int {
				send(c, body)
				c.Close(link.ClosePolicy, "enough")
				c.Close(link.CloseNormal, "a second call does nothing")
				send(c, []byte("goes nowhere"))
				return 0
			}
			return s
		}
		nc := k.dial(t, start(t, Options{DrainTimeout: 200 * time.Millisecond}, h), Listener{})
		// The peer goes on sending what nobody uses; no reset may eat the answer.
		if _, err := nc.Write([]byte("go")); err != nil {
			t.Fatal(err)
		}
		go func() {
			for range 1000 {
				if _, err := nc.Write([]byte("more and more")); err != nil {
					return
				}
			}
		}()
		time.Sleep(20 * time.Millisecond)
		if !bytes.Equal(readFull(t, nc, len(body)), body) {
			t.Fatal("what was queued differs")
		}
		if c, ok := nc.(*wsClient); ok {
			if n, err := c.Read(make([]byte, 1)); n > 0 || err != io.EOF || c.code != 1008 || c.reason != "enough" {
				t.Errorf("%d bytes, %v, close %d %q", n, err, c.code, c.reason)
			}
		}
		if err := next(t, h).wait(t); err != ErrClosed {
			t.Errorf("cause %v", err)
		}
	})
}

func TestConn_AbortEndsAtOnce(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		s := start(t, Options{}, h)
		nc := k.dial(t, s, Listener{})
		st := next(t, h)
		do(t, st.conn.Loop(), func() {
			st.conn.Abort()
			select {
			case <-st.closed:
				t.Error("Closed was called within Abort")
			default:
			}
			st.conn.Abort()
			st.conn.Close(link.CloseNormal, "")
		})
		if err := st.wait(t); err != ErrAborted {
			t.Errorf("cause %v", err)
		}
		nc.SetReadDeadline(time.Now().Add(time.Minute))
		if n, err := nc.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("read %d bytes, %v", n, err)
		}
		waitFor(t, "the connection goes", func() bool { return s.Conns() == 0 })
	})
}

func TestConn_PauseStopsDataAndResumeOffersWhatIsThere(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		var calls, got atomic.Int32
		h.open = func(c link.Conn) link.Stream {
			s := h.newStream(c)
			s.data = func(b []byte) int {
				calls.Add(1)
				n := min(5, len(b))
				got.Add(int32(n))
				if n == 5 {
					c.Pause()
				}
				return n
			}
			return s
		}
		nc := k.dial(t, start(t, Options{}, h), Listener{})
		st := next(t, h)
		go nc.Write([]byte("12345123451234512345"))
		for i := int32(1); i <= 4; i++ {
			waitFor(t, "Data", func() bool { return got.Load() >= 5*i })
			time.Sleep(5 * time.Millisecond)
			if n := got.Load(); n != 5*i {
				t.Fatalf("paused after %d bytes, but %d came", 5*i, n)
			}
			do(t, st.conn.Loop(), st.conn.Resume)
		}
	})
}

func TestConn_PausedNoticesThatThePeerHasGone(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		h.open = func(c link.Conn) link.Stream {
			c.Pause()
			return h.newStream(c)
		}
		nc := k.dial(t, start(t, Options{}, h), Listener{})
		st := next(t, h)
		nc.Close()
		st.wait(t)
	})
}

func TestConn_PausedKeepsWhatCameBeforeTheEnd(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		var got []byte
		h.open = func(c link.Conn) link.Stream {
			c.Pause()
			s := h.newStream(c)
			s.data = func(b []byte) int { got = append(got, b...); return len(b) }
			return s
		}
		nc := k.dial(t, start(t, Options{}, h), Listener{})
		st := next(t, h)
		if _, err := nc.Write([]byte("goodbye")); err != nil {
			t.Fatal(err)
		}
		nc.Close()
		select {
		case <-st.closed:
			t.Fatal("closed with bytes unread")
		case <-time.After(30 * time.Millisecond):
		}
		do(t, st.conn.Loop(), st.conn.Resume)
		st.wait(t)
		if string(got) != "goodbye" {
			t.Errorf("got %q", got)
		}
	})
}

// A connection that is moved to and fro under load keeps every byte in order,
// in both directions.
func TestConn_MoveKeepsOrderUnderLoad(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		var moves, wrong atomic.Int32
		h.open = func(c link.Conn) link.Stream {
			s := h.newStream(c)
			want := 0
			s.data = func(b []byte) int {
				if c.Loop() != h.loops[want] {
					wrong.Add(1)
				}
				n := len(b) - len(b)%3 // leaves something unread
				send(c, b[:n])
				if moves.Add(1)%3 == 0 {
					want = (want + 1) % len(h.loops)
					c.Move(want)
				}
				return n
			}
			s.arrived = func() {
				if c.Loop() != h.loops[want] {
					wrong.Add(1)
				}
			}
			want = c.Loop().ID()
			return s
		}
		nc := k.dial(t, start(t, Options{Loops: 3}, h), Listener{})
		sent := noise(3 << 20)
		go writeParts(nc, sent, 20_000)
		if !bytes.Equal(readFull(t, nc, len(sent)), sent) {
			t.Fatal("the echo differs")
		}
		if moves.Load() < 30 || wrong.Load() > 0 {
			t.Errorf("%d calls of Data, %d on a loop it should not be on", moves.Load(), wrong.Load())
		}
	})
}

// An answer to NotifyBelow that a move overtakes comes on the new loop.
func TestConn_MoveKeepsNotifyBelow(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		k.dial(t, start(t, Options{Loops: 2}, h), Listener{})
		st := next(t, h)
		c := st.conn
		to := 1 - c.Loop().ID()
		writable := make(chan int, 1)
		do(t, c.Loop(), func() {
			st.writable = func() { writable <- c.Loop().ID() }
			c.NotifyBelow(1)
			c.Move(to)
		})
		select {
		case at := <-writable:
			if at != to {
				t.Errorf("Writable was called on loop %d", at)
			}
		case <-time.After(10 * time.Second):
			t.Error("Writable was not called")
		}
	})
}

func TestConn_MovesPausedAndToItself(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		arrived := make(chan int, 10)
		h.open = func(c link.Conn) link.Stream {
			s := h.newStream(c)
			s.arrived = func() { arrived <- c.Loop().ID() }
			return s
		}
		nc := k.dial(t, start(t, Options{}, h), Listener{})
		st := next(t, h)
		c := st.conn
		at := c.Loop().ID()
		do(t, c.Loop(), func() { c.Pause(); c.Move(at) })
		if id := <-arrived; id != at {
			t.Fatalf("arrived on %d", id)
		}
		go nc.Write([]byte("hello"))
		do(t, h.loops[at], func() { c.Move(1 - at) })
		if id := <-arrived; id != 1-at {
			t.Fatalf("arrived on %d", id)
		}
		nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if n, err := nc.Read(make([]byte, 1)); err == nil {
			t.Fatalf("a paused connection answered %d bytes", n)
		}
		do(t, h.loops[1-at], c.Resume)
		if b := readFull(t, nc, 5); string(b) != "hello" {
			t.Fatalf("got %q", b)
		}
	})
}

func TestConn_SlowReaderGetsEverythingAndIsReported(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		var most atomic.Int32
		const low = 10_000
		part := noise(50_000)
		const parts = 200
		left := parts
		h.open = func(c link.Conn) link.Stream {
			s := h.newStream(c)
			fill := func() {
				for left > 0 && c.Buffered() < 500_000 {
					send(c, part)
					left--
				}
				most.Store(max(most.Load(), int32(c.Buffered())))
				if left > 0 {
					c.NotifyBelow(low)
				}
			}
			s.data = func(b []byte) int { fill(); return len(b) }
			s.writable = func() {
				if n := c.Buffered(); n > low {
					t.Errorf("Writable with %d bytes queued", n)
				}
				fill()
			}
			return s
		}
		nc := k.dial(t, start(t, Options{}, h), Listener{})
		if _, err := nc.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		for i := range parts {
			if !bytes.Equal(readFull(t, nc, len(part)), part) {
				t.Fatalf("part %d differs", i)
			}
		}
		if n := most.Load(); n > 600_000 {
			t.Errorf("%d bytes were queued", n)
		}
	})
}

func TestConn_StallIsReported(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		stalled := make(chan struct{}, 1)
		h.open = func(c link.Conn) link.Stream {
			s := h.newStream(c)
			s.data = func(b []byte) int {
				send(c, make([]byte, 32<<20))
				return len(b)
			}
			s.stalled = func() { stalled <- struct{}{}; c.Abort() }
			return s
		}
		nc := k.dial(t, start(t, Options{WriteStall: 100 * time.Millisecond}, h), Listener{})
		began := time.Now()
		if _, err := nc.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		select {
		case <-stalled:
			if d := time.Since(began); d < 100*time.Millisecond {
				t.Errorf("after %v", d)
			}
		case <-time.After(time.Minute):
			t.Fatal("not reported")
		}
		next(t, h).wait(t)
	})
}

// A peer of goroutines that takes nothing holds up the writer with the last of
// the queue, when the queue itself is empty already.
func TestConn_StallOfTheLastBytesIsReported(t *testing.T) {
	h := newScripted()
	stalled := make(chan struct{}, 1)
	h.open = func(c link.Conn) link.Stream {
		s := h.newStream(c)
		s.stalled = func() { stalled <- struct{}{}; c.Abort() }
		send(c, []byte("x"))
		return s
	}
	server := start(t, Options{WriteStall: 100 * time.Millisecond}, h)
	near, far := net.Pipe() // it has no buffer
	t.Cleanup(func() { near.Close() })
	if err := server.ServeConn(far, Listener{Network: "tcp"}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-stalled:
	case <-time.After(time.Minute):
		t.Fatal("not reported")
	}
	next(t, h).wait(t)
}

// body counts its releases.
type body struct{ released atomic.Int32 }

func (b *body) Release() { b.released.Add(1) }

func TestConn_WriteSharedKeepsOrderAndReleasesOnce(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		bodies := make([]body, 300)
		big := noise(30_000)
		h.open = func(c link.Conn) link.Stream {
			s := h.newStream(c)
			s.data = func(b []byte) int {
				for i := range bodies {
					f := c.Framing()
					head := c.Reserve(f.HeaderLen(2+len(big)) + 2)
					n := f.PutHeader(head, 2+len(big))
					binary.BigEndian.PutUint16(head[n:], uint16(i))
					c.WriteShared(big, &bodies[i])
				}
				return len(b)
			}
			return s
		}
		nc := k.dial(t, start(t, Options{}, h), Listener{})
		if _, err := nc.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		for i := range bodies[:200] {
			b := readFull(t, nc, 2+len(big))
			if int(binary.BigEndian.Uint16(b)) != i || !bytes.Equal(b[2:], big) {
				t.Fatalf("message %d differs", i)
			}
		}
		nc.Close()
		st := next(t, h)
		st.wait(t)
		waitFor(t, "every body is released", func() bool {
			for i := range bodies {
				if bodies[i].released.Load() != 1 {
					return false
				}
			}
			return true
		})
	})
}

func TestConn_PanicClosesOnlyThatConnection(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		var log quiet
		h.open = func(c link.Conn) link.Stream {
			s := h.newStream(c)
			s.data = func(b []byte) int {
				if string(b) == "panic" {
					panic("as asked")
				}
				send(c, b)
				return len(b)
			}
			return s
		}
		s := start(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, h)
		good, bad := k.dial(t, s, Listener{}), k.dial(t, s, Listener{})
		if _, err := bad.Write([]byte("panic")); err != nil {
			t.Fatal(err)
		}
		if b := readEnd(t, bad); len(b) > 0 {
			t.Errorf("got %q", b)
		}
		if c, ok := bad.(*wsClient); ok && c.code != 1011 {
			t.Errorf("close code %d", c.code)
		}
		next(t, h)
		next(t, h)
		if _, err := good.Write([]byte("still there")); err != nil {
			t.Fatal(err)
		}
		if b := readFull(t, good, 11); string(b) != "still there" {
			t.Errorf("got %q", b)
		}
		if !strings.Contains(log.String(), "as asked") || !strings.Contains(log.String(), "contract_test.go") {
			t.Errorf("no stack in the log: %s", log.String())
		}
	})
}

func TestConn_MayBeClosedInOpen(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		for name, end := range map[string]func(c link.Conn){
			"close": func(c link.Conn) { c.Close(link.CloseTryLater, "full") },
			"abort": link.Conn.Abort,
		} {
			t.Run(name, func(t *testing.T) {
				h := newScripted()
				h.open = func(c link.Conn) link.Stream {
					send(c, []byte("no"))
					end(c)
					return h.newStream(c)
				}
				s := start(t, Options{DrainTimeout: 50 * time.Millisecond}, h)
				if name == "close" {
					nc := k.dial(t, s, Listener{})
					if b := readEnd(t, nc); string(b) != "no" {
						t.Errorf("got %q", b)
					}
				} else {
					l := Listener{Network: "tcp"}
					if k.websocket {
						return // the abort may overtake the upgrade's answer
					}
					k.connect(t, s, l)
				}
				next(t, h).wait(t)
			})
		}
	})
}

func TestServer_ShutdownClosesInOrder(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		s := start(t, Options{CloseTimeout: 10 * time.Minute, DrainTimeout: 10 * time.Minute}, h)
		nc := k.dial(t, s, Listener{})
		st := next(t, h)
		ended := make(chan []byte, 1)
		go func() {
			b, _ := io.ReadAll(nc)
			nc.Close()
			ended <- b
		}()
		// With a peer that answers it needs none of the timeouts.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
		if err := st.wait(t); !errors.Is(err, ErrServerClosed) {
			t.Errorf("cause %v", err)
		}
		<-ended
		if c, ok := nc.(*wsClient); ok && c.code != 1001 {
			t.Errorf("close code %d", c.code)
		}
		if h.loops[0].Post(link.TaskFunc(func(link.Loop) {})) {
			t.Error("a stopped loop takes tasks")
		}
		if err := s.ServeConn(deadConn{}, Listener{Network: "tcp"}); !errors.Is(err, ErrServerClosed) {
			t.Errorf("ServeConn: %v", err)
		}
	})
}

// deadConn is a net.Conn that can only be closed.
type deadConn struct{ net.Conn }

func (deadConn) Close() error         { return nil }
func (deadConn) LocalAddr() net.Addr  { return nil }
func (deadConn) RemoteAddr() net.Addr { return nil }

// waitFor waits until ok.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
