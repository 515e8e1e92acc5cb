package conformance

import (
	"fmt"
	"testing"
	"time"
)

// The server as receiver.

func TestQoS1_IsAcknowledged(t *testing.T) { // [MQTT-4.3.2-4] [MQTT3-4.3.2-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, watch := join(t, s, v), join(t, s, v)
		watch.listen(1, c.id)
		c.send((&publish{topic: c.id, payload: "x", qos: 1, id: 4711}).bytes(v))
		if p := c.expect(tPUBACK); p.id != 4711 || p.reason >= 0x80 {
			t.Errorf("%v", p)
		}
		watch.take(c.id, "x")
	})
}

func TestQoS1_SameIDAfterPubackIsNew(t *testing.T) { // [MQTT-4.3.2-5] [MQTT3-4.3.2-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, watch := join(t, s, v), join(t, s, v)
		watch.listen(1, c.id)
		for i := range 3 {
			c.post(publish{topic: c.id, payload: fmt.Sprint(i), qos: 1, id: 9, dup: i > 0})
			watch.take(c.id, fmt.Sprint(i))
		}
	})
}

func TestQoS2_IsAnsweredWithPubrec(t *testing.T) { // [MQTT-4.3.3-8] [MQTT3-4.3.3-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, watch := join(t, s, v), join(t, s, v)
		watch.listen(2, c.id)
		c.send((&publish{topic: c.id, payload: "x", qos: 2, id: 4711}).bytes(v))
		if p := c.expect(tPUBREC); p.id != 4711 || p.reason >= 0x80 {
			t.Errorf("%v", p)
		}
		c.send(ack(tPUBREL, 4711))
		c.acked(tPUBCOMP, 4711)
		watch.take(c.id, "x")
	})
}

func TestQoS2_DuplicateIsDeliveredOnce(t *testing.T) { // [MQTT-4.3.3-10] [MQTT3-4.3.3-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		id := unique()
		watch, other := join(t, s, v), join(t, s, v)
		watch.listen(2, id)
		c := join(t, s, v, keep(id))
		p := publish{topic: id, payload: "once", qos: 2, id: 3}
		for range 3 {
			c.send(p.bytes(v))
			c.acked(tPUBREC, 3)
			p.dup = true
		}
		c.drop()
		c = join(t, s, v, keep(id)) // the identifier belongs to the session
		c.send(p.bytes(v))
		c.acked(tPUBREC, 3)
		c.send(ack(tPUBREL, 3))
		c.acked(tPUBCOMP, 3)
		watch.take(id, "once")
		watch.nothing(c)
		watch.nothing(other)
	})
}

func TestQoS2_PubrelIsAnswered(t *testing.T) { // [MQTT-4.3.3-11] [MQTT3-4.3.3-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		id := unique()
		c := join(t, s, v, keep(id))
		c.send((&publish{topic: id, payload: "x", qos: 2, id: 3}).bytes(v))
		c.acked(tPUBREC, 3)
		c.drop()
		c = join(t, s, v, keep(id))
		c.send(ack(tPUBREL, 3))
		if p := c.expect(tPUBCOMP); p.id != 3 || p.reason != 0 {
			t.Errorf("%v", p)
		}
		// Again, as if that PUBCOMP had been lost: the identifier is unknown now.
		c.send(ack(tPUBREL, 3))
		if p := c.expect(tPUBCOMP); p.id != 3 || v == v5 && p.reason != 0x92 {
			t.Errorf("%v", p)
		}
	})
}

func TestQoS2_SameIDAfterPubcompIsNew(t *testing.T) { // [MQTT-4.3.3-12] [MQTT3-4.3.3-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, watch := join(t, s, v), join(t, s, v)
		watch.listen(2, c.id)
		for i := range 3 {
			c.post(publish{topic: c.id, payload: fmt.Sprint(i), qos: 2, id: 9, dup: i > 0})
			watch.take(c.id, fmt.Sprint(i))
		}
	})
}

func TestQoS2_RefusedIDIsFree(t *testing.T) { // [MQTT-4.3.3-9]
	t.Parallel()
	s := startBroker(t, "acl")
	c, watch := join(t, s, v5), join(t, s, v5)
	topic := "allowed/" + c.id
	watch.listen(2, topic)
	c.send((&publish{topic: "forbidden/" + c.id, payload: "x", qos: 2, id: 9}).bytes(v5))
	if p := c.expect(tPUBREC); p.id != 9 || p.reason != 0x87 {
		t.Fatalf("%v", p)
	}
	c.post(publish{topic: topic, payload: "new", qos: 2, id: 9, dup: true})
	watch.take(topic, "new")
}

