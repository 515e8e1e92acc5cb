package codec

import (
	"encoding/binary"
	"fmt"
)

// Error is what a broker sent that no MQTT or WebSocket broker may send.
type Error string

func (e Error) Error() string { return "codec: " + string(e) }

// MaxPacket bounds the remaining length that Split accepts from a broker.
const MaxPacket = 64 << 20

// Packet is one control packet as it lies in the read buffer.
type Packet struct {
	Type  byte
	Flags byte
	Body  []byte // a view: valid as long as the bytes given to Split
}

// Publish is the decoded view of a PUBLISH packet.
type Publish struct {
	Topic   []byte
	Payload []byte
	ID      uint16 // 0 at QoS 0
	QoS     byte
	Dup     bool
	Retain  bool
}

// Connack is what matters to a generator in a CONNACK packet.
type Connack struct {
	Code           byte   // return code (3.1.1) or reason code (5)
	ReceiveMaximum uint16 // 65,535 if the broker does not say
	ServerKeep     int    // seconds, -1 if the broker does not say
}

// Split cuts the first packet off b. n is the packet's whole length, or 0 if b
// does not hold all of it yet.
func Split(b []byte) (p Packet, n int, err error) {
	if len(b) < 2 {
		return p, 0, nil
	}
	length, at := int(b[1]), 2
	if length >= 0x80 {
		length &= 0x7f
		for shift := 7; ; shift += 7 {
			if shift > 21 {
				return p, 0, Error("remaining length of more than four bytes")
			}
			if at == len(b) {
				return p, 0, nil
			}
			c := b[at]
			at++
			length |= int(c&0x7f) << shift
			if c < 0x80 {
				break
			}
		}
		if length > MaxPacket {
			return p, 0, Error(fmt.Sprintf("packet of %d bytes", length))
		}
	}
	if len(b)-at < length {
		return p, 0, nil
	}
	n = at + length
	return Packet{Type: b[0] >> 4, Flags: b[0] & 15, Body: b[at:n]}, n, nil
}

// Publish decodes p, which must be of type PUBLISH.
func (p Packet) Publish(v Version) (m Publish, err error) {
	b := p.Body
	m.QoS = p.Flags >> 1 & 3
	m.Dup, m.Retain = p.Flags&8 != 0, p.Flags&1 != 0
	if m.QoS == 3 {
		return m, Error("PUBLISH with QoS 3")
	}
	if len(b) < 2 {
		return m, Error("PUBLISH cut short in its topic")
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+n {
		return m, Error("PUBLISH cut short in its topic")
	}
	m.Topic, b = b[2:2+n], b[2+n:]
	if m.QoS > 0 {
		if len(b) < 2 {
			return m, Error("PUBLISH cut short in its packet id")
		}
		m.ID, b = binary.BigEndian.Uint16(b), b[2:]
		if m.ID == 0 {
			return m, Error("PUBLISH with packet id 0")
		}
	}
	if v == V5 {
		if _, b, err = properties(b); err != nil {
			return m, err
		}
	}
	m.Payload = b
	return m, nil
}

// Ack decodes a PUBACK, PUBREC, PUBREL or PUBCOMP: its packet id and, in MQTT
// 5, its reason code (0 where it is left out).
func (p Packet) Ack() (id uint16, reason byte, err error) {
	if len(p.Body) < 2 {
		return 0, 0, Error("acknowledgement cut short")
	}
	if len(p.Body) > 2 {
		reason = p.Body[2]
	}
	return binary.BigEndian.Uint16(p.Body), reason, nil
}

// Suback decodes a SUBACK: its packet id and one code per filter.
func (p Packet) Suback(v Version) (id uint16, codes []byte, err error) {
	if len(p.Body) < 2 {
		return 0, nil, Error("SUBACK cut short")
	}
	id, codes = binary.BigEndian.Uint16(p.Body), p.Body[2:]
	if v == V5 {
		if _, codes, err = properties(codes); err != nil {
			return 0, nil, err
		}
	}
	return id, codes, nil
}

// Connack decodes a CONNACK.
func (p Packet) Connack(v Version) (c Connack, err error) {
	c = Connack{ReceiveMaximum: 65535, ServerKeep: -1}
	if len(p.Body) < 2 {
		return c, Error("CONNACK cut short")
	}
	c.Code = p.Body[1]
	if v != V5 || len(p.Body) == 2 {
		return c, nil
	}
	props, _, err := properties(p.Body[2:])
	if err != nil {
		return c, err
	}
	for len(props) > 0 {
		id := props[0]
		size, err := propertySize(id, props[1:])
		if err != nil {
			return c, err
		}
		val := props[1 : 1+size]
		switch id {
		case propReceiveMaximum:
			c.ReceiveMaximum = binary.BigEndian.Uint16(val)
		case propServerKeepAlive:
			c.ServerKeep = int(binary.BigEndian.Uint16(val))
		}
		props = props[1+size:]
	}
	return c, nil
}

const (
	propSessionExpiry   byte = 17
	propServerKeepAlive byte = 19
	propReceiveMaximum  byte = 33
)

// properties cuts a property block, length included, off b.
func properties(b []byte) (props, rest []byte, err error) {
	n, at := 0, 0
	for shift := 0; ; shift += 7 {
		if at == len(b) || shift > 21 {
			return nil, nil, Error("bad property length")
		}
		c := b[at]
		at++
		n |= int(c&0x7f) << shift
		if c < 0x80 {
			break
		}
	}
	if len(b)-at < n {
		return nil, nil, Error("properties longer than their packet")
	}
	return b[at : at+n], b[at+n:], nil
}

// propertySize is the length of the value of property id at the start of b.
func propertySize(id byte, b []byte) (int, error) {
	n := -1
	switch id {
	case 1, 23, 25, 36, 37, 40, 41, 42: // byte
		n = 1
	case 19, 33, 34, 35: // two byte integer
		n = 2
	case 2, 17, 24, 39: // four byte integer
		n = 4
	case 3, 8, 9, 18, 21, 22, 26, 28, 31: // string or binary
		if len(b) >= 2 {
			n = 2 + int(binary.BigEndian.Uint16(b))
		}
	case 38: // string pair
		if len(b) >= 2 {
			k := 2 + int(binary.BigEndian.Uint16(b))
			if len(b) >= k+2 {
				n = k + 2 + int(binary.BigEndian.Uint16(b[k:]))
			}
		}
	}
	if n < 0 || n > len(b) {
		return 0, Error(fmt.Sprintf("bad property %d", id))
	}
	return n, nil
}

// Refusal says in words, after a comma, what a CONNACK's code means, where a user
// of the generator can do something about it. The codes of 3.1.1 and 5 differ, and
// a broker that does not speak 5 may answer with one of 3.1.1.
func Refusal(code byte) string {
	switch code {
	case 0x01, 0x84:
		return ", this version of MQTT"
	case 0x02, 0x85:
		return ", the client identifier"
	case 0x03, 0x88:
		return ", server unavailable"
	case 0x04, 0x86:
		return ", user name or password"
	case 0x05, 0x87:
		return ", not authorized"
	case 0x89:
		return ", server busy"
	case 0x97:
		return ", quota exceeded"
	case 0x9f:
		return ", connection rate exceeded"
	}
	return ""
}
