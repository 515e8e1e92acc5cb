package wire

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestString_IllFormedUTF8IsMalformed(t *testing.T) { // [MQTT-1.5.4-1]
	bad := map[string]string{
		"surrogate D800": "\xED\xA0\x80", "surrogate DFFF": "\xED\xBF\xBF", "surrogate after ASCII": "abcdefgh\xED\xA0\x80",
		"overlong slash": "\xC0\xAF", "overlong NUL": "\xC0\x80", "overlong three": "\xE0\x80\xAF",
		"lone continuation": "\x80", "cut off": "a\xE2\x82", "above U+10FFFF": "\xF4\x90\x80\x80", "FF": "abcdefghi\xFF",
	}
	for name, s := range bad {
		for place, p := range everyString(s) {
			t.Run(name+" in "+place, func(t *testing.T) {
				refused(t, p.v, p.s, p.b, MalformedPacket, "MQTT-1.5.4-1")
			})
		}
	}
}

func TestString_U0000IsMalformed(t *testing.T) { // [MQTT-1.5.4-2]
	for _, s := range []string{"\x00", "a\x00b", "abcdefg\x00", "abcdefghij\x00", "12345678\x0012345678", "ü\x00"} {
		for place, p := range everyString(s) {
			t.Run(fmt.Sprintf("%q in %s", s, place), func(t *testing.T) {
				refused(t, p.v, p.s, p.b, MalformedPacket, "MQTT-1.5.4-2")
			})
		}
	}
}

func TestString_AnyOtherCharacterIsAccepted(t *testing.T) {
	for _, s := range []string{"a", "\x01", "\x7f", "\u0080", "\uFFFF", "\uFFFE", "\U0010FFFF", "世界", "12345678", "1234567世", strings.Repeat("é", 300)} {
		for _, p := range everyString(s) {
			accepted(t, p.v, p.s, p.b)
		}
	}
}

func TestString_ByteOrderMarkStays(t *testing.T) { // [MQTT-1.5.4-3]
	const s = "\xEF\xBB\xBFa\xEF\xBB\xBF"
	if c := accepted(t, V5, fromClient, connect(V5, 2, props(), str(s))).(*Connect); c.ClientID != s {
		t.Errorf("client identifier %q", c.ClientID)
	}
	if p := accepted(t, V311, fromClient, pkt(0x30, str(s))).(*Publish); string(p.Topic) != s {
		t.Errorf("topic %q", p.Topic)
	}
}

func TestVarint_NotMinimalIsMalformed(t *testing.T) { // [MQTT-1.5.5-1]
	for _, b := range [][]byte{{0xC0, 0x80, 0}, {0x30, 0x83, 0, 0, 1, 'a'}, {0x30, 0xFF, 0xFF, 0x80, 0}} {
		if _, err := ReadHeader(b); err == nil || err.(*Error).Clause != "MQTT-1.5.5-1" {
			t.Errorf("% x: %v", b, err)
		}
	}
	refused(t, V5, fromClient, pkt(0x30, str("a"), raw(0x80, 0)), MalformedPacket, "MQTT-1.5.5-1")
	refused(t, V5, fromClient, pkt(0x82, u16(1), props(prop(propSubscriptionID, 0x81, 0)), str("a"), raw(0)), MalformedPacket, "MQTT-1.5.5-1")
}

func TestVarint_IsWrittenInTheFewestBytes(t *testing.T) { // [MQTT-1.5.5-1]
	for _, n := range []int{0, 1, 127, 128, 16383, 16384, 2097151, 2097152, MaxRemaining} {
		var b [5]byte
		size := putVarint(b[:], n)
		if size != varintSize(n) || size > 1 && b[size-1] == 0 {
			t.Errorf("%d in %d bytes: % x", n, size, b)
		}
		if got, gotSize, err := readVarint(b[:size]); int(got) != n || gotSize != size || err != nil {
			t.Errorf("%d: read %d of %d bytes, %v", n, got, gotSize, err)
		}
		for cut := range size {
			if _, gotSize, err := readVarint(b[:cut]); gotSize != 0 || err != nil {
				t.Errorf("%d cut to %d bytes: size %d, %v", n, cut, gotSize, err)
			}
		}
	}
}

