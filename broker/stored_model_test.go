package broker

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"hashplus/broker/record"
	"hashplus/broker/wire"
)

// model is a set of clients that keep their sessions as the specification says,
// on a broker that crashes. What it knows of every message is what the promises
// are held against.
type model struct {
	*storedSim
	rng      *rand.Rand
	clients  []*modelClient
	acked    map[string]bool // messages that were acknowledged
	trace    []string
	poisoned bool // the store fails
	disorder bool // it has failed
	perTick  int  // budget of a tick; 0: as ever
}

type modelClient struct {
	m          *model
	id         string
	loop       int
	plain      bool     // has no will, and publishes at QoS 2
	conn       *simConn // nil while away
	connected  bool     // CONNACK came
	had        bool     // a session, as CONNACK or what came before said
	subscribed bool
	sub        *wire.Subscription
	wills      int    // connections
	will       string // of the latest

	// As a publisher.
	seq    int
	nextID uint16
	sent   []*modelMessage // not acknowledged, in order

	// As a subscriber.
	open map[uint16]bool // QoS 2 identifiers received and not released
	got  map[string]int  // deliveries by payload
	last map[string]int  // by publisher, the latest of the first deliveries
}

type modelMessage struct {
	id       uint16
	qos      byte
	payload  string
	released bool // PUBREC came
}

func (m *model) logf(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
}

func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(m.trace[max(0, len(m.trace)-60):], "\n"))
}

// dial begins a connection. What the broker still had to read of the last one is
// lost.
func (c *modelClient) dial() {
	c.conn, c.connected = c.m.dial(c.loop%len(c.m.loops)), false
	c.wills++
	c.will = fmt.Sprintf("w%s/%d/2", c.id, c.wills)
	p := wire.Connect{Version: wire.V5, ClientID: c.id, SessionExpiry: 600, ReceiveMaximum: 4, RequestProblem: true}
	if !c.plain {
		p.Will = &wire.Will{Topic: "t/will", Payload: []byte(c.will), QoS: 2, ExpiryAt: -1}
	}
	c.conn.feed(p.Append(nil))
	c.m.logf("%s connects", c.id)
}

func (c *modelClient) away() {
	if c.conn != nil && !c.conn.gone {
		c.conn.end(nil)
	}
	c.lost()
}

// lost is the end of a connection: after CONNACK its will is to be published.
func (c *modelClient) lost() {
	if c.connected && !c.plain {
		c.m.acked[c.will] = true
	}
	c.conn, c.connected = nil, false
}

// leave says goodbye. Whether that arrives, and its will is published, is open.
func (c *modelClient) leave() {
	if c.connected {
		c.conn.feed((&wire.Disconnect{}).Append(nil))
		c.connected = false
		c.away()
	}
}

func (c *modelClient) publish() {
	if !c.connected || len(c.sent) >= 8 {
		return
	}
	c.seq++
	c.nextID = c.nextID%50 + 1
	for _, s := range c.sent {
		if s.id == c.nextID {
			return
		}
	}
	s := &modelMessage{id: c.nextID, qos: byte(1 + c.m.rng.IntN(2))}
	if c.plain {
		s.qos = 2
	}
	s.payload = fmt.Sprintf("%s/%d/%d", c.id, c.seq, s.qos)
	c.sent = append(c.sent, s)
	c.conn.feed(pub(wire.V5, "t/"+c.id, s.payload, s.qos, s.id))
	c.m.logf("%s publishes %s as %d", c.id, s.payload, s.id)
}

// process reads what came, up to most packets, and answers.
func (c *modelClient) process(most int) {
	if c.conn == nil {
		return
	}
	packets := c.conn.take()
	for i, g := range packets {
		if i >= most {
			c.conn.out = append(repack(g), c.conn.out...)
			for _, g := range packets[i+1:] {
				c.conn.out = append(c.conn.out, repack(g)...)
			}
			return
		}
		c.packet(g)
	}
}

