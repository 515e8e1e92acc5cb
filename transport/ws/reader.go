package ws

import (
	"encoding/binary"
	"errors"

	gobwas "github.com/gobwas/ws"

	"hashplus/transport/link"
)

// Event is what Reader.Next found.
type Event uint8

const (
	// More: the input is used up, there is nothing to report.
	More Event = iota
	// Data: the next bytes of the stream, unmasked in place; a view of the
	// input. Only in stream mode.
	Data
	// Inflated: the next bytes of the stream, from a compressed message. They
	// stand in memory of the Codec, can be more than the input was, and can be
	// none. Only in stream mode.
	Inflated
	// Text and Binary: a whole message, possibly empty. Its bytes are a view
	// of the input or of memory of the Codec. Only in message mode.
	Text
	Binary
	// Ping, Pong and Close: a control frame and its payload, at most 125 bytes.
	// A Close payload has been checked, see ParseClose.
	Ping
	Pong
	Close
)

// Reader takes apart what a client sends on one connection: a state machine
// fed with the bytes of one read after another. A frame need not be complete:
// in stream mode payload is handed on as it comes, and nothing is buffered but
// parts of headers and of control frames. Text messages are refused there, and
// message boundaries are not visible. In message mode, and for compressed
// messages in either mode, whole messages are collected, bounded by a limit; the
// memory grows with the bytes received, never with the bytes declared, and goes
// back to the Codec with the end of the message.
//
// The zero value is not usable; see NewReader. A Reader is owned by the loop of
// its connection and may be copied between calls, as long as only one copy is
// used from then on.
type Reader struct {
	left  int64    // payload bytes of the current frame still to come
	limit int64    // of the size of a collected message
	part  *partial // nil unless a part of a message or of a control frame is held

	mask  [4]byte  // turned so that mask[0] meets the next payload byte
	head  [14]byte // header of the current frame, nhead bytes of it so far
	nhead uint8
	is    state
}

// state is a set of facts about a Reader.
type state uint8

const (
	wholeMessages state = 1 << iota // message mode
	deflating                       // permessage-deflate was negotiated
	fragmented                      // inside a message whose last frame has not begun
	text                            // the current message is text
	compressed                      // the current message is compressed
	payload                         // the header in head is complete, left is valid
	ended                           // failed, or the close frame was seen
	strict                          // see Strict
)

// maxLimit keeps sums with a limit from overflowing.
const maxLimit = 1 << 48

// NewReader returns the reader for a connection whose handshake is done.
// messages chooses message mode. limit bounds, in bytes, the size of messages
// that are collected (all of them in message mode, compressed ones in stream
// mode, before and after they are inflated); an uncompressed stream has no
// limit, since nothing of it is held.
func NewReader(f link.Framing, messages bool, limit int64) Reader {
	r := Reader{limit: min(limit, maxLimit)}
	if messages {
		r.is |= wholeMessages
	}
	if f.Compressed() {
		r.is |= deflating
	}
	return r
}

// Strict makes the reader refuse unmasked pong and close frames, as RFC 6455
// section 5.1 has it. Without it they pass: Python's paho answers pings with
// unmasked pongs, up to version 2.1 at least, and would lose its connection at
// the first one. They carry nothing that a proxy could be made to misread.
func (r *Reader) Strict() { r.is |= strict }

// SetLimit changes the bound on messages that are collected, from the next
// header on.
func (r *Reader) SetLimit(limit int64) { r.limit = min(limit, maxLimit) }

// Next takes bytes from the front of b until something is to be reported, and
// returns how many it took, what it found, and its bytes. It takes all of b
// before it returns More; until then the caller goes on with b[n:]. It changes
// the bytes that it takes.
//
// p is valid until the next call with this Reader or with c. err is an *Error;
// after it, and after Close, further input is taken and ignored. Next allocates
// nothing, except to grow the memory in which messages are collected.
func (r *Reader) Next(b []byte, c *Codec) (n int, ev Event, p []byte, err error) {
	for r.is&ended == 0 {
		if r.is&payload == 0 {
			used, ok, err := r.header(b[n:])
			n += used
			if err != nil {
				r.end(c)
				return n, More, nil, err
			}
			if !ok {
				return n, More, nil, nil
			}
		}

		k := min(r.left, int64(len(b)-n))
		if k == 0 && r.left > 0 {
			return n, More, nil, nil
		}
		p := b[n : n+int(k)]
		n += int(k)
		r.left -= k
		r.unmask(p)

		ev, p, err := r.payload(p, c)
		if err != nil || ev == Close {
			r.end(c)
			return n, ev, p, err
		}
		if ev != More {
			return n, ev, p, nil
		}
	}
	return len(b), More, nil, nil
}

// Ended reports whether the close frame has come, or the connection has failed:
// nothing that still arrives means anything.
func (r *Reader) Ended() bool { return r.is&ended != 0 }

