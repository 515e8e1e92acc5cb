package wire

import (
	"bytes"
	"strings"
	"testing"
)

func TestPublish_TopicNameComesFirst(t *testing.T) { // [MQTT-3.3.2-1]
	p := accepted(t, V311, fromClient, pkt(0x30, str("a/b"), []byte("hello"))).(*Publish)
	if string(p.Topic) != "a/b" || string(p.Payload) != "hello" || p.PacketID != 0 || p.ExpiryAt != -1 {
		t.Errorf("%+v", p)
	}
	refused(t, V311, fromClient, pkt(0x30), MalformedPacket, "MQTT-3.3.2-1")
	refused(t, V311, fromClient, pkt(0x30, u16(4), []byte("abc")), MalformedPacket, "MQTT-3.3.2-1")
}

func TestPublish_WildcardInTopicNameIsInvalid(t *testing.T) { // [MQTT-3.3.2-2]
	for _, topic := range []string{"+", "#", "a/+/b", "a/#", "a+", "sensor/12345678#", "#sensor/12345678", "ü/+", "sensor/1+345678/world"} {
		for _, v := range []Version{V31, V311} {
			refused(t, v, fromClient, pkt(0x30, str(topic)), TopicNameInvalid, "MQTT-3.3.2-2")
		}
		refused(t, V5, fromClient, pkt(0x30, str(topic), props()), TopicNameInvalid, "MQTT-3.3.2-2")
	}
}

func TestPublish_QoS3IsMalformed(t *testing.T) { // [MQTT-3.3.1-4]
	for _, first := range []byte{0x36, 0x37, 0x3E} {
		refused(t, V311, fromClient, pkt(first, str("a"), u16(1)), MalformedPacket, "MQTT-3.3.1-4")
		refused(t, V5, fromClient, pkt(first, str("a"), u16(1), props()), MalformedPacket, "MQTT-3.3.1-4")
	}
}

func TestPublish_DupAtQoS0IsAProtocolError(t *testing.T) { // [MQTT-3.3.1-2]
	refused(t, V5, fromClient, pkt(0x38, str("a"), props()), ProtocolError, "MQTT-3.3.1-2")
	if p := accepted(t, V5, fromClient, pkt(0x3A, str("a"), u16(1), props())).(*Publish); !p.Dup {
		t.Error("DUP at QoS 1 is lost")
	}
}

func TestPublish_QoS0HasNoPacketIdentifier(t *testing.T) { // [MQTT-2.2.1-2]
	p := accepted(t, V311, fromClient, pkt(0x30, str("a"), u16(7))).(*Publish)
	if p.PacketID != 0 || !bytes.Equal(p.Payload, u16(7)) {
		t.Errorf("%+v", p)
	}
	o := Outgoing{Version: V311, Topic: []byte("a"), PacketID: 7}
	b := make([]byte, o.Size())
	if _, idAt := o.Put(b); idAt != 0 || !bytes.Equal(b, pkt(0x30, str("a"))) {
		t.Errorf("% x, identifier at %d", b, idAt)
	}
}

func TestPublish_PacketIdentifierIsNotZero(t *testing.T) { // [MQTT-2.2.1-3]
	refused(t, V311, fromClient, pkt(0x32, str("a"), u16(0)), ProtocolError, "MQTT-2.2.1-3")
	refused(t, V5, fromClient, pkt(0x34, str("a"), u16(0), props()), ProtocolError, "MQTT-2.2.1-3")
}

func TestPublish_EmptyTopicNameNeedsAnAlias(t *testing.T) { // [MQTT-4.7.3-1]
	refused(t, V311, fromClient, pkt(0x30, str("")), ProtocolError, "MQTT-4.7.3-1")
	refused(t, V5, fromClient, pkt(0x30, str(""), props()), ProtocolError, "MQTT-4.7.3-1")
	p := accepted(t, V5, fromClient, pkt(0x30, str(""), props(prop(propTopicAlias, 1, 2)))).(*Publish)
	if p.TopicAlias != 0x102 || len(p.Topic) != 0 {
		t.Errorf("%+v", p)
	}
}

func TestPublish_TopicAlias0IsInvalid(t *testing.T) { // [MQTT-3.3.2-8]
	refused(t, V5, fromClient, pkt(0x30, str("a"), props(prop(propTopicAlias, 0, 0))), TopicAliasInvalid, "MQTT-3.3.2-8")
}

func TestPublish_ResponseTopicHasNoWildcard(t *testing.T) { // [MQTT-3.3.2-14]
	for _, topic := range []string{"a/+", "#"} {
		refused(t, V5, fromClient, pkt(0x30, str("a"), props(prop(propResponseTopic, str(topic)...))), ProtocolError, "MQTT-3.3.2-14")
	}
	refused(t, V5, fromClient, pkt(0x30, str("a"), props(prop(propResponseTopic, str("")...))), ProtocolError, "MQTT-4.7.3-1")
}

