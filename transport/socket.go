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
	fd   int32
}

// read reads into b, which is not empty. It returns 0 and errAgain, io.EOF or
// what broke.
func (s *socket) read(b []byte) (int, error) {
	if s.pipe != nil {
		return s.pipe.read(b)
	}
	return rawRead(s.fd, b)
}

// write takes bytes off the front of q, which is not empty, and returns how
// many; 0 with errAgain or what broke. The caller consumes them.
func (s *socket) write(q *writeQueue, scratch *vector) (int, error) {
	if s.pipe != nil {
		return s.pipe.write(q)
	}
	if q.head == len(q.segments)-1 {
		return rawWrite(s.fd, q.front())
	}
	return rawWritev(s.fd, q, scratch)
}

// pending reports whether bytes that write took may still be in this process.
func (s *socket) pending() bool { return s.pipe != nil && s.pipe.writing }

// unread reports whether bytes wait to be read.
func (s *socket) unread() bool {
	if s.pipe != nil {
		return s.pipe.unread()
	}
	return rawUnread(s.fd)
}

// closeWrite ends the outgoing direction, when nothing is pending. It reports
// false where one direction cannot end alone.
func (s *socket) closeWrite() bool {
	if s.pipe != nil {
		return s.pipe.closeWrite()
	}
	rawCloseWrite(s.fd)
	return true
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
