package ws

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/gobwas/httphead"

	"hashplus/transport/link"
)

const (
	sampleKey    = "dGhlIHNhbXBsZSBub25jZQ==" // of RFC 6455 section 1.3
	sampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// get is a valid request. Each change is a header line that replaces the line of
// the same name, adds one (with a leading "+"), or takes it away (without a
// value); one that has " HTTP/" is the request line.
func get(changes ...string) string {
	lines := []string{
		"GET /mqtt HTTP/1.1",
		"Host: broker.example:8083",
		"Upgrade: websocket",
		"Connection: Upgrade",
		"Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: " + sampleKey,
		"Sec-WebSocket-Protocol: mqtt",
	}
	for _, c := range changes {
		if strings.Contains(c, " HTTP/") {
			lines[0] = c
			continue
		}
		if line, ok := strings.CutPrefix(c, "+"); ok {
			lines = append(lines, line)
			continue
		}
		name, value, _ := strings.Cut(c, ":")
		for i, line := range lines {
			if n, _, _ := strings.Cut(line, ":"); strings.EqualFold(n, name) {
				lines[i] = c
				if value == "" {
					lines = append(lines[:i], lines[i+1:]...)
				}
				value = ""
				break
			}
		}
		if value != "" {
			lines = append(lines, c)
		}
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// answer collects input as it would come in the given pieces, upgrades it, and
// returns the parsed response and the bytes left over.
func answer(t testing.TB, u *Upgrader, pieces ...string) (*http.Response, Upgraded, string, error) {
	t.Helper()
	var (
		req Request
		buf []byte
		out []byte
		up  Upgraded
		n   int
		err error
	)
	for _, p := range pieces {
		buf = append(buf, p...)
		if n > 0 || err != nil {
			continue
		}
		if n, err = u.Parse(&req, buf); err != nil {
			var refusal *Refusal
			if !errors.As(err, &refusal) {
				t.Fatalf("%v is no *Refusal", err)
			}
			out = AppendRefusal(nil, refusal)
		} else if n > 0 {
			out, up, err = u.Upgrade([]byte{}, buf[:n])
		}
	}
	if n == 0 && err == nil {
		return nil, up, string(buf), nil
	}
	in := bufio.NewReader(bytes.NewReader(out))
	resp, rerr := http.ReadResponse(in, &http.Request{Method: "GET"})
	if rerr != nil {
		t.Fatalf("response %q: %v", out, rerr)
	}
	body, rerr := io.ReadAll(resp.Body)
	if rerr != nil {
		t.Fatalf("response %q: %v", out, rerr)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if err == nil && (len(body) > 0 || in.Buffered() > 0) {
		t.Fatalf("something follows the response: %q", out)
	}
	return resp, up, string(buf[n:]), err
}

// RFC 6455 section 4.2; RFC 9110 section 7.8; RFC 9112 sections 3.2 and 5.
func TestUpgrade_AnswersWithTheRightStatus(t *testing.T) {
	for _, test := range []struct {
		name   string
		u      Upgrader
		input  string
		status int
	}{
		{"valid", Upgrader{}, get(), 101},
		{"bare line feeds", Upgrader{}, strings.ReplaceAll(get(), "\r", ""), 101},
		{"header names in any case", Upgrader{}, get("UPGRADE: WebSocket", "connection: UPGRADE", "sec-websocket-key:  "+sampleKey+"\t"), 101},
		{"Connection is a list", Upgrader{}, get("Connection: keep-alive, Upgrade"), 101},
		{"Connection on two lines", Upgrader{}, get("+Connection: keep-alive"), 101},
		{"Upgrade is a list", Upgrader{}, get("Upgrade: h2c, websocket"), 101},
		{"absolute target", Upgrader{Path: "/mqtt"}, get("GET http://other.example/mqtt HTTP/1.1"), 101},
		{"a later minor version", Upgrader{}, get("GET /mqtt HTTP/1.2"), 101},
		{"Content-Length 0", Upgrader{}, get("Content-Length: 0"), 101},
		{"configured path", Upgrader{Path: "/mqtt"}, get("GET /mqtt?x=1 HTTP/1.1"), 101},
		{"configured path, escaped", Upgrader{Path: "/mqtt"}, get("GET /%6dqtt HTTP/1.1"), 101},

		{"other path", Upgrader{Path: "/ws"}, get(), 404},
		{"path below the configured one", Upgrader{Path: "/mqtt"}, get("GET /mqtt/ HTTP/1.1"), 404},
		{"POST", Upgrader{}, get("POST /mqtt HTTP/1.1"), 405},
		{"HEAD", Upgrader{}, get("HEAD /mqtt HTTP/1.1"), 405},
		{"method in lower case", Upgrader{}, get("get /mqtt HTTP/1.1"), 405},
		{"a body", Upgrader{}, get("Content-Length: 5"), 413},
		{"a chunked body", Upgrader{}, get("Transfer-Encoding: chunked"), 413},
		{"plain GET", Upgrader{}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426},
		{"plain GET of HTTP/1.0", Upgrader{}, "GET / HTTP/1.0\r\n\r\n", 426},
		{"HTTP/1.0 cannot upgrade", Upgrader{}, get("GET /mqtt HTTP/1.0"), 426},
		{"upgrade to something else", Upgrader{}, get("Upgrade: h2c"), 426},
		{"version 8", Upgrader{}, get("Sec-WebSocket-Version: 8"), 426},
		{"version 013", Upgrader{}, get("Sec-WebSocket-Version: 013"), 426},
		{"HTTP/2.0", Upgrader{}, "PRI * HTTP/2.0\r\n\r\n", 505},

		{"no version", Upgrader{}, get("Sec-WebSocket-Version:"), 400},
		{"two versions", Upgrader{}, get("+Sec-WebSocket-Version: 13"), 400},
		{"Connection without upgrade", Upgrader{}, get("Connection: keep-alive"), 400},
		{"no Connection", Upgrader{}, get("Connection:"), 400},
		{"no key", Upgrader{}, get("Sec-WebSocket-Key:"), 400},
		{"short key", Upgrader{}, get("Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="), 400},
		{"key of 18 bytes", Upgrader{}, get("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTAx"), 400},
		{"key that is not base64", Upgrader{}, get("Sec-WebSocket-Key: ************************"), 400},
		{"two keys", Upgrader{}, get("+Sec-WebSocket-Key: " + sampleKey), 400},
		{"no Host", Upgrader{}, get("Host:"), 400},
		{"two Hosts", Upgrader{}, get("+Host: broker.example:8083"), 400},
		{"empty Host", Upgrader{}, get("Host: \t"), 400},
		{"Host with a path", Upgrader{}, get("Host: a/b"), 400},
		{"folded line", Upgrader{}, get("+X-A: 1\r\n 2"), 400},
		{"space before the colon", Upgrader{}, get("+X-A : 1"), 400},
		{"line without a colon", Upgrader{}, get("+X-A"), 400},
		{"line without a name", Upgrader{}, get("+: 1"), 400},
		{"control character", Upgrader{}, get("+X-A: a\x00b"), 400},
		{"lone carriage return", Upgrader{}, get("+X-A: a\rX-B: b"), 400},
		{"no target", Upgrader{}, get("GET HTTP/1.1"), 400},
		{"relative target", Upgrader{}, get("GET mqtt HTTP/1.1"), 400},
		{"target with a user", Upgrader{}, get("GET http://u@broker.example/ HTTP/1.1"), 400},
		{"target of another kind", Upgrader{}, get("GET mailto:mqtt HTTP/1.1"), 400},
		{"target *", Upgrader{}, get("GET * HTTP/1.1"), 400},
		{"bad escape", Upgrader{}, get("GET /%zz HTTP/1.1"), 400},
		{"two spaces", Upgrader{}, get("GET  /mqtt HTTP/1.1"), 400},
		{"version in words", Upgrader{}, get("GET /mqtt HTTP/one"), 400},
		{"TLS", Upgrader{}, "\x16\x03\x01\x02\x00", 400},
		{"bare MQTT", Upgrader{}, "\x10\x0c\x00\x04MQTT", 400},
		{"empty lines first", Upgrader{}, "\r\n" + get(), 400},

		{"long target", Upgrader{MaxBytes: 200}, "GET /" + strings.Repeat("x", 200), 414},
		{"long header", Upgrader{MaxBytes: 400}, get("+X-A: " + strings.Repeat("x", 400)), 431},
		{"long header by default", Upgrader{}, get("+X-A: " + strings.Repeat("x", DefaultMaxBytes)), 431},
		{"header that never ends", Upgrader{MaxBytes: 400}, "GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 100), 431},
		{"header of just the size", Upgrader{MaxBytes: len(get())}, get(), 101},
		{"header of one byte more", Upgrader{MaxBytes: len(get()) - 1}, get(), 431},
		{"as many lines as allowed", Upgrader{MaxLines: 6}, get(), 101},
		{"one line too many", Upgrader{MaxLines: 5}, get(), 431},
	} {
		t.Run(test.name, func(t *testing.T) {
			resp, up, rest, err := answer(t, &test.u, test.input)
			if resp == nil {
				t.Fatal("no answer")
			}
			if resp.StatusCode != test.status {
				t.Fatalf("status %d, want %d (%v)", resp.StatusCode, test.status, err)
			}
			if (err == nil) != (test.status == 101) || (up.Handshake == nil) != (err != nil) {
				t.Errorf("err = %v, handshake %v", err, up.Handshake)
			}
			if test.status == 101 {
				if got := resp.Header.Get("Sec-WebSocket-Accept"); got != sampleAccept || rest != "" {
					t.Errorf("accept %q, rest %q", got, rest)
				}
			} else if !resp.Close && !strings.Contains(resp.Header.Get("Connection"), "close") {
				t.Error("the response does not say Connection: close")
			} else if body, _ := io.ReadAll(resp.Body); len(body) < 10 || int64(len(body)) != resp.ContentLength {
				t.Errorf("the reason is %q", body)
			}
			if test.status == 426 && (resp.Header.Get("Upgrade") != "websocket" || resp.Header.Get("Sec-WebSocket-Version") != "13") {
				t.Errorf("426 with %v", resp.Header)
			}
			if test.status == 405 && resp.Header.Get("Allow") != "GET" {
				t.Error("405 without Allow")
			}

			for i := 1; i < min(len(test.input), 1000); i++ {
				r, u, tail, _ := answer(t, &test.u, test.input[:i], test.input[i:])
				if r.StatusCode != resp.StatusCode || !reflect.DeepEqual(u, up) || tail != rest && test.status == 101 {
					t.Fatalf("cut at %d: status %d", i, r.StatusCode)
				}
			}
			pieces := strings.Split(test.input[:min(len(test.input), 1000)], "")
			pieces = append(pieces, test.input[min(len(test.input), 1000):])
			if r, u, _, _ := answer(t, &test.u, pieces...); r.StatusCode != resp.StatusCode || !reflect.DeepEqual(u, up) {
				t.Fatalf("in small pieces: status %d", r.StatusCode)
			}
		})
	}
}

func TestUpgrade_SaysWhatTheRequestWas(t *testing.T) {
	input := get("GET /a%20b/c?x=1&y HTTP/1.1", "+cookie: a=1", "+Cookie: b=2", "Origin: null")
	_, up, _, err := answer(t, &Upgrader{Origins: []string{"null"}}, input)
	if err != nil {
		t.Fatal(err)
	}
	h := up.Handshake
	if h.Host != "broker.example:8083" || h.Path != "/a b/c" || h.Query != "x=1&y" {
		t.Errorf("%+v", h)
	}
	if got := h.Header["Cookie"]; !reflect.DeepEqual(got, []string{"a=1", "b=2"}) || h.Header["Host"] != nil {
		t.Errorf("header %v", h.Header)
	}
	_, up, _, err = answer(t, &Upgrader{}, get("GET http://target.example?q HTTP/1.1"))
	if h = up.Handshake; err != nil || h.Host != "target.example" || h.Path != "/" || h.Query != "q" {
		t.Errorf("%v, %+v", err, h)
	}
}

func TestUpgrade_KeepsWhatFollowsTheRequest(t *testing.T) {
	_, _, rest, err := answer(t, &Upgrader{}, get()+"\x82\x80", "\x01\x02\x03\x04")
	if err != nil || rest != "\x82\x80\x01\x02\x03\x04" {
		t.Errorf("%q, %v", rest, err)
	}
}

// RFC 6455 sections 4.1 and 4.2.2.
func TestUpgrade_ChoosesTheSubProtocol(t *testing.T) { // [MQTT-6.0.0-4]
	for _, test := range []struct {
		name   string
		u      Upgrader
		offers []string
		want   string
		status int
	}{
		{"mqtt", Upgrader{}, []string{"mqtt"}, "mqtt", 101},
		{"mqttv3.1", Upgrader{}, []string{"mqttv3.1"}, "mqttv3.1", 101},
		{"the client's order", Upgrader{}, []string{"mqttv3.1, mqtt"}, "mqttv3.1", 101},
		{"an unknown one first", Upgrader{}, []string{"wamp,\tmqtt"}, "mqtt", 101},
		{"two lines", Upgrader{}, []string{"wamp", "mqtt"}, "mqtt", 101},
		{"empty elements", Upgrader{}, []string{", ,mqtt,"}, "mqtt", 101},
		{"only unknown ones", Upgrader{}, []string{"wamp, soap"}, "", 400},
		{"other case is another name", Upgrader{}, []string{"MQTT"}, "", 400},
		{"not a token", Upgrader{}, []string{"mq tt"}, "", 400},
		{"none", Upgrader{}, nil, "", 101},
		{"none where one is needed", Upgrader{RequireProtocol: true}, nil, "", 400},
		{"configured", Upgrader{Protocols: []string{"echo"}}, []string{"mqtt, echo"}, "echo", 101},
	} {
		changes := []string{"Sec-WebSocket-Protocol:"}
		for _, o := range test.offers {
			changes = append(changes, "+Sec-WebSocket-Protocol: "+o)
		}
		resp, up, _, err := answer(t, &test.u, get(changes...))
		echoed := resp.Header["Sec-Websocket-Protocol"]
		if resp.StatusCode != test.status || up.Protocol != test.want || strings.Join(echoed, "|") != test.want {
			t.Errorf("%s: status %d, %q, echoed %q (%v)", test.name, resp.StatusCode, up.Protocol, echoed, err)
		}
	}
}

func TestUpgrade_KeepsForeignPagesOut(t *testing.T) {
	local := Upgrader{Loopback: true}
	listed := Upgrader{Origins: []string{"https://app.example", "http://app.example:8080"}}
	both := Upgrader{Loopback: true, Origins: []string{"https://app.example"}}
	any := Upgrader{Origins: []string{"*"}}
	for _, test := range []struct {
		u            Upgrader
		host, origin string
		status       int
	}{
		{Upgrader{}, "broker.example", "", 101},
		{Upgrader{}, "broker.example", "http://broker.example", 403},
		{Upgrader{}, "broker.example", "http://localhost", 403},
		{Upgrader{}, "broker.example", "null", 403},
		{Upgrader{}, "192.0.2.7:8083", "https://192.0.2.7:8083", 101},
		{Upgrader{}, "[2001:db8::7]:8083", "https://[2001:db8::7]:8083", 101},
		{Upgrader{}, "192.0.2.7:8083", "https://192.0.2.7", 403},
		{Upgrader{}, "192.0.2.7:8083", "https://192.0.2.7:8083.evil.example", 403},
		{listed, "broker.example", "https://app.example", 101},
		{listed, "broker.example", "http://app.example:8080", 101},
		{listed, "broker.example", "http://app.example", 403},
		{listed, "broker.example", "https://app.example.evil.example", 403},
		{listed, "broker.example", "https://evil-app.example", 403},
		{any, "broker.example", "https://evil.example", 101},
		{any, "broker.example", "null", 101},

		{local, "127.0.0.1:8083", "", 101},
		{local, "localhost:8083", "", 101},
		{local, "LOCALHOST.", "", 101},
		{local, "[::1]:8083", "", 101},
		{local, "[::1]", "", 101},
		{local, "127.1.2.3", "", 101},
		{local, "[::ffff:127.0.0.1]:8083", "", 101},
		{local, "app.localhost", "", 101},
		{local, "127.0.0.1:8083", "http://localhost:3000", 101},
		{local, "127.0.0.1:8083", "http://127.0.0.1", 101},
		{local, "127.0.0.1:8083", "https://[::1]:8443", 101},
		{local, "127.0.0.1:8083", "https://evil.example", 403},
		{local, "127.0.0.1:8083", "https://localhost.evil.example", 403},
		{local, "127.0.0.1:8083", "https://127.0.0.1.evil.example", 403},
		{local, "127.0.0.1:8083", "https://evil.example/localhost", 403},
		{local, "127.0.0.1:8083", "null", 403},
		{local, "127.0.0.1:8083", "file://", 403},
		{local, "rebound.example:8083", "", 403},
		{local, "rebound.example:8083", "http://rebound.example:8083", 403},
		{local, "rebound.example:8083", "http://localhost", 403},
		{local, "10.0.0.1", "", 403},
		{both, "127.0.0.1", "https://app.example", 101},
		{both, "app.example", "https://app.example", 101},
		{both, "APP.example:443", "", 101},
		{both, "rebound.example", "https://app.example", 403},
		{both, "127.0.0.1", "https://evil.example", 403},
		{Upgrader{Loopback: true, Origins: []string{"*"}}, "rebound.example", "https://evil.example", 101},
	} {
		changes := []string{"Host: " + test.host}
		if test.origin != "" {
			changes = append(changes, "Origin: "+test.origin)
		}
		resp, _, _, err := answer(t, &test.u, get(changes...))
		if resp.StatusCode != test.status {
			t.Errorf("%+v, host %q, origin %q: status %d (%v)", test.u, test.host, test.origin, resp.StatusCode, err)
		}
	}
	if resp, _, _, _ := answer(t, &any, get("Origin: http://a.example", "+Origin: http://b.example")); resp.StatusCode != 400 {
		t.Errorf("two origins: status %d", resp.StatusCode)
	}
}

// RFC 7692 sections 5 and 7.1.
func TestUpgrade_NegotiatesDeflate(t *testing.T) {
	const both = "permessage-deflate;server_no_context_takeover;client_no_context_takeover"
	for _, test := range []struct {
		offers []string
		want   string
		bits   int
		status int
	}{
		{nil, "", 0, 101},
		{[]string{"permessage-deflate"}, both, 15, 101},
		{[]string{"permessage-deflate; client_max_window_bits"}, both, 15, 101},
		{[]string{"permessage-deflate; client_max_window_bits=9"}, both, 15, 101},
		{[]string{"permessage-deflate; server_no_context_takeover; client_no_context_takeover"}, both, 15, 101},
		{[]string{"permessage-deflate; server_max_window_bits=8"}, both + ";server_max_window_bits=8", 8, 101},
		{[]string{`permessage-deflate; server_max_window_bits="12"`}, both + ";server_max_window_bits=12", 12, 101},
		{[]string{"x-webkit-deflate-frame, permessage-deflate"}, both, 15, 101},
		{[]string{"x-webkit-deflate-frame", "permessage-deflate"}, both, 15, 101},
		{[]string{"permessage-deflate; server_max_window_bits=7, permessage-deflate"}, both, 15, 101},
		{[]string{"permessage-deflate; server_max_window_bits=10, permessage-deflate"}, both + ";server_max_window_bits=10", 10, 101},
		{[]string{"permessage-deflate; server_max_window_bits"}, "", 0, 101},
		{[]string{"permessage-deflate; server_max_window_bits=16"}, "", 0, 101},
		{[]string{"permessage-deflate; server_max_window_bits=08"}, "", 0, 101},
		{[]string{"permessage-deflate; client_max_window_bits=7"}, "", 0, 101},
		{[]string{"permessage-deflate; server_no_context_takeover=1"}, "", 0, 101},
		{[]string{"permessage-deflate; client_max_window_bits; client_max_window_bits=10"}, "", 0, 101},
		{[]string{"permessage-deflate; server_max_window_bits=10; server_max_window_bits=10"}, "", 0, 101},
		{[]string{"permessage-deflate; unknown"}, "", 0, 101},
		{[]string{"permessage-bzip2"}, "", 0, 101},
		{[]string{"permessage-deflate; ="}, "", 0, 400},
	} {
		var changes []string
		for _, o := range test.offers {
			changes = append(changes, "+Sec-WebSocket-Extensions: "+o)
		}
		resp, up, _, err := answer(t, &Upgrader{Deflate: true}, get(changes...))
		got := strings.ReplaceAll(strings.Join(resp.Header["Sec-Websocket-Extensions"], "|"), " ", "")
		framing := link.WebSocket
		if test.bits > 0 {
			framing = DeflateFraming(test.bits)
		}
		if resp.StatusCode != test.status || got != test.want || err == nil && up.Framing != framing {
			t.Errorf("%q: status %d, %q, framing %d", test.offers, resp.StatusCode, got, up.Framing)
		}
		resp, up, _, _ = answer(t, &Upgrader{}, get(changes...))
		if resp.Header["Sec-Websocket-Extensions"] != nil || resp.StatusCode == 101 && up.Framing != link.WebSocket {
			t.Errorf("%q: accepted although it is off", test.offers)
		}
	}
}

func TestUpgrade_OfARequestThatNetHTTPHasRead(t *testing.T) {
	var got []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = AppendRequest([]byte{}, r)
	}))
	defer srv.Close()
	req, err := http.NewRequest("GET", srv.URL+"/a%20b?q=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": sampleKey, "Sec-WebSocket-Protocol": "mqtt", "Cookie": "c=1",
	} {
		req.Header.Set(name, value)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	resp, up, _, err := answer(t, &Upgrader{Loopback: true}, string(got))
	if err != nil || resp.StatusCode != 101 || up.Protocol != "mqtt" {
		t.Fatalf("%q: %v", got, err)
	}
	h := up.Handshake
	if h.Path != "/a b" || h.Query != "q=1" || h.Host != srv.Listener.Addr().String() || h.Header["Cookie"][0] != "c=1" {
		t.Errorf("%+v", h)
	}
}

func TestAccept_WritesWhatTheLibraryWrites(t *testing.T) {
	for _, protocol := range []string{"", "mqtt", "mqttv3.1"} {
		got, err := accept([]byte("before"), sampleKey, protocol, httphead.Option{})
		if err != nil {
			t.Fatal(err)
		}
		want, err := acceptByLibrary([]byte("before"), sampleKey, protocol, httphead.Option{})
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%q is not %q", got, want)
		}
	}
}

func BenchmarkUpgrade(b *testing.B) {
	for name, deflate := range map[string]bool{"plain": false, "deflate": true} {
		b.Run(name, func(b *testing.B) {
			u, dst := &Upgrader{Deflate: deflate}, make([]byte, 0, 1024)
			input := []byte(get("+Sec-WebSocket-Extensions: permessage-deflate"))
			b.ReportAllocs()
			for b.Loop() {
				var r Request
				n, err := u.Parse(&r, input)
				if err != nil {
					b.Fatal(err)
				}
				if _, _, err := u.Upgrade(dst, input[:n]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
