package wire

// MaxRemaining is the largest Remaining Length, in bytes.
const MaxRemaining = 1<<28 - 1

// MaxHeaderSize is the most bytes that a fixed header takes.
const MaxHeaderSize = 5

// Header is a fixed header (MQTT 5.0 section 2.1.1).
type Header struct {
	Type      Type
	Flags     byte
	Size      int // of the header itself: 2 to 5 bytes
	Remaining int // bytes that follow it
}

// ReadHeader reads the fixed header at the start of b. Size is 0 if b does not
// hold all of it yet. It refuses type 0, flags that the type does not allow
// [MQTT-2.1.3-1] and a Remaining Length of more than four bytes or one that
// is not minimal [MQTT-1.5.5-1], each as soon as it can be seen, and a ping
// with a body; AUTH is refused below V5 by the caller. The flags of PUBLISH are
// Publish.Decode's to check.
//
// MQTT 3.1 allows DUP in a repeated PUBREL, SUBSCRIBE or UNSUBSCRIBE, so it is
// let through here, and refused above 3.1 by the decoder of the packet.
func ReadHeader(b []byte) (h Header, err error) {
	if len(b) == 0 {
		return Header{}, nil
	}
	h.Type, h.Flags = Type(b[0]>>4), b[0]&0x0F
	switch h.Type {
	case PUBLISH:
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		if h.Flags&^flagDup != flagsRequired {
			return Header{}, flagsError(h.Type)
		}
	case 0:
		return Header{}, malformed("", "packet type 0 is reserved")
	default:
		if h.Flags != 0 {
			return Header{}, flagsError(h.Type)
		}
	}
	if len(b) >= 2 && b[1] < 0x80 {
		h.Size, h.Remaining = 2, int(b[1])
	} else {
		n, size, err := readVarint(b[1:])
		if err != nil || size == 0 {
			return Header{}, err
		}
		h.Size, h.Remaining = 1+size, int(n)
	}
	if h.Remaining != 0 && (h.Type == PINGREQ || h.Type == PINGRESP) {
		return Header{}, malformed("", h.Type.String()+" with a body")
	}
	return h, nil
}

const (
	flagDup       = 0x08
	flagsRequired = 0x02 // of PUBREL, SUBSCRIBE and UNSUBSCRIBE
)

// checkDupFlag refuses above 3.1 what ReadHeader let through for its sake.
func checkDupFlag(h Header, v Version) error {
	if h.Flags&flagDup != 0 && v > V31 {
		return flagsError(h.Type)
	}
	return nil
}

func flagsError(t Type) error {
	clause := "MQTT-2.1.3-1"
	switch t {
	case PUBREL:
		clause = "MQTT-3.6.1-1"
	case SUBSCRIBE:
		clause = "MQTT-3.8.1-1"
	case UNSUBSCRIBE:
		clause = "MQTT-3.10.1-1"
	case DISCONNECT:
		clause = "MQTT-3.14.1-1"
	case AUTH:
		clause = "MQTT-3.15.1-1"
	}
	return malformed(clause, "reserved flags of "+t.String())
}

// readVarint reads the Variable Byte Integer at the start of b. size is 0 if b
// ends before it does.
func readVarint(b []byte) (n uint32, size int, err error) {
	for i, c := range b {
		if i == 4 {
			break
		}
		n |= uint32(c&0x7F) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				return 0, 0, malformed("MQTT-1.5.5-1", "Variable Byte Integer is not minimal")
			}
			return n, i + 1, nil
		}
	}
	if len(b) >= 4 {
		return 0, 0, malformed("", "Variable Byte Integer of more than four bytes")
	}
	return 0, 0, nil
}

// varintSize is the length of the Variable Byte Integer of n.
func varintSize(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

// putVarint writes n, at most MaxRemaining, to dst and returns its length.
func putVarint(dst []byte, n int) int {
	i := 0
	for n >= 0x80 {
		dst[i] = byte(n) | 0x80
		n >>= 7
		i++
	}
	dst[i] = byte(n)
	return i + 1
}
