package conformance

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// window has a client that allows most messages in flight, and a publisher
// that has sent it n messages by turns at QoS 1 and 2 or at one QoS.
func window(t *testing.T, most, n int, qos ...byte) (c, pub *client) {
	t.Helper()
	s := startBroker(t, "")
	c, pub = join(t, s, v5, with(prop2(pReceiveMaximum, most))), join(t, s, v5)
	c.listen(2, c.id)
	for i := range n {
		pub.post(publish{topic: c.id, payload: fmt.Sprint(i), qos: qos[i%len(qos)]})
	}
	return c, pub
}

func TestFlow_ReceiveMaximumIsNotExceeded(t *testing.T) { // [MQTT-3.3.4-9]
	t.Parallel()
	for _, most := range []int{1, 2, 7} {
		const n = 40
		c, _ := window(t, most, n, 1, 2)
		var open []*packet
		for i := range n {
			p := c.message(c.id, fmt.Sprint(i))
			if open = append(open, p); len(open) < most {
				continue
			}
			c.quiet(soon / 30) // the window is full
			o := open[0]
			open = open[1:]
			if o.pub.qos == 1 {
				c.send(ack(tPUBACK, o.id))
				continue
			}
			c.send(ack(tPUBREC, o.id))
			c.acked(tPUBREL, o.id)
			c.quiet(soon / 30) // PUBREC does not open it
			c.send(ack(tPUBCOMP, o.id))
		}
	}
}

func TestFlow_WindowIsAtLeastOneAndAtMostTheMaximum(t *testing.T) { // [MQTT-4.9.0-1]
	t.Parallel()
	for _, most := range []int{1, 5} {
		c, _ := window(t, most, 10, 1)
		c.message(c.id, "0")
		for i := 1; i < most; i++ {
			c.message(c.id, fmt.Sprint(i))
		}
		c.quiet(soon)
	}
}

func TestFlow_WindowIsFullAgainAfterReconnect(t *testing.T) { // [MQTT-4.9.0-1]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	two := with(prop2(pReceiveMaximum, 2))
	c, pub := join(t, s, v5, keep(id), two), join(t, s, v5)
	c.listen(2, id)
	for i := range 6 {
		pub.post(publish{topic: id, payload: fmt.Sprint(i), qos: 1})
	}
	c.message(id, "0")
	c.message(id, "1")
	c.drop()
	c = join(t, s, v5, keep(id), two)
	c.message(id, "0")
	p := c.message(id, "1")
	c.quiet(soon)
	c.send(ack(tPUBACK, p.id))
	c.message(id, "2")
	c.quiet(soon)
	c.drop()
	c = join(t, s, v5, keep(id), with(prop2(pReceiveMaximum, 1))) // now less than is in flight
	c.take(id, "0")
	c.take(id, "2")
	c.take(id, "3")
}

func TestFlow_QuotaOfZeroStopsPublish(t *testing.T) { // [MQTT-4.9.0-2]
	t.Parallel()
	c, _ := window(t, 2, 5, 1)
	first := c.message(c.id, "0")
	c.message(c.id, "1")
	c.quiet(soon)
	c.send(ack(tPUBACK, first.id))
	c.message(c.id, "2")
	c.quiet(soon)
}

func TestFlow_RefusalOpensTheWindow(t *testing.T) { // [MQTT-3.3.4-9]
	t.Parallel()
	c, _ := window(t, 1, 6, 2)
	for i := range 6 {
		p := c.message(c.id, fmt.Sprint(i))
		c.send(nack(tPUBREC, p.id, 0x97))
	}
	c.alive()
}

func TestFlow_FullWindowDelaysNothingElse(t *testing.T) { // [MQTT-3.3.4-10] [MQTT-4.9.0-3]
	t.Parallel()
	c, pub := window(t, 1, 5, 1, 2)
	c.message(c.id, "0")
	c.alive()
	c.listen(0, "other/"+c.id)
	c.post(publish{topic: c.id + "/x", payload: "x", qos: 1})
	c.post(publish{topic: c.id + "/x", payload: "x", qos: 2})
	pub.post(publish{topic: "other/" + c.id, payload: "QoS 0"})
	c.message("other/"+c.id, "QoS 0")
	c.unsubscribe("other/" + c.id)
	c.quiet(0)
}

