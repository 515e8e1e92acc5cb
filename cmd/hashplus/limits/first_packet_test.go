package limits

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"hashplus/broker/wire"
	"hashplus/cmd/hashplus/launch"
)

// bigConnect is a CONNECT of n bytes in all, most of them password.
func bigConnect(t testing.TB, n int) []byte {
	t.Helper()
	c := wire.Connect{Version: v5, CleanStart: true, ClientID: unique("big"), RequestProblem: true, HasUsername: true, Username: "u", HasPassword: true}
	b := c.Append(nil)
	for len(b) < n { // more than once, since the length grows with what it counts
		c.Password = make([]byte, len(c.Password)+n-len(b))
		b = c.Append(nil)
		if len(b) > n {
			c.Password = c.Password[len(b)-n:]
			b = c.Append(nil)
		}
	}
	if len(b) != n {
		t.Fatalf("a CONNECT of %d bytes instead of %d", len(b), n)
	}
	return b
}

// drip sends b forever, a byte at a time, until the connection ends.
func drip(conn net.Conn, b string) {
	for i := 0; ; i++ {
		if _, err := io.WriteString(conn, b[i%len(b):i%len(b)+1]); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// untilEnd waits until the server has ended a connection and returns what it sent.
func untilEnd(t *testing.T, conn net.Conn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("still connected after %v", patience)
	}
	return string(got)
}

func TestConnectTimeout_EndsEveryClientThatDoesNotSayConnect(t *testing.T) {
	t.Parallel()
	const deadline = 3 * time.Second // within which the upgrades must be through
	s := serve(t, "--connect-timeout="+deadline.String())
	big := string(bigConnect(t, 60000))
	forever := strings.Repeat("x", 1000)
	upgraded := func(f func(w *webSocket)) func(*testing.T, *server) net.Conn {
		return func(t *testing.T, s *server) net.Conn {
			w := s.upgrade("")
			go f(w)
			return w.Conn
		}
	}
	bare := func(address *string, f func(net.Conn)) func(*testing.T, *server) net.Conn {
		return func(t *testing.T, s *server) net.Conn {
			conn := open(t, *address)
			go f(conn)
			return conn
		}
	}
	for _, test := range []struct {
		name string
		open func(*testing.T, *server) net.Conn
		says string // what the client gets, or a part of it
	}{
		{"tcp, silence", bare(&s.tcp, func(net.Conn) {}), ""},
		{"tcp, CONNECT byte by byte", bare(&s.tcp, func(c net.Conn) { drip(c, big) }), ""},
		{"http, silence", bare(&s.ws, func(net.Conn) {}), "408 Request Timeout"},
		{"http, header byte by byte", bare(&s.ws, func(c net.Conn) {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\nX: ") // what comes is checked
			drip(c, forever)
		}), "408 Request Timeout"},
		{"ws, silence", upgraded(func(*webSocket) {}), "\x88"},
		{"ws, CONNECT byte by byte", upgraded(func(w *webSocket) { drip(w, big) }), "\x88"},
		{"ws, empty frames", upgraded(func(w *webSocket) {
			for w.frame(ws.NewBinaryFrame(nil)) == nil {
				time.Sleep(20 * time.Millisecond)
			}
		}), "\x88"},
		{"ws, an endless message of empty fragments", upgraded(func(w *webSocket) {
			for op := ws.OpBinary; w.frame(ws.NewFrame(op, false, nil)) == nil; op = ws.OpContinuation {
				time.Sleep(20 * time.Millisecond)
			}
		}), "\x88"},
		{"ws, pings", upgraded(func(w *webSocket) {
			for w.frame(ws.NewPingFrame(nil)) == nil {
				time.Sleep(20 * time.Millisecond)
			}
		}), "\x88"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			there := *s
			there.t = t
			began := time.Now()
			got := untilEnd(t, test.open(t, &there))
			if took := time.Since(began); took < deadline {
				t.Errorf("the connection lasted %v, the deadline is %v", took, deadline)
			}
			if !strings.Contains(got, test.says) || test.says == "" && got != "" {
				t.Errorf("the client got %q", got)
			}
		})
	}
}

