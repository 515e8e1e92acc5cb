package conformance

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func ptr(s string) *string { return &s }

func TestConnect_MustBeTheFirstPacket(t *testing.T) { // [MQTT-3.1.0-1] [MQTT3-3.1.0-1]
	t.Parallel()
	s := startBroker(t, "")
	for name, b := range map[string][]byte{
		"PINGREQ":    pingreq,
		"PUBLISH":    (&publish{topic: "a"}).bytes(v311),
		"SUBSCRIBE":  subscribe(v311, 1, nil, sub{"a", 0}),
		"DISCONNECT": disconnect,
		"AUTH":       frame(tAUTH, 0, []byte{0x18}, props(propS(pAuthMethod, "X"))),
		"CONNACK":    frame(tCONNACK, 0, []byte{0, 0}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, s, v311)
			c.send(b)
			c.ended()
		})
	}
}

func TestConnect_SecondIsAProtocolError(t *testing.T) { // [MQTT-3.1.0-2] [MQTT3-3.1.0-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.send(request(v, named(c.id)).bytes())
		c.ejected(0x82)
	})
}

func TestConnack_IsSentOnceOnly(t *testing.T) { // [MQTT-3.2.0-2]
	t.Parallel()
	c := join(t, startBroker(t, ""), v5)
	c.send(request(v5, named(c.id)).bytes())
	for p := c.arrive(); p != nil; p = c.arrive() {
		if p.typ == tCONNACK {
			t.Fatalf("a second CONNACK: %v", p)
		}
	}
}

// answer sends b on a new connection and returns all that comes until the
// server ends it.
func answer(t *testing.T, s *server, b []byte) []byte {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.tcp, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	var e net.Error
	if errors.As(err, &e) && e.Timeout() {
		t.Fatalf("the connection stays open after %x", got)
	}
	return got
}

// unsupported fails unless b is nothing, or a CONNACK that says the protocol
// version is not supported, in the form of 3.1.1 or of 5.0.
func unsupported(t *testing.T, b []byte) {
	t.Helper()
	if len(b) == 0 || bytes.Equal(b, []byte{0x20, 2, 0, 1}) {
		return
	}
	p, err := readPacket(bytes.NewReader(b), v5)
	if err != nil || p.typ != tCONNACK || p.reason != 0x84 || p.size != len(b) {
		t.Fatalf("answer %x", b)
	}
}

func TestConnect_OtherProtocolNameIsRefused(t *testing.T) { // [MQTT-3.1.2-1] [MQTT3-3.1.2-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, name := range []string{"mqtt", "MQTTX", "MQT", "MQIsdp", "HTTP"} {
			r := request(v)
			r.name = name
			unsupported(t, answer(t, s, r.bytes()))
		}
	})
}

func TestConnect_OtherProtocolVersionIsRefused(t *testing.T) { // [MQTT-3.1.2-2]
	t.Parallel()
	s := startBroker(t, "")
	for _, level := range []byte{0, 1, 2, 6, 7, 0x7f, 0x84, 0xff} {
		r := request(level)
		r.name = "MQTT"
		unsupported(t, answer(t, s, r.bytes()))
	}
}

func TestConnect_OtherProtocolLevelIsAnswered(t *testing.T) { // [MQTT3-3.1.2-2]
	t.Parallel()
	s := startBroker(t, "")
	for _, level := range []byte{2, 6} {
		r := request(level)
		r.name = "MQTT"
		if got := answer(t, s, r.bytes()); !bytes.HasPrefix(got, []byte{0x20, 2, 0, 1}) && !bytes.Contains(got, []byte{0x84}) {
			t.Errorf("level %d: answer %x", level, got)
		}
	}
}

func TestConnect_ReservedFlagIsRefused(t *testing.T) { // [MQTT-3.1.2-3] [MQTT3-3.1.2-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := dial(t, s, v)
		r := request(v)
		r.flags = 1
		c.send(r.bytes())
		malformedConnect(c)
	})
}