func TestFlow_NothingStalls(t *testing.T) { // [MQTT-3.3.4-9] [MQTT-4.9.0-2]
	t.Parallel()
	const n = 300
	c, _ := window(t, 3, n, 1, 2, 2)
	for i := range n {
		c.take(c.id, fmt.Sprint(i))
	}
}

func TestFlow_BeyondTheServersMaximumIsRefused(t *testing.T) { // [MQTT-3.3.4-7]
	t.Parallel()
	s := startBroker(t, "window")
	c := join(t, s, v5)
	if m, ok := c.connack.prop(pReceiveMaximum); !ok || m.num != 3 {
		t.Fatalf("%v", c.connack)
	}
	for i := range 3 { // no PUBREL, so they stay open
		c.send((&publish{topic: c.id, payload: "x", qos: 2, id: i + 1}).bytes(v5))
		c.acked(tPUBREC, i+1)
	}
	// A duplicate takes no place, nor does QoS 0.
	c.send((&publish{topic: c.id, payload: "x", qos: 2, id: 1, dup: true}).bytes(v5))
	c.acked(tPUBREC, 1)
	c.post(publish{topic: c.id, payload: "x"})
	c.send((&publish{topic: c.id, payload: "x", qos: 2, id: 4}).bytes(v5))
	c.ejected(0x93)
}

func TestFlow_EveryPlaceOfTheServersWindowWorks(t *testing.T) { // [MQTT-4.9.0-3]
	t.Parallel()
	s := startBroker(t, "window")
	c := join(t, s, v5)
	for i := range 3 {
		c.send((&publish{topic: c.id, payload: "x", qos: 2, id: i + 1}).bytes(v5))
		c.acked(tPUBREC, i+1)
	}
	c.alive()
	c.listen(0, "x/"+c.id)
	for round := range 10 {
		c.send(ack(tPUBREL, round+1))
		c.acked(tPUBCOMP, round+1)
		c.send((&publish{topic: c.id, payload: "x", qos: 2, id: round + 4}).bytes(v5))
		c.acked(tPUBREC, round+4)
	}
}

// Maximum Packet Size of the client.

func TestPacketSize_IsNotExceeded(t *testing.T) { // [MQTT-3.1.2-24]
	t.Parallel()
	s := startBroker(t, "")
	c, pub := join(t, s, v5, with(prop4(pMaximumPacketSize, 200))), join(t, s, v5)
	c.limit(200)
	c.listen(1, c.id)
	empty := len((&publish{topic: c.id, qos: 1, id: 1}).bytes(v5)) + 1 // a second length byte
	for _, n := range []int{10, 200 - empty, 201 - empty, 100_000, 20} {
		payload := strings.Repeat("x", n)
		pub.post(publish{topic: c.id, payload: payload, qos: 1})
		if n <= 200-empty {
			if p := c.take(c.id, payload); n == 200-empty && p.size != 200 {
				t.Errorf("a packet of %d bytes", p.size)
			}
		}
	}
	c.nothing(pub)
}

func TestPacketSize_CountsProperties(t *testing.T) { // [MQTT-3.1.2-24]
	t.Parallel()
	s := startBroker(t, "")
	c, pub := join(t, s, v5, with(prop4(pMaximumPacketSize, 150))), join(t, s, v5)
	c.limit(150)
	c.listen(1, c.id)
	pub.post(publish{topic: c.id, payload: "big", qos: 1, props: userProp("a", strings.Repeat("x", 150))})
	pub.post(publish{topic: c.id, payload: "small", qos: 1})
	c.take(c.id, "small")
}

