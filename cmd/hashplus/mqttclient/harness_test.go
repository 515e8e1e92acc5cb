package mqttclient

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hashplus/broker"
	"hashplus/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startBroker runs the real broker on a loopback port and returns its address.
func startBroker(t *testing.T) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	b, err := broker.New(broker.Options{Logger: log, SysInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	s, err := transport.New(transport.Options{Loops: 1, Logger: log}, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = b.Shutdown(ctx) // the test has ended
		_ = s.Shutdown(ctx)
	})
	u, err := s.Listen(transport.Listener{Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u, "tcp://")
}

// listen serves connections by f, which is told how many came before, until
// the test ends, and returns the address. f's connection is closed for it.
func listen(t *testing.T, f func(n int, c net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		conns []net.Conn
	)
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close() //nolint:errcheck // whatever it says, it is over
				f(n, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// cutter forwards connections and cuts them on demand.
type cutter struct {
	address string
	mu      sync.Mutex
	live    map[net.Conn]bool
}

func newCutter(t *testing.T, to string) *cutter {
	c := &cutter{live: map[net.Conn]bool{}}
	c.address = listen(t, func(_ int, client net.Conn) {
		server, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer server.Close() //nolint:errcheck // it is over
		c.mu.Lock()
		c.live[client] = true
		c.mu.Unlock()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(client, server)
			_ = client.Close()
		}()
		_, _ = io.Copy(server, client)
		_ = server.Close()
		<-done
		c.mu.Lock()
		delete(c.live, client)
		c.mu.Unlock()
	})
	return c
}

// cut ends every connection that is there.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.live {
		_ = conn.Close()
	}
}

// options are those of a test's client.
func options(address string, v Version) Options {
	return Options{
		URL: &url.URL{Scheme: "mqtt", Host: address}, Version: v, CleanStart: true,
		KeepAlive: time.Minute, Reconnect: true,
		Backoff: Backoff{Min: time.Millisecond, Max: 20 * time.Millisecond},
	}
}

func connect(t *testing.T, o Options) *Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := Dial(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// readPacket reads one control packet.
func readPacket(c net.Conn) (first byte, body []byte, err error) {
	b := make([]byte, 1)
	if _, err = io.ReadFull(c, b); err != nil {
		return 0, nil, err
	}
	first = b[0]
	n := 0
	for shift := 0; ; shift += 7 {
		if _, err = io.ReadFull(c, b); err != nil {
			return 0, nil, err
		}
		n |= int(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			break
		}
	}
	body = make([]byte, n)
	_, err = io.ReadFull(c, body)
	return first, body, err
}

// both runs a test for each driver.
func both(t *testing.T, f func(t *testing.T, v Version)) {
	for _, v := range []Version{V311, V5} {
		t.Run(v.String(), func(t *testing.T) { f(t, v) })
	}
}
