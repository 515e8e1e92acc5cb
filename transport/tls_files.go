package transport

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"hashplus/transport/link"
)

// errRevoked is why a connection ends whose certificate was revoked.
var errRevoked = errors.New("transport: the client's certificate was revoked")

// credentials are the files of one listener's TLS, as they were read last.
type credentials struct {
	// Immutable after newCredentials.
	spec  TLS
	alpn  string // the protocol that a client must offer, if it offers any
	name  string // the listener's, for the log
	log   *slog.Logger
	paths []string

	// Any goroutine.
	current atomic.Pointer[identity]

	mu   sync.Mutex             // one reading at a time
	seen map[string]fs.FileInfo // guarded by mu

	infoMu sync.Mutex
	infos  map[infoKey]*link.TLS // guarded by infoMu: descriptions that connections share
}

// identity is what one reading gave. It does not change.
type identity struct {
	config  *tls.Config
	revoked map[chainKey]struct{}
	roots   map[chainKey]struct{} // of clients' chains; nil where clients are not asked for certificates
}

// unchanged reports whether two looks at a file show the same one, as it was.
func unchanged(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// chainKey stands for a certificate: issuer and serial number, hashed.
type chainKey [sha256.Size]byte

func keyOf(issuer []byte, serial []byte) (k chainKey) {
	h := sha256.New()
	h.Write(issuer)
	h.Write([]byte{0})
	h.Write(serial)
	h.Sum(k[:0])
	return k
}

// newCredentials reads the files of spec.
func newCredentials(spec TLS, websocket bool, name string, log *slog.Logger) (*credentials, error) {
	c := &credentials{spec: spec, alpn: "mqtt", name: name, log: log, infos: map[infoKey]*link.TLS{}}
	if websocket {
		c.alpn = "http/1.1"
	}
	for _, p := range spec.Certificates {
		c.paths = append(c.paths, p.Cert, p.Key)
	}
	if spec.ClientCA != "" {
		c.paths = append(c.paths, spec.ClientCA)
	}
	c.paths = append(c.paths, spec.CRL...)
	id, err := c.reread(true)
	c.current.Store(id)
	return c, err
}

// Check reads all files, as a listener with t would, and says what is wrong with
// them, all of it, joined: an error of a file is a TLSFileError. What is only unwise
// log is told, as of the listener with that name.
func (t *TLS) Check(listener string, log *slog.Logger) error {
	_, err := newCredentials(*t, false, listener, log)
	return err
}

// TLSFileError is what is wrong with a file of TLS. It says what the file is for:
// cert, key, client-ca or crl.
type TLSFileError struct {
	For string
	Err error // names the file
}

// Error is that of Err.
func (e *TLSFileError) Error() string { return e.Err.Error() }

// Unwrap is Err.
func (e *TLSFileError) Unwrap() error { return e.Err }

// reread reads the files, those that have not changed only with force set. The
// identity is nil if there is nothing new. It is not in force yet.
func (c *credentials) reread(force bool) (*identity, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Looked at before they are read: what is written meanwhile is read again.
	now := map[string]fs.FileInfo{}
	changed := force
	for _, path := range c.paths {
		info, err := os.Stat(path)
		if err == nil {
			now[path] = info
		}
		gone := now[path] == nil && c.seen[path] == nil // told of already
		changed = changed || !gone && !unchanged(now[path], c.seen[path])
	}
	if !changed {
		return nil, nil
	}
	c.seen = now
	return c.read()
}

// read makes an identity of the files. It says of all of them what is wrong.
func (c *credentials) read() (*identity, error) {
	id := &identity{config: &tls.Config{
		MinVersion: max(c.spec.MinVersion, tls.VersionTLS12),
		NextProtos: []string{c.alpn},
		// One flush is one record where it fits, see secure.write.
		DynamicRecordSizingDisabled: true,
		Renegotiation:               tls.RenegotiateNever,
	}}
	var faults []error
	for _, p := range c.spec.Certificates {
		pair, err := c.pair(p)
		id.config.Certificates = append(id.config.Certificates, pair)
		faults = append(faults, err)
	}
	switch c.spec.ClientAuth {
	case ClientAuthOptional:
		id.config.ClientAuth = tls.VerifyClientCertIfGiven
		faults = append(faults, c.readClients(id))
	case ClientAuthRequired:
		id.config.ClientAuth = tls.RequireAndVerifyClientCert
		faults = append(faults, c.readClients(id))
	case ClientAuthNone:
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return id, nil
}

// readClients reads what clients' certificates are held to.
func (c *credentials) readClients(id *identity) error {
	cas, err := certificatesOf(c.spec.ClientCA)
	if err != nil {
		err = &TLSFileError{"client-ca", err}
		for _, path := range c.spec.CRL { // by whom they are signed cannot be said now
			if _, e := os.ReadFile(path); e != nil {
				err = errors.Join(err, &TLSFileError{"crl", e})
			}
		}
		return err
	}
	id.config.ClientCAs = x509.NewCertPool()
	id.roots = map[chainKey]struct{}{}
	for _, ca := range cas {
		id.config.ClientCAs.AddCert(ca)
		id.roots[sha256.Sum256(ca.Raw)] = struct{}{}
	}
	id.revoked = map[chainKey]struct{}{}
	var faults []error
	for _, path := range c.spec.CRL {
		if err := c.readCRL(path, cas, id.revoked); err != nil {
			faults = append(faults, &TLSFileError{"crl", err})
		}
	}
	// Called for resumed sessions as well.
	id.config.VerifyConnection = func(s tls.ConnectionState) error { return id.verify(s.VerifiedChains) }
	return errors.Join(faults...)
}

// pair reads one certificate of the server and its key. Where they are no pair the
// fault is the key's.
func (c *credentials) pair(p KeyPair) (tls.Certificate, error) {
	info, keyErr := os.Stat(p.Key)
	_, certErr := certificatesOf(p.Cert)
	if keyErr != nil {
		keyErr = &TLSFileError{"key", keyErr}
	}
	if certErr != nil {
		certErr = &TLSFileError{"cert", certErr}
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return tls.Certificate{}, err
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 || mode&0o020 != 0 {
		c.log.Warn("a key can be read or changed by other users of this machine",
			"listener", c.name, "file", p.Key, "mode", fmt.Sprintf("%04o", mode))
	}
	pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	var at *fs.PathError
	switch {
	case errors.As(err, &at) && at.Path == p.Cert:
		return pair, &TLSFileError{"cert", err}
	case at != nil:
		return pair, &TLSFileError{"key", err}
	case err != nil:
		return pair, &TLSFileError{"key", fmt.Errorf("%s with %s: %w", p.Key, p.Cert, err)}
	}
	switch now := time.Now(); {
	case now.Before(pair.Leaf.NotBefore):
		c.log.Warn("a certificate is not valid yet", "listener", c.name, "file", p.Cert, "from", pair.Leaf.NotBefore)
	case now.After(pair.Leaf.NotAfter):
		c.log.Warn("a certificate has expired", "listener", c.name, "file", p.Cert, "at", pair.Leaf.NotAfter)
	}
	return pair, nil
}

func certificatesOf(path string) ([]*x509.Certificate, error) {
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, cert)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: there is no certificate in it", path)
	}
	return out, nil
}

// readCRL adds what the lists in path revoke.
func (c *credentials) readCRL(path string, cas []*x509.Certificate, revoked map[chainKey]struct{}) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var lists [][]byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "X509 CRL" {
			lists = append(lists, block.Bytes)
		}
	}
	if len(lists) == 0 {
		lists = [][]byte{data} // DER, or an error
	}
	for _, der := range lists {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return fmt.Errorf("%s: no revocation list: %w", path, err)
		}
		signed := slices.ContainsFunc(cas, func(ca *x509.Certificate) bool {
			return bytes.Equal(ca.RawSubject, list.RawIssuer) && list.CheckSignatureFrom(ca) == nil
		})
		if !signed {
			return fmt.Errorf("%s: the list of %q is signed by none of the CAs for clients", path, list.Issuer)
		}
		if !list.NextUpdate.IsZero() && time.Now().After(list.NextUpdate) {
			c.log.Warn("a revocation list is out of date", "listener", c.name, "file", path, "since", list.NextUpdate)
		}
		for _, e := range list.RevokedCertificateEntries {
			revoked[keyOf(list.RawIssuer, e.SerialNumber.Bytes())] = struct{}{}
		}
	}
	return nil
}

