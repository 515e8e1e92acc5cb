package limits

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"hashplus/broker/wire"
)

const (
	v311 = wire.V311
	v5   = wire.V5
)

var serial atomic.Int64

// unique returns a name that no other client or topic has.
func unique(prefix string) string { return fmt.Sprintf("%s%d", prefix, serial.Add(1)) }

// client is one MQTT connection that does nothing by itself: it reads when it
// is told to. One goroutine at a time.
type client struct {
	t       testing.TB
	v       wire.Version
	conn    net.Conn // MQTT bytes, whatever carries them
	in      *bufio.Reader
	body    []byte // of the last packet
	nextID  uint16
	connack *wire.Connack
	last    *wire.Disconnect // that the server sent
}

func newClient(t testing.TB, conn net.Conn, v wire.Version) *client {
	return &client{t: t, v: v, conn: conn, in: bufio.NewReaderSize(conn, 8<<10)}
}

// dial opens a TCP connection.
func (s *server) dial(v wire.Version) *client {
	s.t.Helper()
	return newClient(s.t, open(s.t, s.tcp), v)
}

// dialWS opens a WebSocket.
func (s *server) dialWS(v wire.Version) *client {
	s.t.Helper()
	return newClient(s.t, s.upgrade(""), v)
}

// over runs a test over TCP and over WebSocket.
func over(t *testing.T, s *server, test func(t *testing.T, dial func(v wire.Version) *client)) {
	run := func(name string, dial func(*server, wire.Version) *client) {
		t.Run(name, func(t *testing.T) {
			there := *s
			there.t = t
			test(t, func(v wire.Version) *client { return dial(&there, v) })
		})
	}
	run("tcp", (*server).dial)
	run("ws", (*server).dialWS)
}

// as changes a CONNECT.
type as func(*wire.Connect)

func named(id string) as { return func(c *wire.Connect) { c.ClientID = id } }

// lasting asks for a session that outlives the connection.
func lasting(id string) as {
	return func(c *wire.Connect) {
		c.ClientID, c.CleanStart = id, false
		if c.Version == v5 {
			c.SessionExpiry = 600
		}
	}
}

func (c *client) request(opts ...as) []byte {
	p := &wire.Connect{Version: c.v, CleanStart: true, ClientID: unique("c"), RequestProblem: true}
	for _, o := range opts {
		o(p)
	}
	return p.Append(nil)
}

// join has the connection accepted.
func (c *client) join(opts ...as) *wire.Connack {
	c.t.Helper()
	c.send(c.request(opts...))
	c.connack = c.accepted()
	if c.connack.Reason != wire.Success {
		c.t.Fatalf("refused: %v", c.connack.Reason)
	}
	return c.connack
}

