// Package link is the contract between bytes and protocol: what a loop and a
// connection offer, and what the code that speaks a protocol over them must
// implement. The transport implements Loop and Conn; the broker implements
// Handler and Stream. It imports nothing of ours and nothing of the network,
// so a protocol can be driven in tests by a loop that is a plain function call.
//
// # Ownership
//
// A connection belongs to one loop at a time. Every method of Conn, every
// callback of Stream and every Task runs on that loop's goroutine, except where
// a method says otherwise. Nothing here blocks.
package link

import (
	"net/netip"
)

// Task is work posted to a loop. Pointers to pooled structs make posting free
// of allocation.
type Task interface {
	// Run is called once, on the goroutine of l.
	Run(l Loop)
}

// TaskFunc adapts a function to Task.
type TaskFunc func(l Loop)

// Run calls f.
func (f TaskFunc) Run(l Loop) { f(l) }

// Loop is one event loop: one goroutine that owns connections and timers.
type Loop interface {
	// ID is the loop's index, from 0 to the number of loops less one. Any goroutine.
	ID() int

	// Now is the monotonic time in nanoseconds since the process started, read
	// once per tick. Loop only.
	Now() int64

	// Send queues t for loop number to, which may be this loop. What is sent
	// during a tick leaves together at its end, with at most one wake-up per
	// target. Order between two loops is the order of Send. Loop only.
	Send(to int, t Task)

	// Post queues t from any goroutine and wakes the loop. Order is kept per
	// posting goroutine. It reports false, and does not keep t, once the loop
	// has stopped.
	Post(t Task) bool

	// Arm schedules t to expire at the monotonic time at (nanoseconds, see
	// Now), replacing an earlier schedule. Expiry is never early and at most
	// one tick of the wheel (Resolution) late on an idle loop. Loop only.
	Arm(t *Timer, at int64)

	// Disarm cancels t; a timer that is not armed is left alone. Loop only.
	Disarm(t *Timer)

	// AppendFrame appends packet to dst, framed as f, and returns the extended
	// slice and the offset in it at which the packet's first lit bytes stand
	// verbatim: they may be patched per receiver (a packet identifier), even
	// where the rest is compressed. For Raw the frame is the packet itself.
	// Loop only.
	AppendFrame(dst []byte, f Framing, packet []byte, lit int) (frame []byte, at int)
}

// Conn is one connection. All methods are for its loop only.
type Conn interface {
	Loop() Loop

	// Info describes the connection; it does not change after Open.
	Info() *Info

	// Handshake returns the HTTP upgrade request that opened a WebSocket
	// connection, or nil.
	Handshake() *Handshake

	// Admit says that the peer is known and welcome. It drops the handshake, so
	// that an idle connection does not keep its headers in memory, and lifts
	// the bound of 64 KiB on what is collected from a stranger.
	Admit()

	// Framing is how packets are framed on this connection's write queue.
	Framing() Framing

	// Reserve extends the write queue by n bytes and returns them. The caller
	// fills all of them before it returns to the loop, with bytes that are
	// framed already (see Framing.PutHeader and Loop.AppendFrame). The slice is
	// valid until the next call on this connection. What is queued during a
	// tick is written at its end, in one system call where the socket allows.
	// On a connection that is closing the bytes go nowhere.
	Reserve(n int) []byte

	// WriteShared queues p by reference. It must not change until the
	// connection calls s.Release, once, when the bytes have been written or the
	// connection has gone. For large bodies that many connections share.
	WriteShared(p []byte, s Shared)

	// Buffered is the number of bytes in the write queue.
	Buffered() int

	// NotifyBelow asks for one call of Stream.Writable when the write queue
	// has drained to n bytes or fewer. A later call replaces an earlier one.
	NotifyBelow(n int)

	// Pause stops calls of Stream.Data, and with them reading from the socket,
	// until Resume. They do not nest. A paused connection still notices that
	// its peer went away where the system tells it.
	Pause()
	Resume()

	// Yield, called from Data, asks that Data is called again in the next
	// tick with the bytes it leaves unconsumed, even if none arrive.
	Yield()

	// Move hands the connection to loop number to after the current callback
	// returns: its socket, unread bytes, write queue and framing state. On the
	// new loop Stream.Arrived is called first, then reading goes on. A paused
	// connection arrives paused. After Move the caller must not touch the
	// connection until Arrived.
	Move(to int)

	// Close ends the connection in order: no more Data, the write queue is
	// flushed within a deadline, a WebSocket close handshake with code and
	// reason (as much of it as fits into a frame) is made, unread input is
	// drained for a moment so that the last bytes reach the peer instead of a
	// reset, then the socket is closed. Stream.Closed is called in a later tick,
	// without waiting for all of that.
	Close(code CloseCode, reason string)

	// Abort closes the socket at once. Stream.Closed is called in a later tick.
	Abort()

	// LastPong is when (Now) the last WebSocket pong came in, or 0.
	LastPong() int64
}

