package codec

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEncode_BytesAreThoseOfTheSpecification(t *testing.T) {
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"connect 3.1.1", AppendConnect(nil, &Connect{Version: V311, ClientID: "ab", KeepAlive: 60}), "10 0e 0004 4d515454 04 02 003c 0002 6162"},
		{
			"connect 5", AppendConnect(nil, &Connect{Version: V5, ClientID: "a", Username: "u", Password: "p"}),
			"10 14 0004 4d515454 05 c2 0000 00 0001 61 0001 75 0001 70",
		},
		{"durable 3.1.1", AppendConnect(nil, &Connect{Version: V311, ClientID: "ab", Durable: true}), "10 0e 0004 4d515454 04 00 0000 0002 6162"},
		{
			"durable 5", AppendConnect(nil, &Connect{Version: V5, ClientID: "a", Durable: true}),
			"10 13 0004 4d515454 05 00 0000 05 1100015180 0001 61",
		},
		{"subscribe 3.1.1", AppendSubscribe(nil, V311, 10, []Subscription{{"a/b", 1}, {"#", 2}}), "82 0c 000a 0003 612f62 01 0001 23 02"},
		{"subscribe 5", AppendSubscribe(nil, V5, 10, []Subscription{{"a", 0}}), "82 07 000a 00 0001 61 00"},
		{"publish QoS 0", AppendPublish(nil, V311, "a/b", 0, false, 9, []byte("xy")), "30 07 0003 612f62 7879"},
		{"publish QoS 1 retained 5", AppendPublish(nil, V5, "a", 1, true, 9, []byte("x")), "33 07 0001 61 0009 00 78"},
		{"puback", AppendAck(nil, PUBACK, 0x1234), "40 02 1234"},
		{"pubrel has its fixed flags", AppendAck(nil, PUBREL, 1), "62 02 0001"}, // [MQTT-3.6.1-1]
		{"disconnect", AppendEmpty(nil, DISCONNECT), "e0 00"},
	} {
		if want := unhex(t, c.want); !bytes.Equal(c.got, want) {
			t.Errorf("%s:\n got %x\nwant %x", c.name, c.got, want)
		}
	}
}

func TestSplit_FindsThePacketWhereverTheBytesAreCut(t *testing.T) {
	long := AppendPublish(nil, V5, "a/long/name", 2, false, 77, bytes.Repeat([]byte("z"), 20000))
	for cut := range len(long) {
		if _, n, err := Split(long[:cut]); n != 0 || err != nil {
			t.Fatalf("cut at %d: n %d, %v", cut, n, err)
		}
	}
	p, n, err := Split(append(long, 0xe0))
	if err != nil || n != len(long) || p.Type != PUBLISH {
		t.Fatalf("n %d of %d, type %d, %v", n, len(long), p.Type, err)
	}
	m, err := p.Publish(V5)
	if err != nil || string(m.Topic) != "a/long/name" || m.ID != 77 || m.QoS != 2 || len(m.Payload) != 20000 {
		t.Fatalf("%q %d %d %d, %v", m.Topic, m.ID, m.QoS, len(m.Payload), err)
	}
}

func TestDecode_RefusesWhatNoBrokerMaySend(t *testing.T) {
	if _, _, err := Split(unhex(t, "30 ffffffff 01")); err == nil {
		t.Error("remaining length of five bytes passed")
	}
	for name, bytes := range map[string]string{
		"QoS 3":                 "36 05 0001 61 0001",
		"topic beyond its end":  "30 03 0005 61",
		"no packet id":          "32 03 0001 61",
		"packet id 0":           "32 05 0001 61 0000",
		"properties beyond end": "30 04 0001 61 05",
	} {
		p, n, err := Split(unhex(t, bytes))
		if n == 0 || err != nil {
			t.Fatalf("%s: not a packet: %v", name, err)
		}
		if _, err := p.Publish(V5); err == nil {
			t.Errorf("%s passed", name)
		}
	}
}

