package conformance

import (
	"strings"
	"testing"
	"time"
)

func TestPublish_DupIsNotPassedOn(t *testing.T) { // [MQTT-3.3.1-3] [MQTT3-3.3.1-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, pub := join(t, s, v), join(t, s, v)
		c.listen(2, c.id)
		for qos := byte(1); qos < 3; qos++ {
			pub.post(publish{topic: c.id, payload: "x", qos: qos, dup: true})
			if p := c.take(c.id, "x"); p.pub.dup {
				t.Errorf("QoS %d: DUP is passed on", qos)
			}
		}
	})
}

func TestPublish_DupAtQoS0IsMalformed(t *testing.T) { // [MQTT-3.3.1-2] [MQTT3-3.3.1-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.send((&publish{topic: "a", dup: true}).bytes(v))
		c.ejected(0x81, 0x82)
	})
}

func TestPublish_AtQoS0HasNoDup(t *testing.T) { // [MQTT-3.3.1-2] [MQTT-4.3.1-1] [MQTT3-3.3.1-2] [MQTT3-4.3.1-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, pub := join(t, s, v), join(t, s, v)
		c.listen(0, c.id)
		for qos := range byte(3) {
			pub.post(publish{topic: c.id, payload: "x", qos: qos, dup: qos > 0})
			if p := c.take(c.id, "x"); p.flags != 0 {
				t.Errorf("published at QoS %d: flags %x", qos, p.flags)
			}
		}
	})
}

func TestPublish_QoS3IsMalformed(t *testing.T) { // [MQTT-3.3.1-4] [MQTT3-3.3.1-4]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, flags := range []byte{6, 7, 14} {
			c := join(t, s, v)
			b := (&publish{topic: "a", qos: 1, id: 1}).bytes(v)
			b[0] = 0x30 | flags
			c.send(b)
			c.ejected(0x81)
		}
	})
}

func TestPublish_TopicOfBadUTF8IsMalformed(t *testing.T) { // [MQTT-3.3.2-1] [MQTT3-3.3.2-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, bad := range badString {
			c := join(t, s, v)
			c.send((&publish{topic: bad}).bytes(v))
			c.ejected(0x81, 0x90)
		}
	})
}

func TestPublish_WithoutTopicIsMalformed(t *testing.T) { // [MQTT-3.3.2-1] [MQTT3-3.3.2-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, body := range [][]byte{{}, {0}, {0, 9, 'a'}} {
			c := join(t, s, v)
			c.send(frame(tPUBLISH, 0, body))
			c.ejected(0x81)
		}
	})
}

func TestPublish_WildcardInTopicIsRefused(t *testing.T) { // [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT3-3.3.2-2] [MQTT3-4.7.1-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, topic := range []string{"#", "+", "a/#", "a/+/b", "a+", "a#b"} {
			for qos := range byte(3) {
				c := join(t, s, v)
				c.send((&publish{topic: topic, qos: qos, id: 1}).bytes(v))
				c.ejected(0x81, 0x82, 0x90)
			}
		}
	})
}

func TestPublish_EmptyTopicIsRefused(t *testing.T) { // [MQTT-4.7.3-1] [MQTT3-4.7.3-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.send((&publish{payload: "x"}).bytes(v))
		c.ejected(0x81, 0x82, 0x90)
	})
}

func TestPublish_TopicComesAsItWasSent(t *testing.T) { // [MQTT-3.3.2-3] [MQTT3-3.3.2-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, pub := join(t, s, v), join(t, s, v)
		c.listen(0, c.id+"/#")
		for _, name := range []string{"", "/", "/a", "/a/", "/a//b", "/ä/日本/🌍", "/ ", "/$x"} {
			pub.post(publish{topic: c.id + name, payload: name})
			c.message(c.id+name, name)
		}
	})
}

func TestPublish_IsAnsweredAsItsQoSAsks(t *testing.T) { // [MQTT-3.3.4-1] [MQTT3-3.3.4-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.send((&publish{topic: c.id, payload: "x"}).bytes(v), pingreq)
		c.expect(tPINGRESP) // and nothing for QoS 0
		c.send((&publish{topic: c.id, payload: "x", qos: 1, id: 5}).bytes(v))
		if p := c.expect(tPUBACK); p.id != 5 {
			t.Errorf("%v", p)
		}
		c.send((&publish{topic: c.id, payload: "x", qos: 2, id: 6}).bytes(v))
		if p := c.expect(tPUBREC); p.id != 6 {
			t.Errorf("%v", p)
		}
	})
}

// carried publishes with properties and returns what a subscriber gets.
func carried(t *testing.T, p ...[]byte) *packet {
	t.Helper()
	s := startBroker(t, "")
	c, pub := join(t, s, v5), join(t, s, v5)
	c.listen(1, c.id)
	pub.post(publish{topic: c.id, payload: "payload", qos: 1, props: cat(p...)})
	return c.take(c.id, "payload")
}

