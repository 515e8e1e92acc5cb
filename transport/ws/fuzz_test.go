package ws

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	gobwas "github.com/gobwas/ws"

	"hashplus/transport/link"
)

// FuzzUpgrade: however a request is cut, the answer is the same and well formed,
// and what is upgraded is also a request to net/http, with the same meaning.
func FuzzUpgrade(f *testing.F) {
	for _, s := range []string{
		get(), get() + "\x82\x80\x00\x00\x00\x00", get("Host: localhost", "Origin: http://[::1]:1"),
		get("+Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=\"9\", x"),
		get("GET http://u@h:1/%41?q HTTP/1.1"), get("Connection: a,Upgrade", "+Connection:"),
		"GET / HTTP/1.0\n\n", "\x16\x03\x01", "PRI * HTTP/2.0\r\n\r\n", get("+A:\r\n b"),
	} {
		f.Add(s, uint(20))
	}
	u := &Upgrader{Deflate: true, Loopback: true, Origins: []string{"http://broker.example"}, MaxBytes: 2000, MaxLines: 12}
	f.Fuzz(func(t *testing.T, input string, cut uint) {
		resp, up, rest, err := answer(t, u, input)
		at := int(cut % uint(len(input)+1))
		resp2, up2, rest2, err2 := answer(t, u, input[:at], input[at:])
		if (resp == nil) != (resp2 == nil) || !errors.Is(err, err2) || !reflect.DeepEqual(up, up2) || err == nil && rest != rest2 {
			t.Fatalf("cut at %d: %v, whole: %v", at, err2, err)
		}
		if resp == nil || err != nil {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(input)))
		if err != nil {
			t.Fatalf("net/http: %v", err)
		}
		h := up.Handshake
		if r.Method != "GET" || r.Host != h.Host || r.URL.RawQuery != h.Query || strings.TrimPrefix(r.URL.Path, "/") != strings.TrimPrefix(h.Path, "/") {
			t.Fatalf("net/http: %v %v %v, here %+v", r.Method, r.Host, r.URL, h)
		}
		if r.Header.Get("Sec-Websocket-Key") != h.Header["Sec-Websocket-Key"][0] || !reflect.DeepEqual(r.Header["Cookie"], http.Header(h.Header)["Cookie"]) {
			t.Fatalf("net/http: %v, here %v", r.Header, h.Header)
		}
	})
}

// reference reads whole messages with the blocking reader of gobwas/ws. It
// returns what drive does, without the reason for a failure.
func reference(input []byte, limit int64) (got []string) {
	in := bytes.NewReader(input)
	fail := func() []string { return append(got, "fail") }
	state := gobwas.StateServerSide
	var message []byte
	var isText bool
	for {
		h, err := gobwas.ReadHeader(in)
		if errors.Is(err, gobwas.ErrHeaderLengthMSB) {
			return fail()
		}
		if err != nil {
			return got
		}
		if gobwas.CheckHeader(h, state) != nil {
			return fail()
		}
		if !h.OpCode.IsControl() && int64(len(message))+h.Length > limit {
			return fail()
		}
		p := make([]byte, min(h.Length, int64(in.Len())))
		if _, err := io.ReadFull(in, p); err != nil {
			return got
		}
		gobwas.Cipher(p, h.Mask, 0)
		if int64(len(p)) < h.Length {
			if !h.OpCode.IsControl() && (isText && h.OpCode == gobwas.OpContinuation || h.OpCode == gobwas.OpText) && !mayBeText(append(message, p...)) {
				return fail()
			}
			return got
		}
		switch h.OpCode {
		case gobwas.OpPing:
			got = append(got, "ping:"+string(p))
			continue
		case gobwas.OpPong:
			got = append(got, "pong:"+string(p))
			continue
		case gobwas.OpClose:
			code, reason := gobwas.ParseCloseFrameData(p)
			registered := code >= 1012 && code <= 1014
			if len(p) == 1 || len(p) > 0 && (!registered && gobwas.CheckCloseFrameData(code, reason) != nil || code > 4999 || !utf8.ValidString(reason)) {
				return fail()
			}
			if len(p) == 0 {
				code = gobwas.StatusNoStatusRcvd
			}
			return append(got, fmt.Sprintf("close:%d:%s", code, reason))
		case gobwas.OpText, gobwas.OpBinary:
			isText = h.OpCode == gobwas.OpText
		}
		message = append(message, p...)
		if !h.Fin {
			state = state.Set(gobwas.StateFragmented)
			if isText && !mayBeText(message) {
				return fail()
			}
			continue
		}
		state = state.Clear(gobwas.StateFragmented)
		if isText && !utf8.Valid(message) {
			return fail()
		}
		kind := "binary:"
		if isText {
			kind = "text:"
		}
		got, message = append(got, kind+string(message)), nil
	}
}

