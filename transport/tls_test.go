package transport

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"hashplus/transport/link"
)

// connectWS is how the tests of WebSocket connect.
var connectWS = connectListener

func TestWebSocket_OverTLS(t *testing.T) {
	connectWS = connectTLS
	defer func() { connectWS = connectListener }()
	for _, test := range []func(*testing.T){
		TestWebSocket_CloseHandshakeOfThePeerIsAnswered, TestWebSocket_OwnCloseWaitsForTheAnswerWithinADeadline,
		TestWebSocket_BrokenRulesGetTheirCode, TestWebSocket_FragmentsEmptyFramesAndPingsBetweenThem,
		TestWebSocket_ServerPingsAtAFixedInterval, TestWebSocket_HandshakeTimesOut, TestWebSocket_RefusalsSayWhy,
		TestWebSocket_MessageMode, TestWebSocket_DeflateStreamKeepsOrder,
	} {
		name := runtime.FuncForPC(reflect.ValueOf(test).Pointer()).Name()
		_, name, _ = strings.Cut(name, "TestWebSocket_")
		t.Run(name, test)
	}
}

// listenTLS listens and returns the address to dial.
func listenTLS(t testing.TB, s *Server, l Listener) string {
	t.Helper()
	l.Addr = "127.0.0.1:0"
	address, err := s.Listen(withTLS(t, l))
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// handshake dials address and makes a handshake, which may fail. TLS 1.3 tells
// a client late that it is refused, so a byte goes to and fro.
func tryTLS(t testing.TB, address string, c *tls.Config) (*tls.Conn, error) {
	t.Helper()
	nc := dialURL(t, address)
	nc.SetDeadline(time.Now().Add(time.Minute))
	tc := tls.Client(nc, c)
	if err := tc.Handshake(); err != nil {
		return nil, err
	}
	if _, err := tc.Write([]byte("?")); err != nil {
		return nil, err
	}
	_, err := io.ReadFull(tc, make([]byte, 1))
	return tc, err
}

// echoes checks that tc is served.
func echoes(t testing.TB, tc net.Conn) {
	t.Helper()
	if _, err := tc.Write([]byte("still there")); err != nil {
		t.Fatal(err)
	}
	if b := readFull(t, tc, 11); string(b) != "still there" {
		t.Fatalf("got %q", b)
	}
}

func TestTLS_KnowsTheLayoutOfConn(t *testing.T) {
	if !layout.known {
		t.Error("crypto/tls has other fields than tls_lend.go knows: idle connections are larger than they need be")
	}
}

func TestTLS_ReloadKeepsConnections(t *testing.T) {
	for _, how := range []string{"Reload", "watch", "watch that SetOptions begins"} {
		t.Run(how, func(t *testing.T) {
			o := Options{TLSWatch: -1}
			if how == "watch" {
				o.TLSWatch = 5 * time.Millisecond
			}
			var log quiet
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			s := start(t, o, newScripted())
			dir := t.TempDir()
			pair := writePair(t, dir, "a", testCA().server("old.example"))
			address := listenTLS(t, s, Listener{TLS: &TLS{Certificates: []KeyPair{pair}}})
			if how != "watch" && how != "Reload" {
				if err := s.SetOptions(Options{TLSWatch: 5 * time.Millisecond}); err != nil {
					t.Fatal(err)
				}
			}
			names := func() string {
				tc, err := tryTLS(t, address, clientConfig())
				if err != nil {
					t.Fatal(err)
				}
				return strings.Join(tc.ConnectionState().PeerCertificates[0].DNSNames, " ")
			}
			old, err := tryTLS(t, address, clientConfig())
			if err != nil {
				t.Fatal(err)
			}
			if got := names(); got != "old.example" {
				t.Fatal(got)
			}
			renewed := testCA().server("new.example")
			if how != "Reload" {
				// The two files of a pair change one after the other; between
				// them the pair does not fit, and the old one holds.
				der, _ := x509.MarshalPKCS8PrivateKey(renewed.PrivateKey)
				writePEM(t, pair.Key, "PRIVATE KEY", der)
				waitFor(t, "the fault is told", func() bool { return strings.Contains(log.String(), "cannot be used") })
				if got := names(); got != "old.example" {
					t.Fatal(got)
				}
			}
			writePair(t, dir, "a", renewed)
			if how == "Reload" {
				if err := s.Reload(); err != nil {
					t.Fatal(err)
				}
			}
			waitFor(t, "the new certificate", func() bool { return names() == "new.example" })
			echoes(t, old)
			if err := os.WriteFile(pair.Cert, []byte("nonsense"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.Reload(); err == nil || !strings.Contains(err.Error(), pair.Cert) {
				t.Errorf("a broken file: %v", err)
			}
			if got := names(); got != "new.example" {
				t.Error(got)
			}
		})
	}
}

func TestTLS_ServerNameChoosesTheCertificate(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	dir := t.TempDir()
	address := listenTLS(t, s, Listener{TLS: &TLS{Certificates: []KeyPair{
		writePair(t, dir, "a", testCA().server("a.example")), writePair(t, dir, "b", testCA().server("b.example", "*.b.example")),
	}}})
	for asked, want := range map[string]string{
		"a.example": "a.example", "b.example": "b.example", "x.b.example": "b.example", "other.example": "a.example", "": "a.example",
	} {
		tc, err := tryTLS(t, address, &tls.Config{ServerName: asked, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := tc.ConnectionState().PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("%q gets %s, want %s", asked, got, want)
		}
		if info := next(t, h).conn.Info(); info.TLS == nil || info.TLS.ServerName != asked || info.TLS.Version != "1.3" ||
			info.TLS.Certificate != nil || !strings.HasPrefix(info.TLS.Cipher, "TLS_") || info.Transport != "tls" {
			t.Errorf("%q: %+v", asked, info.TLS)
		}
	}
}

func TestTLS_ProtocolMustFitTheListener(t *testing.T) {
	s := start(t, Options{}, newScripted())
	for network, own := range map[string]string{"tcp": "mqtt", "ws": "http/1.1"} {
		address := listenTLS(t, s, Listener{Network: network})
		for _, test := range []struct {
			offer []string
			want  string
			ok    bool
		}{
			{nil, "", true},
			{[]string{own}, own, true},
			{[]string{"h2", own}, own, true},
			{[]string{"h2"}, "", false},
			{[]string{map[string]string{"mqtt": "http/1.1", "http/1.1": "mqtt"}[own]}, "", false},
		} {
			c := clientConfig()
			c.NextProtos = test.offer
			nc := dialURL(t, address)
			tc := tls.Client(nc, c)
			err := tc.Handshake()
			if (err == nil) != test.ok {
				t.Errorf("%s, offer %v: %v", network, test.offer, err)
			} else if got := tc.ConnectionState().NegotiatedProtocol; test.ok && got != test.want {
				t.Errorf("%s, offer %v: %q", network, test.offer, got)
			}
		}
	}
}

func TestTLS_VersionsBelowTheLeastAreRefused(t *testing.T) {
	s := start(t, Options{}, newScripted())
	for _, least := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
		l := withTLS(t, Listener{})
		l.TLS.MinVersion = least
		address := listenTLS(t, s, l)
		for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
			c := clientConfig()
			c.MinVersion, c.MaxVersion = v, v
			_, err := tryTLS(t, address, c)
			if want := v >= max(least, tls.VersionTLS12); (err == nil) != want {
				t.Errorf("least %s, client %s: %v", tls.VersionName(least), tls.VersionName(v), err)
			}
		}
	}
}

// clientCert is a certificate of a for a client, with names of every kind.
func clientCert(a *authority, name string) tls.Certificate {
	return a.issue(x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name + ".example", "second.example"},
		EmailAddresses: []string{name + "@example.com"}, URIs: []*url.URL{{Scheme: "urn", Opaque: name}},
	})
}

