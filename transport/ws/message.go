package ws

import (
	"encoding/binary"
	"unicode/utf8"

	gobwas "github.com/gobwas/ws"

	"hashplus/transport/link"
)

// partial is what a Reader has collected of a message or of a control frame
// that came in pieces. It belongs to the Reader until the piece is complete,
// then to the free list of a Codec.
type partial struct {
	message []byte
	valid   int // so many bytes of message are known to be whole characters
	control [gobwas.MaxControlFramePayloadSize]byte
	ncontr  uint8
}

// payload handles p, the next bytes of the current frame, already unmasked.
// r.left is what is still to come of it after p.
func (r *Reader) payload(p []byte, c *Codec) (Event, []byte, error) {
	if op := gobwas.OpCode(r.head[0] & 0x0f); op.IsControl() {
		return r.controlPayload(op, p, c)
	}
	done := r.left == 0
	if done {
		r.is &^= payload
		r.nhead = 0
	}
	if !r.collects() {
		if len(p) == 0 {
			return More, nil, nil
		}
		return Data, p, nil
	}
	last := done && r.is&fragmented == 0
	if last && r.part == nil {
		// The common case: all of the message stands in the input.
		return r.message(p, c)
	}
	if len(p) > 0 {
		if err := r.collect(p, c); err != nil {
			return More, nil, err
		}
	}
	if !last {
		return More, nil, nil
	}
	return r.message(c.keep(r), c)
}

// collect appends p to the message. Text that cannot become valid is refused
// without waiting for the rest of it.
func (r *Reader) collect(p []byte, c *Codec) error {
	if r.part == nil {
		r.part = c.getPartial()
	}
	m := r.part
	m.message = append(m.message, p...)
	if r.is&(text|compressed) != text {
		return nil
	}
	n, ok := wholeRunes(m.message[m.valid:])
	if !ok {
		return errUTF8
	}
	m.valid += n
	return nil
}

// message reports the message p, as it was sent.
func (r *Reader) message(p []byte, c *Codec) (Event, []byte, error) {
	if r.is&compressed != 0 {
		var err error
		if p, err = c.Inflate(p, r.limit); err != nil {
			return More, nil, err
		}
	}
	switch {
	case r.is&wholeMessages == 0:
		return Inflated, p, nil
	case r.is&text == 0:
		return Binary, p, nil
	case !utf8.Valid(p):
		return More, nil, errUTF8
	default:
		return Text, p, nil
	}
}

func (r *Reader) controlPayload(op gobwas.OpCode, p []byte, c *Codec) (Event, []byte, error) {
	if r.left > 0 || r.part != nil && r.part.ncontr > 0 {
		if r.part == nil {
			r.part = c.getPartial()
		}
		m := r.part
		m.ncontr += uint8(copy(m.control[m.ncontr:], p))
		if r.left > 0 {
			return More, nil, nil
		}
		// The frame is whole. Its bytes are lent from c, so that a connection
		// with nothing more to come holds nothing.
		p = append(c.control[:0], m.control[:m.ncontr]...)
		m.ncontr = 0
		if len(m.message) == 0 {
			c.putPartial(m)
			r.part = nil
		}
	}
	r.is &^= payload
	r.nhead = 0
	switch op {
	case gobwas.OpPing:
		return Ping, p, nil
	case gobwas.OpPong:
		return Pong, p, nil
	default:
		if err := checkClose(p); err != nil {
			return More, nil, err
		}
		return Close, p, nil
	}
}

// checkClose applies RFC 6455 sections 5.5.1 and 7.4 to the payload of a close
// frame.
func checkClose(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if len(p) == 1 {
		return errCloseLength
	}
	code := gobwas.StatusCode(binary.BigEndian.Uint16(p))
	switch {
	case code >= 1012 && code <= 1014:
		// Registered since: service restart, try again later, bad gateway.
	case code > 4999:
		return errCloseCode
	default:
		if err := gobwas.CheckCloseFrameData(code, ""); err != nil {
			return &Error{link.CloseProtocolError, err.Error()}
		}
	}
	if !utf8.Valid(p[2:]) {
		return errCloseReason
	}
	return nil
}

// ParseClose takes apart the payload that Reader.Next reported with Close. A
// frame without a code gives 1005, which is never sent (RFC 6455 section 7.1.5).
// reason is a view of p.
func ParseClose(p []byte) (code link.CloseCode, reason []byte) {
	if len(p) < 2 {
		return link.CloseCode(gobwas.StatusNoStatusRcvd), nil
	}
	return link.CloseCode(binary.BigEndian.Uint16(p)), p[2:]
}

// wholeRunes returns how many bytes at the front of p are whole, valid UTF-8
// characters, and whether what follows them may still become one.
func wholeRunes(p []byte) (n int, ok bool) {
	// A character that is cut off begins in the last three bytes.
	n = len(p)
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		if c := p[len(p)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(p[len(p)-i:]) {
				n = len(p) - i
			}
			break
		}
	}
	return n, utf8.Valid(p[:n])
}