func TestFirstPacket_MustBeConnect(t *testing.T) {
	t.Parallel()
	s := serve(t, "--connect-timeout=10m") // that is not what ends them
	over(t, s, func(t *testing.T, dial func(wire.Version) *client) {
		for _, first := range map[string][]byte{
			"PINGREQ":   ping(),
			"PUBLISH":   dial(v5).encode(publish{Topic: []byte("t")}),
			"SUBSCRIBE": dial(v5).filters(0, "#"),
			"HTTP":      []byte("GET / HTTP/1.1\r\n\r\n"),
			"TLS":       {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		} {
			c := dial(v5)
			c.send(first)
			c.gone(1002)
		}
	})
}

func TestFirstPacket_IsAtMost64KiB(t *testing.T) {
	t.Parallel()
	s := serve(t)
	over(t, s, func(t *testing.T, dial func(wire.Version) *client) {
		c := dial(v5)
		c.send(bigConnect(t, 64<<10))
		if got := c.accepted(); got.Reason != wire.Success {
			t.Errorf("a CONNECT of 64 KiB: %v", got.Reason)
		}
		c = dial(v5)
		c.send(bigConnect(t, 64<<10+1)[:100]) // its length is enough to refuse it
		c.gone(1009)
	})
	small := serve(t, "--max-connect-size=200")
	c := small.dial(v5)
	c.send(bigConnect(t, 300))
	c.gone(1009)
}

func TestFirstPacket_DeclaredLengthCostsNoMemory(t *testing.T) {
	s := serve(t, "--connect-timeout=10m") // all of them are to be there at once
	s.dialWS(v5).join()
	before := s.rss()
	const many = 500
	var conns []net.Conn
	for range many {
		tcp := open(t, s.tcp) // 256 MiB: refused at once
		_, _ = tcp.Write([]byte{0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4, 'M', 'Q', 'T', 'T'})
		conns = append(conns, tcp)
		tcp = open(t, s.tcp) // 64 KiB: waited for
		if _, err := tcp.Write(bigConnect(t, 64<<10)[:100]); err != nil {
			t.Fatal(err)
		}
		w := s.upgrade("") // a frame of 2^62 bytes, a packet of 64 KiB
		head, err := ws.CompileFrame(ws.Frame{Header: ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true, Length: 1 << 62}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Conn.Write(append(head, bigConnect(t, 64<<10)[:100]...)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range conns {
		if got := untilEnd(t, c); got != "" {
			t.Fatalf("a CONNECT of 256 MiB got %q", got)
		}
	}
	s.dial(v5).join()
	// What 1,000 waiting connections cost at all is most of this.
	if grown := s.peak() - before; grown > 40+garbage && !launch.Raced() {
		t.Errorf("RSS grew by %d MiB for %d clients that declared much and sent little", grown, 3*many)
	} else {
		t.Logf("RSS grew by %d MiB", grown)
	}
}

func TestHalfOpenSockets_DoNotKeepOthersOut(t *testing.T) {
	s := serve(t, "--connect-timeout=10s")
	before := s.fds()
	starts := []string{"", "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: webs", "\x10\x80\x80\x02\x00\x04MQTT"}
	began := time.Now()
	for i := range 1000 {
		start, address := starts[i%3], s.ws
		if i%3 == 2 || i%2 == 0 && start == "" {
			address = s.tcp
		}
		if _, err := io.WriteString(open(t, address), start); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("1,000 half-open sockets after %v", time.Since(began))
	var took latencies
	for range 20 {
		began := time.Now()
		c := s.dialWS(v5)
		c.join()
		c.subscribe(1, "honest")
		c.post(1, "honest", []byte("x"))
		c.drop()
		took = append(took, time.Since(began))
	}
	if took.p(50) > 2*time.Second {
		t.Errorf("an honest client needed %v", took)
	}
	s.memory(100)
	until(t, "the half-open sockets are gone", func() bool { return s.fds() <= before+5 })
}
