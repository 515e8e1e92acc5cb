package drive

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

// errWouldBlock is a read that found nothing. crypto/tls keeps every error of a
// connection but a temporary one, so it says that it is.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read now" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// secure is the TLS layer of a connection: a tls.Conn over the loop's own
// descriptor. Handshakes block, so they run in goroutines over an ordinary
// connection, whose descriptor the loop then takes over. Owned by the handshake
// goroutine first, by the loop from its arrival on.
type secure struct {
	conn *tls.Conn
	raw  net.Conn // until the loop has taken over
	fd   int
	out  []byte // records that the socket did not take yet
	err  error  // of the handshake
	to   *conn
}

// tlsTimeout bounds dial and handshake together.
const tlsTimeout = 20 * time.Second

// dialTLS connects and shakes hands for c, then reports to l.arrivals.
func (l *Loop) dialTLS(c *conn, source netip.Addr, small bool) {
	s := &secure{to: c, fd: -1}
	go func() {
		s.err = s.shake(l.target, source, small)
		l.arrivals <- s
	}()
}

func (s *secure) shake(t *Target, source netip.Addr, small bool) error {
	ctx, stop := context.WithTimeout(context.Background(), tlsTimeout)
	defer stop()
	var d net.Dialer
	if source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	raw, err := d.DialContext(ctx, "tcp", t.Addr.String())
	if err != nil {
		return err
	}
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		raw.Close()
		return errors.New("not a TCP connection")
	}
	if small {
		// A larger buffer only delays when a stalled client is felt.
		_ = tcp.SetReadBuffer(4096)
	}
	s.raw = raw
	s.conn = tls.Client(shim{s}, t.TLS)
	if err := s.conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return err
	}
	if s.fd, err = descriptor(tcp); err != nil {
		raw.Close()
		return err
	}
	s.raw = nil
	return raw.Close()
}

// shim is what crypto/tls sees of the socket.
type shim struct{ s *secure }

func (h shim) Read(b []byte) (int, error) {
	if h.s.raw != nil {
		return h.s.raw.Read(b)
	}
	if len(b) == 0 {
		return 0, nil
	}
	n, again, err := read(h.s.fd, b)
	switch {
	case again:
		return 0, errWouldBlock
	case err != nil:
		return 0, err
	case n == 0:
		return 0, errEnd
	}
	return n, nil
}

func (h shim) Write(b []byte) (int, error) {
	if h.s.raw != nil {
		return h.s.raw.Write(b)
	}
	h.s.out = append(h.s.out, b...)
	return len(b), nil
}

func (h shim) Close() error                       { return nil } // the loop closes the descriptor
func (h shim) LocalAddr() net.Addr                { return nil }
func (h shim) RemoteAddr() net.Addr               { return nil }
func (h shim) SetDeadline(t time.Time) error      { return h.deadline(t) }
func (h shim) SetReadDeadline(t time.Time) error  { return h.deadline(t) }
func (h shim) SetWriteDeadline(t time.Time) error { return h.deadline(t) }

func (h shim) deadline(t time.Time) error {
	if h.s.raw != nil {
		return h.s.raw.SetDeadline(t)
	}
	return os.ErrNoDeadline
}

// greetArrivals takes over connections whose handshake has ended.
func (l *Loop) greetArrivals() {
	for {
		select {
		case s := <-l.arrivals:
			l.shaking--
			c := s.to
			if s.err == nil {
				c.fd, c.tls = s.fd, s
				s.err = l.sys.watch(c.fd, c.token)
			}
			if s.err != nil {
				l.drop(c, s.err)
				continue
			}
			l.opened(c)
			// Application data may lie inside the TLS layer already.
			l.receive(c, false)
		default:
			return
		}
	}
}

// read fills b with what the peer sent, decrypted if need be.
func (c *conn) read(b []byte) (n int, again bool, err error) {
	if c.tls == nil {
		return read(c.fd, b)
	}
	n, err = c.tls.conn.Read(b)
	switch {
	case n > 0:
		return n, false, nil
	case errors.Is(err, errWouldBlock):
		return 0, true, nil
	case errors.Is(err, errEnd) || errors.Is(err, io.EOF):
		return 0, false, nil
	}
	return 0, false, err
}

// write sends a part of b; n == 0 without an error means that the socket is
// full. With TLS all of b is taken as soon as the socket has room for any of it,
// and what the socket leaves goes first the next time.
func (c *conn) write(b []byte) (n int, err error) {
	if c.tls == nil {
		return write(c.fd, b)
	}
	s := c.tls
	if len(s.out) == 0 {
		if _, err := s.conn.Write(b); err != nil {
			return 0, err
		}
		n = len(b)
	}
	for len(s.out) > 0 {
		k, err := write(c.fd, s.out)
		if err != nil {
			return n, err
		}
		if k == 0 {
			break
		}
		s.out = s.out[:copy(s.out, s.out[k:])]
	}
	return n, nil
}
