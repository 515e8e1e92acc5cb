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
	if u.Loopback && isLoopback(originHost(origins[0])) {
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