func TestPublish_PayloadFormatIsPassedOn(t *testing.T) { // [MQTT-3.3.2-4]
	t.Parallel()
	for n := range 2 {
		p := carried(t, prop1(pPayloadFormat, n))
		if got := p.all(pPayloadFormat); len(got) != 1 || got[0].num != n {
			t.Errorf("indicator %d: %v", n, p)
		}
	}
	if p := carried(t); len(p.props) != 0 {
		t.Errorf("properties that nobody set: %v", p)
	}
}

func TestPublish_ResponseTopicIsPassedOn(t *testing.T) { // [MQTT-3.3.2-15]
	t.Parallel()
	p := carried(t, propS(pResponseTopic, "répondre/à/x"))
	if got := p.all(pResponseTopic); len(got) != 1 || got[0].text != "répondre/à/x" {
		t.Errorf("%v", p)
	}
}

func TestPublish_CorrelationDataIsPassedOn(t *testing.T) { // [MQTT-3.3.2-16]
	t.Parallel()
	for _, data := range []string{"", "\x00\xff binary", strings.Repeat("x", 1000)} {
		p := carried(t, propS(pCorrelationData, data))
		if got := p.all(pCorrelationData); len(got) != 1 || got[0].text != data {
			t.Errorf("%v", p)
		}
	}
}

func TestPublish_UserPropertiesArePassedOn(t *testing.T) { // [MQTT-3.3.2-17]
	t.Parallel()
	p := carried(t, userProp("", ""), userProp("ключ", "значение"), userProp("a", strings.Repeat("b", 500)))
	got := p.all(pUserProperty)
	if len(got) != 3 || got[0].text != "" || got[1].text != "ключ" || got[1].val != "значение" || len(got[2].val) != 500 {
		t.Errorf("%v", p)
	}
}

func TestPublish_UserPropertiesKeepTheirOrder(t *testing.T) { // [MQTT-3.3.2-18]
	t.Parallel()
	p := carried(t, userProp("z", "1"), propS(pContentType, "t"), userProp("a", "2"), userProp("z", "3"),
		prop1(pPayloadFormat, 1), userProp("a", "1"))
	order := ""
	for _, u := range p.all(pUserProperty) {
		order += u.text + u.val
	}
	if order != "z1a2z3a1" {
		t.Errorf("order %s", order)
	}
}

func TestPublish_ContentTypeIsPassedOn(t *testing.T) { // [MQTT-3.3.2-20]
	t.Parallel()
	p := carried(t, propS(pContentType, "text/plain; charset=utf-8"))
	if got := p.all(pContentType); len(got) != 1 || got[0].text != "text/plain; charset=utf-8" {
		t.Errorf("%v", p)
	}
}

func TestPublish_PropertiesSurviveRetainAndQueue(t *testing.T) { // [MQTT-3.3.2-17] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-20]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	away := join(t, s, v5, keep(id))
	away.listen(1, id)
	away.leave()
	all := cat(userProp("b", "1"), propS(pContentType, "c"), propS(pResponseTopic, "r"), propS(pCorrelationData, "\x00d"),
		userProp("a", "2"), prop1(pPayloadFormat, 1))
	join(t, s, v5).post(publish{topic: id, payload: "x", qos: 1, retain: true, props: all})
	away = join(t, s, v5, keep(id))
	late := join(t, s, v5)
	late.subscribe(sub{id, 1})
	for name, c := range map[string]*client{"queued": away, "retained": late} {
		p := c.take(id, "x")
		want := map[byte]string{pContentType: "c", pResponseTopic: "r", pCorrelationData: "\x00d", pUserProperty: "b", pPayloadFormat: ""}
		for k, v := range want {
			if got, ok := p.prop(k); !ok || got.text != v {
				t.Errorf("%s: property %02x in %v", name, k, p)
			}
		}
		if u := p.all(pUserProperty); len(u) != 2 || u[1].text != "a" || len(p.props) != 6 {
			t.Errorf("%s: %v", name, p)
		}
	}
}

func TestPublish_PropertiesStayOutOf311(t *testing.T) {
	t.Parallel()
	s := startBroker(t, "")
	c, pub := join(t, s, v311), join(t, s, v5)
	c.listen(2, c.id)
	for qos := range byte(3) {
		pub.post(publish{topic: c.id, payload: "x", qos: qos, props: cat(userProp("a", "b"), prop4(pMessageExpiry, 100))})
		c.take(c.id, "x")
	}
}

func TestPublish_ResponseTopicOfBadUTF8IsMalformed(t *testing.T) { // [MQTT-3.3.2-13]
	t.Parallel()
	badProperty(t, []byte{0x81}, propS(pResponseTopic, "\xff"), propS(pResponseTopic, "a\x00"))
}

