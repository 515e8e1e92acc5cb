package wire

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestConnect_OtherProtocolNamesAreRefused(t *testing.T) { // [MQTT-3.1.2-1]
	for _, name := range []string{"MQTt", "MQT", "MQTTX", "mqtt", "MQIsdP", ""} {
		refused(t, V5, fromClient, pkt(0x10, str(name), raw(5, 2, 0, 60), props(), str("c")), UnsupportedProtocolVersion, "MQTT-3.1.2-1")
	}
}

func TestConnect_OtherVersionsAreRefused(t *testing.T) { // [MQTT-3.1.2-2]
	for _, c := range []struct {
		name  string
		level byte
		form  Version // of the answer
	}{{"MQTT", 0, V311}, {"MQTT", 3, V311}, {"MQTT", 6, V5}, {"MQTT", 0x7F, V5}, {"MQTT", 0x84, V311}, {"MQTT", 0x85, V311},
		{"MQTT", 0xFF, V311}, {"MQIsdp", 4, V31}, {"MQIsdp", 5, V31}, {"MQIsdp", 0x83, V31}} {
		b := pkt(0x10, str(c.name), raw(c.level, 2, 0, 60), str("c"))
		refused(t, V5, fromClient, b, UnsupportedProtocolVersion, "MQTT-3.1.2-2")
		if p, _ := DecodeConnect(Header{}, b[2:], nil); p == nil || p.Version != c.form {
			t.Errorf("%s level %d: answer %+v, want %v", c.name, c.level, p, c.form)
		}
	}
}

func TestConnect_ErrorSaysInWhichFormToAnswer(t *testing.T) {
	for _, c := range []struct {
		b    []byte
		want Version
	}{{nil, V311}, {pkt(0x10, str("MQTT"))[2:], V311}, {connect(V5, 1)[2:], V5}, {connect(V31, 1)[2:], V31}, {connect(V5, 2, props(), u16(9))[2:], V5}} {
		if p, err := DecodeConnect(Header{}, c.b, nil); err == nil || p == nil || p.Version != c.want {
			t.Errorf("% x: %+v, %v", c.b, p, err)
		}
	}
}

func TestConnect_ReservedFlagIsMalformed(t *testing.T) { // [MQTT-3.1.2-3]
	for _, v := range []Version{V31, V311} {
		refused(t, v, fromClient, connect(v, 3, str("c")), MalformedPacket, "MQTT-3.1.2-3")
	}
	refused(t, V5, fromClient, connect(V5, 3, props(), str("c")), MalformedPacket, "MQTT-3.1.2-3")
}

func TestConnect_WillFieldsArePresentWithWillFlag(t *testing.T) { // [MQTT-3.1.2-9]
	refused(t, V311, fromClient, connect(V311, 4, str("c")), MalformedPacket, "")
	refused(t, V311, fromClient, connect(V311, 4, str("c"), str("t")), MalformedPacket, "")
	refused(t, V5, fromClient, connect(V5, 4, props(), str("c")), MalformedPacket, "")
	w := accepted(t, V5, fromClient, connect(V5, 0x2C|2, props(), str("c"), props(), str("t"), str("bye"))).(*Connect).Will
	if w == nil || w.QoS != 1 || !w.Retain || w.Topic != "t" || string(w.Payload) != "bye" || w.ExpiryAt != -1 {
		t.Errorf("%+v", w)
	}
}

func TestConnect_WillQoSWithoutWillIsMalformed(t *testing.T) { // [MQTT-3.1.2-11]
	for _, flags := range []byte{0x08, 0x10, 0x18} {
		refused(t, V311, fromClient, connect(V311, flags, str("c")), MalformedPacket, "MQTT-3.1.2-11")
	}
}

func TestConnect_WillQoS3IsMalformed(t *testing.T) { // [MQTT-3.1.2-12]
	refused(t, V311, fromClient, connect(V311, 0x1C, str("c"), str("t"), str("")), MalformedPacket, "MQTT-3.1.2-12")
	refused(t, V5, fromClient, connect(V5, 0x1C, props(), str("c"), props(), str("t"), str("")), MalformedPacket, "MQTT-3.1.2-12")
}

func TestConnect_WillRetainWithoutWillIsMalformed(t *testing.T) { // [MQTT-3.1.2-13]
	refused(t, V311, fromClient, connect(V311, 0x22, str("c")), MalformedPacket, "MQTT-3.1.2-13")
}

func TestConnect_NoUserNameWithoutItsFlag(t *testing.T) { // [MQTT-3.1.2-16]
	refused(t, V5, fromClient, connect(V5, 2, props(), str("c"), str("user")), MalformedPacket, "")
}