func TestTLS_ClientCertificates(t *testing.T) {
	ca, stranger := newAuthority("clients CA"), newAuthority("clients CA")
	good, bad := clientCert(ca, "sensor-7"), clientCert(stranger, "sensor-7")
	dir := t.TempDir()
	caFile := ca.writeCA(t, dir)
	for _, network := range []string{"fd", "stream"} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, auth := range []ClientAuth{ClientAuthNone, ClientAuthOptional, ClientAuthRequired} {
				h := newScripted()
				s := start(t, Options{}, h)
				l := withTLS(t, Listener{})
				l.TLS.ClientAuth = auth
				if auth != ClientAuthNone {
					l.TLS.ClientCA = caFile
				}
				var address string
				if network == "fd" {
					address = listenTLS(t, s, l)
				} else {
					ln, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					go s.Serve(hiddenListener{ln}, l)
					address = "tls://" + ln.Addr().String()
				}
				for _, test := range []struct {
					name string
					cert *tls.Certificate
					ok   bool
				}{
					{"none", nil, auth != ClientAuthRequired},
					{"good", &good, true},
					{"of a stranger", &bad, auth == ClientAuthNone},
				} {
					c := clientConfig()
					c.MinVersion, c.MaxVersion = version, version
					if test.cert != nil {
						// Also when the server names other CAs than the one that signed it.
						c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return test.cert, nil }
					}
					_, err := tryTLS(t, address, c)
					if (err == nil) != test.ok {
						t.Errorf("%s, auth %d, certificate %s: %v", network, auth, test.name, err)
						continue
					}
					if err != nil {
						continue
					}
					info := next(t, h).conn.Info().TLS
					if test.name != "good" || auth == ClientAuthNone {
						if info == nil || info.Certificate != nil {
							t.Errorf("%s, auth %d, certificate %s: %+v", network, auth, test.name, info)
						}
						continue
					}
					want := &link.Certificate{
						Username: "sensor-7", CommonName: "sensor-7", DNSNames: []string{"sensor-7.example", "second.example"},
						Emails: []string{"sensor-7@example.com"}, URIs: []string{"urn:sensor-7"},
						Serial: "2", Issuer: "CN=clients CA",
					}
					if !reflect.DeepEqual(info.Certificate, want) {
						t.Errorf("%s: %+v", network, info.Certificate)
					}
				}
			}
		}
	}
}

