package transport

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"strconv"

	"hashplus/transport/link"
	"hashplus/transport/ws"
)

// Causes that Stream.Closed is given.
var (
	// ErrClosed: this side called Close.
	ErrClosed = errors.New("transport: closed by this side")
	// ErrAborted: this side called Abort.
	ErrAborted = errors.New("transport: aborted by this side")
	// ErrServerClosed: the server has stopped. Also returned by its methods.
	ErrServerClosed = errors.New("transport: server closed")
)

// state is how far a connection has come. It only ever grows.
type state uint8

const (
	awaitProxy   state = iota // the PROXY header is being collected
	securing                  // the TLS handshake is being made
	awaitUpgrade              // the HTTP request is being collected
	open                      // a stream has it
	flushing                  // closing: what is queued is being written
	awaitClose                // closing: the peer's close frame is awaited
	draining                  // closing: our direction has ended, input is thrown away
	closed                    // the socket is gone
)

// facts are what is true of a connection beside its state.
type facts uint16

const (
	readable     facts = 1 << iota // the socket may have something to read
	full                           // the socket takes nothing until its next event
	deaf                           // the socket takes nothing any more
	ending                         // the peer has ended its direction: read until the end
	paused                         // no Data
	again                          // offer what was left over, even if nothing comes
	belowAsked                     // NotifyBelow is to be answered
	belowReached                   // and can be
	moving                         // Move was called
	told                           // Stream.Closed was called
	perMessage                     // input is handled message by message, see receiveMessages
	peerClosed                     // the peer's close frame has come
	turned                         // it is being told that there are too many
	inCount                        // in server.addresses
)

// conn is one connection, of either kind of socket. Most of them are idle at
// any time, so what an idle one does not need is behind pointers that are nil.
type conn struct {
	// Immutable after the connection is open.
	info     link.Info
	endpoint *endpoint
	framing  link.Framing

	// Owned by the loop.
	state   state
	is      facts
	loop    *loop // changed only while no loop serves the connection
	sock    socket
	slot    uint32
	gen     uint32
	readyAt int32 // place in loop.ready, or -1
	dirtyAt int32 // place in loop.dirty, or -1
	moveTo  int32
	below   int32 // for NotifyBelow

	stream link.Stream
	frames ws.Reader

	rest []byte      // bytes that the stream has not used, from loop.pool
	out  *writeQueue // nil if nothing is queued

	handshake *link.Handshake
	extra     *extra

	timer    link.Timer
	due      int64 // end of the handshake; next ping; end of closing
	progress int64 // when the peer last took bytes, while full
	lastPong int64
}

// extra is what only connections in some states need.
type extra struct {
	request ws.Request // in awaitUpgrade
	raw     []byte     // bytes read but not looked at
	cause   error      // from flushing on: for Stream.Closed
	drained int        // from flushing on: bytes thrown away
}

// newConn returns a connection that no loop has yet.
func newConn(e *endpoint, remote netip.AddrPort) *conn {
	c := &conn{endpoint: e, readyAt: -1, dirtyAt: -1}
	c.info = link.Info{
		Listener: e.name, Transport: e.transport, Remote: remote, PongGrace: e.PongGrace,
		Exempt: e.exempt(remote.Addr()),
	}
	if e.ProxyProtocol == ProxyOff {
		c.state = awaitUpgrade
	}
	c.timer.Owner = c
	c.sock.fd = -1
	return c
}

// newRawConn takes over fd, a non-blocking socket.
func newRawConn(e *endpoint, fd int32, remote netip.AddrPort) *conn {
	c := newConn(e, remote)
	c.sock.fd = fd
	if e.credentials != nil {
		if c.state == awaitUpgrade {
			c.state = securing
		}
		c.sock.tls = &secure{}
	}
	return c
}

// newStreamConn takes over nc, which l serves first.
func newStreamConn(e *endpoint, nc net.Conn, remote netip.AddrPort, l *loop) *conn {
	c := newConn(e, remote)
	c.sock.pipe = newPipe(c, nc, l, &l.server.routines)
	if tc, ok := nc.(*tls.Conn); ok {
		c.state = awaitUpgrade // a PROXY header comes before TLS, so it has been read
		if s := tc.ConnectionState(); s.HandshakeComplete {
			c.info.TLS, c.sock.pipe.chain = e.credentials.describe(&s)
		}
	}
	return c
}

// remoteAddr is the address of nc's peer, in the form that link.Info has.
func remoteAddr(nc net.Conn) (remote netip.AddrPort) {
	if addr, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		remote = unmap(addr.AddrPort())
	}
	return remote
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (c *conn) has(f facts) bool { return c.is&f != 0 }
func (c *conn) set(f facts)      { c.is |= f }
func (c *conn) unset(f facts)    { c.is &^= f }

// become enters a later state.
func (c *conn) become(s state) {
	if s <= c.state {
		panic("transport: connection state goes backwards")
	}
	c.state = s
}

func (c *conn) more() *extra {
	if c.extra == nil {
		c.extra = new(extra)
	}
	return c.extra
}

// Loop implements link.Conn.
func (c *conn) Loop() link.Loop { return c.loop }

// Info implements link.Conn.
func (c *conn) Info() *link.Info { return &c.info }

// Handshake implements link.Conn.
func (c *conn) Handshake() *link.Handshake { return c.handshake }

