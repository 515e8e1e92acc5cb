package clients

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pki is a server's certificate and a client's, both as text and as files.
type pki struct {
	ca                             *authority
	server, serverKey, own, ownKey string
	caFile, certFile, keyFile      string
	clientCertFile, clientKeyFile  string
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{ca: newAuthority(t)}
	p.server, p.serverKey = p.ca.server()
	p.own, p.ownKey = p.ca.client("device-7")
	p.caFile, p.certFile, p.keyFile = file(t, "ca.pem", p.ca.pem), file(t, "server.pem", p.server), file(t, "server.key", p.serverKey)
	p.clientCertFile, p.clientKeyFile = file(t, "client.pem", p.own), file(t, "client.key", p.ownKey)
	return p
}

// flags let everybody in who has a certificate.
func (p *pki) flags(more ...string) []string {
	return append([]string{"--wss", "127.0.0.1:0", "--tls", "127.0.0.1:0", "--tls-cert", p.certFile, "--tls-key", p.keyFile,
		"--tls-client-auth", "required", "--tls-client-ca", p.caFile, "--allow-anonymous"}, more...)
}

// Every library but those in browsers, which take no files of certificates: with
// a certificate of its own it sends and receives at each QoS, and a body that is
// many records long.
func TestTLS_ClientsWithCertificatesSendAndReceive(t *testing.T) {
	needHashplus(t)
	p := newPKI(t)
	b := startFor(t, p.flags()...)
	t.Run("clients", func(t *testing.T) {
		eachKind(t, func(t *testing.T, k kind) {
			topic := room(t)
			c, _ := k.dial(t, setup{URL: b.urlWithTLS(k), login: login{CA: p.ca.pem, Certificate: p.own, Key: p.ownKey}})
			mustSubscribe(t, c, subscription{Filter: topic, QoS: 2})
			large := bytes.Repeat([]byte("0123456789abcdef"), 40_000/16*5)
			for qos := range byte(3) {
				mustPublish(t, c, text(topic, qos, "small"), message{Topic: topic, QoS: qos, Payload: large})
				for _, want := range [][]byte{[]byte("small"), large} {
					if m := c.inbox().take(t, 1)[0]; !bytes.Equal(m.Payload, want) || m.QoS != qos {
						t.Fatalf("%d bytes at QoS %d came, want %d at %d", len(m.Payload), m.QoS, len(want), qos)
					}
				}
			}
			mustDisconnect(t, c)
		}, func(k kind) bool { return !isBrowser(k) })
	})
}

func TestTLS_MosquittoClientsWithCertificates(t *testing.T) {
	needHashplus(t)
	t.Parallel()
	p := newPKI(t)
	b := startFor(t, p.flags()...)
	u, err := url.Parse(b.tls)
	if err != nil {
		t.Fatal(err)
	}
	for _, tlsVersion := range []string{"tlsv1.2", "tlsv1.3"} {
		for _, version := range []string{"31", "311", "5"} {
			trusting := cli{version: version, server: []string{"-h", u.Hostname(), "-p", u.Port(), "--cafile", p.caFile, "--tls-version", tlsVersion}}
			c := trusting
			c.server = append(c.server[:len(c.server):len(c.server)], "--cert", p.clientCertFile, "--key", p.clientKeyFile)
			topic := room(t)
			s := c.sub(t, "-t", topic, "-q", "2")
			for qos := range 3 {
				c.pub(t, "-t", topic, "-q", fmt.Sprint(qos), "-m", "hello")
				s.want(t, fmt.Sprintf("%d 0 %s hello", qos, topic))
			}
			s.leave(t)
			if out, err := command(t, patience, "mosquitto_pub", trusting.args("-t", topic, "-m", "x")...); err == nil {
				t.Errorf("without a certificate: %s", out)
			}
		}
	}
	if out, err := command(t, patience, "mosquitto_pub", "-h", u.Hostname(), "-p", u.Port(), "-t", "x", "-m", "x"); err == nil {
		t.Errorf("without TLS: %s", out)
	}
}

// SIGHUP and a change of the files both bring a new certificate to new
// connections, and leave those that are there alone.
func TestTLS_CertificatesAreRenewedUnderLiveClients(t *testing.T) {
	needHashplus(t)
	t.Parallel()
	p := newPKI(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	put := func(certificate, secret string) {
		for path, text := range map[string]string{cert: certificate, key: secret} {
			if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(p.server, p.serverKey)
	b := startFor(t, "--wss", "127.0.0.1:0", "--tls", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key, "--tls-watch", "100ms")
	serial := func() int64 {
		u, err := url.Parse(b.tls)
		if err != nil {
			t.Fatal(err)
		}
		l := login{CA: p.ca.pem}
		d := tls.Dialer{Config: l.tls()}
		nc, err := d.DialContext(context.Background(), "tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		return nc.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	k := kind{libraries()[0], v311, "ws"}
	c, _ := k.dial(t, setup{URL: b.wss, login: login{CA: p.ca.pem}})
	topic := room(t)
	mustSubscribe(t, c, subscription{Filter: topic, QoS: 1})
	for _, how := range []string{"watched", "SIGHUP"} {
		old := serial()
		put(p.ca.server())
		if how == "SIGHUP" {
			if err := b.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
		for end := time.Now().Add(patience); serial() == old; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: the old certificate is still in use", how)
			}
		}
		mustPublish(t, c, text(topic, 1, "%s", how))
		c.inbox().take(t, 1)
	}
	if log := b.Log.String(); strings.Contains(log, "PRIVATE") || strings.Contains(log, strings.Split(p.serverKey, "\n")[1]) {
		t.Error("a key is in the log")
	}
}
