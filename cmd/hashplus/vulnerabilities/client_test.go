package vulnerabilities

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"hashplus/bench/codec"
)

// packet is a control packet: its first byte, and what follows its remaining
// length. A string part is written with its length, bytes and props as they are.
func packet(first byte, parts ...any) []byte {
	var body []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			body = append(binary.BigEndian.AppendUint16(body, uint16(len(p))), p...)
		case []byte:
			body = append(body, p...)
		case int: // one byte
			body = append(body, byte(p))
		case uint16:
			body = binary.BigEndian.AppendUint16(body, p)
		case uint32:
			body = binary.BigEndian.AppendUint32(body, p)
		default:
			panic(fmt.Sprintf("part of type %T", p))
		}
	}
	return append(varint([]byte{first}, len(body)), body...)
}

// props is a block of properties with its length; parts are those of packet.
func props(parts ...any) []byte {
	return packet(0, parts...)[1:]
}

func varint(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

// who is what a client says of itself in CONNECT.
type who struct {
	v3       bool // MQTT 3.1.1 instead of 5.0
	id       string
	resume   bool   // no clean start
	expiry   uint32 // of the session, in seconds
	user     string // whose password is its name, unless password is set
	password string
	will     *will
	aliases  uint16 // Topic Alias Maximum
	window   uint16 // Receive Maximum
}

type will struct {
	topic, payload string
	qos            byte
	retain         bool
}

var serial atomic.Int64

func unique(prefix string) string { return fmt.Sprintf("%s%d", prefix, serial.Add(1)) }

// connect is the CONNECT of w.
func (w who) connect() []byte {
	flags := byte(0)
	if !w.resume {
		flags |= 2
	}
	var properties []byte
	if w.expiry > 0 {
		properties = binary.BigEndian.AppendUint32(append(properties, 0x11), w.expiry)
	}
	if w.window > 0 {
		properties = binary.BigEndian.AppendUint16(append(properties, 0x21), w.window)
	}
	if w.aliases > 0 {
		properties = binary.BigEndian.AppendUint16(append(properties, 0x22), w.aliases)
	}
	payload := []any{w.id}
	if w.will != nil {
		flags |= 4 | w.will.qos<<3
		if w.will.retain {
			flags |= 0x20
		}
		if !w.v3 {
			payload = append(payload, props())
		}
		payload = append(payload, w.will.topic, w.will.payload)
	}
	if w.user != "" {
		flags |= 0xc0
		if w.password == "" {
			w.password = w.user
		}
		payload = append(payload, w.user, w.password)
	}
	parts := []any{"MQTT", 5, int(flags), uint16(0)}
	if w.v3 {
		parts[1] = 4
	} else {
		parts = append(parts, varint(nil, len(properties)), properties)
	}
	return packet(0x10, append(parts, payload...)...)
}

// client is one connection that does nothing by itself. One goroutine.
type client struct {
	t       testing.TB
	who     who
	conn    net.Conn
	in      *bufio.Reader
	ws      *codec.Deframer // nil on TCP
	closed  int             // code of the close frame that came, or 0
	pending []byte          // bytes of MQTT that have come and were not looked at
	aliases map[uint16]string
	early   []codec.Packet // messages that came before what was waited for
	nextID  uint16
}

// dial opens a connection and says nothing.
func (b *broker) dial() *client {
	b.t.Helper()
	return b.over(b.tcp)
}

func (b *broker) over(address string) *client {
	b.t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() }) // the test is over
	return &client{t: b.t, conn: conn, in: bufio.NewReaderSize(conn, 64<<10), aliases: map[uint16]string{}}
}

const handshake = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n"

// dialWS opens a WebSocket; extra are lines of the upgrade request.
func (b *broker) dialWS(extra string) *client {
	b.t.Helper()
	c := b.over(b.ws)
	c.write([]byte(handshake + extra + "\r\n"))
	c.deadline(patience)
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		b.t.Fatalf("upgrade: %v %v", answer, err)
	}
	c.ws = new(codec.Deframer)
	return c
}

// join is dial for a client that is let in.
func (b *broker) join(w who) *client {
	b.t.Helper()
	c := b.dial()
	c.join(w)
	return c
}

