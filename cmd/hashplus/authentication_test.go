package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"hashplus/broker/auth"
)

func TestCheck_FaultsOfAuthenticationNameTheKey(t *testing.T) {
	entry, err := auth.NewPassword("alice", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	passwords := writeFile(t, "passwords", entry+"\n")
	secret := writeFile(t, "secret", strings.Repeat("s", 32))
	withSecret := "--jwt-secret=" + secret
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--auth=password"}, "auth: names password, but there is no password-file"},
		{[]string{"--auth=jwt"}, "auth: names jwt, but there is no jwt-keys, jwt-secret or jwt-jwks-url"},
		{[]string{"--auth=certificate"}, "auth: names certificate, but there is no listener that takes names"},
		{[]string{"--auth=ldap"}, `auth: unknown method "ldap"; scram, certificate, jwt, password, http are known`},
		{[]string{"--auth=password,password", "--password-file=" + passwords}, "auth: password stands there twice"},
		{[]string{"--auth=password", "--password-file=" + passwords, withSecret}, "auth: leaves out jwt, although there is"},
		{[]string{"--jwt-keys=" + secret}, "jwt-keys: " + secret + ": it is neither PEM"},
		{[]string{"--jwt-secret=" + passwords + "-not-there"}, "jwt-secret: "},
		{[]string{"--jwt-secret=" + writeFile(t, "short", "short")}, "a secret of 5 bytes; HS256 needs 32"},
		{[]string{withSecret, "--jwt-from=body"}, `jwt-from: unknown place "body"`},
		{[]string{withSecret, "--jwt-from=cookie"}, "jwt-from: cookie needs the cookie's name"},
		{[]string{withSecret, "--jwt-from=cookie=s"}, "jwt-from: cookie needs the origins whose pages may connect, and ws://127.0.0.1:8083 has none"},
		{[]string{withSecret, "--jwt-from=cookie=s", "--ws-origins=*"}, `lets in "*", which is every page`},
		{[]string{withSecret, "--jwt-username-claim="}, "jwt-username-claim: is empty"},
		{[]string{withSecret, "--jwt-clock-skew=-1s"}, "jwt-clock-skew: "},
		{[]string{"--jwt-jwks-url=http://login.example.com/keys"}, "jwt-jwks-url: http:// is for servers on this machine"},
		{[]string{"--jwt-jwks-url=https://u:hidden@login.example.com/keys"}, "jwt-jwks-url: the URL has a user or password in it"},
		{[]string{"--jwt-jwks-url=https://login.example.com/keys", "--jwt-jwks-refresh=1ms"}, "jwt-jwks-refresh: "},
		{[]string{"--jwt-jwks-url=https://login.example.com/keys", "--jwt-jwks-ca=" + secret}, "jwt-jwks-url: no certificate in PEM"},
		{[]string{"--auth-http-url=ftp://login.example.com/"}, "auth-http-url: it is not a URL"},
		{[]string{"--auth-http-url=http://127.0.0.1/", "--auth-http-token-file=/not/there"}, "auth-http-token-file: "},
		{[]string{"--auth-http-url=http://127.0.0.1/", "--auth-http-token-file=" + writeFile(t, "t", "\n")}, "has no token in one word"},
		{[]string{"--auth-http-url=http://127.0.0.1/", "--auth-http-token-file=" + writeFile(t, "t", "a\nhidden@\n")}, "has no token in one word"},
		{[]string{"--auth-http-url=http://127.0.0.1/", "--auth-http-concurrency=0"}, "auth-http-concurrency: 0 is not allowed"},
		{[]string{"--auth-http-url=http://127.0.0.1/", "--auth-http-cache-size=0"}, "auth-http-cache-size: 0 is not allowed"},
		{[]string{"--no-allow-anonymous"}, "allow-anonymous: is off, but no authentication"},
		{[]string{"--tcp=0.0.0.0:0"}, "can be reached from other machines: configure authentication"},
	} {
		code, stdout, stderr := check(t, tc.args...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, tc.want) {
			t.Errorf("%q: exit %d, %q, %s\nwant %q", tc.args, code, stdout, stderr, tc.want)
		}
		if strings.Contains(stderr, "hidden@") || strings.Contains(stderr, entry[20:]) || strings.Contains(stderr, "ssssssss") {
			t.Errorf("%q: a secret is shown: %s", tc.args, stderr)
		}
	}
}

