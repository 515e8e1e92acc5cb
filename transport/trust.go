package transport

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Networks are peers that are believed when they say whom they speak for. The
// zero value holds nobody.
type Networks struct {
	Prefixes []netip.Prefix
	Unix     bool // peers without an address: those of a Unix socket
}

// ParseNetworks reads addresses (192.0.2.1), networks (10.0.0.0/8, fd00::/8) and
// the word unix. The error names what is none of them.
func ParseNetworks(list []string) (n Networks, err error) {
	for _, s := range list {
		if s == "unix" {
			n.Unix = true
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, fault := netip.ParseAddr(s)
			if fault != nil || a.Zone() != "" {
				return Networks{}, fmt.Errorf("%q is not an address, a network such as 10.0.0.0/8, or unix", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Addr().Is4In6() {
			return Networks{}, fmt.Errorf("%q: write an IPv4 network as such", s)
		}
		if p != p.Masked() {
			return Networks{}, fmt.Errorf("%q has bits set beyond its length; %s is the network", s, p.Masked())
		}
		n.Prefixes = append(n.Prefixes, p)
	}
	return n, nil
}

// Empty reports whether nobody is in n.
func (n *Networks) Empty() bool { return len(n.Prefixes) == 0 && !n.Unix }

// Contains reports whether a is in one of the networks; the zero Addr stands for
// a peer without an address.
func (n *Networks) Contains(a netip.Addr) bool {
	if !a.IsValid() {
		return n.Unix
	}
	for _, p := range n.Prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Headers that proxies put the client's address into, as values of
// Listener.ForwardedHeader.
const (
	XForwardedFor = "X-Forwarded-For"
	Forwarded     = "Forwarded" // RFC 7239
)

// errForwarded: somebody on the way to a trusted proxy has tampered with the
// header, or the proxy is broken. In both cases nobody knows the client.
var errForwarded = errors.New("malformed Forwarded header")

// origin is the address of the client whose request came from peer: the header's
// hops are gone through from right to left, from the proxy next to us to the
// first address that is not a trusted proxy's. What stands left of that was
// written by somebody who is not trusted. A hop that is no address ("unknown")
// ends it as well; the client is then the proxy that wrote it.
func (n *Networks) origin(peer netip.AddrPort, name string, header map[string][]string) (netip.AddrPort, error) {
	lines := header[name]
	if len(lines) == 0 || !n.Contains(peer.Addr()) {
		return peer, nil
	}
	var hops []string
	for _, line := range lines {
		if name != Forwarded {
			hops = append(hops, strings.Split(line, ",")...)
			continue
		}
		var ok bool
		if hops, ok = appendForwarded(hops, line); !ok {
			return peer, errForwarded
		}
	}
	at := peer
	for i := len(hops) - 1; i >= 0 && n.Contains(at.Addr()); i-- {
		hop := strings.Trim(hops[i], " \t")
		if hop == "" && name != Forwarded {
			continue // RFC 9110 section 5.6.1.2
		}
		next, ok := parseHop(hop)
		if !ok {
			break
		}
		at = next
	}
	return at, nil
}

// parseHop reads an address, with or without a port, as proxies write it.
func parseHop(s string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	ap := netip.AddrPortFrom(a, 0)
	if err != nil {
		if ap, err = netip.ParseAddrPort(s); err != nil {
			return netip.AddrPort{}, false
		}
	}
	if ap.Addr().Zone() != "" {
		return netip.AddrPort{}, false
	}
	return unmap(ap), true
}

// appendForwarded appends the for parameter of each element of line (RFC 7239
// section 4), "" where an element has none. ok is false where the line is not
// well-formed: with an open quote a client could swallow what proxies append.
func appendForwarded(hops []string, line string) (_ []string, ok bool) {
	hop, seen := "", false
	for at := 0; ; {
		at += len(line[at:]) - len(strings.TrimLeft(line[at:], " \t"))
		n := strings.IndexAny(line[at:], "=,; \t")
		if n > 0 && line[at+n] == '=' {
			name := line[at : at+n]
			value, size := forwardedValue(line[at+n+1:])
			if size == 0 {
				return nil, false
			}
			at += n + 1 + size
			if strings.EqualFold(name, "for") {
				if seen {
					return nil, false
				}
				hop, seen = value, true
			}
			at += len(line[at:]) - len(strings.TrimLeft(line[at:], " \t"))
		}
		if at == len(line) {
			return append(hops, hop), true
		}
		switch line[at] {
		case ',':
			hops = append(hops, hop)
			hop, seen = "", false
		case ';':
		default:
			return nil, false
		}
		at++
	}
}

// forwardedValue reads a token or a quoted string and returns its size in s, 0
// where it is neither.
func forwardedValue(s string) (value string, size int) {
	if !strings.HasPrefix(s, `"`) {
		if size = strings.IndexAny(s, ",; \t"); size < 0 {
			size = len(s)
		}
		if strings.ContainsAny(s[:size], `"\`) {
			return "", 0
		}
		return s[:size], size
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), i + 1
		case '\\':
			if i++; i == len(s) {
				return "", 0
			}
		}
		b.WriteByte(s[i])
	}
	return "", 0
}
