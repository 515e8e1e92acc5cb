package transport

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// ProxyProtocol says whether connections of a listener begin with a header of
// the PROXY protocol, version 1 or 2, that names the client.
type ProxyProtocol uint8

// Values of Listener.ProxyProtocol.
const (
	ProxyOff      ProxyProtocol = iota // no header is expected: one would be taken for the client's own bytes
	ProxyRequired                      // every connection has one and comes from a trusted peer
	ProxyOptional                      // trusted peers may send one, others must not
)

// Bounds of a header. Version 1 has its own (107 bytes); version 2 could have
// 64 KiB of additions, of which proxies use a few hundred bytes, or two thousand
// with a client certificate.
const (
	maxProxyLine   = 107
	maxProxyHeader = 4 << 10

	proxyFixed = 16 // bytes of version 2 before the addresses
)

var (
	errProxyPeer    = errors.New("PROXY protocol: the peer is not a trusted proxy")
	errProxyMissing = errors.New("PROXY protocol: no header")
	errProxyLong    = errors.New("PROXY protocol: the header is too long")
	errProxyTimeout = errors.New("PROXY protocol: the header did not come in time")
)

// proxyHeader looks for a header at the beginning of b, which is everything
// received. It returns the length of the header, 0 where more must come to tell,
// and whether there is one at all: with none, n is 0.
func proxyHeader(b []byte) (n int, present bool, err error) {
	switch {
	case startsLike(b, proxyproto.SIGV2):
		if len(b) < proxyFixed {
			return 0, true, nil
		}
		n = proxyFixed + int(binary.BigEndian.Uint16(b[proxyFixed-2:]))
		if n > maxProxyHeader {
			return 0, true, errProxyLong
		}
		if len(b) < n {
			return 0, true, nil
		}
		return n, true, nil
	case startsLike(b, []byte("PROXY ")):
		end := bytes.IndexByte(b[:min(len(b), maxProxyLine)], '\n')
		if end < 0 && len(b) >= maxProxyLine {
			return 0, true, errProxyLong
		}
		return end + 1, true, nil
	default:
		return 0, false, nil
	}
}

// startsLike reports whether b begins with signature, as far as it has come.
func startsLike(b, signature []byte) bool {
	n := min(len(b), len(signature))
	return bytes.Equal(b[:n], signature[:n])
}

// proxySource is the client's address in header, which is complete. It is not
// valid where the proxy speaks for itself (a health check) or for a client that
// has no address.
func proxySource(header []byte) (netip.AddrPort, error) {
	if header[0] == proxyproto.SIGV2[0] && header[proxyFixed-4] == 0x21 && header[proxyFixed-3] == 0 {
		return netip.AddrPort{}, nil // PROXY of an unspecified family: HAProxy sends it for clients on Unix sockets
	}
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(header), len(header)))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("PROXY protocol: %w", err)
	}
	if h.Command.IsLocal() {
		return netip.AddrPort{}, nil
	}
	if a, ok := h.SourceAddr.(*net.TCPAddr); ok {
		return unmap(a.AddrPort()), nil
	}
	return netip.AddrPort{}, nil
}

// expectProxy is the first thing that happens to a connection of a listener with
// PROXY protocol: who may not send a header need not be listened to.
func (c *conn) expectProxy() {
	if c.endpoint.ProxyProtocol == ProxyRequired && !c.trusted() {
		c.refuseProxy(errProxyPeer)
	}
}

func (c *conn) refuseProxy(why error) {
	c.loop.server.counts.proxy.Add(1)
	c.endRefused(why)
}

// trusted reports whether whom the connection speaks for, as far as is known, is
// a trusted proxy.
func (c *conn) trusted() bool { return c.endpoint.Trusted.Contains(c.info.Remote.Addr()) }

// readProxy takes a PROXY header off the front of b, which is everything
// received, and goes on with what follows it.
func (c *conn) readProxy(b []byte, own bool) {
	n, present, err := proxyHeader(b)
	switch {
	case err != nil:
	case !present && c.endpoint.ProxyProtocol == ProxyRequired:
		err = errProxyMissing
	case !present:
	case n == 0:
		c.keepRest(b, b, own)
		return
	case !c.trusted():
		err = errProxyPeer
	default:
		var source netip.AddrPort
		if source, err = proxySource(b[:n]); source.IsValid() {
			if refusal, why := c.identified(source); why != nil {
				c.refuseWith(refusal, why)
				c.keepRest(b, nil, own)
				return
			}
		}
	}
	if err != nil {
		c.refuseProxy(err)
	} else {
		if c.sock.tls != nil {
			c.become(securing)
		} else {
			c.become(awaitUpgrade)
		}
		c.begin()
		switch rest := b[n:]; {
		case len(rest) == 0:
		case c.state == open && !c.takesData():
			c.keepRest(rest, rest, false) // until it takes data
		default:
			c.handle(rest, 0, false)
		}
	}
	c.keepRest(b, nil, own)
}

// identifyStream takes the PROXY header off a connection that this goroutine reads,
// where there is one, and sets remote to the client that it names. It returns what
// it has read beyond, and whether that client has been counted.
func (s *Server) identifyStream(e *endpoint, nc net.Conn, remote *netip.AddrPort) (rest []byte, counted bool, err error) {
	if e.ProxyProtocol == ProxyOff {
		return nil, false, nil
	}
	defer func() {
		if err != nil && err != errAddressConns && err != errAddressRate && err != errBanned {
			s.counts.proxy.Add(1)
		}
	}()
	trusted := e.Trusted.Contains(remote.Addr())
	if e.ProxyProtocol == ProxyRequired && !trusted {
		return nil, false, errProxyPeer
	}
	defer context.AfterFunc(s.handshakes.ctx, func() { _ = nc.Close() })()
	if err := nc.SetDeadline(time.Now().Add(s.options().HandshakeTimeout)); err != nil {
		return nil, false, err
	}
	buf := make([]byte, 0, maxProxyHeader)
	for {
		k, err := nc.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+k]
		if err != nil {
			return nil, false, lateAs(err, errProxyTimeout)
		}
		n, present, err := proxyHeader(buf)
		switch {
		case err != nil:
			return nil, false, err
		case !present && e.ProxyProtocol == ProxyRequired:
			return nil, false, errProxyMissing
		case !present:
			return buf, false, nil
		case n == 0:
			continue
		case !trusted:
			return nil, false, errProxyPeer
		}
		source, err := proxySource(buf[:n])
		if err != nil || !source.IsValid() {
			return buf[n:], false, err
		}
		*remote = source
		if e.exempt(source.Addr()) {
			return buf[n:], false, nil
		}
		_, counted, err = s.checkAddress(source.Addr())
		return buf[n:], counted, err
	}
}