func TestPacketSize_TooLargeCountsAsDelivered(t *testing.T) { // [MQTT-3.1.2-25]
	t.Parallel()
	s := startBroker(t, "")
	small := with(prop4(pMaximumPacketSize, 150), prop2(pReceiveMaximum, 1))
	for _, retain := range []bool{false, true} {
		c, pub := join(t, s, v5, keep(unique()), small), join(t, s, v5)
		c.limit(150)
		c.listen(2, c.id)
		for i := range 9 {
			p := publish{topic: c.id, payload: fmt.Sprint(i), qos: byte(i % 3), retain: retain}
			if i%2 == 0 {
				p.payload = strings.Repeat("x", 200)
			}
			pub.post(p)
		}
		for i := 1; i < 9; i += 2 { // the window of one does not stall
			c.take(c.id, fmt.Sprint(i))
		}
		c.nothing(pub)
		c.leave()
		c = join(t, s, v5, keep(c.id)) // it does not come later either
		c.nothing(pub)
	}
}

func TestPacketSize_TooLargeInTheQueueCountsAsDelivered(t *testing.T) { // [MQTT-3.1.2-25]
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	c, pub := join(t, s, v5, keep(id)), join(t, s, v5)
	c.listen(2, id)
	c.leave()
	for i := range 8 {
		p := publish{topic: id, payload: fmt.Sprint(i), qos: byte(1 + i%2)}
		if i%4 < 2 {
			p.payload = strings.Repeat("x", 200)
		}
		pub.post(p)
	}
	small := with(prop4(pMaximumPacketSize, 150), prop2(pReceiveMaximum, 1))
	for _, left := range [][]int{{2, 3, 6, 7}, nil} {
		c = join(t, s, v5, keep(id), small)
		c.limit(150)
		for _, i := range left {
			c.take(id, fmt.Sprint(i))
		}
		c.nothing(pub)
		c.leave()
	}
}

func TestPacketSize_TooLargeRetainedCountsAsDelivered(t *testing.T) { // [MQTT-3.1.2-25]
	t.Parallel()
	s := startBroker(t, "")
	c, pub := join(t, s, v5, with(prop4(pMaximumPacketSize, 150), prop2(pReceiveMaximum, 1))), join(t, s, v5)
	c.limit(150)
	want := map[string]bool{}
	for i := range 10 {
		p := publish{topic: fmt.Sprint(c.id, "/", i), payload: fmt.Sprint(i), qos: byte(i % 3), retain: true}
		if i%2 == 0 {
			p.payload = strings.Repeat("x", 200)
		} else {
			want[p.topic] = true
		}
		pub.post(p)
	}
	c.listen(2, c.id+"/+")
	for range len(want) {
		p := c.next()
		if !want[p.pub.topic] {
			t.Fatalf("%v", p)
		}
		delete(want, p.pub.topic)
		c.held = append([]*packet{p}, c.held...)
		c.take(p.pub.topic, p.pub.payload)
	}
	c.nothing(pub)
}

// tight is a client whose Maximum Packet Size leaves room for CONNACK and for
// answers without properties.
func tight(t *testing.T) *client {
	t.Helper()
	c := join(t, startBroker(t, ""), v5, with(prop4(pMaximumPacketSize, 24)))
	c.limit(24)
	return c
}

func TestPuback_FitsThePacketSize(t *testing.T) { // [MQTT-3.4.2-2] [MQTT-3.4.2-3]
	t.Parallel()
	c := tight(t)
	c.send((&publish{topic: c.id, payload: "nobody listens", qos: 1, id: 1,
		props: userProp("name", strings.Repeat("x", 100))}).bytes(v5))
	c.expect(tPUBACK)
}

func TestPubrec_FitsThePacketSize(t *testing.T) { // [MQTT-3.5.2-2] [MQTT-3.5.2-3]
	t.Parallel()
	c := tight(t)
	c.send((&publish{topic: c.id, payload: "nobody listens", qos: 2, id: 1,
		props: userProp("name", strings.Repeat("x", 100))}).bytes(v5))
	c.expect(tPUBREC)
}

