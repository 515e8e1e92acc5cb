package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// ackTypes are the packets of PutAck and ReadAck.
var ackTypes = []Type{PUBACK, PUBREC, PUBREL, PUBCOMP}

func firstByte(t Type) byte {
	if t == PUBREL || t == SUBSCRIBE || t == UNSUBSCRIBE {
		return byte(t)<<4 | 2
	}
	return byte(t) << 4
}

// checkReasons tries all 256 reason codes in a packet.
func checkReasons(t *testing.T, s side, clause string, allowed []ReasonCode, packet func(r byte) []byte) {
	t.Helper()
	set := map[ReasonCode]bool{}
	for _, r := range allowed {
		set[r] = true
	}
	for r := range 256 {
		if b := packet(byte(r)); set[ReasonCode(r)] {
			accepted(t, V5, s, b)
		} else {
			refused(t, V5, s, b, ProtocolError, clause)
		}
	}
}

func testAckReasons(t *testing.T, typ Type, clause string, allowed ...ReasonCode) {
	t.Helper()
	checkReasons(t, fromClient, clause, allowed, func(r byte) []byte { return pkt(firstByte(typ), u16(1), raw(r)) })
	checkReasons(t, fromClient, clause, allowed, func(r byte) []byte { return pkt(firstByte(typ), u16(1), raw(r), props()) })
}

func TestPuback_ReasonCodes(t *testing.T) { // [MQTT-3.4.2-1]
	testAckReasons(t, PUBACK, "MQTT-3.4.2-1", 0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)
}

func TestPubrec_ReasonCodes(t *testing.T) { // [MQTT-3.5.2-1]
	testAckReasons(t, PUBREC, "MQTT-3.5.2-1", 0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)
}

func TestPubrel_ReasonCodes(t *testing.T) { // [MQTT-3.6.2-1]
	testAckReasons(t, PUBREL, "MQTT-3.6.2-1", 0, 0x92)
}

func TestPubcomp_ReasonCodes(t *testing.T) { // [MQTT-3.7.2-1]
	testAckReasons(t, PUBCOMP, "MQTT-3.7.2-1", 0, 0x92)
}

func TestAck_RoundTrip(t *testing.T) { // [MQTT-2.2.1-5]
	for _, typ := range ackTypes {
		for _, v := range []Version{V31, V311, V5} {
			for _, reason := range []ReasonCode{Success, PacketIdentifierNotFound, QuotaExceeded} {
				if !map[bool]bool{true: reason != QuotaExceeded, false: reason != PacketIdentifierNotFound}[typ == PUBREL || typ == PUBCOMP] {
					continue
				}
				var b [AckSize]byte
				n := PutAck(b[:], typ, v, 0x1234, reason)
				want := ack{0x1234, reason}
				if v < V5 {
					want.Reason = Success
				}
				if got := accepted(t, v, fromClient, b[:n]).(*ack); *got != want {
					t.Errorf("%v %v %v: %+v", typ, v, reason, got)
				}
				short := pkt(firstByte(typ), u16(0x1234))
				if want.Reason != Success {
					short = pkt(firstByte(typ), u16(0x1234), raw(byte(reason)))
				}
				if !bytes.Equal(b[:n], short) {
					t.Errorf("%v %v %v: % x", typ, v, reason, b[:n])
				}
			}
		}
	}
}

func TestAck_PacketIdentifierIsNotZero(t *testing.T) { // [MQTT-2.2.1-5]
	for _, typ := range ackTypes {
		refused(t, V311, fromClient, pkt(firstByte(typ), u16(0)), ProtocolError, "MQTT-2.2.1-5")
		refused(t, V311, fromClient, pkt(firstByte(typ), raw(1)), MalformedPacket, "")
	}
}