func TestConnect_UserNameWithItsFlag(t *testing.T) { // [MQTT-3.1.2-17]
	refused(t, V5, fromClient, connect(V5, 0x82, props(), str("c")), MalformedPacket, "")
	refused(t, V311, fromClient, connect(V311, 0x82, str("c")), MalformedPacket, "")
	if c := accepted(t, V311, fromClient, connect(V311, 0x82, str("c"), str(""))).(*Connect); !c.HasUsername || c.Username != "" {
		t.Errorf("%+v", c)
	}
}

func TestConnect_NoPasswordWithoutItsFlag(t *testing.T) { // [MQTT-3.1.2-18]
	refused(t, V311, fromClient, connect(V311, 0x82, str("c"), str("user"), str("pass")), MalformedPacket, "")
}

func TestConnect_PasswordWithItsFlag(t *testing.T) { // [MQTT-3.1.2-19]
	refused(t, V311, fromClient, connect(V311, 0xC2, str("c"), str("user")), MalformedPacket, "")
	if c := accepted(t, V5, fromClient, connect(V5, 0x42, props(), str("c"), str("\xFF\x00"))).(*Connect); c.HasUsername || string(c.Password) != "\xFF\x00" {
		t.Errorf("%+v", c)
	}
	if c := accepted(t, V311, fromClient, connect(V311, 0xC2, str("c"), str("user"), str(""))).(*Connect); !c.HasPassword || len(c.Password) != 0 {
		t.Errorf("an empty password is legal: %+v", c)
	}
}

func TestConnect_PasswordWithoutUserNameIsRefusedBelowV5(t *testing.T) { // [MQTT3-3.1.2-22]
	for _, v := range []Version{V31, V311} {
		refused(t, v, fromClient, connect(v, 0x42, str("c"), str("pass")), MalformedPacket, "MQTT3-3.1.2-22")
	}
}

func TestConnect_FieldsOfThePayloadComeInOrder(t *testing.T) { // [MQTT-3.1.3-1]
	c := accepted(t, V5, fromClient, connect(V5, 0xC6, props(), str("id"), props(), str("topic"), str("will"), str("user"), str("pass"))).(*Connect)
	want := &Connect{Version: V5, CleanStart: true, KeepAlive: 60, ClientID: "id", HasUsername: true, HasPassword: true, Username: "user",
		Password: []byte("pass"), ReceiveMaximum: 65535, RequestProblem: true, Will: &Will{Topic: "topic", Payload: []byte("will"), ExpiryAt: -1}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v", c)
	}
	refused(t, V5, fromClient, connect(V5, 2, props(), str("id"), raw(0)), MalformedPacket, "")
}

func TestConnect_ClientIdentifierIsAlwaysThere(t *testing.T) { // [MQTT-3.1.3-3]
	refused(t, V5, fromClient, connect(V5, 2, props()), MalformedPacket, "")
	refused(t, V311, fromClient, connect(V311, 2), MalformedPacket, "")
}

func TestConnect_ClientIdentifierOf1To23IsAccepted(t *testing.T) { // [MQTT-3.1.3-5]
	for _, id := range []string{"0", "abcdefghijklmnopqrstuvw", "ABCDEFGHIJKLMNOPQRSTUVW", strings.Repeat("x", 65535)} {
		for _, v := range []Version{V31, V311} {
			if c := accepted(t, v, fromClient, connect(v, 2, str(id))).(*Connect); c.ClientID != id {
				t.Errorf("%q became %q", id, c.ClientID)
			}
		}
		accepted(t, V5, fromClient, connect(V5, 2, props(), str(id)))
	}
}

func TestConnect_EmptyClientIdentifier(t *testing.T) { // [MQTT-3.1.3-6] [MQTT3-3.1.3-8]
	accepted(t, V5, fromClient, connect(V5, 0, props(), str("")))
	accepted(t, V5, fromClient, connect(V5, 2, props(), str("")))
	accepted(t, V311, fromClient, connect(V311, 2, str("")))
	refused(t, V311, fromClient, connect(V311, 0, str("")), ClientIdentifierNotValid, "MQTT3-3.1.3-8")
	refused(t, V31, fromClient, connect(V31, 2, str("")), ClientIdentifierNotValid, "")
}

func TestConnect_CredentialsMayBeMissingIn31(t *testing.T) {
	c := accepted(t, V31, fromClient, connect(V31, 0xC2, str("c"))).(*Connect)
	if c.HasUsername || c.HasPassword {
		t.Errorf("%+v", c)
	}
	c = accepted(t, V31, fromClient, connect(V31, 0xC2, str("c"), str("user"))).(*Connect)
	if !c.HasUsername || c.HasPassword || c.Username != "user" {
		t.Errorf("%+v", c)
	}
	refused(t, V31, fromClient, connect(V31, 0xC2, str("c"), raw(0)), MalformedPacket, "")
}

