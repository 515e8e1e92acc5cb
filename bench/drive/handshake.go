package drive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"hashplus/bench/codec"
)

var errEnd = errors.New("broker closed the connection")

// dial starts the connection of client i.
func (l *Loop) dial(i int) {
	c := &conn{client: &l.plan.Clients[i], token: int32(i), fd: -1, sender: l.senderOf[i], mask: uint32(i)*2654435761 | 1, quota: 65535}
	c.started = l.clock.Now()
	l.conns[i] = c
	l.pending++
	if l.target.TLS != nil {
		l.shaking++
		l.dialTLS(c, l.source(i), c.client.Stall)
		return
	}
	fd, err := l.sys.dial(l.target.Addr, l.source(i), c.client.Stall, c.token)
	if err != nil {
		l.drop(c, fmt.Errorf("connect: %w", err))
		return
	}
	c.fd = fd
}

// source spreads loopback connections over 127.0.0.x, as one pair of addresses
// has ports for about 28,000. Elsewhere the system chooses.
func (l *Loop) source(i int) netip.Addr {
	to := l.target.Addr.Addr()
	block := i / l.plan.SourceSize
	if !to.IsLoopback() || !to.Is4() || block == 0 {
		return netip.Addr{}
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 127<<24|1+uint32(block))
	return netip.AddrFrom4(a)
}

// established sends the first bytes of a connection.
func (l *Loop) established(c *conn) {
	if err := connected(c.fd); err != nil {
		l.drop(c, fmt.Errorf("connect: %w", err))
		return
	}
	l.opened(c)
}

// opened begins to speak on a connection that stands.
func (l *Loop) opened(c *conn) {
	if !l.target.WebSocket {
		l.greet(c)
		return
	}
	c.phase = upgrading
	c.out = append(c.out, l.upgrade...)
	l.touch(c)
}

func (l *Loop) greet(c *conn) {
	c.phase = greeting
	l.scratch = codec.AppendConnect(l.scratch[:0], &codec.Connect{
		Version: l.target.Version, ClientID: c.client.ID,
		Username: l.target.Username, Password: l.target.Password,
		KeepAlive: l.target.KeepAlive, ReceiveMaximum: 0,
	})
	l.send(c, l.scratch)
}

// advance handles CONNACK and SUBACK.
func (l *Loop) advance(c *conn, p codec.Packet) error {
	switch {
	case p.Type == codec.CONNACK && c.phase == greeting:
		a, err := p.Connack(l.target.Version)
		if err != nil {
			return err
		}
		if a.Code != 0 {
			return fmt.Errorf("broker refused the connection with 0x%02x", a.Code)
		}
		c.quota = int(a.ReceiveMaximum)
		c.keep = int64(l.target.KeepAlive) * int64(time.Second)
		if a.ServerKeep >= 0 {
			c.keep = int64(a.ServerKeep) * int64(time.Second)
		}
		l.keeping = l.keeping || c.keep > 0
		l.connects.record(l.now - c.started)
		l.count.connected++
		l.subscribe(c, c.client.Subs)
		return nil
	case p.Type == codec.SUBACK && c.subacks > 0:
		_, codes, err := p.Suback(l.target.Version)
		if err != nil {
			return err
		}
		for _, code := range codes {
			if code >= 0x80 {
				return fmt.Errorf("broker refused a subscription with 0x%02x", code)
			}
		}
		c.subacks--
		if c.subacks == 0 && c.phase == subscribing {
			l.becomeReady(c)
		}
		return nil
	}
	return codec.Error(fmt.Sprintf("packet of type %d out of turn", p.Type))
}

// subscribe sends subs in as many packets as it takes. During the handshake an
// empty list makes the connection ready at once.
func (l *Loop) subscribe(c *conn, subs []codec.Subscription) {
	if c.phase == greeting {
		c.phase = subscribing
	}
	for len(subs) > 0 {
		n := min(len(subs), maxSubscribe)
		c.id++
		l.scratch = codec.AppendSubscribe(l.scratch[:0], l.target.Version, c.id, subs[:n])
		l.send(c, l.scratch)
		c.subacks++
		subs = subs[n:]
	}
	if c.subacks == 0 && c.phase == subscribing {
		l.becomeReady(c)
	}
}

func (l *Loop) becomeReady(c *conn) {
	c.phase = ready
	l.pending--
	l.count.ready++
}

// drop closes c and notes why. A connection that was ready counts as lost, one
// that was not as failed.
func (l *Loop) drop(c *conn, why error) {
	if c.phase == closed {
		return
	}
	if c.phase == ready {
		l.count.ready--
		l.count.disconnects++
	} else {
		l.pending--
		l.count.failed++
	}
	c.phase = closed
	if c.fd >= 0 {
		shut(c.fd, true)
	}
	if l.errors[why.Error()] > 0 || len(l.errors) < 20 {
		l.errors[why.Error()]++
	}
}
