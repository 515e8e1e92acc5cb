package broker

import (
	"hashplus/broker/wire"
	"hashplus/transport/link"
)

// frame is a PUBLISH encoded for all clients that can share its bytes, framed
// for the write queue.
type frame struct {
	key    uint64
	bytes  []byte
	idAt   int // offset of the Packet Identifier in bytes
	packet int // size of the packet without framing
}

// layouts are the encodings of the message that a loop is delivering: each is
// made once, when the first client wants it. It keeps its memory.
type layouts struct {
	l      *loop
	out    wire.Outgoing
	frames []frame
	n      int // frames in use; what lies behind them is memory to use again
	packet []byte
}

// begin makes m the message. What frame returned before is no longer valid.
func (y *layouts) begin(l *loop, m *message) {
	y.l, y.n = l, 0
	if cap(y.packet) > keepFrame {
		y.packet = nil
	}
	for i := range y.frames {
		if cap(y.frames[i].bytes) > keepFrame {
			y.frames[i].bytes = nil
		}
	}
	m.outgoing(&y.out, l.now())
}

// frame returns the encoding for c, valid until begin, or nil if it could be
// for c only: with a topic alias, or with several Subscription Identifiers.
func (y *layouts) frame(c *client, qos byte, retain bool, ids []uint32) *frame {
	key := uint64(c.framing)<<40 | uint64(qos)<<48
	if retain {
		key |= 1 << 50
	}
	if c.version == wire.V5 {
		if c.aliasMaximum > 0 || len(ids) > 1 {
			return nil
		}
		key |= 1 << 51
		if len(ids) == 1 {
			key |= uint64(ids[0])
		}
	}
	for i := range y.frames[:y.n] {
		if y.frames[i].key == key {
			return &y.frames[i]
		}
	}
	if y.n == maxLayouts {
		return nil
	}
	if y.n == len(y.frames) {
		y.frames = append(y.frames, frame{})
	}
	f := &y.frames[y.n]
	y.n++
	f.key = key
	o := &y.out
	o.Version, o.QoS, o.Retain, o.SubIDs = c.version, qos, retain, ids
	y.encode(y.l, f, o, c.framing)
	return f
}

// keepFrame is the largest buffer that is kept for the next message.
const keepFrame = 64 << 10

// maxLayouts bounds the encodings that are kept of one message.
const maxLayouts = 16

// alone encodes o for one client; valid until the next call.
func (y *layouts) alone(l *loop, o *wire.Outgoing, framing link.Framing) *frame {
	f := new(frame)
	y.encode(l, f, o, framing)
	return f
}

func (y *layouts) encode(l *loop, f *frame, o *wire.Outgoing, framing link.Framing) {
	size := o.Size()
	f.packet = size
	if !framing.Compressed() {
		hl := framing.HeaderLen(size)
		if cap(f.bytes) < hl+size {
			f.bytes = make([]byte, hl+size)
		}
		f.bytes = f.bytes[:hl+size]
		framing.PutHeader(f.bytes, size)
		_, at := o.Put(f.bytes[hl:])
		f.idAt = hl + at
		return
	}
	if cap(y.packet) < size {
		y.packet = make([]byte, size)
	}
	y.packet = y.packet[:size]
	_, at := o.Put(y.packet)
	lit := 0
	if o.QoS > 0 {
		lit = at + 2
	}
	frame, start := l.link.AppendFrame(f.bytes[:0], framing, y.packet, lit)
	f.bytes, f.idAt = frame, start+at
}
