package transport

import (
	"bytes"
	"compress/flate"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/httphead"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"

	"hashplus/transport/link"
)

func TestWebSocket_CloseHandshakeOfThePeerIsAnswered(t *testing.T) {
	for _, test := range []struct {
		body  []byte
		code  ws.StatusCode
		clean bool
	}{
		{ws.NewCloseFrameBody(1000, "bye"), 1000, true},
		{ws.NewCloseFrameBody(1001, ""), 1001, true},
		{nil, 0, true},
		{ws.NewCloseFrameBody(4001, "own reasons"), 4001, false},
	} {
		h := newScripted()
		s := start(t, Options{}, h)
		c := kind{websocket: true, connect: connectWS}.dial(t, s, Listener{}).(*wsClient)
		c.silent = true
		st := next(t, h)
		if _, err := c.Write([]byte("before the end")); err != nil {
			t.Fatal(err)
		}
		if err := c.writeFrame(ws.NewCloseFrame(bytes.Clone(test.body))); err != nil {
			t.Fatal(err)
		}
		if b := readEnd(t, c); string(b) != "before the end" {
			t.Errorf("got %q", b)
		}
		if c.code != test.code {
			t.Errorf("answered %d with %d", test.code, c.code)
		}
		if _, err := c.br.ReadByte(); err != io.EOF {
			t.Errorf("after the close frame: %v", err)
		}
		if err := st.wait(t); (err == nil) != test.clean {
			t.Errorf("code %d: cause %v", test.code, err)
		}
	}
}

func TestWebSocket_OwnCloseWaitsForTheAnswerWithinADeadline(t *testing.T) {
	h := newScripted()
	const deadline = 2 * time.Second // in which the test must look
	s := start(t, Options{CloseTimeout: deadline, DrainTimeout: deadline}, h)
	c := kind{websocket: true, connect: connectWS}.dial(t, s, Listener{}).(*wsClient)
	c.silent = true
	st := next(t, h)
	begin := time.Now()
	do(t, st.conn.Loop(), func() { st.conn.Close(link.CloseNormal, "") })
	st.wait(t)
	if s.Conns() == 0 {
		t.Error("Closed waited for the peer")
	}
	if b := readEnd(t, c); len(b) > 0 || c.code != 1000 {
		t.Errorf("got %q, close %d", b, c.code)
	}
	waitFor(t, "the connection goes", func() bool { return s.Conns() == 0 })
	if d := time.Since(begin); d < deadline {
		t.Errorf("gone after %v", d)
	}
}

func TestWebSocket_BrokenRulesGetTheirCode(t *testing.T) {
	masked := func(f ws.Frame) []byte { return ws.MustCompileFrame(ws.MaskFrame(f)) }
	for name, test := range map[string]struct {
		frame []byte
		code  ws.StatusCode
	}{
		"unmasked":    {ws.MustCompileFrame(ws.NewBinaryFrame([]byte("x"))), 1002},
		"text":        {masked(ws.NewTextFrame([]byte("x"))), 1003},
		"reserved":    {append([]byte{0xa2, 0x80}, 0, 0, 0, 0), 1002},
		"long ping":   {append([]byte{0x89, 0xfe}, make([]byte, 200)...), 1002},
		"stray part":  {masked(ws.NewFrame(ws.OpContinuation, true, []byte("x"))), 1002},
		"close code":  {masked(ws.NewCloseFrame([]byte{0x03, 0xed})), 1002},
		"close UTF-8": {masked(ws.NewCloseFrame([]byte{0x03, 0xe8, 0xff})), 1007},
	} {
		h := newScripted()
		s := start(t, Options{}, h)
		c := kind{websocket: true, connect: connectWS}.dial(t, s, Listener{}).(*wsClient)
		st := next(t, h)
		if _, err := c.Conn.Write(append(masked(ws.NewBinaryFrame([]byte("good"))), test.frame...)); err != nil {
			t.Fatal(err)
		}
		if b := readEnd(t, c); string(b) != "good" {
			t.Errorf("%s: got %q, want what came before", name, b)
		}
		if c.code != test.code {
			t.Errorf("%s: closed with %d %q, want %d", name, c.code, c.reason, test.code)
		}
		if st.wait(t) == nil {
			t.Errorf("%s: no cause", name)
		}
	}
}

