package ws

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	gobwas "github.com/gobwas/ws"

	"hashplus/transport/link"
)

// sample is n bytes that repeat themselves at every distance, near and far.
func sample(n int) []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n+64)
	for len(b) < n {
		if len(b) > 64 && rnd.IntN(4) > 0 {
			at := rnd.IntN(len(b) - 32)
			b = append(b, b[at:at+4+rnd.IntN(28)]...)
		} else {
			b = append(b, byte(rnd.IntN(256)))
		}
	}
	return b[:n]
}

// standardInflate decompresses the data of one message with the standard library.
func standardInflate(p []byte) ([]byte, error) {
	return io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(p), strings.NewReader(deflateTail))))
}

// RFC 7692 section 7.2.1; the verbatim bytes are a promise of link.Loop.
func TestAppendFrame_ReadsBackAndLeavesTheFirstBytesVerbatim(t *testing.T) {
	var c Codec
	prefix := []byte("before")
	for _, size := range []int{0, 1, minDeflate - 1, minDeflate, 200, 3000, 70000, 200000} {
		p := sample(size)
		if size == 200 {
			p = bytes.Repeat([]byte("ab"), 100)
		}
		for _, lit := range []int{0, 1, 7, 64, 4000, 65535, 65536} {
			if lit > size {
				continue
			}
			for _, f := range []link.Framing{link.Raw, link.WebSocket, DeflateFraming(8), DeflateFraming(11), DeflateFraming(15)} {
				frame, at := c.AppendFrame(append([]byte(nil), prefix...), f, p, lit)
				name := fmt.Sprintf("%d bytes, %d verbatim, framing %d", size, lit, f)
				if !bytes.HasPrefix(frame, prefix) {
					t.Fatalf("%s: dst was changed", name)
				}
				if !bytes.Equal(frame[at:at+lit], p[:lit]) {
					t.Fatalf("%s: the first bytes do not stand at %d", name, at)
				}
				if lit > 0 { // patch them
					frame[at] ^= 0x55
				}
				got := frame[len(prefix):]
				if f != link.Raw {
					h := readFrame(t, got)
					got = h.Payload
					if h.Header.OpCode != gobwas.OpBinary || !h.Header.Fin {
						t.Fatalf("%s: %+v", name, h.Header)
					}
					if h.Header.Rsv1() {
						if !f.Compressed() {
							t.Fatalf("%s: compressed", name)
						}
						var err error
						if got, err = standardInflate(got); err != nil {
							t.Fatalf("%s: %v", name, err)
						}
					}
				}
				if lit > 0 {
					got = append([]byte(nil), got...)
					got[0] ^= 0x55
				}
				if !bytes.Equal(got, p) {
					t.Fatalf("%s: something else came back", name)
				}
			}
		}
	}
}

func TestAppendDeflated_CompressesWhereItPays(t *testing.T) {
	var c Codec
	random := make([]byte, 5000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for _, test := range []struct {
		name string
		p    []byte
		want bool
	}{
		{"text", bytes.Repeat([]byte(`{"temperature":21.5}`), 10), true},
		{"a short packet", bytes.Repeat([]byte("a"), minDeflate-1+4), false},
		{"noise", random, false},
	} {
		frame, _ := c.AppendDeflated(nil, 15, test.p, 4)
		if got := readFrame(t, frame).Header.Rsv1(); got != test.want {
			t.Errorf("%s: compressed %v", test.name, got)
		}
		if len(frame) > len(test.p)+link.WebSocket.HeaderLen(len(test.p)) {
			t.Errorf("%s: compression made it larger", test.name)
		}
	}
}

// RFC 7692 section 7.1.2.1: a client that asked for a window may hold no more.
func TestAppendDeflated_StaysInsideTheWindow(t *testing.T) {
	var c Codec
	p := sample(100000)
	for bits := minWindowBits; bits <= maxWindowBits; bits++ {
		frame, _ := c.AppendDeflated(nil, bits, p, 10)
		f := readFrame(t, frame)
		if !f.Header.Rsv1() {
			t.Fatalf("%d bits: not compressed", bits)
		}
		got, distance, err := plainInflate(f.Payload)
		if err != nil || !bytes.Equal(got, p) {
			t.Fatalf("%d bits: %v, %d bytes", bits, err, len(got))
		}
		if distance > 1<<bits {
			t.Errorf("%d bits: refers back %d bytes", bits, distance)
		}
		if bits >= 10 && distance <= 1<<(bits-2) {
			t.Errorf("%d bits: refers back %d bytes only", bits, distance)
		}
	}
}

// deflated is p as a client compresses it.
func deflated(t testing.TB, p []byte) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte(syncTail))
}

// deflatedAfter is p compressed with reference to the history before it.
func deflatedAfter(t testing.TB, history, p []byte) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriterDict(&b, flate.BestCompression, history)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if b.Len() > len(p) {
		t.Fatalf("%d bytes: it does not refer back", b.Len())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte(syncTail))
}

// finalBlock is p compressed to a final block.
func finalBlock(t testing.TB, p []byte) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestInflate_GivesBackWhatWasCompressed(t *testing.T) {
	var c Codec
	hundred := sample(100)
	hello := []byte{0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00}
	for _, test := range []struct {
		name string
		in   []byte
		want string
	}{
		{"nothing", deflated(t, nil), ""},
		{"long", deflated(t, sample(100000)), string(sample(100000))},
		// The examples of RFC 7692 section 7.2.3.
		{"one block", hello, "Hello"},
		{"no compression", append([]byte{0x00, 0x05, 0x00, 0xfa, 0xff}, "Hello\x00"...), "Hello"},
		{"final block", []byte{0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00}, "Hello"},
		{"two blocks", []byte{0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00}, "Hello"},
		{"block that refers back over a final one", append(finalBlock(t, hundred), deflatedAfter(t, hundred, hundred)...), string(hundred) + string(hundred)},
		{"a few final blocks", append(bytes.Repeat([]byte{0x03, 0x00}, maxFinals-1), 0), ""},
		{"block after a final one", append([]byte{0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00}, hello...), "HelloHello"},
	} {
		got, err := c.Inflate(test.in, 100000)
		if err != nil || string(got) != test.want {
			t.Errorf("%s: %v, %d bytes", test.name, err, len(got))
		}
	}
}

