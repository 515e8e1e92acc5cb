package transport

import (
	"errors"
	"strconv"

	"hashplus/transport/link"
	"hashplus/transport/ws"
)

// maxDrain is how many bytes a peer may still send while it is being closed.
const maxDrain = 1 << 20

// PeerCloseError is the cause of a connection's end when the peer closed a
// WebSocket with a code other than 1000, 1001 or none.
type PeerCloseError struct {
	Code   link.CloseCode
	Reason string
}

func (e *PeerCloseError) Error() string {
	return "transport: peer closed with " + strconv.Itoa(int(e.Code)) + " " + strconv.Quote(e.Reason)
}

// Close implements link.Conn.
func (c *conn) Close(code link.CloseCode, reason string) {
	c.closeWith(code, reason, ErrClosed)
}

// Abort implements link.Conn.
func (c *conn) Abort() { c.abort(ErrAborted) }

func (c *conn) abort(cause error) {
	if c.state == closed {
		return
	}
	if c.state <= open {
		c.beginClose(cause)
	}
	c.destroy()
}

// closeWith closes in order. The steps, and why in this order:
//
//  1. flushing: what the stream has queued reaches the peer, its reason for
//     the end above all, and then our close frame;
//  2. awaitClose: the peer answers it (RFC 6455 section 7.1.2);
//  3. draining: our direction ends, and input is read and thrown away until
//     the peer ends its own. Closing a socket with unread input would send a
//     reset, which takes what the peer has not read yet from it;
//  4. closed.
//
// due bounds 1 and 2 together, and then 3.
func (c *conn) closeWith(code link.CloseCode, reason string, cause error) {
	if c.state != open {
		return
	}
	c.beginClose(cause)
	if c.framing != link.Raw && !c.has(deaf) {
		var frame [ws.MaxControlFrame]byte
		b := ws.AppendClose(frame[:0], code, reason)
		copy(c.reserve(len(b)), b)
	}
}

// turnAway closes a connection in whatever state it is.
func (c *conn) turnAway(code link.CloseCode, reason string) {
	if c.state < open {
		c.refuse(ws.ErrUnavailable)
		return
	}
	c.closeWith(code, reason, ErrServerClosed)
}

// peerCloses answers the peer's close frame, whose payload is p.
func (c *conn) peerCloses(p []byte) {
	var cause error
	code, reason := ws.ParseClose(p)
	switch code {
	case link.CloseNormal, link.CloseGoingAway, 1005:
	default:
		cause = &PeerCloseError{code, string(reason)}
	}
	c.beginClose(cause)
	c.set(peerClosed)
	var frame [ws.MaxControlFrame]byte
	b := ws.AppendCloseReply(frame[:0], p)
	copy(c.reserve(len(b)), b)
	c.tellClosed()
}

// failFrames closes a connection that has broken the rules of WebSocket.
func (c *conn) failFrames(err error) {
	code, reason := link.CloseProtocolError, "protocol error"
	var broken *ws.Error
	if errors.As(err, &broken) {
		code, reason = broken.Code, broken.Reason
	}
	c.loop.log.Info("connection ended", "listener", c.info.Listener, "remote", c.info.Remote,
		"code", int(code), "detail", reason)
	c.closeWith(code, reason, err)
}

// beginClose enters flushing: no more input for the stream, and a deadline.
func (c *conn) beginClose(cause error) {
	c.become(flushing)
	c.more().cause = cause
	c.extra.raw = nil
	c.handshake = nil
	c.dropRest()
	c.unset(paused | again | moving | belowAsked | belowReached)
	c.due = c.loop.now + int64(c.loop.server.options().CloseTimeout)
	c.loop.Arm(&c.timer, c.due)
	if c.stream != nil {
		c.loop.ended = append(c.loop.ended, c)
	}
	// Whatever there is to write and to read: both go on without the stream.
	c.loop.makeDirty(c)
	if c.has(readable) {
		c.loop.makeReady(c)
	}
}

// flushed follows flushing when everything has been written.
func (c *conn) flushed() {
	if c.framing != link.Raw && !c.has(peerClosed|deaf) && !c.frames.Ended() {
		c.become(awaitClose)
		return
	}
	c.endWriting()
}

// endWriting ends our direction and waits a moment for the peer to end its own.
func (c *conn) endWriting() {
	c.become(draining)
	over := c.has(ending) && !c.has(readable)
	if over && c.sock.tls == nil || !c.sock.closeWrite(c) || over {
		// It has, and nothing is left to read; or it could not tell. With TLS the
		// goodbye is ours to say.
		c.destroy()
		return
	}
	c.due = c.loop.now + int64(c.loop.server.options().DrainTimeout)
	c.loop.Arm(&c.timer, c.due)
}

// tellClosed calls Stream.Closed, once.
func (c *conn) tellClosed() {
	if c.stream == nil || c.has(told) {
		return
	}
	c.set(told)
	c.callClosed(c.extra.cause)
	c.stream = nil
}

// destroy frees the socket and everything else. Closing has begun before, or
// there never was a stream.
func (c *conn) destroy() {
	if c.state == closed {
		return
	}
	c.become(closed)
	l := c.loop
	l.forget(c)
	c.frames.Release(&l.codec)
	c.dropRest()
	c.dropOut()
	if c.sock.tls != nil {
		c.sock.tls.release(c)
	}
	c.sock.close()
	c.leave(l.server)
	l.server.released(c.has(turned))
}
