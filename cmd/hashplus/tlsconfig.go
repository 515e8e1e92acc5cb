package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
// Its errors name the key.
func (l *listenerConfig) finishTLS(c *tlsConfig) error {
	t := &l.listenerTLS
	if !l.withTLS() {
		if t.Cert != nil || t.Key != nil || t.MinVersion != nil || t.ClientAuth != nil || t.ClientCA != nil || t.CRL != nil || t.CertUsername != nil {
			return l.fault("cert, key, min-version, client-auth, client-ca, crl and cert-username are for wss:// and tls://, not %s://", l.Network)
		}
		return nil
	}
	// fault is about what a setting says, which the listener has itself or not.
	fault := func(setting string, err error) error {
		own := map[string]bool{
			"cert": t.Cert != nil, "key": t.Key != nil, "client-auth": t.ClientAuth != nil, "client-ca": t.ClientCA != nil, "crl": t.CRL != nil,
		}
		if own[setting] {
			return l.fault("%s: %w", setting, err)
		}
		return fmt.Errorf("tls-%s: %w", setting, err)
	}
	full := *t // with what it takes from c
	if t.Cert == nil && t.Key == nil {
		full.Cert, full.Key = c.TLSCert, c.TLSKey
	}
	inherit(&full.MinVersion, c.TLSMinVersion)
	inherit(&full.ClientAuth, c.TLSClientAuth)
	asked := *full.ClientAuth != "none"
	if asked {
		inherit(&full.ClientCA, c.TLSClientCA)
		inherit(&full.CertUsername, c.TLSUsername)
		if t.CRL == nil {
			full.CRL = c.TLSCRL
		}
	}
	inherit(&full.ClientCA, "")
	inherit(&full.CertUsername, "cn")
	spec, err := full.spec()
	if err != nil {
		return l.fault("%w", err)
	}
	var faults []error
	certs, keys := len(full.Cert), len(full.Key)
	const unpaired = "there are %d certificates and %d keys; each certificate has its own key, in the same place"
	switch {
	case certs+keys == 0:
		faults = append(faults, l.fault("TLS needs a certificate and its key: set tls-cert and tls-key"))
	case certs < keys:
		faults = append(faults, fault("cert", fmt.Errorf(unpaired, certs, keys)))
	case certs > keys:
		faults = append(faults, fault("key", fmt.Errorf(unpaired, certs, keys)))
	}
	switch {
	case asked && *full.ClientCA == "":
		faults = append(faults, fault("client-ca", fmt.Errorf("is not set, but clients are asked for certificates (client-auth is %s), and somebody has to have signed these", *full.ClientAuth)))
		spec.ClientAuth = transport.ClientAuthNone // there is no file to check
	case !asked && (*full.ClientCA != "" || len(full.CRL) > 0 || *full.CertUsername != "cn"):
		faults = append(faults, l.fault("client-ca, crl or cert-username is set, but client-auth is none: no client is asked for a certificate"))
	}
	for _, err := range parts(spec.Check("", slog.New(slog.DiscardHandler))) {
		var file *transport.TLSFileError
		if errors.As(err, &file) {
			faults = append(faults, fault(file.For, file.Err))
		} else {
			faults = append(faults, l.fault("TLS: %w", err))
		}
	}
	if len(faults) == 0 {
		if err := spec.Validate(); err != nil {
			return l.fault("TLS: %w", err)
		}
		*t = full
	}
	return errors.Join(faults...)
}

// spec is what the transport is to know of it.
func (t *listenerTLS) spec() (*transport.TLS, error) {
	spec := &transport.TLS{ClientCA: *t.ClientCA, CRL: t.CRL}
	for i := range min(len(t.Cert), len(t.Key)) {
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
	used := slices.ContainsFunc(listeners, func(l listenerConfig) bool { return l.withTLS() })
	asked := slices.ContainsFunc(listeners, func(l listenerConfig) bool {
		if l.ClientAuth == nil { // its TLS has a fault
			return l.withTLS() && c.TLSClientAuth != "none"
		}
		return l.withTLS() && *l.ClientAuth != "none"
	})
	for _, key := range changed(c) {
		switch {
		case !used:
			fault(key, "is set, but no listener speaks TLS: there is neither wss nor tls")
		case !asked && (key == "tls-client-ca" || key == "tls-crl" || key == "tls-username"):
			fault(key, "is set, but no listener asks clients for certificates: tls-client-auth is none")
		}
	}
	checkNumber(fault, "tls-handshake-rate", c.TLSHandshakeRate)
	checkNumber(fault, "tls-workers", c.TLSWorkers)
	checkNumber(fault, "tls-handshakes", c.TLSHandshakes)
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