func TestInflate_RefusesWhatIsTooBigOrDamaged(t *testing.T) {
	var c Codec
	bomb := deflated(t, make([]byte, 4<<20))
	finals := func(n int) []byte { return append(bytes.Repeat([]byte{0x03, 0x00}, n), 0) } // empty ones
	for _, test := range []struct {
		name  string
		in    []byte
		limit int64
		code  link.CloseCode
	}{
		{"one byte more than the limit", deflated(t, sample(1001)), 1000, link.CloseTooBig},
		{"a bomb", bomb, 1 << 20, link.CloseTooBig},
		{"a bad block type", []byte{0x06}, 1000, link.CloseInvalidData},
		{"cut off", deflated(t, sample(1000))[:100], 1000, link.CloseInvalidData},
		{"nothing at all", nil, 1000, link.CloseInvalidData},
		{"a distance before the start", []byte{0x4b, 0x04, 0x92, 0x00}, 1000, link.CloseInvalidData},
		{"many final blocks", finals(100000), 1000, link.CloseInvalidData},
	} {
		_, err := c.Inflate(test.in, test.limit)
		var e *Error
		if !errors.As(err, &e) || e.Code != test.code {
			t.Errorf("%s: %v", test.name, err)
		}
		if n := cap(c.inflated); int64(n) > 4*test.limit+maxKeptBuffer {
			t.Errorf("%s: %d bytes were made for a limit of %d", test.name, n, test.limit)
		}
	}
	if got, err := c.Inflate(deflated(t, []byte("still works")), 1000); err != nil || string(got) != "still works" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestInflate_AllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	var c Codec
	in := deflated(t, bytes.Repeat([]byte("warm "), 2000))
	if n := testing.AllocsPerRun(50, func() {
		if _, err := c.Inflate(in, 1<<20); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// RFC 7692 sections 6 and 7.2.2.
func TestReader_CompressedMessages(t *testing.T) {
	z := string(deflated(t, []byte("hello, hello, hello")))
	bad := string(deflated(t, []byte("a\xff")))
	big := string(deflated(t, make([]byte, testLimit+1)))
	for _, test := range []readerTest{
		{"one frame", masked(0xc2, z), "binary:hello, hello, hello", "data:hello, hello, hello"},
		{"text", masked(0xc1, z), "text:hello, hello, hello", "fail:1003"},
		{"fragments", masked(0x42, z[:3]) + masked(0x89, "p") + masked(0x00, "") + masked(0x80, z[3:]), "ping:p binary:hello, hello, hello", "ping:p data:hello, hello, hello"},
		{"between plain ones", masked(0x82, "a") + masked(0xc2, z) + masked(0x82, "b"), "binary:a binary:hello, hello, hello binary:b", "data:ahello, hello, hellob"},
		{"empty", masked(0xc2, "\x00"), "binary:", ""},
		{"RSV1 on a continuation", masked(0x42, z[:3]) + masked(0xc0, z[3:]), "fail:1002", "fail:1002"},
		{"RSV1 on a ping", masked(0xc9, ""), "fail:1002", "fail:1002"},
		{"RSV2", masked(0xa2, ""), "fail:1002", "fail:1002"},
		{"text not UTF-8", masked(0xc1, bad), "fail:1007", "fail:1003"},
		{"damaged", masked(0xc2, "\x06"), "fail:1007", "fail:1007"},
		{"inflates over the limit", masked(0xc2, big), "fail:1009", "fail:1009"},
		{"over the limit before it is inflated", masked(0xc2, strings.Repeat("x", 2*testLimit)), "fail:1009", "fail:1009"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for mode, want := range map[bool]string{true: test.messages, false: test.stream} {
				got := driveSplit(t, NewReader(DeflateFraming(15), mode, testLimit), test.input)
				if s := strings.Join(got, " "); s != want {
					t.Errorf("messages %v: got %q, want %q", mode, s, want)
				}
			}
		})
	}
}

func BenchmarkAppendDeflated(b *testing.B) {
	p := bytes.Repeat([]byte(`{"sensor":"kitchen","temperature":21.5},`), 25)
	for _, bits := range []int{9, 15} {
		b.Run(fmt.Sprintf("bits=%d", bits), func(b *testing.B) {
			var c Codec
			dst := make([]byte, 0, 4096)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				c.AppendDeflated(dst, bits, p, 16)
			}
		})
	}
}

func BenchmarkInflate(b *testing.B) {
	var c Codec
	p := bytes.Repeat([]byte(`{"sensor":"kitchen","temperature":21.5},`), 25)
	in := deflated(b, p)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Inflate(in, 1<<20); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAppendFrame_CompressesNothingBelowMinSize(t *testing.T) {
	packet := bytes.Repeat([]byte("a"), 1000)
	for least, compressed := range map[int]bool{0: true, 1: true, 1000: true, 1001: false} {
		c := Codec{MinSize: least}
		frame, _ := c.AppendFrame(nil, DeflateFraming(15), packet, 0)
		if (len(frame) < len(packet)) != compressed {
			t.Errorf("from %d on: %d bytes", least, len(frame))
		}
	}
}
