package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
)

const (
	// DefaultScramIterations is the least that RFC 7677 asks for: the client
	// pays, which may be small, at each connection.
	DefaultScramIterations = 4096
	leastScramIterations   = 4096
	newScramSaltSize       = 16 // bytes
)

// LoadScram reads a file of SCRAM verifiers; see ParseScram.
func LoadScram(path string) (*Scram, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseScram(path, text)
}

// ParseScram reads a file of SCRAM verifiers, as NewScram writes them, with one
// user on a line:
//
//	USER:SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY
//
// The last three are in base64. What follows the first colon is the form in
// which PostgreSQL keeps passwords. The error names each faulty line as
// NAME:LINE.
func ParseScram(name string, text []byte) (*Scram, error) {
	s := &Scram{users: make(map[string]*scramVerifier), unknown: newPretence(text), nonce: newNonce}
	err := parseEntries(name, text, func(user, secret string) error {
		v, err := parseVerifier(secret)
		s.users[user] = v
		s.verifiers = append(s.verifiers, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func parseVerifier(s string) (*scramVerifier, error) {
	parts := strings.Split(s, "$")
	if len(parts) != 3 || parts[0] != ScramMethod {
		return nil, errNoVerifier
	}
	count, salt, ok1 := strings.Cut(parts[1], ":")
	stored, server, ok2 := strings.Cut(parts[2], ":")
	if !ok1 || !ok2 {
		return nil, errNoVerifier
	}
	iterations, err := parseIterations(count, leastScramIterations)
	if err != nil {
		return nil, err
	}
	v := &scramVerifier{iterations: iterations}
	if v.salt, err = base64.StdEncoding.DecodeString(salt); err != nil || len(v.salt) == 0 || len(v.salt) > maxSaltSize {
		return nil, fmt.Errorf("the salt is not 1 to %d bytes in base64", maxSaltSize)
	}
	for _, k := range []struct {
		to         *[]byte
		text, name string
	}{{&v.stored, stored, "stored key"}, {&v.server, server, "server key"}} {
		if *k.to, err = base64.StdEncoding.DecodeString(k.text); err != nil || len(*k.to) != sha256.Size {
			return nil, fmt.Errorf("the %s is not %d bytes in base64", k.name, sha256.Size)
		}
	}
	return v, nil
}

var errNoVerifier = errors.New("the entry is not USER:SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY: make it with hashplus passwd --scram")

// NewScram makes an entry of a file of verifiers, without a line break, with a
// random salt. The password is prepared as the client has to prepare it; see
// Prepare. The error says why there can't be an entry.
func NewScram(user, password string, iterations int) (entry string, err error) {
	if err := checkNewEntry(user, password, iterations, leastScramIterations); err != nil {
		return "", err
	}
	password, err = Prepare(password)
	if err != nil {
		return "", err
	}
	v, err := deriveVerifier(password, randomBytes(newScramSaltSize), iterations)
	if err != nil {
		return "", err
	}
	return user + ":" + v.String(), nil
}

// String is the verifier as it stands in a file.
func (v *scramVerifier) String() string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s$%d:%s$%s:%s", ScramMethod, v.iterations, b64(v.salt), b64(v.stored), b64(v.server))
}
