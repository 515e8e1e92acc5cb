package conformance

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestString_BadUTF8IsMalformed(t *testing.T) { // [MQTT-1.5.4-1] [MQTT3-1.5.3-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for name, bad := range badString {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := join(t, s, v)
				c.send(subscribe(v, 1, nil, sub{bad, 0}))
				c.ejected(0x81)
			})
		}
	})
}

func TestString_NullIsMalformed(t *testing.T) { // [MQTT-1.5.4-2] [MQTT3-1.5.3-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.send(subscribe(v, 1, nil, sub{"a\x00b", 0}))
		c.ejected(0x81)
		c = join(t, s, v)
		c.send((&publish{topic: "a\x00b"}).bytes(v))
		c.ejected(0x81, 0x90)
	})
}

func TestString_ByteOrderMarkStays(t *testing.T) { // [MQTT-1.5.4-3] [MQTT3-1.5.3-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		plain := unique()
		marked := "\ufeff" + plain
		c.listen(0, marked)
		c.post(publish{topic: plain, payload: "plain"})
		c.post(publish{topic: marked, payload: "marked"})
		c.message(marked, "marked")
		c.nothing(c)
	})
}

// raw sends packets on a connection of its own and returns what comes until
// want bytes are there.
func raw(t *testing.T, s *server, want int, send ...[]byte) []byte {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.tcp, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(cat(send...)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, want)
	if n, err := io.ReadFull(conn, got); err != nil {
		t.Fatalf("%d bytes of %d: %x: %v", n, want, got[:min(n, 100)], err)
	}
	return got
}

func TestRemainingLength_IsTheShortest(t *testing.T) { // [MQTT-1.5.5-1]
	t.Parallel()
	s := startBroker(t, "")
	topic := unique()
	for _, remaining := range []int{127, 128, 16383, 16384} {
		p := publish{topic: topic, payload: strings.Repeat("x", remaining-2-len(topic))}
		want := cat([]byte{0x20, 2, 0, 0}, []byte{0x90, 3, 0, 1, 0}, p.bytes(v311))
		got := raw(t, s, len(want), request(v311).bytes(), subscribe(v311, 1, nil, sub{topic, 0}), p.bytes(v311))
		if !bytes.Equal(got, want) {
			t.Errorf("remaining length %d: %x…, not %x…", remaining, got[:20], want[:20])
		}
	}
}

func TestRemainingLength_LongerThanNeededIsMalformed(t *testing.T) { // [MQTT-1.5.5-1]
	t.Parallel()
	s := startBroker(t, "")
	for name, b := range map[string][]byte{
		"remaining length": {0xc0, 0x80, 0x00},
		"property length":  {0x82, 9, 0, 1, 0x80, 0x00, 0, 1, 'a', 0, 0}, // also an option too many
		"five bytes":       {0x30, 0x80, 0x80, 0x80, 0x80, 0x01},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := join(t, s, v5)
			c.send(b)
			c.ejected(0x81)
		})
	}
	t.Run("property length alone", func(t *testing.T) {
		t.Parallel()
		c := join(t, s, v5)
		c.send(frame(tSUBSCRIBE, 2, u16(1), []byte{0x80, 0x00}, str("a"), []byte{0}))
		c.ejected(0x81)
	})
}

func TestUserProperty_BothStringsAreChecked(t *testing.T) { // [MQTT-1.5.7-1]
	t.Parallel()
	s := startBroker(t, "")
	for _, p := range [][]byte{userProp("\xff", "b"), userProp("a", "\xff"), userProp("a\x00", "b"), userProp("a", "\x00")} {
		c := join(t, s, v5)
		c.send((&publish{topic: "a", props: p}).bytes(v5))
		c.ejected(0x81)
	}
}

