package crash

import (
	"testing"

	"hashplus/broker/wire"
)

// The other side of the crash points: no answer leaves before its commit. The
// store holds its commits back while a test looks.

func (l *lab) client(v wire.Version, id string) *client {
	return &client{t: l.t, net: &l.net, v: v, id: id}
}

// transient is a client whose session ends with its connection.
func (l *lab) transient(v wire.Version, id string) *client {
	c := l.client(v, id)
	c.renew(clean, expiry(0))
	return c
}

// away is a durable session with a subscription whose client is gone.
func (l *lab) away(v wire.Version, id string, subs ...wire.Subscription) *client {
	c := l.client(v, id)
	c.renew()
	c.subscribe(subs...)
	c.leave()
	pause(50)
	return c
}

// heldBack checks that c gets nothing until the store is released, and one
// packet then.
func (l *lab) heldBack(c *client, typ wire.Type) *packet {
	l.t.Helper()
	c.silent()
	l.memory().Release()
	return c.expect(typ)
}

func TestCONNACK_WaitsForItsCommit(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		l := newLab(t)
		c := l.client(v, "c")
		l.memory().Hold()
		c.dial() // creates
		if a := l.heldBack(c, wire.CONNACK); a.connack.SessionPresent {
			t.Error(a)
		}
		c.drop()
		pause(50)
		l.memory().Hold()
		c.dial() // resumes
		if a := l.heldBack(c, wire.CONNACK); !a.connack.SessionPresent {
			t.Error(a)
		}
		l.memory().Hold()
		d := l.client(v, "c")
		d.dial() // takes over
		if a := l.heldBack(d, wire.CONNACK); !a.connack.SessionPresent {
			t.Error(a)
		}
		l.memory().Hold()
		e := l.client(v, "c")
		e.dial(clean) // ends it
		if a := l.heldBack(e, wire.CONNACK); a.connack.SessionPresent {
			t.Error(a)
		}
		l.memory().Hold()
		l.transient(v, "other") // has nothing to wait for
	})
}

func TestSUBACK_WaitsForItsCommit(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		l := newLab(t)
		c := l.client(v, "c")
		c.renew()
		l.memory().Hold()
		ask := wire.Subscribe{PacketID: 5, Filters: []wire.Subscription{filter("a", 2)}}
		c.send(ask.Append(nil, v))
		l.heldBack(c, wire.SUBACK)
		l.memory().Hold()
		no := wire.Unsubscribe{PacketID: 6, Filters: []string{"a"}}
		c.send(no.Append(nil, v))
		l.heldBack(c, wire.UNSUBACK)
		l.memory().Hold()
		d := l.transient(v, "d")
		d.subscribe(filter("a", 2)) // of a session that is not kept
		d.unsubscribe("a")
	})
}

func TestPUBACK_WaitsForItsCommit(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		l := newLab(t)
		l.away(v, "sub", filter("a", 1))
		pub := l.transient(v, "pub")
		l.memory().Hold()
		id := pub.put(wire.Outgoing{QoS: 1}, "a", "x")
		if p := l.heldBack(pub, wire.PUBACK); p.id != id {
			t.Error(p)
		}
	})
}

func TestPUBREC_WaitsForItsCommit(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		l := newLab(t)
		l.away(v, "sub", filter("a", 2))
		pub := l.transient(v, "pub")
		l.memory().Hold()
		id := pub.put(wire.Outgoing{QoS: 2}, "a", "x") // for a durable receiver
		if p := l.heldBack(pub, wire.PUBREC); p.id != id {
			t.Error(p)
		}
		pub.send(appendAck(nil, wire.PUBREL, id))
		pub.answer(wire.PUBCOMP, id)

		durable := l.client(v, "durable")
		durable.renew()
		l.memory().Hold()
		id = durable.put(wire.Outgoing{QoS: 2}, "nobody", "x") // by a durable session
		if p := l.heldBack(durable, wire.PUBREC); p.id != id {
			t.Error(p)
		}
		l.memory().Hold()
		durable.send(appendAck(nil, wire.PUBREL, id))
		if p := l.heldBack(durable, wire.PUBCOMP); p.id != id {
			t.Error(p)
		}
	})
}

