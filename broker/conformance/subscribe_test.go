package conformance

import (
	"bytes"
	"fmt"
	"testing"
)

func TestSubscribe_FilterOfBadUTF8IsMalformed(t *testing.T) { // [MQTT-3.8.3-1] [MQTT3-3.8.3-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, bad := range badString {
			c := join(t, s, v)
			c.send(subscribe(v, 1, nil, sub{"good", 0}, sub{bad, 0}))
			c.ejected(0x81)
		}
	})
}

func TestSubscribe_WithoutFilterIsAProtocolError(t *testing.T) { // [MQTT-3.8.3-2] [MQTT3-3.8.3-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.send(subscribe(v, 1, nil))
		c.ejected(0x81, 0x82)
	})
}

func TestSubscribe_NoLocalKeepsOwnMessagesAway(t *testing.T) { // [MQTT-3.8.3-3]
	t.Parallel()
	s := startBroker(t, "")
	c, pub := join(t, s, v5), join(t, s, v5)
	c.subscribe(sub{c.id, 2 | noLocal})
	for qos := range byte(3) {
		c.post(publish{topic: c.id, payload: "own", qos: qos})
		pub.post(publish{topic: c.id, payload: "other", qos: qos})
		c.take(c.id, "other")
	}
	c.nothing(c)
	// It is the subscription's, not the client's: another filter still matches.
	c.subscribe(sub{c.id + "/#", 0})
	c.post(publish{topic: c.id, payload: "own"})
	c.take(c.id, "own")
}

func TestSubscribe_NoLocalOnSharedIsAProtocolError(t *testing.T) { // [MQTT-3.8.3-4]
	t.Parallel()
	c := join(t, startBroker(t, ""), v5)
	c.send(subscribe(v5, 1, nil, sub{"$share/g/" + c.id, noLocal}))
	c.ejected(0x82)
}

func TestSubscribe_ReservedOptionsAreMalformed(t *testing.T) { // [MQTT-3.8.3-5] [MQTT3-3.8.3-4]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		bits := []byte{0x40, 0x80, 0xc1}
		if v == v311 {
			bits = append(bits, 0x04, 0x08, 0x10, 0x20, 3)
		}
		for _, b := range bits {
			c := join(t, s, v)
			c.send(subscribe(v, 1, nil, sub{c.id, b}))
			c.ejected(0x81)
		}
	})
}

func TestSubscribe_QoS3AndRetainHandling3AreRefused(t *testing.T) { // [MQTT-4.13.1-1]
	t.Parallel()
	s := startBroker(t, "")
	for _, b := range []byte{3, retainIfNew | retainNever} {
		c := join(t, s, v5)
		c.send(subscribe(v5, 1, nil, sub{c.id, b}))
		c.ejected(0x81, 0x82)
	}
}

func TestSubscribe_IsAnswered(t *testing.T) { // [MQTT-3.8.4-1] [MQTT3-3.8.4-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.send(subscribe(v, 10, nil, sub{c.id, 1}))
		c.expect(tSUBACK)
	})
}

func TestSubscribe_AgainReplaces(t *testing.T) { // [MQTT-3.8.4-3] [MQTT3-3.8.4-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, pub := join(t, s, v), join(t, s, v)
		for _, qos := range []byte{2, 0, 1} {
			c.listen(qos, c.id+"/#")
			pub.post(publish{topic: c.id, payload: "x", qos: 2})
			if p := c.take(c.id, "x"); p.pub.qos != qos {
				t.Errorf("QoS %d: %v", qos, p)
			}
			c.nothing(pub) // one copy
		}
		c.unsubscribe(c.id + "/#")
		pub.post(publish{topic: c.id, payload: "x", qos: 2})
		c.nothing(pub)
	})
}

func TestSubscribe_AgainReplacesIdentifier(t *testing.T) { // [MQTT-3.8.4-3]
	t.Parallel()
	s := startBroker(t, "")
	c, pub := join(t, s, v5), join(t, s, v5)
	for _, id := range []int{5, 268435455, 0} {
		var p []byte
		if id != 0 {
			p = propV(pSubscriptionID, id)
		}
		c.subscribeWith(p, sub{c.id, 0})
		pub.post(publish{topic: c.id, payload: "x"})
		got := c.message(c.id, "x").all(pSubscriptionID)
		if id == 0 && len(got) > 0 || id != 0 && (len(got) != 1 || got[0].num != id) {
			t.Errorf("identifier %d: %v", id, got)
		}
	}
}

