package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"hashplus/transport"
)

// listenerConfig is one listener. What a listener does not set, it takes from
// the ws- flags.
type listenerConfig struct {
	key     string          // what it came from, for messages
	listens string          // its URL, once it listens
	own     *listenerConfig // what was written, before finish filled in the rest

	URL     string // of the file: ws://host:port/path, tcp://host:port, unix:///path; wss and tls
	Network string // ws, wss, tcp, tls or unix
	Address string // host:port or a path

	TrustedProxies  []string // nil: as trusted-proxies
	ProxyProtocol   *string
	ForwardedHeader *string

	listenerTLS // what is nil: as the tls- flags

	Path               *string
	Origins            []string // nil: as ws-origins
	RequireSubprotocol *bool
	Ping               *Duration
	PongGrace          *bool
	Deflate            *bool
	DeflateMinSize     *Size
}

// finish checks the listener and fills in what it did not set. What it takes from
// flags is checked where they are.
func (l *listenerConfig) finish(c *configuration) error {
	own := *l
	l.own = &own
	if l.URL != "" {
		if err := l.parseURL(); err != nil {
			return l.fault("%w", err)
		}
	}
	if l.Network == "unix" {
		if l.Address == "" {
			return l.fault("the path of the socket is empty")
		}
	} else if err := checkAddress(l.Address); err != nil {
		return l.fault("%w", err)
	}
	return errors.Join(l.finishProxies(&c.proxyConfig), l.finishTLS(&c.tlsConfig), l.finishWebSocket(c))
}

// finishWebSocket is the part of finish about WebSocket.
func (l *listenerConfig) finishWebSocket(c *configuration) error {
	if !l.upgrades() {
		if l.Path != nil || l.Origins != nil || l.RequireSubprotocol != nil || l.Ping != nil ||
			l.PongGrace != nil || l.Deflate != nil || l.DeflateMinSize != nil {
			return l.fault("path, origins, require-subprotocol, ping, pong-grace and deflate are for ws:// and wss://, not %s://", l.Network)
		}
		return nil
	}
	var faults []error
	if l.Path != nil && *l.Path != "" && !strings.HasPrefix(*l.Path, "/") {
		faults = append(faults, l.fault("path: %q does not begin with /", *l.Path))
	}
	for _, o := range l.Origins {
		if err := checkOrigin(o); err != nil {
			faults = append(faults, l.fault("origins: %w", err))
		}
	}
	if l.Ping != nil && *l.Ping < 0 {
		faults = append(faults, l.fault("ping: %s is not allowed; 0s or more is", *l.Ping))
	}
	inherit(&l.Path, c.WSPath)
	inherit(&l.RequireSubprotocol, c.WSRequireSubprotocol)
	inherit(&l.Ping, c.WSPing)
	inherit(&l.PongGrace, c.PongGrace)
	inherit(&l.Deflate, c.WSDeflate)
	inherit(&l.DeflateMinSize, c.WSDeflateMinSize)
	if l.Origins == nil {
		l.Origins = c.WSOrigins
	}
	return errors.Join(faults...)
}

// fault is an error about the listener.
func (l *listenerConfig) fault(format string, args ...any) error {
	return fmt.Errorf(l.key+": "+format, args...)
}

func inherit[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

func (l *listenerConfig) parseURL() error {
	u, err := url.Parse(l.URL)
	if err != nil {
		return fmt.Errorf("url: %w", err)
	}
	switch u.Scheme {
	case "ws", "wss":
		l.Network, l.Address = u.Scheme, u.Host
		if u.Path != "" {
			if l.Path != nil && *l.Path != u.Path {
				return fmt.Errorf("url %s and path %s contradict each other", l.URL, *l.Path)
			}
			l.Path = &u.Path
		}
	case "tcp", "mqtt", "tls", "mqtts":
		l.Network, l.Address = "tcp", u.Host
		if u.Scheme == "tls" || u.Scheme == "mqtts" {
			l.Network = "tls"
		}
		if u.Path != "" {
			return fmt.Errorf("url %s: %s:// has no path", l.URL, u.Scheme)
		}
	case "unix":
		l.Network, l.Address = "unix", u.Host+u.Path
	default:
		return fmt.Errorf("url %q does not begin with ws://, wss://, tcp://, tls:// or unix://", l.URL)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("url: a listener has no user, query or fragment")
	}
	return nil
}

// checkAddress refuses what is not host:port, and a port that is not a number.
func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port, such as 127.0.0.1:8083, [::1]:8083 or :8083 for all addresses", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q: the port is not a number from 0 to 65535", address)
	}
	return nil
}

// checkOrigin refuses what no Origin header can be equal to (RFC 6454 section 6.2).
func checkOrigin(o string) error {
	if o == "*" || o == "null" {
		return nil
	}
	u, err := url.Parse(o)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("%q is not an origin, such as https://example.com or http://localhost:3000, without a path", o)
	}
	return nil
}

// local reports whether only this machine can reach the listener.
func (l *listenerConfig) local() bool {
	if l.Network == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(l.Address)
	if err != nil {
		return true // refused elsewhere
	}
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// url is how a client would write the listener, as far as it is known before
// it listens.
func (l *listenerConfig) url() string {
	u := l.Network + "://" + l.Address
	if l.Path != nil {
		u += *l.Path
	}
	return u
}

// listener is l for the transport.
func (l *listenerConfig) listener(c *configuration) transport.Listener {
	t := transport.Listener{Network: l.Network, Addr: l.Address}
	l.trust(&t)
	if l.withTLS() {
		t.TLS, _ = l.spec() // finishTLS has looked at it
	}
	if !l.upgrades() {
		return t
	}
	t.Path, t.Origins = *l.Path, l.Origins
	t.Subprotocols = []string{"mqtt", "mqttv3.1"}
	t.RequireSubprotocol = *l.RequireSubprotocol
	t.PongGrace = *l.PongGrace
	t.Strict = c.Strict
	t.Deflate, t.DeflateMinSize = *l.Deflate, max(int(*l.DeflateMinSize), 1)
	t.MaxMessage = int(c.MaxPacketSize)
	if t.Ping = time.Duration(*l.Ping); t.Ping == 0 {
		t.Ping = -1
	}
	return t
}
