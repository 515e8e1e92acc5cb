package conformance

import (
	"testing"
	"time"
)

// bequeath has a client with a will, and one that waits for it.
func bequeath(t *testing.T, s *server, v byte, w will, opts ...as) (c, watch *client) {
	t.Helper()
	w.topic, w.payload = unique(), "will"
	watch = join(t, s, v)
	watch.listen(2, w.topic)
	return join(t, s, v, append(opts, leaving(w))...), watch
}

// willed waits for a will and returns it.
func (c *client) willed() *packet {
	c.t.Helper()
	p := c.await(tPUBLISH)
	if p.pub.payload != "will" {
		c.t.Fatalf("%v", p)
	}
	return p
}

// delay is a session that lasts and a will delay, in seconds.
func delayed(seconds int) will { return will{props: prop4(pWillDelay, seconds)} }

func lasting(seconds int) as { return with(prop4(pSessionExpiry, seconds)) }

func TestWill_IsStoredUntilTheConnectionEnds(t *testing.T) { // [MQTT-3.1.2-7]
	t.Parallel()
	s := startBroker(t, "")
	c, watch := bequeath(t, s, v5, will{})
	watch.quiet(soon)
	c.drop()
	watch.willed()
}

func TestWill_IsPublishedWhenTheConnectionEnds(t *testing.T) { // [MQTT-3.1.2-8] [MQTT3-3.1.2-8]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for name, end := range map[string]func(c *client){
			"dropped":        func(c *client) { c.drop() },
			"protocol error": func(c *client) { c.send(subscribe(v, 0, nil, sub{"a", 0})) },
			"second CONNECT": func(c *client) { c.send(request(v).bytes()) },
			"taken over":     func(c *client) { join(t, s, v, named(c.id)) },
			"malformed":      func(c *client) { c.send([]byte{0x36, 0}) },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c, watch := bequeath(t, s, v, will{qos: 1})
				end(c)
				watch.willed()
				watch.quiet(soon) // once
			})
		}
	})
}

func TestWill_IsPublishedAfterItsDelay(t *testing.T) { // [MQTT-3.1.2-8]
	t.Parallel()
	s := startBroker(t, "")
	c, watch := bequeath(t, s, v5, delayed(1), lasting(60))
	began := time.Now()
	c.drop()
	watch.willed()
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("after %v instead of 1 s", took)
	}
	watch.quiet(soon)
}

func TestWill_IsPublishedWhenTheSessionEnds(t *testing.T) { // [MQTT-3.1.2-8]
	t.Parallel()
	s := startBroker(t, "")
	for name, x := range map[string]struct {
		delay, expiry int
		most          time.Duration
	}{
		"at once without a session": {60, 0, 20 * time.Second},
		"with its session":          {60, 1, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, watch := bequeath(t, s, v5, delayed(x.delay), lasting(x.expiry))
			began := time.Now()
			c.drop()
			watch.willed()
			if took := time.Since(began); took > x.most || took < time.Duration(x.expiry)*900*time.Millisecond {
				t.Errorf("after %v", took)
			}
		})
	}
	t.Run("at a clean start", func(t *testing.T) {
		t.Parallel()
		c, watch := bequeath(t, s, v5, delayed(60), lasting(60))
		c.drop()
		join(t, s, v5, named(c.id))
		watch.willed()
	})
	t.Run("at a clean start that takes over", func(t *testing.T) {
		t.Parallel()
		c, watch := bequeath(t, s, v5, delayed(60), lasting(60))
		join(t, s, v5, named(c.id))
		watch.willed()
	})
}

func TestWill_OtherReasonsOfDisconnectPublishIt(t *testing.T) { // [MQTT-3.1.2-8]
	t.Parallel()
	s := startBroker(t, "")
	for _, reason := range []byte{0x04, 0x80, 0x93} {
		c, watch := bequeath(t, s, v5, will{})
		c.leaveWith(disconnectWith(reason))
		watch.willed()
	}
}

func TestWill_IsForgottenOncePublished(t *testing.T) { // [MQTT-3.1.2-10] [MQTT3-3.1.2-10]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, watch := bequeath(t, s, v, will{}, keep(unique()))
		c.drop()
		watch.willed()
		c = join(t, s, v, keep(c.id)) // without a will
		c.drop()
		join(t, s, v, keep(c.id)).drop()
		watch.quiet(2 * soon)
	})
}

func TestWill_IsForgottenAfterDisconnect(t *testing.T) { // [MQTT-3.1.2-10] [MQTT3-3.1.2-10]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, watch := bequeath(t, s, v, will{}, keep(unique()))
		c.leave()
		join(t, s, v, keep(c.id)).drop() // no will of the old connection comes back
		watch.quiet(2 * soon)
	})
}