func TestPubrel_FitsThePacketSize(t *testing.T) { // [MQTT-3.6.2-2] [MQTT-3.6.2-3]
	t.Parallel()
	c := tight(t)
	c.send(frame(tPUBREC, 0, u16(99), []byte{0}, props(propS(pReasonString, strings.Repeat("x", 100)))))
	if p := c.expect(tPUBREL); p.reason != 0x92 { // nothing with that identifier was sent
		t.Errorf("%v", p)
	}
}

func TestPubcomp_FitsThePacketSize(t *testing.T) { // [MQTT-3.7.2-2] [MQTT-3.7.2-3]
	t.Parallel()
	c := tight(t)
	c.send(frame(tPUBREL, 2, u16(99), []byte{0}, props(userProp("name", strings.Repeat("x", 100)))))
	if p := c.expect(tPUBCOMP); p.reason != 0x92 {
		t.Errorf("%v", p)
	}
}

func TestSuback_FitsThePacketSize(t *testing.T) { // [MQTT-3.9.2-1] [MQTT-3.9.2-2]
	t.Parallel()
	c := tight(t)
	var subs []sub
	for i := range 19 { // the answer takes 24 bytes with no property
		subs = append(subs, sub{fmt.Sprintf("$share/bad+%d/x", i), 0})
	}
	if p := c.subscribe(subs...); p.size != 24 {
		t.Errorf("SUBACK of %d bytes", p.size)
	}
}

func TestUnsuback_FitsThePacketSize(t *testing.T) { // [MQTT-3.11.2-1] [MQTT-3.11.2-2]
	t.Parallel()
	c := tight(t)
	var filters []string
	for i := range 19 {
		filters = append(filters, fmt.Sprint("none/", i))
	}
	if p := c.unsubscribe(filters...); p.size != 24 {
		t.Errorf("UNSUBACK of %d bytes", p.size)
	}
}

func TestDisconnect_FitsThePacketSize(t *testing.T) { // [MQTT-3.14.2-3] [MQTT-3.14.2-4]
	t.Parallel()
	c := tight(t)
	c.send((&publish{topic: strings.Repeat("long/", 40) + "#"}).bytes(v5))
	c.expect(tDISCONNECT)
}

func TestProblemInformation_StaysOutUnlessWanted(t *testing.T) { // [MQTT-3.1.2-29]
	t.Parallel()
	s := startBroker(t, "")
	c := join(t, s, v5, with(prop1(pRequestProblem, 0)))
	check := func(p *packet) {
		t.Helper()
		if p.has(pReasonString) || p.has(pUserProperty) {
			t.Errorf("%v", p)
		}
	}
	check(c.subscribe(sub{"$share/g+/a", 0}, sub{c.id, 1}))
	check(c.unsubscribe("none", "a#"))
	c.send((&publish{topic: "none/" + c.id, payload: "x", qos: 1, id: 1}).bytes(v5))
	check(c.expect(tPUBACK))
	c.send((&publish{topic: "none/" + c.id, payload: "x", qos: 2, id: 2}).bytes(v5))
	check(c.expect(tPUBREC))
	c.send(ack(tPUBREL, 77))
	check(c.expect(tPUBCOMP))
	c.send(ack(tPUBREC, 78))
	check(c.expect(tPUBREL))
	// What a publisher sets is not problem information, and is passed on.
	c.post(publish{topic: c.id, payload: "x", props: userProp("a", "b")})
	if p := c.message(c.id, "x"); !p.has(pUserProperty) {
		t.Errorf("%v", p)
	}
}

func TestAck_UsesItsReasonCodes(t *testing.T) { // [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
	t.Parallel()
	s := startBroker(t, "")
	c := join(t, s, v5)
	c.listen(2, c.id)
	for i, x := range []struct {
		send []byte
		typ  byte
		want string
	}{
		{(&publish{topic: c.id + "/none", qos: 1, id: 1}).bytes(v5), tPUBACK, "\x00\x10"},
		{(&publish{topic: c.id + "/none", qos: 2, id: 2}).bytes(v5), tPUBREC, "\x00\x10"},
		{ack(tPUBREL, 2), tPUBCOMP, "\x00"},
		{ack(tPUBREL, 2), tPUBCOMP, "\x92"},
		{ack(tPUBREC, 3), tPUBREL, "\x92"},
	} {
		c.send(x.send)
		if p := c.expect(x.typ); strings.IndexByte(x.want, p.reason) < 0 {
			t.Errorf("case %d: %v", i, p)
		}
	}
}

