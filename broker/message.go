package broker

import (
	"sync"
	"sync/atomic"

	"hashplus/broker/record"
	"hashplus/broker/wire"
)

// message is an application message on its way. It is read-only once it is
// routed.
//
// A message is either borrowed (its slices are views over a buffer of somebody
// else's, valid until the call that handed it over returns) or owned (its bytes
// are its own, and it is counted). Whoever keeps a message beyond the call
// keeps the result of own.
type message struct {
	topic   []byte
	payload []byte
	props   []byte // as wire.Publish.Props

	from     uint64 // origin of the publishing session, 0 if none
	deadline int64  // when it expires (Now of any loop), 0: never
	expiryAt int    // as wire.Publish.ExpiryAt
	version  uint64 // of a retained message, see retainedMessages
	qos      byte
	retain   bool // as published

	cold   bool         // of a retained message: the payload is in the store only
	by     *Identity    // of a retained message: its publisher, see session.publisher
	rules  uint32       // of a retained message: those that its publisher was asked about under, see loop.rules
	static bool         // owned, and its bytes are left to the garbage collector: counting does nothing
	refs   atomic.Int32 // of an owned message
	buf    []byte       // the bytes of an owned message
	owned  *message     // of a borrowed message: what own made of it

	// Owned by the ledger's goroutine; id does not change once it is set, and
	// loops may read it when they were told that the message is stored.
	id    record.MessageID
	filed bool // its body is stored under id
	puts  int  // rows that the batch in the making has of it
}

// messages holds owned messages that nobody holds any more, with their
// buffers.
var messages = sync.Pool{New: func() any { return &message{buf: make([]byte, 0, 256)} }}

// poolLimit is the largest buffer that is kept for the next message.
const poolLimit = 16 << 10

// second in nanoseconds, the unit of Loop.Now.
const second = int64(1e9)

// own returns a message that may be kept: m itself, counted once more, or a
// copy of a borrowed m, made the first time and counted for each call. The
// caller releases it. It is called by the goroutine that m was handed to.
func (m *message) own() *message {
	if m.static {
		return m
	}
	if m.buf != nil { // owned
		if n := m.refs.Add(1); invariants && n <= 1 {
			panic("broker: message used after its release")
		}
		return m
	}
	if m.owned != nil {
		m.owned.refs.Add(1)
		return m.owned
	}
	o := messages.Get().(*message)
	o.copy(m)
	// One for the caller, one for m, which drops it in disown.
	o.refs.Store(2)
	m.owned = o
	return o
}

// keep returns a static copy of m, for what is read without being counted:
// retained messages, wills.
func (m *message) keep() *message {
	o := &message{static: true}
	o.copy(m)
	return o
}

// copy makes o a copy of m in o's own buffer, or in a new one that fits.
func (o *message) copy(m *message) {
	nt, np := len(m.topic), len(m.props)
	n := nt + np + len(m.payload)
	if cap(o.buf) < n {
		o.buf = make([]byte, n)
	}
	b := o.buf[:n]
	copy(b, m.topic)
	copy(b[nt:], m.props)
	copy(b[nt+np:], m.payload)
	o.buf, o.topic, o.props, o.payload = b, b[:nt:nt], b[nt:nt+np:nt+np], b[nt+np:]
	o.from, o.deadline, o.expiryAt, o.qos, o.retain = m.from, m.deadline, m.expiryAt, m.qos, m.retain
	o.id, o.filed, o.puts, o.version = record.MessageID{}, false, 0, 0
}

// disown ends the borrowing of m: what own made lives on with its other
// holders.
func (m *message) disown() {
	if o := m.owned; o != nil {
		m.owned = nil
		o.release()
	}
}

// release gives back one own. The last one recycles the bytes.
func (m *message) release() {
	if m.static {
		return
	}
	switch n := m.refs.Add(-1); {
	case n == 0:
		m.topic, m.props, m.payload = nil, nil, nil
		if invariants {
			// Whoever still reads the bytes shall notice; the message is not
			// used again, so that its count tells of late holders.
			for i := range m.buf {
				m.buf[i] = 0xDB
			}
			return
		}
		if cap(m.buf) <= poolLimit {
			messages.Put(m)
		}
	case n < 0:
		panic("broker: message released too often")
	}
}

// Release makes an owned message a link.Shared.
func (m *message) Release() { m.release() }

// size is what m counts for in queues.
func (m *message) size() int { return len(m.topic) + len(m.props) + len(m.payload) + 64 }

// expired reports whether m must not be delivered any more at time now.
func (m *message) expired(now int64) bool { return m.deadline != 0 && now >= m.deadline }

// remaining is the Message Expiry Interval to announce at time now: what was
// published less the time waited [MQTT-3.3.2-6].
func (m *message) remaining(now int64) uint32 {
	if m.deadline <= now { // never expires, or is sent again after its time
		return 0
	}
	return uint32((m.deadline - now + second - 1) / second)
}

// outgoing fills o for a delivery of m, all but what is the receiver's.
func (m *message) outgoing(o *wire.Outgoing, now int64) {
	*o = wire.Outgoing{
		Topic: m.topic, Props: m.props, ExpiryAt: m.expiryAt, Expiry: m.remaining(now), Payload: m.payload,
	}
}
