package conformance

import (
	"testing"
)

func TestError_EndsTheConnectionWithItsReason(t *testing.T) { // [MQTT-4.13.1-1]
	t.Parallel()
	s := startBroker(t, "")
	malformed, protocol := []byte{0x81}, []byte{0x82}
	either := []byte{0x81, 0x82}
	pub := func(p ...[]byte) []byte { return (&publish{topic: "a", props: cat(p...)}).bytes(v5) }
	for name, x := range map[string]struct {
		send  []byte
		codes []byte
	}{
		"packet type 0":          {[]byte{0, 0}, malformed},
		"five length bytes":      {[]byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}, malformed},
		"CONNACK":                {frame(tCONNACK, 0, []byte{0, 0, 0}), either},
		"SUBACK":                 {frame(tSUBACK, 0, u16(1), []byte{0, 0}), either},
		"UNSUBACK":               {frame(tUNSUBACK, 0, u16(1), []byte{0, 0}), either},
		"PINGRESP":               {frame(tPINGRESP, 0), either},
		"PINGREQ with a body":    {frame(tPINGREQ, 0, []byte{0}), malformed},
		"PUBLISH cut":            {frame(tPUBLISH, 2, str("a"), []byte{0}), malformed},
		"PUBLISH properties cut": {frame(tPUBLISH, 0, str("a"), []byte{5, 1}), malformed},
		"PUBACK cut":             {frame(tPUBACK, 0, []byte{0}), malformed},
		"PUBACK empty":           {frame(tPUBACK, 0), malformed},
		"PUBACK too long":        {frame(tPUBACK, 0, u16(1), []byte{0, 0, 0}), malformed},
		"PUBACK reason":          {frame(tPUBACK, 0, u16(1), []byte{0x01}), either},
		"PUBREC reason":          {frame(tPUBREC, 0, u16(1), []byte{0x92}), either},
		"PUBREL reason":          {frame(tPUBREL, 2, u16(1), []byte{0x10}), either},
		"PUBCOMP reason":         {frame(tPUBCOMP, 0, u16(1), []byte{0x80}), either},
		"PUBACK id 0":            {frame(tPUBACK, 0, u16(0)), either},
		"PUBACK property":        {frame(tPUBACK, 0, u16(1), []byte{0}, props(prop1(pPayloadFormat, 0))), either},
		"SUBSCRIBE cut":          {frame(tSUBSCRIBE, 2, u16(1), []byte{0}, str("a")), malformed},
		"SUBSCRIBE empty":        {frame(tSUBSCRIBE, 2), malformed},
		"SUBSCRIBE property":     {subscribe(v5, 1, prop1(pPayloadFormat, 0), sub{"a", 0}), either},
		"SUBSCRIBE identifier twice": {subscribe(v5, 1, cat(propV(pSubscriptionID, 1), propV(pSubscriptionID, 1)), sub{"a", 0}),
			either},
		"UNSUBSCRIBE cut":        {frame(tUNSUBSCRIBE, 2, u16(1), []byte{0, 0, 5, 'a'}), malformed},
		"UNSUBSCRIBE property":   {frame(tUNSUBSCRIBE, 2, u16(1), props(propV(pSubscriptionID, 1)), str("a")), either},
		"DISCONNECT reason":      {disconnectWith(0x01), either},
		"DISCONNECT property":    {disconnectWith(0, prop1(pPayloadFormat, 0)), either},
		"DISCONNECT twice":       {disconnectWith(0, propS(pReasonString, "a"), propS(pReasonString, "b")), either},
		"DISCONNECT too long":    {frame(tDISCONNECT, 0, []byte{0, 0, 0}), malformed},
		"unknown property":       {pub([]byte{0x7f, 0}), malformed},
		"two-byte property id":   {pub([]byte{0x81, 0x01, 0}), malformed},
		"format 2":               {pub(prop1(pPayloadFormat, 2)), either},
		"format twice":           {pub(prop1(pPayloadFormat, 0), prop1(pPayloadFormat, 0)), protocol},
		"expiry twice":           {pub(prop4(pMessageExpiry, 1), prop4(pMessageExpiry, 1)), protocol},
		"content type twice":     {pub(propS(pContentType, ""), propS(pContentType, "")), protocol},
		"response topic twice":   {pub(propS(pResponseTopic, "a"), propS(pResponseTopic, "a")), protocol},
		"correlation twice":      {pub(propS(pCorrelationData, "a"), propS(pCorrelationData, "a")), protocol},
		"alias twice":            {pub(prop2(pTopicAlias, 1), prop2(pTopicAlias, 1)), protocol},
		"property of CONNECT":    {pub(prop2(pReceiveMaximum, 1)), either},
		"no topic and no alias":  {(&publish{payload: "x"}).bytes(v5), protocol},
		"property beyond length": {frame(tPUBLISH, 0, str("a"), []byte{2, pMessageExpiry, 0, 0, 0, 1}), malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := join(t, s, v5)
			c.send(x.send)
			c.ejected(x.codes...)
		})
	}
}

