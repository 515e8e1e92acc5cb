package transport

import (
	"errors"

	"hashplus/transport/link"
	"hashplus/transport/ws"
)

// opening is a new connection on its way to its first loop.
type opening struct {
	conn  *conn
	early []byte      // bytes of it that were read already
	turn  *ws.Refusal // if set, all it gets
}

// newOpening opens c, or refuses it with turn if that is not nil. counted says
// that its address has been counted.
func newOpening(c *conn, early []byte, turn *ws.Refusal, counted bool) *opening {
	if turn != nil {
		c.set(turned)
	}
	if counted {
		c.set(inCount)
	}
	return &opening{conn: c, early: early, turn: turn}
}

func (o *opening) Run(l link.Loop) {
	c := o.conn
	c.loop = l.(*loop)
	if err := c.loop.adopt(c); err != nil {
		c.loop.log.Error("a connection could not be watched", "listener", c.info.Listener, "cause", err)
		c.destroy()
		return
	}
	if c.sock.pipe != nil {
		c.sock.pipe.start(o.early)
	}
	if c.loop.draining || c.endpoint.root.closed.Load() {
		o.turn = ws.ErrUnavailable
	}
	if o.turn != nil {
		c.refuse(o.turn)
		return
	}
	c.due = c.loop.now + int64(c.loop.server.options().HandshakeTimeout)
	if c.state == awaitProxy {
		c.schedule()
		c.expectProxy()
		return
	}
	c.begin()
}

// begin starts what the client itself has a part in. What it sent already is
// handled afterwards.
func (c *conn) begin() {
	if c.state == securing {
		c.due = c.loop.now + int64(c.loop.server.options().TLSHandshakeTimeout)
		c.schedule()
		return
	}
	if c.endpoint.upgrader == nil {
		c.openStream()
		return
	}
	c.schedule()
}

func (o *opening) discard() { o.conn.lose() }

// openStream announces the connection to the handler.
func (c *conn) openStream() {
	c.become(open)
	c.due = 0
	if ping := c.endpoint.Ping; ping > 0 && c.framing != link.Raw {
		c.due = c.loop.now + int64(ping)
	}
	c.schedule()
	c.stream = c.callOpen()
	switch {
	case c.stream == nil:
		c.abort(ErrAborted) // Open has failed, and nobody wants to know
	case c.state > open:
		// Closed within Open: the stream still hears of it.
		c.loop.ended = append(c.loop.ended, c)
	}
}

// upgrade collects the HTTP request in b and answers it when it is complete. What
// follows it are frames.
func (c *conn) upgrade(b []byte, own bool) {
	u := c.endpoint.upgrader
	n, err := u.Parse(&c.more().request, b)
	if n == 0 && err == nil {
		c.keepRest(b, b, own)
		return
	}
	if err != nil {
		c.refuse(err)
		c.keepRest(b, nil, own)
		return
	}
	answer, up, err := u.Upgrade(c.loop.pool.get(minChunk)[:0], b[:n])
	if err == nil {
		var refusal *ws.Refusal
		if refusal, err = c.identify(up.Handshake); err != nil {
			answer = ws.AppendRefusal(answer[:0], refusal)
		}
	}
	copy(c.reserve(len(answer)), answer)
	c.loop.pool.put(answer)
	if err != nil {
		c.endRefused(err)
		c.keepRest(b, nil, own)
		return
	}
	c.extra = nil
	c.framing = up.Framing
	c.handshake = up.Handshake
	c.info.Protocol = up.Protocol
	c.openStream()
	messages := false
	if _, ok := c.stream.(link.MessageStream); ok {
		messages = true
	}
	if messages || c.framing.Compressed() {
		c.set(perMessage)
	}
	limit := c.endpoint.MaxMessage
	if !messages {
		limit = min(limit, strangerMessage)
	}
	c.frames = ws.NewReader(c.framing, messages, int64(limit))
	if c.endpoint.Strict {
		c.frames.Strict()
	}
	c.handleEarly(b[n:])
	c.keepRest(b, nil, own)
}

// identify takes the client's address from the request h where the peer is a
// trusted proxy. The error says why that client is not let in, and the refusal
// what it is told.
func (c *conn) identify(h *link.Handshake) (*ws.Refusal, error) {
	name := c.endpoint.ForwardedHeader
	if name == "" {
		return nil, nil
	}
	client, err := c.endpoint.Trusted.origin(c.info.Remote, name, h.Header)
	if err != nil {
		return ws.ErrForwarded, err
	}
	return c.identified(client)
}

// strangerMessage bounds what is collected of a compressed message before
// link.Conn.Admit: it could be the first of an attacker's many connections.
const strangerMessage = 64 << 10

// handleEarly takes the frames that came with the request.
func (c *conn) handleEarly(b []byte) {
	switch {
	case len(b) == 0 || c.state != open:
	case c.has(perMessage):
		c.receiveMessages(b)
	default:
		c.receiveFrames(b, 0, false)
	}
}

// refuse answers with refusal, which is a *ws.Refusal where there is HTTP to
// answer, and closes.
func (c *conn) refuse(refusal error) {
	var r *ws.Refusal
	if c.speaksHTTP() && errors.As(refusal, &r) {
		answer := ws.AppendRefusal(nil, r)
		copy(c.reserve(len(answer)), answer)
	}
	c.endRefused(refusal)
}

// speaksHTTP reports whether the peer understands an answer in HTTP. Without
// TLS, or inside it.
func (c *conn) speaksHTTP() bool {
	if s := c.sock.tls; s != nil && s.stage < tlsOpen {
		s.stage = tlsEnded
		return false
	}
	return c.endpoint.upgrader != nil
}

// refuseWith is refuse for a reason that is not for the peer, which gets r.
func (c *conn) refuseWith(r *ws.Refusal, why error) {
	if c.speaksHTTP() {
		answer := ws.AppendRefusal(nil, r)
		copy(c.reserve(len(answer)), answer)
	}
	c.endRefused(why)
}

func (c *conn) endRefused(refusal error) {
	c.loop.server.logRefused(c.endpoint, c.info.Remote, refusal)
	c.beginClose(refusal)
}

// lose closes a connection that no loop can take any more: the server has
// stopped.
func (c *conn) lose() {
	c.state = closed
	if c.out != nil {
		c.out.drop(&bufPool{})
		c.out = nil
	}
	server := c.endpoint.server
	c.sock.close()
	c.leave(server)
	server.released(c.has(turned))
	if c.stream != nil && !c.has(told) {
		c.set(told)
		defer func() {
			if r := recover(); r != nil {
				server.opts.Logger.Error("panic in a connection's Closed", "panic", r)
			}
		}()
		c.stream.Closed(ErrServerClosed)
	}
}
