package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A session that is resumed has the client's certificate as the first one had.
func TestTLS_SessionsAreResumed(t *testing.T) {
	ca := newAuthority("clients CA")
	cert := clientCert(ca, "sensor-7")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		h := newScripted()
		s := start(t, Options{}, h)
		l := withTLS(t, Listener{})
		l.TLS.ClientAuth, l.TLS.ClientCA = ClientAuthRequired, ca.writeCA(t, t.TempDir())
		address := listenTLS(t, s, l)
		c := clientConfig()
		c.MinVersion, c.MaxVersion = version, version
		c.Certificates = []tls.Certificate{cert}
		c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for i := range 3 {
			tc, err := tryTLS(t, address, c)
			if err != nil {
				t.Fatal(err)
			}
			if resumed := tc.ConnectionState().DidResume; resumed != (i > 0) {
				t.Errorf("%s, connection %d: resumed %v", tls.VersionName(version), i, resumed)
			}
			if info := next(t, h).conn.Info().TLS; info.Certificate == nil || info.Certificate.Username != "sensor-7" {
				t.Errorf("%s, connection %d: %+v", tls.VersionName(version), i, info)
			}
		}
		// A new CA is a new beginning.
		if err := s.Reload(); err != nil {
			t.Fatal(err)
		}
		if tc, err := tryTLS(t, address, c); err != nil || tc.ConnectionState().DidResume {
			t.Errorf("after a reload: %v", err)
		}
	}
}

func TestTLS_ComesBehindTheProxyHeader(t *testing.T) {
	if runtime.GOOS != "linux" || raw(t) == noListener {
		t.Skip("the PROXY protocol before TLS needs a poller")
	}
	h := newScripted()
	s := start(t, Options{}, h)
	for _, p := range []ProxyProtocol{ProxyRequired, ProxyOptional} {
		address := listenTLS(t, s, proxied(t, p))
		for _, cut := range []int{0, 1, 20} {
			nc := dialFrom(t, "127.0.0.1", address)
			header := proxyFrom(t, 2, "203.0.113.9:4711")
			write(t, nc, header[:cut])
			// The rest goes with the first record.
			tc := overTLS(t, &prefixConn{Conn: nc, first: header[cut:]}, clientConfig())
			echoes(t, tc)
			if got := next(t, h).conn.Info(); got.Remote.String() != "203.0.113.9:4711" || got.TLS == nil {
				t.Errorf("remote %s, TLS %+v", got.Remote, got.TLS)
			}
		}
	}
	// Optional means that others need none.
	address := listenTLS(t, s, proxied(t, ProxyOptional))
	echoes(t, overTLS(t, dialFrom(t, "127.0.0.5", address), clientConfig()))
	// And a header inside TLS is none.
	address = listenTLS(t, s, proxied(t, ProxyRequired))
	nc := dialFrom(t, "127.0.0.1", address)
	if err := tls.Client(nc, clientConfig()).Handshake(); err == nil {
		t.Error("TLS without a header was let in")
	}
}

// raw is what rawListener makes of a listener here.
func raw(t *testing.T) int32 {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	fd, err := rawListener(ln)
	if err != nil {
		t.Fatal(err)
	}
	if fd != noListener {
		rawClose(fd)
	}
	return fd
}

// prefixConn sends first in one piece with what is written first.
type prefixConn struct {
	net.Conn
	first []byte
}

func (c *prefixConn) Write(b []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Write(b)
	}
	_, err := c.Conn.Write(append(bytes.Clone(c.first), b...))
	c.first = nil
	return len(b), err
}

// Handshakes that are under way, or wait for their turn, hold up no shutdown.
func TestTLS_ShutdownEndsHandshakes(t *testing.T) {
	s := start(t, Options{TLSHandshakes: 3, TLSHandshakeTimeout: 10 * time.Minute}, newScripted())
	address := listenTLS(t, s, Listener{})
	hello := clientHello(t)
	for i := range 12 {
		nc := dialURL(t, address)
		if i%4 > 0 {
			write(t, nc, hello)
		}
	}
	waitFor(t, "all have come", func() bool { return s.Conns() == 12 && s.handshakes.underWay() == 3 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// Past the limit there is no answer: it would take a handshake.
func TestTLS_OneTooManyIsClosed(t *testing.T) {
	var log quiet
	s := start(t, Options{MaxConns: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))}, newScripted())
	address := listenTLS(t, s, Listener{Network: "tcp"})
	echoes(t, overTLS(t, dialURL(t, address), clientConfig()))
	over := dialURL(t, listenTLS(t, s, Listener{Network: "ws"}))
	over.SetReadDeadline(time.Now().Add(time.Minute))
	if b, _ := io.ReadAll(over); len(b) > 0 {
		t.Errorf("got %q", b)
	}
	waitFor(t, "a line in the log", func() bool { return strings.Contains(log.String(), "too many connections") })
}

func TestTLS_HandshakesAreCounted(t *testing.T) {
	s := start(t, Options{}, newScripted())
	address := listenTLS(t, s, Listener{})
	echoes(t, overTLS(t, dialURL(t, address), clientConfig()))
	if _, err := tryTLS(t, address, &tls.Config{ServerName: "127.0.0.1"}); err == nil {
		t.Fatal("the client trusts anybody")
	}
	write(t, dialURL(t, address), []byte("no TLS"))
	waitFor(t, "the counts", func() bool { n := s.Stats(); return n.Handshakes == 1 && n.RefusedTLS == 2 })
}
