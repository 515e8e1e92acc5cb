package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// authority signs certificates for tests.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func newAuthority(name string) *authority {
	a := &authority{key: newKey(), serial: 1}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		panic(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	return a
}

// issue signs a certificate like template, of which only the names matter.
func (a *authority) issue(template x509.Certificate) tls.Certificate {
	a.serial++
	key := newKey()
	template.SerialNumber = big.NewInt(a.serial)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, &template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		panic(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// server is a certificate for a server that has these names, and is at 127.0.0.1.
func (a *authority) server(names ...string) tls.Certificate {
	return a.issue(x509.Certificate{Subject: pkix.Name{CommonName: "server"}, DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
}

// writeCA writes the authority's own certificate.
func (a *authority) writeCA(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "ca.pem")
	writePEM(t, path, "CERTIFICATE", a.cert.Raw)
	return path
}

// writeCRL writes a list that revokes these serial numbers.
func (a *authority) writeCRL(t testing.TB, path string, serials ...*big.Int) {
	t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, s := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: s, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, path, "X509 CRL", der)
}

// writePair writes cert and its key as name.crt and name.key.
func writePair(t testing.TB, dir, name string, cert tls.Certificate) KeyPair {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	p := KeyPair{filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")}
	writePEM(t, p.Cert, "CERTIFICATE", cert.Certificate[0])
	writePEM(t, p.Key, "PRIVATE KEY", der)
	return p
}

// writePEM replaces path as a whole, as what renews certificates does.
func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	b := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// testCA signs what the contract's tests use.
var testCA = sync.OnceValue(func() *authority { return newAuthority("test CA") })

// withTLS is l with TLS and a certificate of testCA.
func withTLS(t testing.TB, l Listener) Listener {
	t.Helper()
	switch l.Network {
	case "ws", "wss":
		l.Network = "wss"
	default:
		l.Network = "tls"
	}
	if l.TLS == nil {
		l.TLS = &TLS{Certificates: []KeyPair{writePair(t, t.TempDir(), "server", testCA().server())}}
	}
	return l
}

// clientConfig trusts testCA.
func clientConfig() *tls.Config {
	return &tls.Config{RootCAs: testCA().pool(), ServerName: "127.0.0.1"}
}

func connectTLS(t testing.TB, s *Server, l Listener) net.Conn {
	t.Helper()
	return overTLS(t, connectListener(t, s, withTLS(t, l)), clientConfig())
}

// connectSplit is connectTLS with records that arrive in pieces.
func connectSplit(t testing.TB, s *Server, l Listener) net.Conn {
	t.Helper()
	nc := connectListener(t, s, withTLS(t, l))
	return overTLS(t, &splitConn{Conn: nc, rng: mathrand.New(mathrand.NewPCG(7, 7))}, clientConfig())
}

// overTLS makes the client's handshake.
func overTLS(t testing.TB, nc net.Conn, c *tls.Config) net.Conn {
	t.Helper()
	tc := tls.Client(nc, c)
	nc.SetDeadline(time.Now().Add(time.Minute))
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Time{})
	t.Cleanup(func() { nc.Close() })
	return tc
}

// splitConn writes in pieces, each of which is on its way alone.
type splitConn struct {
	net.Conn
	rng *mathrand.Rand // of the one that writes; crypto/tls sees to that
}

func (c *splitConn) Write(b []byte) (int, error) {
	// Only now and then, for what is large: every piece is a system call.
	for n := 0; n < len(b); {
		k := min(len(b)-n, 1+c.rng.IntN(1+len(b)/3))
		if _, err := c.Conn.Write(b[n : n+k]); err != nil {
			return n, err
		}
		n += k
	}
	return len(b), nil
}

// hiddenListener is a listener that the server cannot see through.
type hiddenListener struct{ net.Listener }

// connectTLSStream connects to a server whose TLS runs in goroutines.
func connectTLSStream(t testing.TB, s *Server, l Listener) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(hiddenListener{ln}, withTLS(t, l))
	return overTLS(t, dialURL(t, "tls://"+ln.Addr().String()), clientConfig())
}
