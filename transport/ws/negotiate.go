package ws

import (
	"strconv"

	"github.com/gobwas/httphead"
	"github.com/gobwas/ws/wsflate"
)

// offer is one offer of permessage-deflate, as far as it has been read.
type offer struct {
	ok         bool
	serverBits int
	seen       [4]bool // which parameters were given, to refuse duplicates
}

// negotiateDeflate returns the parameters with which the first acceptable offer
// of permessage-deflate is accepted (RFC 7692 section 7.1), and the server's
// window, 0 if there is none. An offer with a parameter that is unknown, invalid
// or given twice is declined; the next one is looked at.
//
// Context takeover is off in both directions: the server compresses a broadcast
// once for all of its receivers, and an idle connection has no window. The
// client's window needs no limit.
func negotiateDeflate(headers []string) (bits int, p wsflate.Parameters, err error) {
	var o offer
	settle := func() {
		if bits == 0 && o.ok {
			bits = maxWindowBits
			p = wsflate.Parameters{ServerNoContextTakeover: true, ClientNoContextTakeover: true}
			if o.serverBits > 0 {
				bits = o.serverBits
				p.ServerMaxWindowBits = wsflate.WindowBits(bits)
			}
		}
		o = offer{}
	}
	for _, h := range headers {
		index := -1
		ok := httphead.ScanOptions([]byte(h), func(i int, name, attr, value []byte) httphead.Control {
			if i != index {
				settle()
				index = i
				o.ok = string(name) == wsflate.ExtensionName
			}
			if attr != nil {
				o.param(string(attr), string(value))
			}
			return httphead.ControlContinue
		})
		if !ok {
			return 0, wsflate.Parameters{}, errExtension
		}
		settle()
	}
	return bits, p, nil
}

// param takes one parameter into account.
func (o *offer) param(name, value string) {
	var n int
	ok := value == ""
	switch name {
	case "server_no_context_takeover":
		n = 0
	case "client_no_context_takeover":
		n = 1
	case "server_max_window_bits":
		n = 2
		o.serverBits, ok = windowBits(value)
	case "client_max_window_bits":
		n = 3
		if !ok {
			_, ok = windowBits(value)
		}
	default:
		ok = false
	}
	o.ok = o.ok && ok && !o.seen[n]
	o.seen[n] = true
}

// windowBits parses a window size, 8 to 15 without leading zeros (RFC 7692
// section 7.1.2).
func windowBits(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= minWindowBits && n <= maxWindowBits && strconv.Itoa(n) == s
}
