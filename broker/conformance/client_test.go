package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// patience is how long an answer may take; soon is how long we listen for what
// must not come, where nothing that must come can be waited for instead.
const (
	patience = time.Minute
	soon     = 300 * time.Millisecond
)

var serial atomic.Int64

// unique returns a name that no other test uses: letters and digits, at most
// 20 of them.
func unique() string {
	return fmt.Sprintf("u%xx%d", uint32(time.Now().UnixNano()), serial.Add(1))
}

// client is one connection, and what a test knows about it. It belongs to the
// goroutine of its test.
type client struct {
	t    testing.TB
	v    byte
	id   string
	conn io.ReadWriteCloser

	in      chan *packet // closed when the connection has ended
	held    []*packet    // read already, not yet asked for
	nextID  int
	connack *packet

	maxSize atomic.Int64 // Maximum Packet Size that it announced
}

// open wraps a connection on which a server that speaks v will send.
func open(t testing.TB, conn io.ReadWriteCloser, v byte) *client {
	c := &client{t: t, v: v, conn: conn, in: make(chan *packet, 20000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(c.in)
		c.receive()
	}()
	t.Cleanup(func() {
		_ = conn.Close() // closed already by many tests
		<-ended
	})
	return c
}

// receive reads packets, and holds the order of them against the rules that
// bind every connection.
func (c *client) receive() {
	var acked, over bool
	for {
		p, err := readPacket(c.conn, c.v)
		if err != nil {
			if errors.Is(err, errFormat) {
				c.t.Errorf("%s: %v", versionName(c.v), err)
			}
			return
		}
		switch {
		case over:
			c.t.Errorf("%v after DISCONNECT", p)
		case p.typ == tCONNACK && acked:
			c.t.Errorf("a second CONNACK: %v", p)
		case !acked && p.typ != tCONNACK && p.typ != tAUTH:
			c.t.Errorf("%v before CONNACK", p)
		}
		if n := c.maxSize.Load(); n > 0 && p.size > int(n) {
			c.t.Errorf("%v takes %d bytes, the client's maximum is %d", p, p.size, n)
		}
		acked = acked || p.typ == tCONNACK
		over = over || p.typ == tDISCONNECT
		c.in <- p
	}
}

// dial opens a TCP connection.
func dial(t testing.TB, s *server, v byte) *client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.tcp, patience)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, conn, v)
}

// as changes a CONNECT that join sends.
type as func(*connect)

// keep names the client and asks for a session that lasts; with first it is
// started afresh.
func keep(id string) as {
	return func(c *connect) {
		c.id, c.clean = id, false
		if c.version == v5 {
			c.props = cat(c.props, prop4(pSessionExpiry, 300))
		}
	}
}

func named(id string) as       { return func(c *connect) { c.id = id } }
func clean(c *connect)         { c.clean = true }
func with(p ...[]byte) as      { return func(c *connect) { c.props = cat(c.props, cat(p...)) } }
func leaving(w will) as        { return func(c *connect) { c.will = &w } }
func keepAlive(seconds int) as { return func(c *connect) { c.keepAlive = seconds } }

// request builds a CONNECT: a clean session of a new name unless told otherwise.
func request(v byte, opts ...as) *connect {
	c := &connect{version: v, clean: true, id: unique()}
	for _, o := range opts {
		o(c)
	}
	return c
}

// join opens a connection and has it accepted.
func join(t testing.TB, s *server, v byte, opts ...as) *client {
	t.Helper()
	c := dial(t, s, v)
	c.join(opts...)
	return c
}

// join sends CONNECT and returns the CONNACK that accepts it.
func (c *client) join(opts ...as) *packet {
	c.t.Helper()
	r := request(c.v, opts...)
	c.id = r.id
	c.send(r.bytes())
	c.connack = c.expect(tCONNACK)
	if c.connack.reason != 0 {
		c.t.Fatalf("refused: %v", c.connack)
	}
	return c.connack
}

// limit has every packet that comes checked against a Maximum Packet Size.
func (c *client) limit(n int) { c.maxSize.Store(int64(n)) }

