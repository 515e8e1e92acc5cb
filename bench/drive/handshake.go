package drive

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"hashplus/bench/codec"
)

var errEnd = errors.New("broker closed the connection")

// Connect opens the clients from ≤ i < to, as far as they belong to this loop,
// and waits until each of them is ready or has failed. It fails only if ctx
// ends, nothing could connect, or the broker takes fewer messages than leave in
// one burst.
func (l *Loop) Connect(ctx context.Context, from, to int) error {
	first, _ := slices.BinarySearch(l.mine, from)
	last, _ := slices.BinarySearch(l.mine, to)
	mine := l.mine[first:last]
	asked := len(mine) > 0
	begin := l.clock.Now()
	for len(mine) > 0 || l.pending > 0 {
		wait := 100 * time.Millisecond
		for len(mine) > 0 && l.pending < l.plan.Connecting {
			at := l.clock.Now()
			if l.plan.DialRate > 0 {
				due := begin + int64(float64(mine[0]-from)/l.plan.DialRate*1e9)
				if due > at {
					wait = min(wait, time.Duration(due-at))
					break
				}
				// A broker that is late keeps others from being dialled, and that
				// must show in their latency.
				at = due
			}
			l.dial(mine[0], at)
			mine = mine[1:]
		}
		if err := l.tick(wait); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if l.count.ready == 0 && asked {
		return fmt.Errorf("no client could connect: %s", l.firstError())
	}
	return l.appoint()
}

func (l *Loop) firstError() string {
	for e := range l.errors {
		return e
	}
	return "no reason given"
}

// appoint gives each sender its connection. A burst above the broker's Receive
// Maximum could never leave.
func (l *Loop) appoint() error {
	for i := range l.senders {
		s := &l.senders[i]
		s.conn = l.conns[s.Client]
		if s.conn != nil && s.QoS > 0 && s.Burst > s.conn.quota {
			return fmt.Errorf("a burst is %d messages, and the broker's Receive Maximum %d", s.Burst, s.conn.quota)
		}
	}
	return nil
}

// dial starts the connection of client i, which was due at the time given.
func (l *Loop) dial(i int, due int64) {
	c := &conn{client: &l.plan.Clients[i], token: int32(i), fd: -1, sender: l.senderOf[i], mask: uint32(i)*2654435761 | 1, quota: 65535}
	c.started = due
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
		KeepAlive: l.target.KeepAlive, Durable: c.client.Durable,
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
			return fmt.Errorf("broker refused the connection with 0x%02x%s", a.Code, codec.Refusal(a.Code))
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
	if c.sender >= 0 {
		l.count.publishing++
	}
	if c.client.Leaves {
		l.leave(c)
	}
}

// leave ends c in order. It is no loss.
func (l *Loop) leave(c *conn) {
	l.scratch = codec.AppendEmpty(l.scratch[:0], codec.DISCONNECT)
	l.send(c, l.scratch)
	if l.flush(c); c.phase == closed {
		return
	}
	l.count.ready--
	c.phase = closed
	shut(c.fd, false)
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
		if c.sender >= 0 {
			l.count.publishing--
		}
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
