package wire

import (
	"encoding/binary"
	"unicode/utf8"
)

const maxBlock = 65535 // bytes of a string or of binary data

// packet is a control packet being appended to dst. Its Remaining Length comes
// first but is known last: packets here are small, so the body is moved up
// when its length turns out to need more than one byte.
type packet struct {
	dst   []byte
	start int // of the body
}

func beginPacket(dst []byte, t Type) packet {
	first := byte(t) << 4
	if t == SUBSCRIBE || t == UNSUBSCRIBE || t == PUBREL {
		first |= flagsRequired
	}
	dst = append(dst, first, 0)
	return packet{dst: dst, start: len(dst)}
}

func (p *packet) end() []byte { return insertLength(p.dst, p.start) }

// insertLength writes the length of dst[start:] in front of it, where one byte
// is kept free for it.
func insertLength(dst []byte, start int) []byte {
	n := len(dst) - start
	if n < 0x80 {
		dst[start-1] = byte(n)
		return dst
	}
	more := varintSize(n) - 1
	dst = append(dst, make([]byte, more)...)
	copy(dst[start+more:], dst[start:start+n])
	putVarint(dst[start-1:], n)
	return dst
}

// beginProperties keeps a byte free for the Property Length.
func (p *packet) beginProperties() int {
	p.dst = append(p.dst, 0)
	return len(p.dst)
}

func (p *packet) endProperties(start int) { p.dst = insertLength(p.dst, start) }

func (p *packet) u8(v byte) { p.dst = append(p.dst, v) }

func (p *packet) u16(v uint16) { p.dst = binary.BigEndian.AppendUint16(p.dst, v) }

func (p *packet) u32(v uint32) { p.dst = binary.BigEndian.AppendUint32(p.dst, v) }

func (p *packet) text(s string) {
	if len(s) > maxBlock {
		// Not within a character: what is left has to be well-formed.
		n := maxBlock
		for n > maxBlock-utf8.UTFMax && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	p.u16(uint16(len(s)))
	p.dst = append(p.dst, s...)
}

func (p *packet) binary(b []byte) {
	b = b[:min(len(b), maxBlock)]
	p.u16(uint16(len(b)))
	p.dst = append(p.dst, b...)
}

func (p *packet) propBit(id byte, v byte) { p.dst = append(p.dst, id, v) }

func (p *packet) propU16(id byte, v uint16) { p.u8(id); p.u16(v) }

func (p *packet) propU32(id byte, v uint32) { p.u8(id); p.u32(v) }

func (p *packet) propText(id byte, s string) { p.u8(id); p.text(s) }

func (p *packet) propBinary(id byte, b []byte) { p.u8(id); p.binary(b) }

func (p *packet) propVarint(id byte, v uint32) {
	var b [4]byte
	p.u8(id)
	p.dst = append(p.dst, b[:putVarint(b[:], int(v))]...)
}

func (p *packet) propUsers(users []UserProperty) {
	for _, u := range users {
		p.u8(propUser)
		p.text(u.Key)
		p.text(u.Value)
	}
}