func TestConnack_ReadsTheLimitsThatBindAClient(t *testing.T) {
	// Session expiry, receive maximum 20, an assigned id, a user property and
	// server keep alive 30.
	p, _, err := Split(unhex(t, "20 1b 00 00 18 1100000001 210014 12 0001 61 26 0001 62 0001 63 13001e 2a01"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.Connack(V5)
	if err != nil || c.ReceiveMaximum != 20 || c.ServerKeep != 30 || c.Code != 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	p, _, _ = Split(unhex(t, "20 02 00 05"))
	if c, err := p.Connack(V311); err != nil || c.Code != 5 || c.ReceiveMaximum != 65535 {
		t.Fatalf("%+v, %v", c, err)
	}
}

// frames is a server's side: a data frame per part, each with a ping before it.
func frames(parts ...string) []byte {
	var b []byte
	for i, p := range parts {
		b = append(b, 0x89, 2, 'h', 'i')
		op := byte(0)
		if i == 0 {
			op = OpBinary
		}
		if i == len(parts)-1 {
			op |= 0x80
		}
		switch {
		case len(p) < 126:
			b = append(b, op, byte(len(p)))
		case len(p) < 1<<16:
			b = append(b, op, 126, byte(len(p)>>8), byte(len(p)))
		default:
			b = append(b, op, 127, 0, 0, 0, 0, byte(len(p)>>24), byte(len(p)>>16), byte(len(p)>>8), byte(len(p)))
		}
		b = append(b, p...)
	}
	return b
}

func TestDeframe_GivesThePayloadWhereverTheBytesAreCut(t *testing.T) {
	in := frames("hello ", "", strings.Repeat("x", 300), " end")
	want := "hello " + strings.Repeat("x", 300) + " end"
	for cut := range len(in) + 1 {
		var d Deframer
		pings := 0
		control := func(op byte, p []byte) error {
			if op == OpPing && string(p) == "hi" {
				pings++
			}
			return nil
		}
		var got []byte
		for _, piece := range [][]byte{in[:cut], in[cut:]} {
			// What is kept from before lies in front of the piece, as in a loop.
			buf := append(append([]byte(nil), got...), piece...)
			end, err := d.Deframe(buf, len(got), len(got), control)
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			got = buf[:end]
		}
		if string(got) != want || pings != 4 {
			t.Fatalf("cut at %d: %d bytes, %d pings", cut, len(got), pings)
		}
	}
}

func TestDeframe_RefusesFramesThatBreakTheRules(t *testing.T) {
	for name, in := range map[string]string{
		"masked":               "82 81 01020304 61",
		"reserved bit":         "c2 01 61",
		"text":                 "81 01 61",
		"continuation first":   "80 01 61",
		"message in a message": "02 01 61 02 01 61",
		"fragmented ping":      "09 00",
		"long ping":            "89 7e 0080",
		"length with top bit":  "82 7f 8000000000000000",
	} {
		var d Deframer
		b := unhex(t, in)
		if _, err := d.Deframe(b, 0, 0, func(byte, []byte) error { return nil }); err == nil {
			t.Errorf("%s passed", name)
		}
	}
}

func TestAppendFrame_MasksAsTheRFCShows(t *testing.T) {
	// RFC 6455 §5.7: "Hello" masked with 37 fa 21 3d.
	got := AppendFrame(nil, OpText, 0x3d21fa37, []byte("Hello"))
	if want := unhex(t, "81 85 37fa213d 7f9f4d5158"); !bytes.Equal(got, want) {
		t.Fatalf("%x", got)
	}
	// The same by the byte-wise definition, for every length around the steps.
	for _, n := range []int{0, 1, 7, 8, 9, 125, 126, 127, 65535, 65536} {
		p := bytes.Repeat([]byte{0xa5}, n)
		f := AppendFrame(nil, OpBinary, 0x04030201, p)
		body := f[len(f)-n:]
		for i, c := range body {
			if c^byte(i%4+1) != 0xa5 {
				t.Fatalf("length %d: byte %d", n, i)
			}
		}
	}
}

func TestReadUpgrade_ChecksTheAnswer(t *testing.T) {
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	accept := Accept(key)
	if accept != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455 §1.3
		t.Fatal(accept)
	}
	good := "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nsec-websocket-accept: " + accept + "\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
	for cut := range len(good) {
		if n, err := ReadUpgrade([]byte(good[:cut]), accept); n != 0 || err != nil {
			t.Fatalf("cut at %d: %d, %v", cut, n, err)
		}
	}
	if n, err := ReadUpgrade([]byte(good+"\x82\x00"), accept); n != len(good) || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	for _, bad := range []string{
		"HTTP/1.1 400 Bad Request\r\n\r\n",
		strings.Replace(good, accept, "AAAA", 1),
		strings.Replace(good, "mqtt", "chat", 1),
	} {
		if _, err := ReadUpgrade([]byte(bad), accept); err == nil {
			t.Errorf("passed: %q", bad)
		}
	}
	if req := string(AppendUpgrade(nil, "h:1", "/mqtt", key, "X: y\r\n")); !strings.HasPrefix(req, "GET /mqtt HTTP/1.1\r\nHost: h:1\r\n") ||
		!strings.HasSuffix(req, "X: y\r\n\r\n") || !strings.Contains(req, "Sec-WebSocket-Protocol: mqtt\r\n") {
		t.Errorf("%q", req)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(AppendPublish(nil, V5, "a", 1, true, 9, []byte("x")), true)
	f.Add(unhex(f, "20 1b 00 00 18 1100000001 210014 12 0001 61 26 0001 62 0001 63 13001e 2a01"), true)
	f.Add(unhex(f, "90 03 0001 00"), false)
	f.Fuzz(func(t *testing.T, b []byte, five bool) {
		v := V311
		if five {
			v = V5
		}
		p, n, err := Split(b)
		if n > len(b) || err != nil && n != 0 {
			t.Fatal(n, err)
		}
		if n == 0 {
			return
		}
		// Whatever the body, no decoder may panic or look outside of it.
		if m, err := p.Publish(v); err == nil && len(m.Topic)+len(m.Payload) > n {
			t.Fatal("views longer than the packet")
		}
		_, _, _ = p.Ack()
		_, _, _ = p.Suback(v)
		_, _ = p.Connack(v)
	})
}

func FuzzDeframe(f *testing.F) {
	f.Add(frames("a", "b"), 3)
	f.Add(unhex(f, "82 7e 0001 61"), 2)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		none := func(byte, []byte) error { return nil }
		whole := bytes.Clone(b)
		var d Deframer
		end, err := d.Deframe(whole, 0, 0, none)
		if err != nil {
			return
		}
		if cut < 0 || cut > len(b) {
			return
		}
		var e Deframer
		first := bytes.Clone(b[:cut])
		n, err := e.Deframe(first, 0, 0, none)
		if err != nil {
			t.Fatal(err)
		}
		second := append(first[:n:n], b[cut:]...)
		m, err := e.Deframe(second, n, n, none)
		if err != nil || !bytes.Equal(second[:m], whole[:end]) {
			t.Fatalf("cut at %d: %x, not %x; %v", cut, second[:m], whole[:end], err)
		}
	})
}

func TestHotPath_AllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	buf := make([]byte, 0, 4096)
	payload := make([]byte, 64)
	var d Deframer
	if n := testing.AllocsPerRun(100, func() {
		p := AppendPublish(buf[:0], V311, "a/b/c", 1, false, 7, payload)
		f := AppendFrame(p[len(p):], OpBinary, 1, p)
		_ = f
		end, err := d.Deframe(append(p[len(p):], 0x82, 2, 0xd0, 0), 0, 0, func(byte, []byte) error { return nil })
		if err != nil || end != 2 {
			t.Fatal(end, err)
		}
		pk, _, _ := Split(p)
		if _, err := pk.Publish(V311); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRefusal_SaysWhatAUserCanMend(t *testing.T) {
	for code, want := range map[byte]string{1: "version", 0x84: "version", 5: "authorized", 0x87: "authorized", 0x80: ""} {
		if got := Refusal(code); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("0x%02x: %q", code, got)
		}
	}
}