func (c *client) join(w who) {
	c.t.Helper()
	if code := c.knock(w); code != 0 {
		c.t.Fatalf("client %q of %q is refused: %#02x", w.id, w.user, code)
	}
}

// knock sends CONNECT and returns the reason of CONNACK.
func (c *client) knock(w who) byte {
	c.t.Helper()
	if w.id == "" {
		w.id = unique("c")
	}
	c.who = w
	c.send(w.connect())
	return c.expect(codec.CONNACK).Body[1]
}

// send writes MQTT bytes, over WebSocket in one frame.
func (c *client) send(b []byte) {
	c.t.Helper()
	if c.ws != nil {
		b = codec.AppendFrame(nil, codec.OpBinary, 0x01020304, b)
	}
	c.write(b)
}

// write writes bytes as they are. The broker may have hung up already.
func (c *client) write(b []byte) {
	c.t.Helper()
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.conn.Write(b); errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("%d bytes are not taken", len(b))
	}
}

func (c *client) deadline(d time.Duration) {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		c.t.Fatal(err)
	}
}

// read returns the next packet. Its body is the caller's.
func (c *client) read(within time.Duration) (codec.Packet, error) {
	c.t.Helper()
	c.deadline(within)
	for {
		p, n, err := codec.Split(c.pending)
		if err != nil || n > 0 {
			c.pending = c.pending[n:]
			return p, err
		}
		if c.closed != 0 {
			return p, io.EOF
		}
		have := len(c.pending)
		buf := append(make([]byte, 0, have+4096), c.pending...)
		more := buf[have:cap(buf)]
		n, err = c.in.Read(more)
		if err != nil {
			return codec.Packet{}, err
		}
		c.pending = buf[:have+n]
		if c.ws != nil {
			end, err := c.ws.Deframe(c.pending, have, have, c.control)
			if err != nil {
				return codec.Packet{}, err
			}
			c.pending = c.pending[:end]
		}
	}
}

func (c *client) control(op byte, payload []byte) error {
	switch {
	case op != codec.OpClose:
	case len(payload) >= 2:
		c.closed = int(binary.BigEndian.Uint16(payload))
	default:
		c.closed = 1005
	}
	return nil
}

// expect returns the next packet, which must be of a type.
func (c *client) expect(kind byte) codec.Packet {
	c.t.Helper()
	p, err := c.read(patience)
	if err != nil || p.Type != kind {
		c.t.Fatalf("packet type %d % x (%v, close frame %d) instead of %d", p.Type, p.Body[:min(len(p.Body), 40)], err, c.closed, kind)
	}
	return p
}

// await is expect that passes over others, and keeps messages for later.
func (c *client) await(kind byte) codec.Packet {
	c.t.Helper()
	if kind == codec.PUBLISH && len(c.early) > 0 {
		p := c.early[0]
		c.early = c.early[1:]
		return p
	}
	for {
		p, err := c.read(patience)
		if err != nil {
			c.t.Fatalf("%v (close frame %d) before a packet of type %d", err, c.closed, kind)
		}
		if p.Type == kind {
			return p
		}
		if p.Type == codec.PUBLISH {
			c.early = append(c.early, p)
		}
	}
}

// ended reads to the end of the connection, which must come, and returns the
// reason of the last DISCONNECT or refusing CONNACK, or 0.
func (c *client) ended() (reason byte) {
	c.t.Helper()
	for {
		p, err := c.read(patience)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.t.Fatal("the connection is still there")
		case err != nil:
			return reason
		case p.Type == codec.DISCONNECT && len(p.Body) > 0:
			reason = p.Body[0]
		case p.Type == codec.CONNACK && len(p.Body) > 1:
			reason = p.Body[1]
		}
	}
}

// refused expects the end of the connection with one of some reasons. A client
// of 3.1.1 is told none.
func (c *client) refused(reasons ...byte) {
	c.t.Helper()
	got := c.ended()
	if c.who.v3 {
		return
	}
	for _, r := range reasons {
		if got == r {
			return
		}
	}
	c.t.Errorf("the connection ended with reason %#02x instead of %#02x", got, reasons)
}

// alive fails unless the broker answers.
func (c *client) alive() {
	c.t.Helper()
	c.send([]byte{0xc0, 0})
	c.await(codec.PINGRESP)
}