func TestAck_ReasonIsV5Only(t *testing.T) {
	for _, typ := range ackTypes {
		refused(t, V311, fromClient, pkt(firstByte(typ), u16(1), raw(0)), MalformedPacket, "")
		refused(t, V5, fromClient, pkt(firstByte(typ), u16(1), raw(0), props(), raw(0)), MalformedPacket, "")
		accepted(t, V5, fromClient, pkt(firstByte(typ), u16(1), raw(0), props(sample(propReasonString), sample(propUser), sample(propUser))))
	}
}

func TestSubscribe_Fields(t *testing.T) { // [MQTT-3.8.3-1]
	got := accepted(t, V5, fromClient, pkt(0x82, u16(258), props(prop(propSubscriptionID, 0xFF, 0xFF, 0xFF, 0x7F), sample(propUser)),
		str("a/+"), raw(0x2D), str("#"), raw(2))).(*Subscribe)
	want := &Subscribe{PacketID: 258, SubscriptionID: 268435455, UserProperties: []UserProperty{{"k", "v"}}, Filters: []Subscription{
		{Filter: "a/+", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}, {Filter: "#", QoS: 2}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	refused(t, V5, fromClient, pkt(0x82, u16(1), props(), str("\xFF"), raw(0)), MalformedPacket, "MQTT-1.5.4-1")
	refused(t, V5, fromClient, pkt(0x82, u16(1), props(), str("a")), MalformedPacket, "")
}

func TestSubscribe_NeedsAFilter(t *testing.T) { // [MQTT-3.8.3-2]
	refused(t, V311, fromClient, pkt(0x82, u16(1)), ProtocolError, "MQTT-3.8.3-2")
	refused(t, V5, fromClient, pkt(0x82, u16(1), props()), ProtocolError, "MQTT-3.8.3-2")
}

func TestSubscribe_NoLocalOnASharedSubscriptionIsAProtocolError(t *testing.T) { // [MQTT-3.8.3-4]
	refused(t, V5, fromClient, pkt(0x82, u16(1), props(), str("$share/g/a"), raw(4)), ProtocolError, "MQTT-3.8.3-4")
	accepted(t, V5, fromClient, pkt(0x82, u16(1), props(), str("$share/g/a"), raw(0), str("$shared"), raw(4)))
}

func TestSubscribe_ReservedOptionsAreMalformed(t *testing.T) { // [MQTT-3.8.3-5]
	for o := range 256 {
		b := pkt(0x82, u16(1), props(), str("a"), raw(byte(o)))
		switch {
		case o&0xC0 != 0:
			refused(t, V5, fromClient, b, MalformedPacket, "MQTT-3.8.3-5")
		case o&3 == 3 || o>>4&3 == 3:
			refused(t, V5, fromClient, b, ProtocolError, "")
		default:
			accepted(t, V5, fromClient, b)
		}
	}
}

func TestSubscribe_QoSIsAllThereIsBelowV5(t *testing.T) { // [MQTT3-3.8.3-4]
	for o := range 256 {
		if b := pkt(0x82, u16(1), str("a"), raw(byte(o))); o > 2 {
			refused(t, V311, fromClient, b, MalformedPacket, "MQTT3-3.8.3-4")
		} else {
			accepted(t, V311, fromClient, b)
		}
	}
}

func TestSubscribe_PacketIdentifierIsNotZero(t *testing.T) { // [MQTT-2.2.1-3]
	refused(t, V5, fromClient, pkt(0x82, u16(0), props(), str("a"), raw(0)), ProtocolError, "MQTT-2.2.1-3")
	refused(t, V311, fromClient, pkt(0xA2, u16(0), str("a")), ProtocolError, "MQTT-2.2.1-3")
}

func TestUnsubscribe_Fields(t *testing.T) { // [MQTT-3.10.3-1]
	got := accepted(t, V5, fromClient, pkt(0xA2, u16(7), props(sample(propUser)), str("a/+"), str("#"))).(*Unsubscribe)
	if !reflect.DeepEqual(got, &Unsubscribe{7, []UserProperty{{"k", "v"}}, []string{"a/+", "#"}}) {
		t.Errorf("%+v", got)
	}
	refused(t, V311, fromClient, pkt(0xA2, u16(7), str("\xFF")), MalformedPacket, "MQTT-1.5.4-1")
	refused(t, V311, fromClient, pkt(0xA2, u16(7), str("a"), raw(0)), MalformedPacket, "")
}

func TestUnsubscribe_NeedsAFilter(t *testing.T) { // [MQTT-3.10.3-2]
	refused(t, V311, fromClient, pkt(0xA2, u16(1)), ProtocolError, "MQTT-3.10.3-2")
	refused(t, V5, fromClient, pkt(0xA2, u16(1), props()), ProtocolError, "MQTT-3.10.3-2")
}

func TestSuback_ReasonCodes(t *testing.T) { // [MQTT-3.9.3-2]
	checkReasons(t, fromServer, "MQTT-3.9.3-2", []ReasonCode{0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2},
		func(r byte) []byte { return pkt(0x90, u16(1), props(), raw(r)) })
}

func TestSuback_ReturnCodesOf311(t *testing.T) { // [MQTT3-3.9.3-2]
	for c := range 256 {
		if b := pkt(0x90, u16(1), raw(byte(c))); c <= 2 || c == 0x80 {
			accepted(t, V311, fromServer, b)
		} else {
			refused(t, V311, fromServer, b, ProtocolError, "MQTT-3.9.3-2")
		}
	}
}

func TestUnsuback_ReasonCodes(t *testing.T) { // [MQTT-3.11.3-2]
	checkReasons(t, fromServer, "MQTT-3.11.3-2", []ReasonCode{0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91},
		func(r byte) []byte { return pkt(0xB0, u16(1), props(), raw(r)) })
}

func TestSuback_KeepsIdentifierAndOrder(t *testing.T) { // [MQTT-2.2.1-6] [MQTT-3.9.3-1] [MQTT-3.11.3-1]
	codes := []ReasonCode{GrantedQoS2, NotAuthorized, GrantedQoS0, TopicFilterInvalid, GrantedQoS1}
	for v, want := range map[Version][]byte{
		V5:   pkt(0x90, u16(258), props(), raw(2, 0x87, 0, 0x8F, 1)),
		V311: pkt(0x90, u16(258), raw(2, 0x80, 0, 0x80, 1)),
		V31:  pkt(0x90, u16(258), raw(2, 0x80, 0, 0x80, 1)),
	} {
		b := AppendSuback([]byte("before"), v, 258, codes)
		if !bytes.Equal(b, append([]byte("before"), want...)) {
			t.Errorf("%v: % x", v, b)
		}
		got := accepted(t, v, fromServer, want).(*Suback)
		if got.PacketID != 258 || len(got.Reasons) != 5 || got.Reasons[0] != GrantedQoS2 || got.Reasons[4] != GrantedQoS1 {
			t.Errorf("%v: %+v", v, got)
		}
	}
	un := []ReasonCode{NoSubscriptionExisted, Success}
	if b := AppendUnsuback(nil, V5, 258, un); !bytes.Equal(b, pkt(0xB0, u16(258), props(), raw(0x11, 0))) {
		t.Errorf("% x", b)
	}
	if b := AppendUnsuback(nil, V311, 258, un); !bytes.Equal(b, pkt(0xB0, u16(258))) {
		t.Errorf("% x", b)
	}
	long := make([]ReasonCode, 300)
	if got := accepted(t, V5, fromServer, AppendSuback(nil, V5, 1, long)).(*Suback); len(got.Reasons) != 300 {
		t.Errorf("%d of 300 reasons", len(got.Reasons))
	}
}

func TestConnack_ReservedFlagsAreMalformed(t *testing.T) { // [MQTT-3.2.2-1]
	refused(t, V311, fromServer, pkt(0x20, raw(2, 0)), MalformedPacket, "MQTT-3.2.2-1")
}

func TestConnack_NoSessionPresentInARefusal(t *testing.T) { // [MQTT-3.2.2-6]
	p := &Connack{SessionPresent: true, Reason: NotAuthorized}
	if b := p.Append(nil, V5); !bytes.Equal(b, pkt(0x20, raw(0, 0x87), props())) {
		t.Errorf("% x", b)
	}
	if b := p.Append(nil, V311); !bytes.Equal(b, pkt(0x20, raw(0, 5))) {
		t.Errorf("% x", b)
	}
	refused(t, V5, fromServer, pkt(0x20, raw(1, 0x87), props()), ProtocolError, "MQTT-3.2.2-6")
}

func TestConnack_ReasonCodes(t *testing.T) { // [MQTT-3.2.2-8]
	checkReasons(t, fromServer, "MQTT-3.2.2-8", []ReasonCode{0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C,
		0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F}, func(r byte) []byte { return pkt(0x20, raw(0, r), props()) })
}

func TestConnack_Layouts(t *testing.T) {
	full := &Connack{SessionPresent: true, HasSessionExpiry: true, SessionExpiry: 256, ReceiveMaximum: 7, LimitQoS: true, MaximumQoS: 1,
		RetainUnavailable: true, MaximumPacketSize: 512, AssignedClientID: "id", TopicAliasMaximum: 8, ReasonString: "why",
		UserProperties: []UserProperty{{"k", "v"}, {"k", "v"}}, WildcardUnavailable: true, SubIDUnavailable: true, SharedUnavailable: true,
		HasServerKeepAlive: true, ServerKeepAlive: 0, ResponseInformation: "info", ServerReference: "ref", AuthMethod: "m", AuthData: []byte{}}
	want := pkt(0x20, raw(1, 0), props(prop(17, 0, 0, 1, 0), prop(33, 0, 7), prop(36, 1), prop(37, 0), prop(39, 0, 0, 2, 0),
		prop(18, str("id")...), prop(34, 0, 8), prop(31, str("why")...), sample(propUser), sample(propUser), prop(40, 0), prop(41, 0), prop(42, 0),
		prop(19, 0, 0), prop(26, str("info")...), prop(28, str("ref")...), prop(21, str("m")...), prop(22, 0, 0)))
	if b := full.Append(nil, V5); !bytes.Equal(b, want) {
		t.Errorf("% x\n% x", b, want)
	}
	if got := accepted(t, V5, fromServer, want); !reflect.DeepEqual(got, full) {
		t.Errorf("%+v", got)
	}
	if b := full.Append(nil, V311); !bytes.Equal(b, pkt(0x20, raw(1, 0))) {
		t.Errorf("3.1.1: % x", b)
	}
	if b := full.Append(nil, V31); !bytes.Equal(b, pkt(0x20, raw(0, 0))) {
		t.Errorf("3.1 has no Session Present: % x", b)
	}
	long := &Connack{ReasonString: strings.Repeat("ü", 40000)}
	got := accepted(t, V5, fromServer, long.Append([]byte{}, V5)).(*Connack)
	if len(got.ReasonString) != 65534 || !strings.HasPrefix(long.ReasonString, got.ReasonString) {
		t.Errorf("a string too long becomes %d bytes", len(got.ReasonString))
	}
}

func TestConnectReturnCode(t *testing.T) {
	want := map[ReasonCode]byte{Success: 0, UnsupportedProtocolVersion: 1, ClientIdentifierNotValid: 2, ServerUnavailable: 3, ServerBusy: 3,
		ServerShuttingDown: 3, QuotaExceeded: 3, BadUserNameOrPassword: 4, NotAuthorized: 5, Banned: 5}
	for r, c := range want {
		if got := ConnectReturnCode(r); got != c {
			t.Errorf("%v: %d, want %d", r, got, c)
		}
	}
	for c := range 256 {
		b := pkt(0x20, raw(0, byte(c)))
		if c > 5 {
			refused(t, V311, fromServer, b, ProtocolError, "")
		} else if got := accepted(t, V311, fromServer, b).(*Connack); ConnectReturnCode(got.Reason) != byte(c) {
			t.Errorf("return code %d is read as %v", c, got.Reason)
		}
	}
}

func TestDisconnect_ReasonCodesOfAClient(t *testing.T) { // [MQTT-3.14.2-1]
	allowed := []ReasonCode{0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99}
	for _, tail := range [][]byte{nil, props()} {
		checkReasons(t, fromClient, "MQTT-3.14.2-1", allowed, func(r byte) []byte { return pkt(0xE0, raw(r), tail) })
	}
}

func TestDisconnect_ReasonCodesOfAServer(t *testing.T) { // [MQTT-3.14.2-1]
	allowed := []ReasonCode{0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
		0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2}
	checkReasons(t, fromServer, "MQTT-3.14.2-1", allowed, func(r byte) []byte { return pkt(0xE0, raw(r)) })
}

func TestDisconnect_NoSessionExpiryFromAServer(t *testing.T) { // [MQTT-3.14.2-2]
	refused(t, V5, fromServer, pkt(0xE0, raw(0x8B), props(prop(propSessionExpiry, 0, 0, 0, 1))), ProtocolError, "MQTT-3.14.2-2")
}

func TestDisconnect_Layouts(t *testing.T) {
	for _, c := range []struct {
		p    Disconnect
		s    side
		want []byte
	}{
		{Disconnect{}, fromClient, pkt(0xE0)},
		{Disconnect{Reason: 0x8E}, fromServer, pkt(0xE0, raw(0x8E), props())},
		{Disconnect{HasSessionExpiry: true}, fromClient, pkt(0xE0, raw(0), props(prop(17, 0, 0, 0, 0)))},
		{Disconnect{Reason: 0x9C, ReasonString: "moved", ServerReference: "there", UserProperties: []UserProperty{{"k", "v"}}}, fromServer,
			pkt(0xE0, raw(0x9C), props(prop(31, str("moved")...), sample(propUser), prop(28, str("there")...)))},
	} {
		if b := c.p.Append(nil); !bytes.Equal(b, c.want) {
			t.Errorf("% x, want % x", b, c.want)
		}
		if got := accepted(t, V5, c.s, c.want); !reflect.DeepEqual(got, &c.p) {
			t.Errorf("%+v, want %+v", got, c.p)
		}
	}
	refused(t, V311, fromClient, pkt(0xE0, raw(0)), MalformedPacket, "")
	refused(t, V5, fromClient, pkt(0xE0, raw(0), props(), raw(0)), MalformedPacket, "")
	if got := accepted(t, V5, fromClient, pkt(0xE0, raw(4))).(*Disconnect); got.Reason != DisconnectWithWillMessage {
		t.Errorf("a reason code alone: %+v", got)
	}
}

func TestAuth_ReasonCodes(t *testing.T) { // [MQTT-3.15.2-1]
	checkReasons(t, fromClient, "MQTT-3.15.2-1", []ReasonCode{0, 0x18, 0x19},
		func(r byte) []byte { return pkt(0xF0, raw(r), props(prop(propAuthMethod, str("m")...))) })
}

func TestAuth_Layouts(t *testing.T) {
	for _, c := range []struct {
		p    Auth
		want []byte
	}{
		{Auth{Reason: ContinueAuthentication, Method: "m"}, pkt(0xF0, raw(0x18), props(prop(21, str("m")...)))},
		{Auth{Reason: ReAuthenticate, Method: "m", Data: []byte{0xFF, 0}, ReasonString: "why", UserProperties: []UserProperty{{"k", "v"}}},
			pkt(0xF0, raw(0x19), props(prop(21, str("m")...), prop(22, str("\xFF\x00")...), prop(31, str("why")...), sample(propUser)))},
	} {
		if b := c.p.Append(nil); !bytes.Equal(b, c.want) {
			t.Errorf("% x, want % x", b, c.want)
		}
		if got := accepted(t, V5, fromServer, c.want); !reflect.DeepEqual(got, &c.p) {
			t.Errorf("%+v, want %+v", got, c.p)
		}
	}
	if got := accepted(t, V5, fromServer, pkt(0xF0)).(*Auth); got.Reason != Success {
		t.Errorf("%+v", got)
	}
}

func TestPing_RoundTrip(t *testing.T) {
	for _, typ := range []Type{PINGREQ, PINGRESP} {
		var b [PingSize]byte
		if n := PutPing(b[:], typ); n != PingSize || !bytes.Equal(b[:], pkt(byte(typ)<<4)) {
			t.Errorf("%v: % x", typ, b)
		}
		if h, err := ReadHeader(b[:]); err != nil || h.Type != typ || h.Size != 2 {
			t.Errorf("%v: %+v, %v", typ, h, err)
		}
	}
}

// TestClientPackets_RoundTrip encodes what a client sends and decodes it again.
func TestClientPackets_RoundTrip(t *testing.T) {
	will := func(v Version) *Will {
		w := &Will{Topic: "t/ü", Payload: []byte("bye"), QoS: 2, Retain: true, ExpiryAt: -1}
		if v == V5 {
			w.Delay, w.Expiry, w.ExpiryAt = 5, 9, 1
			w.Props = append(prop(propMessageExpiry, 0, 0, 0, 9), sample(propUser)...)
		}
		return w
	}
	for _, v := range []Version{V31, V311, V5} {
		var ps []UserProperty
		if v == V5 {
			ps = []UserProperty{{"k", "v"}, {strings.Repeat("long", 100), ""}}
		}
		c := &Connect{Version: v, CleanStart: true, KeepAlive: 61, ClientID: "id", HasUsername: true, Username: "u", HasPassword: true,
			Password: []byte("p"), Will: will(v), ReceiveMaximum: 65535, RequestProblem: true, UserProperties: ps}
		bare := &Connect{Version: v, CleanStart: true, ClientID: "id", ReceiveMaximum: 65535, RequestProblem: true}
		s := &Subscribe{PacketID: 5, UserProperties: ps, Filters: []Subscription{{Filter: "a/#", QoS: 1}, {Filter: "b", QoS: 2}}}
		if v == V5 {
			c.SessionExpiry, c.ReceiveMaximum, c.MaximumPacketSize, c.TopicAliasMaximum = 1, 2, 3, 4
			c.RequestProblem, c.RequestResponse, c.HasAuthMethod, c.AuthMethod, c.AuthData = false, true, true, "m", []byte{1}
			s.SubscriptionID = 268435455
			s.Filters[0] = Subscription{Filter: "a/#", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}
		}
		u := &Unsubscribe{PacketID: 6, UserProperties: ps, Filters: []string{"a/#", "b"}}
		for want, b := range map[any][]byte{c: c.Append(nil), bare: bare.Append(nil), s: s.Append(nil, v), u: u.Append(nil, v)} {
			if got := accepted(t, v, fromClient, b); !reflect.DeepEqual(got, want) {
				t.Errorf("%v\n got %s\nwant %s", v, norm(got), norm(want))
			}
		}
	}
}

func TestAppend_RemainingLengthOfEverySize(t *testing.T) {
	for _, n := range []int{0, 1, 100, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130, 16300, 16370, 16374, 16380, 16384, 40000, 65535} {
		reason := strings.Repeat("r", n)
		p := &Auth{Reason: ContinueAuthentication, Method: "m", ReasonString: reason}
		got := accepted(t, V5, fromServer, p.Append(nil)).(*Auth)
		if got.ReasonString != reason {
			t.Fatalf("%d bytes became %d", n, len(got.ReasonString))
		}
	}
	// Three bytes of Remaining Length.
	s := &Subscribe{PacketID: 1}
	for i := range 2000 {
		s.Filters = append(s.Filters, Subscription{Filter: fmt.Sprintf("%01000d", i)})
	}
	if got := accepted(t, V311, fromClient, s.Append(nil, V311)); !reflect.DeepEqual(got, s) {
		t.Error("2,000 long filters")
	}
}
