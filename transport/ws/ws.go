// Package ws is RFC 6455 over slices of bytes: the opening handshake, frames in
// both directions, the close handshake's rules, and permessage-deflate (RFC
// 7692). It does no I/O, starts no goroutine and keeps no time. What a
// connection owns is a Request while its handshake is read and a Reader
// afterwards; everything that is large belongs to a Codec, of which a loop has
// one, so that an idle connection holds no buffer.
//
// The rules themselves (frame headers, masking, close codes, the accept key and
// the grammar of extensions) come from github.com/gobwas/ws, whose own readers
// block and are not used.
package ws

import "hashplus/transport/link"

// Error is why a connection is failed after its handshake: what the close frame
// says (RFC 6455 section 7.1.7).
type Error struct {
	Code   link.CloseCode
	Reason string
}

func (e *Error) Error() string { return "websocket: " + e.Reason }

// Reasons for failing a connection that are not in the words of gobwas/ws. They
// are shared values, so that failing a connection allocates nothing.
var (
	errLengthMSB     = &Error{link.CloseProtocolError, "the most significant bit of a 64-bit length must be 0"}
	errLengthMinimal = &Error{link.CloseProtocolError, "a length must be encoded in the fewest bytes"}
	errRSV           = &Error{link.CloseProtocolError, "reserved bit set that no extension gives a meaning"}
	errCloseLength   = &Error{link.CloseProtocolError, "a close frame cannot have one byte of payload"}
	errCloseCode     = &Error{link.CloseProtocolError, "close code out of range"}
	errCloseReason   = &Error{link.CloseInvalidData, "close reason is not valid UTF-8"}
	errUTF8          = &Error{link.CloseInvalidData, "text is not valid UTF-8"}
	errDeflate       = &Error{link.CloseInvalidData, "compressed data is damaged"}
	errTooBig        = &Error{link.CloseTooBig, "message too big"}
	errText          = &Error{link.CloseUnsupported, "text message where only binary ones are understood"}
)