// reserved are packets whose header flags are not the ones listed.
func reserved(v byte) map[string][]byte {
	flagged := func(b []byte, flags byte) []byte { return append([]byte{b[0]&0xf0 | flags}, b[1:]...) }
	m := map[string][]byte{
		"PUBACK":      flagged(ack(tPUBACK, 1), 2),
		"PUBREC":      flagged(ack(tPUBREC, 1), 2),
		"PUBREL":      flagged(ack(tPUBREL, 1), 0),
		"PUBCOMP":     flagged(ack(tPUBCOMP, 1), 2),
		"SUBSCRIBE":   flagged(subscribe(v, 1, nil, sub{"a", 0}), 0),
		"UNSUBSCRIBE": flagged(unsubscribe(v, 1, "a"), 0),
		"PINGREQ":     flagged(pingreq, 1),
		"DISCONNECT":  flagged(disconnect, 1),
	}
	return m
}

func TestHeader_ReservedFlagsAreChecked(t *testing.T) { // [MQTT-2.1.3-1] [MQTT3-2.2.2-1] [MQTT3-2.2.2-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for name, b := range reserved(v) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := join(t, s, v)
				c.send(b)
				c.ejected(0x81)
			})
		}
	})
}

// badHeaderFlags sends a packet with each set of header flags that is not the
// one listed for its type.
func badHeaderFlags(t *testing.T, build func(v byte) []byte) {
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		b := build(v)
		for f := range byte(16) {
			if f != b[0]&15 {
				c := join(t, s, v)
				c.send([]byte{b[0]&0xf0 | f}, b[1:])
				c.ejected(0x81)
			}
		}
	})
}

func TestPubrel_HeaderFlagsAreChecked(t *testing.T) { // [MQTT-3.6.1-1] [MQTT3-3.6.1-1]
	t.Parallel()
	badHeaderFlags(t, func(byte) []byte { return ack(tPUBREL, 1) })
}

func TestSubscribe_HeaderFlagsAreChecked(t *testing.T) { // [MQTT-3.8.1-1] [MQTT3-3.8.1-1]
	t.Parallel()
	badHeaderFlags(t, func(v byte) []byte { return subscribe(v, 1, nil, sub{"a", 0}) })
}

func TestUnsubscribe_HeaderFlagsAreChecked(t *testing.T) { // [MQTT-3.10.1-1] [MQTT3-3.10.1-1]
	t.Parallel()
	badHeaderFlags(t, func(v byte) []byte { return unsubscribe(v, 1, "a") })
}

func TestDisconnect_HeaderFlagsAreChecked(t *testing.T) { // [MQTT-3.14.1-1] [MQTT3-3.14.1-1]
	t.Parallel()
	badHeaderFlags(t, func(byte) []byte { return disconnect })
}

func TestDisconnect_OfBadFormatKeepsTheWill(t *testing.T) { // [MQTT-3.14.1-1] [MQTT3-3.14.1-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		topic := unique()
		watch := join(t, s, v)
		watch.listen(0, topic)
		c := join(t, s, v, leaving(will{topic: topic, payload: "gone"}))
		c.send([]byte{0xe1, 0})
		c.ejected(0x81)
		watch.message(topic, "gone")
	})
}

func TestPublish_QoS0HasNoPacketID(t *testing.T) { // [MQTT-2.2.1-2] [MQTT3-2.3.1-5]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		topic := unique()
		p := publish{topic: topic, payload: "payload"}
		suback := []byte{0x90, 3, 0, 1, 0}
		connack := []byte{0x20, 2, 0, 0}
		if v == v5 {
			suback = []byte{0x90, 4, 0, 1, 0, 0}
			connack = make([]byte, join(t, s, v).connack.size) // its properties are not at issue
		}
		want := cat(connack, suback, p.bytes(v))
		got := raw(t, s, len(want), request(v).bytes(), subscribe(v, 1, nil, sub{topic, 0}), p.bytes(v))
		if !bytes.Equal(got[len(connack):], want[len(connack):]) {
			t.Errorf("%x instead of %x", got, want)
		}
	})
}

