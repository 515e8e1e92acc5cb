package wire

import (
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// hot is the packets of the hot path, for the allocation test and benchmarks.
var hot = struct {
	plain, v5, v5full []byte
}{
	plain: pkt(0x30, str("sensor/building7/floor3/temperature"), make([]byte, 64)),
	v5:    pkt(0x32, str("sensor/building7/floor3/temperature"), u16(77), props(), make([]byte, 64)),
	v5full: pkt(0x32, str("sensor/building7/floor3/temperature"), u16(77), props(prop(propTopicAlias, 0, 3), prop(propMessageExpiry, 0, 0, 1, 0),
		prop(propResponseTopic, str("reply/to/me")...), prop(propCorrelationData, str("12345678")...), sample(propUser)), make([]byte, 64)),
}

// scratch copies b before each decoding, as Decode may move bytes.
func scratch(b []byte) (Header, func() []byte) {
	h, err := ReadHeader(b)
	if err != nil {
		panic(err)
	}
	body := make([]byte, h.Remaining)
	return h, func() []byte { copy(body, b[h.Size:]); return body }
}

func TestHotPath_DoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	var p Publish
	lim := &Limits{UserProperties: 10, TopicLength: 1000, TopicLevels: 100}
	cases := map[string]func(){}
	for name, c := range map[string]struct {
		b []byte
		v Version
	}{"Publish.Decode 3.1.1": {hot.plain, V311}, "Publish.Decode 5.0": {hot.v5, V5}, "Publish.Decode 5.0 with properties": {hot.v5full, V5}} {
		h, body := scratch(c.b)
		cases[name] = func() {
			if err := p.Decode(h, body(), c.v, lim); err != nil {
				t.Fatal(err)
			}
		}
	}
	h, body := scratch(hot.v5full)
	if err := p.Decode(h, body(), V5, nil); err != nil {
		t.Fatal(err)
	}
	o := Outgoing{Version: V5, QoS: 1, Topic: p.Topic, Alias: 3, SubIDs: []uint32{1, 2}, Props: p.Props, ExpiryAt: p.ExpiryAt, Expiry: 9, Payload: p.Payload}
	dst := make([]byte, o.Size())
	cases["Outgoing.Put"] = func() {
		if o.Size() != len(dst) {
			t.Fatal("size")
		}
		o.Put(dst)
	}
	var b [AckSize]byte
	cases["PutAck"] = func() { PutAck(b[:], PUBACK, V5, 7, NoMatchingSubscribers) }
	full := pkt(0x40, u16(7), raw(0x10), props(sample(propReasonString), sample(propUser)))
	cases["ReadAck"] = func() {
		if _, _, err := ReadAck(Header{Type: PUBACK}, full[2:], V5, lim); err != nil {
			t.Fatal(err)
		}
	}
	cases["ReadHeader"] = func() {
		if h, err := ReadHeader(hot.v5full); err != nil || h.Size == 0 {
			t.Fatal(err)
		}
	}
	for name, f := range cases {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkReadHeader(b *testing.B) {
	for b.Loop() {
		if h, _ := ReadHeader(hot.v5); h.Size == 0 {
			b.Fatal()
		}
	}
}

func BenchmarkPublishDecode(b *testing.B) {
	for name, c := range map[string]struct {
		b []byte
		v Version
	}{"3.1.1": {hot.plain, V311}, "5.0": {hot.v5, V5}, "5.0-properties": {hot.v5full, V5}} {
		b.Run(name, func(b *testing.B) {
			h, body := scratch(c.b)
			lim := &Limits{UserProperties: 10, TopicLength: 1000, TopicLevels: 100}
			var p Publish
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Decode(h, body(), c.v, lim); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOutgoingPut(b *testing.B) {
	for name, o := range map[string]Outgoing{
		"3.1.1": {Version: V311, Topic: make([]byte, 35), Payload: make([]byte, 64)},
		"5.0":   {Version: V5, QoS: 1, PacketID: 1, Topic: make([]byte, 35), Payload: make([]byte, 64), SubIDs: []uint32{7}},
	} {
		b.Run(name, func(b *testing.B) {
			dst := make([]byte, 200)
			b.ReportAllocs()
			for b.Loop() {
				_ = o.Size()
				o.Put(dst)
			}
		})
	}
}

func BenchmarkPutAck(b *testing.B) {
	var dst [AckSize]byte
	for b.Loop() {
		PutAck(dst[:], PUBACK, V5, 7, Success)
	}
}

func BenchmarkReadAck(b *testing.B) {
	body := u16(7)
	for b.Loop() {
		if _, _, err := ReadAck(Header{Type: PUBACK}, body, V5, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeConnect(b *testing.B) {
	in := connect(V5, 0xC6, props(prop(propSessionExpiry, 0, 0, 1, 0), prop(propReceiveMaximum, 0, 7)), str("a-client-identifier"), props(),
		str("will/topic"), str("gone"), str("user"), str("secret"))
	h, err := ReadHeader(in)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeConnect(h, in[h.Size:], nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("reference", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}}
			if err := pk.ConnectDecode(in[h.Size:]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecodeSubscribe(b *testing.B) {
	in := pkt(0x82, u16(1), props(prop(propSubscriptionID, 7)), str("sensor/+/temperature"), raw(1))
	h, err := ReadHeader(in)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeSubscribe(h, in[h.Size:], V5, nil); err != nil {
			b.Fatal(err)
		}
	}
}
