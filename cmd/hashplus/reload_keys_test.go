//go:build unix

package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"hashplus/broker/auth"
	"hashplus/broker/wire"
)

// subject is a broker in a process of its own, whose file is changed.
type subject struct {
	t    *testing.T
	cmd  *exec.Cmd
	file string
	at   map[string]string // address of the first listener of each kind
	log  lockedBuffer
}

func newSubject(t *testing.T, file string) *subject {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &subject{t: t, file: file, at: map[string]string{}, cmd: exec.Command(self, "serve", "--config="+file)}
	s.cmd.Env = append(os.Environ(), asMain+"=1")
	s.cmd.Stderr = &s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	listeners := 2
	for _, kind := range []string{"tcp", "ws", "wss", "tls", "unix"} {
		listeners += strings.Count(string(text), "\n"+kind+": ")
	}
	lines := bufio.NewScanner(out)
	for n := 0; n < listeners && lines.Scan(); n++ {
		kind, address, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "listening "), "://")
		address, _, _ = strings.Cut(address, "/")
		if s.at[kind] == "" {
			s.at[kind] = address
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // until the process ends
	eventually(t, "the service", func() bool {
		return strings.Contains(s.log.String(), "serving") || strings.Contains(s.log.String(), "ERROR")
	})
	return s
}

func (s *subject) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // killed
}

// hangup sends SIGHUP and returns what the log says of it.
func (s *subject) hangup() (log string) {
	s.t.Helper()
	before := len(s.log.String())
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the reload", func() bool {
		log = s.log.String()[before:]
		return strings.Contains(log, "reloaded") && strings.HasSuffix(log, "\n")
	})
	return log
}

func (s *subject) dial(kind string) net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.at[kind])
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	return c
}

// observation is what can be seen from outside of a setting.
type observation func(s *subject) string

// says sends packets on a connection, PINGREQ last, and returns all that comes back
// before its answer or the end.
func says(connect func(*wire.Connect), packets ...[]byte) observation {
	return func(s *subject) string {
		p := wire.Connect{Version: wire.V5, ClientID: "probe", CleanStart: true, KeepAlive: 600, SessionExpiry: 1000,
			ReceiveMaximum: 10, TopicAliasMaximum: 100}
		if connect != nil {
			connect(&p)
		}
		c := s.dial("mqtt")
		all := p.Append(nil)
		for _, b := range packets {
			all = append(all, b...)
		}
		if _, err := c.Write(append(all, byte(wire.PINGREQ)<<4, 0)); err != nil {
			return "not written"
		}
		defer c.Close() //nolint:errcheck // it has said all
		return fmt.Sprintf("%x", until(c, "\xd0\x00"))
	}
}

// until reads until what has come ends in end, or the connection does.
func until(c net.Conn, end string) (got []byte) {
	b := make([]byte, 4096)
	for !strings.HasSuffix(string(got), end) {
		n, err := c.Read(b)
		got = append(got, b[:n]...)
		if err != nil {
			return got
		}
	}
	return got
}

func publishing(topic, payload string, flags byte) []byte {
	body := append([]byte{byte(len(topic) >> 8), byte(len(topic))}, topic...)
	if flags&6 != 0 {
		body = append(body, 0, 7)
	}
	body = append(append(body, 0), payload...)
	return append(lengthened(0x30|flags, len(body)), body...)
}

func subscribing(filter string, options byte) []byte {
	body := append([]byte{0, 8, 0, byte(len(filter) >> 8), byte(len(filter))}, filter...)
	body = append(body, options)
	return append(lengthened(0x82, len(body)), body...)
}

func lengthened(first byte, n int) []byte {
	if n < 128 {
		return []byte{first, byte(n)}
	}
	return []byte{first, byte(n&127) | 128, byte(n >> 7)}
}

// pub is the exit code of the command.
func pub(args ...string) observation {
	return func(s *subject) string {
		code, _, _ := command(s.t, append([]string{"pub", "-u", "tcp://" + s.at["mqtt"], "-t", "a", "-m", "b", "-q", "1", "--no-reconnect"}, args...)...)
		return fmt.Sprint("exit ", code)
	}
}

