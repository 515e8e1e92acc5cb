// Package wire is the codec of MQTT control packets, versions 3.1, 3.1.1 and
// 5.0: bytes in, bytes out, no I/O and no state.
//
// What comes in is checked before it is believed: structure, bounds, UTF-8,
// flags, allowed and unique properties. PUBLISH, its acknowledgements and the
// pings are decoded as views over the bytes, with no allocation; the other
// packets own what they hold.
//
// What goes out is written as given. The encoders cut a string or binary value
// that is longer than its two-byte length can say to the longest that fits, so
// that no value can change the packet's structure.
//
// Every function is safe from any goroutine as long as its arguments are not
// shared. Every error of a decoder is an *Error.
package wire

import "strconv"

// Version is the protocol level of CONNECT.
type Version byte

// Protocol levels.
const (
	V31  Version = 3 // MQIsdp
	V311 Version = 4
	V5   Version = 5
)

// String is the version as people write it, such as "3.1.1".
func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V5:
		return "5.0"
	}
	return "level " + strconv.Itoa(int(v))
}

// Type is a control packet type (MQTT 5.0 section 2.1.2).
type Type byte

// Control packet types.
const (
	CONNECT Type = 1 + iota
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
	AUTH
)

// String is the name of the type as the specification has it.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return "type " + strconv.Itoa(int(t))
}

var typeNames = [...]string{
	"type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE",
	"SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

// Limits bound what a decoder accepts beside the protocol's own rules. Zero
// means no limit beyond the protocol's, and so does a nil *Limits.
type Limits struct {
	UserProperties int // per packet; the Will Properties of a CONNECT count apart
	TopicLength    int // bytes of the topic name of a PUBLISH or a will
	TopicLevels    int // of the same
}

func (l *Limits) userProperties() int {
	if l == nil {
		return 0
	}
	return l.UserProperties
}