func (c *modelClient) packet(g got) {
	m := c.m
	id := func() uint16 { return uint16(g.body[0])<<8 | uint16(g.body[1]) }
	switch g.h.Type {
	case wire.CONNACK:
		if g.body[1] == byte(wire.ServerUnavailable) && m.disorder {
			return // it is gone by that
		}
		if g.body[1] != 0 {
			m.fatalf("%s is refused with %#x", c.id, g.body[1])
		}
		if c.had && g.body[0]&1 == 0 {
			m.fatalf("%s: the session has gone", c.id)
		}
		c.had, c.connected = true, true
		m.logf("%s is connected", c.id)
		for _, s := range c.sent {
			if s.released {
				c.conn.feed(ackOf(wire.PUBREL, wire.V5, s.id, 0))
				continue
			}
			b := pub(wire.V5, "t/"+c.id, s.payload, s.qos, s.id)
			b[0] |= 8
			c.conn.feed(b)
		}
	case wire.SUBACK:
		c.subscribed = true
	case wire.PUBACK, wire.PUBREC:
		if len(g.body) > 2 && g.body[2] >= 0x80 {
			c.refused(id())
			return
		}
		if g.h.Type == wire.PUBACK {
			c.finish(id(), 1)
			return
		}
		for _, s := range c.sent {
			if s.id == id() {
				s.released = true
				m.acked[s.payload] = true
				m.logf("%s has PUBREC for %s", c.id, s.payload)
			}
		}
		c.conn.feed(ackOf(wire.PUBREL, wire.V5, id(), 0))
	case wire.PUBCOMP:
		c.finish(id(), 2)
	case wire.PUBLISH:
		if _, err := g.pub.DecodeFromServer(g.h, g.body, wire.V5, &wire.Limits{}, nil); err != nil {
			m.fatalf("%v", err)
		}
		payload, pid := string(g.pub.Payload), g.pub.PacketID
		m.logf("%s gets %s as %d, QoS %d, DUP %v", c.id, payload, pid, g.pub.QoS, g.pub.Dup)
		if g.pub.QoS == 1 {
			c.deliver(payload, 1)
			c.conn.feed(puback(wire.V5, pid))
			return
		}
		if !c.open[pid] {
			c.open[pid] = true
			c.deliver(payload, 2)
		}
		c.conn.feed(ackOf(wire.PUBREC, wire.V5, pid, 0))
	case wire.PUBREL:
		delete(c.open, id())
		c.conn.feed(ackOf(wire.PUBCOMP, wire.V5, id(), 0))
	case wire.DISCONNECT:
		c.away()
	}
}

// refused drops the message that the broker can't store.
func (c *modelClient) refused(id uint16) {
	c.m.logf("%s: %d is refused", c.id, id)
	c.sent = slices.DeleteFunc(c.sent, func(s *modelMessage) bool { return s.id == id })
}

func (c *modelClient) finish(id uint16, qos byte) {
	for i, s := range c.sent {
		if s.id == id {
			if s.qos != qos {
				c.m.fatalf("%s: the answer for %s is one for QoS %d", c.id, s.payload, qos)
			}
			c.m.acked[s.payload] = true
			c.m.logf("%s is done with %s", c.id, s.payload)
			c.sent = append(c.sent[:i:i], c.sent[i+1:]...)
			return
		}
	}
}

func (c *modelClient) deliver(payload string, qos byte) {
	c.got[payload]++
	var from string
	var seq, sentQoS int
	parts := strings.Split(payload, "/")
	from = parts[0]
	_, _ = fmt.Sscan(parts[1], &seq)
	_, _ = fmt.Sscan(parts[2], &sentQoS)
	if sentQoS == 2 && qos == 2 && c.got[payload] > 1 {
		c.m.fatalf("%s got %s twice", c.id, payload)
	}
	if c.got[payload] > 1 || from[0] == 'w' || strings.HasPrefix(c.sub.Filter, "$share") {
		return
	}
	// A refusal that got lost makes its publisher send the message again behind others.
	if seq < c.last[from] && !c.m.disorder {
		c.m.fatalf("%s got %s after %d", c.id, payload, c.last[from])
	}
	c.last[from] = seq
}

// crashNow gives the broker up, with all connections.
func (m *model) crashNow() {
	m.logf("crash")
	for m.reading() {
		time.Sleep(10 * time.Microsecond)
	}
	for _, c := range m.clients {
		c.lost()
	}
	if m.poisoned {
		m.heal()
	}
	m.crash()
	m.hurry()
}

// hurry gives the loops their budget.
func (m *model) hurry() {
	for _, l := range m.b.loops {
		if m.perTick > 0 {
			l.perTick, l.budget = m.perTick, m.perTick
		}
	}
}

// poison makes the store fail under what is to be stored next. heal is its inverse.
func (m *model) poison() {
	if len(m.b.ledger.in) > 0 && !m.poisoned {
		m.logf("the store fails")
		m.poisoned, m.disorder = true, true
		m.m.breakWith(errors.New("broken"))
		m.failing(true)
	}
}

func (m *model) heal() {
	if m.poisoned {
		m.logf("the store works again")
		m.m.breakWith(nil)
		m.failing(false)
		m.poisoned = false
	}
}