// malformedConnect expects what a CONNECT of bad format gets: 0x81 or 0x82 and
// the end in 5.0, the end alone before.
func malformedConnect(c *client) {
	c.t.Helper()
	if c.v == v5 {
		c.refused(0x81, 0x82)
	} else {
		c.ended()
	}
}

func TestConnect_CleanStartDiscardsTheSession(t *testing.T) { // [MQTT-3.1.2-4] [MQTT3-3.1.2-6]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		id := unique()
		pub := join(t, s, v)
		c := join(t, s, v, keep(id))
		c.listen(1, "old/"+id)
		c.leave()
		pub.post(publish{topic: "old/" + id, payload: "queued", qos: 1})

		c = join(t, s, v, keep(id), clean)
		c.quiet(soon)
		pub.post(publish{topic: "old/" + id, payload: "live", qos: 1})
		c.nothing(pub)
		c.leave()

		// With Clean Session a 3.1.1 session has ended with its connection.
		if c = join(t, s, v, keep(id)); v == v311 && c.connack.present {
			t.Error("the clean session was resumed")
		}
	})
}

func TestConnect_SessionIsResumed(t *testing.T) { // [MQTT-3.1.2-5] [MQTT3-3.1.2-4]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		id := unique()
		c := join(t, s, v, keep(id))
		c.listen(1, id+"/+")
		c.leave()
		c = join(t, s, v, keep(id))
		if !c.connack.present {
			t.Error("no session present")
		}
		join(t, s, v).post(publish{topic: id + "/a", payload: "x", qos: 1})
		c.take(id+"/a", "x")
	})
}

func TestConnect_SessionIsMade(t *testing.T) { // [MQTT-3.1.2-6]
	t.Parallel()
	c := join(t, startBroker(t, ""), v5, keep(unique()))
	if c.connack.present {
		t.Error("a session was there before")
	}
	c.listen(0, c.id)
	c.post(publish{topic: c.id, payload: "x"})
	c.take(c.id, "x")
}

func TestConnect_MessagesAreQueuedWhileAway(t *testing.T) { // [MQTT3-3.1.2-5]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	c := join(t, s, v311, keep(id))
	c.listen(2, id)
	c.leave()
	pub := join(t, s, v311)
	pub.post(publish{topic: id, payload: "1", qos: 1})
	pub.post(publish{topic: id, payload: "2", qos: 2})
	c = join(t, s, v311, keep(id))
	for _, want := range []string{"1", "2"} {
		if p := c.take(id, want); p.pub.dup {
			t.Errorf("DUP in the first delivery of %s", want)
		}
	}
}

func TestConnect_WillFieldsMustBeThere(t *testing.T) { // [MQTT-3.1.2-9] [MQTT3-3.1.2-9]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := dial(t, s, v)
		r := request(v)
		r.flags = 0x04
		c.send(r.bytes())
		malformedConnect(c)
	})
}

func TestConnect_WillQoSAndRetainAreUsed(t *testing.T) { // [MQTT-3.1.2-9] [MQTT3-3.1.2-9]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for qos := byte(0); qos < 3; qos++ {
			topic := unique()
			watch := join(t, s, v)
			watch.listen(2, topic)
			join(t, s, v, leaving(will{topic: topic, payload: "gone", qos: qos, retain: true})).drop()
			if p := watch.take(topic, "gone"); p.pub.qos != qos {
				t.Errorf("will at QoS %d instead of %d", p.pub.qos, qos)
			}
			late := join(t, s, v)
			late.listen(2, topic)
			late.take(topic, "gone")
		}
	})
}

func TestConnect_WillQoSWithoutWillIsRefused(t *testing.T) { // [MQTT-3.1.2-11] [MQTT3-3.1.2-13] [MQTT3-3.1.2-11]
	t.Parallel()
	badFlags(t, 0x08, 0x10)
}

