package attacks

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// tlsAttacks are those on a listener with TLS. The honest clients beside them
// have none.
var tlsAttacks = []attack{
	{
		name: "slow TLS handshakes", budget: "1,000 connections: half send a byte of a ClientHello every 50 ms, half a whole one and nothing more", tls: true, processes: 1,
		quick: []string{"--tls-handshake-timeout=1s"}, memory: base + 64, why: "1,024 handshakes under way × 48 KiB, and garbage",
		told: []string{"end of the connection"}, do: slowTLS,
	},
	{
		name: "TLS handshake flood", budget: "50 connections at a time that shake hands and leave", tls: true, flood: true, processes: 1,
		memory: base + 64, why: "50 handshakes, and garbage", do: floodTLS,
	},
}

// certificate writes a certificate for 127.0.0.1 and its key, and returns the
// arguments for them.
func certificate(t *testing.T) []string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "attacked"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return []string{"--tls=127.0.0.1:0", "--tls-cert=" + write("cert.pem", "CERTIFICATE", cert), "--tls-key=" + write("key.pem", "PRIVATE KEY", secret)}
}

// client is a configuration that trusts any certificate.
func client() *tls.Config { return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"mqtt"}} }

// hello is a ClientHello.
func hello() []byte {
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(ours, client()).Handshake() // which ends with the pipe
	}()
	defer theirs.Close()
	b := make([]byte, 16<<10)
	n, err := theirs.Read(b)
	if err != nil {
		panic(err) // it is a pipe
	}
	return b[:n]
}

func slowTLS(a *attacker) {
	b := hello()
	a.repeat(1000, func(i int) {
		v := a.dial(a.TLS)
		if v == nil {
			return
		}
		if i%2 == 0 {
			v.bytewise(b, v.put)
		} else {
			v.put(b)
		}
		_ = v.SetReadDeadline(time.Now().Add(a.Patience)) // on a socket that is open
		_, err := io.Copy(io.Discard, v.in)
		if err == nil {
			err = io.EOF
		}
		a.hear(ending(err))
		v.drop()
	})
}

func floodTLS(a *attacker) {
	a.repeat(50, func(int) {
		v := a.dial(a.TLS)
		if v == nil {
			return
		}
		_ = v.SetDeadline(time.Now().Add(20 * time.Second)) // on a socket that is open
		err := tls.Client(v.Conn, client()).Handshake()
		var alert tls.AlertError
		switch {
		case err == nil:
			a.count("handshakes", 1)
		case errors.As(err, &alert):
			a.hear(fmt.Sprint(alert))
		default:
			a.hear(ending(err))
		}
		v.drop()
	})
}
