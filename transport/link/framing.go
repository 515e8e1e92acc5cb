package link

import "encoding/binary"

// Framing is how packets stand on a connection's write queue. Two connections
// with the same Framing can share encoded bytes.
type Framing uint8

const (
	// Raw has no framing: TCP, TLS, Unix sockets.
	Raw Framing = 0
	// WebSocket puts each packet into one unmasked binary frame (RFC 6455
	// section 5.2).
	WebSocket Framing = 1
	// Deflate and the values above it are WebSocket with permessage-deflate
	// (RFC 7692): Deflate+w has a server window of w bits, 8 to 15. Packets
	// may still be sent uncompressed, framed as WebSocket.
	Deflate Framing = 2
)

// Compressed reports whether f negotiated permessage-deflate.
func (f Framing) Compressed() bool { return f >= Deflate }

// HeaderLen is the length of the header that an uncompressed packet of n bytes
// gets.
func (f Framing) HeaderLen(n int) int {
	switch {
	case f == Raw:
		return 0
	case n < 126:
		return 2
	case n <= 0xffff:
		return 4
	default:
		return 10
	}
}

// PutHeader writes the header of an uncompressed packet of n bytes to dst,
// which has room for HeaderLen(n) bytes, and returns that length.
func (f Framing) PutHeader(dst []byte, n int) int {
	switch {
	case f == Raw:
		return 0
	case n < 126:
		_ = dst[1]
		dst[0], dst[1] = 0x82, byte(n)
		return 2
	case n <= 0xffff:
		_ = dst[3]
		dst[0], dst[1] = 0x82, 126
		binary.BigEndian.PutUint16(dst[2:], uint16(n))
		return 4
	default:
		_ = dst[9]
		dst[0], dst[1] = 0x82, 127
		binary.BigEndian.PutUint64(dst[2:], uint64(n))
		return 10
	}
}