func TestConnect_WillTopicIsATopicName(t *testing.T) { // [MQTT-3.3.2-2] [MQTT-4.7.3-1]
	refused(t, V311, fromClient, connect(V311, 6, str("c"), str("a/#"), str("")), TopicNameInvalid, "MQTT-3.3.2-2")
	refused(t, V311, fromClient, connect(V311, 6, str("c"), str(""), str("")), TopicNameInvalid, "MQTT-4.7.3-1")
	b := connect(V311, 6, str("c"), str("a/b"), str(""))
	if _, err := DecodeConnect(Header{}, b[2:], &Limits{TopicLevels: 1}); err == nil || err.(*Error).Reason != TopicNameInvalid {
		t.Errorf("too many levels: %v", err)
	}
}

func TestConnect_WillPropertiesAreKeptInOrder(t *testing.T) { // [MQTT-3.1.3-10]
	keep := [][]byte{prop(propUser, append(str("b"), str("2")...)...), prop(propMessageExpiry, 0, 0, 0, 9), prop(propPayloadFormat, 1),
		prop(propUser, append(str("a"), str("1")...)...), prop(propResponseTopic, str("r")...), prop(propCorrelationData, str("\xFF")...)}
	delay := prop(propWillDelay, 0, 0, 1, 0)
	for at := 0; at <= len(keep); at++ {
		all := append(append(append([][]byte{}, keep[:at]...), delay), keep[at:]...)
		w := accepted(t, V5, fromClient, connect(V5, 6, props(), str("c"), props(all...), str("t"), str("ü"))).(*Connect).Will
		if w.Delay != 256 || w.Expiry != 9 || !bytes.Equal(w.Props, bytes.Join(keep, nil)) {
			t.Fatalf("delay at %d: %+v", at, w)
		}
		checkExpiryAt(t, w.Props, w.ExpiryAt, w.Expiry)
	}
	will := func(p []byte, payload string) []byte {
		return connect(V5, 6, props(), str("c"), props(p), str("t"), str(payload))
	}
	refused(t, V5, fromClient, will(prop(propResponseTopic, str("+")...), ""), ProtocolError, "MQTT-3.3.2-14")
	refused(t, V5, fromClient, will(prop(propPayloadFormat, 1), "\xFF"), PayloadFormatInvalid, "")
	accepted(t, V5, fromClient, will(prop(propPayloadFormat, 0), "\xFF"))
}

func TestConnect_Properties(t *testing.T) {
	c := accepted(t, V5, fromClient, connect(V5, 0, props(prop(propSessionExpiry, 0, 0, 1, 0), prop(propReceiveMaximum, 0, 7),
		prop(propMaximumPacketSize, 0, 0, 2, 0), prop(propTopicAliasMaximum, 0, 8), prop(propRequestResponse, 1), prop(propRequestProblem, 0),
		sample(propUser), prop(propAuthMethod, str("m")...), prop(propAuthData, str("")...)), str("c"))).(*Connect)
	want := &Connect{Version: V5, KeepAlive: 60, ClientID: "c", SessionExpiry: 256, ReceiveMaximum: 7, MaximumPacketSize: 512,
		TopicAliasMaximum: 8, RequestResponse: true, UserProperties: []UserProperty{{"k", "v"}}, HasAuthMethod: true, AuthMethod: "m", AuthData: []byte{}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v", c)
	}
	for clean, want := range map[byte]uint32{0: 0xFFFFFFFF, 2: 0} {
		if c := accepted(t, V311, fromClient, connect(V311, clean, str("c"))).(*Connect); c.SessionExpiry != want {
			t.Errorf("3.1.1 with flags %d: session expiry %d", clean, c.SessionExpiry)
		}
	}
}

// TestConnect_SharesNoMemory overwrites the bytes after decoding.
func TestConnect_SharesNoMemory(t *testing.T) {
	b := connect(V5, 0xC6, props(prop(propAuthMethod, str("m")...), prop(propAuthData, str("d")...), sample(propUser)), str("id"),
		props(sample(propUser)), str("topic"), str("will"), str("user"), str("pass"))
	got, err := DecodeConnect(Header{}, b[2:], nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodeConnect(Header{}, bytes.Clone(b[2:]), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] = 0xAA
	}
	if !reflect.DeepEqual(got, again) {
		t.Errorf("%+v\n%+v", got, again)
	}
}