// verify refuses a client of which every chain has a certificate that was revoked.
func (id *identity) verify(chains [][]*x509.Certificate) error {
	for _, chain := range chains {
		if !id.anyRevoked(keysOf(chain)) {
			return nil
		}
	}
	if len(chains) == 0 {
		return nil // no certificate was given, and none is required
	}
	return errRevoked
}

// keysOf are the keys of a chain, without its root, which nobody else signed.
func keysOf(chain []*x509.Certificate) []chainKey {
	var keys []chainKey
	for i, cert := range chain {
		if i == 0 || i < len(chain)-1 {
			keys = append(keys, keyOf(cert.RawIssuer, cert.SerialNumber.Bytes()))
		}
	}
	return keys
}

func (id *identity) anyRevoked(keys []chainKey) bool {
	if len(id.revoked) == 0 {
		return false
	}
	return slices.ContainsFunc(keys, func(k chainKey) bool {
		_, ok := id.revoked[k]
		return ok
	})
}

// standing are what there is to know of a verified chain: the keys of its
// certificates, and last what stands for its root.
func standingOf(chain []*x509.Certificate) []chainKey {
	return append(keysOf(chain), sha256.Sum256(chain[len(chain)-1].Raw))
}

// distrusts reports whether a client whose chain has that standing would not be let
// in: a certificate of it was revoked, or its root is none of the CAs.
func (id *identity) distrusts(standing []chainKey) bool {
	if len(standing) == 0 || id.roots == nil {
		return false // without a certificate, or nobody is asked for one
	}
	root := len(standing) - 1
	_, known := id.roots[standing[root]]
	return !known || id.anyRevoked(standing[:root])
}