func TestStringPair_BothAreStrings(t *testing.T) { // [MQTT-1.5.7-1]
	for _, pair := range [][]byte{append(str("\xFF"), str("v")...), append(str("k"), str("\xFF")...)} {
		b := pkt(0x30, str("t"), props(prop(propUser, pair...)))
		refused(t, V5, fromClient, b, MalformedPacket, "MQTT-1.5.4-1")
	}
}

func TestReadHeader_ReservedFlagsAreMalformed(t *testing.T) { // [MQTT-2.1.3-1]
	clauses := map[Type]string{PUBREL: "MQTT-3.6.1-1", SUBSCRIBE: "MQTT-3.8.1-1", UNSUBSCRIBE: "MQTT-3.10.1-1",
		DISCONNECT: "MQTT-3.14.1-1", AUTH: "MQTT-3.15.1-1"}
	for typ := CONNECT; typ <= AUTH; typ++ {
		if typ == PUBLISH {
			continue
		}
		want := byte(0)
		clause := "MQTT-2.1.3-1"
		if c, ok := clauses[typ]; ok {
			clause = c
		}
		switch typ {
		case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
			want = 2
		}
		for flags := byte(0); flags < 16; flags++ {
			// What MQTT 3.1 allows is refused by the decoders: see below.
			allowed := flags == want || want == 2 && flags == 0x0A
			_, err := ReadHeader([]byte{byte(typ)<<4 | flags})
			if allowed != (err == nil) {
				t.Errorf("%v with flags %04b: %v", typ, flags, err)
			}
			if e, ok := err.(*Error); ok && (e.Clause != clause || e.Reason != MalformedPacket) {
				t.Errorf("%v with flags %04b: %v", typ, flags, err)
			}
		}
	}
}

// dupControl is the packets that may have DUP set in MQTT 3.1 only.
func dupControl(v Version) map[string][]byte {
	p := []byte{}
	if v == V5 {
		p = props()
	}
	return map[string][]byte{
		"MQTT-3.6.1-1":  pkt(0x6A, u16(1)),
		"MQTT-3.8.1-1":  pkt(0x8A, u16(1), p, str("a"), raw(0)),
		"MQTT-3.10.1-1": pkt(0xAA, u16(1), p, str("a")),
	}
}

func testDupRefused(t *testing.T, clause string) {
	t.Helper()
	for _, v := range []Version{V311, V5} {
		refused(t, v, fromClient, dupControl(v)[clause], MalformedPacket, clause)
	}
}

func TestPubrel_OtherFlagsAreMalformed(t *testing.T)      { testDupRefused(t, "MQTT-3.6.1-1") }  // [MQTT-3.6.1-1]
func TestSubscribe_OtherFlagsAreMalformed(t *testing.T)   { testDupRefused(t, "MQTT-3.8.1-1") }  // [MQTT-3.8.1-1]
func TestUnsubscribe_OtherFlagsAreMalformed(t *testing.T) { testDupRefused(t, "MQTT-3.10.1-1") } // [MQTT-3.10.1-1]

func TestDupOfControlPackets_IsAllowedIn31(t *testing.T) {
	for _, b := range dupControl(V31) {
		accepted(t, V31, fromClient, b)
	}
}

func TestDisconnect_ReservedFlagsAreMalformed(t *testing.T) { // [MQTT-3.14.1-1]
	refused(t, V5, fromClient, pkt(0xE1), MalformedPacket, "MQTT-3.14.1-1")
}

func TestAuth_ReservedFlagsAreMalformed(t *testing.T) { // [MQTT-3.15.1-1]
	refused(t, V5, fromClient, pkt(0xF8, raw(0x18)), MalformedPacket, "MQTT-3.15.1-1")
}

func TestReadHeader_RefusesAsEarlyAsItCan(t *testing.T) {
	for _, b := range [][]byte{{0x00}, {0x0F}, {'G'}, {0x30, 0x80, 0x80, 0x80, 0x80}, {0x30, 0xFF, 0xFF, 0xFF, 0xFF}, {0xC0, 1}, {0xD0, 2}} {
		if _, err := ReadHeader(b); err == nil || err.(*Error).Reason != MalformedPacket {
			t.Errorf("% x: %v", b, err)
		}
	}
}

