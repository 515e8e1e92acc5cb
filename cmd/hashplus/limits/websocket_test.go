package limits

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"hashplus/broker/wire"
)

func TestWebSocket_AbuseIsClosedWithItsCode(t *testing.T) {
	t.Parallel()
	s := serve(t)
	binary := func(change func(*ws.Frame)) func() []byte {
		return func() []byte {
			f := ws.NewBinaryFrame(ping())
			change(&f)
			return masked(f)
		}
	}
	for _, test := range []struct {
		name  string
		bytes func() []byte
		code  uint16
	}{
		{"unmasked", func() []byte { return ws.MustCompileFrame(ws.NewBinaryFrame(ping())) }, 1002},
		{"RSV1", binary(func(f *ws.Frame) { f.Header.Rsv = 4 }), 1002},
		{"RSV2", binary(func(f *ws.Frame) { f.Header.Rsv = 2 }), 1002},
		{"RSV3", binary(func(f *ws.Frame) { f.Header.Rsv = 1 }), 1002},
		{"text", func() []byte { return masked(ws.NewTextFrame(ping())) }, 1003},
		{"reserved opcode", binary(func(f *ws.Frame) { f.Header.OpCode = 3 }), 1002},
		{"reserved control opcode", binary(func(f *ws.Frame) { f.Header.OpCode = 0xb }), 1002},
		{"continuation of nothing", binary(func(f *ws.Frame) { f.Header.OpCode = ws.OpContinuation }), 1002},
		{"message in a message", func() []byte {
			return append(masked(ws.NewFrame(ws.OpBinary, false, nil)), masked(ws.NewBinaryFrame(nil))...)
		}, 1002},
		{"fragmented ping", func() []byte { return masked(ws.NewFrame(ws.OpPing, false, nil)) }, 1002},
		{"ping of 126 bytes", func() []byte { return masked(ws.NewFrame(ws.OpPing, true, make([]byte, 126))) }, 1002},
		{"length with its top bit", func() []byte {
			return append([]byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1}, 1, 2, 3, 4)
		}, 1002},
		{"length that is not minimal", func() []byte { return []byte{0x82, 0xfe, 0, 2, 1, 2, 3, 4, 0, 0} }, 1002},
		{"close with a code of one byte", func() []byte { return masked(ws.NewCloseFrame([]byte{3})) }, 1002},
		{"close with 1005", func() []byte { return masked(ws.NewCloseFrame(ws.NewCloseFrameBody(1005, ""))) }, 1002},
		{"close with 999", func() []byte { return masked(ws.NewCloseFrame(ws.NewCloseFrameBody(999, ""))) }, 1002},
		{"close with a reason that is not UTF-8", func() []byte { return masked(ws.NewCloseFrame([]byte{3, 0xe8, 0xff})) }, 1007},
		{"close", func() []byte { return masked(ws.NewCloseFrame(ws.NewCloseFrameBody(1000, "bye"))) }, 1000},
	} {
		t.Run(test.name, func(t *testing.T) {
			there := *s
			there.t = t
			for _, joined := range []bool{false, true} {
				c := there.dialWS(v5)
				if joined {
					c.join()
				}
				w := c.conn.(*webSocket)
				if _, err := w.Conn.Write(test.bytes()); err != nil {
					t.Fatal(err)
				}
				_, how := c.end()
				c.closedWith(how, test.code)
				_ = w.frame(ws.NewCloseFrame(nil)) // the answer to it
				if err := w.SetReadDeadline(time.Now().Add(patience)); err != nil {
					t.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, w.in); err != nil || n > 0 {
					t.Errorf("after the close frame: %d bytes, %v", n, err)
				}
			}
		})
	}
}

func TestWebSocket_EndlessMessageIsOneStream(t *testing.T) {
	t.Parallel()
	s := serve(t)
	c := s.dialWS(v5)
	w := c.conn.(*webSocket)
	if err := w.frame(ws.NewFrame(ws.OpBinary, false, nil)); err != nil {
		t.Fatal(err)
	}
	send := func(b []byte) {
		if err := w.frame(ws.NewFrame(ws.OpContinuation, false, b)); err != nil {
			t.Fatal(err)
		}
	}
	send(c.request())
	c.accepted()
	payload := make([]byte, 60<<10)
	for range 1000 { // 60 MB in one message
		send(c.encode(publish{Topic: []byte("t"), Payload: payload}))
	}
	send(ping())
	c.expect(wire.PINGRESP)
	s.memory(80)
}

