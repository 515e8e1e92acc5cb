package wire

import (
	"bytes"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// corpusPacket is a packet of the other codec's test data.
type corpusPacket struct {
	name    string
	h       Header
	body    []byte
	v       Version
	s       side
	refused bool // by the other codec
	id      byte
}

// corpus is all packets that the other codec decodes in its own tests.
func corpus() (out []corpusPacket) {
	for t := CONNECT; t <= AUTH; t++ {
		for _, c := range packets.TPacketData[byte(t)] {
			if len(c.RawBytes) == 0 || c.Group != "" && c.Group != "decode" {
				continue
			}
			p := corpusPacket{name: t.String() + " " + c.Desc, v: V311, refused: c.FailFirst != nil, id: c.Case}
			if c.Packet != nil && c.Packet.ProtocolVersion == 5 {
				p.v = V5
			}
			switch t {
			case CONNACK, SUBACK, UNSUBACK, PINGRESP:
				p.s = fromServer
			}
			switch c.Case {
			case packets.TPublishSubscriberIdentifier, packets.TPublishMqtt5, packets.TDisconnectTakeover, packets.TDisconnectShuttingDown:
				p.s = fromServer // what only a server sends
			}
			// A bad packet's Remaining Length is often not that of its bytes.
			p.h = Header{Type: t, Flags: c.RawBytes[0] & 15, Size: 2, Remaining: len(c.RawBytes) - 2}
			if h, err := ReadHeader(c.RawBytes); err == nil && h.Size+h.Remaining == len(c.RawBytes) {
				p.h = h
			}
			p.body = bytes.Clone(c.RawBytes[p.h.Size:])
			out = append(out, p)
		}
	}
	return out
}

// stricter is where we refuse what the other codec decodes, and why.
var stricter = map[byte]struct {
	reason ReasonCode
	why    string
}{
	packets.TConnackProtocolViolationNoSession: {ProtocolError, "a return code of 3.x is at most 5"},
	packets.TConnackBadProtocolVersion:         {ProtocolError, "a return code of 3.x is at most 5"},
	packets.TConnackBadClientID:                {ProtocolError, "a return code of 3.x is at most 5"},
	packets.TConnackServerUnavailable:          {ProtocolError, "a return code of 3.x is at most 5"},
	packets.TConnackBadUsernamePassword:        {ProtocolError, "a return code of 3.x is at most 5"},
	packets.TConnackNotAuthorised:              {ProtocolError, "a return code of 3.x is at most 5"},
	packets.TPublishDup:                        {ProtocolError, "DUP is 0 at QoS 0 [MQTT-3.3.1-2]"},
}

// incomplete are packets that are refused there because their Remaining Length
// is beyond their bytes. Here more bytes are waited for, so that a decoder
// never sees such a body, and what there is of it is a whole packet.
var incomplete = map[byte]bool{
	packets.TPubrecMalReasonCode:     true,
	packets.TDisconnectMalReasonCode: true,
	packets.TAuthMalReasonCode:       true,
}

// TestCorpus_IsDecodedAsTheReferenceDoes holds every packet of the other
// codec's test data against our decoders.
func TestCorpus_IsDecodedAsTheReferenceDoes(t *testing.T) {
	seen := 0
	for _, p := range corpus() {
		if incomplete[p.id] {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			before := bytes.Clone(p.body)
			got, err := decodeBody(p.h, p.body, p.v, p.s, nil)
			if d, ok := stricter[p.id]; ok && !p.refused {
				seen++
				if e, _ := err.(*Error); e == nil || e.Reason != d.reason {
					t.Fatalf("got %v, want %v: %s", err, d.reason, d.why)
				}
				return
			}
			if (err != nil) != p.refused {
				t.Fatalf("error %v, but refused by the reference: %v\n% x", err, p.refused, before)
			}
			if err == nil {
				checkAgainstReference(t, got, p.h, before, p.v)
			}
		})
	}
	if seen != len(stricter) {
		t.Errorf("%d of %d differences were met", seen, len(stricter))
	}
}