// Messenger is implemented by connections of a listener in message mode, see
// MessageStream.
type Messenger interface {
	// SendMessage queues p as one WebSocket message, compressed if that was
	// negotiated. p is not kept.
	SendMessage(text bool, p []byte)
}

// Shared is a counted body that WriteShared holds on to.
type Shared interface{ Release() }

// Handler accepts connections for a protocol.
type Handler interface {
	// Start is called once, before any other method, with every loop. The
	// slice must not be changed. The loops do not run yet: only Loop.ID and
	// Loop.Post may be called.
	Start(loops []Loop)

	// Open announces a connection whose handshake is done, on its loop, and
	// returns what its bytes go to.
	Open(c Conn) Stream

	// Tick is called once per turn of the loop, after tasks, timers and
	// connections were served and before write queues are flushed. With more
	// set the loop takes another turn without sleeping.
	Tick(l Loop) (more bool)
}

// Stream is the protocol's end of one connection. The loop calls it.
type Stream interface {
	// Data offers the bytes that have come in, in order and without framing,
	// and returns how many of them it used. The rest is offered again together
	// with what comes later. b is valid until Data returns; Data may change the
	// bytes it uses. On a WebSocket connection only binary messages reach Data;
	// their boundaries are not visible.
	Data(b []byte) (n int)

	// Arrived is called on the new loop after Conn.Move.
	Arrived()

	// Writable answers Conn.NotifyBelow.
	Writable()

	// Stalled is called when the peer has taken no byte of a write queue that
	// was not empty for the stall deadline. The stream should close.
	Stalled()

	// Dismissed is called when the connection is to end for a reason that lies with
	// the listener. The stream should tell its peer and close.
	Dismissed(why Dismissal)

	// Closed is the last call, exactly one for each Open: as soon as the peer
	// has ended the connection, or in a later tick after Close or Abort. cause
	// is nil where the peer ended it in order.
	Closed(cause error)
}

// Dismissal is why a listener wants a connection to end.
type Dismissal uint8

const (
	Revoked        Dismissal = iota // the client's certificate, or its CA, is not trusted any more
	ListenerClosed                  // the listener is there no more
)

func (d Dismissal) String() string {
	if d == Revoked {
		return "the client's certificate has been revoked"
	}
	return "the listener has been closed"
}

// MessageStream is a Stream that wants whole WebSocket messages, text ones
// included, in place of Data. Text is valid UTF-8.
type MessageStream interface {
	Stream
	// Message is called for each message; b is valid until it returns.
	Message(text bool, b []byte)
}

// Info describes a connection.
type Info struct {
	Listener  string         // the listener's name, such as "ws://127.0.0.1:8083"
	Transport string         // "ws", "wss", "tcp", "tls", "unix", "http" (mounted in a mux)
	Remote    netip.AddrPort // zero for a Unix socket or a pipe
	Protocol  string         // the WebSocket sub-protocol chosen, or ""
	PongGrace bool           // pongs count as liveness here, within limits
	Exempt    bool           // limits per address and bans do not apply: loopback, a Unix socket, a trusted proxy itself
	TLS       *TLS           // nil without TLS on this server's side
}

// TLS describes a connection's encryption. It may be shared by connections and
// must not be changed.
type TLS struct {
	Version     string       // "1.2" or "1.3"
	Cipher      string       // the suite's IANA name
	ServerName  string       // what the client asked for (SNI), or ""
	Certificate *Certificate // the client's, verified; nil if it gave none
}

// Certificate is a client's certificate that was verified.
type Certificate struct {
	// Username is the name that the listener takes from the certificate, or ""
	// where it does not, or where the certificate has none.
	Username string

	CommonName string // of the subject
	DNSNames   []string
	Emails     []string
	URIs       []string
	Serial     string // hexadecimal
	Issuer     string // its distinguished name (RFC 2253)
}

// Handshake is the HTTP request that opened a WebSocket connection.
type Handshake struct {
	Host   string
	Path   string
	Query  string              // without "?"
	Header map[string][]string // canonical keys, as in net/http
}

// CloseCode is a WebSocket close code (RFC 6455 section 7.4.1). On a connection
// without WebSocket framing it only shows in the log.
type CloseCode uint16

// Close codes that are sent.
const (
	CloseNormal        CloseCode = 1000
	CloseGoingAway     CloseCode = 1001
	CloseProtocolError CloseCode = 1002
	CloseUnsupported   CloseCode = 1003
	CloseInvalidData   CloseCode = 1007
	ClosePolicy        CloseCode = 1008
	CloseTooBig        CloseCode = 1009
	CloseInternal      CloseCode = 1011
	CloseTryLater      CloseCode = 1013
)
