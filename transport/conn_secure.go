package transport

import (
	"errors"

	"hashplus/transport/link"
)

// handshakeBytes takes bytes of the TLS handshake.
func (c *conn) handshakeBytes(b []byte) {
	s := c.sock.tls
	s.rest = append(c.loop.pool.grow(s.rest, len(b)), b...)
	if s.stage == tlsHello {
		if err := checkHello(s.rest); err != nil {
			c.failTLS(err)
			return
		}
	}
	whole, err := wholeRecords(s.rest)
	if err != nil {
		whole = len(s.rest) // crypto/tls tells the peer what is wrong with it
	}
	if whole == 0 {
		return
	}
	first := s.begun == nil
	if first {
		s.stage = tlsShake
		s.begun = newHandshake(c)
	}
	s.fed += whole
	s.begun.feed(s.rest[:whole])
	s.cutRest(whole, &c.loop.pool)
	if first && !s.begun.set.add(s.begun) {
		c.failTLS(errHandshakeQueue)
	}
}

// secured follows the handshake: the connection goes on as one without TLS
// begins.
func (c *conn) secured() {
	if c.loop.draining || c.endpoint.root.closed.Load() {
		c.destroy()
		return
	}
	c.become(awaitUpgrade)
	c.due = c.loop.now + int64(c.loop.server.options().HandshakeTimeout)
	c.begin()
	// Records may have come with the handshake's last, and nobody tells of what
	// came while the socket was not looked at.
	if c.state != closed {
		c.set(readable)
		c.receive()
	}
}

// failTLS closes a connection whose handshake has failed. What the handshake had
// to say of it is queued.
func (c *conn) failTLS(err error) {
	s := c.sock.tls
	s.stage = tlsEnded
	c.loop.server.counts.tls.Add(1)
	if s.begun != nil {
		s.begun.cancel(err)
		s.begun = nil
	}
	if errors.Is(err, errPlainHTTP) {
		s.queue(c, []byte(plainHTTP))
	}
	c.endRefused(handshakeError(err))
}

// distrusted reports whether a client's chain of that standing is not trusted any
// more by what its listener has read since.
func (c *conn) distrusted(standing []chainKey) bool {
	id := c.endpoint.root.trusts.Load()
	if id == nil && c.endpoint.credentials != nil {
		id = c.endpoint.credentials.current.Load()
	}
	return id != nil && id.distrusts(standing)
}

// endIfUnwanted ends a connection whose listener does not want it any more.
func (c *conn) endIfUnwanted() {
	switch {
	case c.state >= flushing:
	case c.endpoint.root.closed.Load():
		c.dismiss(link.ListenerClosed, link.CloseGoingAway, errListenerClosed)
	case c.distrusted(c.sock.chain()):
		c.dismiss(link.Revoked, link.ClosePolicy, errRevoked)
	}
}

// dismiss ends the connection for a reason of its listener's, which the stream, if
// there is one, tells the peer.
func (c *conn) dismiss(why link.Dismissal, code link.CloseCode, cause error) {
	if c.state == open {
		c.callDismissed(why)
	}
	if c.state < open {
		c.turnAway(code, why.String())
	} else {
		c.closeWith(code, why.String(), cause)
	}
}
