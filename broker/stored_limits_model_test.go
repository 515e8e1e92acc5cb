package broker

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"hashplus/broker/record"
	"hashplus/broker/wire"
)

// A queue that is full has the first messages of an absence, or the latest, as its
// policy says, wherever the broker crashed while they came in and while they were
// fetched. What was dropped and not yet struck from the store may come after a crash.
func TestStored_AFullQueueHasWhatItsPolicySays(t *testing.T) {
	const most = 7
	for seed := range seedsOf(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 12))
			policy := QueueFull(seed % 2) // DropNewest or DropOldest
			m := &model{storedSim: newStored(t, 1+int(seed%3), Options{MaxQueuedMessages: most, QueueFull: policy}), rng: rng, acked: make(map[string]bool)}
			if seed%4 > 1 {
				m.perTick = 1 + rng.IntN(3)
			}
			m.hurry()
			pub, sub := m.plainClient("p", 1, nil), m.plainClient("s", 0, &wire.Subscription{Filter: "t/#", QoS: 2})
			m.clients = []*modelClient{pub, sub}
			for _, c := range m.clients {
				m.settled(c)
			}
			p := wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{*sub.sub}}
			sub.conn.feed(p.Append(nil, wire.V5))
			m.store()
			sub.process(10)
			for range 8 { // absences
				sub.away()
				m.store()
				first := pub.seq + 1
				m.random(60, pub)
				m.settled(pub)
				sub.got = make(map[string]int)
				m.random(30, sub)
				m.settled(sub)

				last := pub.seq
				switch {
				case last-first < most:
				case policy == DropNewest:
					last = first + most - 1
				default:
					first = last - most + 1
				}
				for seq := first; seq <= last; seq++ {
					if payload := fmt.Sprintf("p/%d/2", seq); sub.got[payload] != 1 {
						m.fatalf("%v: %s came %d times; %d to %d were to come, of those up to %d: %v", policy, payload, sub.got[payload], first, last, pub.seq, sub.got)
					}
				}
				for policy == DropOldest && sub.got[fmt.Sprintf("p/%d/2", first-1)] == 1 {
					first--
				}
				if len(sub.got) != last-first+1 {
					m.fatalf("%v: %d to %d were to come: %v", policy, first, last, sub.got)
				}
				m.settled(pub) // a crash may have taken its connection
			}
			n := m.m.kinds()
			if left := n[record.KindDelivery] + n[record.KindBody] + n[record.KindReceived]; left > 0 {
				m.fatalf("%d records are left in the store", left)
			}
		})
	}
}

func (m *model) plainClient(id string, loop int, sub *wire.Subscription) *modelClient {
	return &modelClient{m: m, id: id, loop: loop, plain: true, sub: sub,
		open: make(map[uint16]bool), got: make(map[string]int), last: make(map[string]int)}
}

// random has c do what comes, and the broker crash.
func (m *model) random(steps int, c *modelClient) {
	for range steps {
		switch n := m.rng.IntN(100); {
		case n < 2:
			m.crashNow()
		case n < 4:
			c.away()
		case n < 14:
			if c.conn == nil || c.conn.gone {
				c.dial()
			}
		case n < 45 && c.sub == nil:
			c.publish()
		case n < 70:
			c.process(1 + m.rng.IntN(4))
		case n < 85:
			m.turnOf(m.rng.IntN(len(m.loops)))
		case n < 92:
			m.b.ledger.turn()
		default:
			m.run()
		}
	}
}

// settled has c come back, and everything arrive that is to.
func (m *model) settled(c *modelClient) {
	for range 30 {
		if c.conn == nil || c.conn.gone {
			c.dial()
		}
		m.store()
		c.process(1000)
		m.store()
	}
	if len(c.sent) > 0 || len(c.conn.out) > 0 {
		m.fatalf("%s does not come to rest", c.id)
	}
}

// retainedValue is one that was set for a topic, or its removal if it is empty.
type retainedValue struct {
	id      uint16 // of its PUBLISH
	payload string
	until   int64 // when it expires; 0: never
}

// retainedModel publishes to topics whose retained messages are looked at after
// crashes.
type retainedModel struct {
	*storedSim
	rng    *rand.Rand
	conn   *simConn
	id     uint16
	open   map[uint16]func()          // what an acknowledgement tells
	values map[string][]retainedValue // since the one that was acknowledged last, with it
	trace  []string
}

func (m *retainedModel) join() {
	m.conn, m.open = m.storedSim.join(0, "publisher", wire.V5, 0), make(map[uint16]func())
}

