package ws

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// checkOrigin applies the rules that Upgrader.Origins and Upgrader.Loopback
// describe: a web page that the user visits must not read their broker.
func (u *Upgrader) checkOrigin(host string, origins []string) error {
	if len(origins) > 1 {
		return errOrigins
	}
	anyone := slices.Contains(u.Origins, "*")
	if u.Loopback && !anyone && !isLoopback(host) && !u.listsHost(host) {
		return errForeign
	}
	if len(origins) == 0 || anyone || slices.Contains(u.Origins, origins[0]) {
		return nil
	}
	from := originHost(origins[0])
	if u.Loopback && isLoopback(from) {
		return nil
	}
	// Python's paho names the server's own address as its origin. Where that is
	// an IP address no page can pretend to it: only what this very server had
	// served would have it, and a name that is made to resolve here stays a name.
	if !u.Loopback && isAddress(host) && strings.EqualFold(from, host) {
		return nil
	}
	return errOrigin
}

// listsHost reports whether host, of a Host header, is that of a listed origin.
func (u *Upgrader) listsHost(host string) bool {
	return host != "" && slices.ContainsFunc(u.Origins, func(o string) bool {
		return strings.EqualFold(hostname(originHost(o)), hostname(host))
	})
}

// originHost is the host of an origin, with its port, or "" for one that has
// none ("null").
func originHost(origin string) string {
	o, err := url.Parse(origin)
	if err != nil {
		return ""
	}
	return o.Host
}

// hostname takes the port and the brackets off host.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// isAddress reports whether host, with or without a port, is an IP address.
func isAddress(host string) bool {
	_, err := netip.ParseAddr(hostname(host))
	return err == nil
}

// isLoopback reports whether host, with or without a port, can only mean this
// machine (RFC 6761 section 6.3 for names).
func isLoopback(host string) bool {
	name := strings.ToLower(strings.TrimSuffix(hostname(host), "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(name)
	return err == nil && a.IsLoopback()
}