func TestReadHeader_WaitsForTheWholeHeader(t *testing.T) {
	for _, remaining := range []int{0, 127, 128, 16384, MaxRemaining} {
		var b [MaxHeaderSize + 1]byte
		b[0] = 0x3D
		size := 1 + putVarint(b[1:], remaining)
		for cut := range size {
			if h, err := ReadHeader(b[:cut]); h.Size != 0 || err != nil {
				t.Errorf("%d bytes of %d: %+v, %v", cut, size, h, err)
			}
		}
		want := Header{Type: PUBLISH, Flags: 0x0D, Size: size, Remaining: remaining}
		for _, in := range [][]byte{b[:size], b[:]} {
			if h, err := ReadHeader(in); h != want || err != nil {
				t.Errorf("%+v, %v, want %+v", h, err, want)
			}
		}
	}
}

func TestProperties_LengthIsAlwaysThere(t *testing.T) { // [MQTT-2.2.2-1]
	noProps := map[string][]byte{
		"CONNECT":     pkt(0x10, str("MQTT"), raw(5, 2, 0, 60)),
		"PUBLISH":     pkt(0x30, str("a")),
		"SUBSCRIBE":   pkt(0x82, u16(1)),
		"UNSUBSCRIBE": pkt(0xA2, u16(1)),
		"AUTH":        pkt(0xF0, raw(0x18)),
	}
	for name, b := range noProps {
		t.Run(name, func(t *testing.T) { refused(t, V5, fromClient, b, MalformedPacket, "") })
	}
	o := Outgoing{Version: V5, Topic: []byte("a")}
	b := make([]byte, o.Size())
	o.Put(b)
	if string(b) != "\x30\x04\x00\x01a\x00" {
		t.Errorf("PUBLISH % x", b)
	}
	if b := (&Connack{}).Append(nil, V5); string(b) != "\x20\x03\x00\x00\x00" {
		t.Errorf("CONNACK % x", b)
	}
}

// wherePropertiesGo is a packet of each kind around a property section.
func wherePropertiesGo(ps []byte) map[Type]struct {
	s side
	b []byte
} {
	type place = struct {
		s side
		b []byte
	}
	return map[Type]place{
		inWill:      {fromClient, connect(V5, 4, props(), str("c"), ps, str("t"), str(""))},
		CONNECT:     {fromClient, connect(V5, 2, ps, str("c"))},
		CONNACK:     {fromServer, pkt(0x20, raw(0, 0), ps)},
		PUBLISH:     {fromServer, pkt(0x30, str("t"), ps)},
		PUBACK:      {fromClient, pkt(0x40, u16(1), raw(0), ps)},
		PUBREC:      {fromClient, pkt(0x50, u16(1), raw(0), ps)},
		PUBREL:      {fromClient, pkt(0x62, u16(1), raw(0), ps)},
		PUBCOMP:     {fromClient, pkt(0x70, u16(1), raw(0), ps)},
		SUBSCRIBE:   {fromClient, pkt(0x82, u16(1), ps, str("f"), raw(0))},
		SUBACK:      {fromServer, pkt(0x90, u16(1), ps, raw(0))},
		UNSUBSCRIBE: {fromClient, pkt(0xA2, u16(1), ps, str("f"))},
		UNSUBACK:    {fromServer, pkt(0xB0, u16(1), ps, raw(0))},
		DISCONNECT:  {fromClient, pkt(0xE0, raw(0), ps)},
		AUTH:        {fromClient, pkt(0xF0, raw(0x18), ps)},
	}
}

// sample is a property with a value that every packet type that allows it takes.
func sample(id byte) []byte {
	switch propertyRules[id].kind {
	case kindBit, kindVarint:
		return prop(id, 1)
	case kindU16:
		return prop(id, 0, 1)
	case kindU32:
		return prop(id, 0, 0, 0, 1)
	case kindPair:
		return prop(id, append(str("k"), str("v")...)...)
	}
	return prop(id, str("x")...)
}

