package vulnerabilities

import (
	"fmt"
	"testing"
	"time"
)

// mochi: the options byte of the last filter was read without looking whether
// it is there.
func TestMochi501_TruncatedSubscribe(t *testing.T) {
	t.Parallel()
	b := open(t)
	for _, v3 := range []bool{false, true} {
		whole := packet(0x82, uint16(1), props(), "a", 1)
		if v3 {
			whole = packet(0x82, uint16(1), "a", 1)
		}
		c := b.join(who{v3: v3})
		c.send(packet(0x82, whole[2:len(whole)-1]))
		c.refused(0x81)
	}
}

// The same for every packet and every place at which it can be cut. The length
// is that of what is left, so the packet is whole as far as the stream goes.
func TestMochi501_EveryPacketCutAnywhere(t *testing.T) {
	t.Parallel()
	b := open(t)
	full := who{id: "cut", user: "u", expiry: 1, window: 2, aliases: 3, will: &will{topic: "w", payload: "p", qos: 1}}
	whole := map[string][]byte{
		"CONNECT": full.connect(),
		"PUBLISH": packet(0x34, "a", uint16(1), props(0x01, 1, 0x02, uint32(9), 0x08, "r", 0x09, "c", 0x03, "t", 0x23, uint16(1), 0x26, "k", "v"), []byte("p")),
		"PUBACK":  packet(0x40, uint16(1), 0, props(0x1f, "why", 0x26, "k", "v")),
		"PUBREC":  packet(0x50, uint16(1), 0, props(0x1f, "why")),
		"PUBREL":  packet(0x62, uint16(1), 0, props(0x1f, "why")),
		"PUBCOMP": packet(0x70, uint16(1), 0, props(0x1f, "why")),
		"SUBSCRIBE": packet(0x82, uint16(1), props(0x0b, 5, 0x26, "k", "v"), "a/+/b", 1,
			"$share/g/a", 0x2c),
		"UNSUBSCRIBE": packet(0xa2, uint16(1), props(0x26, "k", "v"), "a/+/b", "b"),
		"DISCONNECT":  packet(0xe0, 0, props(0x11, uint32(1), 0x1f, "why")),
		"AUTH":        packet(0xf0, 0x19, props(0x15, "SCRAM-SHA-256", 0x16, "data")),
	}
	for name, p := range whole {
		t.Run(name, func(t *testing.T) {
			here := *b
			here.t = t
			body := p[len(p)-bodyLength(p):]
			for cut := range body {
				c := here.dial()
				if p[0] != 0x10 {
					c.join(who{})
				}
				c.send(append(packet(p[0], body[:cut]), 0xc0, 0))
				// Some of them are packets, still: whatever is answered, it is
				// answered at once.
				if _, err := c.read(patience); err != nil && cut > 0 && p[0] != 0x10 && p[0] != 0xe0 {
					t.Errorf("cut at %d: %v instead of an answer", cut, err)
				}
				c.drop()
			}
		})
	}
}

// bodyLength is the remaining length of p, which is below 16,384.
func bodyLength(p []byte) int {
	if p[1] < 0x80 {
		return int(p[1])
	}
	return int(p[1]&0x7f) | int(p[2])<<7
}

func TestCVE_2021_34432_ZeroLengthTopic(t *testing.T) {
	t.Parallel()
	b := open(t)
	for _, v3 := range []bool{false, true} {
		for qos := range byte(3) {
			c := b.join(who{v3: v3})
			c.send(c.publication("", "x", qos, 1, 0))
			c.refused(0x81, 0x82, 0x90)
		}
		c := b.join(who{v3: v3})
		if code := c.ask("", 0); code < 0x80 {
			t.Errorf("a filter of no bytes: %#02x", code)
		}
		c = b.dial()
		c.who.v3 = v3
		c.send(who{v3: v3, id: "w", will: &will{payload: "x"}}.connect())
		c.refused(0x81, 0x82, 0x90)
	}
}

