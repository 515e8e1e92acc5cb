package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// webKey is a JSON Web Key (RFC 7517, RFC 7518 section 6, RFC 8037), as far as
// it is a public one that verifies signatures.
type webKey struct {
	Type       string   `json:"kty"`
	ID         string   `json:"kid"`
	Algorithm  string   `json:"alg"`
	Use        string   `json:"use"`
	Operations []string `json:"key_ops"`
	Curve      string   `json:"crv"`
	X          string   `json:"x"`
	Y          string   `json:"y"`
	N          string   `json:"n"`
	E          string   `json:"e"`
}

// parseJWKS reads a JSON Web Key Set. A set may hold keys that are not for us,
// of other algorithms or for encryption: faults says why each of them is left
// out. Secrets (kty oct) always are: what a set holds is public.
func parseJWKS(text []byte) (keys Keys, faults []error, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil || set.Keys == nil {
		return nil, nil, errors.New("it is not a JSON Web Key Set")
	}
	if len(set.Keys) > maxKeys {
		return nil, nil, fmt.Errorf("it has %d keys; %d are allowed", len(set.Keys), maxKeys)
	}
	for i, raw := range set.Keys {
		var w webKey
		if json.Unmarshal(raw, &w) != nil {
			faults = append(faults, fmt.Errorf("key %d: it is not a JSON Web Key", i+1))
			continue
		}
		k, err := w.key()
		if err != nil {
			faults = append(faults, fmt.Errorf("key %d: %w", i+1, err))
			continue
		}
		keys = append(keys, k)
	}
	return keys, faults, nil
}

func (w *webKey) key() (key, error) {
	if w.Use != "" && w.Use != "sig" || len(w.Operations) > 0 && !slices.Contains(w.Operations, "verify") {
		return key{}, errors.New("it is not for signatures")
	}
	material, err := w.material()
	if err != nil {
		return key{}, err
	}
	k, err := newKey(w.ID, material)
	// RFC 9864 names EdDSA with this curve Ed25519.
	if err == nil && w.Algorithm != "" && w.Algorithm != k.alg && (k.alg != "EdDSA" || w.Algorithm != "Ed25519") {
		return key{}, fmt.Errorf("it is for %.20q, where its type has %s here", w.Algorithm, k.alg)
	}
	return k, err
}

func (w *webKey) material() (any, error) {
	switch {
	case w.Type == "RSA":
		n, err1 := decodePart(w.N)
		e, err2 := decodePart(w.E)
		exponent := new(big.Int).SetBytes(e)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		if !exponent.IsInt64() || exponent.Int64() < 3 || exponent.Int64() > 1<<31-1 || exponent.Bit(0) == 0 {
			return nil, errors.New("its exponent is not an odd number from 3 to 2147483647")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
	case w.Type == "EC" && w.Curve == "P-256":
		x, err1 := decodePart(w.X)
		y, err2 := decodePart(w.Y)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		if len(x) != 32 || len(y) != 32 { // RFC 7518 section 6.2.1.2
			return nil, errors.New("x and y are not 32 bytes each")
		}
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	case w.Type == "OKP" && w.Curve == "Ed25519":
		x, err := decodePart(w.X)
		if err == nil && len(x) != ed25519.PublicKeySize {
			err = errors.New("x is not 32 bytes")
		}
		return ed25519.PublicKey(x), err
	case w.Type == "oct":
		return nil, errors.New("it is a secret, which does not belong into a set of public keys")
	}
	return nil, fmt.Errorf("its type %.20q, curve %.20q, is not known here", w.Type, w.Curve)
}

func decodePart(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil, errors.New("a part of it is not base64url")
	}
	return b, nil
}