// accepted reads a CONNACK.
func (c *client) accepted() *wire.Connack {
	c.t.Helper()
	h, body := c.expect(wire.CONNACK)
	ack, err := wire.DecodeConnack(h, body, c.v)
	if err != nil {
		c.t.Fatal(err)
	}
	return ack
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if err := c.trySend(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// trySend writes where the server may have closed already.
func (c *client) trySend(b []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	return err
}

// read returns the next packet, whose body is valid until the next call.
func (c *client) read(within time.Duration) (wire.Header, []byte, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return wire.Header{}, nil, err
	}
	for n := 2; ; n++ {
		head, err := c.in.Peek(n)
		if err != nil {
			return wire.Header{}, nil, err
		}
		h, err := wire.ReadHeader(head)
		if err != nil {
			return h, nil, err
		}
		if h.Size == 0 {
			continue
		}
		if _, err := c.in.Discard(h.Size); err != nil {
			return h, nil, err
		}
		if h.Remaining > cap(c.body) {
			c.body = make([]byte, h.Remaining)
		}
		c.body = c.body[:h.Remaining]
		_, err = io.ReadFull(c.in, c.body)
		return h, c.body, err
	}
}

// expect returns the next packet, which must be of a type.
func (c *client) expect(want wire.Type) (wire.Header, []byte) {
	c.t.Helper()
	h, body, err := c.read(patience)
	if err != nil {
		c.t.Fatalf("%v instead of %v", err, want)
	}
	if h.Type != want {
		c.t.Fatalf("%v % x instead of %v", h.Type, body[:min(len(body), 60)], want)
	}
	return h, body
}

// await is expect that passes over others.
func (c *client) await(want wire.Type) (wire.Header, []byte) {
	c.t.Helper()
	for {
		h, body, err := c.read(patience)
		if err != nil {
			c.t.Fatalf("%v before %v", err, want)
		}
		if h.Type == want {
			return h, body
		}
	}
}

// message returns the next PUBLISH, unacknowledged.
func (c *client) message() *wire.Publish {
	c.t.Helper()
	h, body := c.await(wire.PUBLISH)
	return c.decode(h, body)
}

func (c *client) decode(h wire.Header, body []byte) *wire.Publish {
	c.t.Helper()
	p := new(wire.Publish)
	if _, err := p.DecodeFromServer(h, body, c.v, nil, nil); err != nil {
		c.t.Fatal(err)
	}
	return p
}

// take returns the next PUBLISH and acknowledges it at QoS 1.
func (c *client) take() *wire.Publish {
	c.t.Helper()
	p := c.message()
	if p.QoS == 1 {
		c.send(ack(wire.PUBACK, p.PacketID))
	}
	return p
}

func ack(typ wire.Type, id uint16) []byte {
	b := make([]byte, wire.AckSize)
	return b[:wire.PutAck(b, typ, v5, id, wire.Success)]
}

func ping() []byte { return []byte{byte(wire.PINGREQ) << 4, 0} }

// alive fails unless the server still answers this connection.
func (c *client) alive() {
	c.t.Helper()
	c.send(ping())
	c.await(wire.PINGRESP)
}

func (c *client) packetID() uint16 {
	c.nextID++
	return c.nextID
}

// filters is a SUBSCRIBE.
func (c *client) filters(qos byte, filters ...string) []byte {
	p := wire.Subscribe{PacketID: c.packetID()}
	for _, f := range filters {
		p.Filters = append(p.Filters, wire.Subscription{Filter: f, QoS: qos})
	}
	return p.Append(nil, c.v)
}

// trySubscribe returns the reason codes of the SUBACK.
func (c *client) trySubscribe(qos byte, filters ...string) []wire.ReasonCode {
	c.t.Helper()
	c.send(c.filters(qos, filters...))
	h, body := c.await(wire.SUBACK)
	a, err := wire.DecodeSuback(h, body, c.v)
	if err != nil || len(a.Reasons) != len(filters) {
		c.t.Fatalf("SUBACK %+v: %v", a, err)
	}
	return a.Reasons
}

// subscribe subscribes to filters, which must be granted.
func (c *client) subscribe(qos byte, filters ...string) {
	c.t.Helper()
	for i, r := range c.trySubscribe(qos, filters...) {
		if byte(r) > qos {
			c.t.Fatalf("SUBSCRIBE %q: %v", filters[i], r)
		}
	}
}

// publish is a PUBLISH to be encoded.
type publish = wire.Outgoing

func (c *client) encode(p publish) []byte {
	p.Version = c.v
	if p.QoS > 0 && p.PacketID == 0 {
		p.PacketID = c.packetID()
	}
	b := make([]byte, p.Size())
	p.Put(b)
	return b
}

// post publishes and, at QoS 1, waits for the PUBACK.
func (c *client) post(qos byte, topic string, payload []byte) {
	c.t.Helper()
	c.send(c.encode(publish{QoS: qos, Topic: []byte(topic), Payload: payload}))
	if qos == 1 {
		c.await(wire.PUBACK)
	}
}

// end reads up to the end of the connection. It returns the reason of the
// DISCONNECT that came last, if one came, and how the connection ended: nil for
// an end of file after no close frame, a closeFrame, or what broke it.
func (c *client) end() (reason wire.ReasonCode, how error) {
	c.t.Helper()
	c.last = nil
	for {
		h, body, err := c.read(patience)
		switch {
		case errors.Is(err, io.EOF):
			return c.lastReason(), nil
		case err != nil:
			return c.lastReason(), err
		case c.last != nil:
			c.t.Fatalf("%v after DISCONNECT", h.Type)
		case h.Type == wire.DISCONNECT:
			if c.last, err = wire.DecodeServerDisconnect(h, body, nil); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

func (c *client) lastReason() wire.ReasonCode {
	if c.last == nil {
		return 0
	}
	return c.last.Reason
}

// ejected expects the end of a 5.0 connection with a reason, and over WebSocket
// with a close code that goes with it.
func (c *client) ejected(reason wire.ReasonCode, code uint16) {
	c.t.Helper()
	got, how := c.end()
	if got != reason {
		c.t.Errorf("the connection ended with reason %#02x (%v), not %#02x", byte(got), how, byte(reason))
	}
	c.closedWith(how, code)
}

// closedWith checks how a connection ended.
func (c *client) closedWith(how error, code uint16) {
	c.t.Helper()
	if _, web := c.conn.(*webSocket); !web {
		if how != nil {
			c.t.Errorf("the connection ended with %v instead of an end of file", how)
		}
		return
	}
	var frame closeFrame
	if !errors.As(how, &frame) || uint16(frame.code) != code {
		c.t.Errorf("the WebSocket ended with %v, not with %d", how, code)
	}
}

// gone expects the end of the connection without any MQTT packet.
func (c *client) gone(code uint16) {
	c.t.Helper()
	h, _, err := c.read(patience)
	if err == nil {
		c.t.Errorf("%v instead of the end of the connection", h.Type)
		return
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	c.closedWith(err, code)
}

// drop ends the connection without DISCONNECT.
func (c *client) drop() { _ = c.conn.Close() } // the end is what counts

// bare is dial for many connections from many goroutines: nil where it fails,
// and to be dropped by the caller.
func (s *server) bare() *client {
	conn, err := net.DialTimeout("tcp", s.tcp, patience)
	if err != nil {
		return nil
	}
	return newClient(s.t, conn, v5)
}