func TestQoS2_HandshakeGoesOnAfterExpiry(t *testing.T) { // [MQTT-4.3.3-13]
	t.Parallel()
	c := join(t, startBroker(t, ""), v5)
	c.send((&publish{topic: c.id, payload: "x", qos: 2, id: 3, props: prop4(pMessageExpiry, 1)}).bytes(v5))
	c.acked(tPUBREC, 3)
	time.Sleep(1500 * time.Millisecond)
	c.send((&publish{topic: c.id, payload: "x", qos: 2, id: 3, dup: true, props: prop4(pMessageExpiry, 1)}).bytes(v5))
	c.acked(tPUBREC, 3)
	c.send(ack(tPUBREL, 3))
	if p := c.acked(tPUBCOMP, 3); p.reason != 0 {
		t.Errorf("%v", p)
	}
}

func TestQoS_AcknowledgementsKeepTheirOrder(t *testing.T) { // [MQTT3-4.6.0-2] [MQTT3-4.6.0-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		for qos, typ := range map[byte]byte{1: tPUBACK, 2: tPUBREC} {
			var all []byte
			ids := []int{7, 3, 9, 1, 500, 8}
			for _, id := range ids {
				all = cat(all, (&publish{topic: c.id, payload: "x", qos: qos, id: id}).bytes(v))
			}
			c.send(all)
			for _, id := range ids {
				if p := c.expect(typ); p.id != id {
					t.Errorf("%v instead of %d", p, id)
				}
			}
		}
	})
}

// The server as sender.

// pending has a client with a session that lasts, and messages on their way to
// it at a QoS, none acknowledged.
func pending(t *testing.T, s *server, v, qos byte, n int) (c, pub *client, sent []*packet) {
	t.Helper()
	id := unique()
	c, pub = join(t, s, v, keep(id)), join(t, s, v)
	c.listen(qos, id)
	for i := range n {
		pub.post(publish{topic: id, payload: fmt.Sprint(i), qos: qos})
		sent = append(sent, c.message(id, fmt.Sprint(i)))
	}
	return c, pub, sent
}

// again drops a connection and resumes the session.
func again(c *client, s *server) *client {
	c.t.Helper()
	c.drop()
	fresh := join(c.t, s, c.v, keep(c.id))
	if !fresh.connack.present {
		c.t.Fatal("no session present")
	}
	fresh.nextID = c.nextID
	return fresh
}

func TestQoS1_FirstDeliveryHasNoDup(t *testing.T) { // [MQTT-4.3.2-2] [MQTT3-4.3.2-1]
	t.Parallel()
	firstDelivery(t, 1)
}

func TestQoS2_FirstDeliveryHasNoDup(t *testing.T) { // [MQTT-4.3.3-2] [MQTT3-4.3.3-1]
	t.Parallel()
	firstDelivery(t, 2)
}

func firstDelivery(t *testing.T, qos byte) {
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		_, _, sent := pending(t, s, v, qos, 3)
		for _, p := range sent {
			if p.flags != qos<<1 || p.id == 0 {
				t.Errorf("%v", p)
			}
		}
	})
}

func TestQoS1_IsResentUntilPuback(t *testing.T) { // [MQTT-4.3.2-3] [MQTT-4.4.0-1] [MQTT3-4.3.2-1] [MQTT3-4.4.0-1]
	t.Parallel()
	resent(t, 1)
}

func TestQoS2_IsResentUntilPubrec(t *testing.T) { // [MQTT-4.3.3-3] [MQTT-4.4.0-1] [MQTT3-4.3.3-1] [MQTT3-4.4.0-1]
	t.Parallel()
	resent(t, 2)
}

func resent(t *testing.T, qos byte) {
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, _, sent := pending(t, s, v, qos, 2)
		for range 2 {
			c = again(c, s)
			for i, p := range sent {
				if q := c.message(c.id, fmt.Sprint(i)); q.id != p.id || q.pub.qos != qos {
					t.Errorf("%v instead of %v", q, p)
				}
			}
		}
		for _, p := range sent {
			if qos == 1 {
				c.send(ack(tPUBACK, p.id))
			} else {
				c.send(ack(tPUBREC, p.id))
				c.acked(tPUBREL, p.id)
				c.send(ack(tPUBCOMP, p.id))
			}
		}
		c.alive()
		c = again(c, s)
		c.quiet(soon)
	})
}

