package transport

import (
	"hashplus/transport/link"
)

// maxFlush is how many bytes one connection may write in one tick.
const maxFlush = 1 << 20

// Reserve implements link.Conn.
func (c *conn) Reserve(n int) []byte {
	if c.state != open || c.has(deaf) {
		return c.loop.nowhere(n)
	}
	return c.reserve(n)
}

func (c *conn) reserve(n int) []byte {
	return c.queue().reserve(n, &c.loop.pool)
}

// queue returns the write queue and sees that it is written at the end of the tick.
func (c *conn) queue() *writeQueue {
	if c.out == nil {
		c.out = c.loop.getQueue()
	}
	if c.dirtyAt < 0 && !c.has(full|moving) {
		c.loop.makeDirty(c)
	}
	return c.out
}

// WriteShared implements link.Conn.
func (c *conn) WriteShared(p []byte, s link.Shared) {
	if len(p) == 0 || c.state != open || c.has(deaf) {
		s.Release()
		return
	}
	c.queue().share(p, s)
}

// SendMessage implements link.Messenger.
func (c *conn) SendMessage(text bool, p []byte) {
	if c.framing == link.Raw || c.state != open || c.has(deaf) {
		return
	}
	f := c.framing
	if len(p) < c.endpoint.DeflateMinSize {
		f = link.WebSocket
	}
	frame := c.loop.codec.AppendMessage(c.loop.pool.get(len(p)+16), f, text, p)
	copy(c.reserve(len(frame)), frame)
	c.loop.pool.put(frame)
}

// Buffered implements link.Conn.
func (c *conn) Buffered() int {
	if c.out == nil {
		return 0
	}
	return c.out.size
}

// unsent reports whether something that was queued is still in this process.
func (c *conn) unsent() bool { return c.out != nil || c.sock.pending() }

// flush writes what is queued, as far as the socket takes it.
func (c *conn) flush() {
	if c.has(full) || c.state == closed {
		return
	}
	if err := c.sock.push(c); err == errAgain {
		c.stall()
		return
	} else if err != nil {
		c.breakWriting()
		return
	}
	q := c.out
	for budget := maxFlush; q != nil && q.size > 0; {
		if budget <= 0 {
			c.loop.makeDirty(c)
			break
		}
		n, err := c.sock.write(c, q)
		if err == errAgain {
			c.stall()
			break
		}
		if err != nil {
			c.breakWriting()
			return
		}
		budget -= n
		c.progress = c.loop.now
		q.consume(n, &c.loop.pool)
	}
	c.afterWrite()
}

// oneSend returns what is queued if one plain send is all that flush would try,
// else nil. It stays as it is until sent or flush is called.
func (c *conn) oneSend() []byte {
	q := c.out
	if q == nil || q.size == 0 || c.has(full) || c.state == closed || c.sock.pipe != nil {
		return nil
	}
	if c.sock.tls != nil {
		return c.sock.tls.oneSend(c, q)
	}
	if q.size > maxFlush || q.head != len(q.segments)-1 {
		return nil
	}
	return q.front()
}

// sent goes on with flush when the bytes of oneSend have been sent with result:
// how many the socket took, or a negative error number.
func (c *conn) sent(result int32) {
	if c.sock.tls != nil {
		c.sentSealed(result)
		return
	}
	if result >= 0 {
		c.progress = c.loop.now
		c.out.consume(int(result), &c.loop.pool)
		if c.out.size == 0 {
			c.afterWrite()
			return
		}
	} else if err := sendError(result); err == errAgain {
		c.stall()
		c.afterWrite()
		return
	} else if err != nil {
		c.breakWriting()
		return
	}
	c.flush()
}

// sentSealed is sent with TLS: the queue is empty, and what it held is sealed.
func (c *conn) sentSealed(result int32) {
	err := error(nil)
	if result >= 0 {
		c.progress = c.loop.now
		c.sock.tls.cutOut(int(result))
	} else {
		err = sendError(result)
	}
	if err == nil {
		err = c.sock.push(c) // what is left, if anything
	}
	if err != nil && err != errAgain {
		c.breakWriting()
		return
	}
	c.afterWrite()
}

// afterWrite looks at what a flush has left, if anything.
func (c *conn) afterWrite() {
	q := c.out
	if q != nil && q.size == 0 {
		c.out = nil
		c.loop.putQueue(q)
		if c.sock.pending() {
			// Its writer has the last of it, and may wait for the peer for ever.
			c.stall()
		}
	}
	c.checkBelow()
	if c.state == flushing && !c.unsent() {
		c.flushed()
	}
}

// stall waits for room in the socket.
func (c *conn) stall() {
	c.set(full)
	c.progress = c.loop.now
	c.schedule()
}

// breakWriting is called when the socket takes nothing any more. The peer may
// have sent something before it went, a DISCONNECT for example, so the stream
// goes on reading up to the end.
func (c *conn) breakWriting() {
	c.set(deaf | ending | readable)
	c.dropOut()
	if c.sock.tls != nil {
		c.sock.tls.dropOut(&c.loop.pool)
	}
	if c.state == flushing || c.state == awaitClose {
		c.destroy()
		return
	}
	c.loop.makeReady(c)
}

func (c *conn) dropOut() {
	if q := c.out; q != nil {
		c.out = nil
		q.drop(&c.loop.pool)
		c.loop.putQueue(q)
	}
}