// Limits of the server beyond the specification's own.

func TestLimit_Connections(t *testing.T) { // [MQTT-3.1.4-2]
	t.Parallel()
	s := startBroker(t, "conns")
	a := join(t, s, v5)
	join(t, s, v311)
	for _, v := range []byte{v5, v311} {
		c := dial(t, s, v)
		if c.trySend(request(v).bytes()) != nil {
			continue // refused before CONNECT
		}
		c.refused(0x97, 0x89, 3)
	}
	a.leave()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) { // the place becomes free
		c := dial(t, s, v5)
		if c.trySend(request(v5).bytes()) == nil {
			if p := c.arrive(); p != nil && p.reason == 0 {
				return
			}
		}
		c.drop()
	}
	t.Error("the place of the client that left stays taken")
}

func TestLimit_Subscriptions(t *testing.T) {
	t.Parallel()
	s := startBroker(t, "topics")
	c := join(t, s, v5)
	a := c.subscribe(sub{"a", 0}, sub{"b", 1}, sub{"c", 2}, sub{"d", 0}, sub{"a", 1})
	if string(a.reasons[:3]) != "\x00\x01\x02" || a.reasons[3] != 0x97 || a.reasons[4] != 1 {
		t.Errorf("%v", a)
	}
	c.unsubscribe("b")
	c.listen(0, "d")
}

func TestLimit_TopicLevelsAndLength(t *testing.T) {
	t.Parallel()
	s := startBroker(t, "topics")
	c := join(t, s, v5)
	c.listen(0, "1/2/3/4/5")
	for _, long := range []string{"1/2/3/4/5/6", strings.Repeat("x", 61)} {
		c := join(t, s, v5)
		c.send((&publish{topic: long, payload: "x", qos: 1, id: 1}).bytes(v5))
		if p := c.arrive(); p == nil || p.reason != 0x90 {
			t.Errorf("%v", p)
		}
	}
	c.post(publish{topic: strings.Repeat("x", 60), payload: "x", qos: 1})
}

func TestLimit_UserProperties(t *testing.T) {
	t.Parallel()
	s := startBroker(t, "packet")
	c := join(t, s, v5)
	three := cat(userProp("a", "1"), userProp("b", "2"), userProp("c", "3"))
	c.post(publish{topic: c.id, qos: 1, props: three})
	c.send((&publish{topic: c.id, qos: 1, id: 7, props: cat(three, userProp("d", "4"))}).bytes(v5))
	if p := c.arrive(); p == nil || p.reason < 0x80 {
		t.Errorf("%v", p)
	}
}

func TestLimit_QueueAndInFlight(t *testing.T) {
	t.Parallel()
	s := startBroker(t, "queue")
	id := unique()
	c := join(t, s, v5, keep(id))
	c.listen(1, id)
	c.leave()
	pub := join(t, s, v5)
	for i := range 20 {
		pub.post(publish{topic: id, payload: fmt.Sprint(i), qos: 1})
	}
	c = join(t, s, v5, keep(id))
	a, b := c.next(), c.next()
	c.quiet(soon) // two in flight
	got := []string{a.pub.payload, b.pub.payload}
	c.send(ack(tPUBACK, a.id), ack(tPUBACK, b.id))
	fence := false
	for !fence {
		p := c.next()
		got = append(got, p.pub.payload)
		c.send(ack(tPUBACK, p.id))
		fence = len(got) == 5
	}
	c.nothing(pub)
	if fmt.Sprint(got) != "[0 1 2 3 4]" { // the newest are dropped
		t.Errorf("%v", got)
	}
}
