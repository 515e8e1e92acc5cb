package transport

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"hashplus/transport/link"
)

var tcp = Listener{Network: "tcp"}

// overAll runs test over every kind of connection.
func overAll(t *testing.T, test func(t *testing.T, k kind)) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) { test(t, k) })
	}
}

func TestConn_EchoesWhatCameInOrder(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		nc := k.dial(t, start(t, Options{}, h), tcp)
		rng := rand.New(rand.NewPCG(1, 1))
		sent := make([]byte, 3<<20)
		for i := range sent {
			sent[i] = byte(rng.Uint32())
		}
		go func() {
			for b := sent; len(b) > 0; {
				n := min(len(b), 1+rng.IntN(1<<rng.IntN(18)))
				if _, err := nc.Write(b[:n]); err != nil {
					return
				}
				b = b[n:]
			}
		}()
		if !bytes.Equal(readFull(t, nc, len(sent)), sent) {
			t.Fatal("the echo differs")
		}
	})
}

func TestConn_OffersLeftoversWithWhatComesLater(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		const packet = 100_000 // more than a read buffer holds
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
		nc := k.dial(t, start(t, Options{}, h), tcp)
		sent := make([]byte, 5*packet)
		for i := range sent {
			sent[i] = byte(i * 7 / 5)
		}
		go func() {
			for i, step := 0, 1; i < len(sent); step = step*3 + 1 {
				n := min(step, len(sent)-i)
				if _, err := nc.Write(sent[i : i+n]); err != nil {
					return
				}
				i += n
			}
		}()
		if !bytes.Equal(readFull(t, nc, len(sent)), sent) {
			t.Fatal("the echo differs")
		}
		_ = net.Conn(nc)
	})
}

func TestConn_ReportsTheEndAfterTheLastBytes(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		got := make(chan []byte, 1)
		h.open = func(c link.Conn) link.Stream {
			s := h.newStream(c)
			var all []byte
			s.data = func(b []byte) int { all = append(all, b...); return len(b) }
			s.onClosed = func() { got <- all }
			return s
		}
		nc := k.dial(t, start(t, Options{}, h), tcp)
		s := next(t, h)
		if _, err := nc.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		nc.Close()
		if err := s.wait(t); err != nil {
			t.Errorf("cause %v", err)
		}
		if b := <-got; string(b) != "last words" {
			t.Errorf("got %q", b)
		}
	})
}

func TestConn_CloseDeliversWhatWasQueued(t *testing.T) {
	overAll(t, func(t *testing.T, k kind) {
		h := newScripted()
		body := bytes.Repeat([]byte("0123456789abcdef"), 50_000)
		h.open = func(c link.Conn) link.Stream {
			s := h.newStream(c)
			s.data = func(b []byte) int {
				send(c, body)
				c.Close(link.CloseNormal, "")
				return 0
			}
			return s
		}
		nc := k.dial(t, start(t, Options{DrainTimeout: 100 * time.Millisecond}, h), tcp)
		// The peer goes on sending what nobody reads; no reset may eat the answer.
		go func() {
			for {
				if _, err := nc.Write([]byte("more and more")); err != nil {
					return
				}
			}
		}()
		time.Sleep(20 * time.Millisecond)
		nc.SetReadDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, len(body))
		if n, err := io.ReadFull(nc, b); err != nil {
			t.Fatalf("read %d of %d bytes: %v", n, len(b), err)
		}
		if err := next(t, h).wait(t); err != ErrClosed {
			t.Errorf("cause %v", err)
		}
	})
}
