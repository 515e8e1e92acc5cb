package conformance

import (
	"fmt"
	"testing"
	"time"
)

// refusedFilter expects a filter to fail: by its reason code, or, if the server
// takes it as malformed, by the end of the connection.
func refusedFilter(t *testing.T, s *server, v byte, filter string) {
	t.Helper()
	c := join(t, s, v)
	c.send(subscribe(v, 1, nil, sub{filter, 0}))
	switch p := c.arrive(); {
	case p == nil && v != v5:
	case p == nil:
		t.Errorf("%q: the connection ends without DISCONNECT", filter)
	case p.typ == tSUBACK && p.reasons[0] >= 0x80 && (v != v5 || p.reasons[0] == 0x8f):
	case p.typ == tDISCONNECT && (p.reason == 0x81 || p.reason == 0x82 || p.reason == 0x8f):
	default:
		t.Errorf("%q: %v", filter, p)
	}
}

func TestShared_NameIsNotEmpty(t *testing.T) { // [MQTT-4.8.2-1]
	t.Parallel()
	s := startBroker(t, "")
	for _, f := range []string{"$share//a", "$share/", "$share//", "$share///a"} {
		refusedFilter(t, s, v5, f)
	}
}

func TestShared_NameIsALevelFollowedByAFilter(t *testing.T) { // [MQTT-4.8.2-2]
	t.Parallel()
	s := startBroker(t, "")
	for _, f := range []string{"$share/g", "$share/g/", "$share/g+/a", "$share/#/a", "$share/+/a", "$share/g#x/a", "$share/g/a#", "$share/g/#/a"} {
		refusedFilter(t, s, v5, f)
	}
	c, pub := join(t, s, v5), join(t, s, v5)
	c.listen(0, "$share/a name.of-one/"+c.id+"/+/#")
	pub.post(publish{topic: c.id + "/x", payload: "x"})
	c.message(c.id+"/x", "x")
}

func TestShared_EachMessageGoesToOneMember(t *testing.T) {
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		topic := unique()
		pub := join(t, s, v)
		members := []*client{join(t, s, v), join(t, s, v), join(t, s, v)}
		for _, c := range members {
			c.listen(1, "$share/one/"+topic)
		}
		other := join(t, s, v)
		other.listen(1, "$share/two/"+topic)
		plain := join(t, s, v)
		plain.listen(1, topic)
		const n = 30
		for i := range n {
			pub.post(publish{topic: topic, payload: fmt.Sprint(i), qos: 1})
			other.take(topic, fmt.Sprint(i))
			plain.take(topic, fmt.Sprint(i))
		}
		seen := map[string]int{}
		for i, got := range rest(n, members...) {
			if len(got) == 0 {
				t.Errorf("member %d gets nothing of %d messages", i, n)
			}
			for _, p := range got {
				seen[p.pub.payload]++
			}
		}
		if len(seen) != n {
			t.Errorf("%d messages of %d", len(seen), n)
		}
		for m, times := range seen {
			if times != 1 {
				t.Errorf("message %s comes %d times", m, times)
			}
		}
	})
}

func TestShared_GrantedQoSIsKept(t *testing.T) { // [MQTT-4.8.2-3]
	t.Parallel()
	s := startBroker(t, "")
	topic := unique()
	pub := join(t, s, v5)
	members := []*client{join(t, s, v5), join(t, s, v5), join(t, s, v5)}
	for qos, c := range members {
		c.listen(byte(qos), "$share/g/"+topic)
	}
	for range 12 {
		pub.post(publish{topic: topic, payload: "x", qos: 2})
	}
	total := 0
	for qos, got := range rest(12, members...) {
		for _, p := range got {
			if total++; int(p.pub.qos) != qos {
				t.Errorf("QoS %d: %v", qos, p)
			}
		}
	}
	if total != 12 {
		t.Errorf("%d messages of 12", total)
	}
}

