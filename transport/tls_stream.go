package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// serveSecure is serveStream for a connection that is to speak TLS: on systems
// without a poller, and where the listener is none of the system's. crypto/tls
// reads and writes nc itself.
func (s *Server) serveSecure(e *endpoint, nc net.Conn) error {
	remote := remoteAddr(nc)
	_, counted, err := s.admit(e, remote.Addr())
	if err != nil {
		_ = nc.Close()
		return err
	}
	s.routines.Go(func() {
		first, in, err := s.identifyStream(e, nc, &remote)
		counted = counted || in
		if err == nil {
			var tc *tls.Conn
			if tc, err = s.shakeStream(e, nc, first); err == nil {
				s.counts.handshakes.Add(1)
				l := s.pick()
				e.served(remote, s.open(l, newOpening(newStreamConn(e, tc, remote, l), nil, nil, counted)))
				return
			}
			s.counts.tls.Add(1)
			err = handshakeError(err)
		}
		if errors.Is(err, errPlainHTTP) {
			_, _ = io.WriteString(nc, plainHTTP) // few bytes, and nobody depends on them
		}
		e.served(remote, err)
		_ = nc.Close()
		if counted {
			s.addresses.leave(remote.Addr(), monotonic())
		}
		s.released(false)
	})
	return nil
}

// shakeStream makes the handshake when it is its turn. As with a file
// descriptor, that is not before the client has said something.
// first is what was read already.
func (s *Server) shakeStream(e *endpoint, nc net.Conn, first []byte) (*tls.Conn, error) {
	h := s.handshakes
	defer context.AfterFunc(h.ctx, func() { _ = nc.Close() })()
	if err := nc.SetDeadline(time.Now().Add(s.options().TLSHandshakeTimeout)); err != nil {
		return nil, err
	}
	var err error
	if len(first) == 0 {
		var n int
		first = make([]byte, minPipeRead)
		n, err = nc.Read(first)
		first = first[:n]
	}
	if err == nil {
		err = checkHello(first)
	}
	if err != nil {
		return nil, lateAs(err, errHandshakeTime)
	}
	place := &handshake{set: h, turn: make(chan struct{}), stop: nc.Close, starve: true, wake: make(chan struct{}, 1)}
	if !h.add(place) {
		return nil, errHandshakeQueue
	}
	select {
	case <-place.turn:
	case <-h.ctx.Done():
		return nil, errClosedByLoop
	}
	defer h.leave(place)
	tc := tls.Server(&begunConn{nc, first}, e.credentials.current.Load().config)
	if err := tc.Handshake(); err != nil {
		if cause := place.why(); cause != nil {
			return nil, cause
		}
		return nil, lateAs(err, errHandshakeTime)
	}
	return tc, nc.SetDeadline(time.Time{})
}

// lateAs is late in place of an error that says that a deadline has passed.
func lateAs(err, late error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return late
	}
	return err
}

// begunConn is a net.Conn of which the first bytes were read already.
type begunConn struct {
	net.Conn
	first []byte
}

func (c *begunConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}
