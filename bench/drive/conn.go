package drive

import (
	"fmt"

	"hashplus/bench/codec"
)

// phase is where a connection stands. It only ever grows.
type phase uint8

const (
	dialing     phase = iota // connect(2) is under way
	upgrading                // the WebSocket request is out
	greeting                 // CONNECT is out
	subscribing              // SUBSCRIBE is out
	ready
	closed
)

// conn is one client's connection. Owned by its Loop.
type conn struct {
	client *Client
	fd     int
	token  int32
	sender int32 // index into Loop.senders, -1 for none
	phase  phase
	dirty  bool // in Loop.dirty
	full   bool // the socket takes no more until it reports writable
	deaf   bool // stalled: no longer watched

	tls    *secure // nil without TLS
	frames codec.Deframer
	in     []byte // start of an MQTT packet (or HTTP head) whose rest is to come
	out    []byte // not yet written from out[sent:]
	sent   int
	mask   uint32 // state of the generator of masking keys

	id       uint16   // last packet id used
	inflight []uint64 // bit set of the packet ids in use; nil until the first
	unacked  int
	quota    int // the broker's Receive Maximum
	subacks  int // SUBACKs still to come

	started  int64 // when it was due to be dialled
	lastSend int64
	keep     int64 // ns of silence that the broker allows; 0 is any

	stamps []int64 // Plan.Acks: when what is not acknowledged was sent, in order
}

// maxSend is how much unsent output a connection may hold before its sender
// waits; maxSubscribe keeps a SUBSCRIBE packet below common size limits.
const (
	maxSend      = 256 << 10
	maxSubscribe = 200
)

// send queues one MQTT packet, framed if need be. p is copied.
func (l *Loop) send(c *conn, p []byte) {
	if c.sent > 0 && c.sent == len(c.out) {
		c.out, c.sent = c.out[:0], 0
	}
	if l.target.WebSocket {
		c.out = codec.AppendFrame(c.out, codec.OpBinary, c.nextMask(), p)
	} else {
		c.out = append(c.out, p...)
	}
	l.touch(c)
}

// touch puts c on the list of connections to flush at the end of the tick.
func (l *Loop) touch(c *conn) {
	if !c.dirty {
		c.dirty = true
		l.dirty = append(l.dirty, c)
	}
}

// nextMask is a xorshift step: keys must differ, they need not be secret here.
func (c *conn) nextMask() uint32 {
	x := c.mask
	x ^= x << 13
	x ^= x >> 17
	x ^= x << 5
	c.mask = x
	return x
}

// flush writes what is queued. Output that the socket does not take stays for
// the next writable event.
func (l *Loop) flush(c *conn) {
	for (c.sent < len(c.out) || c.tls != nil && len(c.tls.out) > 0) && !c.full && c.phase < closed {
		n, err := c.write(c.out[c.sent:])
		if err != nil {
			l.drop(c, fmt.Errorf("write: %w", err))
			return
		}
		c.sent += n
		c.full = n == 0 || c.tls != nil && len(c.tls.out) > 0
	}
	c.lastSend = l.now
	if c.sent == len(c.out) {
		c.out, c.sent = c.out[:0], 0
	} else if c.sent > maxSend {
		c.out = c.out[:copy(c.out, c.out[c.sent:])]
		c.sent = 0
	}
}

// receive reads what has come until the socket is empty. hangup says that the
// end of the stream is near, so that a short read does not mean "empty".
func (l *Loop) receive(c *conn, hangup bool) {
	for c.phase < closed && !c.deaf {
		kept := copy(l.buf, c.in)
		if len(l.buf)-kept < 16<<10 {
			l.buf = append(l.buf, make([]byte, len(l.buf))...)
			continue
		}
		n, again, err := c.read(l.buf[kept:])
		switch {
		case again:
			return
		case err != nil:
			l.drop(c, fmt.Errorf("read: %w", err))
			return
		case n == 0:
			l.drop(c, errEnd)
			return
		}
		l.now = l.clock.Now()
		whole := kept+n < len(l.buf)
		c.in = c.in[:0]
		if err := l.digest(c, l.buf[:kept+n], kept); err != nil {
			l.drop(c, err)
			return
		}
		// A TLS layer gives one record at a time.
		if whole && !hangup && c.tls == nil {
			return
		}
	}
}