// upgrade is the answer to the request for a WebSocket.
func upgrade(path string, headers ...string) observation {
	return func(s *subject) string {
		_, answer := upgraded(s, path, headers...)
		return answer
	}
}

func upgraded(s *subject, path string, headers ...string) (c net.Conn, answer string) {
	c = s.dial("ws")
	_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n", path, strings.Join(append(headers, ""), "\r\n"))
	return c, string(until(c, "\r\n\r\n"))
}

// endsWithin says whether the broker ends a connection within a time.
func endsWithin(within time.Duration, open func(s *subject) net.Conn) observation {
	return func(s *subject) string {
		c := open(s)
		_ = c.SetReadDeadline(time.Now().Add(within))
		_, err := io.Copy(io.Discard, c)
		return fmt.Sprint("ended: ", !errors.Is(err, os.ErrDeadlineExceeded))
	}
}

// reached says whether somebody listens.
func reached(network, address string) observation {
	return func(*subject) string {
		c, err := net.Dial(network, address)
		if err == nil {
			_ = c.Close()
		}
		return fmt.Sprint("listens: ", err == nil)
	}
}

// handshake tells what a client sees of TLS.
func handshake(most uint16) observation {
	return func(s *subject) string {
		asked := "for nothing"
		c, err := tls.Dial("tcp", s.at["mqtts"], &tls.Config{InsecureSkipVerify: true, MaxVersion: most,
			GetClientCertificate: func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = fmt.Sprintf("for %d CAs %x", len(r.AcceptableCAs), slices.Concat(r.AcceptableCAs...))
				return &tls.Certificate{}, nil
			}})
		if err != nil {
			return "refused, asked " + asked
		}
		defer c.Close() //nolint:errcheck // it has been looked at
		return fmt.Sprintf("%x, asked %s", c.ConnectionState().PeerCertificates[0].Signature, asked)
	}
}

func signed(secret string, claims jwt.MapClaims) string {
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	if err != nil {
		panic(err)
	}
	return text
}

// keyCase is a change of keys, the last lines of a file.
type keyCase struct {
	keys           string // those that change
	base, from, to string // lines of the file: those that stay, and the others before and after
	see            observation
	// elsewhere names the test that sees the effect, where it can't be seen here.
	// The log has to name the key as changed.
	elsewhere string
}

