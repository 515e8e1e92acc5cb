package vulnerabilities

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hashplus/bench/codec"
)

// ack is a PUBACK, PUBREC, PUBREL or PUBCOMP.
func ack(kind byte, id uint16) []byte { return codec.AppendAck(nil, kind, id) }

// packetID is that of an acknowledgement.
func packetID(p codec.Packet) uint16 { return uint16(p.Body[0])<<8 | uint16(p.Body[1]) }

// mosquitto: each QoS 2 message with an identifier that was in use cost memory
// for as long as the client did not answer PUBREC.
func TestCVE_2023_28366_QoS2DuplicatesWithoutPubrel(t *testing.T) {
	b := open(t)
	sub := b.join(who{})
	sub.subscribe("once", 0)
	c := b.join(who{})
	before := b.peak()
	payload := strings.Repeat("x", 10_000)
	first := c.publication("once", payload, 2, 7, 0)
	again := append([]byte{first[0] | 8}, first[1:]...)
	c.send(first)
	for range 10_000 { // 100 MB
		c.send(again)
		if p := c.expect(codec.PUBREC); packetID(p) != 7 {
			t.Fatalf("PUBREC of %d", packetID(p))
		}
	}
	b.grewLess(before, 15)
	if m := sub.message(); m.payload != payload {
		t.Errorf("a message of %d bytes", len(m.payload))
	}
	sub.silent(300 * time.Millisecond)
	// Other identifiers end at the Receive Maximum.
	d := b.join(who{})
	for id := range uint16(2000) {
		d.send(d.publication("never", payload, 2, id+1, 0))
	}
	d.refused(0x93)
	b.grewLess(before, 40)
}

// EMQX: a QoS 2 message that is sent again behind a reconnect came twice.
func TestCVE_2026_8741_QoS2OnceBehindAReconnect(t *testing.T) {
	t.Parallel()
	b := open(t)
	sub := b.join(who{})
	sub.subscribe("once", 1)
	w := who{id: unique("pub"), resume: true, expiry: 600}
	for round := range 20 {
		c := b.join(w)
		first := c.publication("once", fmt.Sprint(round), 2, 9, 0)
		c.send(first)
		if round%2 == 0 {
			c.expect(codec.PUBREC)
		} else {
			time.Sleep(10 * time.Millisecond) // it is lost on the way
		}
		c.drop()
		for range 3 {
			c = b.join(w)
			c.send(append([]byte{first[0] | 8}, first[1:]...))
			c.expect(codec.PUBREC)
			c.drop()
		}
		c = b.join(w)
		c.send(ack(codec.PUBREL, 9))
		c.expect(codec.PUBCOMP)
		c.drop()
		m := sub.message()
		sub.send(ack(codec.PUBACK, m.id))
		if m.payload != fmt.Sprint(round) {
			t.Fatalf("message %q in round %d", m.payload, round)
		}
	}
	sub.silent(300 * time.Millisecond)
}

// mochi: both directions shared one table of identifiers, so a client's QoS 2
// PUBLISH or its SUBSCRIBE overwrote what was on the way to it, and got 0x91.
func TestMochi545_DirectionsDoNotShareIdentifiers(t *testing.T) {
	t.Parallel()
	b := open(t)
	pub := b.join(who{})
	c := b.join(who{})
	c.subscribe("to/c", 2)
	for _, payload := range []string{"1", "2", "3"} {
		pub.send(pub.publication("to/c", payload, 2, pub.id(), 0))
		pub.send(ack(codec.PUBREL, packetID(pub.await(codec.PUBREC))))
		pub.await(codec.PUBCOMP)
	}
	var held []message
	for range 3 {
		held = append(held, c.message())
	}
	// The same identifiers in the other direction, in every kind of packet.
	for _, m := range held {
		c.send(c.publication("from/c", "x", 2, m.id, 0))
		if p := c.await(codec.PUBREC); len(p.Body) > 2 && p.Body[2] >= 0x80 {
			t.Errorf("PUBREC %#02x for an identifier of the other direction", p.Body[2])
		}
		c.send(packet(0x82, m.id, props(), "more", 0))
		if p := c.await(codec.SUBACK); p.Body[len(p.Body)-1] >= 0x80 {
			t.Errorf("SUBACK % x", p.Body)
		}
		c.send(packet(0xa2, m.id, props(), "more"))
		if p := c.await(codec.UNSUBACK); p.Body[len(p.Body)-1] >= 0x80 {
			t.Errorf("UNSUBACK % x", p.Body)
		}
		c.send(ack(codec.PUBREL, m.id))
		c.await(codec.PUBCOMP)
	}
	for i, m := range held {
		if m.payload != fmt.Sprint(i+1) {
			t.Errorf("message %q", m.payload)
		}
		c.send(ack(codec.PUBREC, m.id))
		if p := c.await(codec.PUBREL); packetID(p) != m.id || len(p.Body) > 2 && p.Body[2] != 0 {
			t.Errorf("PUBREL % x for %d", p.Body, m.id)
		}
		c.send(ack(codec.PUBCOMP, m.id))
	}
	c.alive()
}