func TestPublish_ReDeliveryHasDup(t *testing.T) { // [MQTT-3.3.1-1] [MQTT3-3.3.1-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for qos := byte(1); qos < 3; qos++ {
			c, _, _ := pending(t, s, v, qos, 2)
			c = again(c, s)
			for i := range 2 {
				if p := c.message(c.id, fmt.Sprint(i)); !p.pub.dup {
					t.Errorf("QoS %d: %v", qos, p)
				}
			}
		}
	})
}

func TestPublish_ReDeliveryKeepsItsID(t *testing.T) { // [MQTT3-2.3.1-4] [MQTT3-4.4.0-1]
	t.Parallel()
	s := startBroker(t, "")
	c, pub, sent := pending(t, s, v311, 1, 3)
	c.send(ack(tPUBACK, sent[1].id)) // leaves a hole
	c.alive()
	c = again(c, s)
	c.listen(1, c.id) // must not disturb the order
	for _, i := range []int{0, 2} {
		if p := c.message(c.id, fmt.Sprint(i)); p.id != sent[i].id {
			t.Errorf("%v instead of %v", p, sent[i])
		}
	}
	pub.post(publish{topic: c.id, payload: "new", qos: 1})
	if p := c.message(c.id, "new"); p.id == sent[0].id || p.id == sent[2].id {
		t.Errorf("the identifier %d is in use", p.id)
	}
}

func TestPublish_IsNotResentWhileConnected(t *testing.T) { // [MQTT-4.4.0-1]
	t.Parallel()
	s := startBroker(t, "")
	c, _, _ := pending(t, s, v5, 1, 2)
	c.quiet(3 * time.Second)
}

func TestQoS2_PubrelFollowsPubrec(t *testing.T) { // [MQTT-4.3.3-4] [MQTT-2.2.1-5] [MQTT3-4.3.3-1] [MQTT3-2.3.1-6]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, _, sent := pending(t, s, v, 2, 1)
		c.send(ack(tPUBREC, sent[0].id))
		if p := c.expect(tPUBREL); p.id != sent[0].id || p.flags != 2 || p.reason != 0 {
			t.Errorf("%v", p)
		}
	})
}

func TestQoS2_PubrelIsResentUntilPubcomp(t *testing.T) { // [MQTT-4.3.3-5] [MQTT-4.4.0-1] [MQTT3-4.3.3-1] [MQTT3-4.4.0-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, _, sent := pending(t, s, v, 2, 1)
		id := sent[0].id
		c.send(ack(tPUBREC, id))
		c.acked(tPUBREL, id)
		for range 2 {
			c = again(c, s)
			if p := c.expect(tPUBREL); p.id != id {
				t.Errorf("%v", p)
			}
		}
		c.send(ack(tPUBCOMP, id))
		c.alive()
		c = again(c, s)
		c.quiet(soon)
	})
}

func TestQoS2_PublishIsNotResentAfterPubrel(t *testing.T) { // [MQTT-4.3.3-6] [MQTT3-4.3.3-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, _, sent := pending(t, s, v, 2, 1)
		c.send(ack(tPUBREC, sent[0].id))
		c.acked(tPUBREL, sent[0].id)
		c = again(c, s)
		c.expect(tPUBREL)
		c.quiet(soon)
	})
}

func TestQoS2_SentMessageDoesNotExpire(t *testing.T) { // [MQTT-4.3.3-7]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	c := join(t, s, v5, keep(id))
	c.listen(2, id)
	join(t, s, v5).post(publish{topic: id, payload: "x", qos: 2, props: prop4(pMessageExpiry, 2)})
	first := c.message(id, "x")
	time.Sleep(4200 * time.Millisecond)
	c = again(c, s)
	p := c.take(id, "x")
	if p.id != first.id || !p.pub.dup {
		t.Errorf("%v", p)
	}
	if e, ok := p.prop(pMessageExpiry); ok && e.num > 1 { // nothing is left of it
		t.Errorf("%v", p)
	}
}

func TestQoS_RefusedMessageIsNotResent(t *testing.T) { // [MQTT-4.4.0-2]
	t.Parallel()
	s := startBroker(t, "")
	for qos, typ := range map[byte]byte{1: tPUBACK, 2: tPUBREC} {
		c, _, sent := pending(t, s, v5, qos, 2)
		c.send(nack(typ, sent[0].id, 0x80))
		c.alive() // no PUBREL comes
		c.quiet(0)
		c = again(c, s)
		if p := c.message(c.id, "1"); p.id != sent[1].id {
			t.Errorf("QoS %d: %v", qos, p)
		}
		c.quiet(soon)
	}
}