// Admit implements link.Conn.
func (c *conn) Admit() {
	c.handshake = nil
	c.frames.SetLimit(int64(c.endpoint.MaxMessage))
}

// Framing implements link.Conn.
func (c *conn) Framing() link.Framing { return c.framing }

// LastPong implements link.Conn.
func (c *conn) LastPong() int64 { return c.lastPong }

// event is told what the socket is ready for.
func (c *conn) event(what readiness) {
	if c.has(moving) || c.state == closed {
		return // the next loop looks for itself
	}
	if what&canWrite != 0 && c.has(full) || c.sock.pipe != nil && what&canWrite != 0 {
		// 1. Room first, so that what the input causes joins what waited. The
		// write itself is at the end of the tick.
		c.unset(full)
		c.loop.makeDirty(c)
	}
	if what&peerGone != 0 {
		c.set(ending)
	}
	if what&canRead != 0 {
		// 2. Input, up to its end: what the peer sent before it went counts.
		c.set(readable)
		c.serve()
	}
}

// serve handles what needs no event: input, leftovers, answers to NotifyBelow.
func (c *conn) serve() {
	if c.has(belowReached) && !c.has(moving) && c.state == open {
		c.unset(belowReached)
		c.callWritable()
	}
	c.receive()
}

// Pause implements link.Conn.
func (c *conn) Pause() { c.set(paused) }

// Resume implements link.Conn.
func (c *conn) Resume() {
	if !c.has(paused) || c.state != open {
		return
	}
	c.unset(paused)
	c.set(again)
	if !c.has(moving) {
		c.loop.makeReady(c)
	}
}

// Yield implements link.Conn.
func (c *conn) Yield() {
	c.set(again)
	if c.state == open && !c.has(moving) {
		c.loop.makeReady(c)
	}
}

// NotifyBelow implements link.Conn.
func (c *conn) NotifyBelow(n int) {
	c.below = int32(min(n, 1<<31-1))
	c.set(belowAsked)
	c.checkBelow()
}

func (c *conn) checkBelow() {
	if c.has(belowAsked) && c.Buffered() <= int(c.below) && !c.has(moving) {
		c.unset(belowAsked)
		c.set(belowReached)
		c.loop.makeReady(c)
	}
}

// Expire implements link.Expirer.
func (c *conn) Expire(*link.Timer) {
	if c.has(moving) {
		return
	}
	now := c.loop.now
	switch {
	case c.state == open:
		c.ping(now)
		c.checkStall(now)
	case now < c.due:
	case c.state == awaitProxy:
		c.refuseProxy(errProxyTimeout)
	case c.state == securing:
		c.failTLS(errHandshakeTime)
	case c.state == awaitUpgrade:
		c.refuse(ws.ErrTimeout)
	default:
		// Closing has taken too long.
		c.destroy()
	}
	c.schedule()
}

// ping sends a ping if it is time for one.
func (c *conn) ping(now int64) {
	if c.due == 0 || now < c.due {
		return
	}
	c.due = now + int64(c.endpoint.Ping)
	if c.Buffered() == 0 {
		copy(c.Reserve(len(ws.PingFrame)), ws.PingFrame)
	}
}

func (c *conn) checkStall(now int64) {
	if c.has(full) && now-c.progress >= int64(c.loop.server.options().WriteStall) {
		c.progress = now
		c.callStalled()
	}
}

// schedule arms the timer for what comes first. An armed timer is never put off:
// it expires, finds nothing to do, and looks again. So no packet costs a timer.
func (c *conn) schedule() {
	if c.state == closed {
		return
	}
	at := c.due
	if c.state == open && c.has(full) {
		if stall := c.progress + int64(c.loop.server.options().WriteStall); at == 0 || stall < at {
			at = stall
		}
	}
	if at != 0 && (!c.timer.Armed() || at < c.timer.At()) {
		c.loop.Arm(&c.timer, at)
	}
}

// The calls of the stream. A panic in one closes the connection.

func (c *conn) callData(b []byte) (n int) {
	defer c.recovered("Data")
	used := c.stream.Data(b)
	if used < 0 || used > len(b) {
		panic("Data used " + strconv.Itoa(used) + " of " + strconv.Itoa(len(b)) + " bytes")
	}
	return used
}

func (c *conn) callMessage(text bool, b []byte) {
	defer c.recovered("Message")
	c.stream.(link.MessageStream).Message(text, b)
}

func (c *conn) callArrived() {
	defer c.recovered("Arrived")
	c.stream.Arrived()
}

func (c *conn) callWritable() {
	defer c.recovered("Writable")
	c.stream.Writable()
}

func (c *conn) callStalled() {
	defer c.recovered("Stalled")
	c.stream.Stalled()
}

func (c *conn) callDismissed(why link.Dismissal) {
	defer c.recovered("Dismissed")
	c.stream.Dismissed(why)
}

func (c *conn) callClosed(cause error) {
	defer c.recovered("Closed")
	c.stream.Closed(cause)
}

func (c *conn) callOpen() (s link.Stream) {
	defer c.recovered("Open")
	return c.loop.handler.Open(c)
}

func (c *conn) recovered(where string) {
	if r := recover(); r != nil {
		c.loop.log.Error("panic in a connection's "+where, "listener", c.info.Listener,
			"remote", c.info.Remote, "panic", r, "stack", string(debug.Stack()))
		c.Close(link.CloseInternal, "internal error")
	}
}
