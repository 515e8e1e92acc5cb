package clients

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	t      *testing.T
	parent *x509.Certificate
	key    *ecdsa.PrivateKey
	pem    string
	serial int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.parent = &x509.Certificate{Subject: pkix.Name{CommonName: "tests"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.pem, _ = a.issue(a.parent)
	return a
}

// issue makes a certificate of template, which a signs, or signs itself if it is
// a's own.
func (a *authority) issue(template *x509.Certificate) (certificate, key string) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.serial++
	template.SerialNumber = big.NewInt(a.serial)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if template == a.parent {
		a.key = k
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.parent, &k.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

// server is a certificate for 127.0.0.1 and for names of hosts, client one for the
// name of a client.
func (a *authority) server(hosts ...string) (certificate, key string) {
	return a.issue(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: hosts, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
}

func (a *authority) client(name string) (certificate, key string) {
	return a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// urlWithTLS is where a client of the kind finds b with TLS.
func (b *broker) urlWithTLS(k kind) string {
	if k.scheme == "mqtt" {
		return b.tls
	}
	return b.wss
}

// The names that clients get show in what they may do: each has its own topic.
const ownTopics = "pattern readwrite own/%u\n"

// isNamed wants that c may use the topic of user, and no other.
func isNamed(t *testing.T, c client, user string) {
	t.Helper()
	mustSubscribe(t, c, subscription{Filter: "own/" + user, QoS: 1})
	if granted, err := c.subscribe(subscription{Filter: "own/other", QoS: 1}); err == nil && granted < 0x80 {
		t.Error("it may read another's topic")
	}
	mustPublish(t, c, text("own/"+user, 1, "%s", user))
	c.inbox().take(t, 1)
}

func TestLogin_OverTLSByPasswordTokenAndCertificate(t *testing.T) {
	needHashplus(t)
	ca, i := newAuthority(t), newIssuer(t, "one")
	certificate, key := ca.server()
	b := startFor(t, "--wss", "127.0.0.1:0", "--tls", "127.0.0.1:0",
		"--tls-cert", file(t, "server.pem", certificate), "--tls-key", file(t, "server.key", key),
		"--tls-client-auth", "optional", "--tls-client-ca", file(t, "ca.pem", ca.pem),
		"--auth", "certificate,jwt,password", "--password-file", passwords(t, map[string]string{"alice": "correct horse"}), "--jwt-keys", i.pem(t),
		"--acl", file(t, "acl", ownTopics))
	t.Run("clients", func(t *testing.T) {
		eachKind(t, func(t *testing.T, k kind) {
			at := b.urlWithTLS(k)
			own, ownKey := ca.client("device-1")
			foreign, foreignKey := newAuthority(t).client("device-1")
			token := i.token(t, "carol", time.Hour)
			for _, a := range []struct {
				name  string
				login login
				user  string // "" is refused
			}{
				{"a password", login{Username: "alice", Password: "correct horse"}, "alice"},
				{"a token", login{Username: "x", Password: token}, "carol"},
				{"a certificate", login{Certificate: own, Key: ownKey}, "device-1"},
				{"a certificate, whatever else is said", login{Certificate: own, Key: ownKey, Username: "alice", Password: "wrong"}, "device-1"},
				{"a wrong password", login{Username: "alice", Password: "wrong"}, ""},
				{"nothing", login{}, ""},
				{"a foreign certificate", login{Certificate: foreign, Key: foreignKey}, ""},
				{"a foreign certificate and a password", login{Certificate: foreign, Key: foreignKey, Username: "alice", Password: "correct horse"}, ""},
			} {
				a.login.CA = ca.pem
				if a.user == "" {
					if k.tries(t, setup{URL: at, login: a.login}) == nil {
						t.Errorf("%s: let in", a.name)
					}
					continue
				}
				c, _ := k.dial(t, setup{URL: at, login: a.login})
				isNamed(t, c, a.user)
				mustDisconnect(t, c)
			}
		}, canLogin, func(k kind) bool { return !isBrowser(k) })
	})
	noSecretsIn(t, b, i.issued, "correct horse")
}

func TestLogin_CertificatesAreEnoughWhereNothingElseIs(t *testing.T) {
	needHashplus(t)
	t.Parallel()
	ca := newAuthority(t)
	certificate, key := ca.server()
	b := startFor(t, "--wss", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--tls-cert", file(t, "server.pem", certificate), "--tls-key", file(t, "server.key", key),
		"--tls-client-auth", "required", "--tls-client-ca", file(t, "ca.pem", ca.pem), "--acl", file(t, "acl", ownTopics))
	k := kind{libraries()[1], v5, "ws"}
	own, ownKey := ca.client("device-2")
	c, _ := k.dial(t, setup{URL: b.wss, login: login{CA: ca.pem, Certificate: own, Key: ownKey}})
	isNamed(t, c, "device-2")
	if k.tries(t, setup{URL: b.wss, login: login{CA: ca.pem}}) == nil {
		t.Error("let in without a certificate")
	}
	if k.tries(t, setup{URL: b.ws}) == nil {
		t.Error("let in without TLS, so without a name")
	}
}