func TestWebSocket_FragmentsEmptyFramesAndPingsBetweenThem(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	c := kind{websocket: true, connect: connectWS}.dial(t, s, Listener{}).(*wsClient)
	var b []byte
	for i, f := range []ws.Frame{
		ws.NewFrame(ws.OpBinary, false, nil),
		ws.NewFrame(ws.OpContinuation, false, []byte("ab")),
		ws.NewPingFrame([]byte("are you there")),
		ws.NewFrame(ws.OpContinuation, false, nil),
		ws.NewFrame(ws.OpContinuation, true, []byte("cd")),
		ws.NewBinaryFrame(nil),
		ws.NewBinaryFrame([]byte("ef")),
		ws.NewPongFrame(nil),
	} {
		b = append(b, ws.MustCompileFrame(ws.MaskFrameWith(f, [4]byte{byte(i), 2, 3, 4}))...)
	}
	for _, part := range []int{len(b), 1} {
		go func() {
			for rest := b; len(rest) > 0; rest = rest[part:] {
				if _, err := c.Conn.Write(rest[:part]); err != nil {
					return
				}
			}
		}()
		if got := readFull(t, c, 6); string(got) != "abcdef" {
			t.Errorf("got %q", got)
		}
	}
	st := next(t, h)
	waitFor(t, "the pong", func() bool {
		var at int64
		do(t, st.conn.Loop(), func() { at = st.conn.LastPong() })
		return at > 0
	})
}

func TestWebSocket_ServerPingsAtAFixedInterval(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	const interval = 30 * time.Millisecond
	begin := time.Now()
	c := kind{websocket: true, connect: connectWS}.dial(t, s, Listener{Ping: interval}).(*wsClient)
	st := next(t, h)
	waitFor(t, "three pings", func() bool {
		c.SetReadDeadline(time.Now().Add(2 * interval))
		c.Read(make([]byte, 1))
		return c.pings >= 3
	})
	if most := int(time.Since(begin)/interval) + 1; c.pings > most {
		t.Errorf("%d pings, at most %d were due", c.pings, most)
	}
	waitFor(t, "a pong is noted", func() (noted bool) {
		do(t, st.conn.Loop(), func() { noted = st.conn.LastPong() != 0 })
		return noted
	})
}

func TestWebSocket_HandshakeTimesOut(t *testing.T) {
	s := start(t, Options{HandshakeTimeout: time.Second}, newScripted())
	nc := connectWS(t, s, Listener{Network: "ws"})
	if _, err := io.WriteString(nc, "GET /mqtt HTTP/1.1\r\nHost: localhost\r\n"); err != nil {
		t.Fatal(err)
	}
	if b := readEnd(t, nc); !strings.HasPrefix(string(b), "HTTP/1.1 408 ") {
		t.Errorf("got %q", b)
	}
}

func TestWebSocket_RefusalsSayWhy(t *testing.T) {
	const rest = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, test := range []struct{ name, request, want string }{
		{"plain GET", "GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n", "426"},
		{"path", "GET /other HTTP/1.1\r\nHost: localhost\r\n" + rest + "\r\n", "404"},
		{"foreign page", "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n" + rest + "\r\n", "403"},
		{"rebound name", "GET /mqtt HTTP/1.1\r\nHost: evil.example\r\n" + rest + "\r\n", "403"},
		{"no protocol", "GET /mqtt HTTP/1.1\r\nHost: localhost\r\n" + rest + "\r\n", "400"},
		{"not HTTP", "\x10\x0c\x00\x04MQTT", "400"},
		{"endless", "GET /" + strings.Repeat("a", 70_000), "4"},
		{"good", "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nSec-WebSocket-Protocol: x, mqtt\r\n" + rest + "\r\n", "101"},
	} {
		s := start(t, Options{}, newScripted())
		nc := connectWS(t, s, Listener{Network: "ws", Path: "/mqtt", Subprotocols: []string{"mqtt"}, RequireSubprotocol: true})
		go io.WriteString(nc, test.request)
		nc.SetReadDeadline(time.Now().Add(time.Minute))
		b := make([]byte, 12)
		if _, err := io.ReadFull(nc, b); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 "+test.want) {
			t.Errorf("%s: %q, %v", test.name, b, err)
		}
	}
}

// messages echoes whole messages.
type messages struct {
	*stream
	seen atomic.Int32
}

func (m *messages) Message(text bool, b []byte) {
	m.seen.Add(1)
	m.conn.(link.Messenger).SendMessage(text, b)
}