// RMQTT #456 to #459: a QoS 2 PUBLISH with an identifier in use came twice, or
// replaced the one before it.
func TestRMQTT459_QoS2IdentifierInUse(t *testing.T) {
	t.Parallel()
	b := open(t)
	sub := b.join(who{})
	sub.subscribe("t", 0)
	c := b.join(who{})
	c.send(c.publication("t", "first", 2, 5, 0))
	c.expect(codec.PUBREC)
	c.send(c.publication("t", "second", 2, 5, 0)) // the same to the server, whatever it says
	c.expect(codec.PUBREC)
	c.send(ack(codec.PUBREL, 5))
	c.expect(codec.PUBCOMP)
	c.send(ack(codec.PUBREL, 5)) // of nothing
	c.expect(codec.PUBCOMP)
	c.send(c.publication("t", "third", 2, 5, 0))
	c.expect(codec.PUBREC)
	for _, want := range []string{"first", "third"} {
		if m := sub.message(); m.payload != want {
			t.Errorf("message %q instead of %q", m.payload, want)
		}
	}
	sub.silent(300 * time.Millisecond)
}

// mochi, comqtt: a message beyond Receive Maximum was sent once and forgotten,
// and took a place in the window for ever; in the end nothing came any more.
func TestMochi_WindowNeverLosesAPlace(t *testing.T) {
	t.Parallel()
	b := open(t)
	pub := b.join(who{})
	c := b.join(who{window: 2})
	c.subscribe("w", 1)
	const rounds, burst = 20, 10
	for round := range rounds {
		for i := range burst {
			pub.publish("w", fmt.Sprint(round*burst+i), 1, 0)
		}
		for i := range burst {
			m := c.message()
			if m.payload != fmt.Sprint(round*burst+i) {
				t.Fatalf("message %q instead of %d", m.payload, round*burst+i)
			}
			c.send(ack(codec.PUBACK, m.id))
		}
	}
}

// mochi: with a full QoS 2 window a QoS 0 message ended the connection, and
// clients of 3.1.1 were sent a DISCONNECT, which they do not know.
func TestMochi_FullWindowIsNoMatterForQoS0(t *testing.T) {
	t.Parallel()
	b := open(t, "--receive-maximum=2")
	for _, v3 := range []bool{false, true} {
		c := b.join(who{v3: v3})
		for id := range uint16(2) {
			c.send(c.publication("t", "x", 2, id+1, 0))
			c.expect(codec.PUBREC)
		}
		c.publish("t", "x", 0, 0)
		c.alive()
	}
	c := b.join(who{v3: true})
	c.send(c.publication("a/#", "x", 0, 0, 0))
	if p, err := c.read(patience); err == nil {
		t.Errorf("a client of 3.1.1 got a packet of type %d before the end", p.Type)
	}
}

// mochi: what CONNACK says is not available was available all the same.
func TestMochi_AnnouncedLimitsHold(t *testing.T) {
	t.Parallel()
	b := open(t, "--max-qos=1", "--no-retain-available", "--max-packet-size=4KiB", "--topic-alias-maximum=2")
	c := b.dial()
	c.send(who{id: "limits"}.connect())
	body := string(c.expect(codec.CONNACK).Body)
	for name, property := range map[string]string{
		"Maximum QoS": "\x24\x01", "Retain Available": "\x25\x00", "Maximum Packet Size": "\x27\x00\x00\x10\x00", "Topic Alias Maximum": "\x22\x00\x02",
	} {
		if !strings.Contains(body, property) {
			t.Errorf("CONNACK % x does not say %s", body, name)
		}
	}
	for name, test := range map[string]struct {
		packet []byte
		reason byte
	}{
		"QoS 2":    {c.publication("t", "x", 2, 1, 0), 0x9b},
		"retain":   {packet(0x31, "t", props(), []byte("x")), 0x9a},
		"alias 3":  {c.publication("t", "x", 0, 0, 3), 0x94},
		"5000 B":   {c.publication("t", strings.Repeat("x", 5000), 0, 0, 0), 0x95},
		"QoS will": {nil, 0x9b},
	} {
		d := b.dial()
		if test.packet == nil {
			d.send(who{id: "q", will: &will{topic: "w", qos: 2}}.connect())
		} else {
			d.join(who{})
			d.send(test.packet)
		}
		if reason := d.ended(); reason != test.reason {
			t.Errorf("%s: %#02x instead of %#02x", name, reason, test.reason)
		}
	}
}

