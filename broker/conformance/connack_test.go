package conformance

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"
)

func TestConnack_ReservedFlagsAreZero(t *testing.T) { // [MQTT-3.2.2-1]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	for i, want := range []byte{0, 1} {
		conn, err := net.DialTimeout("tcp", s.tcp, patience)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(request(v5, keep(id)).bytes()); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 3) // type, length of one byte, flags
		if n, err := conn.Read(b); n < 3 || b[0] != 0x20 || b[2] != want {
			t.Errorf("connection %d: CONNACK begins with %x, %v", i, b[:n], err)
		}
	}
}

func TestConnack_CleanStartHasNoSessionPresent(t *testing.T) { // [MQTT-3.2.2-2] [MQTT3-3.2.2-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		id := unique()
		join(t, s, v, keep(id)).leave()
		if c := join(t, s, v, keep(id), clean); c.connack.present {
			t.Error("session present")
		}
	})
}

func TestConnack_SaysThatASessionIsPresent(t *testing.T) { // [MQTT-3.2.2-3] [MQTT3-3.2.2-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		id := unique()
		join(t, s, v, keep(id)).leave()
		for i := range 3 {
			c := join(t, s, v, keep(id))
			if !c.connack.present {
				t.Errorf("connection %d: no session present", i+2)
			}
			c.drop()
		}
	})
}

func TestConnack_SaysThatNoSessionIsPresent(t *testing.T) { // [MQTT-3.2.2-3] [MQTT3-3.2.2-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		if c := join(t, s, v, keep(unique())); c.connack.present {
			t.Error("session present")
		}
	})
}

func TestConnack_RefusalHasNoSessionPresent(t *testing.T) { // [MQTT-3.2.2-6] [MQTT3-3.2.2-4]
	t.Parallel()
	s := startBroker(t, "")
	t.Run("v5", func(t *testing.T) {
		t.Parallel()
		id := unique()
		join(t, s, v5, keep(id)).leave()
		c := dial(t, s, v5)
		c.send(request(v5, keep(id), leaving(will{topic: "a/#"})).bytes())
		if p := c.expect(tCONNACK); p.reason < 0x80 || p.present {
			t.Errorf("%v", p)
		}
	})
	t.Run("v3.1.1", func(t *testing.T) {
		t.Parallel()
		c := dial(t, s, v311)
		c.send(request(v311, keep("")).bytes())
		if p := c.expect(tCONNACK); p.reason == 0 || p.present {
			t.Errorf("%v", p)
		}
	})
}

func TestConnack_RefusalIsFollowedByTheEnd(t *testing.T) { // [MQTT-3.2.2-7] [MQTT-4.13.2-1] [MQTT3-3.2.2-5]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := dial(t, s, v)
		if v == v5 {
			c.send(request(v, leaving(will{topic: "a/+"})).bytes())
		} else {
			c.send(request(v, keep("")).bytes())
		}
		if p := c.expect(tCONNACK); p.reason == 0 {
			t.Errorf("%v", p)
		}
		c.ended()
	})
}

func TestConnack_NoneWhereNoReturnCodeFits(t *testing.T) { // [MQTT3-3.2.2-6]
	t.Parallel()
	s := startBroker(t, "")
	for _, topic := range []string{"a/#", ""} {
		c := dial(t, s, v311)
		c.send(request(v311, leaving(will{topic: topic, payload: "x"})).bytes())
		c.ended()
	}
}

func TestConnack_UsesItsReasonCodes(t *testing.T) { // [MQTT-3.2.2-8]
	t.Parallel()
	s := startBroker(t, "")
	for name, r := range map[string]*connect{
		"accepted":      request(v5),
		"will topic":    request(v5, leaving(will{topic: "a/#"})),
		"will QoS":      request(v5, leaving(will{topic: "a", qos: 3})),
		"property":      request(v5, with([]byte{0x7e, 1})),
		"client id":     request(v5, named("\xff")),
		"auth method":   request(v5, with(propS(pAuthMethod, "NO-SUCH-METHOD"))),
		"reserved flag": {version: v5, clean: true, id: "x", flags: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, s, v5)
			c.send(r.bytes())
			p := c.arrive()
			if p == nil {
				return // an end without an answer is allowed
			}
			codes := serverReasons[tCONNACK]
			if p.typ != tCONNACK || strings.IndexByte(codes, p.reason) < 0 || (p.reason == 0) != (name == "accepted") {
				t.Errorf("%v", p)
			}
		})
	}
}

func TestConnack_AnnouncesMaximumQoS(t *testing.T) { // [MQTT-3.2.2-9]
	t.Parallel()
	for set, want := range map[string]int{"qos": 1, "qos0": 0} {
		c := join(t, startBroker(t, set), v5)
		if q, ok := c.connack.prop(pMaximumQoS); !ok || q.num != want {
			t.Errorf("%s: %v", set, c.connack)
		}
	}
	if c := join(t, startBroker(t, ""), v5); c.connack.has(pMaximumQoS) {
		t.Errorf("Maximum QoS of a server without that limit: %v", c.connack)
	}
}