func TestWebSocket_MessageMode(t *testing.T) {
	for _, deflate := range []bool{false, true} {
		h := newScripted()
		h.open = func(c link.Conn) link.Stream { return &messages{stream: h.newStream(c)} }
		s := start(t, Options{}, h)
		nc := connectWS(t, s, Listener{Network: "ws", Deflate: deflate, MaxMessage: 100_000})
		c := upgradedWith(t, nc, deflate)
		long := strings.Repeat("all work and no play ", 4000)
		for _, text := range []string{"", "grüße", long} {
			f := ws.NewTextFrame([]byte(text))
			if err := c.writeFrame(f); err != nil {
				t.Fatal(err)
			}
			got, h := readMessage(t, c)
			if h.OpCode != ws.OpText || got != text {
				t.Errorf("deflate %v: got %d bytes of %v for %d", deflate, len(got), h, len(text))
			}
			if want := deflate && len(text) > 1000; h.Rsv1() != want {
				t.Errorf("deflate %v: RSV1 is %v for %d bytes", deflate, h.Rsv1(), len(text))
			}
		}
		if err := c.writeFrame(ws.NewBinaryFrame(make([]byte, 100_001))); err != nil {
			t.Fatal(err)
		}
		if readEnd(t, c); c.code != 1009 {
			t.Errorf("closed with %d", c.code)
		}
	}
}

// In stream mode a compressed connection gives the same bytes, also when the
// stream pauses and yields in the middle of what one read brought.
func TestWebSocket_DeflateStreamKeepsOrder(t *testing.T) {
	h := newScripted()
	h.open = func(c link.Conn) link.Stream {
		s := h.newStream(c)
		calls := 0
		s.data = func(b []byte) int {
			n := min(len(b), 700)
			send(c, b[:n])
			switch calls++; {
			case calls%5 == 0:
				c.Pause()
				c.Loop().Post(link.TaskFunc(func(link.Loop) { c.Resume() }))
			case calls%7 == 0:
				c.Move(1 - c.Loop().ID())
			case n < len(b):
				c.Yield()
			}
			return n
		}
		return s
	}
	s := start(t, Options{ReadBudget: 5000}, h)
	nc := connectWS(t, s, Listener{Network: "ws", Deflate: true})
	c := upgradedWith(t, nc, true)
	var sent []byte
	go func() {
		for i := range 300 {
			if err := c.writeFrame(deflated(part(i))); err != nil {
				return
			}
		}
	}()
	for i := range 300 {
		sent = append(sent, part(i)...)
	}
	if got := readFull(t, c, len(sent)); !bytes.Equal(got, sent) {
		t.Error("the echo differs")
	}
}

func part(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8), 'x'}, 20+i*7%900) }

// deflated is a compressed frame as RFC 7692 has it.
func deflated(p []byte) ws.Frame {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestSpeed)
	w.Write(p)
	w.Flush()
	f := ws.NewBinaryFrame(bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff}))
	f.Header.Rsv = ws.Rsv(true, false, false)
	return f
}

// upgradedWith is upgraded with an offer of permessage-deflate.
func upgradedWith(t *testing.T, nc net.Conn, deflate bool) *wsClient {
	t.Helper()
	if !deflate {
		return upgraded(t, nc)
	}
	d := ws.Dialer{Extensions: []httphead.Option{wsflate.Parameters{}.Option()}}
	u, _ := url.Parse("ws://localhost/")
	return upgradedBy(t, nc, d, u)
}

func readMessage(t *testing.T, c *wsClient) (string, ws.Header) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	h, err := ws.ReadHeader(c.br)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, h.Length)
	if _, err := io.ReadFull(c.br, b); err != nil {
		t.Fatal(err)
	}
	if h.Rsv1() {
		r := flate.NewReader(io.MultiReader(bytes.NewReader(b), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
		if b, err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return string(b), h
}

func TestHTTPHandler_UpgradesInAnExistingMux(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	upgrade, err := s.HTTPHandler(Listener{Subprotocols: []string{"mqtt"}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/mqtt", upgrade)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "home") })
	server := httptest.NewServer(mux)
	defer server.Close()

	resp, err := server.Client().Get(server.URL + "/mqtt")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 426 || resp.Header.Get("Upgrade") != "websocket" || len(body) == 0 {
		t.Errorf("a plain GET got %s %v %q", resp.Status, resp.Header, body)
	}

	c := upgraded(t, dialURL(t, server.URL))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if b := readFull(t, c, 5); string(b) != "hello" {
		t.Errorf("got %q", b)
	}
	st := next(t, h)
	do(t, st.conn.Loop(), func() {
		if i := st.conn.Info(); i.Transport != "http" || i.Protocol != "mqtt" || !i.Remote.IsValid() {
			t.Errorf("%+v", i)
		}
		if r := st.conn.Handshake(); r == nil || r.Path != "/mqtt" {
			t.Errorf("handshake %+v", r)
		}
		st.conn.Admit()
		if st.conn.Handshake() != nil {
			t.Error("the handshake was not forgotten")
		}
	})
}
