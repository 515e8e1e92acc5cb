package ws

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"

	gobwas "github.com/gobwas/ws"

	"hashplus/transport/link"
)

// masked is a client's frame. first is its first header byte.
func masked(first byte, p string) string {
	f := gobwas.NewFrame(gobwas.OpCode(first&0x0f), first&0x80 != 0, []byte(p))
	f.Header.Rsv = first >> 4 & 7
	return string(gobwas.MustCompileFrame(gobwas.MaskFrameInPlaceWith(f, [4]byte{0xa1, 0x5e, 0x03, 0xc7})))
}

// drive feeds the pieces of input to r and returns what it reported, in order.
// Neighbouring parts of the stream are joined.
func drive(t testing.TB, r Reader, pieces ...string) []string {
	t.Helper()
	c := new(Codec)
	var got []string
	stream := false
	add := func(kind string, p []byte) {
		isStream := kind == "data"
		if isStream && stream {
			got[len(got)-1] += string(p)
		} else if !isStream || len(p) > 0 {
			got = append(got, kind+":"+string(p))
			stream = isStream
		}
	}
	for _, piece := range pieces {
		b := []byte(piece)
		for more := true; more; {
			n, ev, p, err := r.Next(b, c)
			if n < 0 || n > len(b) {
				t.Fatalf("Next took %d of %d bytes", n, len(b))
			}
			b = b[n:]
			var failed *Error
			switch {
			case errors.As(err, &failed):
				got = append(got, fmt.Sprint("fail:", failed.Code))
				stream = false
			case err != nil:
				t.Fatalf("err = %v, not an *Error", err)
			case ev == More:
				if len(b) > 0 {
					t.Fatalf("More with %d bytes left", len(b))
				}
				more = false
			case ev == Close:
				code, reason := ParseClose(p)
				add(fmt.Sprint("close:", code), reason)
			default:
				add([]string{"", "data", "data", "text", "binary", "ping", "pong"}[ev], p)
			}
		}
	}
	return got
}

// driveSplit is drive, with the input whole, cut in two at every byte, and byte
// by byte. It returns what all of these agree on.
func driveSplit(t *testing.T, r Reader, input string) []string {
	t.Helper()
	want := drive(t, r, input)
	for i := 1; i < min(len(input), 300); i++ {
		if got := drive(t, r, input[:i], input[i:]); !slices.Equal(got, want) {
			t.Fatalf("cut at %d: %q, whole: %q", i, got, want)
		}
	}
	single := make([]string, len(input))
	for i := range single {
		single[i] = input[i : i+1]
	}
	if got := drive(t, r, single...); !slices.Equal(got, want) {
		t.Fatalf("byte by byte: %q, whole: %q", got, want)
	}
	return want
}

const testLimit = 300

// Strict is to the letter: nothing unmasked passes.
func TestReader_StrictRefusesUnmaskedPongAndClose(t *testing.T) {
	for _, input := range []string{"\x8a\x02hi", "\x8a\x00", "\x88\x02\x03\xe8", "\x88\x00"} {
		r := NewReader(link.WebSocket, false, testLimit)
		r.Strict()
		if got := strings.Join(driveSplit(t, r, input), " "); got != "fail:1002" {
			t.Errorf("%x: got %q", input, got)
		}
	}
}

// readerTest is what a client sends and what is reported, per mode; stream ""
// means the same in both.
type readerTest struct {
	name     string
	input    string
	messages string
	stream   string
}

