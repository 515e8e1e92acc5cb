package auth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
)

// algorithms are the only ones that tokens may be signed with.
var algorithms = [...]string{"HS256", "RS256", "ES256", "EdDSA"}

const (
	leastRSABits   = 2048
	mostRSABits    = 16384
	leastSecret    = 32 // bytes; RFC 7518 section 3.2
	maxKeys        = 100
	maxKeyFileSize = 1 << 20
)

// key verifies the signatures of one algorithm, and of no other.
type key struct {
	id       string // its kid, "" if it has none
	alg      string
	material any // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey or, a secret, []byte
	print    fingerprint
}

// fingerprint stands for a key, whatever it is called.
type fingerprint [sha256.Size]byte

// KeySource is where keys come from. Its methods may be called from any
// goroutine.
type KeySource interface {
	// find returns the keys for tokens with the kid id, "" if they have none,
	// and the algorithm alg.
	find(ctx context.Context, id, alg string) []key
	// empty reports whether there are no keys yet.
	empty() bool
	// has reports whether the key with that fingerprint is among them.
	has(print fingerprint) bool
}

// Keys is a set of keys that does not change.
type Keys []key

var _ KeySource = Keys(nil)

// find leaves no choice to who made the token but between keys of one
// algorithm. A kid picks the keys that have it, and those that have none; keys
// with a kid serve tokens without one, too.
func (s Keys) find(_ context.Context, id, alg string) (found []key) {
	for _, k := range s {
		if k.alg == alg && (id == "" || k.id == "" || k.id == id) {
			found = append(found, k)
		}
	}
	return found
}

func (s Keys) empty() bool { return len(s) == 0 }

func (s Keys) has(print fingerprint) bool {
	return slices.ContainsFunc(s, func(k key) bool { return k.print == print })
}

// newKey finds the algorithm that a public key is for.
func newKey(id string, material any) (key, error) {
	alg, err := algorithmOf(material)
	if err != nil {
		return key{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(material)
	return key{id, alg, material, sha256.Sum256(der)}, err
}

func algorithmOf(material any) (alg string, err error) {
	switch k := material.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < leastRSABits || bits > mostRSABits {
			return "", fmt.Errorf("an RSA key of %d bits; %d to %d are allowed", bits, leastRSABits, mostRSABits)
		}
		return "RS256", nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return "", fmt.Errorf("a key on %s; of elliptic curves only P-256 (ES256) is known", k.Curve.Params().Name)
		}
		return "ES256", nil
	case ed25519.PublicKey:
		return "EdDSA", nil
	}
	return "", fmt.Errorf("a key of the type %T; RSA, P-256 and Ed25519 are known", material)
}

// LoadKeys reads a file with public keys: PEM (PUBLIC KEY, RSA PUBLIC KEY or
// CERTIFICATE, one or several), or a JSON Web Key Set (RFC 7517).
func LoadKeys(path string) (Keys, error) { return loadKeys(path, parsePublicKeys) }

// LoadSecret reads a file with a secret for HS256: its bytes as they stand,
// without a line break at the end.
func LoadSecret(path string) (Keys, error) { return loadKeys(path, parseSecret) }

func loadKeys(path string, parse func([]byte) (Keys, error)) (Keys, error) {
	text, err := readSmall(path, maxKeyFileSize)
	if err != nil {
		return nil, err
	}
	keys, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// readSmall reads a file that must not be larger than limit.
func readSmall(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes; %d are allowed", path, info.Size(), limit)
	}
	return os.ReadFile(path)
}

var pemBegin = []byte("-----BEGIN ")

// parseSecret refuses public keys: who takes one for a secret lets everybody
// sign who knows it, which is everybody.
func parseSecret(text []byte) (Keys, error) {
	secret := bytes.TrimRight(text, "\r\n")
	switch {
	case bytes.Contains(secret, pemBegin):
		return nil, errors.New("this is a PEM file, not a secret: public keys are not secret, and HS256 does not use them")
	case bytes.HasPrefix(bytes.TrimSpace(secret), []byte("{")):
		return nil, errors.New("this is JSON, not a secret")
	case len(secret) < leastSecret:
		return nil, fmt.Errorf("a secret of %d bytes; HS256 needs %d, of which nobody can guess one", len(secret), leastSecret)
	}
	return Keys{{alg: "HS256", material: secret, print: sha256.Sum256(secret)}}, nil
}

// parsePublicKeys reads PEM or a JSON Web Key Set. It refuses a file that has a
// key which is of no use, or a private one: it is hardly what was meant.
func parsePublicKeys(text []byte) (Keys, error) {
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		keys, faults, err := parseJWKS(text)
		if err == nil && len(keys) == 0 {
			err = errors.Join(append([]error{errors.New("it has no key for RS256, ES256 or EdDSA")}, faults...)...)
		}
		return keys, err
	}
	var keys Keys
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		material, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", len(keys)+1, err)
		}
		k, err := newKey("", material)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", len(keys)+1, err)
		}
		if keys = append(keys, k); len(keys) > maxKeys {
			return nil, fmt.Errorf("it has more than %d keys", maxKeys)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("it is neither PEM (PUBLIC KEY, RSA PUBLIC KEY, CERTIFICATE) nor a JSON Web Key Set")
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (material any, err error) {
	switch block.Type {
	case "PUBLIC KEY":
		material, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		material, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			material = c.PublicKey
		}
	default:
		return nil, fmt.Errorf("%q is not a public key; PUBLIC KEY, RSA PUBLIC KEY and CERTIFICATE are known", block.Type)
	}
	return material, err
}
