package wire

import (
	"bytes"
	"testing"
)

// versions maps a fuzzed byte to a version.
func versionOf(b byte) Version { return []Version{V31, V311, V5}[b%3] }

// addSamples seeds a fuzz target with all packets of these types.
func addSamples(f *testing.F, types ...Type) {
	for _, p := range append(samples(), refusedCorpus()...) {
		for _, t := range types {
			if p.h.Type == t {
				f.Add(p.h.Flags, byte(p.v)-3, bool(p.s), byte(p.h.Type), bytes.Clone(p.body))
			}
		}
	}
}

func refusedCorpus() (out []corpusPacket) {
	for _, p := range corpus() {
		if p.refused {
			out = append(out, p)
		}
	}
	return out
}

// fuzzBody decodes one body. What is accepted must read the same with the other
// codec and after encoding it again.
func fuzzBody(t *testing.T, typ Type, flags byte, v Version, s side, body []byte) {
	h := Header{Type: typ, Flags: flags & 0x0F, Size: 2, Remaining: len(body)}
	if g, err := ReadHeader([]byte{byte(typ)<<4 | h.Flags, 0}); err != nil || g.Type != typ {
		return
	}
	if typ == AUTH && v < V5 {
		return // refused by the caller
	}
	verdict := outcome(t, h, body, v, s)
	decoded := bytes.Clone(body) // Publish holds views over it
	got, err := decodeBody(h, decoded, v, s, nil)
	if err != nil {
		if err.Error() != verdict {
			t.Fatalf("%v, then %v", verdict, err)
		}
		return
	}
	checkAgainstReference(t, got, h, body, v)
	checkRoundTrip(t, got, typ, v, s)
}

// checkRoundTrip encodes and decodes again.
func checkRoundTrip(t *testing.T, got any, typ Type, v Version, s side) {
	t.Helper()
	var b []byte
	switch p := got.(type) {
	case *Connect:
		b, v = p.Append(nil), p.Version
	case *Connack:
		b = p.Append(nil, v)
	case *Subscribe:
		b = p.Append(nil, v)
	case *Unsubscribe:
		b = p.Append(nil, v)
	case *Suback:
		if p.ReasonString != "" || len(p.UserProperties) > 0 {
			return // the server's encoder does not write them
		}
		if typ == SUBACK {
			b = AppendSuback(nil, v, p.PacketID, p.Reasons)
		} else {
			b = AppendUnsuback(nil, v, p.PacketID, p.Reasons)
		}
	case *Disconnect:
		if v < V5 {
			return // Append writes the form of V5
		}
		b = p.Append(nil)
	case *Auth:
		b = p.Append(nil)
	case *ack:
		b = make([]byte, AckSize)
		b = b[:PutAck(b, typ, v, p.ID, p.Reason)]
	case *Publish:
		b = outgoing(p, nil, v)
		p.TopicAlias = aliasOf(p, v)
	case *fromServerPublish:
		b = outgoing(&p.Publish, p.IDs, v)
	default:
		return
	}
	again, err := decodePacket(b, v, s)
	if err != nil {
		t.Fatalf("encoded again, refused: %v\n%s\n% x", err, norm(got), b)
	}
	if c, ok := got.(*Connack); ok && v == V31 {
		c.SessionPresent = false // 3.1 has no such flag
	}
	if a, w := norm(again), norm(got); a != w {
		t.Fatalf("encoded again\n got %s\nwant %s", a, w)
	}
}

func aliasOf(p *Publish, v Version) uint16 {
	if v < V5 {
		return 0
	}
	return p.TopicAlias
}

func outgoing(p *Publish, ids []uint32, v Version) []byte {
	o := Outgoing{Version: v, QoS: p.QoS, Dup: p.Dup, Retain: p.Retain, PacketID: p.PacketID, Topic: p.Topic, Alias: p.TopicAlias,
		SubIDs: ids, Props: p.Props, ExpiryAt: p.ExpiryAt, Expiry: p.Expiry, Payload: p.Payload}
	b := make([]byte, o.Size())
	o.Put(b)
	return b
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{0x30, 0x80, 0x80, 0x80, 0x01})
	f.Add([]byte{0x10, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, err := ReadHeader(b)
		if err == nil && whole.Size > 0 {
			var enc [MaxHeaderSize]byte
			enc[0] = byte(whole.Type)<<4 | whole.Flags
			if n := 1 + putVarint(enc[1:], whole.Remaining); n != whole.Size || !bytes.Equal(enc[:n], b[:n]) {
				t.Fatalf("% x is not %+v", b, whole)
			}
		}
		// Split at every byte: wait, then the same answer.
		for n := range len(b) {
			h, e := ReadHeader(b[:n])
			if e == nil && h.Size == 0 {
				continue
			}
			if e != nil && err == nil || e == nil && h != whole {
				t.Fatalf("% x: %+v, %v; whole %+v, %v", b[:n], h, e, whole, err)
			}
			return
		}
	})
}

func FuzzPublish(f *testing.F) {
	addSamples(f, PUBLISH)
	f.Fuzz(func(t *testing.T, flags, version byte, s bool, _ byte, body []byte) {
		fuzzBody(t, PUBLISH, flags, versionOf(version), side(s), body)
	})
}

func FuzzConnect(f *testing.F) {
	addSamples(f, CONNECT)
	f.Fuzz(func(t *testing.T, flags, version byte, s bool, _ byte, body []byte) {
		fuzzBody(t, CONNECT, 0, versionOf(version), side(s), body)
	})
}

func FuzzControl(f *testing.F) {
	addSamples(f, CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, DISCONNECT, AUTH)
	f.Fuzz(func(t *testing.T, flags, version byte, s bool, typ byte, body []byte) {
		if t2 := Type(typ % 16); t2 != 0 && t2 != PUBLISH && t2 != CONNECT && t2 != PINGREQ && t2 != PINGRESP {
			fuzzBody(t, t2, flags, versionOf(version), side(s), body)
		}
	})
}
