package conformance

import (
	"testing"
)

// Subscription options of 5.0.
const (
	noLocal           = 0x04
	retainAsPublished = 0x08
	retainIfNew       = 0x10
	retainNever       = 0x20
)

// retained returns what a new subscriber finds, or nil.
func retained(t *testing.T, s *server, v byte, topic string) *packet {
	t.Helper()
	c := join(t, s, v)
	c.listen(2, topic)
	fence := "fence/" + unique()
	c.listen(0, fence)
	c.post(publish{topic: fence, payload: "fence"})
	p := c.await(tPUBLISH)
	if p.pub.topic == fence {
		return nil
	}
	return p
}

func TestRetain_ReplacesWhatWasThere(t *testing.T) { // [MQTT-3.3.1-5] [MQTT3-3.3.1-5]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		pub := join(t, s, v)
		for qos := range byte(3) {
			pub.post(publish{topic: pub.id, payload: string('a' + rune(qos)), qos: qos, retain: true})
			p := retained(t, s, v, pub.id)
			if p == nil || p.pub.payload != string('a'+rune(qos)) || p.pub.qos != qos || !p.pub.retain {
				t.Errorf("QoS %d: %v", qos, p)
			}
		}
	})
}

func TestRetain_EmptyPayloadRemoves(t *testing.T) { // [MQTT-3.3.1-6] [MQTT3-3.3.1-10]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		pub, watch := join(t, s, v), join(t, s, v)
		watch.listen(0, pub.id)
		pub.post(publish{topic: pub.id, payload: "x", retain: true, qos: 1})
		watch.message(pub.id, "x")
		pub.post(publish{topic: pub.id, retain: true, qos: 1})
		watch.message(pub.id, "") // delivered as usual
		if p := retained(t, s, v, pub.id); p != nil {
			t.Errorf("%v", p)
		}
	})
}

func TestRetain_EmptyPayloadIsNotStored(t *testing.T) { // [MQTT-3.3.1-7] [MQTT3-3.3.1-11]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		pub := join(t, s, v)
		pub.post(publish{topic: pub.id, retain: true, qos: 1})
		if p := retained(t, s, v, pub.id); p != nil {
			t.Errorf("%v", p)
		}
	})
}

func TestRetain_PublishWithoutFlagChangesNothing(t *testing.T) { // [MQTT-3.3.1-8] [MQTT3-3.3.1-12]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		pub := join(t, s, v)
		pub.post(publish{topic: pub.id + "/none", payload: "y", qos: 1})
		if p := retained(t, s, v, pub.id+"/none"); p != nil {
			t.Errorf("stored: %v", p)
		}
		pub.post(publish{topic: pub.id, payload: "x", retain: true, qos: 1})
		pub.post(publish{topic: pub.id, payload: "y", qos: 1})
		pub.post(publish{topic: pub.id, qos: 1}) // empty, but not retained
		if p := retained(t, s, v, pub.id); p == nil || p.pub.payload != "x" {
			t.Errorf("%v", p)
		}
	})
}

func TestRetain_QoS0ReplacesToo(t *testing.T) { // [MQTT3-3.3.1-7]
	t.Parallel()
	s := startBroker(t, "")
	pub := join(t, s, v311)
	pub.post(publish{topic: pub.id, payload: "old", retain: true, qos: 2})
	pub.post(publish{topic: pub.id, payload: "new", retain: true})
	pub.alive()
	if p := retained(t, s, v311, pub.id); p == nil || p.pub.payload != "new" || p.pub.qos != 0 {
		t.Errorf("%v", p)
	}
}

func TestRetain_HandlingSendsAlways(t *testing.T) { // [MQTT-3.3.1-9]
	t.Parallel()
	s := startBroker(t, "")
	c := join(t, s, v5)
	c.post(publish{topic: c.id, payload: "x", retain: true, qos: 1})
	for range 3 {
		c.subscribe(sub{c.id, 1})
		if p := c.take(c.id, "x"); !p.pub.retain {
			t.Errorf("%v", p)
		}
	}
}

func TestRetain_HandlingSendsIfNew(t *testing.T) { // [MQTT-3.3.1-10]
	t.Parallel()
	s := startBroker(t, "")
	c := join(t, s, v5)
	c.post(publish{topic: c.id, payload: "x", retain: true, qos: 1})
	for range 2 {
		c.subscribe(sub{c.id, 1 | retainIfNew})
		c.take(c.id, "x")
		c.subscribe(sub{c.id, 1 | retainIfNew})
		c.nothing(c)
		c.unsubscribe(c.id)
	}
}

func TestRetain_HandlingKnowsResumedSubscriptions(t *testing.T) { // [MQTT-3.3.1-10]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	c := join(t, s, v5, keep(id))
	c.post(publish{topic: id, payload: "x", retain: true, qos: 1})
	c.subscribe(sub{id, 1 | retainIfNew})
	c.take(id, "x")
	c.leave()
	c = join(t, s, v5, keep(id))
	c.subscribe(sub{id, 1 | retainIfNew})
	c.nothing(c)
}

