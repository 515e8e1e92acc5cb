package crash

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"hashplus/broker/wire"
	"hashplus/cmd/hashplus/launch"
)

// cutOnly makes a crash of scripted tests an end of all connections and nothing
// more: that a test is right in itself shows without a disk.
var cutOnly = os.Getenv("HASHPLUS_CRASH_CUT") == "1"

// bed is a broker with a data directory that scripted clients crash.
type bed struct {
	t    testing.TB
	sys  *process
	net  network
	down time.Time // when it was killed last
}

// newBed starts a broker on an empty directory that lives as long as the test.
func newBed(t testing.TB, args ...string) *bed {
	t.Helper()
	b := &bed{t: t}
	if cutOnly {
		b.sys = &process{args: append(args, roomy...)}
	} else {
		b.sys = durable(t, syscall.SIGKILL, args...)
	}
	b.start()
	t.Cleanup(func() {
		b.net.down()
		if err := b.sys.stop(); err != nil {
			t.Errorf("broker: %v", err)
		}
		if t.Failed() {
			t.Logf("broker log:\n%s", b.sys.b.Log.Tail(40))
		}
	})
	return b
}

func (b *bed) start() {
	b.t.Helper()
	address, err := b.sys.start()
	if err != nil {
		b.t.Fatal(err)
	}
	b.net.up(address)
}

// kill kills the broker at once.
func (b *bed) kill() {
	b.t.Helper()
	b.down = time.Now()
	if cutOnly {
		b.net.down()
		return
	}
	// The signal goes out before anything else is done or said.
	if err := b.sys.b.Signal(syscall.SIGKILL); err != nil {
		b.t.Fatal(err)
	}
	if err := b.sys.checked(ignore(b.sys.b.Wait())); err != nil {
		b.t.Fatal(err)
	}
}

func ignore(error) error { return nil } // a process that was killed says so

// crash is kill and start.
func (b *bed) crash() {
	b.t.Helper()
	b.kill()
	b.start()
}

// restart is an end in order, and a start.
func (b *bed) restart() {
	b.t.Helper()
	if cutOnly {
		b.net.down()
	} else if err := b.sys.stop(); err != nil {
		b.t.Fatal(err)
	}
	b.start()
}

// client is a scripted one: each step says what has to come next. One goroutine.
type client struct {
	t    testing.TB
	net  *network
	v    wire.Version
	id   string
	conn *conn
	next uint16
	held []*packet // read already, to come before what is read next

	received map[uint16]bool // QoS 2 identifiers between PUBLISH and PUBREL, for collect
	got      []string        // payloads that collect took, in the order of their first receipt
}

func (b *bed) client(v wire.Version, id string) *client {
	return &client{t: b.t, net: &b.net, v: v, id: id}
}

type as func(*wire.Connect)

func clean(c *wire.Connect) { c.CleanStart = true }

func expiry(seconds uint32) as { return func(c *wire.Connect) { c.SessionExpiry = seconds } }

func window(n uint16) as { return func(c *wire.Connect) { c.ReceiveMaximum = n } }

func will(w wire.Will) as { return func(c *wire.Connect) { c.Will = &w } }

func user(name, password string) as {
	return func(c *wire.Connect) {
		c.HasUsername, c.Username, c.HasPassword, c.Password = true, name, true, []byte(password)
	}
}

// dial opens the connection and sends CONNECT: for a durable session, unless
// opts say otherwise.
func (c *client) dial(opts ...as) {
	c.t.Helper()
	c.held = nil
	var err error
	if c.conn, err = c.net.dial(c.v); err != nil {
		c.t.Fatal(err)
	}
	hello := &wire.Connect{Version: c.v, ClientID: c.id, RequestProblem: true, SessionExpiry: 3600}
	for _, o := range opts {
		o(hello)
	}
	c.send(hello.Append(nil))
}

// connect has the connection accepted and returns what CONNACK says.
func (c *client) connect(opts ...as) *wire.Connack {
	c.t.Helper()
	c.dial(opts...)
	a := c.expect(wire.CONNACK)
	if a.reason != wire.Success {
		c.t.Fatalf("%s: refused: %v", c.id, a.reason)
	}
	return a.connack
}