func TestSubscribe_AgainResendsRetained(t *testing.T) { // [MQTT-3.8.4-4] [MQTT3-3.8.4-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.post(publish{topic: c.id, payload: "x", retain: true, qos: 1})
		for range 3 {
			c.listen(1, c.id)
			if p := c.take(c.id, "x"); !p.pub.retain {
				t.Errorf("%v", p)
			}
		}
	})
}

func TestSubscribe_AgainLosesNothing(t *testing.T) { // [MQTT-3.8.4-4] [MQTT3-3.8.4-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, pub := join(t, s, v), join(t, s, v)
		c.listen(1, c.id)
		const n = 300
		var all, again []byte
		for i := range n {
			all = cat(all, (&publish{topic: c.id, payload: fmt.Sprint(i), qos: 1, id: i + 1}).bytes(v))
			again = cat(again, subscribe(v, 1000+i, nil, sub{c.id, 1}))
		}
		for i := range 10 { // by turns
			pub.send(all[len(all)*i/10 : len(all)*(i+1)/10])
			c.send(again[len(again)*i/10 : len(again)*(i+1)/10])
		}
		for i := range n {
			p := c.await(tPUBLISH)
			if p.pub.payload != fmt.Sprint(i) {
				t.Fatalf("%v instead of %d", p, i)
			}
			c.send(ack(tPUBACK, p.id))
		}
	})
}

func TestSubscribe_SeveralFiltersAreOneAnswer(t *testing.T) { // [MQTT-3.8.4-5] [MQTT3-3.8.4-4]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, pub := join(t, s, v), join(t, s, v)
		a, b := c.id+"/a", c.id+"/b"
		pub.post(publish{topic: a, payload: "retained", retain: true, qos: 1})
		c.send(subscribe(v, 1, nil, sub{a, 0}, sub{b, 1}, sub{a, 2}), pingreq)
		c.await(tPINGRESP)
		if p := c.await(tSUBACK); !bytes.Equal(p.reasons, []byte{0, 1, 2}) {
			t.Errorf("%v", p)
		}
		// As with separate SUBSCRIBEs: the last one for a filter counts, and
		// each gets the retained message.
		if p := c.take(a, "retained"); p.pub.qos != 0 {
			t.Errorf("%v", p)
		}
		c.take(a, "retained")
		pub.post(publish{topic: a, payload: "x", qos: 2})
		if p := c.take(a, "x"); p.pub.qos != 2 {
			t.Errorf("%v", p)
		}
		c.nothing(pub)
	})
}

func TestSuback_HasACodeForEachFilter(t *testing.T) { // [MQTT-3.8.4-6] [MQTT3-3.8.4-5]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		for _, n := range []int{1, 2, 50} {
			var subs []sub
			for i := range n {
				subs = append(subs, sub{fmt.Sprintf("%s/%d", c.id, i), byte(i % 3)})
			}
			if p := c.subscribe(subs...); len(p.reasons) != n {
				t.Errorf("%d codes for %d filters", len(p.reasons), n)
			}
		}
	})
}

func TestSuback_ShowsQoSOrFailure(t *testing.T) { // [MQTT-3.8.4-7] [MQTT3-3.8.4-5]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		for qos := range byte(3) {
			if p := c.subscribe(sub{c.id, qos}); p.reasons[0] != qos {
				t.Errorf("QoS %d: %v", qos, p)
			}
		}
		if p := c.subscribe(sub{"$share/" + c.id, 0}); p.reasons[0] < 0x80 {
			t.Errorf("%v", p)
		}
	})
}

func TestSuback_CodesAreInOrder(t *testing.T) { // [MQTT-3.9.3-1] [MQTT3-3.9.3-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		a := c.subscribe(sub{c.id + "/1", 1}, sub{"$share/g+/a", 1}, sub{c.id + "/2", 2}, sub{c.id + "/0", 0})
		bad := byte(0x80)
		if v == v5 {
			bad = 0x8f
		}
		if !bytes.Equal(a.reasons, []byte{1, bad, 2, 0}) {
			t.Errorf("%v", a)
		}
	})
}

func TestSuback_UsesItsReasonCodes(t *testing.T) { // [MQTT-3.9.3-2] [MQTT3-3.9.3-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		a := c.subscribe(sub{c.id, 2}, sub{"$share//a", 0}, sub{"$share/g", 0}, sub{"$share/g/", 0}, sub{"$share/#/a", 1})
		for i, r := range a.reasons { // held against the table as they are read
			if (r >= 0x80) != (i > 0) {
				t.Errorf("%v", a)
			}
		}
	})
}

