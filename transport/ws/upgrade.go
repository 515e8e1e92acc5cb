package ws

import (
	"crypto/sha1"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/gobwas/httphead"
	gobwas "github.com/gobwas/ws"

	"hashplus/transport/link"
)

// Defaults of Upgrader.
const (
	DefaultMaxBytes = 16 << 10
	DefaultMaxLines = 100
)

// Upgrader is what a listener asks of a handshake. The zero value upgrades any
// valid one from a program; those of pages need Origins or Loopback. It must not
// be changed once it is used; its methods may be called from any goroutine.
type Upgrader struct {
	// Path is the only path that is upgraded; "" is any.
	Path string
	// Protocols are the sub-protocols known here; nil is "mqtt" and "mqttv3.1".
	// The first one that the client offers is chosen, in the client's order. A
	// client that offers only others is refused.
	Protocols []string
	// RequireProtocol refuses a client that offers no sub-protocol.
	RequireProtocol bool
	// Origins are the values of the Origin header that are let in, compared
	// byte by byte; "*" is any. A request without the header is not from a page
	// and is let in, and so is one whose origin is the IP address, with port,
	// that its Host header names.
	Origins []string
	// Loopback is for a listener on a loopback address. Pages that were loaded
	// from this machine are let in. The Host header must name this machine, or
	// the host of one of Origins: a page whose own name was made to resolve to
	// a loopback address is thus kept out.
	Loopback bool
	// Deflate accepts permessage-deflate.
	Deflate bool

	// MaxBytes and MaxLines bound the header; 0 is the default.
	MaxBytes, MaxLines int
}

// Upgraded is what a handshake came to.
type Upgraded struct {
	Handshake *link.Handshake
	Protocol  string // sub-protocol, or ""
	Framing   link.Framing
}

// Parse is r.Parse with the limits of u.
func (u *Upgrader) Parse(r *Request, buf []byte) (n int, err error) {
	maxBytes, maxLines := u.MaxBytes, u.MaxLines
	if maxBytes == 0 {
		maxBytes = DefaultMaxBytes
	}
	if maxLines == 0 {
		maxLines = DefaultMaxLines
	}
	return r.Parse(buf, maxBytes, maxLines)
}

// Upgrade answers the request whose complete header is block. The answer is
// appended to dst and must be sent in either case: err is a *Refusal, and the
// connection is to be closed after it. block is not kept.
func (u *Upgrader) Upgrade(dst, block []byte) (answer []byte, up Upgraded, err error) {
	r, err := parseRequest(block)
	if err == nil {
		answer, up, err = u.upgrade(dst, r)
	}
	if err != nil {
		refusal, ok := err.(*Refusal)
		if !ok {
			refusal = errMalformed
		}
		return AppendRefusal(dst, refusal), Upgraded{}, refusal
	}
	return answer, up, nil
}

func (u *Upgrader) upgrade(dst []byte, r *request) ([]byte, Upgraded, error) {
	up := Upgraded{Handshake: &r.Handshake, Framing: link.WebSocket}
	if err := u.check(r); err != nil {
		return dst, up, err
	}
	var err error
	if up.Protocol, err = u.chooseProtocol(r.Header["Sec-Websocket-Protocol"]); err != nil {
		return dst, up, err
	}
	var extension httphead.Option
	if u.Deflate {
		bits, params, err := negotiateDeflate(r.Header["Sec-Websocket-Extensions"])
		if err != nil {
			return dst, up, err
		}
		if bits > 0 {
			up.Framing = DeflateFraming(bits)
			extension = params.Option()
		}
	}
	dst, err = accept(dst, r.Header["Sec-Websocket-Key"][0], up.Protocol, extension)
	return dst, up, err
}