func TestPublish_SubscriptionIdentifierFromAClientIsAProtocolError(t *testing.T) { // [MQTT-3.3.4-6]
	b := pkt(0x30, str("a"), props(prop(propSubscriptionID, 5)))
	refused(t, V5, fromClient, b, ProtocolError, "MQTT-3.3.4-6")
}

func TestPublish_SubscriptionIdentifiersFromAServerAreReturned(t *testing.T) { // [MQTT-3.3.4-4]
	user := sample(propUser)
	b := pkt(0x30, str("a"), props(prop(propSubscriptionID, 5), user, prop(propSubscriptionID, 0x80, 1), sample(propMessageExpiry)))
	p := accepted(t, V5, fromServer, b).(*fromServerPublish)
	if len(p.IDs) != 2 || p.IDs[0] != 5 || p.IDs[1] != 128 {
		t.Errorf("identifiers %v", p.IDs)
	}
	if want := append(bytes.Clone(user), sample(propMessageExpiry)...); !bytes.Equal(p.Props, want) || p.ExpiryAt != len(user)+1 {
		t.Errorf("Props % x, expiry at %d", p.Props, p.ExpiryAt)
	}
}

func TestPublish_PayloadFormatIsChecked(t *testing.T) {
	utf8Format := props(prop(propPayloadFormat, 1))
	p := accepted(t, V5, fromClient, pkt(0x30, str("a"), utf8Format, []byte("ü\x00"))).(*Publish)
	if !p.HasPayloadFormat || p.PayloadFormat != 1 {
		t.Errorf("%+v", p)
	}
	accepted(t, V5, fromClient, pkt(0x30, str("a"), props(prop(propPayloadFormat, 0)), []byte("\xFF")))
	bad := pkt(0x34, str("a"), u16(9), utf8Format, []byte("\xFF"))
	refused(t, V5, fromClient, bad, PayloadFormatInvalid, "")
	// Complete, so that it may be acknowledged.
	p = &Publish{}
	if err := p.Decode(Header{Type: PUBLISH, Flags: 4}, bad[2:], V5, nil); err == nil || p.PacketID != 9 || string(p.Payload) != "\xFF" {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestPublish_TopicAliasIsTakenOutOfProps puts the alias at each place among
// other properties, whose views must stay right.
func TestPublish_TopicAliasIsTakenOutOfProps(t *testing.T) { // [MQTT-3.3.2-7]
	rest := [][]byte{prop(propPayloadFormat, 0), prop(propMessageExpiry, 0, 0, 1, 0), prop(propResponseTopic, str("reply/to")...),
		prop(propCorrelationData, str("\x00id")...), sample(propUser), sample(propUser), prop(propContentType, str("text/plain")...)}
	for at := 0; at <= len(rest); at++ {
		all := append(append(append([][]byte{}, rest[:at]...), prop(propTopicAlias, 0, 9)), rest[at:]...)
		p := accepted(t, V5, fromClient, pkt(0x33, str("a"), u16(77), props(all...), []byte("payload"))).(*Publish)
		if want := bytes.Join(rest, nil); !bytes.Equal(p.Props, want) {
			t.Fatalf("alias at %d: Props % x\nwant % x", at, p.Props, want)
		}
		if p.TopicAlias != 9 || p.Expiry != 256 || string(p.ResponseTopic) != "reply/to" || string(p.CorrelationData) != "\x00id" ||
			string(p.Payload) != "payload" || p.PacketID != 77 || !p.Retain {
			t.Fatalf("alias at %d: %+v", at, p)
		}
		checkExpiryAt(t, p.Props, p.ExpiryAt, p.Expiry)
	}
}

func TestPublish_PropertiesPassUnchangedAndInOrder(t *testing.T) { // [MQTT-3.3.2-17] [MQTT-3.3.2-18]
	ps := [][]byte{prop(propUser, append(str("b"), str("2")...)...), prop(propContentType, str("")...),
		prop(propUser, append(str("a"), str("1")...)...), prop(propUser, append(str("b"), str("2")...)...)}
	p := accepted(t, V5, fromClient, pkt(0x30, str("a"), props(ps...))).(*Publish)
	o := Outgoing{Version: V5, Topic: p.Topic, Props: p.Props, ExpiryAt: p.ExpiryAt, Payload: p.Payload}
	b := make([]byte, o.Size())
	o.Put(b)
	if want := pkt(0x30, str("a"), props(ps...)); !bytes.Equal(b, want) {
		t.Errorf("% x\nwant % x", b, want)
	}
}

func TestPublish_LimitsOfTopicNames(t *testing.T) {
	h := Header{Type: PUBLISH}
	for _, c := range []struct {
		topic string
		lim   Limits
		ok    bool
	}{
		{"a/b/c", Limits{TopicLevels: 3}, true}, {"a/b/c", Limits{TopicLevels: 2}, false},
		{"////////////", Limits{TopicLevels: 13}, true}, {"////////////", Limits{TopicLevels: 12}, false},
		{"ü/ü", Limits{TopicLevels: 1}, false}, {"abc", Limits{TopicLength: 3}, true}, {"abcd", Limits{TopicLength: 3}, false},
	} {
		var p Publish
		err := p.Decode(h, str(c.topic), V311, &c.lim)
		if e, _ := err.(*Error); (e == nil) != c.ok || e != nil && e.Reason != TopicNameInvalid {
			t.Errorf("%q with %+v: %v", c.topic, c.lim, err)
		}
	}
}

func TestOutgoing_AllLayouts(t *testing.T) {
	expiring := prop(propMessageExpiry, 0, 0, 0, 100)
	withUser := append(bytes.Clone(sample(propUser)), expiring...)
	left := append(bytes.Clone(sample(propUser)), prop(propMessageExpiry, 0, 0, 0, 60)...)
	long := strings.Repeat("x", 20000)
	for name, c := range map[string]struct {
		o    Outgoing
		want []byte
		idAt int
	}{
		"3.1.1":         {Outgoing{Version: V311, Topic: []byte("a"), Payload: []byte("p"), Alias: 3, SubIDs: []uint32{1}, Props: expiring, ExpiryAt: 1}, pkt(0x30, str("a"), []byte("p")), 0},
		"3.1.1 QoS 2":   {Outgoing{Version: V311, QoS: 2, Dup: true, Retain: true, PacketID: 258, Topic: []byte("a"), Payload: []byte("p")}, pkt(0x3D, str("a"), u16(258), []byte("p")), 5},
		"5.0":           {Outgoing{Version: V5, Topic: []byte("a"), ExpiryAt: -1}, pkt(0x30, str("a"), props()), 0},
		"5.0 QoS 1":     {Outgoing{Version: V5, QoS: 1, PacketID: 1, Topic: []byte("a"), ExpiryAt: -1}, pkt(0x32, str("a"), u16(1), props()), 5},
		"alias only":    {Outgoing{Version: V5, Alias: 260}, pkt(0x30, str(""), props(prop(propTopicAlias, 1, 4))), 0},
		"expiry left":   {Outgoing{Version: V5, Topic: []byte("a"), Props: withUser, ExpiryAt: len(withUser) - 4, Expiry: 60}, pkt(0x30, str("a"), props(left)), 0},
		"identifiers":   {Outgoing{Version: V5, Topic: []byte("a"), SubIDs: []uint32{1, 128, 268435455}}, pkt(0x30, str("a"), props(prop(11, 1), prop(11, 0x80, 1), prop(11, 0xFF, 0xFF, 0xFF, 0x7F))), 0},
		"everything":    {Outgoing{Version: V5, QoS: 1, PacketID: 9, Topic: []byte("a"), Alias: 1, SubIDs: []uint32{7}, Props: withUser, ExpiryAt: len(withUser) - 4, Expiry: 60, Payload: []byte("p")}, pkt(0x32, str("a"), u16(9), props(prop(propTopicAlias, 0, 1), prop(11, 7), left), []byte("p")), 5},
		"long payload":  {Outgoing{Version: V311, QoS: 1, PacketID: 9, Topic: []byte("a"), Payload: []byte(long)}, pkt(0x32, str("a"), u16(9), []byte(long)), 7},
		"props of 128+": {Outgoing{Version: V5, Topic: []byte("a"), Props: prop(propContentType, str(long)...)}, pkt(0x30, str("a"), props(prop(propContentType, str(long)...))), 0},
	} {
		t.Run(name, func(t *testing.T) {
			if size := c.o.Size(); size != len(c.want) {
				t.Fatalf("Size %d, want %d", size, len(c.want))
			}
			b := make([]byte, len(c.want))
			n, idAt := c.o.Put(b)
			if n != len(b) || idAt != c.idAt || !bytes.Equal(b, c.want) {
				t.Fatalf("n %d, identifier at %d, want %d\n% x\n% x", n, idAt, c.idAt, b, c.want)
			}
			if idAt > 0 && !bytes.Equal(b[idAt:idAt+2], u16(int(c.o.PacketID))) {
				t.Error("no identifier there")
			}
		})
	}
	if expiring[4] != 100 {
		t.Error("Put wrote into Props, which others share")
	}
}
