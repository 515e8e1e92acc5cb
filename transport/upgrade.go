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

// newOpening opens c, or refuses it with turn if that is not nil.
func newOpening(c *conn, early []byte, turn *ws.Refusal) *opening {
	if turn != nil {
		c.set(turned)
	}
	return &opening{conn: c, early: early, turn: turn}
}

func (o *opening) Run(l link.Loop) {
	c := o.conn
	c.loop = l.(*loop)
	if err := c.loop.adopt(c); err != nil {
		c.loop.log.Error("a connection could not be watched", "listener", c.info.Listener, "error", err)
		c.destroy()
		return
	}
	if c.sock.pipe != nil {
		c.sock.pipe.start(o.early)
	}
	if c.loop.draining {
		o.turn = ws.ErrUnavailable
	}
	if o.turn != nil {
		c.refuse(o.turn)
		return
	}
	if c.endpoint.upgrader == nil {
		c.openStream()
		return
	}
	c.due = c.loop.now + int64(c.loop.opts.HandshakeTimeout)
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
	if c.endpoint.upgrader != nil && errors.As(refusal, &r) {
		answer := ws.AppendRefusal(nil, r)
		copy(c.reserve(len(answer)), answer)
	}
	c.endRefused(refusal)
}

func (c *conn) endRefused(refusal error) {
	c.loop.log.Info("connection refused", "listener", c.info.Listener, "remote", c.info.Remote, "detail", refusal)
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
