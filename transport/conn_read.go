package transport

import (
	"io"

	"hashplus/transport/link"
	"hashplus/transport/ws"
)

const (
	// Leftovers up to this size are put in front of the loop's buffer; what is
	// larger is read on to where it stands.
	maxCopiedRest = 4 << 10
	minRoom       = maxRecord

	// What a peer may make us answer while it takes nothing.
	maxQueuedPongs = 16 << 10
)

// receive offers leftovers and reads what the socket has, within the budget of
// one tick.
func (c *conn) receive() {
	budget := c.loop.opts.ReadBudget
	if c.has(again) && c.takesData() {
		c.unset(again)
		budget -= c.offerAgain()
	}
	// Behind messages that were put off nothing may be read: what comes would
	// overtake them. They have their turn in the next tick, or after Resume. Nor
	// behind bytes that the stream has put off, which would only pile up.
	for c.has(readable) && c.takesInput() && !c.backlogged() && !c.has(again) {
		if budget <= 0 {
			// The socket keeps what it has; nobody will tell us of it again.
			c.loop.makeReady(c)
			return
		}
		n, err := c.readSome()
		if err != nil {
			c.unset(readable)
			if err != errAgain {
				c.peerEnded(err)
			}
			return
		}
		budget -= n
	}
	if c.has(paused) && c.has(ending) && c.state == open && !c.has(moving) {
		c.endPaused()
	}
}

// takesData reports whether the stream may be called with input.
func (c *conn) takesData() bool { return c.state == open && !c.has(paused|moving) }

// takesInput reports whether the socket is to be read.
func (c *conn) takesInput() bool {
	switch c.state {
	case open:
		return !c.has(paused | moving)
	case securing:
		return c.sock.tls.fed < maxFed
	}
	return c.state != closed
}

// backlogged reports whether bytes were read but not looked at.
func (c *conn) backlogged() bool { return c.extra != nil && len(c.extra.raw) > 0 }

// endPaused looks whether a paused connection, whose peer has gone, has nothing
// left to be read. It is closed then; else that waits until Resume.
func (c *conn) endPaused() {
	if len(c.rest) > 0 || c.backlogged() || c.sock.unread(c) {
		return
	}
	_, err := c.sock.read(c, c.loop.buf[:1])
	if err != nil && err != errAgain {
		c.unset(readable)
		c.peerEnded(err)
	}
}

// readSome makes one read and handles what it brought.
func (c *conn) readSome() (n int, err error) {
	l := c.loop
	keep := len(c.rest)
	if c.has(perMessage) || c.state > open {
		keep = 0
	}
	if keep > maxCopiedRest {
		c.rest = l.pool.grow(c.rest, minRoom)
		room := c.rest[keep:cap(c.rest)]
		if n, err = c.sock.read(c, room); n > 0 {
			c.noteRead(n, len(room))
			b := c.rest[:keep+n]
			c.rest = nil
			c.handle(b, keep, true)
		}
		return n, err
	}
	// The usual case: read into the loop's buffer, behind room for what was left.
	room := l.buf[keep:]
	if n, err = c.sock.read(c, room); n > 0 {
		c.noteRead(n, len(room))
		if keep > 0 {
			copy(l.buf[:], c.rest)
			c.dropRest()
		}
		c.handle(l.buf[:keep+n], keep, false)
	}
	return n, err
}

// plainRead reports whether an event for reading causes one read into the loop's
// buffer, and nothing else.
func (c *conn) plainRead() bool {
	return c.is&^inCount == 0 && c.state == open && c.sock.pipe == nil && c.sock.tls == nil && len(c.rest) == 0 && !c.backlogged()
}

// received takes what a read of room brought with result: bytes, or what readError
// tells. A connection that has been paused meanwhile, or is on its way to another
// loop, keeps them.
func (c *conn) received(result int32, room []byte) {
	if result > 0 {
		b := room[:result]
		c.noteRead(len(b), len(room))
		switch {
		case c.state == open && (!c.takesData() || len(c.rest) > 0 || c.backlogged()):
			c.keepRaw(b)
		default:
			c.handle(b, 0, false)
		}
		return
	}
	switch err := readError(result); {
	case err == nil:
	case err == errAgain:
		c.unset(readable)
	case c.takesInput():
		c.unset(readable)
		c.peerEnded(err)
	default:
		// Paused, or on its way: it will hear of it when it reads again.
		c.set(ending)
	}
}

