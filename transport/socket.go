package transport

import "errors"

// readiness is what a poller or a pipe tells of a socket.
type readiness uint8

const (
	canRead  readiness = 1 << iota // bytes, the end, or an error wait to be read
	canWrite                       // a socket that was full has room
	peerGone                       // the peer has ended its direction, or all of it
)

// errAgain: the socket has nothing to read, or no room, until the next event.
var errAgain = errors.New("transport: would block")

// socket is what bytes come from and go to, without blocking and with edges
// for events: a file descriptor in the loop's poller, or, with pipe set, a
// net.Conn with goroutines. Both behave the same, so that everything above is
// written once. It is owned by the loop of its connection.
type socket struct {
	pipe *pipe
	tls  *secure // nil without TLS; a pipe has it inside its net.Conn
	fd   int32
}

// read reads into b, which is not empty. It returns 0 and errAgain, io.EOF or
// what broke. c is the connection of s.
func (s *socket) read(c *conn, b []byte) (int, error) {
	switch {
	case s.pipe != nil:
		return s.pipe.read(b)
	case s.tls != nil:
		return s.tls.read(c, b)
	}
	return rawRead(s.fd, b)
}

// emptied reports whether a read that brought n bytes into room for so many has
// left nothing to read until the next event.
func (s *socket) emptied(n, room int) bool {
	if s.tls != nil {
		return s.tls.emptied()
	}
	return n < room
}

// write takes bytes off the front of q, which is not empty, and returns how
// many; 0 with errAgain or what broke. The caller consumes them.
func (s *socket) write(c *conn, q *writeQueue) (int, error) {
	switch {
	case s.pipe != nil:
		return s.pipe.write(q)
	case s.tls != nil:
		return s.tls.write(c, q)
	}
	if q.head == len(q.segments)-1 {
		return rawWrite(s.fd, q.front())
	}
	return rawWritev(s.fd, q, &c.loop.vector)
}

// pending reports whether bytes that write took may still be in this process.
func (s *socket) pending() bool {
	return s.pipe != nil && s.pipe.writing || s.tls != nil && len(s.tls.out) > 0
}

// push writes what write took and kept, as far as it is this loop that writes it.
func (s *socket) push(c *conn) error {
	if s.tls != nil && s.tls.out != nil {
		return s.tls.push(c)
	}
	return nil
}

// unread reports whether bytes wait to be read.
func (s *socket) unread(c *conn) bool {
	switch {
	case s.pipe != nil:
		return s.pipe.unread()
	case s.tls != nil:
		return s.tls.unread(c)
	}
	return rawUnread(s.fd)
}

// closeWrite ends the outgoing direction, when nothing is pending. It reports
// false where one direction cannot end alone.
func (s *socket) closeWrite(c *conn) bool {
	switch {
	case s.pipe != nil:
		return s.pipe.closeWrite()
	case s.tls != nil:
		s.tls.closeWrite(c)
	default:
		rawCloseWrite(s.fd)
	}
	return true
}

// chain is the standing of the client's certificate, see standingOf.
func (s *socket) chain() []chainKey {
	switch {
	case s.pipe != nil:
		return s.pipe.chain
	case s.tls != nil:
		return s.tls.chain
	}
	return nil
}

// close frees the socket.
func (s *socket) close() {
	if s.pipe != nil {
		s.pipe.close()
		return
	}
	rawClose(s.fd)
}

// attach makes l the loop whose events carry slot and gen. Events that came
// before count for nothing: the caller reads and writes at once.
func (s *socket) attach(l *loop, slot, gen uint32) error {
	if s.pipe != nil {
		return nil // its events look up the connection's loop
	}
	return l.poller.add(s.fd, slot, gen)
}

// detach ends events for l. The next loop is to.
func (s *socket) detach(l, to *loop) error {
	if s.pipe != nil {
		s.pipe.loop.Store(to)
		return nil
	}
	return l.poller.remove(s.fd)
}