// set publishes a retained message to one of a few topics: nothing, a little, or so
// much that only the store keeps it; some expire.
func (m *retainedModel) set() {
	m.id = m.id%60000 + 1
	topic, v := fmt.Sprintf("r/%d", m.rng.IntN(4)), retainedValue{id: m.id}
	switch m.rng.IntN(5) {
	case 0:
	case 1:
		v.payload = strings.Repeat(fmt.Sprintf("%d.", m.id), 5000)
	default:
		v.payload = fmt.Sprintf("%d.", m.id)
	}
	o := wire.Outgoing{Version: wire.V5, QoS: 1, Retain: true, PacketID: m.id, Topic: []byte(topic), Payload: []byte(v.payload), ExpiryAt: -1}
	if m.rng.IntN(4) == 0 {
		seconds := uint32(200 + m.rng.IntN(2000))
		o.Props, o.ExpiryAt, o.Expiry = []byte{2, 0, 0, byte(seconds >> 8), byte(seconds)}, 1, seconds
		v.until = m.now + int64(seconds)*second
	}
	b := make([]byte, o.Size())
	o.Put(b)
	m.conn.feed(b)
	m.values[topic] = append(m.values[topic], v)
	m.open[m.id] = func() {
		for i, o := range m.values[topic] {
			if o.id == v.id {
				m.values[topic] = m.values[topic][i:]
				return
			}
		}
	}
	m.trace = append(m.trace, fmt.Sprintf("%s = %.9q until %d", topic, v.payload, v.until/second))
}

// crashNow begins anew on what is stored. The clock of the loops does as well.
func (m *retainedModel) crashNow() {
	before := m.now
	m.crash()
	for _, values := range m.values {
		for i := range values {
			if values[i].until != 0 {
				values[i].until += m.now - before
			}
		}
	}
	m.trace = append(m.trace, "crash")
	m.join()
}

func (m *retainedModel) acks() {
	for _, g := range m.conn.take() {
		if g.h.Type == wire.PUBACK {
			m.open[uint16(g.body[0])<<8|uint16(g.body[1])]()
		}
	}
}

// check looks at what a new subscriber gets.
func (m *retainedModel) check() {
	m.t.Helper()
	c := m.storedSim.join(len(m.loops)-1, "observer", wire.V5, 0)
	m.sub(c, wire.V5, wire.Subscription{Filter: "r/#", QoS: 1})
	m.store()
	came := make(map[string]string)
	for _, g := range c.publishes(wire.V5) {
		topic := string(g.pub.Topic)
		if _, twice := came[topic]; twice {
			m.t.Fatalf("%s came twice\n%s", topic, strings.Join(m.trace, "\n"))
		}
		came[topic] = string(g.pub.Payload)
	}
	c.cut()
	m.store()
	for topic, values := range m.values {
		if !m.fits(came[topic], values) {
			m.t.Fatalf("at %d: %s is %.9q; since the latest that was acknowledged: %.90v\n%s", m.now/second, topic, came[topic], values, strings.Join(m.trace, "\n"))
		}
	}
}

// fits reports whether payload may be the retained message, if the broker has got
// as far as any of the values.
func (m *retainedModel) fits(payload string, values []retainedValue) bool {
	for _, v := range values {
		// Recovery goes by the clock of the machine, which the test does not stop.
		const drift = 60 * second
		gone := v.until != 0 && m.now >= v.until
		if !gone && v.payload == payload || payload == "" && v.until != 0 && m.now >= v.until-drift {
			return true
		}
	}
	return false
}

// After a crash the retained message of a topic is the one that was acknowledged
// last, or one that came after it; none that has expired; and none where the last
// word was to have none.
func TestStored_RetainedMessagesSurviveAsAcknowledged(t *testing.T) { // [MQTT-3.3.1-5] [MQTT-3.3.2-5]
	for seed := range seedsOf(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := &retainedModel{storedSim: newStored(t, 1+int(seed%3), Options{}), rng: rand.New(rand.NewPCG(seed, 13)), values: make(map[string][]retainedValue)}
			for i := range 4 {
				m.values[fmt.Sprintf("r/%d", i)] = []retainedValue{{}}
			}
			m.join()
			for range 600 {
				switch n := m.rng.IntN(100); {
				case n < 3:
					m.crashNow()
					m.check()
				case n < 6:
					m.store()
					m.acks()
					m.check()
				case n < 10:
					m.store() // what is stored with the time of now must be so before it is another
					seconds := m.rng.IntN(300)
					m.m.turnBack(uint64(seconds))
					m.advance(float64(seconds))
				case n < 45:
					m.set()
				case n < 60:
					m.acks()
				case n < 75:
					m.turnOf(m.rng.IntN(len(m.loops)))
				case n < 90:
					m.b.ledger.turn()
				default:
					m.run()
				}
			}
			for topic := range m.values {
				m.send(m.conn, retained(wire.V5, topic, "", 0, 0))
			}
			for key, value := range m.m.values {
				if key[0] == record.KindRetained && !bytes.HasPrefix([]byte(key[1:]), []byte("$SYS")) {
					t.Errorf("%q = %.20q is left in the store", key, value)
				}
			}
		})
	}
}
