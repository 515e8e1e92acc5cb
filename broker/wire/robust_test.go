package wire

import (
	"bytes"
	"fmt"
	"testing"
)

// samples is every accepted packet of the corpus and of wherePropertiesGo.
func samples() (out []corpusPacket) {
	for _, p := range corpus() {
		if !p.refused {
			out = append(out, p)
		}
	}
	for id := range propertyRules {
		if propertyRules[id].kind == kindUnknown {
			continue
		}
		for typ, place := range wherePropertiesGo(props(sample(byte(id)), sample(propUser))) {
			if propertyRules[id].in&(1<<typ) == 0 {
				continue
			}
			if h, err := ReadHeader(place.b); err == nil {
				out = append(out, corpusPacket{name: fmt.Sprintf("%v with property %d", typ, id), h: h, body: place.b[h.Size:], v: V5, s: place.s})
			}
		}
	}
	return out
}

// outcome decodes body with other bytes behind it, which must not matter.
func outcome(t *testing.T, h Header, body []byte, v Version, s side) string {
	t.Helper()
	h.Remaining = len(body)
	results := [2]string{}
	for i, filler := range []byte{0x00, 0xFF} {
		padded := append(bytes.Clone(body), bytes.Repeat([]byte{filler}, 64)...)
		got, err := decodeBody(h, padded[:len(body)], v, s, nil)
		if err != nil {
			if _, ok := err.(*Error); !ok {
				t.Fatalf("%T is no *Error", err)
			}
			results[i] = err.Error()
		} else {
			results[i] = norm(got)
		}
		for _, c := range padded[len(body):] {
			if c != filler {
				t.Fatalf("bytes behind %v % x were written", h, body)
			}
		}
	}
	if results[0] != results[1] {
		t.Fatalf("bytes behind %v % x were read:\n%s\n%s", h, body, results[0], results[1])
	}
	return results[0]
}

func TestDecoders_EveryTruncation(t *testing.T) {
	for _, p := range samples() {
		for n := range len(p.body) + 1 {
			for _, v := range []Version{V31, V311, V5} {
				outcome(t, p.h, p.body[:n], v, p.s)
			}
		}
	}
}

func TestDecoders_EveryByteChanged(t *testing.T) {
	for _, p := range samples() {
		for i := range p.body {
			was := p.body[i]
			for _, c := range []byte{was ^ 0xFF, was ^ 0x80, was ^ 1, was + 1, was - 1, 0, 0x7F, 0xFF} {
				p.body[i] = c
				outcome(t, p.h, p.body, p.v, p.s)
			}
			p.body[i] = was
		}
		for flags := range byte(16) {
			h := p.h
			h.Flags = flags
			outcome(t, h, p.body, p.v, p.s)
		}
	}
}

func TestReadHeader_AnyBytes(t *testing.T) {
	for first := range 256 {
		for second := range 256 {
			b := []byte{byte(first), byte(second), 0x80, 0x01, 0, 0xFF}
			for cut := range len(b) + 1 {
				h, err := ReadHeader(b[:cut])
				if err != nil && h != (Header{}) || h.Size > cut {
					t.Fatalf("% x: %+v, %v", b[:cut], h, err)
				}
			}
		}
	}
}