func TestError_EndsTheConnection311(t *testing.T) { // [MQTT3-4.8.0-1]
	t.Parallel()
	s := startBroker(t, "")
	for name, b := range map[string][]byte{
		"packet type 0":         {0, 0},
		"packet type 15":        {0xf0, 0},
		"five length bytes":     {0x30, 0xff, 0xff, 0xff, 0xff, 1},
		"CONNACK":               frame(tCONNACK, 0, []byte{0, 0}),
		"SUBACK":                frame(tSUBACK, 0, u16(1), []byte{0}),
		"UNSUBACK":              frame(tUNSUBACK, 0, u16(1)),
		"PINGRESP":              frame(tPINGRESP, 0),
		"PINGREQ with a body":   frame(tPINGREQ, 0, []byte{0}),
		"DISCONNECT with one":   frame(tDISCONNECT, 0, []byte{0}),
		"PUBLISH cut":           frame(tPUBLISH, 2, str("a"), []byte{0}),
		"PUBACK cut":            frame(tPUBACK, 0, []byte{0}),
		"PUBACK too long":       frame(tPUBACK, 0, u16(1), []byte{0}),
		"SUBSCRIBE cut":         frame(tSUBSCRIBE, 2, u16(1), str("a")),
		"SUBSCRIBE empty":       frame(tSUBSCRIBE, 2),
		"UNSUBSCRIBE cut":       frame(tUNSUBSCRIBE, 2, u16(1), []byte{0, 5, 'a'}),
		"second CONNECT":        request(v311).bytes(),
		"empty topic":           (&publish{}).bytes(v311),
		"SUBSCRIBE with no QoS": frame(tSUBSCRIBE, 2, u16(1), str("a"), []byte{0}, str("b")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := join(t, s, v311)
			c.send(b)
			c.ended()
		})
	}
}

func TestError_HasNoConsequenceForOthers(t *testing.T) { // [MQTT-4.13.2-1]
	t.Parallel()
	s := startBroker(t, "")
	other := join(t, s, v5)
	other.listen(1, other.id)
	bad := join(t, s, v5)
	bad.listen(1, other.id)
	bad.send((&publish{topic: other.id, payload: "before", qos: 1, id: 1}).bytes(v5), []byte{0x36, 0})
	for p := bad.arrive(); p != nil; p = bad.arrive() {
		if p.typ == tDISCONNECT && p.reason != 0x81 {
			t.Errorf("%v", p)
		}
	}
	other.take(other.id, "before")
	other.alive()
}

// Request and response.

func TestResponse_PrefixIsTheRequestersOwn(t *testing.T) {
	t.Parallel()
	s := startBroker(t, "")
	ask := with(prop1(pRequestResponse, 1))
	c, other := join(t, s, v5, ask), join(t, s, v5, ask)
	info, ok := c.connack.prop(pResponseInfo)
	theirs, _ := other.connack.prop(pResponseInfo)
	if !ok || info.text == "" || info.text == theirs.text {
		t.Fatalf("prefixes %q and %q", info.text, theirs.text)
	}
	c.listen(1, info.text+"#")
	if a := other.subscribe(sub{info.text + "#", 1}); a.reasons[0] != 0x87 {
		t.Errorf("another client: %v", a)
	}
	for qos := range byte(3) {
		other.post(publish{topic: info.text + "a", payload: "answer", qos: qos})
		c.take(info.text+"a", "answer")
	}
}

func TestResponse_RoundTrip(t *testing.T) { // [MQTT-3.3.2-15] [MQTT-3.3.2-16]
	t.Parallel()
	s := startBroker(t, "")
	asker, answerer := join(t, s, v5), join(t, s, v5)
	answerer.listen(1, "service/"+asker.id)
	asker.listen(1, "reply/"+asker.id)
	asker.post(publish{topic: "service/" + asker.id, payload: "question", qos: 1,
		props: cat(propS(pResponseTopic, "reply/"+asker.id), propS(pCorrelationData, "\x00\x01\x02"))})
	q := answerer.take("service/"+asker.id, "question")
	to, _ := q.prop(pResponseTopic)
	data, _ := q.prop(pCorrelationData)
	answerer.post(publish{topic: to.text, payload: "answer", qos: 1, props: propS(pCorrelationData, data.text)})
	a := asker.take("reply/"+asker.id, "answer")
	if d, _ := a.prop(pCorrelationData); d.text != "\x00\x01\x02" {
		t.Errorf("%v", a)
	}
}