func TestProperties_NoneAreALengthOfZero(t *testing.T) { // [MQTT-2.2.2-1]
	t.Parallel()
	s := startBroker(t, "")
	topic := unique()
	n := join(t, s, v5).connack.size
	p := publish{topic: topic, payload: "payload", qos: 1, id: 1}
	want := cat([]byte{0x90, 4, 0, 9, 0, 1}, p.bytes(v5))
	got := raw(t, s, n+len(want), request(v5).bytes(), subscribe(v5, 9, nil, sub{topic, 1}),
		(&publish{topic: topic, payload: "payload", qos: 1, id: 7}).bytes(v5))[n:]
	// PUBACK and PUBLISH may come in either order.
	for _, shortest := range [][]byte{{0x40, 2, 0, 7}, {0x40, 3, 0, 7, 0}, {0x40, 4, 0, 7, 0, 0}} {
		if i := bytes.Index(got, shortest); i >= 0 {
			got = cat(got[:i], got[i+len(shortest):])
			break
		}
	}
	if !bytes.HasPrefix(want, got[:7]) {
		t.Errorf("%x instead of %x", got, want)
	}
}

func TestPacketID_ZeroIsRefused(t *testing.T) { // [MQTT-2.2.1-3] [MQTT3-2.3.1-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, b := range [][]byte{subscribe(v, 0, nil, sub{"a", 0}), unsubscribe(v, 0, "a"),
			(&publish{topic: "a", qos: 1}).bytes(v), (&publish{topic: "a", qos: 2}).bytes(v)} {
			c := join(t, s, v)
			c.send(b)
			c.ejected(0x81, 0x82)
		}
	})
}

func TestPacketID_OfTheServerIsUnused(t *testing.T) { // [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT3-2.3.1-4]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		topic := unique()
		c, pub := join(t, s, v), join(t, s, v)
		c.listen(2, topic)
		const n = 15
		var open []*packet
		used := map[int]bool{}
		for i := range 3 * n {
			pub.post(publish{topic: topic, payload: "x", qos: byte(1 + i%2)})
			p := c.message(topic, "x")
			if p.id == 0 || used[p.id] {
				t.Fatalf("message %d: identifier %d", i, p.id)
			}
			used[p.id] = true
			if open = append(open, p); len(open) < n {
				continue
			}
			// Finish an old one; its identifier is free again.
			o := open[0]
			open = open[1:]
			if o.pub.qos == 1 {
				c.send(ack(tPUBACK, o.id))
			} else {
				c.send(ack(tPUBREC, o.id))
				c.acked(tPUBREL, o.id)
				c.send(ack(tPUBCOMP, o.id))
			}
			delete(used, o.id)
		}
	})
}

func TestPacketID_DirectionsAreSeparate(t *testing.T) { // [MQTT-2.2.1-5] [MQTT3-2.3.1-6]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		topic := unique()
		c := join(t, s, v)
		c.listen(2, topic)
		c.post(publish{topic: topic, payload: "x", qos: 1, id: 77})
		p := c.message(topic, "x")
		// The same identifier in the other direction is another message.
		c.post(publish{topic: unique(), payload: "y", qos: 2, id: p.id})
		c.send(ack(tPUBACK, p.id))
		c.alive()
	})
}

func TestAck_RepeatsThePacketID(t *testing.T) { // [MQTT-2.2.1-5] [MQTT3-2.3.1-6]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		for _, id := range []int{1, 255, 256, 65535} {
			c.post(publish{topic: "a/" + c.id, qos: 1, id: id})
			c.post(publish{topic: "a/" + c.id, qos: 2, id: id})
		}
	})
}

func TestSuback_RepeatsThePacketID(t *testing.T) { // [MQTT-2.2.1-6] [MQTT-3.8.4-2] [MQTT3-2.3.1-7] [MQTT3-3.8.4-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		for _, id := range []int{1, 255, 256, 65535} {
			c.send(subscribe(v, id, nil, sub{"a/" + c.id, 0}))
			if p := c.expect(tSUBACK); p.id != id {
				t.Errorf("SUBACK %d for %d", p.id, id)
			}
		}
	})
}

