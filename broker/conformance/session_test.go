package conformance

import (
	"testing"
	"time"
)

// resumes reports whether a session is there.
func resumes(t *testing.T, s *server, v byte, id string) bool {
	t.Helper()
	c := join(t, s, v, keep(id))
	defer c.drop()
	return c.connack.present
}

func TestSession_IsStoredWhileItLasts(t *testing.T) { // [MQTT-3.1.2-23] [MQTT3-3.1.2-4] [MQTT3-4.1.0-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		id := unique()
		c, pub := join(t, s, v, keep(id)), join(t, s, v)
		c.listen(2, id+"/a", id+"/b")
		c.unsubscribe(id + "/b")
		pub.post(publish{topic: id + "/a", payload: "unacknowledged", qos: 1})
		first := c.message(id+"/a", "unacknowledged")
		pub.post(publish{topic: id + "/a", payload: "unfinished", qos: 2})
		second := c.message(id+"/a", "unfinished")
		c.send(ack(tPUBREC, second.id))
		c.acked(tPUBREL, second.id)
		c.send((&publish{topic: id + "/c", payload: "x", qos: 2, id: 99}).bytes(v))
		c.acked(tPUBREC, 99)
		c.leave()
		pub.post(publish{topic: id + "/a", payload: "queued", qos: 1})
		pub.post(publish{topic: id + "/b", payload: "unsubscribed", qos: 1})

		c = join(t, s, v, keep(id))
		if p := c.message(id+"/a", "unacknowledged"); p.id != first.id || !p.pub.dup {
			t.Errorf("%v", p)
		}
		if p := c.expect(tPUBREL); p.id != second.id {
			t.Errorf("%v", p)
		}
		c.message(id+"/a", "queued")
		c.send(ack(tPUBREL, 99))
		c.acked(tPUBCOMP, 99)
	})
}

func TestSession_IsKeptWhileConnected(t *testing.T) { // [MQTT-4.1.0-1] [MQTT3-4.1.0-2]
	t.Parallel()
	s := startBroker(t, "")
	t.Run("v5", func(t *testing.T) {
		t.Parallel()
		c := join(t, s, v5, named(unique()), lasting(4)) // which counts from the end of the connection
		c.listen(1, c.id)
		time.Sleep(5500 * time.Millisecond)
		c.post(publish{topic: c.id, payload: "x", qos: 1})
		c.message(c.id, "x")
		c.drop()
		if !resumes(t, s, v5, c.id) {
			t.Error("the session is gone")
		}
	})
	over(t, []byte{v311}, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.listen(1, c.id)
		time.Sleep(2500 * time.Millisecond)
		c.post(publish{topic: c.id, payload: "x", qos: 1})
		c.message(c.id, "x")
	})
}

func TestSession_IsDroppedWhenItExpires(t *testing.T) { // [MQTT-4.1.0-2]
	t.Parallel()
	s := startBroker(t, "")
	for name, end := range map[string]func(c *client){"left": (*client).leave, "dropped": (*client).drop} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := unique()
			c := join(t, s, v5, named(id), lasting(1))
			c.listen(1, id)
			end(c)
			pub := join(t, s, v5)
			pub.post(publish{topic: id, payload: "x", qos: 1})
			time.Sleep(2500 * time.Millisecond)
			c = join(t, s, v5, keep(id))
			if c.connack.present {
				t.Error("the session is still there")
			}
			pub.post(publish{topic: id, payload: "y", qos: 1})
			c.nothing(pub)
		})
	}
}

func TestSession_EndsWithTheConnectionWithoutAnInterval(t *testing.T) { // [MQTT-4.1.0-2]
	t.Parallel()
	s := startBroker(t, "")
	for _, opts := range [][]as{nil, {lasting(0)}} {
		id := unique()
		join(t, s, v5, append(opts, named(id))...).leave()
		if resumes(t, s, v5, id) {
			t.Error("the session is still there")
		}
	}
}

func TestSession_IntervalOfDisconnectCounts(t *testing.T) { // [MQTT-4.1.0-2] [MQTT-3.1.2-23]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	join(t, s, v5, keep(id)).leaveWith(disconnectWith(0, prop4(pSessionExpiry, 0)))
	if resumes(t, s, v5, id) {
		t.Error("0 at DISCONNECT: the session is still there")
	}
	id, other := unique(), unique()
	join(t, s, v5, keep(id)).leaveWith(disconnectWith(0, prop4(pSessionExpiry, 1)))
	join(t, s, v5, named(other), lasting(1)).leaveWith(disconnectWith(0, prop4(pSessionExpiry, 100)))
	time.Sleep(2500 * time.Millisecond)
	if resumes(t, s, v5, id) {
		t.Error("1 at DISCONNECT: the session is still there")
	}
	if !resumes(t, s, v5, other) {
		t.Error("100 at DISCONNECT: the session is gone")
	}
}