func readerTests() []readerTest {
	long := strings.Repeat("x", 126)
	raw := func(b ...byte) string { return string(b) }
	return []readerTest{
		{"one binary message", masked(0x82, "hello"), "binary:hello", "data:hello"},
		{"empty message", masked(0x82, "") + masked(0x89, ""), "binary: ping:", "ping:"},
		{"two messages", masked(0x82, "a") + masked(0x82, "b"), "binary:a binary:b", "data:ab"},
		{"16-bit length", masked(0x82, long), "binary:" + long, "data:" + long},
		{"fragments", masked(0x02, "he") + masked(0x00, "") + masked(0x80, "llo"), "binary:hello", "data:hello"},
		{"empty fragments", masked(0x02, "") + masked(0x80, ""), "binary:", ""},
		{"empty first fragment", masked(0x02, "") + masked(0x80, "x"), "binary:x", "data:x"},
		{"ping inside a message", masked(0x02, "a") + masked(0x89, "p") + masked(0x80, "b"), "ping:p binary:ab", "data:a ping:p data:b"},
		{"two pings inside a message", masked(0x02, "a") + masked(0x89, "op") + masked(0x89, "qrs") + masked(0x80, "b"), "ping:op ping:qrs binary:ab", "data:a ping:op ping:qrs data:b"},
		{"ping between empty fragments", masked(0x02, "") + masked(0x89, "p") + masked(0x80, ""), "ping:p binary:", "ping:p"},
		{"pong", masked(0x8a, "late"), "pong:late", "pong:late"},
		{"largest ping", masked(0x89, long[:125]), "ping:" + long[:125], "ping:" + long[:125]},
		{"text", masked(0x81, "grüße"), "text:grüße", "fail:1003"},
		{"text in fragments", masked(0x01, "gr\xc3") + masked(0x80, "\xbc\xc3\x9fe"), "text:grüße", "fail:1003"},
		{"three texts in fragments", masked(0x01, "grüß") + masked(0x80, "e") + masked(0x01, "\xc3") + masked(0x80, "\xa4") + masked(0x01, "") + masked(0x00, "x") + masked(0x80, ""), "text:grüße text:ä text:x", "fail:1003"},
		{"text after binary", masked(0x82, "b") + masked(0x81, "t"), "binary:b text:t", "data:b fail:1003"},

		{"close without code", masked(0x88, ""), "close:1005:", "close:1005:"},
		{"close", masked(0x88, "\x03\xe8bye"), "close:1000:bye", "close:1000:bye"},
		{"close 1012", masked(0x88, "\x03\xf4"), "close:1012:", "close:1012:"},
		{"close 3000", masked(0x88, "\x0b\xb8"), "close:3000:", "close:3000:"},
		{"close 4999", masked(0x88, "\x13\x87"), "close:4999:", "close:4999:"},
		{"nothing after close", masked(0x88, "") + masked(0x89, "") + "garbage", "close:1005:", "close:1005:"},
		{"close with one byte", masked(0x88, "\x03"), "fail:1002", ""},
		{"close 999", masked(0x88, "\x03\xe7"), "fail:1002", ""},
		{"close 1004", masked(0x88, "\x03\xec"), "fail:1002", ""},
		{"close 1005", masked(0x88, "\x03\xed"), "fail:1002", ""},
		{"close 1006", masked(0x88, "\x03\xee"), "fail:1002", ""},
		{"close 1015", masked(0x88, "\x03\xf7"), "fail:1002", ""},
		{"close 1016", masked(0x88, "\x03\xf8"), "fail:1002", ""},
		{"close 2999", masked(0x88, "\x0b\xb7"), "fail:1002", ""},
		{"close 5000", masked(0x88, "\x13\x88"), "fail:1002", ""},
		{"close reason not UTF-8", masked(0x88, "\x03\xe8\xff"), "fail:1007", ""},

		{"unmasked", "\x82\x01x", "fail:1002", ""},
		{"unmasked pong, as Python's paho sends it", "\x8a\x02hi" + masked(0x82, "x"), "pong:hi binary:x", "pong:hi data:x"},
		{"unmasked close", "\x88\x02\x03\xe8", "close:1000:", "close:1000:"},
		{"unmasked ping", "\x89\x00", "fail:1002", ""},
		{"unmasked is refused before its payload", "\x82\x7f", "fail:1002", ""},
		{"RSV1 without deflate", masked(0xc2, "x"), "fail:1002", ""},
		{"RSV2", masked(0xa2, "x"), "fail:1002", ""},
		{"RSV3", masked(0x92, "x"), "fail:1002", ""},
		{"op code 3", masked(0x83, ""), "fail:1002", ""},
		{"op code 7", masked(0x87, ""), "fail:1002", ""},
		{"op code 11", masked(0x8b, ""), "fail:1002", ""},
		{"op code 15", masked(0x8f, ""), "fail:1002", ""},
		{"fragmented ping", masked(0x09, ""), "fail:1002", ""},
		{"ping too long", masked(0x89, long), "fail:1002", ""},
		{"continuation of nothing", masked(0x80, "x"), "fail:1002", ""},
		{"continuation of a finished message", masked(0x82, "x") + masked(0x80, "x"), "binary:x fail:1002", "data:x fail:1002"},
		{"message inside a message", masked(0x02, "a") + masked(0x82, "b"), "fail:1002", "data:a fail:1002"},
		{"16-bit length of 125", raw(0x82, 0xfe, 0, 125, 1, 2, 3, 4), "fail:1002", ""},
		{"64-bit length of 65535", raw(0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4), "fail:1002", ""},
		{"64-bit length with its top bit", raw(0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4), "fail:1002", ""},
		{"ping with a 64-bit length", raw(0x89, 0xff, 0, 0, 0, 0, 0, 0, 0, 1), "fail:1002", ""},

		{"message at the limit", masked(0x82, strings.Repeat("y", testLimit)), "binary:" + strings.Repeat("y", testLimit), "data:" + strings.Repeat("y", testLimit)},
		{"message over the limit", masked(0x82, strings.Repeat("y", testLimit+1)), "fail:1009", "data:" + strings.Repeat("y", testLimit+1)},
		{"fragments over the limit", masked(0x02, strings.Repeat("y", testLimit)) + masked(0x80, "y"), "fail:1009", "data:" + strings.Repeat("y", testLimit+1)},
		{"fragments at the limit", masked(0x02, strings.Repeat("y", testLimit-1)) + masked(0x80, "y"), "binary:" + strings.Repeat("y", testLimit), "data:" + strings.Repeat("y", testLimit)},
		{"huge declared length", raw(0x82, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) + "x", "fail:1009", "data:x"},

		{"text not UTF-8", masked(0x81, "a\xffb"), "fail:1007", "fail:1003"},
		{"text cut off", masked(0x81, "a\xe2\x82"), "fail:1007", "fail:1003"},
		{"text with a surrogate", masked(0x81, "\xed\xa0\x80"), "fail:1007", "fail:1003"},
		{"text cut off in a fragment", masked(0x01, "a\xe2\x82") + masked(0x80, "b"), "fail:1007", "fail:1003"},
		{"bad text in an unfinished message", masked(0x01, "a\xf4\x90"), "fail:1007", "fail:1003"},
		{"bad text in an unfinished frame", masked(0x81, "ab\xf4\x90xyz")[:10], "fail:1007", "fail:1003"},
		{"unfinished character is no failure", masked(0x01, "\xf4\x8f\xbf"), "", "fail:1003"},
	}
}

