package transport

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// secure is TLS of a connection that is a file descriptor. crypto/tls speaks it,
// over a net.Conn that never blocks: Read gives the complete records that the
// loop has read and then says that its deadline has passed, which crypto/tls
// does not hold against the connection; Write puts records on a queue. So an
// idle connection has no goroutine and, between two records, no buffer
// (docs/adr/0011). The handshake, which cannot be left half-way, runs in a goroutine;
// see handshake.
type secure struct {
	// Owned by the goroutine of the handshake while that runs, else by the loop.
	tls   *tls.Conn
	shake *handshake // whose goroutine runs
	bench *tlsBench  // of the loop, during a call of tls

	// Owned by the loop.
	stage tlsStage
	begun *handshake // during tlsShake
	more  bool       // the socket may hold more than the last read took
	half  bool       // our direction ends when out is empty
	held  bool       // tls may have records that it has not looked at
	fed   int        // bytes that the handshake has not answered yet

	rest  []byte // ciphertext: records that are not complete; pooled
	plain []byte // plaintext that was read ahead, see unread; pooled
	out   []byte // ciphertext that the socket has not taken; pooled
	err   error  // what the next read returns

	chain []chainKey // of the client's certificate
}

// tlsStage is how far TLS has come. It only ever grows.
type tlsStage uint8

const (
	tlsHello tlsStage = iota // the first record is being collected
	tlsShake                 // the handshake has begun
	tlsOpen                  // records come and go
	tlsEnded                 // the handshake has failed: bytes mean nothing
)

// maxAnswers is how much may wait for the socket when TLS has something to
// answer: to each request for new keys there is an answer. What one read brings
// comes to less than half of it.
const maxAnswers = 128 << 10

var errAnswers = errors.New("transport: the peer makes TLS answer and reads nothing")

// tlsBench is what a loop needs to work on connections with TLS, one at a time.
type tlsBench struct {
	feed   []byte       // complete records that tls.Conn has not read
	sealed []byte       // what it has written
	cipher []byte       // room for what is read from a socket
	plain  []byte       // plaintext of one flush
	lent   bytes.Buffer // see lend
}

// maxSeal is how much plaintext is encrypted at once: full records, and no more
// than a socket usually takes.
const maxSeal = 4 * maxPlaintext

func (l *loop) tlsBench() *tlsBench {
	if l.bench == nil {
		l.bench = &tlsBench{
			sealed: make([]byte, 0, maxSeal+4*256), cipher: make([]byte, readBuffer), plain: make([]byte, 0, maxSeal),
		}
		// As much as bytes.Buffer wants to have free for a read of everything.
		l.bench.lent.Grow(readBuffer + bytes.MinRead)
	}
	return l.bench
}

// Read implements net.Conn, for crypto/tls only.
func (s *secure) Read(b []byte) (int, error) {
	if s.shake != nil {
		return s.shake.read(b)
	}
	if len(s.bench.feed) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, s.bench.feed)
	s.bench.feed = s.bench.feed[n:]
	return n, nil
}

// Write implements net.Conn, for crypto/tls only.
func (s *secure) Write(b []byte) (int, error) {
	if s.shake != nil {
		s.shake.out = append(s.shake.out, b...)
	} else {
		s.bench.sealed = append(s.bench.sealed, b...)
	}
	return len(b), nil
}

// The rest of net.Conn, which crypto/tls calls but which changes nothing here.

func (s *secure) Close() error                     { return nil }
func (s *secure) LocalAddr() net.Addr              { return nil }
func (s *secure) RemoteAddr() net.Addr             { return nil }
func (s *secure) SetDeadline(time.Time) error      { return nil }
func (s *secure) SetReadDeadline(time.Time) error  { return nil }
func (s *secure) SetWriteDeadline(time.Time) error { return nil }

// read is socket.read: before and after TLS it gives bytes as they come.
func (s *secure) read(c *conn, b []byte) (int, error) {
	if s.stage != tlsOpen {
		n, err := rawRead(c.sock.fd, b)
		s.more = n == len(b)
		return n, err
	}
	if len(s.plain) == 0 && len(b) >= maxRecord {
		return s.readRecords(c, b)
	}
	if len(s.plain) == 0 {
		if err := s.readAhead(c); err != nil {
			return 0, err
		}
	}
	n := copy(b, s.plain)
	if s.plain = s.plain[:copy(s.plain, s.plain[n:])]; len(s.plain) == 0 {
		s.dropPlain(&c.loop.pool)
	}
	return n, nil
}

