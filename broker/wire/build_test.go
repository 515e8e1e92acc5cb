package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// The packets of the tests are written down field by field, not with our
// encoders.

// pkt is a packet with this first byte and body.
func pkt(first byte, body ...[]byte) []byte {
	b := bytes.Join(body, nil)
	var length [4]byte
	return append(append([]byte{first}, length[:putVarint(length[:], len(b))]...), b...)
}

// props is a property section.
func props(ps ...[]byte) []byte { return pkt(0, ps...)[1:] }

// str is a string or binary value with its length.
func str(s string) []byte { return append(u16(len(s)), s...) }

func raw(bs ...byte) []byte { return bs }

func u16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

// prop is one property.
func prop(id byte, value ...byte) []byte { return append([]byte{id}, value...) }

// connect is a CONNECT up to its Keep Alive, with the payload that follows.
func connect(v Version, flags byte, rest ...[]byte) []byte {
	name := "MQTT"
	if v == V31 {
		name = "MQIsdp"
	}
	return pkt(0x10, str(name), raw(byte(v), flags, 0, 60), bytes.Join(rest, nil))
}

// accepted decodes a packet that must be accepted.
func accepted(t *testing.T, v Version, s side, b []byte) any {
	t.Helper()
	p, err := decodePacket(b, v, s)
	if err != nil {
		t.Fatalf("refused: %v\n% x", err, b)
	}
	return p
}

// refused decodes a packet that must be refused for this reason and clause.
func refused(t *testing.T, v Version, s side, b []byte, reason ReasonCode, clause string) {
	t.Helper()
	_, err := decodePacket(b, v, s)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want %v [%s]\n% x", err, reason, clause, b)
	}
	if e.Reason != reason || e.Clause != clause || e.Detail == "" {
		t.Fatalf("got %v, want %v [%s]\n% x", err, reason, clause, b)
	}
}

// everyString is a valid packet with s in each place where a UTF-8 Encoded
// String may stand.
func everyString(s string) map[string]struct {
	v Version
	s side
	b []byte
} {
	type place = struct {
		v Version
		s side
		b []byte
	}
	user := append(prop(propUser), append(str("k"), str("v")...)...)
	userKey := append(prop(propUser), append(str(s), str("v")...)...)
	userValue := append(prop(propUser), append(str("k"), str(s)...)...)
	text := func(id byte) []byte { return prop(id, str(s)...) }
	return map[string]place{
		"client identifier":     {V5, fromClient, connect(V5, 2, props(), str(s))},
		"client identifier 3.1": {V31, fromClient, connect(V31, 2, str(s))},
		"will topic":            {V5, fromClient, connect(V5, 4, props(), str("c"), props(), str(s), str(""))},
		"user name":             {V311, fromClient, connect(V311, 0x82, str("c"), str(s))},
		"authentication method": {V5, fromClient, connect(V5, 2, props(user, text(propAuthMethod)), str("c"))},
		"user property name":    {V5, fromClient, connect(V5, 2, props(userKey), str("c"))},
		"user property value":   {V5, fromClient, connect(V5, 2, props(userValue), str("c"))},
		"will content type":     {V5, fromClient, connect(V5, 4, props(), str("c"), props(text(propContentType)), str("t"), str(""))},
		"topic name":            {V311, fromClient, pkt(0x30, str(s))},
		"topic name v5":         {V5, fromClient, pkt(0x30, str(s), props())},
		"content type":          {V5, fromClient, pkt(0x30, str("t"), props(text(propContentType)))},
		"response topic":        {V5, fromClient, pkt(0x30, str("t"), props(text(propResponseTopic)))},
		"publish user property": {V5, fromClient, pkt(0x30, str("t"), props(userValue))},
		"topic filter":          {V311, fromClient, pkt(0x82, u16(1), str(s), raw(0))},
		"unsubscribe filter":    {V311, fromClient, pkt(0xA2, u16(1), str(s))},
		"puback reason string":  {V5, fromClient, pkt(0x40, u16(1), raw(0), props(text(propReasonString)))},
		"disconnect reason":     {V5, fromClient, pkt(0xE0, raw(0), props(text(propReasonString)))},
		"server reference":      {V5, fromServer, pkt(0xE0, raw(0x9C), props(text(propServerReference)))},
		"auth reason string":    {V5, fromClient, pkt(0xF0, raw(0x18), props(prop(propAuthMethod, str("m")...), text(propReasonString)))},
		"assigned identifier":   {V5, fromServer, pkt(0x20, raw(0, 0), props(text(propAssignedClientID)))},
		"response information":  {V5, fromServer, pkt(0x20, raw(0, 0), props(text(propResponseInfo)))},
		"suback reason string":  {V5, fromServer, pkt(0x90, u16(1), props(text(propReasonString)), raw(0))},
	}
}
