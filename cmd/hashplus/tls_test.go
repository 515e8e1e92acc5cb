package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// certificate makes a self-signed certificate for 127.0.0.1 and returns its
// files.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// tlsFront accepts TLS, wants a client certificate that is its own, and passes
// the bytes on to address, as a proxy before the broker does.
func tlsFront(t *testing.T, address, certFile, keyFile string, clientAuth tls.ClientAuthType) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	pemBytes, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pemBytes)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: clientAuth, ClientCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close() //nolint:errcheck // it is over
				if c.(*tls.Conn).Handshake() != nil {
					return
				}
				b, err := net.Dial("tcp", address)
				if err != nil {
					return
				}
				wg.Go(func() {
					_, _ = io.Copy(c, b)
					_ = c.Close()
				})
				_, _ = io.Copy(b, c)
				_ = b.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

func TestClients_TLS(t *testing.T) {
	s := brokerWith(t)
	certFile, keyFile := certificate(t)
	wsHost := strings.TrimSuffix(strings.TrimPrefix(s.urls[0], "ws://"), "/mqtt")
	tcpHost := strings.TrimPrefix(s.urls[1], "mqtt://")
	for _, scheme := range []string{"mqtts", "wss"} {
		behind := map[string]string{"mqtts": tcpHost, "wss": wsHost}[scheme]
		plain := scheme + "://" + tlsFront(t, behind, certFile, keyFile, tls.NoClientCert)
		mutual := scheme + "://" + tlsFront(t, behind, certFile, keyFile, tls.RequireAndVerifyClientCert)
		for _, version := range []string{"3.1.1", "5"} {
			for _, c := range []struct {
				url  string
				args []string
				code int
				want string
			}{
				{plain, nil, exitUnreachable, "certificate"},
				{plain, []string{"--retry-first", "-W", "10s"}, exitUnreachable, "certificate"}, // does not pass by waiting
				{plain, []string{"--insecure"}, exitOK, ""},
				{plain, []string{"--cafile", certFile}, exitOK, ""},
				{strings.Replace(plain, "127.0.0.1", "localhost", 1), []string{"--cafile", certFile}, exitUnreachable, "localhost"},
				{mutual, []string{"--cafile", certFile}, exitUnreachable, ""},
				{mutual, []string{"--cafile", certFile, "--cert", certFile, "--key", keyFile}, exitOK, ""},
			} {
				args := append([]string{"pub", "-u", c.url, "-V", version, "-t", "a", "-m", "b", "-q", "1"}, c.args...)
				if code, _, stderr := command(t, args...); code != c.code || !strings.Contains(stderr, c.want) {
					t.Errorf("%q: exit %d, want %d: %s", args[2:], code, c.code, stderr)
				}
			}
		}
	}
}