// readAhead reads into plain, which is empty.
func (s *secure) readAhead(c *conn) error {
	b := c.loop.pool.get(maxChunk)
	n, err := s.readRecords(c, b[:cap(b)])
	if n == 0 {
		c.loop.pool.put(b)
		return err
	}
	s.plain = b[:n]
	return nil
}

// readRecords reads what the socket has into b, which has room for maxRecord
// bytes: as much ciphertext as b is long at most, so what comes out of it fits,
// and nothing but the last, incomplete record is left over.
func (s *secure) readRecords(c *conn, b []byte) (int, error) {
	l := c.loop
	w := l.tlsBench()
	for s.err == nil {
		if s.held {
			s.held, s.more = false, true
			var n int
			if n, s.err = s.open(c, nil, b); n > 0 {
				return n, nil
			}
			continue
		}
		limit := min(len(b), len(w.cipher))
		// More than that can be there after the handshake only.
		in := append(w.cipher[:0], s.rest[:min(len(s.rest), limit)]...)
		old := len(in)
		whole, broken := wholeRecords(in)
		if whole == 0 && broken == nil {
			n, err := s.fill(c, in, limit)
			if n == 0 {
				return 0, err
			}
			in = in[:old+n]
			whole, broken = wholeRecords(in)
		} else {
			s.more = true // nobody has asked the socket
		}
		if broken != nil {
			whole = len(in) // crypto/tls tells the peer what is wrong with it
		}
		if len(in) > old {
			s.keepRest(in[whole:], &l.pool)
		} else {
			s.cutRest(whole, &l.pool)
		}
		n, err := s.open(c, in[:whole], b)
		if s.err = err; err == nil {
			s.err = broken
		}
		if n > 0 {
			return n, nil
		}
		if s.err == nil && !s.more && !c.has(ending) {
			return 0, errAgain
		}
	}
	return 0, s.err
}

// fill reads from the socket behind in, up to limit bytes in all.
func (s *secure) fill(c *conn, in []byte, limit int) (n int, err error) {
	n, err = rawRead(c.sock.fd, in[len(in):limit])
	s.more = n == limit-len(in)
	switch {
	case n > 0 || err == errAgain:
		return n, err
	case err == io.EOF && len(in) > 0:
		err = io.ErrUnexpectedEOF
	}
	s.err = err
	return 0, err
}

// open decrypts the complete records in. Its error is final.
func (s *secure) open(c *conn, in, b []byte) (n int, err error) {
	w := c.loop.tlsBench()
	s.bench, w.feed, w.sealed = w, in, w.sealed[:0]
	lend(s.tls, &w.lent)
	for {
		var got int
		got, err = s.tls.Read(b[n:])
		n += got
		if err != nil || len(w.feed) == 0 && allRead(s.tls) {
			break
		}
		if n == len(b) {
			s.held = true
			break
		}
	}
	giveBack(s.tls, &w.lent)
	s.bench, w.feed = nil, nil
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	if len(w.sealed) > 0 {
		s.queue(c, w.sealed)
		if len(s.out) > maxAnswers && err == nil {
			err = errAnswers
		}
	}
	return n, err
}

// queue has b written at the end of the tick.
func (s *secure) queue(c *conn, b []byte) {
	s.out = append(c.loop.pool.grow(s.out, len(b)), b...)
	if !c.has(full | moving) {
		c.loop.makeDirty(c)
	}
}

// keepRest replaces rest.
func (s *secure) keepRest(b []byte, pool *bufPool) {
	if len(b) > cap(s.rest) || len(b) == 0 {
		pool.put(s.rest)
		s.rest = nil
	}
	if len(b) > 0 {
		if s.rest == nil {
			s.rest = pool.get(len(b))
		}
		s.rest = append(s.rest[:0], b...)
	}
}

// cutRest takes n bytes off the front of rest.
func (s *secure) cutRest(n int, pool *bufPool) {
	if s.rest = s.rest[:copy(s.rest, s.rest[n:])]; len(s.rest) == 0 {
		s.keepRest(nil, pool)
	}
}