// TestProperties_TableOfTheSpecification has table 2-4 a second time, by hand.
func TestProperties_TableOfTheSpecification(t *testing.T) {
	const all = "connect connack publish will puback pubrec pubrel pubcomp subscribe suback unsubscribe unsuback disconnect auth"
	table := map[byte]string{
		1: "publish will", 2: "publish will", 3: "publish will", 8: "publish will", 9: "publish will",
		11: "publish subscribe", 17: "connect connack disconnect", 18: "connack", 19: "connack",
		21: "connect connack auth", 22: "connect connack auth", 23: "connect", 24: "will", 25: "connect", 26: "connack",
		28: "connack disconnect", 31: "connack puback pubrec pubrel pubcomp suback unsuback disconnect auth",
		33: "connect connack", 34: "connect connack", 35: "publish", 36: "connack", 37: "connack", 38: all,
		39: "connect connack", 40: "connack", 41: "connack", 42: "connack",
	}
	for id := 0; id < 256; id++ {
		var p []byte
		if _, known := table[byte(id)]; known {
			p = sample(byte(id))
		} else {
			p = prop(byte(id), 0, 1, 'x', 0, 0)
		}
		for typ, place := range wherePropertiesGo(props(p)) {
			name := strings.ToLower(typ.String())
			if typ == inWill {
				name = "will"
			}
			allowed := strings.Contains(" "+table[byte(id)]+" ", " "+name+" ")
			s := place.s
			if typ == DISCONNECT && id == propServerReference {
				s = fromServer
			}
			_, err := decodePacket(place.b, V5, s)
			e, _ := err.(*Error)
			wrongPlace := e != nil && e.Reason == MalformedPacket && strings.Contains(e.Detail, "does not belong")
			if allowed == wrongPlace {
				t.Errorf("property %d in %s: %v", id, name, err)
			}
		}
	}
}

func TestProperties_OnlySomeMayRepeat(t *testing.T) {
	for id := range propertyRules {
		if propertyRules[id].kind == kindUnknown {
			continue
		}
		for typ, place := range wherePropertiesGo(props(sample(byte(id)), sample(byte(id)))) {
			if propertyRules[id].in&(1<<typ) == 0 {
				continue
			}
			_, err := decodePacket(place.b, V5, place.s)
			e, _ := err.(*Error)
			twice := e != nil && e.Reason == ProtocolError && strings.Contains(e.Detail, "more than once")
			may := id == propUser || id == propSubscriptionID && typ == PUBLISH
			if may == twice {
				t.Errorf("%s twice in %v: %v", propertyRules[id].name, typ, err)
			}
		}
	}
}

func TestProperties_ValuesOutOfRangeAreProtocolErrors(t *testing.T) {
	bad := map[string][]byte{
		"payload format 2":      pkt(0x30, str("t"), props(prop(propPayloadFormat, 2))),
		"receive maximum 0":     connect(V5, 2, props(prop(propReceiveMaximum, 0, 0)), str("c")),
		"packet size 0":         connect(V5, 2, props(prop(propMaximumPacketSize, 0, 0, 0, 0)), str("c")),
		"request problem 2":     connect(V5, 2, props(prop(propRequestProblem, 2)), str("c")),
		"request response 2":    connect(V5, 2, props(prop(propRequestResponse, 2)), str("c")),
		"subscription id 0":     pkt(0x82, u16(1), props(prop(propSubscriptionID, 0)), str("f"), raw(0)),
		"auth data, no method":  connect(V5, 2, props(prop(propAuthData, str("x")...)), str("c")),
		"auth without a method": pkt(0xF0, raw(0x18), props()),
		"will payload format 2": connect(V5, 4, props(), str("c"), props(prop(propPayloadFormat, 2)), str("t"), str("")),
		"server reference":      pkt(0xE0, raw(0), props(prop(propServerReference, str("x")...))),
	}
	for name, b := range bad {
		t.Run(name, func(t *testing.T) { refused(t, V5, fromClient, b, ProtocolError, "") })
	}
	for name, b := range map[string][]byte{
		"maximum QoS 2":      pkt(0x20, raw(0, 0), props(prop(propMaximumQoS, 2))),
		"retain available 2": pkt(0x20, raw(0, 0), props(prop(propRetainAvailable, 2))),
		"receive maximum 0":  pkt(0x20, raw(0, 0), props(prop(propReceiveMaximum, 0, 0))),
	} {
		t.Run("CONNACK "+name, func(t *testing.T) { refused(t, V5, fromServer, b, ProtocolError, "") })
	}
}