// EMQX: behind a reconnect the broker used an alias that it had set before it.
func TestEMQX4147_AliasesEndWithTheConnection(t *testing.T) {
	t.Parallel()
	b := open(t)
	w := who{id: unique("alias"), resume: true, expiry: 600, aliases: 5}
	pub := b.join(who{})
	for range 3 {
		c := b.join(w) // whose table of aliases is empty
		c.subscribe("a/long/topic", 1)
		for range 3 {
			pub.publish("a/long/topic", "x", 1, 0)
			m := c.message()
			if m.topic != "a/long/topic" {
				t.Errorf("a message of %q", m.topic)
			}
			c.send(ack(codec.PUBACK, m.id))
		}
		c.drop()
		pub.publish("a/long/topic", "away", 1, 0)
		c = b.join(w)
		if m := c.message(); m.topic != "a/long/topic" || m.payload != "away" {
			t.Errorf("%+v", m)
		} else {
			c.send(ack(codec.PUBACK, m.id))
		}
		c.alive()
		c.drop()
	}
	// What comes again after a reconnect has its topic as well.
	c := b.join(w)
	pub.publish("a/long/topic", "held", 1, 0)
	c.message()
	c.drop()
	c = b.join(w)
	if m := c.message(); !m.dup || m.topic != "a/long/topic" {
		t.Errorf("%+v", m)
	}
}

// mosquitto_pub and clients like it use aliases that are none; EMQX crashed on
// one that was never set.
func TestMosquitto2494_AliasThatIsNone(t *testing.T) {
	t.Parallel()
	b := open(t)
	for name, test := range map[string]struct {
		topic string
		alias []byte
	}{
		"0":                       {"t", props(0x23, uint16(0))},
		"above the maximum":       {"t", props(0x23, uint16(17))},
		"far above it":            {"t", props(0x23, uint16(65535))},
		"never set":               {"", props(0x23, uint16(3))},
		"never set, no topic":     {"", props(0x23, uint16(16))},
		"two of them":             {"t", props(0x23, uint16(1), 0x23, uint16(2))},
		"none and no topic":       {"", props()},
		"set on a wildcard topic": {"a/+", props(0x23, uint16(1))},
	} {
		c := b.join(who{})
		c.send(packet(0x30, test.topic, test.alias, []byte("x")))
		if reason := c.ended(); reason != 0x81 && reason != 0x82 && reason != 0x90 && reason != 0x94 {
			t.Errorf("alias %s: %#02x", name, reason)
		}
	}
	// One connection's aliases are nobody else's.
	c, d := b.join(who{}), b.join(who{})
	c.publish("mine", "x", 1, 1)
	d.send(d.publication("", "x", 0, 0, 1))
	if reason := d.ended(); reason != 0x82 && reason != 0x94 {
		t.Errorf("an alias of another connection: %#02x", reason)
	}
}

// mochi: an alias was set by a message that was then dropped, and used by the
// next one.
func TestMochi_AliasOfADroppedMessage(t *testing.T) {
	t.Parallel()
	b := open(t, "--write-queue-bytes=16KiB", "--write-stall=60s", "--sys-interval=0")
	c := b.join(who{aliases: 8})
	c.subscribe("#", 0)
	pub := b.join(who{})
	payload := strings.Repeat("x", 8<<10)
	const sent = 3000
	// 24 MiB, of which the sockets hold a part. Most topics come up when there is
	// no room any more.
	for i := range sent {
		topic := max(0, i-sent/2) % 7
		pub.publish(fmt.Sprintf("topic/%d", topic), fmt.Sprintf("%d %s", topic, payload), 0, 0)
	}
	pub.alive()
	ended, finished := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		for { // until the reader has caught up
			select {
			case <-ended:
				return
			case <-time.After(time.Second):
			}
			for i := range 7 {
				_, _ = pub.conn.Write(pub.publication(fmt.Sprintf("topic/%d", i), fmt.Sprint(i), 0, 0, 0)) // the reader misses it
			}
			_, _ = pub.conn.Write(pub.publication("end", "", 0, 0, 0))
		}
	}()
	got := 0 // of those sent
	for {
		m := c.message() // fails on an alias that was never set
		if m.topic == "end" {
			break
		}
		if len(m.payload) > len(payload) {
			got++
		}
		if m.topic[len("topic/"):] != m.payload[:1] {
			t.Fatalf("a message of %q has topic %q", m.payload[:1], m.topic)
		}
	}
	close(ended)
	<-finished
	t.Logf("%d of %d messages came", got, sent)
	if got == sent {
		t.Error("none was dropped: the test shows nothing")
	}
}