func TestTLS_UsernameIsThePartThatTheListenerNames(t *testing.T) {
	cert := clientCert(newAuthority("CA"), "me").Leaf
	for name, want := range map[CertificateName]string{
		NameCN: "me", NameDNS: "me.example", NameEmail: "me@example.com", NameURI: "urn:me", NameNone: "",
	} {
		if got := describeCertificate(cert, name).Username; got != want {
			t.Errorf("%d: %q, want %q", name, got, want)
		}
	}
	bare := newAuthority("CA").issue(x509.Certificate{Subject: pkix.Name{CommonName: "a\x00b"}}).Leaf
	for _, name := range []CertificateName{NameCN, NameDNS, NameEmail, NameURI} {
		if got := describeCertificate(bare, name).Username; got != "" {
			t.Errorf("%d: %q", name, got)
		}
	}
}

func TestTLS_RevokedCertificatesAreRefusedAndDisconnected(t *testing.T) {
	ca := newAuthority("clients CA")
	good, revoked := clientCert(ca, "good"), clientCert(ca, "revoked")
	dir := t.TempDir()
	crl := filepath.Join(dir, "crl.pem")
	ca.writeCRL(t, crl, big.NewInt(4711))
	h := newScripted()
	s := start(t, Options{TLSWatch: -1}, h)
	l := withTLS(t, Listener{})
	l.TLS.ClientAuth, l.TLS.ClientCA, l.TLS.CRL = ClientAuthRequired, ca.writeCA(t, dir), []string{crl}
	address := listenTLS(t, s, l)
	with := func(cert tls.Certificate) *tls.Config {
		c := clientConfig()
		c.Certificates = []tls.Certificate{cert}
		c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		return c
	}
	goodConfig, revokedConfig := with(good), with(revoked)
	stays, err := tryTLS(t, address, goodConfig)
	if err != nil {
		t.Fatal(err)
	}
	goes, err := tryTLS(t, address, revokedConfig)
	if err != nil {
		t.Fatal(err)
	}
	next(t, h)
	st := next(t, h)
	ca.writeCRL(t, crl, big.NewInt(4711), revoked.Leaf.SerialNumber)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := st.wait(t); !errors.Is(err, errRevoked) {
		t.Errorf("cause %v", err)
	}
	readEnd(t, goes)
	echoes(t, stays)
	// A ticket of the session before is no way in.
	for range 2 {
		if _, err := tryTLS(t, address, revokedConfig); err == nil {
			t.Error("a revoked certificate is let in")
		}
		if _, err := tryTLS(t, address, goodConfig); err != nil {
			t.Error(err)
		}
	}
	// A list that somebody else has signed is none.
	newAuthority("clients CA").writeCRL(t, crl)
	if err := s.Reload(); err == nil || !strings.Contains(err.Error(), "signed by none") {
		t.Errorf("a foreign list: %v", err)
	}
	if _, err := tryTLS(t, address, revokedConfig); err == nil {
		t.Error("a revoked certificate is let in")
	}
}