func TestUnsuback_RepeatsThePacketID(t *testing.T) { // [MQTT-2.2.1-6] [MQTT-3.10.4-5] [MQTT3-2.3.1-7] [MQTT3-3.10.4-4]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		for _, id := range []int{1, 255, 256, 65535} {
			c.send(unsubscribe(v, id, "a/"+c.id))
			if p := c.expect(tUNSUBACK); p.id != id {
				t.Errorf("UNSUBACK %d for %d", p.id, id)
			}
		}
	})
}

func TestPingreq_IsAnswered(t *testing.T) { // [MQTT-3.12.4-1] [MQTT3-3.12.4-1]
	t.Parallel()
	s := startBroker(t, "")
	over(t, []byte{v31, v311, v5}, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.send(pingreq, pingreq)
		c.expect(tPINGRESP)
		c.expect(tPINGRESP)
	})
}

func TestStream_MayBeSplitAnywhere(t *testing.T) { // [MQTT-4.2.0-1] [MQTT3-7.1.1-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := dial(t, s, v)
		topic := unique()
		all := cat(request(v).bytes(), subscribe(v, 1, nil, sub{topic, 2}),
			(&publish{topic: topic, payload: "split", qos: 1, id: 2}).bytes(v))
		for _, b := range all {
			c.send([]byte{b})
			time.Sleep(200 * time.Microsecond)
		}
		c.expect(tCONNACK)
		c.await(tSUBACK)
		c.acked(tPUBACK, 2)
		c.take(topic, "split")
	})
}

func TestStream_CarriesBigPacketsInOrder(t *testing.T) { // [MQTT-4.2.0-1] [MQTT3-7.1.1-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		topic := unique()
		c, pub := join(t, s, v), join(t, s, v)
		c.listen(1, topic)
		for i := range 4 {
			payload := strings.Repeat(string(rune('a'+i)), 200_000+i)
			pub.post(publish{topic: topic, payload: payload, qos: 1})
			c.take(topic, payload)
		}
	})
}

func TestConnection_NeedsNoExtension(t *testing.T) { // [MQTT3-7.0.0-2]
	t.Parallel()
	s := startBroker(t, "")
	over(t, []byte{v31, v311}, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.listen(2, c.id)
		for qos := range byte(3) {
			c.post(publish{topic: c.id, payload: "plain", qos: qos})
			c.take(c.id, "plain")
		}
		c.unsubscribe(c.id)
		c.leave()
	})
}

// TestVersion31_Works goes through what 3.1 (MQIsdp) has in common with 3.1.1.
func TestVersion31_Works(t *testing.T) {
	t.Parallel()
	s := startBroker(t, "")
	id := unique()
	watch := join(t, s, v5)
	watch.listen(0, "will/"+id)
	c := join(t, s, v31, keep(id), leaving(will{topic: "will/" + id, payload: "gone", qos: 1}))
	c.listen(2, id+"/#")
	for qos := range byte(3) {
		c.post(publish{topic: id + "/a", payload: "live", qos: qos, retain: true})
		if p := c.take(id+"/a", "live"); p.pub.qos != qos || p.pub.retain {
			t.Errorf("%v", p)
		}
	}
	c.drop()
	watch.message("will/"+id, "gone")
	join(t, s, v5).post(publish{topic: id + "/b", payload: "queued", qos: 2})
	c = join(t, s, v31, keep(id))
	c.take(id+"/b", "queued")
	c.leave()
	late := join(t, s, v31)
	late.subscribe(sub{id + "/a", 2})
	if p := late.take(id+"/a", "live"); !p.pub.retain || p.pub.qos != 2 {
		t.Errorf("%v", p)
	}
	c = join(t, s, v31, named(id))
	c.quiet(soon)
}