func TestCheck_ShowsNoSecretAndAsksNobody(t *testing.T) {
	asked := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{} }))
	defer server.Close()
	entry, err := auth.NewPassword("alice", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	scram, err := auth.NewScram("alice", "correct horse", 4096)
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{entry, scram, strings.Repeat("s", 32), "bearer-of-ours"}
	code, stdout, stderr := check(t, "--password-file="+writeFile(t, "p", secrets[0]), "--scram-file="+writeFile(t, "s", secrets[1]),
		"--jwt-secret="+writeFile(t, "j", secrets[2]), "--auth-http-token-file="+writeFile(t, "t", secrets[3]),
		"--auth-http-url="+server.URL, "--jwt-jwks-url="+server.URL+"/keys", "--auth=scram,jwt,password,http", "--jwt-from=cookie=s,header",
		"--ws-origins=https://app.example")
	if code != 0 || !strings.Contains(stdout, "auth: [scram, jwt, password, http]") {
		t.Errorf("exit %d, %s, %s", code, stdout, stderr)
	}
	for _, secret := range secrets {
		if strings.Contains(stdout+stderr, secret[len(secret)/2:]) {
			t.Errorf("%.10s… is shown: %s %s", secret, stdout, stderr)
		}
	}
	if len(asked) > 0 {
		t.Error("--check asks servers")
	}
	if !strings.Contains(stderr, "without jwt-audience") {
		t.Errorf("keys of somebody else's server for any audience: %s", stderr)
	}
}

func TestServe_MethodsAreAskedInTheirOrder(t *testing.T) {
	result := "ignore"
	var mu sync.Mutex
	asked := 0
	callback := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		_, _ = io.WriteString(w, `{"result":"`+result+`"}`)
	}))
	defer callback.Close()
	entry, err := auth.NewPassword("alice", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	file := "--password-file=" + writeFile(t, "passwords", entry+"\n")
	first := serve(t, "--tcp=127.0.0.1:0", "--auth=http,password", file, "--auth-http-url="+callback.URL, "--auth-http-cache=0s", "--auth-http-cache-refused=0s", "--allow-anonymous")
	last := serve(t, "--tcp=127.0.0.1:0", "--auth=password,http", file, "--auth-http-url="+callback.URL, "--auth-http-cache=0s", "--auth-http-cache-refused=0s")
	for _, tc := range []struct {
		s        *server
		result   string
		login    []string
		code     int
		requests int
	}{
		{first, "ignore", []string{"--username=alice", "--password=correct horse"}, exitOK, 1},
		{first, "deny", []string{"--username=alice", "--password=correct horse"}, exitRefused, 1},
		{first, "allow", []string{"--username=alice", "--password=wrong"}, exitOK, 1},
		{first, "ignore", nil, exitOK, 1}, // anonymous, once everybody was asked
		{first, "deny", nil, exitRefused, 1},
		{first, "garbage", nil, exitRefused, 1},
		{last, "deny", []string{"--username=alice", "--password=correct horse"}, exitOK, 0},
		{last, "allow", []string{"--username=alice", "--password=wrong"}, exitRefused, 0},
		{last, "allow", []string{"--username=bob", "--password=x"}, exitOK, 1},
		{last, "ignore", []string{"--username=bob", "--password=x"}, exitRefused, 1},
		{last, "ignore", nil, exitRefused, 1},
	} {
		mu.Lock()
		result, asked = tc.result, 0
		mu.Unlock()
		code, _, stderr := command(t, append([]string{"pub", "-u", tc.s.urls[0], "-t", "a", "-m", "b", "-q", "1"}, tc.login...)...)
		mu.Lock()
		if code != tc.code || asked != tc.requests {
			t.Errorf("%s, %q: exit %d, want %d, %d requests: %s", tc.result, tc.login, code, tc.code, asked, stderr)
		}
		mu.Unlock()
	}
}

func TestReload_OfAuthentication(t *testing.T) {
	entry := func(user string) string {
		e, err := auth.NewPassword(user, "x")
		if err != nil {
			t.Fatal(err)
		}
		return e + "\n"
	}
	passwords := writeFile(t, "passwords", entry("alice"))
	secret := writeFile(t, "secret", strings.Repeat("s", 32))
	file := writeFile(t, "c.yaml", "password-file: "+passwords+"\n")
	s := serve(t, "--config="+file, "--tcp=127.0.0.1:0")
	try := func(args ...string) int {
		code, _, _ := command(t, append([]string{"pub", "-u", s.urls[0], "-t", "a", "-m", "b", "-q", "1"}, args...)...)
		return code
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "carol", "exp": time.Now().Add(time.Hour).Unix(), "publish": []string{"b"}}).
		SignedString([]byte(strings.Repeat("s", 32)))
	if err != nil {
		t.Fatal(err)
	}
	byToken := []string{"--username=x", "--password=" + token}
	if try("--username=alice", "--password=x") != exitOK || try(byToken...) != exitRefused || try() != exitRefused {
		t.Error("before")
	}
	rewrite(t, file, "password-file: "+passwords+"\njwt-secret: "+secret+"\nallow-anonymous: true\n")
	if log := s.reload(); !strings.Contains(log, `changed="allow-anonymous jwt-secret"`) && !strings.Contains(log, `changed="jwt-secret allow-anonymous"`) || strings.Contains(log, "restart") {
		t.Errorf("%s", log)
	}
	// What the token may do counts, though there was no use for claims before.
	if try("--username=alice", "--password=x") != exitOK || try(byToken...) != exitRejected || try() != exitOK {
		t.Error("with tokens, and anonymous clients")
	}
	rewrite(t, file, "jwt-secret: "+secret+"\n")
	s.reload()
	if try("--username=alice", "--password=x") != exitRefused || try(byToken...) != exitRejected || try() != exitRefused {
		t.Error("without passwords")
	}
	rewrite(t, secret, "too short")
	if log := s.reload(); !strings.Contains(log, "jwt-secret: ") || !strings.Contains(log, "not reloaded") || try(byToken...) != exitRejected {
		t.Errorf("with a bad secret: %s", log)
	}
}