func TestConnect_WillQoS3IsRefused(t *testing.T) { // [MQTT-3.1.2-12] [MQTT3-3.1.2-14]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := dial(t, s, v)
		c.send(request(v, leaving(will{topic: "a", qos: 3})).bytes())
		malformedConnect(c)
	})
}

func TestConnect_WillRetainWithoutWillIsRefused(t *testing.T) { // [MQTT-3.1.2-13] [MQTT3-3.1.2-15] [MQTT3-3.1.2-11]
	t.Parallel()
	badFlags(t, 0x20)
}

// badFlags tries connect flags that do not go with the payload.
func badFlags(t *testing.T, flags ...byte) {
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, f := range flags {
			c := dial(t, s, v)
			r := request(v)
			r.flags = f
			c.send(r.bytes())
			malformedConnect(c)
		}
	})
}

// badPayload tries a CONNECT with bytes put after its payload.
func badPayload(t *testing.T, flags byte, extra []byte) {
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := dial(t, s, v)
		r := request(v)
		r.flags = flags
		b := r.bytes()
		c.send(frame(tCONNECT, 0, b[2:], extra)) // two bytes of header, as b is short
		malformedConnect(c)
	})
}

func TestConnect_UserNameWithoutFlagIsRefused(t *testing.T) { // [MQTT-3.1.2-16] [MQTT3-3.1.2-18]
	t.Parallel()
	badPayload(t, 0, str("user"))
}

func TestConnect_MissingUserNameIsRefused(t *testing.T) { // [MQTT-3.1.2-17] [MQTT3-3.1.2-19]
	t.Parallel()
	badFlags(t, 0x80)
}

func TestConnect_PasswordWithoutFlagIsRefused(t *testing.T) { // [MQTT-3.1.2-18] [MQTT3-3.1.2-20]
	t.Parallel()
	badPayload(t, 0x80, cat(str("user"), str("password")))
}

func TestConnect_MissingPasswordIsRefused(t *testing.T) { // [MQTT-3.1.2-19] [MQTT3-3.1.2-21]
	t.Parallel()
	badPayload(t, 0xc0, str("user"))
}

func TestConnect_PasswordWithoutUserNameIsRefused(t *testing.T) { // [MQTT3-3.1.2-22]
	t.Parallel()
	c := dial(t, startBroker(t, ""), v311)
	r := request(v311)
	r.pass = ptr("secret")
	c.send(r.bytes())
	c.ended()
}

func TestConnect_PayloadFieldsComeInOrder(t *testing.T) { // [MQTT-3.1.3-1] [MQTT3-3.1.3-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		topic := unique()
		watch := join(t, s, v)
		watch.listen(0, topic)
		c := join(t, s, v, leaving(will{topic: topic, payload: "message"}), func(c *connect) {
			c.user, c.pass = ptr("user"), ptr("password")
		})
		c.drop()
		watch.message(topic, "message")
	})
}

func TestConnect_ClientIDNamesTheSession(t *testing.T) { // [MQTT-3.1.3-2] [MQTT3-3.1.3-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		id := unique()
		join(t, s, v, keep(id)).leave()
		join(t, s, v, keep(id+"x")).leave()
		for name, want := range map[string]bool{id: true, id + "x": true, id + "y": false, strings.ToUpper(id): false} {
			if c := join(t, s, v, keep(name)); c.connack.present != want {
				t.Errorf("client %s: session present is %v", name, c.connack.present)
			}
		}
	})
}

func TestConnect_MissingClientIDIsRefused(t *testing.T) { // [MQTT-3.1.3-3] [MQTT3-3.1.3-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := dial(t, s, v)
		r := request(v)
		r.id = ""
		b := r.bytes()
		c.send(frame(tCONNECT, 0, b[2:len(b)-2]))
		malformedConnect(c)
	})
}

// badString is what no string of MQTT may hold.
var badString = map[string]string{"surrogate": "a\xed\xa0\x80", "overlong": "a\xc0\xaf", "cut": "a\xe2\x82", "byte": "\xff",
	"beyond": "\xf4\x90\x80\x80"}

