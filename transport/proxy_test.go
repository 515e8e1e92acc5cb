package transport

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// proxyFrom is a header that names client.
func proxyFrom(t testing.TB, version byte, client string) []byte {
	t.Helper()
	a := netip.MustParseAddrPort(client)
	to := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1883}
	if a.Addr().Is6() {
		to.IP = net.ParseIP("2001:db8::ff")
	}
	b, err := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(a), to).Format()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// local is what a proxy sends before a health check of its own.
var local = append([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00"), 0, 0)

// withTLVs is a version 2 header with n bytes of additions.
func withTLVs(t testing.TB, client string, n int) []byte {
	b := append(proxyFrom(t, 2, client), make([]byte, n)...)
	binary.BigEndian.PutUint16(b[14:], uint16(len(b)-16))
	tlv := b[len(b)-n:]
	tlv[0] = 4 // PP2_TYPE_NOOP
	binary.BigEndian.PutUint16(tlv[1:], uint16(n-3))
	return b
}

// proxied is a listener that trusts this machine's usual address only.
func proxied(t testing.TB, p ProxyProtocol) Listener {
	return Listener{Network: "tcp", Addr: "127.0.0.1:0", ProxyProtocol: p, Trusted: networks(t, "127.0.0.1")}
}

func dialFrom(t testing.TB, from, to string) net.Conn {
	t.Helper()
	_, rest, _ := strings.Cut(to, "://")
	host, _, _ := strings.Cut(rest, "/")
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: time.Minute}
	nc, err := d.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}

func TestProxy_HeaderNamesTheClientHoweverItIsSplit(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	for _, l := range []Listener{proxied(t, ProxyRequired), proxied(t, ProxyOptional)} {
		address, err := s.Listen(l)
		if err != nil {
			t.Fatal(err)
		}
		for name, test := range map[string]struct {
			header []byte
			client string // "" for the peer itself
		}{
			"v1":         {proxyFrom(t, 1, "203.0.113.9:4711"), "203.0.113.9:4711"},
			"v1 IPv6":    {proxyFrom(t, 1, "[2001:db8::9]:4711"), "[2001:db8::9]:4711"},
			"v1 unknown": {[]byte("PROXY UNKNOWN\r\n"), ""},
			"v2":         {proxyFrom(t, 2, "203.0.113.9:4711"), "203.0.113.9:4711"},
			"v2 IPv6":    {proxyFrom(t, 2, "[2001:db8::9]:4711"), "[2001:db8::9]:4711"},
			"v2 mapped":  {mapped(t), "203.0.113.9:4711"},
			"v2 local":   {local, ""},
			"v2 unspec":  {append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x00"), 0, 0), ""},
			"v2 TLVs":    {withTLVs(t, "203.0.113.9:4711", 300), "203.0.113.9:4711"},
			"v2 longest": {withTLVs(t, "203.0.113.9:4711", maxProxyHeader-28), "203.0.113.9:4711"},
		} {
			cuts := []int{0}
			if len(test.header) < 120 {
				for i := 1; i <= len(test.header)+2; i += 3 {
					cuts = append(cuts, i)
				}
			}
			for _, cut := range cuts {
				nc := dialFrom(t, "127.0.0.1", address)
				b := append(bytes.Clone(test.header), "hello"...)
				write(t, nc, b[:cut])
				if cut > 0 {
					time.Sleep(time.Millisecond)
				}
				write(t, nc, b[cut:])
				if got := readFull(t, nc, 5); string(got) != "hello" {
					t.Errorf("%s cut at %d: %q", name, cut, got)
				}
				want := test.client
				if want == "" {
					want = nc.LocalAddr().String()
				}
				if got := next(t, h).conn.Info().Remote.String(); got != want {
					t.Errorf("%s cut at %d: remote %s, want %s", name, cut, got, want)
				}
				nc.Close()
			}
		}
	}
}

// mapped is a version 2 header with an IPv4 address in the form of IPv6.
func mapped(t testing.TB) []byte {
	b := proxyFrom(t, 2, "[2001:db8::9]:4711")
	a := netip.MustParseAddr("::ffff:203.0.113.9").As16()
	copy(b[16:], a[:])
	return b
}

func write(t testing.TB, nc net.Conn, b []byte) {
	t.Helper()
	if len(b) == 0 {
		return
	}
	if _, err := nc.Write(b); err != nil {
		t.Fatal(err)
	}
}

func TestProxy_RefusesWhatItMust(t *testing.T) {
	const proxy, stranger = "127.0.0.1", "127.0.0.5"
	header := proxyFrom(t, 2, "203.0.113.9:4711")
	log := new(quiet)
	s := start(t, Options{HandshakeTimeout: 2 * time.Second, Logger: testLogger(log)}, newScripted())
	for _, test := range []struct {
		name   string
		when   ProxyProtocol
		peer   string
		sends  []byte
		detail string
	}{
		{"stranger with a header", ProxyRequired, stranger, header, "not a trusted proxy"},
		{"stranger with a header where it is optional", ProxyOptional, stranger, header, "not a trusted proxy"},
		{"stranger with a version 1 header", ProxyOptional, stranger, proxyFrom(t, 1, "203.0.113.9:4711"), "not a trusted proxy"},
		{"stranger that claims to be local", ProxyOptional, stranger, local, "not a trusted proxy"},
		{"stranger without one", ProxyRequired, stranger, nil, "not a trusted proxy"},
		{"proxy without one", ProxyRequired, proxy, []byte("hello"), "no header"},
		{"proxy that is silent", ProxyRequired, proxy, nil, "in time"},
		{"proxy that begins one", ProxyOptional, proxy, header[:20], "in time"},
		{"one byte too many", ProxyRequired, proxy, withTLVs(t, "203.0.113.9:4711", maxProxyHeader-27), "too long"},
		{"a line without an end", ProxyRequired, proxy, []byte("PROXY " + strings.Repeat("x", 200)), "too long"},
		{"a family that does not exist", ProxyRequired, proxy, []byte("PROXY TCP5 1.1.1.1 2.2.2.2 3 4\r\n"), "PROXY protocol: "},
		{"an address too few", ProxyRequired, proxy, []byte("PROXY TCP4 1.1.1.1\r\n"), "PROXY protocol: "},
		{"a line that ends without CR", ProxyRequired, proxy, []byte("PROXY TCP4 1.1.1.1 2.2.2.2 3 4\n"), "PROXY protocol: "},
		{"a header that is too short for its family", ProxyRequired, proxy, append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x04"), 1, 2, 3, 4), "PROXY protocol: "},
		{"version 3", ProxyRequired, proxy, append([]byte("\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x04"), 1, 2, 3, 4), "PROXY protocol: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			address, err := s.Listen(proxied(t, test.when))
			if err != nil {
				t.Fatal(err)
			}
			nc := dialFrom(t, test.peer, address)
			_, _ = nc.Write(test.sends) // it may be refused already
			nc.SetReadDeadline(time.Now().Add(time.Minute))
			if b, err := io.ReadAll(nc); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("%q %v", b, err)
			}
			waitFor(t, "a line that says "+test.detail, func() bool {
				line := lastLine(log.String())
				return strings.Contains(line, test.detail) && strings.Contains(line, "remote="+test.peer)
			})
		})
	}
}

func TestProxy_OptionalLetsOthersIn(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	address, err := s.Listen(proxied(t, ProxyOptional))
	if err != nil {
		t.Fatal(err)
	}
	for _, peer := range []string{"127.0.0.1", "127.0.0.5"} {
		// PRO and CR could become a header, and turn out not to.
		for _, first := range []string{"hello", "P", "PROX", "\r\n\r\n"} {
			nc := dialFrom(t, peer, address)
			write(t, nc, []byte(first))
			time.Sleep(time.Millisecond)
			write(t, nc, []byte("!"))
			if got := string(readFull(t, nc, len(first)+1)); got != first+"!" {
				t.Errorf("%q", got)
			}
			if got := next(t, h).conn.Info().Remote.String(); got != nc.LocalAddr().String() {
				t.Errorf("remote %s", got)
			}
		}
	}
}

func TestProxy_OnAUnixSocket(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	path := t.TempDir() + "/mqtt.sock"
	if _, err := s.Listen(Listener{Network: "unix", Addr: path, ProxyProtocol: ProxyRequired, Trusted: networks(t, "unix")}); err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	write(t, nc, append(proxyFrom(t, 2, "203.0.113.9:4711"), '!'))
	readFull(t, nc, 1)
	if got := next(t, h).conn.Info().Remote.String(); got != "203.0.113.9:4711" {
		t.Errorf("remote %s", got)
	}
}

// The hops go on where the PROXY header ends: a proxy in front of a proxy.
func TestProxy_AndForwardedHeader(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	l := proxied(t, ProxyOptional)
	l.Network, l.ForwardedHeader, l.Trusted = "ws", XForwardedFor, networks(t, "127.0.0.1", "10.0.0.0/8")
	address, err := s.Listen(l)
	if err != nil {
		t.Fatal(err)
	}
	upgrade := func(peer string, before []byte, header string) string {
		t.Helper()
		nc := dialFrom(t, peer, address)
		request := "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + header + "\r\n"
		write(t, nc, append(bytes.Clone(before), request...))
		if answer := string(readFull(t, nc, 12)); answer != "HTTP/1.1 101" {
			return answer[9:]
		}
		return next(t, h).conn.Info().Remote.Addr().String()
	}
	for _, test := range []struct {
		peer         string
		before       []byte
		header, want string
	}{
		{"127.0.0.1", nil, "X-Forwarded-For: 198.51.100.1\r\n", "198.51.100.1"},
		{"127.0.0.5", nil, "X-Forwarded-For: 198.51.100.1\r\n", "127.0.0.5"},
		{"127.0.0.1", proxyFrom(t, 2, "10.0.0.1:5"), "X-Forwarded-For: 198.51.100.1\r\n", "198.51.100.1"},
		{"127.0.0.1", proxyFrom(t, 2, "203.0.113.9:5"), "X-Forwarded-For: 198.51.100.1\r\n", "203.0.113.9"},
		{"127.0.0.1", proxyFrom(t, 1, "203.0.113.9:5"), "", "203.0.113.9"},
		{"127.0.0.1", local, "", "127.0.0.1"},
		// Not the header that this listener's proxies write.
		{"127.0.0.1", nil, "Forwarded: for=198.51.100.1\r\nX-Real-Ip: 198.51.100.1\r\n", "127.0.0.1"},
	} {
		if got := upgrade(test.peer, test.before, test.header); got != test.want {
			t.Errorf("from %s with % x and %q: %s, want %s", test.peer, test.before, test.header, got, test.want)
		}
	}
}

func TestForwarded_MalformedIsRefused(t *testing.T) {
	s := start(t, Options{}, newScripted())
	l := Listener{Network: "ws", Addr: "127.0.0.1:0", ForwardedHeader: Forwarded, Trusted: networks(t, "127.0.0.1")}
	address, err := s.Listen(l)
	if err != nil {
		t.Fatal(err)
	}
	nc := dialFrom(t, "127.0.0.1", address)
	fmt.Fprint(nc, "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nForwarded: for=\"6.6.6.6, for=198.51.100.1\r\n\r\n")
	if b := readEnd(t, nc); !bytes.HasPrefix(b, []byte("HTTP/1.1 400 ")) {
		t.Errorf("%q", b)
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add(proxyFrom(f, 1, "203.0.113.9:4711"))
	f.Add(proxyFrom(f, 2, "[2001:db8::9]:4711"))
	f.Add(withTLVs(f, "203.0.113.9:4711", 30))
	f.Add(local)
	f.Fuzz(func(t *testing.T, b []byte) {
		n, present, err := proxyHeader(b)
		if err != nil || !present {
			return
		}
		if n > len(b) || n == 0 && len(b) >= maxProxyHeader {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		for i := range n { // the same, however it comes
			if m, _, err := proxyHeader(b[:i]); m != 0 || err != nil {
				t.Fatalf("%d of the first %d bytes: %v", m, i, err)
			}
		}
		if n > 0 {
			_, _ = proxySource(b[:n]) // must not panic
		}
	})
}

func testLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func lastLine(s string) string {
	s = strings.TrimSuffix(s, "\n")
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// prefixed writes a PROXY header in front of the first bytes, in one write with
// them or in pieces.
type prefixed struct {
	net.Conn
	header []byte
	split  int
}

func (p *prefixed) Write(b []byte) (int, error) {
	if p.header == nil {
		return p.Conn.Write(b)
	}
	all := append(p.header, b...)
	p.header = nil
	for _, part := range [][]byte{all[:p.split], all[p.split:]} {
		if len(part) > 0 {
			if _, err := p.Conn.Write(part); err != nil {
				return 0, err
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	return len(b), nil
}

func TestProxy_HeaderComesBeforeTLS(t *testing.T) {
	h := newScripted()
	log := new(quiet)
	s := start(t, Options{Limits: Limits{AddressConns: 1}, Logger: testLogger(log)}, h)
	l := proxied(t, ProxyOptional)
	l.Network = "tcp"
	address, err := s.Listen(withTLS(t, l))
	if err != nil {
		t.Fatal(err)
	}
	shake := func(peer string, header []byte, split int) (*tls.Conn, error) {
		nc := dialFrom(t, peer, address)
		nc.SetDeadline(time.Now().Add(time.Minute))
		tc := tls.Client(&prefixed{nc, header, split}, clientConfig())
		return tc, tc.Handshake()
	}
	for i, split := range []int{0, 3, 20, 27, 28, 29, 60} {
		client := fmt.Sprintf("203.0.113.%d:4711", i+1)
		tc, err := shake("127.0.0.1", proxyFrom(t, 2, client), split)
		if err != nil {
			t.Fatalf("split at %d: %v", split, err)
		}
		write(t, tc, []byte("hello"))
		if got := string(readFull(t, tc, 5)); got != "hello" {
			t.Errorf("%q", got)
		}
		if got := next(t, h).conn.Info(); got.Remote.String() != client || got.TLS == nil || got.Exempt {
			t.Errorf("split at %d: %+v", split, got)
		}
	}
	// Its address is known before anything is spent on a handshake.
	if _, err := shake("127.0.0.1", proxyFrom(t, 2, "203.0.113.1:4712"), 0); err == nil {
		t.Error("one too many of an address made a handshake")
	}
	if _, err := shake("127.0.0.5", proxyFrom(t, 2, "203.0.113.99:4712"), 0); err == nil {
		t.Error("a stranger with a header made a handshake")
	}
	untilTrue(t, func() bool { st := s.Stats(); return st.RefusedAddress == 1 && st.RefusedProxy == 1 })
	if s.Stats().RefusedTLS > 0 || strings.Contains(log.String(), "TLS handshake") {
		t.Errorf("what never came to TLS counts as a failed handshake: %+v\n%s", s.Stats(), log)
	}
	if tc, err := shake("127.0.0.5", nil, 0); err != nil {
		t.Errorf("without a header: %v", err)
	} else {
		write(t, tc, []byte("hello"))
		readFull(t, tc, 5)
		if got := next(t, h).conn.Info().Remote.Addr().String(); got != "127.0.0.5" {
			t.Errorf("remote %s", got)
		}
	}
}