func TestReload_WhileClientsLogIn(t *testing.T) {
	entry, err := auth.NewPassword("alice", "x")
	if err != nil {
		t.Fatal(err)
	}
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"keys":[]}`)
	}))
	defer keys.Close()
	passwords := "password-file: " + writeFile(t, "passwords", entry+"\n") + "\n"
	others := []string{
		"", "jwt-secret: " + writeFile(t, "secret", strings.Repeat("s", 32)) + "\n", "jwt-jwks-url: " + keys.URL + "\n",
		"jwt-jwks-url: " + keys.URL + "\njwt-jwks-refresh: 5s\n", "auth-http-url: " + keys.URL + "\n", "allow-anonymous: true\n",
	}
	file := writeFile(t, "c.yaml", passwords)
	s := serve(t, "--config="+file, "--tcp=127.0.0.1:0")
	var clients sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		clients.Go(func() {
			for {
				code, _, stderr := command(t, "pub", "-u", s.urls[0], "--username=alice", "--password=x", "-t", "a", "-m", "b", "-q", "1")
				if code != exitOK {
					t.Errorf("exit %d: %s", code, stderr)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 2 {
		for _, more := range others {
			rewrite(t, file, passwords+more)
			if log := s.reload(); !strings.Contains(log, "msg=reloaded") {
				t.Errorf("%q: %s", more, log)
			}
		}
	}
	close(done)
	clients.Wait()
}

// Whatever becomes of a request, what it holds is not in the log.
func TestServe_LogsNoTokens(t *testing.T) {
	secret := writeFile(t, "secret", strings.Repeat("s", 32))
	s := serve(t, "--ws=127.0.0.1:0", "--ws-path=/mqtt", "--jwt-secret="+secret, "--jwt-from=password,header,query,subprotocol", "--log-level=debug")
	const token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJub2JvZHkifQ.bm90LXNpZ25lZA"
	const upgrade = "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	const connect = "\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x03\x21\x00\x0a\x00\x00"
	const frame = "\x82\x92\x00\x00\x00\x00" + connect // masked with zeros
	host := strings.TrimSuffix(strings.TrimPrefix(s.urls[0], "ws://"), "/mqtt")
	for _, request := range []string{
		"GET /mqtt?token=%s HTTP/1.1\r\nHost: localhost\r\n" + upgrade + "\r\n" + frame,
		"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n" + upgrade + "\r\n" + frame,
		"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nSec-WebSocket-Protocol: mqtt, bearer.%s\r\n" + upgrade + "\r\n" + frame,
		"GET /other?token=%s HTTP/1.1\r\nHost: localhost\r\n" + upgrade + "\r\n",
		"GET /mqtt?token=%s HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /mqtt?token=%s HTTP/1.1\r\n\r\n",
		"GET /mqtt?token=%s HTTP/2.0\r\nHost: localhost\r\n\r\n",
		"GET http://[::1?token=%s HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /%%zz?token=%s HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /mqtt?token=%s\r\n\r\n",
		"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nAuthorization : Bearer %s\r\n\r\n",
		"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n" + upgrade + "Sec-WebSocket-Protocol: bearer.%s\r\n\r\n",
		"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n" + upgrade + "Sec-WebSocket-Protocol: mqtt, bearer.%s/x\r\n\r\n",
		"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example?%s\r\n" + upgrade + "\r\n",
		"GET /mqtt HTTP/1.1\r\nHost: evil.example?%s\r\n" + upgrade + "\r\n",
	} {
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(c, request, token); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		var answer []byte
		for err == nil && !bytes.Contains(answer, []byte("\x88")) { // a close frame, which is not answered here
			chunk := make([]byte, 4096)
			var n int
			n, err = c.Read(chunk)
			answer = append(answer, chunk[:n]...)
		}
		if err != nil && err != io.EOF || len(answer) == 0 || strings.Contains(string(answer), token[20:]) {
			t.Errorf("%.60q: %q, %v", request, answer, err)
		}
		_ = c.Close()
	}
	log := s.errout.String()
	if !strings.Contains(log, "token: ") || !strings.Contains(log, "refused with 404") {
		t.Errorf("not everything came as far as it ought to: %s", log)
	}
	for part := range strings.SplitSeq(token, ".") {
		if strings.Contains(log, part[:12]) {
			t.Errorf("the log has %s: %s", part, log)
		}
	}
}