func (c *client) send(bs ...[]byte) {
	c.t.Helper()
	if err := c.trySend(bs...); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// trySend writes where the server may already have closed.
func (c *client) trySend(bs ...[]byte) error {
	_, err := c.conn.Write(cat(bs...))
	return err
}

// arrive returns the next packet from the connection, or nil when it has ended.
func (c *client) arrive() *packet {
	c.t.Helper()
	select {
	case p := <-c.in:
		return p
	case <-time.After(patience):
		c.t.Fatalf("nothing arrives within %v", patience)
		return nil
	}
}

// next returns the next packet.
func (c *client) next() *packet {
	c.t.Helper()
	if len(c.held) > 0 {
		p := c.held[0]
		c.held = c.held[1:]
		return p
	}
	p := c.arrive()
	if p == nil {
		c.t.Fatal("the connection has ended")
	}
	return p
}

// expect returns the next packet, which must be of a type.
func (c *client) expect(typ byte) *packet {
	c.t.Helper()
	p := c.next()
	if p.typ != typ {
		c.t.Fatalf("%v instead of %s", p, typeName[typ])
	}
	return p
}

// await returns the next packet of a type; what comes before it is held back
// for next.
func (c *client) await(typ byte) *packet {
	c.t.Helper()
	for i, p := range c.held {
		if p.typ == typ {
			c.held = append(c.held[:i:i], c.held[i+1:]...)
			return p
		}
	}
	for {
		p := c.arrive()
		if p == nil {
			c.t.Fatalf("the connection has ended before %s", typeName[typ])
		}
		if p.typ == typ {
			return p
		}
		c.held = append(c.held, p)
	}
}

// packetID returns an identifier that this client has not used.
func (c *client) packetID() int {
	c.nextID++
	return c.nextID
}

// subscribe returns the SUBACK, whose reason codes it does not look at.
func (c *client) subscribe(subs ...sub) *packet {
	c.t.Helper()
	return c.subscribeWith(nil, subs...)
}

func (c *client) subscribeWith(p []byte, subs ...sub) *packet {
	c.t.Helper()
	id := c.packetID()
	c.send(subscribe(c.v, id, p, subs...))
	a := c.await(tSUBACK)
	if a.id != id || len(a.reasons) != len(subs) {
		c.t.Fatalf("%v answers SUBSCRIBE %d of %d filters", a, id, len(subs))
	}
	return a
}

// listen subscribes to filters at a QoS, which must be granted.
func (c *client) listen(qos byte, filters ...string) {
	c.t.Helper()
	for _, f := range filters {
		if a := c.subscribe(sub{f, qos}); a.reasons[0] != qos {
			c.t.Fatalf("SUBSCRIBE %q: %v", f, a)
		}
	}
}

func (c *client) unsubscribe(filters ...string) *packet {
	c.t.Helper()
	id := c.packetID()
	c.send(unsubscribe(c.v, id, filters...))
	a := c.await(tUNSUBACK)
	if a.id != id {
		c.t.Fatalf("%v answers UNSUBSCRIBE %d", a, id)
	}
	return a
}

// post publishes and sees the acknowledgements through.
func (c *client) post(p publish) {
	c.t.Helper()
	if p.qos > 0 && p.id == 0 {
		p.id = c.packetID()
	}
	c.send(p.bytes(c.v))
	switch p.qos {
	case 1:
		c.acked(tPUBACK, p.id)
	case 2:
		c.acked(tPUBREC, p.id)
		c.send(ack(tPUBREL, p.id))
		c.acked(tPUBCOMP, p.id)
	}
}

// acked waits for an acknowledgement with a reason below 0x80.
func (c *client) acked(typ byte, id int) *packet {
	c.t.Helper()
	a := c.await(typ)
	if a.id != id || a.reason >= 0x80 {
		c.t.Fatalf("%v instead of %s %d", a, typeName[typ], id)
	}
	return a
}

// message returns the next packet, which must be a PUBLISH with a topic and
// payload. It is not acknowledged.
func (c *client) message(topic, payload string) *packet {
	c.t.Helper()
	p := c.next()
	if p.typ != tPUBLISH || p.pub.topic != topic || p.pub.payload != payload {
		c.t.Fatalf("%v instead of PUBLISH %.60q %.60q", p, topic, payload)
	}
	return p
}

// take is message with all acknowledgements.
func (c *client) take(topic, payload string) *packet {
	c.t.Helper()
	p := c.message(topic, payload)
	switch p.pub.qos {
	case 1:
		c.send(ack(tPUBACK, p.id))
	case 2:
		c.send(ack(tPUBREC, p.id))
		c.acked(tPUBREL, p.id)
		c.send(ack(tPUBCOMP, p.id))
	}
	return p
}

// nothing fails if anything came of what from has published: a message that
// from sends now must be the next packet.
func (c *client) nothing(from *client) {
	c.t.Helper()
	fence := "fence/" + unique()
	c.listen(0, fence)
	from.post(publish{topic: fence, payload: "fence"})
	c.message(fence, "fence")
	c.unsubscribe(fence)
}

// quiet fails if a packet comes within d, or the connection ends.
func (c *client) quiet(d time.Duration) {
	c.t.Helper()
	if len(c.held) > 0 {
		c.t.Fatalf("%v is not expected", c.held[0])
	}
	select {
	case p := <-c.in:
		if p == nil {
			c.t.Fatal("the connection has ended")
		}
		c.t.Fatalf("%v is not expected", p)
	case <-time.After(d):
	}
}

// rest returns what came to each of clients once there are n packets in all, and
// nothing more comes for a while. Shared messages take another way than others, so
// no message can tell that all of them are there.
func rest(n int, clients ...*client) [][]*packet {
	all := make([][]*packet, len(clients))
	for i, c := range clients {
		all[i], c.held = c.held, nil
		n -= len(all[i])
	}
	end := time.Now().Add(patience)
	for quiet := time.Now(); n > 0 && time.Now().Before(end) || time.Since(quiet) < soon; time.Sleep(time.Millisecond) {
		for i, c := range clients {
			for came := true; came; {
				select {
				case p := <-c.in:
					if came = p != nil; came {
						all[i] = append(all[i], p)
						n, quiet = n-1, time.Now()
					}
				default:
					came = false
				}
			}
		}
	}
	return all
}

// alive fails unless the server still answers this connection.
func (c *client) alive() {
	c.t.Helper()
	c.send(pingreq)
	c.await(tPINGRESP)
}

// ended waits for the end of the connection, fails if a packet comes before
// it, and ends our side.
func (c *client) ended() {
	c.t.Helper()
	if len(c.held) > 0 {
		c.t.Fatalf("%v is not expected", c.held[0])
	}
	if p := c.arrive(); p != nil {
		c.t.Fatalf("%v instead of the end of the connection", p)
	}
	_ = c.conn.Close() // the server's end is what counted
}

// refused expects an answer to a CONNECT that was not accepted: CONNACK with
// one of the codes and the end of the connection, or its end alone. It returns
// the CONNACK, if there was one.
func (c *client) refused(codes ...byte) *packet {
	c.t.Helper()
	p := c.arrive()
	if p == nil {
		return nil
	}
	if p.typ != tCONNACK || bytes.IndexByte(codes, p.reason) < 0 || p.present {
		c.t.Fatalf("%v instead of CONNACK %x", p, codes)
	}
	c.ended()
	return p
}

// ejected expects the server to end the connection: in 5.0 after a DISCONNECT
// with one of the codes, before 5.0 without a word.
func (c *client) ejected(codes ...byte) {
	c.t.Helper()
	if c.v == v5 {
		p := c.expect(tDISCONNECT)
		if bytes.IndexByte(codes, p.reason) < 0 {
			c.t.Fatalf("DISCONNECT %02x instead of %x", p.reason, codes)
		}
	}
	c.ended()
}

// drop ends the connection without DISCONNECT.
func (c *client) drop() { _ = c.conn.Close() }

// leave sends DISCONNECT and waits until the server has ended the connection,
// and so dealt with it.
func (c *client) leave() {
	c.t.Helper()
	c.leaveWith(disconnect)
}

func (c *client) leaveWith(b []byte) {
	c.t.Helper()
	c.send(b)
	c.ended()
}

// each runs a test once for 5.0 and once for 3.1.1.
func each(t *testing.T, test func(t *testing.T, v byte)) { over(t, []byte{v5, v311}, test) }

// over runs a test for some versions.
func over(t *testing.T, versions []byte, test func(t *testing.T, v byte)) {
	for _, v := range versions {
		t.Run(versionName(v), func(t *testing.T) {
			t.Parallel()
			test(t, v)
		})
	}
}