func TestPublish_ResponseTopicWithWildcardIsRefused(t *testing.T) { // [MQTT-3.3.2-14]
	t.Parallel()
	badProperty(t, []byte{0x81, 0x82, 0x90}, propS(pResponseTopic, "a/#"), propS(pResponseTopic, "+"))
}

func TestPublish_ContentTypeOfBadUTF8IsMalformed(t *testing.T) { // [MQTT-3.3.2-19]
	t.Parallel()
	badProperty(t, []byte{0x81}, propS(pContentType, "\xed\xa0\x80"))
}

func TestPublish_SubscriptionIDFromAClientIsRefused(t *testing.T) { // [MQTT-3.3.4-6]
	t.Parallel()
	badProperty(t, []byte{0x81, 0x82}, propV(pSubscriptionID, 1))
}

// badProperty publishes with each of some properties, and expects one of the
// reason codes.
func badProperty(t *testing.T, codes []byte, p ...[]byte) {
	t.Helper()
	s := startBroker(t, "")
	for _, b := range p {
		for qos := range byte(3) {
			c := join(t, s, v5)
			c.send((&publish{topic: "a", qos: qos, id: 1, props: b}).bytes(v5))
			c.ejected(codes...)
		}
	}
}

func TestPublish_PayloadIsHeldAgainstItsFormat(t *testing.T) {
	t.Parallel()
	s := startBroker(t, "")
	for qos := range byte(3) {
		topic := unique()
		watch := join(t, s, v5)
		watch.listen(0, topic)
		c := join(t, s, v5)
		c.send((&publish{topic: topic, payload: "\xff", qos: qos, id: 1, props: prop1(pPayloadFormat, 1)}).bytes(v5))
		if p := c.arrive(); p == nil || p.reason != 0x99 {
			t.Errorf("QoS %d: %v", qos, p)
		}
		watch.nothing(join(t, s, v5))
	}
}

func TestExpiry_LateMessageIsDropped(t *testing.T) { // [MQTT-3.3.2-5]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	c := join(t, s, v5, keep(id))
	c.listen(2, id)
	c.leave()
	pub := join(t, s, v5)
	for qos := byte(1); qos < 3; qos++ {
		pub.post(publish{topic: id, payload: "short", qos: qos, props: prop4(pMessageExpiry, 1)})
	}
	pub.post(publish{topic: id, payload: "kept", qos: 1})
	time.Sleep(2200 * time.Millisecond)
	c = join(t, s, v5, keep(id))
	c.take(id, "kept")
	c.nothing(pub)
}

func TestExpiry_RetainedMessageIsDropped(t *testing.T) { // [MQTT-3.3.2-5]
	t.Parallel()
	s := startBroker(t, "")
	c := join(t, s, v5)
	c.post(publish{topic: c.id, payload: "short", retain: true, props: prop4(pMessageExpiry, 1)})
	time.Sleep(2200 * time.Millisecond)
	c.subscribe(sub{c.id, 0})
	c.nothing(c)
}

func TestExpiry_SentIsWhatIsLeft(t *testing.T) { // [MQTT-3.3.2-6]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	c := join(t, s, v5, keep(id))
	c.listen(1, id)
	c.leave()
	pub := join(t, s, v5)
	pub.post(publish{topic: id, payload: "x", qos: 1, retain: true, props: prop4(pMessageExpiry, 100)})
	live := join(t, s, v5)
	live.subscribe(sub{id, 0})
	if e, _ := live.message(id, "x").prop(pMessageExpiry); e.num < 50 || e.num > 100 {
		t.Errorf("at once: %d", e.num)
	}
	time.Sleep(2100 * time.Millisecond)
	c = join(t, s, v5, keep(id))
	late := join(t, s, v5)
	late.subscribe(sub{id, 1})
	for name, c := range map[string]*client{"queued": c, "retained": late} {
		if e, _ := c.take(id, "x").prop(pMessageExpiry); e.num < 50 || e.num > 98 {
			t.Errorf("%s: %d after 2 s", name, e.num)
		}
	}
}

func TestAlias_EndsWithTheConnection(t *testing.T) { // [MQTT-3.3.2-7]
	t.Parallel()
	s := startBroker(t, "window")
	id := unique()
	c := join(t, s, v5, keep(id))
	c.post(publish{topic: id, payload: "x", props: prop2(pTopicAlias, 1)})
	c.post(publish{payload: "x", props: prop2(pTopicAlias, 1)})
	c.leave()
	c = join(t, s, v5, keep(id))
	c.send((&publish{payload: "x", props: prop2(pTopicAlias, 1)}).bytes(v5))
	c.ejected(0x82)
}