// keepRaw keeps b, which was read, until it may be looked at.
func (c *conn) keepRaw(b []byte) {
	x := c.more()
	x.raw = append(c.loop.pool.grow(x.raw, len(b)), b...)
	c.set(again)
	if !c.has(paused | moving) {
		c.loop.makeReady(c)
	}
}

// noteRead: a read that did not fill its buffer has emptied the socket, and the
// next bytes are a new event. Not so the end of the stream: its event may have
// come already.
func (c *conn) noteRead(n, room int) {
	if c.sock.emptied(n, room) && !c.has(ending) {
		c.unset(readable)
	}
}

// handle takes b, whose first keep bytes were left over by the stream and whose
// others are new. With own set b is a buffer from the pool, and c's.
func (c *conn) handle(b []byte, keep int, own bool) {
	switch {
	case c.state == awaitProxy:
		c.readProxy(b, own)
	case c.state == awaitUpgrade:
		c.upgrade(b, own)
	case c.state == securing:
		c.handshakeBytes(b)
	case c.state > open:
		c.throwAway(b)
	case c.framing == link.Raw:
		c.keepRest(b, c.offer(b), own)
	case c.has(perMessage):
		c.receiveMessages(b)
	default:
		c.receiveFrames(b, keep, own)
	}
}

// offer calls Data with b and returns what it leaves.
func (c *conn) offer(b []byte) (rest []byte) { return b[c.callData(b):] }

// offerAgain calls Data with what was left over and returns its size.
func (c *conn) offerAgain() (n int) {
	if b := c.rest; len(b) > 0 {
		n = len(b)
		c.rest = nil
		c.keepRest(b, c.offer(b), true)
	}
	if c.takesData() && c.backlogged() {
		raw := c.extra.raw
		n += len(raw)
		c.extra.raw = nil
		c.handleRaw(raw)
	}
	return n
}

// keepRest keeps rest, the end of b, for the next call of Data.
func (c *conn) keepRest(b, rest []byte, own bool) {
	pool := &c.loop.pool
	switch {
	case len(rest) == 0 || c.state > open:
		if own {
			pool.put(b)
		}
	case !own:
		c.rest = append(pool.get(len(rest)), rest...)
	case cap(b) > maxChunk:
		// Not from the pool: it can lose its front, and nothing is copied.
		c.rest = rest
	default:
		c.rest = b[:copy(b, rest)]
	}
}

// handleRaw takes raw, a buffer from the pool that is now c's, behind what was left
// over by the stream.
func (c *conn) handleRaw(raw []byte) {
	pool := &c.loop.pool
	switch keep := len(c.rest); {
	case c.has(perMessage):
		c.receiveMessages(raw)
		pool.put(raw)
	case keep == 0:
		c.handle(raw, 0, true)
	default:
		b := append(pool.grow(c.rest, len(raw)), raw...)
		c.rest = nil
		pool.put(raw)
		c.handle(b, keep, true)
	}
}

func (c *conn) dropRest() {
	if c.rest != nil {
		c.loop.pool.put(c.rest)
		c.rest = nil
	}
}