// check applies RFC 6455 section 4.2.1 and the listener's rules, in an order in
// which the reason given helps most.
func (u *Upgrader) check(r *request) error {
	h := r.Header
	switch {
	case r.method != "GET":
		return errMethod
	case h["Transfer-Encoding"] != nil, slices.ContainsFunc(h["Content-Length"], func(v string) bool { return v != "0" }):
		return errBody
	case u.Path != "" && r.Path != u.Path:
		return errPath
	case r.old, !listed(h["Upgrade"], "websocket"):
		// RFC 9110 section 7.8: Upgrade in HTTP/1.0 is to be ignored.
		return errPlain
	case !listed(h["Connection"], "upgrade"):
		return errConnection
	case len(h["Sec-Websocket-Version"]) != 1:
		return errNoVersion
	case h["Sec-Websocket-Version"][0] != "13":
		return errVersion
	case len(h["Sec-Websocket-Key"]) != 1 || !validKey(h["Sec-Websocket-Key"][0]):
		return errKey
	default:
		return u.checkOrigin(r.Host, h["Origin"])
	}
}

// validKey reports whether key is 16 bytes in base64 (RFC 6455 section 4.1).
func validKey(key string) bool {
	if len(key) != base64.StdEncoding.EncodedLen(16) {
		return false
	}
	var b [18]byte
	n, err := base64.StdEncoding.Decode(b[:], []byte(key))
	return err == nil && n == 16
}

var mqttProtocols = []string{"mqtt", "mqttv3.1"}

// chooseProtocol returns the first offered sub-protocol that is known, or ""
// where none was offered and none is needed. The string is the upgrader's own:
// one out of the request would keep all of that in memory.
func (u *Upgrader) chooseProtocol(offers []string) (string, error) {
	known := u.Protocols
	if known == nil {
		known = mqttProtocols
	}
	offered, chosen := false, ""
	for _, list := range offers {
		for name := range strings.SplitSeq(list, ",") {
			name = strings.Trim(name, " \t")
			if name == "" {
				continue // RFC 9110 section 5.6.1.2
			}
			if !validToken(name) {
				return "", errProtocols
			}
			offered = true
			if i := slices.Index(known, name); chosen == "" && i >= 0 {
				chosen = known[i]
			}
		}
	}
	switch {
	case chosen != "":
		return chosen, nil
	case offered:
		return "", errUnknown
	case u.RequireProtocol:
		return "", errNoProtocol
	default:
		return "", nil
	}
}

// accept appends the response (RFC 6455 section 4.2.2).
func accept(dst []byte, key, protocol string, extension httphead.Option) ([]byte, error) {
	if extension.Size() > 0 {
		return acceptByLibrary(dst, key, protocol, extension)
	}
	const magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	var digest struct {
		in  [24 + len(magic)]byte
		out [sha1.Size]byte
	}
	copy(digest.in[copy(digest.in[:], key):], magic)
	digest.out = sha1.Sum(digest.in[:])
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	dst = base64.StdEncoding.AppendEncode(dst, digest.out[:])
	if protocol != "" {
		dst = append(append(dst, "\r\nSec-WebSocket-Protocol: "...), protocol...)
	}
	return append(dst, "\r\n\r\n"...), nil
}

// acceptByLibrary has gobwas/ws write the response, which takes a dozen times as
// long. It is given a request in the plain form that it knows: that Connection
// and Upgrade can be lists, on several lines, has been dealt with.
func acceptByLibrary(dst []byte, key, protocol string, extension httphead.Option) ([]byte, error) {
	var in strings.Builder
	in.WriteString("GET / HTTP/1.1\r\nHost: -\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n")
	if protocol != "" {
		in.WriteString("Sec-WebSocket-Protocol: " + protocol + "\r\n")
	}
	if extension.Size() > 0 {
		in.WriteString("Sec-WebSocket-Extensions: " + string(extension.Name) + "\r\n")
	}
	in.WriteString("\r\n")
	pipe := &exchange{in: strings.NewReader(in.String()), out: dst}
	_, err := gobwas.Upgrader{
		Protocol: func([]byte) bool { return true },
		ExtensionCustom: func(_ []byte, to []httphead.Option) ([]httphead.Option, bool) {
			return append(to, extension), true
		},
	}.Upgrade(pipe)
	if err != nil {
		return dst, err
	}
	return pipe.out, nil
}

// exchange is the connection that gobwas/ws sees: a request in memory, and the
// response.
type exchange struct {
	in  *strings.Reader
	out []byte
}

func (e *exchange) Read(p []byte) (int, error) { return e.in.Read(p) }

func (e *exchange) Write(p []byte) (int, error) {
	e.out = append(e.out, p...)
	return len(p), nil
}