// RFC 6455 section 5: every kind of frame, whole, cut at every byte, and in
// single bytes, in both modes.
func TestReader_FramesAreReportedHoweverTheyAreCut(t *testing.T) {
	for _, test := range readerTests() {
		t.Run(test.name, func(t *testing.T) {
			stream := test.stream
			if stream == "" && strings.HasPrefix(test.messages, "fail") {
				stream = test.messages
			}
			for _, mode := range []struct {
				messages bool
				want     string
			}{{true, test.messages}, {false, stream}} {
				got := driveSplit(t, NewReader(link.WebSocket, mode.messages, testLimit), test.input)
				if s := strings.Join(got, " "); s != mode.want {
					t.Errorf("messages %v: got %q, want %q", mode.messages, s, mode.want)
				}
			}
		})
	}
}

func TestReader_StreamHandsOnPayloadBeforeItsFrameIsComplete(t *testing.T) {
	frame := masked(0x82, strings.Repeat("z", 1000))
	if got := drive(t, NewReader(link.WebSocket, false, 10), frame[:100]); len(got) != 1 || got[0] != "data:"+strings.Repeat("z", 92) {
		t.Errorf("got %q", got)
	}
}

func TestReader_IdleConnectionHoldsNothing(t *testing.T) {
	if size := unsafe.Sizeof(Reader{}); size > 48 {
		t.Errorf("a Reader has %d bytes", size)
	}
	for _, test := range readerTests() {
		r := NewReader(link.WebSocket, true, testLimit)
		c := new(Codec)
		for i := range len(test.input) {
			if _, _, _, err := r.Next([]byte{test.input[i]}, c); err != nil {
				break
			}
		}
		if r.Ended() && r.part != nil || r.nhead == 0 && r.is&fragmented == 0 && r.part != nil {
			t.Errorf("%s: memory is held", test.name)
		}
		r.Release(c)
		if r.part != nil || !r.Ended() {
			t.Errorf("%s: memory is held after Release", test.name)
		}
	}
}

func TestReader_StreamIsOfBinaryMessagesOnly(t *testing.T) { // [MQTT-6.0.0-1]
	r := NewReader(link.WebSocket, false, testLimit)
	for input, want := range map[string]string{
		masked(0x82, "packet"):                         "data:packet",
		masked(0x81, "packet"):                         "fail:1003",
		masked(0x01, ""):                               "fail:1003",
		masked(0x82, "packet") + masked(0x81, "other"): "data:packet fail:1003",
	} {
		if got := strings.Join(driveSplit(t, r, input), " "); got != want {
			t.Errorf("%x: got %q, want %q", input, got, want)
		}
	}
}