// Idle reports whether the reader stands between two messages and holds no
// memory.
func (r *Reader) Idle() bool { return r.nhead == 0 && r.is&fragmented == 0 && r.part == nil }

// Release gives memory that the reader still holds back to c. The reader takes
// no further input.
func (r *Reader) Release(c *Codec) { r.end(c) }

func (r *Reader) end(c *Codec) {
	r.is |= ended
	if r.part != nil {
		c.putPartial(r.part)
		r.part = nil
	}
}

// header collects and checks a frame header. It reports how much of b it took
// and whether the header is complete. A header that is wrong in its first two
// bytes is refused without waiting for the rest.
func (r *Reader) header(b []byte) (used int, ok bool, err error) {
	had := int(r.nhead)
	have := had + copy(r.head[had:], b)
	if have < 2 {
		r.nhead = uint8(have)
		return len(b), false, nil
	}
	need := 2
	switch r.head[1] & 0x7f {
	case 126:
		need += 2
	case 127:
		need += 8
	}
	h := gobwas.Header{
		Fin:    r.head[0]&0x80 != 0,
		Rsv:    r.head[0] >> 4 & 7,
		OpCode: gobwas.OpCode(r.head[0] & 0x0f),
		Masked: r.head[1]&0x80 != 0,
		Length: int64(r.head[1] & 0x7f), // right for control frames, the only ones whose length is checked
	}
	maskAt := need
	if h.Masked {
		need += 4
	} else if r.is&strict == 0 && (h.OpCode == gobwas.OpPong || h.OpCode == gobwas.OpClose) {
		h.Masked = true // as far as check is concerned
	}
	if err := r.check(h); err != nil {
		return len(b), false, err
	}
	if have < need {
		r.nhead = uint8(have)
		return len(b), false, nil
	}
	switch maskAt {
	case 4:
		h.Length = int64(binary.BigEndian.Uint16(r.head[2:]))
		if h.Length < 126 {
			return len(b), false, errLengthMinimal
		}
	case 10:
		h.Length = int64(binary.BigEndian.Uint64(r.head[2:]))
		if h.Length < 0 {
			return len(b), false, errLengthMSB
		}
		if h.Length <= 0xffff {
			return len(b), false, errLengthMinimal
		}
	}
	r.mask = [4]byte{}
	if need > maskAt {
		r.mask = [4]byte(r.head[maskAt:])
	}
	r.nhead = uint8(need)
	r.left = h.Length
	r.is |= payload
	return need - had, true, r.begin(h)
}

// check applies the rules of RFC 6455 section 5 to the first two bytes of a
// header.
func (r *Reader) check(h gobwas.Header) error {
	s := gobwas.StateServerSide
	if r.is&fragmented != 0 {
		s = s.Set(gobwas.StateFragmented)
	}
	// RFC 7692 section 6: RSV1 is meaningful on the first frame of a message,
	// and nowhere else.
	if h.Rsv1() && r.is&deflating != 0 && (h.OpCode == gobwas.OpText || h.OpCode == gobwas.OpBinary) {
		h.Rsv &^= gobwas.Rsv(true, false, false)
	}
	if err := gobwas.CheckHeader(h, s); err != nil {
		if errors.Is(err, gobwas.ErrProtocolNonZeroRsv) {
			return errRSV
		}
		return &Error{link.CloseProtocolError, err.Error()}
	}
	if h.OpCode == gobwas.OpText && r.is&wholeMessages == 0 {
		return errText
	}
	return nil
}

// begin enters the frame whose header h has been checked.
func (r *Reader) begin(h gobwas.Header) error {
	if h.OpCode.IsControl() {
		return nil
	}
	if h.OpCode != gobwas.OpContinuation {
		r.is &^= text | compressed
		if h.OpCode == gobwas.OpText {
			r.is |= text
		}
		if h.Rsv1() {
			r.is |= compressed
		}
	}
	if h.Fin {
		r.is &^= fragmented
	} else {
		r.is |= fragmented
	}
	if !r.collects() {
		return nil
	}
	// What is declared is refused at once; what is held is only what has come.
	// A compressed message can be a little larger than what is in it.
	room := r.limit
	if r.is&compressed != 0 {
		room += r.limit>>8 + 64
	}
	if r.part != nil {
		room -= int64(len(r.part.message))
	}
	if h.Length > room {
		return errTooBig
	}
	return nil
}

// collects reports whether the current message is collected, not streamed.
func (r *Reader) collects() bool { return r.is&(wholeMessages|compressed) != 0 }

// unmask takes the client's mask off p, the next bytes of the current frame.
func (r *Reader) unmask(p []byte) {
	gobwas.Cipher(p, r.mask, 0)
	m := r.mask
	for i := range r.mask {
		r.mask[i] = m[(i+len(p))&3]
	}
}