// mayBeText reports whether p is the start of some valid UTF-8 text.
func mayBeText(p []byte) bool {
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		if r == utf8.RuneError && n == 1 {
			return !utf8.FullRune(p)
		}
		p = p[n:]
	}
	return true
}

// shortLengths reports whether the input has a length that is not encoded in
// the fewest bytes, which gobwas/ws does not look at.
func shortLengths(input []byte) bool {
	in := bytes.NewReader(input)
	for {
		at := len(input) - in.Len()
		h, err := gobwas.ReadHeader(in)
		if err != nil {
			return false
		}
		size := len(input) - in.Len() - at
		if h.Masked {
			size -= 4
		}
		if size == 4 && h.Length < 126 || size == 10 && h.Length <= 0xffff {
			return true
		}
		if _, err := in.Seek(min(h.Length, int64(in.Len())), io.SeekCurrent); err != nil {
			return false
		}
	}
}

// FuzzReader: whatever comes, however it is cut, messages and control frames are
// those that the blocking reader of gobwas/ws finds, and a stream has the bytes
// of the same binary messages.
func FuzzReader(f *testing.F) {
	for _, test := range readerTests() {
		f.Add([]byte(test.input), uint(1))
	}
	f.Add([]byte(masked(0x42, "\x00")+masked(0xc1, "\xf2\x48\xcd\xc9\xc9\x07\x00")), uint(9))
	f.Fuzz(func(t *testing.T, input []byte, cut uint) {
		at := int(cut % uint(len(input)+1))
		a, b := string(input[:at]), string(input[at:])
		for _, framing := range []link.Framing{link.WebSocket, DeflateFraming(15)} {
			for _, mode := range []bool{true, false} {
				r := NewReader(framing, mode, testLimit)
				if one, two := drive(t, r, a+b), drive(t, r, a, b); !slices.Equal(one, two) {
					t.Fatalf("cut at %d: %q, whole: %q", at, two, one)
				}
			}
		}

		strict := NewReader(link.WebSocket, true, testLimit)
		strict.Strict()
		got := drive(t, strict, a, b)
		for i := range got {
			if strings.HasPrefix(got[i], "fail:") {
				got[i] = "fail"
			}
		}
		want := reference(bytes.Clone(input), testLimit)
		if shortLengths(input) {
			// Only what comes before the bad length is the same.
			want, got = want[:min(len(want), len(got)-1)], got[:max(0, len(got)-1)]
			want = want[:min(len(want), len(got))]
		}
		// A header that is wrong is refused before it is complete, so the
		// reference can miss a failure at the very end, and nothing else.
		if len(got) == len(want)+1 && got[len(want)] == "fail" {
			got = got[:len(want)]
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

// FuzzInflate: no input makes more than the limit, and what a Codec compresses,
// in any window, comes back.
func FuzzInflate(f *testing.F) {
	f.Add([]byte("\xf2\x48\xcd\xc9\xc9\x07\x00"), uint8(7), uint16(0))
	f.Add([]byte("\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), uint8(0), uint16(3))
	f.Add(bytes.Repeat([]byte{0x03, 0x00}, 20), uint8(3), uint16(0))
	f.Add(sample(3000), uint8(0), uint16(9))
	f.Add(deflated(f, make([]byte, 5000)), uint8(1), uint16(2))
	c := new(Codec) // one for all: making its compressors is most of the work
	f.Fuzz(func(t *testing.T, p []byte, window uint8, lit uint16) {
		const limit = 4096
		got, err := c.Inflate(p, limit)
		if err == nil {
			if len(got) > limit {
				t.Fatalf("%d bytes", len(got))
			}
			// The standard library ends at the first final block.
			if want, err := standardInflate(p); err != nil || !bytes.HasPrefix(got, want) {
				t.Fatalf("got %d bytes, the standard library %d, %v", len(got), len(want), err)
			}
		}

		bits := minWindowBits + int(window)%(maxWindowBits-minWindowBits+1)
		n := int(lit)
		if n > len(p) {
			n = len(p)
		}
		frame, at := c.AppendDeflated(nil, bits, p, n)
		if !bytes.Equal(frame[at:at+n], p[:n]) {
			t.Fatal("the first bytes do not stand verbatim")
		}
		h := readFrame(t, frame)
		if !h.Header.Rsv1() {
			if !bytes.Equal(h.Payload, p) {
				t.Fatal("the plain frame has other bytes")
			}
			return
		}
		got, err = c.Inflate(h.Payload, int64(len(p)))
		if err != nil || !bytes.Equal(got, p) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		plain, distance, err := plainInflate(h.Payload)
		if err != nil || !bytes.Equal(plain, p) || distance > 1<<bits {
			t.Fatalf("%v, %d bytes, distance %d", err, len(plain), distance)
		}
	})
}