// A CA that is not in the file any more takes its clients with it; the others stay.
func TestTLS_ConnectionsOfACAThatIsGoneEnd(t *testing.T) {
	one, two := newAuthority("one"), newAuthority("two")
	cas := filepath.Join(t.TempDir(), "cas.pem")
	write := func(list ...*authority) {
		var text []byte
		for _, a := range list {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
		}
		if err := os.WriteFile(cas, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(one, two)
	h := newScripted()
	s := start(t, Options{TLSWatch: -1}, h)
	l := withTLS(t, Listener{})
	l.TLS.ClientAuth, l.TLS.ClientCA = ClientAuthOptional, cas
	address := listenTLS(t, s, l)
	dial := func(certs ...tls.Certificate) (net.Conn, *stream) {
		c := clientConfig()
		c.Certificates = certs
		nc, err := tryTLS(t, address, c)
		if err != nil {
			t.Fatal(err)
		}
		return nc, next(t, h)
	}
	stays, _ := dial(clientCert(one, "a"))
	goes, st := dial(clientCert(two, "b"))
	without, _ := dial()
	write(one)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := st.wait(t); !errors.Is(err, errRevoked) {
		t.Errorf("cause %v", err)
	}
	readEnd(t, goes)
	echoes(t, stays)
	echoes(t, without)
}

func TestTLS_HandshakeHasADeadline(t *testing.T) {
	var log quiet
	s := start(t, Options{TLSHandshakeTimeout: 2 * time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))}, newScripted())
	address := listenTLS(t, s, Listener{})
	hello := clientHello(t)
	var all []net.Conn
	for _, sent := range [][]byte{nil, hello[:1], hello[:100], hello} {
		nc := dialURL(t, address)
		if _, err := nc.Write(sent); err != nil {
			t.Fatal(err)
		}
		all = append(all, nc)
	}
	for i, nc := range all {
		nc.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, nc); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	waitFor(t, "four lines in the log", func() bool { return strings.Count(log.String(), "took too long") == 4 })
}

