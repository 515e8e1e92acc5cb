package ws

import (
	"net/http"
	"strconv"
)

// Refusal is why a request is not upgraded: an HTTP status and a short text for
// the person who reads it.
type Refusal struct {
	Status int
	Reason string
}

func (e *Refusal) Error() string {
	return "websocket: refused with " + strconv.Itoa(e.Status) + ": " + e.Reason
}

// Refusals that depend on nothing in the request. Those of the connection's
// owner are for AppendRefusal.
var (
	ErrTimeout         = &Refusal{http.StatusRequestTimeout, "the request did not come in time"}
	ErrUnavailable     = &Refusal{http.StatusServiceUnavailable, "the server takes no connections now, try again later"}
	ErrTooManyRequests = &Refusal{http.StatusTooManyRequests, "too many connections from this address"}
	ErrBanned          = &Refusal{http.StatusForbidden, "this address is banned for a while"}
	ErrForwarded       = &Refusal{http.StatusBadRequest, "malformed Forwarded header"}

	errNotHTTP    = &Refusal{http.StatusBadRequest, "this is a WebSocket port: it speaks HTTP/1.1, not TLS and not bare MQTT"}
	errTarget     = &Refusal{http.StatusRequestURITooLong, "request line too long"}
	errTooLarge   = &Refusal{http.StatusRequestHeaderFieldsTooLarge, "request header too large"}
	errTooMany    = &Refusal{http.StatusRequestHeaderFieldsTooLarge, "too many header lines"}
	errBody       = &Refusal{http.StatusRequestEntityTooLarge, "a WebSocket handshake has no body"}
	errMethod     = &Refusal{http.StatusMethodNotAllowed, "a WebSocket handshake is a GET request"}
	errPath       = &Refusal{http.StatusNotFound, "there is no WebSocket at this path"}
	errOrigin     = &Refusal{http.StatusForbidden, "pages from this origin may not connect"}
	errForeign    = &Refusal{http.StatusForbidden, "this Host may not be used on a loopback address"}
	errVersion    = &Refusal{http.StatusUpgradeRequired, "only version 13 of the WebSocket protocol is spoken here"}
	errPlain      = &Refusal{http.StatusUpgradeRequired, "This is a WebSocket endpoint for MQTT. Connect to it with an MQTT client, using a ws:// or wss:// URL."}
	errMalformed  = &Refusal{http.StatusBadRequest, "malformed HTTP request"}
	errHTTP       = &Refusal{http.StatusHTTPVersionNotSupported, "only HTTP/1.1 is spoken here"}
	errFold       = &Refusal{http.StatusBadRequest, "folded header lines are not supported"}
	errHost       = &Refusal{http.StatusBadRequest, "exactly one valid Host header is needed"}
	errConnection = &Refusal{http.StatusBadRequest, "the Connection header must contain Upgrade"}
	errKey        = &Refusal{http.StatusBadRequest, "Sec-WebSocket-Key must be given once and be 16 bytes in base64"}
	errNoVersion  = &Refusal{http.StatusBadRequest, "Sec-WebSocket-Version is missing or was given twice"}
	errOrigins    = &Refusal{http.StatusBadRequest, "more than one Origin header"}
	errExtension  = &Refusal{http.StatusBadRequest, "malformed Sec-WebSocket-Extensions header"}
	errProtocols  = &Refusal{http.StatusBadRequest, "malformed Sec-WebSocket-Protocol header"}
	errNoProtocol = &Refusal{http.StatusBadRequest, "a sub-protocol must be offered in Sec-WebSocket-Protocol"}
	errUnknown    = &Refusal{http.StatusBadRequest, "none of the offered sub-protocols is known here"}
)

// AppendRefusal appends the HTTP response that says e and ends the connection.
func AppendRefusal(dst []byte, e *Refusal) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(e.Status), 10)
	dst = append(append(append(dst, ' '), http.StatusText(e.Status)...), "\r\n"...)
	switch e.Status {
	case http.StatusUpgradeRequired:
		// RFC 9110 section 15.5.22 and RFC 6455 section 4.4.
		dst = append(dst, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"...)
		dst = append(dst, "Connection: Upgrade, close\r\n"...)
	case http.StatusMethodNotAllowed:
		dst = append(dst, "Allow: GET\r\nConnection: close\r\n"...)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		dst = append(dst, "Retry-After: 5\r\nConnection: close\r\n"...)
	default:
		dst = append(dst, "Connection: close\r\n"...)
	}
	dst = append(dst, "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(e.Reason)+1), 10)
	dst = append(append(dst, "\r\n\r\n"...), e.Reason...)
	return append(dst, '\n')
}