// unread reports whether plaintext waits to be read. Records do not show what is
// in them, so what the socket has is read and kept.
func (s *secure) unread(c *conn) bool {
	if s.stage != tlsOpen {
		return rawUnread(c.sock.fd)
	}
	if len(s.plain) > 0 {
		return true
	}
	return s.err == nil && s.readAhead(c) == nil
}

// emptied reports whether the next bytes are a new event.
func (s *secure) emptied() bool { return !s.more && !s.held && s.err == nil && len(s.plain) == 0 }

// write is socket.write: it encrypts bytes of q, writes as much of it as the
// socket takes and keeps the rest.
func (s *secure) write(c *conn, q *writeQueue) (int, error) {
	if len(s.out) > 0 {
		return 0, errAgain
	}
	w := c.loop.tlsBench()
	n, err := s.seal(w, q)
	if err != nil {
		return 0, err
	}
	for rest := w.sealed; len(rest) > 0; {
		n, err := rawWrite(c.sock.fd, rest)
		if err == errAgain {
			s.out = append(c.loop.pool.get(len(rest)), rest...)
			break
		}
		if err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return n, nil
}

// seal encrypts the front of q into w.sealed and returns how much of it.
func (s *secure) seal(w *tlsBench, q *writeQueue) (int, error) {
	b := q.front()
	if q.head < len(q.segments)-1 && len(b) < maxSeal {
		// Together they are one record, or fewer of them.
		b = w.gather(q)
	}
	b = b[:min(len(b), maxSeal)]
	s.bench, w.sealed = w, w.sealed[:0]
	_, err := s.tls.Write(b)
	s.bench = nil
	return len(b), err
}

// oneSend is conn.oneSend: it empties q into out, if that is all there is.
func (s *secure) oneSend(c *conn, q *writeQueue) []byte {
	if len(s.out) > 0 || q.size > maxSeal {
		return nil
	}
	w := c.loop.tlsBench()
	n, err := s.seal(w, q)
	if err != nil {
		return nil // write will meet it again
	}
	q.consume(n, &c.loop.pool)
	s.out = append(c.loop.pool.get(len(w.sealed)), w.sealed...)
	return s.out
}

// cutOut takes n bytes off the front of out.
func (s *secure) cutOut(n int) { s.out = s.out[:copy(s.out, s.out[n:])] }

// gather copies the front of q together.
func (w *tlsBench) gather(q *writeQueue) []byte {
	b, off := w.plain[:0], q.off
	for _, s := range q.segments[q.head:] {
		b = append(b, s.b[off:][:min(len(s.b)-off, maxSeal-len(b))]...)
		if len(b) == maxSeal {
			break
		}
		off = 0
	}
	return b
}

// push writes out. It returns errAgain while something is left.
func (s *secure) push(c *conn) error {
	for len(s.out) > 0 {
		n, err := rawWrite(c.sock.fd, s.out)
		if err != nil {
			return err
		}
		c.progress = c.loop.now
		s.cutOut(n)
	}
	s.dropOut(&c.loop.pool)
	if s.half {
		rawCloseWrite(c.sock.fd)
	}
	return nil
}

// closeWrite says goodbye and ends our direction, as soon as the socket takes it.
func (s *secure) closeWrite(c *conn) {
	s.half = true
	if s.stage == tlsOpen {
		w := c.loop.tlsBench()
		s.bench, w.sealed = w, w.sealed[:0]
		_ = s.tls.CloseWrite() // after a failure it has said so already
		s.bench = nil
		s.out = append(c.loop.pool.grow(s.out, len(w.sealed)), w.sealed...)
	}
	switch err := s.push(c); {
	case err == errAgain:
		c.set(full)
	case err != nil:
		s.dropOut(&c.loop.pool)
	}
}

// release frees what belongs to s; the socket is closed after it.
func (s *secure) release(c *conn) {
	if s.begun != nil {
		s.begun.cancel(errClosedByLoop)
		s.begun = nil
	}
	if len(s.out) > 0 {
		// An alert that says what was wrong: it arrives or it does not.
		_, _ = rawWrite(c.sock.fd, s.out)
	}
	pool := &c.loop.pool
	s.dropOut(pool)
	s.dropPlain(pool)
	s.keepRest(nil, pool)
}

func (s *secure) dropOut(pool *bufPool) {
	if s.out != nil {
		pool.put(s.out)
		s.out = nil
	}
}

func (s *secure) dropPlain(pool *bufPool) {
	if s.plain != nil {
		pool.put(s.plain)
		s.plain = nil
	}
}