func TestAlias_ZeroIsRefused(t *testing.T) { // [MQTT-3.3.2-8]
	t.Parallel()
	c := join(t, startBroker(t, "window"), v5)
	c.send((&publish{topic: "a", props: prop2(pTopicAlias, 0)}).bytes(v5))
	c.ejected(0x94)
}

func TestAlias_UnknownIsRefused(t *testing.T) { // [MQTT-4.13.1-1]
	t.Parallel()
	c := join(t, startBroker(t, "window"), v5)
	c.send((&publish{payload: "x", props: prop2(pTopicAlias, 2)}).bytes(v5))
	c.ejected(0x82, 0x94)
}

func TestAlias_EveryAnnouncedValueWorks(t *testing.T) { // [MQTT-3.3.2-12]
	t.Parallel()
	s := startBroker(t, "window")
	c, pub := join(t, s, v5), join(t, s, v5)
	c.listen(1, c.id+"/#")
	name := func(i int) string { return c.id + "/" + strings.Repeat("x", i) }
	for i := 1; i <= 3; i++ {
		pub.post(publish{topic: name(i), payload: "set", qos: 1, props: prop2(pTopicAlias, i)})
		c.take(name(i), "set")
	}
	for _, i := range []int{3, 1, 2, 1} {
		pub.post(publish{payload: "used", qos: 1, props: prop2(pTopicAlias, i)})
		if p := c.take(name(i), "used"); p.has(pTopicAlias) {
			t.Errorf("the alias is passed on: %v", p)
		}
	}
	// A topic with an alias in use gives it another meaning.
	pub.post(publish{topic: name(9), payload: "changed", qos: 1, props: prop2(pTopicAlias, 2)})
	c.take(name(9), "changed")
	pub.post(publish{payload: "changed", qos: 1, props: prop2(pTopicAlias, 2)})
	c.take(name(9), "changed")
}

// aliases publishes to several topics, several times, to a client that allows
// most aliases, checks what arrives and returns the aliases used.
func aliases(t *testing.T, most int, opts ...as) map[int]bool {
	t.Helper()
	s := startBroker(t, "")
	c, pub := join(t, s, v5, opts...), join(t, s, v5)
	c.listen(1, c.id+"/#")
	known := map[int]string{}
	used := map[int]bool{}
	for round := range 4 {
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			want := c.id + "/" + name
			pub.post(publish{topic: want, payload: name, qos: byte(round % 2)})
			p := c.next()
			if p.pub.qos == 1 {
				c.send(ack(tPUBACK, p.id))
			}
			topic := p.pub.topic
			if a, ok := p.prop(pTopicAlias); ok {
				used[a.num] = true
				if a.num > most {
					t.Errorf("alias %d of %d", a.num, most)
				}
				if topic == "" {
					topic = known[a.num]
				}
				known[a.num] = topic
			}
			if topic != want || p.pub.payload != name {
				t.Fatalf("%v instead of %s", p, want)
			}
		}
	}
	return used
}

func TestAlias_OfTheServerStaysBelowTheMaximum(t *testing.T) { // [MQTT-3.1.2-26] [MQTT-3.3.2-11]
	t.Parallel()
	if used := aliases(t, 2, with(prop2(pTopicAliasMaximum, 2))); len(used) == 0 {
		t.Error("no alias is used, so nothing is shown")
	}
}

func TestAlias_NoneUnlessAllowed(t *testing.T) { // [MQTT-3.1.2-27]
	t.Parallel()
	aliases(t, 0)
	aliases(t, 0, with(prop2(pTopicAliasMaximum, 0)))
}

func TestAlias_WithoutAMaximumIsRefused(t *testing.T) { // [MQTT-3.2.2-18]
	t.Parallel()
	c := join(t, startBroker(t, "noalias"), v5)
	if m, ok := c.connack.prop(pTopicAliasMaximum); ok && m.num != 0 {
		t.Fatalf("%v", c.connack)
	}
	c.send((&publish{topic: "a", props: prop2(pTopicAlias, 1)}).bytes(v5))
	c.ejected(0x94, 0x82)
}

func TestPublish_NotAuthorizedIsAnsweredAsUsual(t *testing.T) { // [MQTT3-3.3.5-2]
	t.Parallel()
	s := startBroker(t, "acl")
	watch := join(t, s, v311)
	watch.listen(0, "forbidden/#") // which may be read, but not written to
	for qos := range byte(3) {
		c := join(t, s, v311)
		c.send((&publish{topic: "forbidden/" + c.id, payload: "x", qos: qos, id: 1}).bytes(v311), pingreq)
		p := c.arrive()
		want := []byte{tPINGRESP, tPUBACK, tPUBREC}[qos]
		if p != nil && (p.typ != want || qos > 0 && p.id != 1) {
			t.Errorf("QoS %d: %v", qos, p)
		}
		watch.nothing(join(t, s, v311))
	}
}