// Each key of the configuration is changed in the file of a real process that gets
// SIGHUP. What can be seen from outside is then what a broker shows that was
// started with the changed file, and not what it was before; or the log names the
// key as one that waits for a restart.
func TestReload_EachKeyHasItsEffectOrIsNamed(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("it starts two processes for each key, which takes minutes with the race detector")
	}
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	entry, err := auth.NewPBKDF2Password("alice", "x", 1)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := auth.NewScram("alice", "x", 4096)
	if err != nil {
		t.Fatal(err)
	}
	passwords, scram := put("passwords", entry), put("scram", verifier)
	secret := strings.Repeat("s", 32)
	secretFile := put("secret", secret)
	certOne, keyOne := certificate(t)
	certTwo, keyTwo := certificate(t)
	keyText, err := os.ReadFile(keyOne)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(keyText)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	es256, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"sub": "carol", "exp": time.Now().Add(time.Hour).Unix()}).SignedString(private)
	if err != nil {
		t.Fatal(err)
	}

	var requests atomic.Int64
	answer := func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "slow") {
			time.Sleep(700 * time.Millisecond)
		}
		if strings.Contains(string(body), "alice") || r.URL.Path == "/deny" || r.URL.Path == "/token" && r.Header.Get("Authorization") != "Bearer ours" {
			_, _ = io.WriteString(w, `{"result":"deny"}`)
			return
		}
		_, _ = io.WriteString(w, `{"result":"allow"}`)
	}
	callback := httptest.NewServer(http.HandlerFunc(answer))
	defer callback.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(answer))
	defer secure.Close()
	ca := put("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	asked := func(args ...string) observation {
		return func(s *subject) string {
			requests.Store(0)
			for range 2 {
				pub(args...)(s)
			}
			return fmt.Sprint(requests.Load(), " requests")
		}
	}
	byName := func(user, password string) observation { return pub("--username="+user, "--password="+password) }
	byToken := func(claims jwt.MapClaims, args ...string) observation {
		all := jwt.MapClaims{"sub": "carol", "exp": time.Now().Add(time.Hour).Unix()}
		for k, v := range claims {
			all[k] = v
			if v == nil {
				delete(all, k)
			}
		}
		return pub(append([]string{"--username=any", "--password=" + signed(secret, all)}, args...)...)
	}
	names := 0
	another := func(name string) string { names++; return fmt.Sprintf("%s%03d", name, names) }
	port := freePort(t)
	local := fmt.Sprintf("127.0.0.1:%d", port)
	socket := filepath.Join(dir, "sock")
	withCert := "tls-cert: " + certOne + "\ntls-key: " + keyOne
	withTLS := withCert + "\ntls: 127.0.0.1:0"
	withJWT := "jwt-secret: " + secretFile
	withHTTP := "auth-http-url: " + callback.URL
	openWS := func(s *subject) net.Conn { c, _ := upgraded(s, "/mqtt"); return c }
	long := strings.Repeat("x", 300)

	cases := []keyCase{
		{keys: "tcp", to: "tcp: " + local, see: reached("tcp", local)},
		{keys: "ws", to: "ws: " + local, see: reached("tcp", local)},
		{keys: "wss", base: withTLS, to: "wss: " + local, see: reached("tcp", local)},
		{keys: "tls", base: withCert + "\nwss: 127.0.0.1:0", to: "tls: " + local, see: reached("tcp", local)},
		{keys: "unix", to: "unix: " + socket, see: reached("unix", socket)},

		{keys: "ws-path", to: "ws-path: /other", see: upgrade("/mqtt")},
		{keys: "ws-origins", to: "ws-origins: https://a.example", see: upgrade("/mqtt", "Origin: https://a.example")},
		{keys: "ws-require-subprotocol", to: "ws-require-subprotocol: true", see: upgrade("/mqtt")},
		{keys: "ws-deflate", to: "ws-deflate: true", see: upgrade("/mqtt", "Sec-WebSocket-Extensions: permessage-deflate")},
		{keys: "ws-deflate-min-size", base: "ws-deflate: true", to: "ws-deflate-min-size: 64KiB", see: func(s *subject) string {
			c, _ := upgraded(s, "/mqtt", "Sec-WebSocket-Extensions: permessage-deflate")
			connect := wire.Connect{Version: wire.V5, ClientID: "probe", CleanStart: true}
			all := slices.Concat(connect.Append(nil), subscribing("a", 0), publishing("a", strings.Repeat("x", 1000), 0), []byte{0xc0, 0})
			_, _ = c.Write(append([]byte{0x82, 0xfe, byte(len(all) >> 8), byte(len(all)), 0, 0, 0, 0}, all...)) // masked with zeros
			return fmt.Sprint("compressed: ", len(until(c, "\x82\x02\xd0\x00")) < 500)
		}},
		{keys: "ws-ping", to: "ws-ping: 100ms", see: func(s *subject) string {
			c := openWS(s)
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			return fmt.Sprintf("%x", until(c, "\x89\x00"))
		}},
		{keys: "pong-grace", elsewhere: "transport: TestPrepareUpdate_WebSocketSettings", to: "pong-grace: false"},

		{keys: "tls-cert tls-key", base: "tls: 127.0.0.1:0", from: withCert, to: "tls-cert: " + certTwo + "\ntls-key: " + keyTwo, see: handshake(0)},
		{keys: "tls-min-version", base: withTLS, to: "tls-min-version: 1.3", see: handshake(tls.VersionTLS12)},
		{keys: "tls-client-auth", base: withTLS + "\ntls-client-ca: " + certOne, from: "tls-client-auth: optional", to: "tls-client-auth: required", see: handshake(tls.VersionTLS12)},
		{keys: "tls-client-ca", base: withTLS + "\ntls-client-auth: optional", from: "tls-client-ca: " + certOne, to: "tls-client-ca: " + put("both", ""),
			see: handshake(0)},
		{keys: "tls-handshake-timeout", base: withTLS, to: "tls-handshake-timeout: 200ms", see: endsWithin(time.Second, func(s *subject) net.Conn { return s.dial("mqtts") })},
		{keys: "tls-username", base: withTLS + "\ntls-client-ca: " + certOne + "\ntls-client-auth: optional\nallow-anonymous: true", to: "tls-username: dns",
			elsewhere: "transport: TestPrepareUpdate_HoldsForNewConnections"},
		{keys: "tls-handshake-rate", base: withTLS, to: "tls-handshake-rate: 7", elsewhere: "transport: TestTLS_RateIsBounded"},
		{keys: "tls-handshakes", base: withTLS, to: "tls-handshakes: 7", elsewhere: "transport: TestTLS_SlowHandshakesDoNotStopHonestOnes"},
		{keys: "tls-watch", base: withTLS, from: "tls-watch: 0", to: "tls-watch: 50ms", see: func(s *subject) string {
			before := len(s.log.String())
			now := time.Now().Add(time.Duration(before) * time.Second) // another one each time
			if err := os.Chtimes(certOne, now, now); err != nil {
				t.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond)
			return fmt.Sprint("read again: ", strings.Contains(s.log.String()[before:], "TLS files read again"))
		}},
		{keys: "tls-workers", base: withTLS, to: "tls-workers: 3"},

		{keys: "trusted-proxies proxy-protocol", to: "trusted-proxies: 127.0.0.1\nproxy-protocol: required", see: says(nil)},
		{keys: "forwarded-header", base: "trusted-proxies: 127.0.0.1", to: "forwarded-header: none", see: func(s *subject) string {
			before := len(s.log.String())
			c, _ := upgraded(s, "/mqtt", "X-Forwarded-For: 192.0.2.9")
			_, _ = c.Write([]byte{0x82, 0x82, 0, 0, 0, 0, 0xff, 0})
			_, _ = io.Copy(io.Discard, c)
			return fmt.Sprint("believed: ", strings.Contains(s.log.String()[before:], "192.0.2.9"))
		}},

		{keys: "allow-anonymous", base: "password-file: " + passwords, to: "allow-anonymous: true", see: pub()},
		{keys: "password-file", base: "allow-anonymous: true", to: "password-file: " + passwords, see: byName("alice", "y")},
		{keys: "scram-file", base: "password-file: " + passwords, to: "scram-file: " + scram, see: says(func(p *wire.Connect) {
			p.HasAuthMethod, p.AuthMethod, p.AuthData = true, auth.ScramMethod, []byte("y")
		})},
		{keys: "auth", base: "password-file: " + passwords + "\n" + withHTTP, from: "auth: [password, http]", to: "auth: [http, password]", see: byName("alice", "x")},
		{keys: "acl", to: "acl: " + put("acl", "topic read #\n"), see: pub()},
		{keys: "jwt-keys", base: withJWT, to: "jwt-keys: " + put("pub.pem", mustPublic(t, certOne)), see: pub("--username=any", "--password="+es256)},
		{keys: "jwt-secret", base: "allow-anonymous: true", to: withJWT, see: byName("alice", "y")},
		{keys: "jwt-jwks-url", base: withJWT, to: "jwt-jwks-url: " + callback.URL, elsewhere: "broker/auth: TestKeyURL_FollowsTheServer"},
		{keys: "jwt-jwks-ca", base: withJWT + "\njwt-jwks-url: " + secure.URL, to: "jwt-jwks-ca: " + ca, elsewhere: "broker/auth: TestKeyURL_HoldsTheServerToItsCertificate"},
		{keys: "jwt-jwks-refresh", base: withJWT + "\njwt-jwks-url: " + callback.URL, to: "jwt-jwks-refresh: 5m", elsewhere: "broker/auth: TestKeyURL_AsksAgainByItself"},
		{keys: "jwt-issuer", base: withJWT, to: "jwt-issuer: us", see: byToken(nil)},
		{keys: "jwt-audience", base: withJWT, to: "jwt-audience: us", see: byToken(nil)},
		{keys: "jwt-clock-skew", base: withJWT, to: "jwt-clock-skew: 10m", see: byToken(jwt.MapClaims{"exp": time.Now().Add(-time.Minute).Unix()})},
		{keys: "jwt-require-exp", base: withJWT, to: "jwt-require-exp: false", see: byToken(jwt.MapClaims{"exp": nil})},
		{keys: "jwt-username-claim", base: withJWT, to: "jwt-username-claim: name", see: byToken(nil)},
		{keys: "jwt-client-id-claim", base: withJWT, to: "jwt-client-id-claim: sub", see: byToken(nil)},
		{keys: "jwt-publish-claim", base: withJWT, to: "jwt-publish-claim: pub", see: byToken(jwt.MapClaims{"publish": []string{"b"}})},
		{keys: "jwt-subscribe-claim", base: withJWT, to: "jwt-subscribe-claim: reads", see: func(s *subject) string {
			token := signed(secret, jwt.MapClaims{"sub": "carol", "exp": time.Now().Add(time.Hour).Unix(), "subscribe": []string{"b"}})
			return says(func(p *wire.Connect) { p.HasPassword, p.Password = true, []byte(token) }, subscribing("a", 0))(s)
		}},
		{keys: "jwt-from", base: withJWT, to: "jwt-from: header", see: byToken(nil)},
		{keys: "auth-http-url", from: withHTTP, to: withHTTP + "/deny", see: byName("dave", "x")},
		{keys: "auth-http-ca", base: "auth-http-url: " + secure.URL, to: "auth-http-ca: " + ca, see: byName("dave", "x")},
		{keys: "auth-http-token-file", base: withHTTP + "/token", to: "auth-http-token-file: " + put("token", "ours"), see: byName("dave", "x")},
		{keys: "auth-http-timeout", base: withHTTP, to: "auth-http-timeout: 100ms", see: byName("slow", "x")},
		{keys: "auth-http-concurrency", base: withHTTP, to: "auth-http-concurrency: 3", elsewhere: "broker/auth: TestCallback_BoundsRequestsAtOnce"},
		{keys: "auth-http-cache", base: withHTTP, to: "auth-http-cache: 0", see: asked("-i", "same", "--username=dave", "--password=x")},
		{keys: "auth-http-cache-refused", base: withHTTP, to: "auth-http-cache-refused: 0", see: asked("-i", "same", "--username=alice", "--password=x")},
		{keys: "auth-http-cache-size", base: withHTTP, to: "auth-http-cache-size: 3", elsewhere: "broker/auth: TestCallback_RemembersAnswersForAWhile"},

		{keys: "max-keepalive", to: "max-keepalive: 30", see: says(nil)},
		{keys: "receive-maximum", to: "receive-maximum: 5", see: says(nil)},
		{keys: "max-packet-size", to: "max-packet-size: 1KiB", see: says(nil)},
		{keys: "topic-alias-maximum", to: "topic-alias-maximum: 3", see: says(nil)},
		{keys: "max-qos", to: "max-qos: 1", see: says(nil)},
		{keys: "retain-available", to: "retain-available: false", see: says(nil)},
		{keys: "max-session-expiry", to: "max-session-expiry: 10s", see: says(nil)},
		{keys: "server-reference", to: "server-reference: other", elsewhere: "cmd/hashplus: TestServe_SignalTellsClientsAndEndsWithZero; broker: TestSetOptions_LimitsHoldAtOnce"},

		{keys: "max-connections", to: "max-connections: 1", see: func(s *subject) string { s.dial("mqtt"); return pub()(s) }},
		{keys: "max-sessions", to: "max-sessions: 1", see: func(s *subject) string {
			says(func(p *wire.Connect) { p.ClientID = another("a") })(s)
			return says(func(p *wire.Connect) { p.ClientID = another("a") })(s)
		}},
		{keys: "connect-timeout", to: "connect-timeout: 200ms", see: endsWithin(time.Second, func(s *subject) net.Conn { return s.dial("mqtt") })},
		{keys: "max-connect-size", to: "max-connect-size: 128", see: says(func(p *wire.Connect) { p.ClientID = long })},
		{keys: "max-inflight", to: "max-inflight: 1", see: says(nil, subscribing("a", 1), publishing("a", "1", 2), publishing("a", "2", 2))},
		{keys: "max-queued-messages", to: "max-queued-messages: 9", elsewhere: "broker: TestLimits_QueueFullPolicies"},
		{keys: "max-queued-bytes", to: "max-queued-bytes: 9KiB", elsewhere: "broker: TestLimits_QueueIsBoundedInBytes"},
		{keys: "queue-full", to: "queue-full: disconnect", elsewhere: "broker: TestLimits_QueueFullDisconnectsTheClient"},
		{keys: "max-subscriptions", to: "max-subscriptions: 1", see: says(nil, subscribing("a", 0), subscribing("b", 0))},
		{keys: "max-topic-levels", to: "max-topic-levels: 2", see: says(nil, subscribing("a/b/c", 0))},
		{keys: "max-topic-length", to: "max-topic-length: 20", see: says(nil, subscribing(long[:50], 0))},
		{keys: "max-user-properties", to: "max-user-properties: 1", see: says(func(p *wire.Connect) {
			p.UserProperties = []wire.UserProperty{{Key: "a", Value: "b"}, {Key: "c", Value: "d"}}
		})},
		{keys: "max-memory", to: "max-memory: 1GiB", elsewhere: "TestMemory_IsShortAboveTheLimitUntilATenthBelow"},
		{keys: "max-address-connections", to: "max-address-connections: 9", elsewhere: "transport: TestAddresses_Connections; loopback is exempt"},
		{keys: "max-address-rate", to: "max-address-rate: 9", elsewhere: "transport: TestAddresses_Rate; loopback is exempt"},
		{keys: "max-loop-lag", to: "max-loop-lag: 9s", elsewhere: "transport: TestLimits_AcceptingIsSlowWhileALoopLags"},
		{keys: "max-publish-rate", to: "max-publish-rate: 1", see: func(s *subject) string {
			began := time.Now()
			says(nil, publishing("a", "1", 0), publishing("a", "2", 0), publishing("a", "3", 0))(s)
			return fmt.Sprint("slow: ", time.Since(began) > time.Second)
		}},
		{keys: "max-publish-bytes", to: "max-publish-bytes: 10", see: func(s *subject) string {
			began := time.Now()
			says(nil, publishing("a", "12345", 0), publishing("a", "12345", 0), publishing("a", "12345", 0))(s)
			return fmt.Sprint("slow: ", time.Since(began) > 500*time.Millisecond)
		}},
		{keys: "max-retained-messages", to: "max-retained-messages: 1", see: func(s *subject) string {
			one, two := another("a"), another("a")
			defer says(nil, publishing(one, "", 3), publishing(two, "", 3))(s)
			return says(nil, publishing(one, "1", 3), publishing(two, "1", 3))(s)
		}},
		{keys: "max-retained-bytes", to: "max-retained-bytes: 1KiB", see: func(s *subject) string {
			return says(nil, publishing(another("a"), strings.Repeat("x", 2000), 3))(s)
		}},
		{keys: "ban-auth-failures", base: withJWT, to: "ban-auth-failures: 9", elsewhere: "broker: TestBans_ForFailedAuthentications; loopback is exempt"},
		{keys: "ban-connects", to: "ban-connects: 9", elsewhere: "broker: TestBans_ForFlapping; loopback is exempt"},
		{keys: "ban-window", base: "ban-connects: 9", to: "ban-window: 9s", elsewhere: "broker: TestBans_EndAndAreBounded"},
		{keys: "ban-time", base: "ban-connects: 9", to: "ban-time: 9s", elsewhere: "broker: TestBans_EndAndAreBounded"},
		{keys: "ban-by", base: "ban-connects: 9", to: "ban-by: address", elsewhere: "broker: TestBans_ByUsername"},
		{keys: "write-queue-bytes", to: "write-queue-bytes: 9KiB", elsewhere: "broker: TestSetOptions_LimitsHoldAtOnce"},
		{keys: "write-stall", to: "write-stall: 9s", elsewhere: "transport: TestSetOptions_IsInForceAtOnce"},
		{keys: "strict", to: "strict: true", see: endsWithin(500*time.Millisecond, func(s *subject) net.Conn {
			c := openWS(s)
			_, _ = c.Write([]byte{0x8a, 0}) // an unmasked pong
			return c
		})},

		{keys: "data", to: "data: " + filepath.Join(dir, "data")},
		{keys: "sync", base: "data: " + filepath.Join(dir, "synced"), to: "sync: never"},
		{keys: "min-free", base: "data: " + filepath.Join(dir, "free"), to: "min-free: 1GiB", elsewhere: "broker: the ledger's tests of a full disk"},
		{keys: "loops", to: "loops: 3"},
		{keys: "io-uring", to: "io-uring: off"},
		{keys: "health", to: "health: " + local, see: reached("tcp", local)},
		{keys: "sys-interval", from: "sys-interval: 0", to: "sys-interval: 100ms", see: func(s *subject) string {
			time.Sleep(500 * time.Millisecond)
			return fmt.Sprint("told: ", len(says(nil, subscribing("$SYS/broker/uptime", 0))(s)) > 140)
		}},
		{keys: "drain", from: "drain: 1s", to: "drain: 2s", elsewhere: "TestReload_OpensAndClosesListeners reads it"},
		{keys: "log-level", to: "log-level: debug", see: func(s *subject) string {
			says(nil)(s)
			time.Sleep(100 * time.Millisecond)
			return fmt.Sprint("debug: ", strings.Contains(s.log.String(), "level=DEBUG"))
		}},
		{keys: "log-format", to: "log-format: json", see: func(s *subject) string {
			before := len(s.log.String())
			s.hangup()
			return fmt.Sprint("json: ", strings.HasPrefix(s.log.String()[before:], `{"time"`))
		}},
	}
	// What a file holds is written before the processes start.
	one, _ := os.ReadFile(certOne)
	two, _ := os.ReadFile(certTwo)
	put("both", string(one)+string(two))

	seen := map[string]bool{"listeners": true, "tls-crl": true} // see TestReload_OpensAndClosesListeners, and the clients' tests
	for _, c := range cases {
		for _, key := range strings.Fields(c.keys) {
			seen[key] = true
		}
		t.Run(strings.ReplaceAll(c.keys, " ", ","), func(t *testing.T) { c.run(t) })
	}
	for key := range reloads {
		if !seen[key] {
			t.Errorf("%s is not tried", key)
		}
	}
}