func TestSubscribe_MessagesComeAtTheLowerQoS(t *testing.T) { // [MQTT-3.8.4-8] [MQTT3-3.8.4-6]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, pub := join(t, s, v), join(t, s, v)
		for granted := range byte(3) {
			topic := fmt.Sprintf("%s/%d", c.id, granted)
			c.listen(granted, topic)
			for published := range byte(3) {
				pub.post(publish{topic: topic, payload: "x", qos: published})
				if p := c.take(topic, "x"); p.pub.qos != min(granted, published) {
					t.Errorf("%d of %d: %v", granted, published, p)
				}
			}
		}
	})
}

func TestSubscribe_OverlapKeepsTheHighestQoS(t *testing.T) { // [MQTT-3.3.4-2] [MQTT3-3.3.5-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, order := range [][]byte{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
			c, pub := join(t, s, v), join(t, s, v)
			c.listen(order[0], c.id+"/#")
			c.listen(order[1], c.id+"/+")
			c.listen(order[2], c.id+"/a")
			pub.post(publish{topic: c.id + "/a", payload: "x", qos: 2})
			if p := c.take(c.id+"/a", "x"); p.pub.qos != 2 {
				t.Errorf("%v: %v", order, p)
			}
			c.nothing(pub) // one copy
		}
	})
}

func TestSubscribe_OverlapSendsItsIdentifiers(t *testing.T) { // [MQTT-3.3.4-3] [MQTT-3.3.4-4]
	t.Parallel()
	s := startBroker(t, "")
	c, pub := join(t, s, v5), join(t, s, v5)
	c.subscribeWith(propV(pSubscriptionID, 1), sub{c.id + "/#", 0})
	c.subscribeWith(propV(pSubscriptionID, 268435455), sub{c.id + "/+", 2})
	c.subscribeWith(nil, sub{c.id + "/a", 1})
	c.subscribeWith(propV(pSubscriptionID, 300), sub{c.id + "/b", 1})
	for qos := range byte(3) {
		pub.post(publish{topic: c.id + "/a", payload: "x", qos: qos})
		got := map[int]int{}
		p := c.take(c.id+"/a", "x")
		for _, i := range p.all(pSubscriptionID) {
			got[i.num]++
		}
		if len(got) != 2 || got[1] != 1 || got[268435455] != 1 {
			t.Errorf("%v", p)
		}
	}
	c.nothing(pub)
}

func TestSubscribe_IdentifiersSurviveQueueAndRetain(t *testing.T) { // [MQTT-3.3.4-3]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	c := join(t, s, v5, keep(id))
	c.subscribeWith(propV(pSubscriptionID, 7), sub{id, 1})
	c.leave()
	join(t, s, v5).post(publish{topic: id, payload: "x", qos: 1, retain: true})
	c = join(t, s, v5, keep(id))
	if p := c.take(id, "x"); len(p.all(pSubscriptionID)) != 1 || p.all(pSubscriptionID)[0].num != 7 {
		t.Errorf("queued: %v", p)
	}
	c.subscribeWith(propV(pSubscriptionID, 8), sub{id, 1})
	if p := c.take(id, "x"); len(p.all(pSubscriptionID)) != 1 || p.all(pSubscriptionID)[0].num != 8 {
		t.Errorf("retained: %v", p)
	}
}

func TestSubscribe_Identifier0IsAProtocolError(t *testing.T) { // [MQTT-4.13.1-1]
	t.Parallel()
	s := startBroker(t, "")
	for _, p := range [][]byte{propV(pSubscriptionID, 0), cat(propV(pSubscriptionID, 1), propV(pSubscriptionID, 2))} {
		c := join(t, s, v5)
		c.send(subscribe(v5, 1, p, sub{c.id, 0}))
		c.ejected(0x82, 0x81)
	}
}

func TestUnsubscribe_FilterOfBadUTF8IsMalformed(t *testing.T) { // [MQTT-3.10.3-1] [MQTT3-3.10.3-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, bad := range badString {
			c := join(t, s, v)
			c.send(unsubscribe(v, 1, "good", bad))
			c.ejected(0x81)
		}
	})
}

func TestUnsubscribe_WithoutFilterIsAProtocolError(t *testing.T) { // [MQTT-3.10.3-2] [MQTT3-3.10.3-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.send(unsubscribe(v, 1))
		c.ejected(0x81, 0x82)
	})
}

func TestUnsubscribe_DeletesTheExactFilterOnly(t *testing.T) { // [MQTT-3.10.4-1] [MQTT3-3.10.4-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, pub := join(t, s, v), join(t, s, v)
		c.listen(0, c.id+"/+")
		c.unsubscribe(c.id+"/#", c.id+"/a", "#", "+/+", c.id+"/+/", c.id)
		pub.post(publish{topic: c.id + "/a", payload: "x"})
		c.message(c.id+"/a", "x")
		c.unsubscribe(c.id + "/+")
		pub.post(publish{topic: c.id + "/a", payload: "x"})
		c.nothing(pub)
	})
}