func TestPublish_ReachesEveryMatchingSession(t *testing.T) { // [MQTT-4.5.0-1] [MQTT3-4.5.0-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		topic := unique()
		filters := []string{topic + "/a", topic + "/+", topic + "/#", topic + "/a/#"}
		live := make([]*client, len(filters))
		away := make([]string, len(filters))
		for i, f := range filters {
			live[i] = join(t, s, v)
			live[i].listen(1, f)
			away[i] = unique()
			c := join(t, s, v, keep(away[i]))
			c.listen(2, f)
			c.leave()
		}
		join(t, s, v).post(publish{topic: topic + "/a", payload: "x", qos: 2})
		for i := range filters {
			live[i].take(topic+"/a", "x")
			join(t, s, v, keep(away[i])).take(topic+"/a", "x")
		}
	})
}

func TestPublish_IsResentInOrder(t *testing.T) { // [MQTT3-4.6.0-1] [MQTT-4.6.0-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		id := unique()
		c, pub := join(t, s, v, keep(id)), join(t, s, v)
		c.listen(2, id)
		const n = 20
		for i := range n {
			pub.post(publish{topic: id, payload: fmt.Sprint(i), qos: byte(1 + i%2)})
			c.message(id, fmt.Sprint(i))
		}
		c = again(c, s)
		for i := range n {
			c.message(id, fmt.Sprint(i))
		}
	})
}

func TestQoS2_PubrelsFollowTheOrderOfPubrecs(t *testing.T) { // [MQTT3-4.6.0-4] [MQTT-4.6.0-4]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, _, sent := pending(t, s, v, 2, 4)
		order := []int{2, 0, 3, 1}
		for _, i := range order {
			c.send(ack(tPUBREC, sent[i].id))
		}
		for _, i := range order {
			if p := c.expect(tPUBREL); p.id != sent[i].id {
				t.Errorf("%v instead of %d", p, sent[i].id)
			}
		}
	})
}

func TestPublish_OrderIsKept(t *testing.T) { // [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT3-4.6.0-6] [MQTT3-4.6.0-5]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for qos := range byte(3) {
			topic := unique()
			pubs := []*client{join(t, s, v), join(t, s, v)}
			subs := []*client{join(t, s, v), join(t, s, v), join(t, s, v)}
			for i, c := range subs {
				c.listen(qos, []string{topic, topic + "/#", "+/" + topic}[i])
			}
			subs[2].listen(qos, topic)
			const n = 200
			const burst = 10 // within any Receive Maximum that makes sense
			for at := 0; at < n; at += burst {
				for from, pub := range pubs {
					var all []byte
					for i := at; i < at+burst; i++ {
						p := publish{topic: topic, payload: fmt.Sprintf("%d %d", from, i), qos: qos, id: i + 1}
						all = cat(all, p.bytes(v))
					}
					pub.send(all)
				}
				for _, pub := range pubs {
					for i := at; i < at+burst; i++ {
						switch qos {
						case 1:
							pub.acked(tPUBACK, i+1)
						case 2:
							pub.acked(tPUBREC, i+1)
							pub.send(ack(tPUBREL, i+1))
							pub.acked(tPUBCOMP, i+1)
						}
					}
				}
			}
			for _, c := range subs {
				next := [2]int{}
				for next[0]+next[1] < 2*n {
					p := c.next()
					switch {
					case p.typ == tPUBREL:
						c.send(ack(tPUBCOMP, p.id))
						continue
					case p.pub.qos == 1:
						c.send(ack(tPUBACK, p.id))
					case p.pub.qos == 2:
						c.send(ack(tPUBREC, p.id))
					}
					var from, i int
					if _, err := fmt.Sscan(p.pub.payload, &from, &i); err != nil || i != next[from] {
						t.Fatalf("QoS %d: %v instead of %d of %d", qos, p, next[from], from)
					}
					next[from]++
				}
			}
		}
	})
}

func TestPublish_OrderIsKeptAcrossTheQueue(t *testing.T) { // [MQTT-4.6.0-5] [MQTT3-4.6.0-6]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		id := unique()
		c, pub := join(t, s, v, keep(id)), join(t, s, v)
		c.listen(1, id)
		i := 0
		some := func() {
			for range 30 {
				pub.post(publish{topic: id, payload: fmt.Sprint(i), qos: 1})
				i++
			}
		}
		c.leave()
		some()
		c = join(t, s, v, keep(id))
		some() // while the queue is being sent
		for n := range i {
			c.take(id, fmt.Sprint(n))
		}
	})
}
