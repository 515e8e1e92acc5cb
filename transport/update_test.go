package transport

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

// served dials a TLS listener and returns the serial number of its certificate.
func served(t *testing.T, address string) (serial int64, nc net.Conn) {
	t.Helper()
	tc := overTLS(t, dialURL(t, strings.Replace(address, "tls://", "tcp://", 1)), clientConfig())
	return tc.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64(), tc
}

// New connections get what a listener says now, those that are there keep theirs;
// a description with a fault changes nothing.
func TestPrepareUpdate_HoldsForNewConnections(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	l := withTLS(t, Listener{Network: "tcp", Addr: "127.0.0.1:0"})
	address, err := s.Listen(l)
	if err != nil {
		t.Fatal(err)
	}
	before, nc := served(t, address)
	old := next(t, h)

	dir := t.TempDir()
	l.TLS = &TLS{Certificates: []KeyPair{writePair(t, dir, "other", testCA().server())}}
	apply, err := s.PrepareUpdate(address, l)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := served(t, address); again != before {
		t.Error("it is in force before it was applied")
	}
	next(t, h)
	apply()
	after, _ := served(t, address)
	if after == before {
		t.Error("new connections get the old certificate")
	}
	next(t, h)

	// The same files, written anew.
	writePair(t, dir, "other", testCA().server())
	if apply, err = s.PrepareUpdate(address, l); err != nil {
		t.Fatal(err)
	}
	apply()
	if renewed, _ := served(t, address); renewed == after {
		t.Error("the files were not read again")
	}
	next(t, h)

	faulty := l
	faulty.TLS = &TLS{Certificates: []KeyPair{{Cert: dir + "/none.crt", Key: dir + "/none.key"}}}
	if _, err := s.PrepareUpdate(address, faulty); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	moved := l
	moved.Addr = "127.0.0.1:1"
	if _, err := s.PrepareUpdate(address, moved); err == nil {
		t.Error("a listener on another address is taken for this one")
	}
	if _, err := s.PrepareUpdate("tls://127.0.0.1:1", l); err == nil {
		t.Error("a listener that is not there can be updated")
	}

	do(t, old.conn.Loop(), func() { send(old.conn, []byte("still here")) })
	if got := string(readFull(t, nc, 10)); got != "still here" {
		t.Errorf("the first connection got %q", got)
	}
}

func TestPrepareUpdate_WebSocketSettings(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	l := Listener{Network: "ws", Addr: "127.0.0.1:0", Path: "/a"}
	address, err := s.Listen(l)
	if err != nil {
		t.Fatal(err)
	}
	l.Path = "/b"
	apply, err := s.PrepareUpdate(address, l)
	if err != nil {
		t.Fatal(err)
	}
	apply()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	for path, status := range map[string]string{"/a": "404", "/b": "101"} {
		nc, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := nc.Write([]byte("GET " + path + " HTTP/1.1\r\nHost: " + u.Host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if got := string(readFull(t, nc, 12)); got != "HTTP/1.1 "+status {
			t.Errorf("%s: %q, want %s", path, got, status)
		}
	}
}

func TestSetOptions_IsInForceAtOnce(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	l := Listener{Network: "tcp", Addr: "127.0.0.1:0"}
	address, err := s.Listen(l)
	if err != nil {
		t.Fatal(err)
	}
	dialURL(t, address)
	next(t, h)
	if err := s.SetOptions(Options{MaxConns: 1}); err != nil {
		t.Fatal(err)
	}
	nc := dialURL(t, address)
	if err := nc.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n, err := nc.Read(make([]byte, 1)); err == nil {
		t.Errorf("one connection too many got %d bytes", n)
	}
	if err := s.SetOptions(Options{MaxConns: -1}); err == nil || s.options().MaxConns != 1 {
		t.Errorf("%v, %d", err, s.options().MaxConns)
	}
}
