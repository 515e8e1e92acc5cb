package wire

import (
	"encoding/binary"
)

// reader takes the fields of a packet's body from the front, in order. After
// the first failure it has no bytes left and every method returns the zero
// value, so that a decoder may look at err once per decision.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) short(what string) { r.fail(malformed("", "packet ends within "+what)) }

func (r *reader) u8(what string) byte {
	if len(r.b) < 1 {
		r.short(what)
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) u16(what string) uint16 {
	if len(r.b) < 2 {
		r.short(what)
		return 0
	}
	v := binary.BigEndian.Uint16(r.b)
	r.b = r.b[2:]
	return v
}

// binary is Binary Data (section 1.5.6), a view.
func (r *reader) binary(what string) []byte {
	n := int(r.u16(what))
	if r.err != nil {
		return nil
	}
	if len(r.b) < n {
		r.short(what)
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// text is a UTF-8 Encoded String (section 1.5.4), a view.
func (r *reader) text(what string) []byte {
	v := r.binary(what)
	if r.err == nil {
		if err := checkText(v, what); err != nil {
			r.fail(err)
			return nil
		}
	}
	return v
}

// packetID is a Packet Identifier, which is never 0.
func (r *reader) packetID() uint16 {
	id := r.u16("Packet Identifier")
	if id == 0 && r.err == nil {
		r.fail(violation("MQTT-2.2.1-3", "Packet Identifier is 0"))
	}
	return id
}

// end refuses what is left.
func (r *reader) end() {
	if r.err == nil && len(r.b) > 0 {
		r.fail(malformed("", "bytes after the end of the packet"))
	}
}

// clone copies a view. It is not nil unless v is.
func clone(v []byte) []byte {
	if v == nil {
		return nil
	}
	return append(make([]byte, 0, len(v)), v...)
}
