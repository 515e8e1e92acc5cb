package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
)

// TLS says who a listener of network "wss" or "tls" is, and which clients it
// lets in. The files are PEM. They are read when the listener opens, and again
// when they have changed or Server.Reload is called; connections stay.
type TLS struct {
	// Certificates are those of the server, with their chains. The name that a
	// client asks for chooses among them; the first one is for all others.
	Certificates []KeyPair

	// MinVersion is tls.VersionTLS12, the default, or tls.VersionTLS13.
	MinVersion uint16

	// ClientAuth says whether clients need a certificate.
	ClientAuth ClientAuth

	// ClientCA is the file with those who sign certificates of clients.
	ClientCA string

	// CRL names files with revocation lists, PEM or DER, that one of ClientCA
	// signed. What they list is refused; a list whose next update is overdue is
	// logged and still holds.
	CRL []string

	// Username is the part of a client's certificate that names the client.
	Username CertificateName
}

// KeyPair is a certificate with its chain, and its key.
type KeyPair struct{ Cert, Key string }

// ClientAuth says whether clients need a certificate.
type ClientAuth uint8

// Values of ClientAuth.
const (
	ClientAuthNone     ClientAuth = iota // none is asked for
	ClientAuthOptional                   // one that is given is verified
	ClientAuthRequired                   // without one that is verified nobody gets in
)

var clientAuths = []string{"none", "optional", "required"}

// CertificateName is a part of a certificate.
type CertificateName uint8

// Values of CertificateName. Of the alternative names the first of its kind is
// taken.
const (
	NameCN  CertificateName = iota // the subject's common name
	NameDNS                        // alternative names
	NameEmail
	NameURI
	NameNone // clients are not named by certificates
)

var certificateNames = []string{"cn", "dns", "email", "uri", "none"}

// UnmarshalText reads none, optional or required.
func (c *ClientAuth) UnmarshalText(b []byte) error { return choose((*uint8)(c), b, clientAuths) }

// MarshalText is the reverse of UnmarshalText.
func (c ClientAuth) MarshalText() ([]byte, error) { return []byte(clientAuths[c]), nil }

// UnmarshalText reads cn, dns, email, uri or none.
func (n *CertificateName) UnmarshalText(b []byte) error {
	return choose((*uint8)(n), b, certificateNames)
}

// MarshalText is the reverse of UnmarshalText.
func (n CertificateName) MarshalText() ([]byte, error) { return []byte(certificateNames[n]), nil }

func choose(v *uint8, b []byte, names []string) error {
	for i, name := range names {
		if string(b) == name {
			*v = uint8(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not one of %v", b, names)
}

// Validate reports every fault at once, but opens no file.
func (t *TLS) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(t.Certificates) == 0 {
		fault("TLS needs a certificate")
	}
	for _, p := range t.Certificates {
		if p.Cert == "" || p.Key == "" {
			fault("a certificate and its key go together")
		}
	}
	if v := t.MinVersion; v != 0 && v != tls.VersionTLS12 && v != tls.VersionTLS13 {
		fault("TLS from version %s is not offered, from 1.2 or 1.3 is", tls.VersionName(v))
	}
	if int(t.ClientAuth) >= len(clientAuths) || int(t.Username) >= len(certificateNames) {
		fault("ClientAuth %d or Username %d is unknown", t.ClientAuth, t.Username)
	}
	switch {
	case t.ClientAuth != ClientAuthNone && t.ClientCA == "":
		fault("certificates of clients need the CA that signs them")
	case t.ClientAuth == ClientAuthNone && (t.ClientCA != "" || len(t.CRL) > 0):
		fault("a CA for clients or a revocation list is given, but clients are not asked for certificates")
	}
	return errors.Join(faults...)
}

// secured reports whether connections of the listener have TLS of ours.
func (l *Listener) secured() bool { return l.Network == "wss" || l.Network == "tls" }

// upgrades reports whether connections of the listener begin with HTTP.
func (l *Listener) upgrades() bool { return l.Network == "ws" || l.Network == "wss" }