// clientHello is the first flight of a client.
func clientHello(t testing.TB) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		tls.Client(far, clientConfig()).Handshake()
		far.Close()
	}()
	b := make([]byte, 16<<10)
	n, err := near.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func TestTLS_SlowHandshakesDoNotStopHonestOnes(t *testing.T) {
	s := start(t, Options{TLSHandshakes: 4, TLSWorkers: 1}, newScripted())
	address := listenTLS(t, s, Listener{})
	hello := clientHello(t)
	for i := range 60 {
		nc := dialURL(t, address)
		if i%2 == 0 { // the others say nothing at all
			if _, err := nc.Write(hello); err != nil {
				t.Fatal(err)
			}
		}
	}
	if runtime.GOOS == "linux" {
		waitFor(t, "every place is taken", func() bool { return s.handshakes.underWay() == 4 })
	}
	begin := time.Now()
	tc, err := tryTLS(t, address, clientConfig())
	if err != nil {
		t.Fatal(err)
	}
	echoes(t, tc)
	t.Logf("an honest client waited for %v", time.Since(begin))
}

func (h *handshakes) underWay() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.under.Len()
}

func TestTLS_RateIsBounded(t *testing.T) {
	s := start(t, Options{TLSHandshakeRate: 50}, newScripted())
	address := listenTLS(t, s, Listener{})
	begin := time.Now()
	for range 15 { // 5 at once, then one each 20 ms
		if _, err := tryTLS(t, address, clientConfig()); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(begin); d < 150*time.Millisecond {
		t.Errorf("15 handshakes in %v", d)
	}
}

func TestTLS_WhatIsNoHandshakeIsClosedWithOneLine(t *testing.T) {
	for name, test := range map[string]struct{ sent, answer, line string }{
		"plain MQTT":     {"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test", "", "first bytes are no handshake"},
		"plain HTTP":     {"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", plainHTTP, "plain HTTP"},
		"SSL 2":          {"\x80\x2e\x01\x00\x02", "", "first bytes are no handshake"},
		"a huge record":  {"\x16\x03\x01\xff\xff" + strings.Repeat("x", 1000), "", "longer than allowed"},
		"an empty hello": {"\x16\x03\x01\x00\x00", "*", "TLS handshake"},
		"garbage inside": {"\x16\x03\x01\x00\x20" + strings.Repeat("\xff", 32), "*", "TLS handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			var log quiet
			s := start(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), DrainTimeout: 50 * time.Millisecond}, newScripted())
			nc := dialURL(t, listenTLS(t, s, Listener{Network: "ws"}))
			if _, err := io.WriteString(nc, test.sent); err != nil {
				t.Fatal(err)
			}
			nc.SetReadDeadline(time.Now().Add(time.Minute))
			got, _ := io.ReadAll(nc)
			if test.answer != "*" && string(got) != test.answer {
				t.Errorf("answer %q", got)
			}
			waitFor(t, "the connection goes", func() bool { return s.Conns() == 0 })
			if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), test.line) {
				t.Errorf("the log: %s", log.String())
			}
		})
	}
}

func TestTLS_GarbageOnAnOpenConnectionEndsIt(t *testing.T) {
	for name, record := range map[string][]byte{
		"no MAC":     append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...),
		"too long":   append([]byte{23, 3, 3, 0xff, 0xff}, make([]byte, 1000)...),
		"old":        append([]byte{23, 3, 1, 0, 40}, make([]byte, 40)...),
		"plain":      append([]byte{20, 3, 3, 0, 1}, 1, 23, 3, 3, 0, 0),
		"not TLS":    []byte("GET / HTTP/1.1\r\n\r\n"),
		"just short": append([]byte{23, 3, 3, 0x48, 0}, make([]byte, 0x4800)...),
	} {
		t.Run(name, func(t *testing.T) {
			h := newScripted()
			s := start(t, Options{}, h)
			nc := dialURL(t, listenTLS(t, s, Listener{}))
			tc := overTLS(t, nc, clientConfig())
			echoes(t, tc)
			if _, err := nc.Write(record); err != nil {
				t.Fatal(err)
			}
			if err := next(t, h).wait(t); err == nil {
				t.Error("ended in order")
			}
			waitFor(t, "the connection goes", func() bool { return s.Conns() == 0 })
		})
	}
}

