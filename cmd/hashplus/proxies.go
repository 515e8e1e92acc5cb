package main

import (
	"errors"
	"net/netip"
	"slices"

	"hashplus/transport"
)

// proxyConfig says which proxies are believed when they name the client.
type proxyConfig struct {
	TrustedProxies  []string `placeholder:"NETWORK" help:"Addresses and networks of proxies that are believed when they name the client; unix stands for the peers of Unix sockets. Repeatable."`
	ProxyProtocol   string   `enum:"off,required,optional" default:"off" placeholder:"WHEN" help:"Whether connections begin with a header of the PROXY protocol, version 1 or 2: off, required or optional. Only trusted proxies may send one."`
	ForwardedHeader string   `enum:"X-Forwarded-For,Forwarded,none" default:"X-Forwarded-For" placeholder:"HEADER" help:"The header in which trusted HTTP proxies name the client: X-Forwarded-For, Forwarded or none. It must be the one that they write: the other one is passed on as the client wrote it."`
}

// check holds the flags to what is allowed, and finds one without use.
func (c *proxyConfig) check(listeners []listenerConfig, fault func(key, format string, args ...any)) {
	if _, err := transport.ParseNetworks(c.TrustedProxies); err != nil {
		fault("trusted-proxies", "%v", err)
	}
	trusting := slices.ContainsFunc(listeners, func(l listenerConfig) bool { return len(l.TrustedProxies) > 0 })
	if !trusting && slices.Contains(changed(c), "forwarded-header") {
		fault("forwarded-header", "is set, but no proxy is believed: trusted-proxies is empty")
	}
}

// everybody is one of networks that every address is in, "" if there is none.
func everybody(networks []string) string {
	for _, n := range networks {
		if p, err := netip.ParsePrefix(n); err == nil && p.Bits() == 0 {
			return n
		}
	}
	return ""
}

// finishProxies checks the listener's proxies and fills in what it did not set.
func (l *listenerConfig) finishProxies(c *proxyConfig) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, l.fault(format, args...)) }
	if _, err := transport.ParseNetworks(l.TrustedProxies); err != nil {
		fault("trusted-proxies: %w", err)
	}
	if l.TrustedProxies == nil {
		l.TrustedProxies = c.TrustedProxies
	}
	own := l.ProxyProtocol != nil
	inherit(&l.ProxyProtocol, c.ProxyProtocol)
	const unsent = "proxy-protocol: without trusted-proxies nobody could send a header"
	switch _, ok := proxyProtocols[*l.ProxyProtocol]; {
	case !ok:
		fault("proxy-protocol: %q is not one of off, required, optional", *l.ProxyProtocol)
	case *l.ProxyProtocol == "off" || len(l.TrustedProxies) > 0:
	case own:
		fault(unsent)
	default:
		faults = append(faults, errors.New(unsent)) // the flag's, once for all listeners
	}
	if !l.upgrades() {
		if l.ForwardedHeader != nil {
			fault("forwarded-header is for ws:// and wss://, not %s://", l.Network)
		}
		return errors.Join(faults...)
	}
	inherit(&l.ForwardedHeader, c.ForwardedHeader)
	switch *l.ForwardedHeader {
	case transport.XForwardedFor, transport.Forwarded, "none":
	default:
		fault("forwarded-header: %q is not one of X-Forwarded-For, Forwarded, none", *l.ForwardedHeader)
	}
	return errors.Join(faults...)
}

var proxyProtocols = map[string]transport.ProxyProtocol{ //nolint:gochecknoglobals // a table
	"off": transport.ProxyOff, "required": transport.ProxyRequired, "optional": transport.ProxyOptional,
}

// trust sets what t is to know of proxies. It follows finishProxies.
func (l *listenerConfig) trust(t *transport.Listener) {
	t.Trusted, _ = transport.ParseNetworks(l.TrustedProxies) // finishProxies has looked at it
	t.ProxyProtocol = proxyProtocols[*l.ProxyProtocol]
	if l.ForwardedHeader != nil && *l.ForwardedHeader != "none" {
		t.ForwardedHeader = *l.ForwardedHeader
	}
}