func (c *client) id() uint16 {
	c.nextID++
	return c.nextID
}

// ask subscribes and returns the code of SUBACK.
func (c *client) ask(filter string, qos byte) byte {
	c.t.Helper()
	parts := []any{c.id()}
	if !c.who.v3 {
		parts = append(parts, props())
	}
	c.send(packet(0x82, append(parts, filter, int(qos))...))
	body := c.await(codec.SUBACK).Body
	return body[len(body)-1]
}

// subscribe is ask that must be granted.
func (c *client) subscribe(filter string, qos byte) {
	c.t.Helper()
	if code := c.ask(filter, qos); code > 2 {
		c.t.Fatalf("SUBSCRIBE %q: %#02x", filter, code)
	}
}

// publication is a PUBLISH; alias is left out if 0.
func (c *client) publication(topic, payload string, qos byte, id, alias uint16) []byte {
	parts := []any{topic}
	if qos > 0 {
		parts = append(parts, id)
	}
	if !c.who.v3 {
		if alias > 0 {
			parts = append(parts, props(0x23, alias))
		} else {
			parts = append(parts, props())
		}
	}
	return packet(0x30|qos<<1, append(parts, []byte(payload))...)
}

// publish publishes at QoS 0 or 1 and returns the reason of the PUBACK.
func (c *client) publish(topic, payload string, qos byte, alias uint16) (reason byte) {
	c.t.Helper()
	c.send(c.publication(topic, payload, qos, c.id(), alias))
	if qos == 0 {
		return 0
	}
	if body := c.await(codec.PUBACK).Body; len(body) > 2 {
		return body[2]
	}
	return 0
}

// message is a PUBLISH that came.
type message struct {
	topic, payload string
	id             uint16
	qos            byte
	dup            bool
}

// decode takes a PUBLISH apart and looks its topic alias up.
func (c *client) decode(p codec.Packet) message {
	c.t.Helper()
	v := codec.V5
	if c.who.v3 {
		v = codec.V311
	}
	m, err := p.Publish(v)
	if err != nil {
		c.t.Fatal(err)
	}
	topic := string(m.Topic)
	if alias := topicAlias(p, m); alias != 0 {
		if topic == "" {
			known, ok := c.aliases[alias]
			if !ok {
				c.t.Fatalf("the broker uses topic alias %d, which it never set", alias)
			}
			topic = known
		}
		c.aliases[alias] = topic
	}
	if topic == "" {
		c.t.Fatal("a message without a topic")
	}
	return message{topic, string(m.Payload), m.ID, m.QoS, m.Dup}
}

// topicAlias is that of a PUBLISH in whose properties nothing stands before it
// but one byte and four byte values; 0 if there is none.
func topicAlias(p codec.Packet, m codec.Publish) uint16 {
	at := 2 + len(m.Topic)
	if m.QoS > 0 {
		at += 2
	}
	properties := p.Body[at : len(p.Body)-len(m.Payload)]
	if len(properties) == 0 {
		return 0
	}
	for b := properties[1:]; len(b) > 2; {
		switch b[0] {
		case 0x23:
			return binary.BigEndian.Uint16(b[1:])
		case 0x01:
			b = b[2:]
		case 0x02:
			b = b[5:]
		default:
			return 0
		}
	}
	return 0
}

// message returns the next message, unacknowledged.
func (c *client) message() message {
	c.t.Helper()
	return c.decode(c.await(codec.PUBLISH))
}

// silent fails if a message comes within a moment.
func (c *client) silent(d time.Duration) {
	c.t.Helper()
	for end := time.Now().Add(d); ; {
		p, err := codec.Packet{}, error(nil)
		if len(c.early) > 0 {
			p = c.await(codec.PUBLISH)
		} else {
			p, err = c.read(time.Until(end))
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			c.t.Fatalf("%v instead of silence", err)
		}
		if p.Type == codec.PUBLISH {
			m := c.decode(p)
			c.t.Fatalf("a message of %q came: %q", m.topic, m.payload)
		}
	}
}

// drop ends the connection without a word.
func (c *client) drop() { _ = c.conn.Close() } // the end is what counts