// digest takes b, whose first kept bytes are left over from the last time and
// free of framing already, and handles every packet that is whole.
func (l *Loop) digest(c *conn, b []byte, kept int) error {
	from, to := kept, kept
	if c.phase == upgrading {
		n, err := codec.ReadUpgrade(b, l.accept)
		if err != nil {
			return err
		}
		if n == 0 {
			c.in = append(c.in, b...)
			return nil
		}
		from, to = n, 0
		l.greet(c)
	}
	if l.target.WebSocket {
		end, err := c.frames.Deframe(b, from, to, func(op byte, payload []byte) error { return l.control(c, op, payload) })
		if err != nil {
			return err
		}
		b = b[:end]
	}
	for len(b) > 0 {
		p, n, err := codec.Split(b)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if err := l.packet(c, p); err != nil {
			return err
		}
		if c.phase == closed {
			return nil
		}
		b = b[n:]
	}
	c.in = append(c.in, b...)
	return nil
}

// control answers a WebSocket control frame.
func (l *Loop) control(c *conn, op byte, payload []byte) error {
	switch op {
	case codec.OpPing:
		c.out = codec.AppendFrame(c.out, codec.OpPong, c.nextMask(), payload)
		l.touch(c)
	case codec.OpClose:
		code := 0
		if len(payload) >= 2 {
			code = int(payload[0])<<8 | int(payload[1])
		}
		return fmt.Errorf("broker closed the WebSocket with %d", code)
	}
	return nil
}

// packet handles one MQTT packet.
func (l *Loop) packet(c *conn, p codec.Packet) error {
	switch p.Type {
	case codec.PUBLISH:
		m, err := p.Publish(l.target.Version)
		if err != nil {
			return err
		}
		switch m.QoS {
		case 1:
			l.ack(c, codec.PUBACK, m.ID)
		case 2:
			l.ack(c, codec.PUBREC, m.ID)
		}
		l.deliver(c, &m)
		return nil
	case codec.PUBACK, codec.PUBCOMP, codec.PUBREC, codec.PUBREL:
		id, reason, err := p.Ack()
		if err != nil {
			return err
		}
		return l.acked(c, p.Type, id, reason)
	case codec.CONNACK, codec.SUBACK:
		return l.advance(c, p)
	case codec.PINGRESP:
		return nil
	case codec.DISCONNECT:
		reason := byte(0)
		if len(p.Body) > 0 {
			reason = p.Body[0]
		}
		return fmt.Errorf("broker sent DISCONNECT 0x%02x", reason)
	}
	return codec.Error(fmt.Sprintf("packet of type %d", p.Type))
}

func (l *Loop) ack(c *conn, kind byte, id uint16) {
	l.scratch = codec.AppendAck(l.scratch[:0], kind, id)
	l.send(c, l.scratch)
}

// acked handles the acknowledgement of a message that c published, or the
// PUBREL of one that it received.
func (l *Loop) acked(c *conn, kind byte, id uint16, reason byte) error {
	switch kind {
	case codec.PUBREL:
		l.ack(c, codec.PUBCOMP, id)
		return nil
	case codec.PUBREC:
		if reason < 0x80 {
			l.ack(c, codec.PUBREL, id)
			return nil
		}
	}
	word, bit := id>>6, uint64(1)<<(id&63)
	if c.inflight == nil || c.inflight[word]&bit == 0 {
		l.count.strayAcks++
		return nil
	}
	c.inflight[word] &^= bit
	c.unacked--
	if l.plan.Acks && reason < 0x80 {
		l.accepted(c)
	}
	if reason >= 0x80 {
		l.count.refused++
	}
	if c.sender >= 0 {
		s := &l.senders[c.sender]
		s.progress, s.forgiven = l.now, min(s.forgiven, c.unacked)
		l.wake(s)
	}
	return nil
}

// accepted accounts for a message that the broker has acknowledged, where that
// is what counts. Acknowledgements come in the order of sending.
func (l *Loop) accepted(c *conn) {
	l.count.received++
	l.count.delivered++
	if len(c.stamps) == 0 {
		return
	}
	at := c.stamps[0]
	c.stamps = c.stamps[:copy(c.stamps, c.stamps[1:])]
	if at >= l.measure && at < l.end {
		l.latency.record(l.now - at)
	}
}

// takeID reserves a free packet id. The caller has seen that unacked is below
// the broker's Receive Maximum, so there is one.
func (c *conn) takeID() uint16 {
	if c.inflight == nil {
		c.inflight = make([]uint64, 1<<16/64)
	}
	for {
		c.id++
		word, bit := c.id>>6, uint64(1)<<(c.id&63)
		if c.id != 0 && c.inflight[word]&bit == 0 {
			c.inflight[word] |= bit
			c.unacked++
			return c.id
		}
	}
}
