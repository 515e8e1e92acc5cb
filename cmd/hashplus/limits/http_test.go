package limits

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestUpgrade_HeaderIsBounded(t *testing.T) {
	t.Parallel()
	s := serve(t)
	const start = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\n"
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "X-%d: 1\r\n", i)
	}
	for _, test := range []struct {
		name, request string
		status        int
	}{
		{"a header that does not end", start + "X: " + strings.Repeat("x", 64<<10), http.StatusRequestHeaderFieldsTooLarge},
		{"1,000 headers", start + many.String() + "\r\n", http.StatusRequestHeaderFieldsTooLarge},
		{"a request line that does not end", "GET /" + strings.Repeat("x", 64<<10), http.StatusRequestURITooLong},
		{"8 MiB of header", start + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 8000), http.StatusRequestHeaderFieldsTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			there := *s
			there.t = t
			conn := open(t, s.ws)
			go io.WriteString(conn, test.request) //nolint:errcheck // the server need not take all of it
			status, _, body := there.response(conn)
			if status != test.status || body == "" {
				t.Errorf("%d %q instead of %d with a reason", status, body, test.status)
			}
		})
	}
	s.memory(100)
}

func TestUpgrade_RefusalsSayWhy(t *testing.T) {
	t.Parallel()
	s := serve(t, "--ws-path=/mqtt", "--ws-origins=https://listed.example")
	ok := handshake(s.ws, "")
	swap := func(from, to string) string {
		if !strings.Contains(ok, from) {
			t.Fatalf("the request has no %q", from)
		}
		return strings.Replace(ok, from, to, 1)
	}
	for _, test := range []struct {
		name, request string
		status        int
		header, body  string // a header that must be there; a part of the body
	}{
		{"as it should be", ok, 101, "Sec-Websocket-Protocol", ""},
		{"plain GET", "GET /mqtt HTTP/1.1\r\nHost: " + s.ws + "\r\n\r\n", 426, "Upgrade", "MQTT client"},
		{"HTTP/1.0", "GET /mqtt HTTP/1.0\r\n\r\n", 426, "Upgrade", "MQTT client"},
		{"wrong path", swap("/mqtt", "/other"), 404, "", "path"},
		{"POST", swap("GET", "POST"), 405, "Allow", "GET"},
		{"HTTP/2", swap("HTTP/1.1", "HTTP/2.0"), 505, "", "HTTP/1.1"},
		{"old version of WebSocket", swap("Version: 13", "Version: 8"), 426, "Sec-Websocket-Version", "13"},
		{"short key", swap("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400, "", "Sec-WebSocket-Key"},
		{"other sub-protocol", swap("Protocol: mqtt", "Protocol: chat"), 400, "", "sub-protocol"},
		{"body", handshake(s.ws, "Content-Length: 5\r\n"), 413, "", "body"},
		{"not HTTP", "\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03abc", 400, "", "WebSocket"},
		{"listed origin", handshake(s.ws, "Origin: https://listed.example\r\n"), 101, "Upgrade", ""},
		{"loopback origin", handshake(s.ws, "Origin: http://localhost:3000\r\n"), 101, "Upgrade", ""},
		{"foreign origin", handshake(s.ws, "Origin: https://evil.example\r\n"), 403, "", "origin"},
		{"origin that begins like a listed one", handshake(s.ws, "Origin: https://listed.example.evil.example\r\n"), 403, "", "origin"},
		{"origin null", handshake(s.ws, "Origin: null\r\n"), 403, "", "origin"},
		{"DNS rebinding", handshake("evil.example", ""), 403, "", "Host"},
		{"DNS rebinding with a port and an origin", handshake("evil.example:8083", "Origin: http://evil.example:8083\r\n"), 403, "", "Host"},
		{"two Host headers", handshake(s.ws, "Host: evil.example\r\n"), 400, "", "Host"},
	} {
		t.Run(test.name, func(t *testing.T) {
			there := *s
			there.t = t
			status, header, body := there.exchange(test.request)
			if status != test.status || !strings.Contains(body, test.body) || test.header != "" && header.Get(test.header) == "" {
				t.Errorf("%d %v %q", status, header, body)
			}
		})
	}
}

func TestUpgrade_FramesMayFollowAtOnce(t *testing.T) {
	t.Parallel()
	s := serve(t)
	conn := open(t, s.ws)
	w := &webSocket{Conn: conn}
	c := newClient(t, w, v5)
	frames := append(maskedPacket(c.request()), maskedPacket(c.filters(0, "t"))...)
	if _, err := conn.Write(append([]byte(handshake(s.ws, "")), frames...)); err != nil {
		t.Fatal(err)
	}
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	c.accepted()
	c.post(0, "t", []byte("x"))
	if p := c.message(); string(p.Payload) != "x" {
		t.Errorf("message %q", p.Payload)
	}

	// The same a byte at a time.
	conn = open(t, s.ws)
	w = &webSocket{Conn: conn}
	c = newClient(t, w, v5)
	for _, b := range append([]byte(handshake(s.ws, "")), maskedPacket(c.request())...) {
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Microsecond)
	}
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	c.accepted()
}