func TestRetain_HandlingSendsNever(t *testing.T) { // [MQTT-3.3.1-11]
	t.Parallel()
	s := startBroker(t, "")
	c := join(t, s, v5)
	c.post(publish{topic: c.id, payload: "x", retain: true, qos: 1})
	for range 2 {
		c.subscribe(sub{c.id, 1 | retainNever})
		c.nothing(c)
	}
}

func TestRetain_FlagIsClearedOnForwarding(t *testing.T) { // [MQTT-3.3.1-12] [MQTT3-3.3.1-9]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, pub := join(t, s, v), join(t, s, v)
		c.listen(2, c.id)
		for qos := range byte(3) {
			pub.post(publish{topic: c.id, payload: "x", retain: true, qos: qos})
			if p := c.take(c.id, "x"); p.pub.retain {
				t.Errorf("%v", p)
			}
		}
	})
}

func TestRetain_FlagIsKeptAsPublished(t *testing.T) { // [MQTT-3.3.1-13]
	t.Parallel()
	s := startBroker(t, "")
	c, pub := join(t, s, v5), join(t, s, v5)
	c.subscribe(sub{c.id, 2 | retainAsPublished})
	for i := range 6 {
		pub.post(publish{topic: c.id, payload: "x", retain: i%2 == 0, qos: byte(i / 2)})
		if p := c.take(c.id, "x"); p.pub.retain != (i%2 == 0) {
			t.Errorf("%v", p)
		}
	}
}

func TestRetain_FlagIsKeptAsPublishedInTheQueue(t *testing.T) { // [MQTT-3.3.1-13]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	c := join(t, s, v5, keep(id))
	c.subscribe(sub{id, 2 | retainAsPublished})
	c.leave()
	pub := join(t, s, v5)
	pub.post(publish{topic: id, payload: "1", retain: true, qos: 1})
	pub.post(publish{topic: id, payload: "2", qos: 1})
	c = join(t, s, v5, keep(id))
	if p := c.take(id, "1"); !p.pub.retain {
		t.Errorf("%v", p)
	}
	if p := c.take(id, "2"); p.pub.retain {
		t.Errorf("%v", p)
	}
}

func TestRetain_NewSubscriptionGetsEveryName(t *testing.T) { // [MQTT3-3.3.1-6]
	t.Parallel()
	s := startBroker(t, "")
	c, pub := join(t, s, v311), join(t, s, v311)
	want := map[string]bool{}
	for _, name := range []string{"", "/a", "/b", "/a/c", "/", "//x"} {
		pub.post(publish{topic: c.id + name, payload: "old", retain: true, qos: 1})
		pub.post(publish{topic: c.id + name, payload: "new" + name, retain: true, qos: 1})
		want[c.id+name] = true
	}
	c.listen(1, c.id+"/#")
	for range len(want) {
		p := c.await(tPUBLISH)
		if !want[p.pub.topic] || "new"+p.pub.topic[len(c.id):] != p.pub.payload {
			t.Errorf("%v", p)
		}
		delete(want, p.pub.topic)
	}
	c.nothing(pub)
}

func TestRetain_FlagIsSetForANewSubscription(t *testing.T) { // [MQTT3-3.3.1-8]
	t.Parallel()
	s := startBroker(t, "")
	pub := join(t, s, v311)
	pub.post(publish{topic: pub.id, payload: "x", retain: true, qos: 1})
	if p := retained(t, s, v311, pub.id); p == nil || !p.pub.retain {
		t.Errorf("%v", p)
	}
}

func TestRetain_OutlivesTheSession(t *testing.T) { // [MQTT3-3.1.2-7]
	t.Parallel()
	s := startBroker(t, "")
	pub := join(t, s, v311)
	pub.post(publish{topic: pub.id, payload: "x", retain: true, qos: 1})
	pub.leave()
	join(t, s, v311, named(pub.id)).leave()
	if p := retained(t, s, v311, pub.id); p == nil || p.pub.payload != "x" {
		t.Errorf("%v", p)
	}
}

func TestRetain_QoSIsTheLowerOne(t *testing.T) { // [MQTT-3.8.4-8] [MQTT3-3.8.4-6]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		pub := join(t, s, v)
		for published := range byte(3) {
			pub.post(publish{topic: pub.id, payload: "x", retain: true, qos: published})
			for granted := range byte(3) {
				c := join(t, s, v)
				c.listen(granted, pub.id)
				if p := c.take(pub.id, "x"); p.pub.qos != min(published, granted) {
					t.Errorf("%d of %d: %v", granted, published, p)
				}
			}
		}
	})
}

func TestRetain_SharedSubscriptionGetsNone(t *testing.T) {
	t.Parallel()
	s := startBroker(t, "")
	c := join(t, s, v5)
	c.post(publish{topic: c.id, payload: "x", retain: true, qos: 1})
	c.subscribe(sub{"$share/g/" + c.id, 1})
	c.nothing(c)
}
