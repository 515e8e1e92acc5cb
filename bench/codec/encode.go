package codec

import "encoding/binary"

// Version is the protocol level byte of CONNECT.
type Version byte

// The protocol levels the generator speaks.
const (
	V311 Version = 4
	V5   Version = 5
)

// Control packet types, in the high four bits of a packet's first byte.
const (
	CONNECT     byte = 1
	CONNACK     byte = 2
	PUBLISH     byte = 3
	PUBACK      byte = 4
	PUBREC      byte = 5
	PUBREL      byte = 6
	PUBCOMP     byte = 7
	SUBSCRIBE   byte = 8
	SUBACK      byte = 9
	UNSUBSCRIBE byte = 10
	UNSUBACK    byte = 11
	PINGREQ     byte = 12
	PINGRESP    byte = 13
	DISCONNECT  byte = 14
	AUTH        byte = 15
)

// Connect holds what the generator puts into a CONNECT packet. It asks for a
// clean session unless it is to be a durable one, since a run must not see an
// older run's messages.
type Connect struct {
	Version   Version
	ClientID  string
	Username  string // absent if empty
	Password  string // absent if empty
	KeepAlive uint16 // seconds; 0 turns keep alive off
	Durable   bool   // the session outlives the connection; in MQTT 5 for durableExpiry
}

// durableExpiry is how long a durable session of MQTT 5 lives on, in seconds:
// longer than any run.
const durableExpiry = 24 * 60 * 60

// Subscription is one filter of a SUBSCRIBE packet.
type Subscription struct {
	Filter string
	QoS    byte
}

// AppendConnect appends a CONNECT packet to dst.
func AppendConnect(dst []byte, c *Connect) []byte {
	props := 0
	if c.Durable {
		props = 5
	}
	n := 10 + 2 + len(c.ClientID)
	if c.Version == V5 {
		n += 1 + props
	}
	flags := byte(0x02)
	if c.Durable {
		flags = 0
	}
	if c.Username != "" {
		flags |= 0x80
		n += 2 + len(c.Username)
	}
	if c.Password != "" {
		flags |= 0x40
		n += 2 + len(c.Password)
	}
	dst = appendLength(append(dst, CONNECT<<4), n)
	dst = append(dst, 0, 4, 'M', 'Q', 'T', 'T', byte(c.Version), flags)
	dst = binary.BigEndian.AppendUint16(dst, c.KeepAlive)
	if c.Version == V5 {
		dst = append(dst, byte(props))
		if c.Durable {
			dst = binary.BigEndian.AppendUint32(append(dst, propSessionExpiry), durableExpiry)
		}
	}
	dst = appendString(dst, c.ClientID)
	if c.Username != "" {
		dst = appendString(dst, c.Username)
	}
	if c.Password != "" {
		dst = appendString(dst, c.Password)
	}
	return dst
}

// AppendSubscribe appends a SUBSCRIBE packet with all of subs to dst. The
// caller keeps the packet below the broker's size limit.
func AppendSubscribe(dst []byte, v Version, id uint16, subs []Subscription) []byte {
	n := 2
	if v == V5 {
		n++
	}
	for _, s := range subs {
		n += 3 + len(s.Filter)
	}
	dst = appendLength(append(dst, SUBSCRIBE<<4|2), n)
	dst = binary.BigEndian.AppendUint16(dst, id)
	if v == V5 {
		dst = append(dst, 0)
	}
	for _, s := range subs {
		dst = append(appendString(dst, s.Filter), s.QoS)
	}
	return dst
}

// AppendPublish appends a PUBLISH packet to dst. id is ignored at QoS 0.
func AppendPublish(dst []byte, v Version, topic string, qos byte, retain bool, id uint16, payload []byte) []byte {
	n := 2 + len(topic) + len(payload)
	if qos > 0 {
		n += 2
	}
	if v == V5 {
		n++
	}
	first := PUBLISH<<4 | qos<<1
	if retain {
		first |= 1
	}
	dst = appendLength(append(dst, first), n)
	dst = appendString(dst, topic)
	if qos > 0 {
		dst = binary.BigEndian.AppendUint16(dst, id)
	}
	if v == V5 {
		dst = append(dst, 0)
	}
	return append(dst, payload...)
}

// AppendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP with success to dst.
// The form of two bytes is right in every version.
func AppendAck(dst []byte, kind byte, id uint16) []byte {
	first := kind << 4
	if kind == PUBREL {
		first |= 2
	}
	return append(dst, first, 2, byte(id>>8), byte(id))
}

// AppendEmpty appends a packet without a body: PINGREQ or DISCONNECT.
func AppendEmpty(dst []byte, kind byte) []byte {
	return append(dst, kind<<4, 0)
}

func appendString(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

func appendLength(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}