func TestUnsubscribe_StopsNewMessages(t *testing.T) { // [MQTT-3.10.4-2] [MQTT3-3.10.4-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		id := unique()
		c, pub := join(t, s, v, keep(id)), join(t, s, v)
		c.listen(1, id+"/#", id)
		c.unsubscribe(id + "/#")
		for qos := range byte(3) {
			pub.post(publish{topic: id + "/a", payload: "x", qos: qos})
		}
		c.nothing(pub)
		c.leave()
		pub.post(publish{topic: id + "/a", payload: "x", qos: 1})
		c = join(t, s, v, keep(id))
		c.nothing(pub)
	})
}

func TestUnsubscribe_CompletesWhatHadBegun(t *testing.T) { // [MQTT-3.10.4-3] [MQTT3-3.10.4-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for qos := byte(1); qos < 3; qos++ {
			c, _, sent := pending(t, s, v, qos, 2)
			c.unsubscribe(c.id)
			if qos == 2 {
				c.send(ack(tPUBREC, sent[0].id))
				c.acked(tPUBREL, sent[0].id)
				c.send(ack(tPUBCOMP, sent[0].id))
			} else {
				c.send(ack(tPUBACK, sent[0].id))
			}
			c.alive()
			c = again(c, s)
			if p := c.take(c.id, "1"); p.id != sent[1].id || !p.pub.dup {
				t.Errorf("%v", p)
			}
		}
	})
}

func TestUnsubscribe_IsAnswered(t *testing.T) { // [MQTT-3.10.4-4] [MQTT3-3.10.4-4]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.listen(0, c.id)
		c.send(unsubscribe(v, 77, c.id))
		if p := c.expect(tUNSUBACK); p.id != 77 || v == v5 && !bytes.Equal(p.reasons, []byte{0}) {
			t.Errorf("%v", p)
		}
	})
}

func TestUnsubscribe_IsAnsweredEvenIfNothingIsDeleted(t *testing.T) { // [MQTT-3.10.4-5] [MQTT3-3.10.4-5]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.send(unsubscribe(v, 77, c.id))
		if p := c.expect(tUNSUBACK); p.id != 77 || v == v5 && !bytes.Equal(p.reasons, []byte{0x11}) {
			t.Errorf("%v", p)
		}
	})
}

func TestUnsubscribe_SeveralFiltersAreOneAnswer(t *testing.T) { // [MQTT-3.10.4-6] [MQTT3-3.10.4-6]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, pub := join(t, s, v), join(t, s, v)
		c.listen(0, c.id+"/a", c.id+"/b", c.id+"/c")
		c.send(unsubscribe(v, 78, c.id+"/a", c.id+"/c", c.id+"/a"), pingreq)
		p := c.expect(tUNSUBACK)
		c.expect(tPINGRESP)
		// The third is no more there, as with separate UNSUBSCRIBEs.
		if v == v5 && !bytes.Equal(p.reasons, []byte{0, 0, 0x11}) {
			t.Errorf("%v", p)
		}
		for _, name := range []string{"/a", "/c", "/b"} {
			pub.post(publish{topic: c.id + name, payload: name})
		}
		c.message(c.id+"/b", "/b")
	})
}

func TestUnsuback_CodesAreInOrder(t *testing.T) { // [MQTT-3.11.3-1]
	t.Parallel()
	c := join(t, startBroker(t, ""), v5)
	c.listen(0, c.id+"/a", c.id+"/b")
	if p := c.unsubscribe(c.id+"/x", c.id+"/a", c.id+"/y", c.id+"/b"); !bytes.Equal(p.reasons, []byte{0x11, 0, 0x11, 0}) {
		t.Errorf("%v", p)
	}
}

func TestUnsuback_UsesItsReasonCodes(t *testing.T) { // [MQTT-3.11.3-2]
	t.Parallel()
	c := join(t, startBroker(t, ""), v5)
	c.listen(0, c.id)
	p := c.unsubscribe(c.id, "#", "a#", "$share/g", "$share//a", "$share/g/"+c.id)
	for i, r := range p.reasons { // held against the table as they are read
		if (r == 0) != (i == 0) {
			t.Errorf("%v", p)
		}
	}
	if len(p.reasons) != 6 {
		t.Errorf("%v", p)
	}
}