// settleDown lets everybody come back and everything arrive.
func (m *model) settleDown() {
	m.heal()
	m.advance(0.5) // what could not be read is read again
	for range 300 {
		for _, c := range m.clients {
			if c.conn == nil || c.conn.gone {
				c.dial()
			}
			c.process(1000)
		}
		m.store()
	}
}

func (m *model) check() {
	for payload := range m.acked {
		groups := 0
		for _, c := range m.clients {
			switch {
			case c.sub == nil:
			case strings.HasPrefix(c.sub.Filter, "$share"):
				groups += c.got[payload]
			case c.got[payload] == 0:
				m.fatalf("%s, which was acknowledged, did not reach %s", payload, c.id)
			}
		}
		if groups == 0 || groups > 1 && strings.HasSuffix(payload, "/2") {
			m.fatalf("the share group got %s %d times", payload, groups)
		}
	}
	for _, c := range m.clients {
		if len(c.sent) > 0 {
			m.fatalf("%s waits for the answer to %s", c.id, c.sent[0].payload)
		}
	}
	n := m.m.kinds()
	for _, kind := range []byte{record.KindDelivery, record.KindBody, record.KindShared, record.KindReceived} {
		if n[kind] > 0 {
			m.fatalf("%d records of kind %c are left in the store", n[kind], kind)
		}
	}
	if n[record.KindWill] != len(m.clients) {
		m.fatalf("%d wills of %d connections are in the store", n[record.KindWill], len(m.clients))
	}
}

// manySeeds runs random tests for longer: go test -seeds 1000 -run Stored_.
var manySeeds = flag.Int("seeds", 0, "number of seeds of each random test")

// seedsOf are those of a random test that has n as a rule.
func seedsOf(n int) uint64 {
	switch {
	case *manySeeds > 0:
		return uint64(*manySeeds)
	case testing.Short() || raceEnabled:
		return uint64(n / 6)
	}
	return uint64(n)
}

// Whatever is acknowledged reaches everybody who is to have it: QoS 2 exactly
// once, in the order of its publisher, however often connections break and the
// broker crashes, at any point between two commits.
func TestStored_NothingAcknowledgedIsLost(t *testing.T) { // [MQTT-4.3.3-10] [MQTT-4.4.0-1] [MQTT-4.6.0-1]
	for seed := range seedsOf(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 11))
			m := &model{storedSim: newStored(t, 1+int(seed%3), Options{}), rng: rng, acked: make(map[string]bool)}
			if seed%2 == 1 { // fan-outs take several ticks
				m.perTick = 1 + rng.IntN(3)
			}
			m.hurry()
			subs := []*wire.Subscription{
				{Filter: "t/#", QoS: 2}, {Filter: "t/+", QoS: 1}, {Filter: "$share/g/t/#", QoS: 2}, {Filter: "$share/g/t/#", QoS: 2}, nil, nil,
			}
			for i, sub := range subs {
				m.clients = append(m.clients, &modelClient{
					m: m, id: fmt.Sprintf("c%d-%d", i, seed), loop: i, sub: sub,
					open: make(map[uint16]bool), got: make(map[string]int), last: make(map[string]int),
				})
			}
			for i, c := range m.clients {
				c.dial()
				m.store()
				c.process(10)
				if subs[i] != nil {
					p := wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{*subs[i]}}
					c.conn.feed(p.Append(nil, wire.V5))
					m.store()
					c.process(10)
				}
			}
			crashes, failures := 0, 0
			for range 4000 {
				c := m.clients[rng.IntN(len(m.clients))]
				switch n := rng.IntN(1000); {
				case n < 4 && crashes < 12:
					crashes++
					m.crashNow()
				case n < 18:
					m.logf("%s is cut off", c.id)
					c.away()
				case n < 20:
					m.logf("%s leaves", c.id)
					c.leave()
				case n < 22 && failures < 2:
					failures++
					m.poison()
				case n < 26:
					m.heal()
				case n < 120:
					if c.conn == nil || c.conn.gone {
						c.dial()
					}
				case n < 420:
					m.clients[4+rng.IntN(2)].publish()
				case n < 700:
					c.process(1 + rng.IntN(4))
				case n < 850:
					m.turnOf(rng.IntN(len(m.loops)))
				case n < 920 && !m.poisoned:
					m.b.ledger.turn()
				default:
					m.run()
				}
			}
			m.settleDown()
			m.check()
			if len(m.acked) < 50 {
				t.Errorf("only %d messages were acknowledged", len(m.acked))
			}
		})
	}
}