func TestConnect_ClientIDOfBadUTF8IsRefused(t *testing.T) { // [MQTT-3.1.3-4] [MQTT3-3.1.3-4]
	t.Parallel()
	badConnectString(t, func(c *connect, s string) { c.id = s })
}

func TestConnect_RefusedClientIDEndsTheConnection(t *testing.T) { // [MQTT-3.1.3-8]
	t.Parallel()
	c := dial(t, startBroker(t, ""), v5)
	c.send(request(v5, named("a\x00b")).bytes())
	c.refused(0x81, 0x85)
}

func TestConnect_WillTopicOfBadUTF8IsRefused(t *testing.T) { // [MQTT-3.1.3-11] [MQTT3-3.1.3-10]
	t.Parallel()
	badConnectString(t, func(c *connect, s string) { c.will = &will{topic: s, payload: "x"} })
}

func TestConnect_UserNameOfBadUTF8IsRefused(t *testing.T) { // [MQTT-3.1.3-12] [MQTT3-3.1.3-11]
	t.Parallel()
	badConnectString(t, func(c *connect, s string) { c.user = ptr(s) })
}

// badConnectString tries a CONNECT with each bad string in a place.
func badConnectString(t *testing.T, put func(*connect, string)) {
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, bad := range badString {
			r := request(v)
			put(r, bad)
			c := dial(t, s, v)
			c.send(r.bytes())
			if v == v5 {
				c.refused(0x81, 0x82, 0x85, 0x86, 0x90)
			} else if p := c.arrive(); p != nil && p.typ != tCONNACK {
				t.Fatalf("%v", p)
			} else if p != nil {
				c.ended()
			}
		}
	})
}

func TestConnect_PlainClientIDsAreAccepted(t *testing.T) { // [MQTT-3.1.3-5] [MQTT3-3.1.3-5]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, id := range []string{"0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ", "7"} {
			if v == v311 {
				id = id[1:] + "9" // not the other version's client
			}
			join(t, s, v, named(id))
		}
	})
}

func TestConnect_EmptyClientIDIsAssigned(t *testing.T) { // [MQTT-3.1.3-6] [MQTT3-3.1.3-6]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		a, b := join(t, s, v, named("")), join(t, s, v, named(""))
		topic := unique()
		a.listen(0, topic)
		b.post(publish{topic: topic, payload: "x"})
		a.message(topic, "x") // neither took the other over
		b.alive()
	})
}

func TestConnect_AssignedClientIDIsReturnedAndUsed(t *testing.T) { // [MQTT-3.1.3-7]
	t.Parallel()
	s := startBroker(t, "")
	c := join(t, s, v5, keep(""))
	id, ok := c.connack.prop(pAssignedClientID)
	if !ok || id.text == "" {
		t.Fatalf("no Assigned Client Identifier: %v", c.connack)
	}
	c.leave()
	if c = join(t, s, v5, keep(id.text)); !c.connack.present {
		t.Error("the session is not found by the identifier assigned")
	}
	if c.connack.has(pAssignedClientID) {
		t.Error("an identifier is assigned to a client that has one")
	}
}

func TestConnack_AssignedClientIDIsNew(t *testing.T) { // [MQTT-3.2.2-16]
	t.Parallel()
	s := startBroker(t, "")
	seen := map[string]bool{}
	for range 20 {
		c := join(t, s, v5, named(""))
		id, _ := c.connack.prop(pAssignedClientID)
		if id.text == "" || seen[id.text] {
			t.Fatalf("identifier %q", id.text)
		}
		seen[id.text] = true
		c.leave()
	}
}

func TestConnect_EmptyClientIDWithoutCleanSessionIsRefused(t *testing.T) { // [MQTT3-3.1.3-8] [MQTT3-3.1.3-7]
	t.Parallel()
	c := dial(t, startBroker(t, ""), v311)
	c.send(request(v311, keep("")).bytes())
	if c.refused(2) == nil {
		t.Error("no CONNACK")
	}
}