// resume connects to the session that the broker must have.
func (c *client) resume(opts ...as) {
	c.t.Helper()
	if !c.connect(opts...).SessionPresent {
		c.t.Fatalf("%s: the broker has no session", c.id)
	}
}

// renew connects where no session may be.
func (c *client) renew(opts ...as) {
	c.t.Helper()
	if c.connect(opts...).SessionPresent {
		c.t.Fatalf("%s: the broker has a session", c.id)
	}
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if err := c.conn.write(b); err != nil {
		c.t.Fatalf("%s: write: %v", c.id, err)
	}
}

// read returns the next packet.
func (c *client) read() *packet {
	c.t.Helper()
	if len(c.held) > 0 {
		p := c.held[0]
		c.held = c.held[1:]
		return p
	}
	p, err := c.conn.next(time.Now().Add(launch.Patience))
	if err != nil {
		c.t.Fatalf("%s: no packet: %v", c.id, err)
	}
	return p
}

// expect returns the next packet, which must be of a type.
func (c *client) expect(typ wire.Type) *packet {
	c.t.Helper()
	p := c.read()
	if p.typ != typ {
		c.t.Fatalf("%s: %v in place of %v", c.id, p, typ)
	}
	return p
}

// answer expects an acknowledgement for id without an error.
func (c *client) answer(typ wire.Type, id uint16) {
	c.t.Helper()
	if p := c.expect(typ); p.id != id || p.reason.Failed() {
		c.t.Fatalf("%s: %v in place of %v for %d", c.id, p, typ, id)
	}
}

// message expects a PUBLISH with a payload.
func (c *client) message(payload string, qos byte) *packet {
	c.t.Helper()
	p := c.expect(wire.PUBLISH)
	if got := string(p.publish.Payload); got != payload || p.publish.QoS != qos {
		c.t.Fatalf("%s: %v in place of %q at QoS %d", c.id, p, payload, qos)
	}
	return p
}

// take is message, acknowledged to the end.
func (c *client) take(payload string, qos byte) *packet {
	c.t.Helper()
	p := c.message(payload, qos)
	c.finish(p)
	return p
}

// finish acknowledges a message to the end.
func (c *client) finish(p *packet) {
	c.t.Helper()
	switch p.publish.QoS {
	case 1:
		c.send(appendAck(nil, wire.PUBACK, p.id))
	case 2:
		c.send(appendAck(nil, wire.PUBREC, p.id))
		var before []*packet // messages that were on the way already
		next := c.read()
		for next.typ == wire.PUBLISH {
			before = append(before, next)
			next = c.read()
		}
		c.held = append(before, c.held...)
		if next.typ != wire.PUBREL || next.id != p.id {
			c.t.Fatalf("%s: %v in place of PUBREL for %d", c.id, next, p.id)
		}
		c.send(appendAck(nil, wire.PUBCOMP, p.id))
	}
}

// nothing expects that nothing comes but the answer to a ping, and nothing soon
// after it.
func (c *client) nothing() {
	c.t.Helper()
	c.send([]byte{byte(wire.PINGREQ) << 4, 0})
	c.expect(wire.PINGRESP)
	if p, err := c.conn.next(time.Now().Add(250 * time.Millisecond)); !timedOut(err) {
		c.t.Fatalf("%s: %v, %v in place of nothing", c.id, p, err)
	}
}

func (c *client) packetID() uint16 {
	c.next++
	return c.next
}

// subscribe subscribes and expects the QoS that is asked for.
func (c *client) subscribe(subs ...wire.Subscription) {
	c.t.Helper()
	c.ask(0, subs...)
}

func (c *client) ask(subID uint32, subs ...wire.Subscription) {
	c.t.Helper()
	s := wire.Subscribe{PacketID: c.packetID(), SubscriptionID: subID, Filters: subs}
	c.send(s.Append(nil, c.v))
	a := c.expect(wire.SUBACK)
	for i := range subs {
		if byte(a.reasons[i]) != subs[i].QoS {
			c.t.Fatalf("%s: %v", c.id, a)
		}
	}
}

func filter(name string, qos byte) wire.Subscription {
	return wire.Subscription{Filter: name, QoS: qos}
}