func (c *keyCase) run(t *testing.T) {
	const always = "drain: 0\n"
	listeners := "listeners: [{url: 'tcp://127.0.0.1:0'}, {url: 'ws://127.0.0.1:0'}]\n"
	text := func(lines string) string {
		own := always
		if strings.Contains(lines, "drain:") {
			own = ""
		}
		return own + listeners + c.base + "\n" + lines + "\n"
	}
	file := writeFile(t, "c.yaml", text(c.from))
	s := newSubject(t, file)
	defer s.stop()
	var before string
	if c.see != nil {
		before = c.see(s)
	}
	rewrite(t, file, text(c.to))
	log := s.hangup()
	waits := reloads[strings.Fields(c.keys)[0]] == restart
	if strings.Contains(log, "not reloaded") || strings.Contains(log, "only a restart puts it in force") != waits {
		t.Fatalf("the log says %s", log)
	}
	switch {
	case waits:
		if !strings.Contains(log, "keys="+c.keys) {
			t.Errorf("the key is not named: %s", log)
		}
	case c.see == nil:
		if c.elsewhere == "" || !strings.Contains(log, c.keys) {
			t.Errorf("nothing is seen of it: %s", log)
		}
	default:
		after := c.see(s)
		s.stop()
		anew := newSubject(t, file)
		defer anew.stop()
		if want := c.see(anew); after != want || after == before {
			t.Errorf("before %.300q, after %.300q; a broker that is started with it %.300q", before, after, want)
		}
	}
}

// mustPublic is the public key of a certificate as PEM.
func mustPublic(t *testing.T, certFile string) string {
	t.Helper()
	text, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