// holdingConn holds writes back until it is told to let go.
type holdingConn struct {
	net.Conn
	writes int
	held   []byte
	from   int // the first write that is held
}

func (c *holdingConn) Write(b []byte) (int, error) {
	if c.writes++; c.writes > c.from {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// What comes in one segment with the end of the handshake is read at once.
func TestTLS_BytesBehindTheHandshakeAreRead(t *testing.T) {
	for _, size := range []int{1, 1000, 100_000} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			s := start(t, Options{}, newScripted())
			nc := &holdingConn{Conn: dialURL(t, listenTLS(t, s, Listener{})), from: 1}
			c := clientConfig()
			c.MinVersion, c.MaxVersion = version, version
			if version == tls.VersionTLS12 {
				nc.from = 1 << 30 // the server answers the client's last flight
			}
			tc := tls.Client(nc, c)
			if err := tc.Handshake(); err != nil {
				t.Fatal(err)
			}
			sent := noise(size)
			if _, err := tc.Write(sent); err != nil {
				t.Fatal(err)
			}
			go func() { nc.Conn.Write(nc.held) }()
			if !bytes.Equal(readFull(t, tc, size), sent) {
				t.Fatal("the echo differs")
			}
		}
	}
}

// recordCounter counts the records that are read.
type recordCounter struct {
	net.Conn
	b []byte
}

func (c *recordCounter) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.b = append(c.b, b[:n]...)
	return n, err
}

func (c *recordCounter) records() (n int) {
	for b := c.b; len(b) >= recordHeader; n++ {
		b = b[recordHeader+int(b[3])<<8+int(b[4]):]
	}
	c.b = nil
	return n
}

func TestTLS_OneFlushIsOneRecord(t *testing.T) {
	h := newScripted()
	var shared body
	h.open = func(c link.Conn) link.Stream {
		s := h.newStream(c)
		s.data = func(b []byte) int {
			for range 3 {
				send(c, noise(100))
				c.WriteShared(noise(5000), &shared)
			}
			return len(b)
		}
		return s
	}
	s := start(t, Options{}, h)
	counter := &recordCounter{Conn: dialURL(t, listenTLS(t, s, Listener{}))}
	tc := overTLS(t, counter, clientConfig())
	for range 3 {
		if _, err := tc.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		readFull(t, tc, 3*5100)
	}
	// And the session ticket, which came in front of the first.
	if n := counter.records(); n > 3+1+10 {
		t.Errorf("%d records", n)
	}
	for range 5 {
		if _, err := tc.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		readFull(t, tc, 3*5100)
		if n := counter.records(); n != 1 && h.streams[0].conn.(*conn).sock.pipe == nil {
			t.Errorf("a flush of 15,300 bytes is %d records", n)
		}
	}
	waitFor(t, "all bodies are released", func() bool { return shared.released.Load() == 24 })
}

func TestTLS_WritingAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are not counted under the race detector")
	}
	h := newScripted()
	s := start(t, Options{Loops: 1}, h)
	tc := overTLS(t, dialURL(t, listenTLS(t, s, Listener{})), clientConfig())
	st := next(t, h)
	go io.Copy(io.Discard, tc)
	b := make([]byte, 800)
	var allocs float64
	do(t, st.conn.Loop(), func() {
		c := st.conn.(*conn)
		if c.sock.pipe != nil {
			return // goroutines do
		}
		allocs = testing.AllocsPerRun(100, func() {
			for range 8 {
				copy(c.Reserve(100), b)
			}
			c.loop.flushDirty()
		})
	})
	if allocs != 0 {
		t.Errorf("%v allocations for a burst and its write", allocs)
	}
}