// mosquitto: a CONNACK from a client was handled as though a bridge had got it.
func TestCVE_2021_28166_ConnackFromAClient(t *testing.T) {
	t.Parallel()
	b := open(t)
	for name, p := range map[string][]byte{
		"CONNACK":                 packet(0x20, 0, 0, props()),
		"CONNACK with properties": packet(0x20, 0, 0, props(0x12, "assigned", 0x1c, "other", 0x21, uint16(1))),
		"CONNACK of 3.1.1":        packet(0x20, 0, 0),
		"empty CONNACK":           packet(0x20),
		"SUBACK":                  packet(0x90, uint16(1), props(), 0),
		"UNSUBACK":                packet(0xb0, uint16(1), props(), 0),
		"PINGRESP":                packet(0xd0),
		"packet of type 0":        packet(0x00),
		"second CONNECT":          who{id: "x"}.connect(),
	} {
		for _, v3 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, 3.1.1 %v", name, v3), func(t *testing.T) {
				here := *b
				here.t = t
				c := here.join(who{v3: v3})
				c.send(p)
				c.refused(0x81, 0x82)
			})
		}
	}
}

// mosquitto: a topic that began with $ but not with $SYS ended the process.
func TestCVE_2018_12543_DollarTopic(t *testing.T) {
	t.Parallel()
	b := open(t)
	for _, v3 := range []bool{false, true} {
		for _, topic := range []string{"$", "$/", "$foo", "$foo/bar", "$SYSTEM", "$SY", "$SYS", "$SYS/x", "$share", "$share/", "$share/g/t", "$CONTROL/x", "$reply", "$reply/", "$reply/x"} {
			for qos := range byte(2) {
				c := b.join(who{v3: v3})
				c.send(c.publication(topic, "x", qos, 1, 0))
				c.send([]byte{0xc0, 0})
				if _, err := c.read(patience); err != nil && !v3 {
					t.Errorf("a message of %q: %v instead of an answer", topic, err)
				}
				c.drop()
			}
		}
	}
	// They are names like others, but for those that are the broker's.
	c := b.join(who{})
	c.subscribe("$foo/#", 0)
	c.publish("$foo/bar", "x", 1, 0)
	if m := c.message(); m.topic != "$foo/bar" {
		t.Errorf("a message of %q", m.topic)
	}
}