func TestConnect_RefusedClientIDIsAnswered2(t *testing.T) { // [MQTT3-3.1.3-9]
	t.Parallel()
	c := dial(t, startBroker(t, ""), v311)
	c.send(request(v311, keep("")).bytes())
	if p := c.expect(tCONNACK); p.reason != 2 {
		t.Errorf("return code %d", p.reason)
	}
	c.ended()
}

func TestConnect_OfBadFormatIsRefused(t *testing.T) { // [MQTT-3.1.4-1] [MQTT3-3.1.4-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		whole := request(v).bytes()
		for name, b := range map[string][]byte{
			"empty":          frame(tCONNECT, 0),
			"header flags":   append([]byte{whole[0] | 2}, whole[1:]...),
			"name only":      frame(tCONNECT, 0, str("MQTT")),
			"no keep alive":  frame(tCONNECT, 0, str("MQTT"), []byte{v, 2}),
			"cut client id":  frame(tCONNECT, 0, whole[2:len(whole)-1]),
			"bytes too many": frame(tCONNECT, 0, whole[2:], []byte{0}),
			"long length":    {whole[0], 0xff, 0xff, 0xff, 0xff, 0x01},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if name == "empty" || name == "name only" || name == "long length" {
					// The server cannot know in which form to answer.
					if got := answer(t, s, b); len(got) > 0 {
						t.Errorf("answer %x", got)
					}
					return
				}
				c := dial(t, s, v)
				c.send(b)
				malformedConnect(c)
			})
		}
	})
}

func TestConnect_BadPropertiesAreRefused(t *testing.T) { // [MQTT-3.1.4-1]
	t.Parallel()
	s := startBroker(t, "")
	for name, b := range map[string][]byte{
		"unknown":               {0x7e, 1},
		"of another packet":     prop2(pTopicAlias, 1),
		"cut":                   {pSessionExpiry, 0, 0},
		"session expiry twice":  cat(prop4(pSessionExpiry, 1), prop4(pSessionExpiry, 1)),
		"receive maximum 0":     prop2(pReceiveMaximum, 0),
		"receive maximum twice": cat(prop2(pReceiveMaximum, 1), prop2(pReceiveMaximum, 1)),
		"packet size 0":         prop4(pMaximumPacketSize, 0),
		"packet size twice":     cat(prop4(pMaximumPacketSize, 500), prop4(pMaximumPacketSize, 500)),
		"alias maximum twice":   cat(prop2(pTopicAliasMaximum, 1), prop2(pTopicAliasMaximum, 1)),
		"request response 2":    prop1(pRequestResponse, 2),
		"request problem 2":     prop1(pRequestProblem, 2),
		"request problem twice": cat(prop1(pRequestProblem, 1), prop1(pRequestProblem, 1)),
		"auth data alone":       propS(pAuthData, "x"),
		"user property cut":     {pUserProperty, 0, 1, 'a', 0, 5},
		"will delay":            prop4(pWillDelay, 1),
		"payload format":        prop1(pPayloadFormat, 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, s, v5)
			c.send(request(v5, with(b)).bytes())
			c.refused(0x81, 0x82)
		})
	}
}

func TestConnect_BadWillPropertiesAreRefused(t *testing.T) { // [MQTT-3.1.4-1]
	t.Parallel()
	s := startBroker(t, "")
	for name, b := range map[string][]byte{
		"unknown":          {0x7e, 1},
		"session expiry":   prop4(pSessionExpiry, 1),
		"topic alias":      prop2(pTopicAlias, 1),
		"delay twice":      cat(prop4(pWillDelay, 1), prop4(pWillDelay, 1)),
		"format 2":         prop1(pPayloadFormat, 2),
		"bad content type": propS(pContentType, "\xff"),
		"expiry twice":     cat(prop4(pMessageExpiry, 1), prop4(pMessageExpiry, 1)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, s, v5)
			c.send(request(v5, leaving(will{topic: "a", payload: "x", props: b})).bytes())
			c.refused(0x81, 0x82)
		})
	}
}