// infoKey is what is the same for most connections.
type infoKey struct {
	version, cipher uint16
	server          string
}

// maxInfos bounds the descriptions that are kept: the server name is the client's.
const maxInfos = 256

// describe is what a connection with state s says of itself, and the standing of
// its client's chain.
func (c *credentials) describe(s *tls.ConnectionState) (*link.TLS, []chainKey) {
	switch {
	case c == nil: // somebody else's TLS
		info := describeTLS(s)
		if len(s.VerifiedChains) > 0 {
			info.Certificate = describeCertificate(s.VerifiedChains[0][0], NameCN)
		}
		return info, nil
	case len(s.VerifiedChains) == 0:
		c.infoMu.Lock()
		defer c.infoMu.Unlock()
		key := infoKey{s.Version, s.CipherSuite, s.ServerName}
		info := c.infos[key]
		if info == nil {
			info = describeTLS(s)
			if len(c.infos) < maxInfos {
				c.infos[key] = info
			}
		}
		return info, nil
	}
	info := describeTLS(s)
	info.Certificate = describeCertificate(s.VerifiedChains[0][0], c.spec.Username)
	return info, standingOf(s.VerifiedChains[0])
}

func describeTLS(s *tls.ConnectionState) *link.TLS {
	info := &link.TLS{Cipher: tls.CipherSuiteName(s.CipherSuite), ServerName: s.ServerName}
	switch s.Version {
	case tls.VersionTLS12:
		info.Version = "1.2"
	case tls.VersionTLS13:
		info.Version = "1.3"
	default:
		info.Version = tls.VersionName(s.Version)
	}
	return info
}

func describeCertificate(cert *x509.Certificate, name CertificateName) *link.Certificate {
	c := &link.Certificate{
		CommonName: cert.Subject.CommonName, DNSNames: slices.Clone(cert.DNSNames), Emails: slices.Clone(cert.EmailAddresses),
		Serial: cert.SerialNumber.Text(16), Issuer: cert.Issuer.String(),
	}
	for _, u := range cert.URIs {
		c.URIs = append(c.URIs, u.String())
	}
	first := func(names []string) string {
		if len(names) == 0 {
			return ""
		}
		return names[0]
	}
	switch name {
	case NameCN:
		c.Username = c.CommonName
	case NameDNS:
		c.Username = first(c.DNSNames)
	case NameEmail:
		c.Username = first(c.Emails)
	case NameURI:
		c.Username = first(c.URIs)
	case NameNone:
	}
	if !printable(c.Username) {
		c.Username = "" // no name that a log or a rule could hold
	}
	return c
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}