func TestOutgoingQoS2_WaitsForItsCommit(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		l := newLab(t)
		sub, pub := l.client(v, "sub"), l.transient(v, "pub")
		sub.renew()
		sub.subscribe(filter("a", 2))
		l.memory().Hold()
		id := pub.put(wire.Outgoing{QoS: 2}, "a", "x")
		pub.silent()
		p := l.heldBack(sub, wire.PUBLISH)
		pub.answer(wire.PUBREC, id)
		l.memory().Hold()
		sub.send(appendAck(nil, wire.PUBREC, p.id))
		if r := l.heldBack(sub, wire.PUBREL); r.id != p.id {
			t.Error(r)
		}
		sub.send(appendAck(nil, wire.PUBCOMP, p.id))
		// One that waited in the queue.
		sub.drop()
		pause(50)
		pub.send(appendAck(nil, wire.PUBREL, id))
		pub.answer(wire.PUBCOMP, id)
		pub.post(2, "a", "queued")
		l.memory().Hold()
		sub.dial()
		sub.silent()
		l.memory().Release()
		if a := sub.expect(wire.CONNACK); !a.connack.SessionPresent {
			t.Error(a)
		}
		next := sub.read()
		if next.typ == wire.PUBREL { // PUBCOMP may have been lost with the connection
			next = sub.read()
		}
		if next.typ != wire.PUBLISH || string(next.publish.Payload) != "queued" {
			t.Error(next)
		}
	})
}

// A message that a window of one held back has no identifier before it leaves.
func TestOutgoingQoS2_FromTheQueueWaitsForItsCommit(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	sub, pub := l.client(v5, "sub"), l.transient(v5, "pub")
	sub.renew(window(1))
	sub.subscribe(filter("a", 2))
	pub.post(1, "a", "first")
	pub.post(2, "a", "second")
	first := sub.message("first", 1)
	l.memory().Hold()
	sub.finish(first)
	p := l.heldBack(sub, wire.PUBLISH)
	if string(p.publish.Payload) != "second" || p.publish.QoS != 2 {
		t.Error(p)
	}
}

// Acknowledgements leave in the order of their packets [MQTT-4.6.0-2]: one that
// needs no commit waits behind one that does.
func TestAcknowledgements_KeepTheirOrder(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		l := newLab(t)
		l.away(v, "sub", filter("durable", 2))
		pub := l.transient(v, "pub")
		l.memory().Hold()
		first := pub.put(wire.Outgoing{QoS: 1}, "durable", "x")
		second := pub.put(wire.Outgoing{QoS: 1}, "nobody", "x")
		third := pub.put(wire.Outgoing{QoS: 2}, "nobody", "x")
		pub.silent()
		l.memory().Release()
		pub.answer(wire.PUBACK, first)
		pub.answer(wire.PUBACK, second)
		pub.answer(wire.PUBREC, third)
	})
}

// restingApplies is the number of commits, once no more come: nobody is told of
// the commit that follows the end of a connection.
func (l *lab) restingApplies() int {
	for n := l.memory().Applies(); ; {
		pause(500)
		now := l.memory().Applies()
		if now == n {
			return n
		}
		n = now
	}
}

// What has nothing to do with durable sessions neither waits nor calls the
// store.
func TestTraffic_WithoutDurableReceiversMakesNoStoreCall(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		l := newLab(t)
		away := l.away(v, "away", filter("durable/+", 2)) // there is one, elsewhere
		online := l.client(v, "online")
		online.renew()
		online.subscribe(filter("zero/#", 2))
		before := l.restingApplies()
		l.memory().Hold()
		sub, pub := l.transient(v, "sub"), l.transient(v, "pub")
		sub.subscribe(filter("a/#", 2), filter("zero/#", 2))
		for range 20 {
			pub.post(0, "a/b", "0")
			sub.take("0", 0)
			pub.post(1, "a/b", "1")
			sub.take("1", 1)
			pub.post(2, "a/b", "2")
			sub.take("2", 2)
			pub.post(0, "durable/x", "not kept") // QoS 0 for a durable session that is away
			pub.post(0, "zero/x", "0")
			sub.take("0", 0)
			online.take("0", 0) // and for one that is there
		}
		sub.unsubscribe("a/#")
		sub.leave()
		if n := l.memory().Applies() - before; n != 0 {
			t.Errorf("%d store calls", n)
		}
		l.memory().Release()
		_ = away
	})
}