func TestWill_NoneWithoutTheFlag(t *testing.T) { // [MQTT3-3.1.2-12]
	t.Parallel()
	s := startBroker(t, "")
	watch := join(t, s, v311)
	id := unique()
	watch.listen(0, id+"/#", id)
	c := join(t, s, v311, named(id))
	c.post(publish{topic: id, payload: "x"})
	watch.message(id, "x")
	c.drop()
	watch.quiet(2 * soon)
}

func TestWill_NotRetained(t *testing.T) { // [MQTT-3.1.2-14] [MQTT3-3.1.2-16]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, watch := bequeath(t, s, v, will{qos: 1})
		c.drop()
		p := watch.willed()
		if p.pub.retain {
			t.Errorf("%v", p)
		}
		if r := retained(t, s, v, p.pub.topic); r != nil {
			t.Errorf("%v", r)
		}
	})
}

func TestWill_Retained(t *testing.T) { // [MQTT-3.1.2-15] [MQTT3-3.1.2-17]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, watch := bequeath(t, s, v, will{qos: 1, retain: true})
		c.drop()
		p := watch.willed()
		if r := retained(t, s, v, p.pub.topic); r == nil || r.pub.payload != "will" || r.pub.qos != 1 {
			t.Errorf("%v", r)
		}
	})
}

func TestWill_ReconnectWithinTheDelayCancelsIt(t *testing.T) { // [MQTT-3.1.3-9] [MQTT-3.1.2-8]
	t.Parallel()
	s := startBroker(t, "")
	c, watch := bequeath(t, s, v5, delayed(4), lasting(60))
	c.drop()
	time.Sleep(200 * time.Millisecond)
	join(t, s, v5, keep(c.id))
	watch.quiet(5 * time.Second)
}

func TestWill_TakeOverWithinTheDelayCancelsIt(t *testing.T) { // [MQTT-3.1.3-9]
	t.Parallel()
	s := startBroker(t, "")
	c, watch := bequeath(t, s, v5, delayed(1), lasting(60))
	join(t, s, v5, keep(c.id))
	c.ejected(0x8e)
	watch.quiet(2 * time.Second)
}

func TestWill_UserPropertiesKeepTheirOrder(t *testing.T) { // [MQTT-3.1.3-10]
	t.Parallel()
	s := startBroker(t, "")
	c, watch := bequeath(t, s, v5, will{props: cat(userProp("z", "1"), prop4(pWillDelay, 0), userProp("a", "2"),
		propS(pContentType, "type"), userProp("z", "3"))})
	c.drop()
	order := ""
	p := watch.willed()
	for _, u := range p.all(pUserProperty) {
		order += u.text + u.val
	}
	if order != "z1a2z3" || p.has(pWillDelay) {
		t.Errorf("%v", p)
	}
}

func TestWill_PropertiesArePassedOn(t *testing.T) { // [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-20]
	t.Parallel()
	s := startBroker(t, "")
	c, watch := bequeath(t, s, v5, will{props: cat(prop1(pPayloadFormat, 1), propS(pContentType, "type"),
		propS(pResponseTopic, "reply/here"), propS(pCorrelationData, "\x00\x01"), prop4(pMessageExpiry, 100))})
	c.drop()
	p := watch.willed()
	for id, want := range map[byte]property{pPayloadFormat: {num: 1}, pContentType: {text: "type"},
		pResponseTopic: {text: "reply/here"}, pCorrelationData: {text: "\x00\x01"}} {
		if got, ok := p.prop(id); !ok || got.num != want.num || got.text != want.text {
			t.Errorf("property %02x: %v", id, p)
		}
	}
	if e, _ := p.prop(pMessageExpiry); e.num < 50 || e.num > 100 {
		t.Errorf("expiry: %v", p)
	}
}

func TestDisconnect_DiscardsTheWill(t *testing.T) { // [MQTT-3.14.4-3] [MQTT3-3.14.4-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, watch := bequeath(t, s, v, will{})
		c.leave()
		if v == v5 {
			long, other := bequeath(t, s, v, will{})
			long.leaveWith(disconnectWith(0)) // the same, spelled out
			other.quiet(2 * soon)
		}
		watch.quiet(2 * soon)
	})
}

func TestDisconnect_DiscardsADelayedWill(t *testing.T) { // [MQTT-3.14.4-3]
	t.Parallel()
	s := startBroker(t, "")
	c, watch := bequeath(t, s, v5, delayed(1), lasting(60))
	c.leave()
	watch.quiet(2 * time.Second)
}
