package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"hashplus/transport"
)

// tlsConfig is what listeners with TLS have in common, and take from here what
// they do not set themselves.
type tlsConfig struct {
	TLSCert             []string `name:"tls-cert" placeholder:"FILE" help:"Certificate of wss and tls listeners with its chain (PEM). Repeatable, each with its tls-key: the name that a client asks for chooses."`
	TLSKey              []string `name:"tls-key" placeholder:"FILE" help:"Key of the certificate in the same place (PEM). It should be readable by the broker's user only."`
	TLSMinVersion       string   `name:"tls-min-version" enum:"1.2,1.3" default:"1.2" placeholder:"VERSION" help:"Lowest version of TLS: 1.2 or 1.3."`
	TLSClientAuth       string   `name:"tls-client-auth" enum:"none,optional,required" default:"none" placeholder:"WHEN" help:"Whether clients need a certificate: none, optional or required."`
	TLSClientCA         string   `name:"tls-client-ca" placeholder:"FILE" help:"Certificates (PEM) of those who sign certificates of clients."`
	TLSCRL              []string `name:"tls-crl" placeholder:"FILE" help:"Revocation list of tls-client-ca (PEM or DER): what it lists is refused, and disconnected. Repeatable."`
	TLSUsername         string   `name:"tls-username" enum:"cn,dns,email,uri,none" default:"cn" placeholder:"NAME" help:"What names the client in its certificate, for the method certificate: cn, the first dns, email or uri, or none."`
	TLSHandshakeTimeout Duration `name:"tls-handshake-timeout" default:"10s" help:"Longest TLS handshake."`
	TLSHandshakeRate    int      `name:"tls-handshake-rate" default:"0" help:"TLS handshakes that begin in a second; others wait. 0 means 1000 for each core."`
	TLSWorkers          int      `name:"tls-workers" default:"0" help:"TLS handshakes that compute at a time; 0 means half as many as cores."`
	TLSHandshakes       int      `name:"tls-handshakes" default:"1024" help:"TLS handshakes under way. Past it the one that has waited longest for its client, a second at least, gives up its place."`
	TLSWatch            Duration `name:"tls-watch" default:"10s" help:"Interval at which files of TLS are looked at, and read again if they have changed; 0 leaves that to SIGHUP."`
}

// listenerTLS is what a listener may set of it.
type listenerTLS struct {
	Cert, Key    []string
	MinVersion   *string
	ClientAuth   *string
	ClientCA     *string
	CRL          []string
	CertUsername *string
}

// withTLS reports whether the listener speaks TLS.
func (l *listenerConfig) withTLS() bool { return l.Network == "wss" || l.Network == "tls" }

// upgrades reports whether the listener speaks WebSocket.
func (l *listenerConfig) upgrades() bool { return l.Network == "ws" || l.Network == "wss" }

// finishTLS fills in what the listener did not set, and checks it and its files.
func (l *listenerConfig) finishTLS(c *tlsConfig) error {
	t := &l.listenerTLS
	if !l.withTLS() {
		if t.Cert != nil || t.Key != nil || t.MinVersion != nil || t.ClientAuth != nil || t.ClientCA != nil || t.CRL != nil || t.CertUsername != nil {
			return fmt.Errorf("cert, key, min-version, client-auth, client-ca, crl and cert-username are for wss:// and tls://, not %s://", l.Network)
		}
		return nil
	}
	if t.Cert == nil && t.Key == nil {
		t.Cert, t.Key = c.TLSCert, c.TLSKey
	}
	inherit(&t.MinVersion, c.TLSMinVersion)
	inherit(&t.ClientAuth, c.TLSClientAuth)
	inherit(&t.CertUsername, c.TLSUsername)
	if *t.ClientAuth != "none" {
		inherit(&t.ClientCA, c.TLSClientCA)
		if t.CRL == nil {
			t.CRL = c.TLSCRL
		}
	}
	inherit(&t.ClientCA, "")
	switch {
	case len(t.Cert) == 0 && len(t.Key) == 0:
		return errors.New("TLS needs a certificate and its key: set tls-cert and tls-key")
	case len(t.Cert) != len(t.Key):
		return fmt.Errorf("tls-cert, tls-key: %d certificates and %d keys; each certificate has its own key, in the same place", len(t.Cert), len(t.Key))
	}
	spec, err := l.tls()
	if err != nil {
		return err
	}
	if err := spec.Validate(); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	if err := spec.Check(); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	return nil
}

// tls is what the transport is to know of it.
func (l *listenerConfig) tls() (*transport.TLS, error) {
	t := &l.listenerTLS
	spec := &transport.TLS{ClientCA: *t.ClientCA, CRL: t.CRL}
	for i := range t.Cert {
		spec.Certificates = append(spec.Certificates, transport.KeyPair{Cert: t.Cert[i], Key: t.Key[i]})
	}
	switch *t.MinVersion {
	case "1.2":
		spec.MinVersion = tls.VersionTLS12
	case "1.3":
		spec.MinVersion = tls.VersionTLS13
	default:
		return nil, fmt.Errorf("min-version: %q is not one of 1.2, 1.3", *t.MinVersion)
	}
	if err := spec.ClientAuth.UnmarshalText([]byte(*t.ClientAuth)); err != nil {
		return nil, fmt.Errorf("client-auth: %w", err)
	}
	if err := spec.Username.UnmarshalText([]byte(*t.CertUsername)); err != nil {
		return nil, fmt.Errorf("cert-username: %w", err)
	}
	return spec, nil
}

// check holds the numbers to what is allowed, and finds settings without use.
func (c *tlsConfig) check(listeners []listenerConfig, fault func(key, format string, args ...any)) {
	used := false
	for i := range listeners {
		used = used || listeners[i].withTLS()
	}
	if !used && len(c.TLSCert)+len(c.TLSKey) > 0 {
		fault("tls-cert", "is set, but no listener speaks TLS: there is neither wss nor tls")
	}
	for _, n := range []struct {
		key   string
		value int
		least int
	}{
		{"tls-handshake-rate", c.TLSHandshakeRate, 0}, {"tls-workers", c.TLSWorkers, 0}, {"tls-handshakes", c.TLSHandshakes, 1},
	} {
		if n.value < n.least || n.value > 1<<20 {
			fault(n.key, "%d is not allowed; from %d to %d is", n.value, n.least, 1<<20)
		}
	}
	if c.TLSHandshakeTimeout < Duration(time.Millisecond) {
		fault("tls-handshake-timeout", "%s is not allowed; 1ms or more is", c.TLSHandshakeTimeout)
	}
	if c.TLSWatch < 0 {
		fault("tls-watch", "%s is not allowed; 0s or more is", c.TLSWatch)
	}
}

// options puts the numbers into o.
func (c *tlsConfig) options(o *transport.Options) {
	o.TLSHandshakeTimeout = time.Duration(c.TLSHandshakeTimeout)
	o.TLSHandshakeRate, o.TLSWorkers, o.TLSHandshakes = c.TLSHandshakeRate, c.TLSWorkers, c.TLSHandshakes
	if o.TLSWatch = time.Duration(c.TLSWatch); o.TLSWatch == 0 {
		o.TLSWatch = -1
	}
}

// clientURL is u as MQTT clients write it.
func clientURL(u string) string {
	if rest, ok := strings.CutPrefix(u, "tcp://"); ok {
		return "mqtt://" + rest
	}
	if rest, ok := strings.CutPrefix(u, "tls://"); ok {
		return "mqtts://" + rest
	}
	return u
}