func TestSubscribe_AnyQoSIsAcceptedBelowMaximumQoS(t *testing.T) { // [MQTT-3.2.2-10]
	t.Parallel()
	for set, most := range map[string]byte{"qos": 1, "qos0": 0} {
		c := join(t, startBroker(t, set), v5)
		for qos := byte(0); qos < 3; qos++ {
			if a := c.subscribe(sub{unique(), qos}); a.reasons[0] != min(qos, most) {
				t.Errorf("%s: QoS %d: %v", set, qos, a)
			}
		}
	}
}

func TestPublish_AboveMaximumQoSIsRefused(t *testing.T) { // [MQTT-3.2.2-11]
	t.Parallel()
	c := join(t, startBroker(t, "qos"), v5)
	c.send((&publish{topic: "a", qos: 2, id: 1}).bytes(v5))
	c.ejected(0x9b)
}

func TestConnect_WillAboveMaximumQoSIsRefused(t *testing.T) { // [MQTT-3.2.2-12]
	t.Parallel()
	c := dial(t, startBroker(t, "qos"), v5)
	c.send(request(v5, leaving(will{topic: "a", qos: 2})).bytes())
	c.refused(0x9b)
}

func TestConnect_RetainedWillIsRefusedWithoutRetain(t *testing.T) { // [MQTT-3.2.2-13]
	t.Parallel()
	s := startBroker(t, "qos")
	if c := join(t, s, v5); len(c.connack.all(pRetainAvailable)) != 1 || c.connack.all(pRetainAvailable)[0].num != 0 {
		t.Errorf("Retain Available is not 0: %v", c.connack)
	}
	c := dial(t, s, v5)
	c.send(request(v5, leaving(will{topic: "a", retain: true})).bytes())
	c.refused(0x9a)
}

func TestPublish_RetainedIsRefusedWithoutRetain(t *testing.T) { // [MQTT-3.2.2-14]
	t.Parallel()
	c := join(t, startBroker(t, "qos"), v5)
	c.send((&publish{topic: "a", payload: "x", retain: true}).bytes(v5))
	c.ejected(0x9a)
}

func TestPacket_AboveTheServersMaximumIsRefused(t *testing.T) { // [MQTT-3.2.2-15]
	t.Parallel()
	c := join(t, startBroker(t, "packet"), v5)
	if m, ok := c.connack.prop(pMaximumPacketSize); !ok || m.num != 2000 {
		t.Fatalf("Maximum Packet Size: %v", c.connack)
	}
	topic := unique()
	c.listen(0, topic)
	p := publish{topic: topic, payload: strings.Repeat("x", 2000-3-2-len(topic)-1)}
	if n := len(p.bytes(v5)); n != 2000 {
		t.Fatalf("the packet takes %d bytes", n)
	}
	c.post(p) // just fits
	c.message(topic, p.payload)
	p.payload += "x"
	c.send(p.bytes(v5))
	c.ejected(0x95)
}

func TestPublish_AliasAboveTheMaximumIsRefused(t *testing.T) { // [MQTT-3.2.2-17] [MQTT-3.3.2-9]
	t.Parallel()
	c := join(t, startBroker(t, "window"), v5)
	if m, ok := c.connack.prop(pTopicAliasMaximum); !ok || m.num != 3 {
		t.Fatalf("Topic Alias Maximum: %v", c.connack)
	}
	c.send((&publish{topic: "a", props: prop2(pTopicAlias, 4)}).bytes(v5))
	c.ejected(0x94)
}

func TestConnack_LeavesOutReasonStringThatIsTooLarge(t *testing.T) { // [MQTT-3.2.2-19]
	t.Parallel()
	smallConnack(t)
}

func TestConnack_LeavesOutUserPropertiesThatAreTooLarge(t *testing.T) { // [MQTT-3.2.2-20]
	t.Parallel()
	smallConnack(t)
}

// smallConnack has a CONNECT refused that allows packets of 20 bytes only: the
// answer has to fit.
func smallConnack(t *testing.T) {
	s := startBroker(t, "")
	c := dial(t, s, v5)
	c.limit(20)
	r := request(v5, with(prop4(pMaximumPacketSize, 20), propS(pAuthMethod, "NO-SUCH-METHOD")))
	c.send(r.bytes())
	if p := c.expect(tCONNACK); p.reason < 0x80 {
		t.Errorf("%v", p)
	}
}

func TestConnack_WithoutServerKeepAliveTheClientsCounts(t *testing.T) { // [MQTT-3.2.2-22]
	t.Parallel()
	s := startBroker(t, "keepalive")
	overdue(t, time.Second, func() *client {
		c := join(t, s, v5, keepAlive(1))
		if c.connack.has(pServerKeepAlive) {
			t.Fatalf("the keep alive is changed: %v", c.connack)
		}
		return c
	})
}