// bomb is a compressed message of zeros.
func bomb(t *testing.T, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(z, zeros{}, int64(size)); err != nil {
		t.Fatal(err)
	}
	if err := z.Flush(); err != nil {
		t.Fatal(err)
	}
	f := ws.NewBinaryFrame(bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff}))
	f.Header.Rsv = 4
	return masked(f)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestWebSocket_CompressionBombIsRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, "--ws-deflate")
	huge := bomb(t, 64<<20)
	t.Logf("64 MiB in %d KiB", len(huge)>>10)
	for _, joined := range []bool{false, true} {
		for range 10 {
			c := newClient(t, s.upgrade("Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n"), v5)
			w := c.conn.(*webSocket)
			if w.header.Get("Sec-Websocket-Extensions") == "" {
				t.Fatal("compression was not negotiated")
			}
			if joined {
				c.join()
			}
			if _, err := w.Conn.Write(huge); err != nil {
				t.Fatal(err)
			}
			_, how := c.end()
			c.closedWith(how, 1009)
		}
	}
	// Off by default: the same frame has a bit that means nothing.
	off := serve(t)
	c := newClient(t, off.upgrade("Sec-WebSocket-Extensions: permessage-deflate\r\n"), v5)
	w := c.conn.(*webSocket)
	if got := w.header.Get("Sec-Websocket-Extensions"); got != "" {
		t.Errorf("extensions %q", got)
	}
	if _, err := w.Conn.Write(huge[:100]); err != nil {
		t.Fatal(err)
	}
	_, how := c.end()
	c.closedWith(how, 1002)
	s.memory(60)
}

func TestDisconnect_ReasonComesBeforeTheEndWhateverTheClientSends(t *testing.T) {
	t.Parallel()
	s := serve(t)
	over(t, s, func(t *testing.T, dial func(wire.Version) *client) {
		for _, much := range []int{0, 512 << 10, 8 << 20} {
			c := dial(v5)
			c.join()
			// A topic with a wildcard, and then much that nobody reads.
			bad := c.encode(publish{Topic: []byte("a/#"), Payload: []byte("x")})
			all := append(bad, bytes.Repeat(c.encode(publish{Topic: []byte("t"), Payload: make([]byte, 1000)}), much/1000)...)
			sent := make(chan error, 1)
			go func() {
				_, err := c.conn.Write(all)
				sent <- err
			}()
			time.Sleep(50 * time.Millisecond) // so that a reset would come first
			c.ejected(wire.TopicNameInvalid, 1008)
			_ = c.conn.Close() // the writer may be waiting
			if err := <-sent; err != nil && much <= 512<<10 {
				t.Errorf("%d KiB behind the mistake could not be written: %v", much>>10, err)
			}
		}
		// A client that writes before it reads finds the reason, even if the
		// server could not wait until it was done.
		c := dial(v5)
		c.join()
		bad := c.encode(publish{Topic: []byte("a/#"), Payload: []byte("x")})
		_ = c.trySend(append(bad, bytes.Repeat(c.encode(publish{Topic: []byte("t"), Payload: make([]byte, 1000)}), 8<<10)...)) // as far as it is taken
		time.Sleep(50 * time.Millisecond)
		if got, how := c.end(); got != wire.TopicNameInvalid {
			t.Errorf("reason %#02x, then %v", byte(got), how)
		}

		// The same for a packet that is itself too large.
		c = dial(v5)
		c.join()
		go c.conn.Write(c.encode(publish{Topic: []byte("t"), Payload: make([]byte, 8<<20)})) //nolint:errcheck // it is refused
		time.Sleep(50 * time.Millisecond)
		c.ejected(wire.PacketTooLarge, 1009)
	})
}

func TestConnack_RefusalComesBeforeTheEnd(t *testing.T) {
	t.Parallel()
	s := serve(t, "--max-topic-length=64")
	over(t, s, func(t *testing.T, dial func(wire.Version) *client) {
		c := dial(v5)
		bad := c.request(named(string(bytes.Repeat([]byte("i"), 65))))
		c.send(append(bad, make([]byte, 100<<10)...))
		time.Sleep(50 * time.Millisecond)
		if got := c.accepted(); got.Reason != wire.ClientIdentifierNotValid {
			t.Errorf("CONNACK %v", got.Reason)
		}
		if _, how := c.end(); how != nil && !errors.As(how, new(closeFrame)) {
			t.Errorf("it ended with %v", how)
		}
	})
}