// NanoMQ: a variable byte integer of five bytes was read, and then read beyond.
func TestCVE_2026_21888_VariableByteIntegerOfFiveBytes(t *testing.T) {
	t.Parallel()
	b := open(t)
	five := []byte{0x80, 0x80, 0x80, 0x80, 0x01}
	for name, p := range map[string][]byte{
		"remaining length":                      append([]byte{0x30}, five...),
		"remaining length that does not end":    append([]byte{0x30}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"property length of PUBLISH":            packet(0x30, "a", five, []byte("x")),
		"property length of SUBSCRIBE":          packet(0x82, uint16(1), five, "a", 0),
		"property length of DISCONNECT":         packet(0xe0, 4, five),
		"property length of PUBACK":             packet(0x40, uint16(1), 0, five),
		"subscription identifier":               packet(0x82, uint16(1), props(0x0b, five), "a", 0),
		"subscription identifier cut":           packet(0x82, uint16(1), props(0x0b, five[:3]), "a", 0),
		"property length cut at the end":        packet(0x30, "a", five[:2]),
		"remaining length in more than needed":  {0x30, 0x84, 0x00, 0, 1, 'a', 0},
		"property length in more than it needs": packet(0x30, "a", []byte{0x80, 0x00}, []byte("x")),
	} {
		t.Run(name, func(t *testing.T) {
			here := *b
			here.t = t
			c := here.join(who{})
			c.send(p)
			c.refused(0x81)
		})
	}
	c := b.dial()
	c.send(append([]byte{0x10}, five...))
	if reason := c.ended(); reason != 0 && reason != 0x81 {
		t.Errorf("CONNECT of five bytes of length: %#02x", reason)
	}
}

// mochi: there was no limit at all to the bytes of a length.
func TestMochi_LengthWithoutEnd(t *testing.T) {
	t.Parallel()
	b := open(t)
	for _, first := range []byte{0x10, 0x30, 0xc0} {
		c := b.dial()
		if first != 0x10 {
			c.join(who{})
		}
		began := time.Now()
		c.send(append([]byte{first}, 0x80, 0x80, 0x80, 0x80))
		if reason := c.ended(); reason != 0x81 && first != 0x10 {
			t.Errorf("%#02x: the connection ended with %#02x", first, reason)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%#02x: four bytes with a fifth to come were refused after %v", first, took)
		}
	}
}

// NanoMQ: a PUBLISH with QoS that ends behind its topic.
func TestNanoMQ2270_TruncatedPublish(t *testing.T) {
	t.Parallel()
	b := open(t)
	for _, v3 := range []bool{false, true} {
		for _, qos := range []byte{1, 2} {
			for _, p := range [][]byte{
				packet(0x30 | qos<<1),
				packet(0x30|qos<<1, 0),
				packet(0x30|qos<<1, "a"),
				packet(0x30|qos<<1, "a", 0),
				packet(0x30|qos<<1, []byte{0xff, 0xff, 'a'}),
			} {
				c := b.join(who{v3: v3})
				c.send(p)
				c.refused(0x81)
			}
		}
	}
}

// A property, or the block of them, that ends behind what holds it.
func TestCVE_2026_8686_PropertyBeyondItsBounds(t *testing.T) {
	t.Parallel()
	b := open(t)
	for name, properties := range map[string][]byte{
		"block longer than the packet":     {0x7f, 0x01, 0x01},
		"block one byte longer":            {0x05, 0x02, 0, 0, 1},
		"four byte integer cut":            {0x03, 0x02, 0, 0},
		"two byte integer cut":             {0x02, 0x23, 0},
		"byte missing":                     {0x01, 0x01},
		"string longer than the block":     {0x05, 0x08, 0xff, 0xff, 'a', 'b'},
		"string that reaches the payload":  {0x04, 0x08, 0, 5, 'a', 'b', 'c', 'd', 'e'},
		"length of a string cut":           {0x02, 0x08, 0},
		"value of a user property missing": {0x04, 0x26, 0, 1, 'k'},
		"value beyond the block":           {0x07, 0x26, 0, 1, 'k', 0xff, 0xff, 'v'},
		"binary data beyond the block":     {0x03, 0x09, 0x10, 0},
		"unknown property":                 {0x02, 0x7e, 0},
		"property of another packet":       {0x03, 0x13, 0, 9},
		"property twice":                   {0x04, 0x01, 1, 0x01, 1},
	} {
		t.Run(name, func(t *testing.T) {
			here := *b
			here.t = t
			c := here.join(who{})
			c.send(packet(0x30, "a", properties))
			c.refused(0x81, 0x82)
			c = here.dial()
			c.send(packet(0x10, "MQTT", 5, 2, uint16(0), properties, "id"))
			if reason := c.ended(); reason != 0x81 && reason != 0x82 {
				t.Errorf("in CONNECT: %#02x", reason)
			}
		})
	}
}

// mochi: property bytes were read out of the payload, and duplicates passed.
func TestMochi_PropertiesEndWhereTheySay(t *testing.T) {
	t.Parallel()
	b := open(t)
	c := b.join(who{})
	c.subscribe("t", 0)
	// What looks like a property behind the block is payload.
	c.send(packet(0x30, "t", props(), []byte{0x26, 0, 1, 'k', 0, 1, 'v'}))
	if m := c.message(); m.payload != "\x26\x00\x01k\x00\x01v" {
		t.Errorf("payload %q", m.payload)
	}
	c.send(packet(0x30, "t", []byte{0x02, 0x01, 0x01, 0x26}, []byte{0, 1, 'k', 0, 1, 'v'}))
	if m := c.message(); len(m.payload) != 7 {
		t.Errorf("payload %q", m.payload)
	}
	for name, connect := range map[string][]byte{
		"Receive Maximum twice":        packet(0x10, "MQTT", 5, 2, uint16(0), props(0x21, uint16(3), 0x21, uint16(3)), "d"),
		"Session Expiry twice":         packet(0x10, "MQTT", 5, 2, uint16(0), props(0x11, uint32(3), 0x11, uint32(3)), "d"),
		"a will's delay twice":         packet(0x10, "MQTT", 5, 6, uint16(0), props(), "d", props(0x18, uint32(1), 0x18, uint32(1)), "w", "p"),
		"bytes behind the payload":     packet(0x10, "MQTT", 5, 2, uint16(0), props(), "d", 0),
		"a password without its field": packet(0x10, "MQTT", 5, 0xc2, uint16(0), props(), "d", "u"),
	} {
		d := b.dial()
		d.send(connect)
		if reason := d.ended(); reason != 0x81 && reason != 0x82 {
			t.Errorf("%s: %#02x", name, reason)
		}
	}
}

// mochi: legal CONNECTs were refused and illegal ones let in.
func TestMochi_ConnectIsCheckedAsTheStandardSays(t *testing.T) {
	t.Parallel()
	b := open(t)
	for name, c := range map[string]struct {
		packet []byte
		ok     bool
	}{
		"will of no bytes":               {packet(0x10, "MQTT", 5, 6, uint16(0), props(), "d1", props(), "w", ""), true},
		"password of no bytes":           {packet(0x10, "MQTT", 5, 0xc2, uint16(0), props(), "d2", "u", ""), true},
		"password without user, 5.0":     {packet(0x10, "MQTT", 5, 0x42, uint16(0), props(), "d3", "p"), true},
		"password without user, 3.1.1":   {packet(0x10, "MQTT", 4, 0x42, uint16(0), "d4", "p"), false},
		"Receive Maximum of 0":           {packet(0x10, "MQTT", 5, 2, uint16(0), props(0x21, uint16(0)), "d5"), false},
		"Maximum Packet Size of 0":       {packet(0x10, "MQTT", 5, 2, uint16(0), props(0x27, uint32(0)), "d6"), false},
		"reserved flag":                  {packet(0x10, "MQTT", 5, 3, uint16(0), props(), "d7"), false},
		"will of QoS 3":                  {packet(0x10, "MQTT", 5, 0x1e, uint16(0), props(), "d8", props(), "w", "p"), false},
		"will flags without a will":      {packet(0x10, "MQTT", 5, 0x0a, uint16(0), props(), "d9"), false},
		"identifier with a null":         {packet(0x10, "MQTT", 5, 2, uint16(0), props(), "a\x00b"), false},
		"identifier that is not UTF-8":   {packet(0x10, "MQTT", 5, 2, uint16(0), props(), "a\xff"), false},
		"authentication data, no method": {packet(0x10, "MQTT", 5, 2, uint16(0), props(0x16, "x"), "d10"), false},
	} {
		d := b.dial()
		d.send(c.packet)
		d.send([]byte{0xc0, 0})
		p, err := d.read(patience)
		in := err == nil && p.Type == 2 && p.Body[1] == 0
		if in != c.ok {
			t.Errorf("%s: let in %v (%v, % x)", name, in, err, p.Body)
		}
		d.drop()
	}
	for name, subscribe := range map[string][]byte{
		"reserved bits of the options": packet(0x82, uint16(1), props(), "a", 0xc0),
		"retain handling 3":            packet(0x82, uint16(1), props(), "a", 0x30),
		"QoS 3":                        packet(0x82, uint16(1), props(), "a", 3),
		"No Local on a share":          packet(0x82, uint16(1), props(), "$share/g/a", 4),
		"no filter":                    packet(0x82, uint16(1), props()),
		"identifier 0":                 packet(0x82, uint16(0), props(), "a", 0),
		"subscription identifier 0":    packet(0x82, uint16(1), props(0x0b, 0), "a", 0),
		"header flags":                 packet(0x80, uint16(1), props(), "a", 0),
	} {
		d := b.join(who{})
		d.send(subscribe)
		if reason := d.ended(); reason != 0x81 && reason != 0x82 {
			t.Errorf("SUBSCRIBE with %s: %#02x", name, reason)
		}
	}
}

// mochi: filters that are none were let in.
func TestMochi_FiltersThatAreNone(t *testing.T) {
	t.Parallel()
	b := open(t)
	c := b.join(who{})
	for _, filter := range []string{"a+/b", "+a", "a/+b", "a#", "a/b#", "#/a", "a/#/b", "##", "++", "$share//x", "$share/g/", "$share/g", "$share/+/x", "$share/#/x", "$share/g+/x", "$share/"} {
		d := c
		if filter[0] == '$' {
			d = b.join(who{}) // a share that is none may end the connection
		}
		d.send(packet(0x82, d.id(), props(), filter, 0))
		p, err := d.read(patience)
		switch {
		case err != nil:
			t.Errorf("%q: %v", filter, err)
		case p.Type == 9 && p.Body[len(p.Body)-1] < 0x80:
			t.Errorf("%q is granted", filter)
		case p.Type != 9 && p.Type != 14:
			t.Errorf("%q: packet of type %d", filter, p.Type)
		}
		if p.Type == 14 && d == c {
			c = b.join(who{})
		}
	}
	// And those that are: "+/#" matches "a".
	c.subscribe("+/#", 0)
	c.publish("a", "x", 0, 0)
	if m := c.message(); m.topic != "a" {
		t.Errorf("a message of %q", m.topic)
	}
}