func TestConnack_ServerKeepAliveCapsTheClients(t *testing.T) { // [MQTT-3.1.2-22]
	t.Parallel()
	s := startBroker(t, "keepalive")
	for _, asked := range []int{0, 120} {
		c := join(t, s, v5, keepAlive(asked))
		if k, ok := c.connack.prop(pServerKeepAlive); !ok || k.num != 2 {
			t.Fatalf("keep alive %d: %v", asked, c.connack)
		}
	}
	overdue(t, 2*time.Second, func() *client { return join(t, s, v5, keepAlive(120)) })
	join(t, s, v311) // a 3.1.1 client without a keep alive is let in
}

// overdue expects the server to end the connection that join opens, idle, not
// before one and a half times its keep alive.
func overdue(t *testing.T, keepAlive time.Duration, join func() *client) {
	t.Helper()
	began := time.Now()
	c := join()
	var reason []byte
	for p := c.arrive(); p != nil; p = c.arrive() {
		if p.typ != tDISCONNECT {
			t.Fatalf("%v", p)
		}
		reason = append(reason, p.reason)
	}
	if len(reason) > 0 && !bytes.Equal(reason, []byte{0x8d}) {
		t.Errorf("DISCONNECT %x", reason)
	}
	due := keepAlive * 3 / 2
	if took := time.Since(began); took < due-50*time.Millisecond {
		t.Errorf("the connection ends after %v instead of %v", took, due)
	}
}

func TestKeepAlive_SilenceEndsTheConnection(t *testing.T) { // [MQTT-3.1.2-22] [MQTT3-3.1.2-24]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		overdue(t, time.Second, func() *client { return join(t, s, v, keepAlive(1)) })
	})
}

func TestKeepAlive_SilenceSendsTheWill(t *testing.T) { // [MQTT-3.1.2-22] [MQTT3-3.1.2-24]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		topic := unique()
		watch := join(t, s, v)
		watch.listen(0, topic)
		join(t, s, v, keepAlive(1), leaving(will{topic: topic, payload: "silent"}))
		watch.message(topic, "silent")
	})
}

func TestKeepAlive_AnyPacketCounts(t *testing.T) { // [MQTT-3.1.2-22] [MQTT3-3.1.2-24]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v, keepAlive(2))
		for i := range 4 {
			time.Sleep(1200 * time.Millisecond)
			if i%2 == 0 {
				c.post(publish{topic: c.id, payload: "x"})
			} else {
				c.alive()
			}
		}
		c.alive()
	})
}

func TestConnack_NoResponseInformationUnlessAsked(t *testing.T) { // [MQTT-3.1.2-28]
	t.Parallel()
	s := startBroker(t, "")
	for _, opts := range [][]as{nil, {with(prop1(pRequestResponse, 0))}} {
		if c := join(t, s, v5, opts...); c.connack.has(pResponseInfo) {
			t.Errorf("%v", c.connack)
		}
	}
	if c := join(t, s, v5, with(prop1(pRequestResponse, 1))); !c.connack.has(pResponseInfo) {
		t.Errorf("none when asked: %v", c.connack)
	}
}

func TestConnack_NoAuthMethodUnlessAsked(t *testing.T) { // [MQTT-4.12.0-6]
	t.Parallel()
	c := join(t, startBroker(t, ""), v5)
	if c.connack.has(pAuthMethod) || c.connack.has(pAuthData) {
		t.Errorf("%v", c.connack)
	}
	c.quiet(soon)
}

func TestAuth_UnknownMethodIsRefused(t *testing.T) { // [MQTT-4.12.0-1]
	t.Parallel()
	c := dial(t, startBroker(t, ""), v5)
	c.send(request(v5, with(propS(pAuthMethod, "NO-SUCH-METHOD"), propS(pAuthData, "x"))).bytes())
	c.refused(0x8c, 0x87)
}

func TestAuth_WithoutMethodInConnectIsRefused(t *testing.T) { // [MQTT-4.12.0-7]
	t.Parallel()
	c := join(t, startBroker(t, ""), v5)
	c.send(frame(tAUTH, 0, []byte{0x19}, props(propS(pAuthMethod, "SCRAM-SHA-256"))))
	c.ejected(0x82)
}

func TestAuth_HeaderFlagsAreChecked(t *testing.T) { // [MQTT-3.15.1-1]
	t.Parallel()
	s := startBroker(t, "")
	for _, f := range []byte{1, 2, 4, 8} {
		c := join(t, s, v5)
		c.send(frame(tAUTH, f, []byte{0x19}, props(propS(pAuthMethod, "SCRAM-SHA-256"))))
		c.ejected(0x81)
	}
}

func TestAuth_IsNoPacketOf311(t *testing.T) { // [MQTT3-4.8.0-1]
	t.Parallel()
	c := join(t, startBroker(t, ""), v311)
	c.send(frame(tAUTH, 0))
	c.ended()
}