// receiveFrames takes the frames out of b[keep:] and offers the stream their
// payloads as one run of bytes, behind b[:keep]. Payloads are moved together in
// place: a packet in many frames, and many packets in many frames, both come to
// one call of Data, and a byte is moved at most once for each read.
func (c *conn) receiveFrames(b []byte, keep int, own bool) {
	start, end := 0, keep
	var (
		failure error
		goodbye []byte // payload of the peer's close frame
		control [ws.MaxControl]byte
	)
	for at := keep; at < len(b) && failure == nil && goodbye == nil; {
		n, ev, p, err := c.frames.Next(b[at:], &c.loop.codec)
		at += n
		failure = err
		switch ev {
		case ws.Data:
			if end == 0 {
				start, end = at-len(p), at
			} else {
				end += copy(b[end:], p)
			}
		case ws.Close:
			goodbye = append(control[:0], p...)
		default:
			c.control(ev, p)
		}
	}
	// What came before the end is for the stream still.
	rest := b[start:end]
	if len(rest) > keep {
		rest = c.offer(rest)
	}
	c.keepRest(b, rest, own)
	switch {
	case c.state != open:
	case failure != nil:
		c.failFrames(failure)
	case goodbye != nil:
		c.peerCloses(goodbye)
	}
}

// receiveMessages takes the messages out of b one by one, since one can be much
// larger than what came: a stream that pauses is spared the rest. It keeps a
// copy of what it does not take. b is not the loop's to keep.
func (c *conn) receiveMessages(b []byte) {
	budget := c.loop.opts.ReadBudget
	for len(b) > 0 {
		if budget <= 0 {
			c.Yield()
		}
		if budget <= 0 || !c.takesData() {
			if c.state == open {
				raw := c.more().raw
				c.extra.raw = append(c.loop.pool.grow(raw, len(b)), b...)
			}
			return
		}
		n, ev, p, err := c.frames.Next(b, &c.loop.codec)
		b = b[n:]
		if err != nil {
			c.failFrames(err)
			return
		}
		budget -= len(p)
		switch ev {
		case ws.Data, ws.Inflated:
			c.offerMore(p)
		case ws.Text, ws.Binary:
			c.callMessage(ev == ws.Text, p)
		case ws.Close:
			c.peerCloses(p)
			return
		default:
			c.control(ev, p)
		}
	}
}

// offerMore offers p behind what was left over.
func (c *conn) offerMore(p []byte) {
	switch {
	case len(p) == 0:
	case len(c.rest) == 0:
		c.keepRest(nil, c.offer(p), false)
	default:
		b := append(c.loop.pool.grow(c.rest, len(p)), p...)
		c.rest = nil
		c.keepRest(b, c.offer(b), true)
	}
}

// control handles pings and pongs.
func (c *conn) control(ev ws.Event, p []byte) {
	switch ev {
	case ws.Ping:
		// RFC 6455 section 5.5.3 allows answering only the latest of several
		// pings; a peer that takes no answers gets none.
		if c.Buffered() < maxQueuedPongs {
			var frame [ws.MaxControlFrame]byte
			pong := ws.AppendPong(frame[:0], p)
			copy(c.Reserve(len(pong)), pong)
		}
	case ws.Pong:
		c.lastPong = c.loop.now
	}
}

// throwAway handles input of a connection that is closing: only the peer's close
// frame still matters.
func (c *conn) throwAway(b []byte) {
	for at := 0; c.framing != link.Raw && !c.frames.Ended() && at < len(b); {
		n, ev, _, err := c.frames.Next(b[at:], &c.loop.codec)
		at += n
		if err != nil || ev == ws.Close {
			c.set(peerClosed)
			break
		}
	}
	x := c.more()
	if x.drained += len(b); x.drained > maxDrain {
		c.destroy()
		return
	}
	if c.state == awaitClose && c.has(peerClosed) {
		c.endWriting()
	}
}

// peerEnded handles the end of the input: io.EOF, or what broke.
func (c *conn) peerEnded(err error) {
	if c.state != open {
		// While something is still being flushed, a peer that has ended only
		// its own direction gets it.
		c.set(ending)
		if c.state == flushing && err == io.EOF {
			return
		}
		c.destroy()
		return
	}
	cause := err
	if err == io.EOF {
		cause = nil
		if c.framing != link.Raw {
			// No close frame came (RFC 6455 section 7.1.5, code 1006).
			cause = io.ErrUnexpectedEOF
		}
	}
	c.beginClose(cause)
	c.tellClosed()
	switch {
	case c.state == closed:
	case err != io.EOF || !c.unsent():
		c.destroy()
	default:
		c.loop.makeDirty(c)
	}
}