// unsubscribe unsubscribes and reads the UNSUBACK.
func (c *client) unsubscribe(filters ...string) {
	c.t.Helper()
	u := wire.Unsubscribe{PacketID: c.packetID(), Filters: filters}
	c.send(u.Append(nil, c.v))
	c.expect(wire.UNSUBACK)
}

// put sends a PUBLISH and returns its identifier.
func (c *client) put(o wire.Outgoing, topic, payload string) uint16 {
	c.t.Helper()
	o.Version, o.Topic, o.Payload = c.v, []byte(topic), []byte(payload)
	if o.QoS > 0 && o.PacketID == 0 {
		o.PacketID = c.packetID()
	}
	c.send(appendPublish(nil, &o))
	return o.PacketID
}

// post publishes and has it acknowledged to the end.
func (c *client) post(qos byte, topic, payload string) {
	c.t.Helper()
	c.postAs(wire.Outgoing{QoS: qos}, topic, payload)
}

func (c *client) postAs(o wire.Outgoing, topic, payload string) {
	c.t.Helper()
	id := c.put(o, topic, payload)
	switch o.QoS {
	case 1:
		c.answer(wire.PUBACK, id)
	case 2:
		c.answer(wire.PUBREC, id)
		c.send(appendAck(nil, wire.PUBREL, id))
		c.answer(wire.PUBCOMP, id)
	}
}

// leave disconnects in order and waits for the end of the connection.
func (c *client) leave() {
	c.t.Helper()
	c.send([]byte{byte(wire.DISCONNECT) << 4, 0})
	c.gone()
}

// gone waits for the end of the connection.
func (c *client) gone() {
	c.t.Helper()
	p, err := c.conn.next(time.Now().Add(launch.Patience))
	if err == nil || timedOut(err) {
		c.t.Fatalf("%s: %v, %v in place of the end", c.id, p, err)
	}
	c.drop()
}

// drop ends the connection without DISCONNECT.
func (c *client) drop() { c.conn.close() }

// versions runs a test for clients of 3.1.1 and of 5.0.
func versions(t *testing.T, test func(t *testing.T, v wire.Version)) {
	t.Parallel()
	for _, v := range []wire.Version{v311, v5} {
		t.Run(strings.ReplaceAll(fmt.Sprint("v", v), "v4", "v3.1.1"), func(t *testing.T) {
			t.Parallel()
			test(t, v)
		})
	}
}

func deadline(ms int) time.Time { return time.Now().Add(time.Duration(ms) * time.Millisecond) }

// late reports that what a test waits for since the last crash should be there.
func (b *bed) late() bool { return time.Since(b.down) > launch.Patience }

// collect takes part in every exchange as a client has to, until it has got n
// messages in all, counted from its first call, and then for a moment longer.
// Messages at QoS 1 may come again; at QoS 2 none may.
func (c *client) collect(n int) {
	c.t.Helper()
	if c.received == nil {
		c.received = map[uint16]bool{}
	}
	seen := map[string]bool{}
	for _, m := range c.got {
		seen[m] = true
	}
	for len(c.got) < n {
		p := c.read()
		switch p.typ {
		case wire.PUBREL:
			delete(c.received, p.id)
			c.send(appendAck(nil, wire.PUBCOMP, p.id))
			continue
		case wire.PUBLISH:
		default:
			c.t.Fatalf("%s: %v", c.id, p)
		}
		payload := string(p.publish.Payload)
		if p.publish.QoS == 2 {
			c.send(appendAck(nil, wire.PUBREC, p.id))
			if c.received[p.id] {
				continue
			}
			c.received[p.id] = true
			if seen[payload] {
				c.t.Errorf("%s: %v came twice", c.id, p)
			}
		} else {
			c.send(appendAck(nil, wire.PUBACK, p.id))
		}
		if !seen[payload] {
			seen[payload] = true
			c.got = append(c.got, payload)
		}
	}
}

// silent expects nothing at all for a moment.
func (c *client) silent() {
	c.t.Helper()
	if len(c.held) > 0 {
		c.t.Fatalf("%s: %v in place of nothing", c.id, c.held[0])
	}
	if p, err := c.conn.next(time.Now().Add(150 * time.Millisecond)); !timedOut(err) {
		c.t.Fatalf("%s: %v, %v in place of nothing", c.id, p, err)
	}
}
