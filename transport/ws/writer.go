package ws

import (
	"encoding/binary"
	"unicode/utf8"

	gobwas "github.com/gobwas/ws"

	"hashplus/transport/link"
)

const (
	finBit  = 0x80
	rsv1Bit = 0x40

	// MaxControl is the most bytes a control frame carries.
	MaxControl = gobwas.MaxControlFramePayloadSize
	// MaxControlFrame is the most bytes a control frame has, header included.
	MaxControlFrame = 2 + MaxControl
	// MaxHeader is the most bytes the header of a frame to a client has.
	MaxHeader = 10
)

// PingFrame is an unmasked ping without payload.
const PingFrame = "\x89\x00"

// PutHeader writes the header of an unmasked frame with n bytes of payload to
// dst, which has room for MaxHeader bytes, and returns its length. first is the
// header's first byte: FIN, reserved bits, op code.
func PutHeader(dst []byte, first byte, n int) int {
	k := link.WebSocket.PutHeader(dst, n)
	dst[0] = first
	return k
}

// AppendHeader appends what PutHeader writes.
func AppendHeader(dst []byte, first byte, n int) []byte {
	var h [MaxHeader]byte
	return append(dst, h[:PutHeader(h[:], first, n)]...)
}

// AppendMessage appends p as one uncompressed message in one frame.
func AppendMessage(dst []byte, isText bool, p []byte) []byte {
	return append(AppendHeader(dst, finBit|byte(opOf(isText)), len(p)), p...)
}

// AppendPing appends a ping with payload p, of which 125 bytes are used.
func AppendPing(dst, p []byte) []byte { return appendControl(dst, gobwas.OpPing, p) }

// AppendPong appends the pong that answers a ping with payload p.
func AppendPong(dst, p []byte) []byte { return appendControl(dst, gobwas.OpPong, p) }

func appendControl(dst []byte, op gobwas.OpCode, p []byte) []byte {
	p = p[:min(len(p), MaxControl)]
	return append(append(dst, finBit|byte(op), byte(len(p))), p...)
}

// AppendClose appends a close frame. A reason that is too long is cut between
// two characters, one that is not UTF-8 is left out. Codes that must not be sent
// (1005, 1006, 1015) and 0 give a frame without code and reason.
func AppendClose(dst []byte, code link.CloseCode, reason string) []byte {
	if code == 0 || gobwas.StatusCode(code).IsProtocolReserved() {
		return append(dst, finBit|byte(gobwas.OpClose), 0)
	}
	if len(reason) > MaxControl-2 {
		n := MaxControl - 2
		for n > 0 && !utf8.RuneStart(reason[n]) {
			n--
		}
		reason = reason[:n]
	}
	if !utf8.ValidString(reason) {
		reason = ""
	}
	dst = append(dst, finBit|byte(gobwas.OpClose), byte(2+len(reason)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}

// AppendCloseReply appends the close frame that answers one with payload p: the
// same code, without its reason (RFC 6455 section 5.5.1).
func AppendCloseReply(dst, p []byte) []byte {
	code, _ := ParseClose(p)
	return AppendClose(dst, code, "")
}

func opOf(isText bool) gobwas.OpCode {
	if isText {
		return gobwas.OpText
	}
	return gobwas.OpBinary
}