func TestConnect_ThatFailsFurtherChecksIsRefused(t *testing.T) { // [MQTT-3.1.4-2]
	t.Parallel()
	s := startBroker(t, "")
	for _, topic := range []string{"a/#", "+/a", "#"} {
		c := dial(t, s, v5)
		c.send(request(v5, leaving(will{topic: topic, payload: "x"})).bytes())
		c.refused(0x81, 0x82, 0x90)
	}
}

func TestConnect_TakesOverTheClientID(t *testing.T) { // [MQTT-3.1.4-3] [MQTT3-3.1.4-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		old := join(t, s, v)
		fresh := join(t, s, v, named(old.id))
		old.ejected(0x8e)
		fresh.alive()
	})
}

func TestConnect_CleanStartIsActedOn(t *testing.T) { // [MQTT-3.1.4-4] [MQTT3-3.1.4-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		id := unique()
		for i, want := range []bool{false, true, false, true} {
			opts := []as{keep(id)}
			if i == 2 {
				opts = append(opts, clean)
			}
			if v == v311 && i == 3 {
				want = false // the clean session ended with its connection
			}
			c := join(t, s, v, opts...)
			if c.connack.present != want {
				t.Errorf("connection %d: session present is %v", i, c.connack.present)
			}
			c.leave()
		}
	})
}

func TestConnect_IsAcknowledged(t *testing.T) { // [MQTT-3.1.4-5] [MQTT3-3.1.4-4] [MQTT3-3.2.0-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := dial(t, s, v)
		c.send(request(v).bytes())
		if p := c.next(); p.typ != tCONNACK || p.reason != 0 {
			t.Errorf("%v", p)
		}
	})
}

func TestConnect_RefusedHasNoEffectOfWhatFollows(t *testing.T) { // [MQTT-3.1.4-6] [MQTT3-3.1.4-5]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		topic := unique()
		watch := join(t, s, v)
		watch.listen(1, topic)
		r := request(v, leaving(will{topic: topic + "/#", payload: "will"}))
		if v == v311 {
			r = request(v, keep("")) // refused with return code 2
		}
		c := dial(t, s, v)
		c.send(r.bytes(), (&publish{topic: topic, payload: "must not arrive"}).bytes(v),
			(&publish{topic: topic, payload: "must not arrive", qos: 1, id: 1}).bytes(v))
		if v == v5 {
			c.refused(0x81, 0x82, 0x90)
		} else {
			c.refused(2)
		}
		watch.nothing(join(t, s, v))
		watch.quiet(soon)
	})
}

func TestConnect_MayBeFollowedAtOnce(t *testing.T) { // [MQTT-3.2.0-1]
	t.Parallel()
	s := startBroker(t, "")
	topic := unique()
	c := dial(t, s, v5)
	c.send(request(v5).bytes(), subscribe(v5, 1, nil, sub{topic, 1}),
		(&publish{topic: topic, payload: "x", qos: 1, id: 2}).bytes(v5), pingreq)
	c.expect(tCONNACK) // and nothing before it, which open checks
	c.await(tSUBACK)
	c.await(tPUBACK)
	c.await(tPUBLISH)
	c.await(tPINGRESP)
}

func TestConnack_ComesBeforeQueuedMessages(t *testing.T) { // [MQTT-3.2.0-1] [MQTT3-3.2.0-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		id := unique()
		c := join(t, s, v, keep(id))
		c.listen(1, id)
		c.leave()
		pub := join(t, s, v)
		for range 20 {
			pub.post(publish{topic: id, payload: "x", qos: 1})
		}
		c = dial(t, s, v)
		c.send(request(v, keep(id)).bytes())
		if p := c.next(); p.typ != tCONNACK || p.reason != 0 {
			t.Fatalf("%v first", p)
		}
		for range 20 {
			c.take(id, "x")
		}
	})
}
