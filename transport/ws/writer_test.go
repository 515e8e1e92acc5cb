package ws

import (
	"bytes"
	"strings"
	"testing"

	gobwas "github.com/gobwas/ws"

	"hashplus/transport/link"
)

// readFrame decodes one frame to a client with gobwas/ws, and checks that
// nothing follows it.
func readFrame(t testing.TB, frame []byte) gobwas.Frame {
	t.Helper()
	in := bytes.NewReader(frame)
	h, err := gobwas.ReadHeader(in)
	if err != nil {
		t.Fatalf("%x: %v", frame[:min(len(frame), 20)], err)
	}
	state := gobwas.StateClientSide.Set(gobwas.StateExtended)
	if err := gobwas.CheckHeader(h, state); err != nil {
		t.Fatalf("%+v: %v", h, err)
	}
	p := frame[len(frame)-in.Len():]
	if int64(len(p)) != h.Length {
		t.Fatalf("the header says %d bytes, %d follow", h.Length, len(p))
	}
	return gobwas.Frame{Header: h, Payload: p}
}

func TestAppend_FramesReadBackAsWritten(t *testing.T) {
	long := strings.Repeat("w", 70000)
	for _, test := range []struct {
		name    string
		frame   []byte
		op      gobwas.OpCode
		payload string
	}{
		{"binary", AppendMessage(nil, false, []byte("b")), gobwas.OpBinary, "b"},
		{"text", AppendMessage(nil, true, []byte("t")), gobwas.OpText, "t"},
		{"empty", AppendMessage(nil, false, nil), gobwas.OpBinary, ""},
		{"125", AppendMessage(nil, false, []byte(long[:125])), gobwas.OpBinary, long[:125]},
		{"126", AppendMessage(nil, false, []byte(long[:126])), gobwas.OpBinary, long[:126]},
		{"65535", AppendMessage(nil, false, []byte(long[:65535])), gobwas.OpBinary, long[:65535]},
		{"65536", AppendMessage(nil, false, []byte(long[:65536])), gobwas.OpBinary, long[:65536]},
		{"ping", AppendPing(nil, []byte("p")), gobwas.OpPing, "p"},
		{"prebuilt ping", []byte(PingFrame), gobwas.OpPing, ""},
		{"pong", AppendPong(nil, []byte("q")), gobwas.OpPong, "q"},
		{"longest pong", AppendPong(nil, []byte(long[:200])), gobwas.OpPong, long[:125]},
		{"close", AppendClose(nil, link.CloseGoingAway, "bye"), gobwas.OpClose, "\x03\xe9bye"},
		{"close without code", AppendClose(nil, 0, "lost"), gobwas.OpClose, ""},
		{"close 1005", AppendClose(nil, 1005, "lost"), gobwas.OpClose, ""},
		{"close 1006", AppendClose(nil, 1006, ""), gobwas.OpClose, ""},
		{"close with a long reason", AppendClose(nil, 1011, long[:122]+"é"), gobwas.OpClose, "\x03\xf3" + long[:122]},
		{"close with the longest reason", AppendClose(nil, 1011, long[:121]+"é"), gobwas.OpClose, "\x03\xf3" + long[:121] + "é"},
		{"close with a reason not UTF-8", AppendClose(nil, 1011, "\xff"), gobwas.OpClose, "\x03\xf3"},
		{"answer to a close", AppendCloseReply(nil, []byte("\x03\xe8why")), gobwas.OpClose, "\x03\xe8"},
		{"answer to a close without code", AppendCloseReply(nil, nil), gobwas.OpClose, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := readFrame(t, test.frame)
			if f.Header.OpCode != test.op || !f.Header.Fin || f.Header.Rsv != 0 || string(f.Payload) != test.payload {
				t.Errorf("got %+v %.40q", f.Header, f.Payload)
			}
			if n := len(test.frame); f.Header.OpCode.IsControl() && n > MaxControlFrame {
				t.Errorf("%d bytes", n)
			}
		})
	}
}

// link.Framing computes headers by itself, so that the broker can write frames
// without this package. They must be the same ones.
func TestPutHeader_AgreesWithFraming(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 1 << 30} {
		var a, b [MaxHeader]byte
		k := PutHeader(a[:], finBit|byte(gobwas.OpBinary), n)
		if want := link.WebSocket.PutHeader(b[:], n); k != want || a != b || k != link.WebSocket.HeaderLen(n) {
			t.Errorf("n = %d: % x and % x", n, a[:k], b[:want])
		}
	}
}

func TestAppend_AllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	dst, p := make([]byte, 0, 4096), bytes.Repeat([]byte("payload "), 100)
	var c Codec
	for name, f := range map[string]func(){
		"AppendMessage":           func() { AppendMessage(dst, true, p) },
		"AppendPong":              func() { AppendPong(dst, p[:8]) },
		"AppendClose":             func() { AppendClose(dst, 1001, "bye") },
		"AppendFrame, plain":      func() { c.AppendFrame(dst, link.WebSocket, p, 0) },
		"AppendFrame, compressed": func() { c.AppendFrame(dst, DeflateFraming(15), p, 12) },
		"Codec.AppendMessage":     func() { c.AppendMessage(dst, DeflateFraming(9), true, p) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