func TestSession_ForeverNeverExpires(t *testing.T) { // [MQTT-3.1.2-23]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	join(t, s, v5, named(id), with(prop4(pSessionExpiry, 0xffffffff))).leave()
	time.Sleep(1500 * time.Millisecond)
	if !resumes(t, s, v5, id) {
		t.Error("the session is gone")
	}
	join(t, s, v5, named(id)) // clean, not to leave it behind
}

func TestSession_IsSharedByVersions(t *testing.T) { // [MQTT-3.1.3-2] [MQTT3-3.1.3-2]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	c := join(t, s, v311, keep(id))
	c.listen(1, id)
	c.leave()
	join(t, s, v5).post(publish{topic: id, payload: "x", qos: 1, props: userProp("a", "b")})
	c = join(t, s, v5, keep(id))
	if p := c.take(id, "x"); !p.has(pUserProperty) {
		t.Errorf("%v", p)
	}
}

func TestDisconnect_IntervalWhereThereWasNoneIsRefused(t *testing.T) { // [MQTT-4.13.1-1]
	t.Parallel()
	c := join(t, startBroker(t, ""), v5)
	c.send(disconnectWith(0, prop4(pSessionExpiry, 10)))
	c.ejected(0x82)
}

func TestDisconnect_OfTheServerHasNoInterval(t *testing.T) { // [MQTT-3.14.2-2]
	t.Parallel()
	s := startBroker(t, "")
	c := join(t, s, v5, keep(unique()))
	join(t, s, v5, keep(c.id))
	if p := c.expect(tDISCONNECT); p.has(pSessionExpiry) {
		t.Errorf("%v", p)
	}
}

func TestDisconnect_EndsTheConnection(t *testing.T) { // [MQTT-3.14.4-2] [MQTT-4.13.2-1]
	t.Parallel()
	s := startBroker(t, "")
	c := join(t, s, v5)
	join(t, s, v5, named(c.id))
	c.expect(tDISCONNECT)
	c.ended()
}

func TestDisconnect_IsTheLastPacket(t *testing.T) { // [MQTT-3.14.4-1]
	t.Parallel()
	s := startBroker(t, "")
	c := join(t, s, v5)
	c.listen(0, c.id)
	bad := frame(tSUBSCRIBE, 2, u16(9), []byte{0}) // no filter
	more := (&publish{topic: c.id, payload: "x", qos: 1, id: 7}).bytes(v5)
	c.send(bad, more, pingreq)
	c.ejected(0x81, 0x82)
}

func TestDisconnect_BeforeConnackNever(t *testing.T) { // [MQTT-3.14.0-1]
	t.Parallel()
	s := startBroker(t, "")
	for name, b := range map[string][]byte{
		"will topic":   request(v5, leaving(will{topic: "#"})).bytes(),
		"auth method":  request(v5, with(propS(pAuthMethod, "X"))).bytes(),
		"bad property": request(v5, with([]byte{0x7e})).bytes(),
		"no CONNECT":   pingreq,
		"cut":          frame(tCONNECT, 0, str("MQTT"), []byte{5}),
	} {
		c := dial(t, s, v5)
		c.send(b)
		for p := c.arrive(); p != nil; p = c.arrive() {
			if p.typ == tDISCONNECT {
				t.Errorf("%s: %v", name, p)
			}
		}
	}
}

func TestDisconnect_UsesItsReasonCodes(t *testing.T) { // [MQTT-3.14.2-1]
	t.Parallel()
	s := startBroker(t, "")
	for name, b := range map[string][]byte{
		"malformed":      {0x36, 0},
		"protocol error": request(v5).bytes(),
		"alias":          (&publish{topic: "a", props: prop2(pTopicAlias, 0)}).bytes(v5),
		"bad reason":     disconnectWith(0x33),
	} {
		c := join(t, s, v5)
		c.send(b)
		if p := c.expect(tDISCONNECT); p.reason < 0x80 { // its code is checked as it is read
			t.Errorf("%s: %v", name, p)
		}
	}
}