func TestReader_PacketsNeedNotAlignWithFrames(t *testing.T) { // [MQTT-6.0.0-2]
	const packets = "\xc0\x00\xe0\x00\x30\x05\x00\x01tpp"
	r := NewReader(link.WebSocket, false, testLimit)
	for size := 1; size <= len(packets); size++ {
		input := ""
		for at := 0; at < len(packets); at += size {
			input += masked(0x82, packets[at:min(at+size, len(packets))])
		}
		if got := driveSplit(t, r, input); len(got) != 1 || got[0] != "data:"+packets {
			t.Errorf("%d bytes in a frame: %q", size, got)
		}
	}
}

func TestReader_IsIdleBetweenMessagesOnly(t *testing.T) {
	r, c := NewReader(link.WebSocket, true, testLimit), new(Codec)
	for _, step := range []struct {
		input string
		idle  bool
	}{
		{"", true},
		{masked(0x82, "whole"), true},
		{masked(0x82, "cut")[:3], false},
		{masked(0x82, "cut")[3:], true},
		{masked(0x02, ""), false},
		{masked(0x89, ""), false},
		{masked(0x80, ""), true},
	} {
		for b := []byte(step.input); len(b) > 0; {
			n, _, _, err := r.Next(b, c)
			if err != nil {
				t.Fatal(err)
			}
			b = b[n:]
		}
		if r.Idle() != step.idle {
			t.Errorf("after %x: Idle() = %v", step.input, r.Idle())
		}
	}
}

func TestReader_SaysWhichLengthRuleIsBroken(t *testing.T) {
	for input, want := range map[string]*Error{
		"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00": errLengthMSB,
		"\x82\xff\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00": errLengthMinimal,
		"\x82\xfe\x00\x01\x00\x00\x00\x00":                         errLengthMinimal,
	} {
		r := NewReader(link.WebSocket, false, testLimit)
		if _, _, _, err := r.Next([]byte(input), new(Codec)); err != error(want) {
			t.Errorf("%x: %v", input, err)
		}
	}
}

func TestReader_MemoryGrowsWithWhatComesNotWithWhatIsDeclared(t *testing.T) {
	r, c := NewReader(link.WebSocket, true, 1<<30), new(Codec)
	b := []byte("\x82\xff\x00\x00\x00\x00\x3f\xff\xff\xff\x00\x00\x00\x00some")
	if _, _, _, err := r.Next(b, c); err != nil {
		t.Fatal(err)
	}
	if n := cap(r.part.message); n > 64 {
		t.Errorf("%d bytes are held for 4", n)
	}
}

func TestReader_TakesFramesWithoutAllocating(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	input := []byte(masked(0x82, "hello") + masked(0x02, "wor") + masked(0x89, "p") + masked(0x80, "ld") + masked(0x8a, ""))
	b, c := make([]byte, len(input)), new(Codec)
	for _, messages := range []bool{false, true} {
		r := NewReader(link.WebSocket, messages, 1<<20)
		run := func(step int) func() {
			return func() {
				copy(b, input)
				for at := 0; at < len(b); {
					n, _, _, err := r.Next(b[at:min(at+step, len(b))], c)
					if err != nil {
						t.Fatal(err)
					}
					at += n
				}
			}
		}
		for _, step := range []int{len(b), 3} {
			if n := testing.AllocsPerRun(100, run(step)); n != 0 {
				t.Errorf("messages %v, %d bytes at a time: %v allocations", messages, step, n)
			}
		}
	}
}

func BenchmarkReader(b *testing.B) {
	for _, size := range []int{16, 128, 1024, 16384} {
		one := masked(0x82, strings.Repeat("m", size))
		input := []byte(strings.Repeat(one, max(1, 32768/len(one))))
		buf, c := make([]byte, len(input)), new(Codec)
		for _, messages := range []bool{false, true} {
			b.Run(fmt.Sprintf("payload=%d/messages=%v", size, messages), func(b *testing.B) {
				r := NewReader(link.WebSocket, messages, 1<<20)
				frames := 0
				b.SetBytes(int64(len(input)))
				b.ReportAllocs()
				for b.Loop() {
					copy(buf, input)
					for at := 0; at < len(buf); {
						n, ev, _, err := r.Next(buf[at:], c)
						if err != nil {
							b.Fatal(err)
						}
						if ev != More {
							frames++
						}
						at += n
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(frames), "ns/frame")
			})
		}
	}
}