// shareOne has a member that a message at a QoS was sent to, and a second one
// that joined the group later.
func shareOne(t *testing.T, s *server, qos byte) (first, second *client, sent *packet) {
	t.Helper()
	topic := unique()
	first, second = join(t, s, v5, keep(unique())), join(t, s, v5)
	first.listen(qos, "$share/g/"+topic)
	second.post(publish{topic: topic, payload: "x", qos: qos})
	sent = first.message(topic, "x")
	second.listen(qos, "$share/g/"+topic)
	return first, second, sent
}

func TestShared_QoS2IsCompletedToItsMember(t *testing.T) { // [MQTT-4.8.2-4]
	t.Parallel()
	s := startBroker(t, "")
	first, second, sent := shareOne(t, s, 2)
	first.drop()
	second.quiet(soon)
	first = join(t, s, v5, keep(first.id))
	if p := first.take(sent.pub.topic, "x"); p.id != sent.id || !p.pub.dup {
		t.Errorf("%v", p)
	}
	second.quiet(soon)
}

func TestShared_QoS2DiesWithItsMember(t *testing.T) { // [MQTT-4.8.2-5]
	t.Parallel()
	s := startBroker(t, "")
	t.Run("sent", func(t *testing.T) {
		t.Parallel()
		first, second, _ := shareOne(t, s, 2)
		first.leaveWith(disconnectWith(0, prop4(pSessionExpiry, 0)))
		second.quiet(2 * soon)
	})
	t.Run("received", func(t *testing.T) {
		t.Parallel()
		first, second, sent := shareOne(t, s, 2)
		first.send(ack(tPUBREC, sent.id))
		first.acked(tPUBREL, sent.id)
		first.leaveWith(disconnectWith(0, prop4(pSessionExpiry, 0)))
		second.quiet(2 * soon)
	})
	t.Run("session expired", func(t *testing.T) {
		t.Parallel()
		first, second, _ := shareOne(t, s, 2)
		first.leaveWith(disconnectWith(0, prop4(pSessionExpiry, 1)))
		second.quiet(2500 * time.Millisecond)
	})
}

func TestShared_QoS1GoesToTheRestWhenItsMemberEnds(t *testing.T) {
	t.Parallel()
	s := startBroker(t, "")
	first, second, sent := shareOne(t, s, 1)
	first.leaveWith(disconnectWith(0, prop4(pSessionExpiry, 0)))
	second.take(sent.pub.topic, "x")
}

func TestShared_RefusedMessageGoesToNobodyElse(t *testing.T) { // [MQTT-4.8.2-6]
	t.Parallel()
	s := startBroker(t, "")
	for qos, typ := range map[byte]byte{1: tPUBACK, 2: tPUBREC} {
		first, second, sent := shareOne(t, s, qos)
		first.send(nack(typ, sent.id, 0x83))
		first.alive()
		second.quiet(soon)
		first.leaveWith(disconnectWith(0, prop4(pSessionExpiry, 0)))
		second.quiet(2 * soon)
	}
}

func TestShared_OfflineMemberIsPassedOver(t *testing.T) {
	t.Parallel()
	s := startBroker(t, "")
	topic := unique()
	away, here, pub := join(t, s, v5, keep(unique())), join(t, s, v5), join(t, s, v5)
	away.listen(1, "$share/g/"+topic)
	here.listen(1, "$share/g/"+topic)
	away.leave()
	for i := range 10 {
		pub.post(publish{topic: topic, payload: fmt.Sprint(i), qos: 1})
		here.take(topic, fmt.Sprint(i))
	}
}

func TestShared_UnsubscribedMemberGetsNothing(t *testing.T) { // [MQTT-3.10.4-1] [MQTT-3.10.4-2]
	t.Parallel()
	s := startBroker(t, "")
	topic := unique()
	a, b, pub := join(t, s, v5), join(t, s, v5), join(t, s, v5)
	a.listen(0, "$share/g/"+topic)
	b.listen(0, "$share/g/"+topic)
	a.unsubscribe(topic) // another filter
	if p := a.unsubscribe("$share/g/" + topic); p.reasons[0] != 0 {
		t.Errorf("%v", p)
	}
	for range 6 {
		pub.post(publish{topic: topic, payload: "x"})
		b.message(topic, "x")
	}
	a.quiet(soon)
}
