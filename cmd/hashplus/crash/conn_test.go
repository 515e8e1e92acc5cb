package crash

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"hashplus/broker/wire"
	"hashplus/cmd/hashplus/launch"
)

const (
	v311 = wire.V311
	v5   = wire.V5
)

// network is where the broker is reached now, and who is connected to it.
type network struct {
	mu      sync.Mutex
	address string // "" while there is nothing to connect to
	life    int    // grows with each start of the broker
	dialed  int    // connections made
	conns   map[*conn]bool
}

var errDown = errors.New("the broker is down")

// up says where the broker listens after a start.
func (n *network) up(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.address = address
	n.life++
}

// down refuses connections and cuts those that exist. What has not been read by
// a client when it returns will never be.
func (n *network) down() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.address = ""
	for c := range n.conns {
		_ = c.raw.Close() // it may be closed already
	}
	clear(n.conns)
}

// dial opens a connection for a client that speaks v.
func (n *network) dial(v wire.Version) (*conn, error) {
	n.mu.Lock()
	address, life := n.address, n.life
	n.mu.Unlock()
	if address == "" {
		return nil, errDown
	}
	raw, err := net.DialTimeout("tcp", address, launch.Patience)
	if err != nil {
		return nil, err
	}
	c := &conn{raw: raw, v: v, life: life, of: n}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dialed++
	c.serial = n.dialed
	if n.address != address {
		return nil, errors.Join(errDown, raw.Close())
	}
	if n.conns == nil {
		n.conns = map[*conn]bool{}
	}
	n.conns[c] = true
	return c, nil
}

// conn is one connection: packets in, bytes out. It does nothing by itself. One
// goroutine, but for close.
type conn struct {
	raw    net.Conn
	v      wire.Version
	life   int // of the broker that it is connected to
	serial int
	of     *network

	buf  []byte // read and not yet taken
	took int    // bytes at the start of buf that were taken
}

// packet is a packet from the broker. It owns its memory.
type packet struct {
	typ     wire.Type
	id      uint16
	reason  wire.ReasonCode   // of acknowledgements, CONNACK, DISCONNECT
	reasons []wire.ReasonCode // of SUBACK and UNSUBACK

	connack *wire.Connack
	publish *wire.Publish
	subIDs  []uint32
}

func (p *packet) String() string {
	switch p.typ {
	case wire.PUBLISH:
		m := p.publish
		return fmt.Sprintf("PUBLISH %q %q id %d QoS %d dup %v retain %v", m.Topic, m.Payload[:min(40, len(m.Payload))], m.PacketID, m.QoS, m.Dup, m.Retain)
	case wire.CONNACK:
		return fmt.Sprintf("CONNACK %v, session present %v", p.reason, p.connack.SessionPresent)
	}
	return fmt.Sprintf("%v id %d %v %v", p.typ, p.id, p.reason, p.reasons)
}

func (c *conn) close() {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	_ = c.raw.Close() // it may be closed already
}

func (c *conn) write(b []byte) error {
	if err := c.raw.SetWriteDeadline(time.Now().Add(launch.Patience)); err != nil {
		return err
	}
	_, err := c.raw.Write(b)
	return err
}

// next returns the next packet. An error that timedOut knows means that no
// whole packet has come until then, and harms nothing.
func (c *conn) next(until time.Time) (*packet, error) {
	for {
		if p, err := c.take(); p != nil || err != nil {
			return p, err
		}
		if c.took > 0 {
			c.buf = append(c.buf[:0], c.buf[c.took:]...)
			c.took = 0
		}
		if err := c.raw.SetReadDeadline(until); err != nil {
			return nil, err
		}
		c.buf = slices.Grow(c.buf, 16<<10)
		n, err := c.raw.Read(c.buf[len(c.buf):cap(c.buf)])
		if c.buf = c.buf[:len(c.buf)+n]; n == 0 && err != nil {
			return nil, err
		}
	}
}

func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// ready reports whether next would return without reading.
func (c *conn) ready() bool {
	b := c.buf[c.took:]
	h, err := wire.ReadHeader(b)
	return err != nil || h.Size > 0 && len(b) >= h.Size+h.Remaining
}

// take decodes the first packet in buf, or returns nil if it is not whole.
func (c *conn) take() (*packet, error) {
	b := c.buf[c.took:]
	h, err := wire.ReadHeader(b)
	if err != nil || h.Size == 0 || len(b) < h.Size+h.Remaining {
		return nil, err
	}
	body := slices.Clone(b[h.Size : h.Size+h.Remaining])
	c.took += h.Size + h.Remaining
	p := &packet{typ: h.Type}
	switch h.Type {
	case wire.CONNACK:
		if p.connack, err = wire.DecodeConnack(h, body, c.v); err == nil {
			p.reason = p.connack.Reason
		}
	case wire.PUBLISH:
		p.publish = new(wire.Publish)
		p.subIDs, err = p.publish.DecodeFromServer(h, body, c.v, nil, nil)
		p.id = p.publish.PacketID
	case wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP:
		p.id, p.reason, err = wire.ReadAck(h, body, c.v, nil)
	case wire.SUBACK, wire.UNSUBACK:
		decode := wire.DecodeSuback
		if h.Type == wire.UNSUBACK {
			decode = wire.DecodeUnsuback
		}
		var a *wire.Suback
		if a, err = decode(h, body, c.v); err == nil {
			p.id, p.reasons = a.PacketID, a.Reasons
		}
	case wire.DISCONNECT:
		var d *wire.Disconnect
		if d, err = wire.DecodeServerDisconnect(h, body, nil); err == nil {
			p.reason = d.Reason
		}
	case wire.PINGRESP:
	default:
		err = fmt.Errorf("%v from a broker", h.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("%v from the broker: %w", h.Type, err)
	}
	return p, nil
}

// appendAck appends an acknowledgement.
func appendAck(dst []byte, typ wire.Type, id uint16) []byte {
	var b [wire.AckSize]byte
	return append(dst, b[:wire.PutAck(b[:], typ, v5, id, wire.Success)]...)
}

// appendPublish appends a PUBLISH.
func appendPublish(dst []byte, p *wire.Outgoing) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, p.Size())...)
	p.Put(dst[at:])
	return dst
}
