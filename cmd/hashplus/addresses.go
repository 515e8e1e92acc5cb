package main

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
)

// place is where a listener, or health, is to listen.
type place struct {
	key, address string
	path         string // of a Unix socket
	host         string
	port         int
}

// placeOf is the place of an address. One that is none, or whose port the system
// chooses, has neither path nor port.
func placeOf(key, network, address string) place {
	p := place{key: key, address: address}
	if network == "unix" {
		p.path = address
		if abs, err := filepath.Abs(address); err == nil {
			p.path = abs
		}
		return p
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return p // it has a fault
	}
	p.host = host
	p.port, _ = strconv.Atoi(port)
	if host == "localhost" {
		p.host = "127.0.0.1"
	}
	if a, err := netip.ParseAddr(p.host); err == nil {
		p.host = a.Unmap().String()
		if a.IsUnspecified() {
			p.host = ""
		}
	}
	return p
}

// conflicts reports whether only one of two can be had. An address without a host
// is all of the machine's, of both families.
func (p place) conflicts(q place) bool {
	if p.path != "" || p.port == 0 {
		return p.path != "" && p.path == q.path
	}
	return p.port == q.port && (p.host == q.host || p.host == "" || q.host == "")
}

// checkAddresses finds sockets that are listened on twice.
func (c *configuration) checkAddresses(fault func(key, format string, args ...any)) {
	var places []place
	take := func(p place) {
		for _, q := range places {
			switch {
			case !p.conflicts(q):
				continue
			case p.address != q.address:
				fault(p.key, "%s is listened on twice, as %s by %s too", p.address, q.address, q.key)
			case p.key != q.key:
				fault(p.key, "%s is listened on twice, by %s too", p.address, q.key)
			default:
				fault(p.key, "%s is listened on twice", p.address)
			}
			return
		}
		places = append(places, p)
	}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		take(placeOf(l.key, l.Network, l.Address))
	}
	if c.Health == "" {
		return
	}
	if err := checkAddress(c.Health); err != nil {
		fault("health", "%v", err)
		return
	}
	take(placeOf("health", "tcp", c.Health))
}