func TestTLS_ServeConnWantsItDone(t *testing.T) {
	s := start(t, Options{}, newScripted())
	near, far := net.Pipe()
	defer near.Close()
	if err := s.ServeConn(far, withTLS(t, Listener{})); err == nil {
		t.Error("ServeConn made TLS")
	}
	if _, err := s.HTTPHandler(withTLS(t, Listener{Network: "ws"})); err == nil {
		t.Error("HTTPHandler made TLS")
	}
}

func TestTLS_ValidateRefuses(t *testing.T) {
	pair := []KeyPair{{"a", "b"}}
	for _, bad := range []TLS{
		{}, {Certificates: []KeyPair{{Cert: "a"}}}, {Certificates: pair, MinVersion: tls.VersionTLS11},
		{Certificates: pair, ClientAuth: ClientAuthRequired}, {Certificates: pair, ClientCA: "x"}, {Certificates: pair, CRL: []string{"x"}},
		{Certificates: pair, ClientAuth: 9, ClientCA: "x"}, {Certificates: pair, Username: 9},
	} {
		if bad.Validate() == nil {
			t.Errorf("%+v passed", bad)
		}
	}
	if err := (&Listener{Network: "ws", TLS: &TLS{Certificates: pair}}).Validate(); err == nil {
		t.Error("ws with TLS passed")
	}
	if err := (&Listener{Network: "tls"}).Validate(); err == nil {
		t.Error("tls without TLS passed")
	}
}

func TestTLS_CheckNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	a, b := writePair(t, dir, "a", testCA().server("a.example")), writePair(t, dir, "b", testCA().server("b.example"))
	for _, test := range []struct {
		tls  TLS
		want []string
	}{
		{TLS{Certificates: []KeyPair{{filepath.Join(dir, "missing"), a.Key}}}, []string{"missing", "no such file"}},
		{TLS{Certificates: []KeyPair{{a.Cert, b.Key}}}, []string{a.Cert, b.Key, "does not match"}},
		{TLS{Certificates: []KeyPair{{"no-cert", "no-key"}, {a.Key, b.Key}}, ClientAuth: ClientAuthRequired, ClientCA: "no-ca", CRL: []string{"no-list"}},
			[]string{"no-cert", "no-key", a.Key + ": there is no certificate", "no-ca", "no-list"}},
		{TLS{Certificates: []KeyPair{a}, ClientAuth: ClientAuthRequired, ClientCA: a.Key}, []string{a.Key, "no certificate"}},
		{TLS{Certificates: []KeyPair{a}, ClientAuth: ClientAuthRequired, ClientCA: a.Cert, CRL: []string{b.Cert}}, []string{b.Cert, "revocation list"}},
	} {
		err := test.tls.Check("", slog.New(slog.DiscardHandler))
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
		}
	}
	var log quiet
	if err := os.Chmod(a.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := newCredentials(TLS{Certificates: []KeyPair{a}}, false, "x", slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), a.Key) || !strings.Contains(log.String(), "0644") {
		t.Errorf("a key that everybody can read: %s", log.String())
	}
}

// Without the layout of tls.Conn connections are larger, and that is all.
func TestTLS_WorksWithoutTheLayout(t *testing.T) {
	layout.known = false
	defer func() { layout.known = true }()
	for _, k := range kinds() {
		if strings.HasPrefix(k.name, "tls") || strings.HasPrefix(k.name, "wss") {
			t.Run(k.name, func(t *testing.T) {
				s := start(t, Options{}, newScripted())
				nc := k.dial(t, s, Listener{})
				sent := noise(1 << 20)
				go writeParts(nc, sent, 100_000)
				if !bytes.Equal(readFull(t, nc, len(sent)), sent) {
					t.Error("the echo differs")
				}
				stop(t, s) // before the layout is known again
			})
		}
	}
}