// TestProperties_EndWithTheirLength has bytes beyond the Property Length that
// would complete a property cut short by it.
func TestProperties_EndWithTheirLength(t *testing.T) {
	for id := range propertyRules {
		if propertyRules[id].kind == kindUnknown {
			continue
		}
		whole := sample(byte(id))
		for cut := 1; cut < len(whole); cut++ {
			section := append([]byte{byte(cut)}, whole...)
			for typ, place := range wherePropertiesGo(section) {
				if propertyRules[id].in&(1<<typ) == 0 {
					continue
				}
				if _, err := decodePacket(place.b, V5, place.s); err == nil || err.(*Error).Reason != MalformedPacket {
					t.Errorf("%s cut to %d of %d bytes in %v: %v", propertyRules[id].name, cut, len(whole), typ, err)
				}
			}
		}
	}
	for typ, place := range wherePropertiesGo(raw(0x7F)) {
		if _, err := decodePacket(place.b, V5, place.s); err == nil || err.(*Error).Reason != MalformedPacket {
			t.Errorf("Property Length beyond %v: %v", typ, err)
		}
	}
}

func TestLimits_UserPropertiesAreCounted(t *testing.T) {
	three := props(sample(propUser), sample(propUser), sample(propUser))
	for typ, place := range wherePropertiesGo(three) {
		h, err := ReadHeader(place.b)
		if err != nil {
			t.Fatal(err)
		}
		if typ == AUTH || place.s == fromServer && typ != PUBLISH {
			continue // AUTH: below; the others are read by clients, without limits
		}
		body := place.b[h.Size:]
		if _, err := decodeBody(h, body, V5, place.s, &Limits{UserProperties: 3}); err != nil {
			t.Errorf("%v: %v", typ, err)
		}
		_, err = decodeBody(h, body, V5, place.s, &Limits{UserProperties: 2})
		if e, _ := err.(*Error); e == nil || e.Reason != QuotaExceeded {
			t.Errorf("%v: %v", typ, err)
		}
	}
	auth := pkt(0xF0, raw(0x18), props(prop(propAuthMethod, str("m")...), sample(propUser), sample(propUser)))
	for limit, want := range map[int]bool{1: false, 2: true} {
		if _, err := DecodeAuth(Header{}, auth[2:], &Limits{UserProperties: limit}); (err == nil) != want {
			t.Errorf("AUTH with limit %d: %v", limit, err)
		}
	}
}

func TestReasonCode_NamesAreThoseOfTheSpecification(t *testing.T) {
	for r, want := range map[ReasonCode]string{Success: "Success", GrantedQoS2: "Granted QoS 2", UnspecifiedError: "Unspecified error",
		ProtocolError: "Protocol Error", SessionTakenOver: "Session taken over", TopicNameInvalid: "Topic Name invalid",
		PayloadFormatInvalid: "Payload format invalid", WildcardSubscriptionsNotSupported: "Wildcard Subscriptions not supported",
		0x7F: "Reason Code 0x7F", 0xA3: "Reason Code 0xA3"} {
		if got := r.String(); got != want {
			t.Errorf("0x%02X is %q, want %q", byte(r), got, want)
		}
	}
	if len(failureNames) != int(WildcardSubscriptionsNotSupported-UnspecifiedError)+1 {
		t.Errorf("%d names", len(failureNames))
	}
	if V31.String() != "3.1" || V311.String() != "3.1.1" || V5.String() != "5.0" || AUTH.String() != "AUTH" || CONNECT.String() != "CONNECT" {
		t.Error("names of versions and types")
	}
}

// TestCheckText_AgreesWithThePlainRule tries every byte at every place of short
// strings, across the eight-byte steps.
func TestCheckText_AgreesWithThePlainRule(t *testing.T) {
	for n := 1; n <= 20; n++ {
		for at := range n {
			for c := range 256 {
				b := []byte(strings.Repeat("a", n))
				b[at] = byte(c)
				want := utf8.Valid(b) && c != 0
				if got := checkText(b, "x") == nil; got != want {
					t.Fatalf("checkText %q: %v", b, got)
				}
				wild := c == '+' || c == '#'
				if got := checkTopicName(b, nil, "x") == nil; got != (want && !wild) {
					t.Fatalf("checkTopicName %q: %v", b, got)
				}
			}
		}
	}
}
