package auth

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"
)

const (
	// DefaultIterations is how often a new PBKDF2 entry hashes its password. It
	// costs an attacker who has the file some 100 ms of one core for each guess,
	// and the broker as much at a user's first connection; see Passwords.
	DefaultIterations = 100_000
	maxIterations     = 10_000_000

	pbkdf2Scheme   = "$7$"
	pbkdf2SaltSize = 12 // bytes; mosquitto 2.0 reads no other size

	argon2Scheme   = "$argon2id$"
	argon2SaltSize = 16 // bytes
	argon2HashSize = 32
	maxArgon2Size  = 1024    // of salt and hash
	maxArgon2Work  = 1 << 22 // KiB × passes: some seconds of a core

	maxSaltSize = 1024
)

// newArgon2 is what new entries cost: the least memory that OWASP's password
// storage cheat sheet names for Argon2id with one lane. mosquitto 2.1 takes 46
// MiB and one pass, which is as hard to guess and needs that much more of the
// broker.
var newArgon2 = argon2Cost{memory: 19 << 10, passes: 2, lanes: 1}

// argon2Cost are the parameters of Argon2id.
type argon2Cost struct {
	memory uint32 // KiB
	passes uint32
	lanes  uint8
}

// passwordHash is PBKDF2-HMAC-SHA-512 or, with memory in its cost, Argon2id of a
// password.
type passwordHash struct {
	// Immutable.
	iterations int // of PBKDF2
	argon2     argon2Cost
	salt       []byte
	hash       []byte

	// Any goroutine; atomic.
	quick atomic.Pointer[[]byte] // the quick hash, once the password has come
}

// parsePasswordHash reads what follows the username in an entry.
func parsePasswordHash(s string) (*passwordHash, error) {
	if rest, ok := strings.CutPrefix(s, argon2Scheme); ok {
		return parseArgon2(rest)
	}
	rest, ok := strings.CutPrefix(s, pbkdf2Scheme)
	parts := strings.Split(rest, "$")
	if !ok || len(parts) != 3 {
		return nil, errors.New("the entry is neither USER:$argon2id$v=19$m=MEMORY,t=PASSES,p=LANES$SALT$HASH nor " +
			"USER:$7$ITERATIONS$SALT$HASH: make it with hashplus passwd or mosquitto_passwd")
	}
	iterations, err := parseIterations(parts[0], 1)
	if err != nil {
		return nil, err
	}
	h := &passwordHash{iterations: iterations}
	if h.salt, err = base64.StdEncoding.DecodeString(parts[1]); err != nil || len(h.salt) == 0 || len(h.salt) > maxSaltSize {
		return nil, fmt.Errorf("the salt is not 1 to %d bytes in base64", maxSaltSize)
	}
	if h.hash, err = base64.StdEncoding.DecodeString(parts[2]); err != nil || len(h.hash) != sha512.Size {
		return nil, fmt.Errorf("the hash is not %d bytes in base64", sha512.Size)
	}
	return h, nil
}

// parseArgon2 reads the form of the reference implementation, which mosquitto
// 2.1 writes, after its scheme: v=19$m=MEMORY,t=PASSES,p=LANES$SALT$HASH, the
// last two in base64 without padding.
func parseArgon2(s string) (*passwordHash, error) {
	parts := strings.Split(s, "$")
	if len(parts) != 4 || parts[0] != fmt.Sprintf("v=%d", argon2.Version) {
		return nil, fmt.Errorf("the entry is not USER:$argon2id$v=%d$m=MEMORY,t=PASSES,p=LANES$SALT$HASH", argon2.Version)
	}
	h := &passwordHash{}
	c := &h.argon2
	// Written again it has to be the same: Sscanf lets a lot pass.
	if _, err := fmt.Sscanf(parts[1], "m=%d,t=%d,p=%d", &c.memory, &c.passes, &c.lanes); err != nil || c.String() != parts[1] {
		return nil, fmt.Errorf("%.40q is not m=MEMORY,t=PASSES,p=LANES", parts[1])
	}
	if c.lanes == 0 || c.passes == 0 || c.memory < 8*uint32(c.lanes) || uint64(c.memory)*uint64(c.passes) > maxArgon2Work {
		return nil, fmt.Errorf("%s is out of range: PASSES and LANES are at least 1, MEMORY at least 8 KiB a lane, and MEMORY × PASSES at most %d KiB", c, maxArgon2Work)
	}
	var err error
	if h.salt, err = base64.RawStdEncoding.DecodeString(parts[2]); err != nil || len(h.salt) < 8 || len(h.salt) > maxArgon2Size {
		return nil, fmt.Errorf("the salt is not 8 to %d bytes in base64 without padding", maxArgon2Size)
	}
	if h.hash, err = base64.RawStdEncoding.DecodeString(parts[3]); err != nil || len(h.hash) < 16 || len(h.hash) > maxArgon2Size {
		return nil, fmt.Errorf("the hash is not 16 to %d bytes in base64 without padding", maxArgon2Size)
	}
	return h, nil
}

func (c *argon2Cost) String() string {
	return fmt.Sprintf("m=%d,t=%d,p=%d", c.memory, c.passes, c.lanes)
}

// compute hashes password as h is. It takes as long as it is meant to.
func (h *passwordHash) compute(password []byte) ([]byte, error) {
	if c := &h.argon2; c.memory > 0 {
		return argon2.IDKey(password, h.salt, c.passes, c.memory, c.lanes, uint32(len(h.hash))), nil
	}
	return pbkdf2.Key(sha512.New, string(password), h.salt, h.iterations, sha512.Size)
}

// same reports whether h and o are the same entry.
func (h *passwordHash) same(o *passwordHash) bool {
	return h.iterations == o.iterations && h.argon2 == o.argon2 && bytes.Equal(h.salt, o.salt) && bytes.Equal(h.hash, o.hash)
}

// NewPassword makes an entry of a password file, without a line break: Argon2id
// with a random salt. The error says why there can't be one.
func NewPassword(user, password string) (entry string, err error) {
	if err := checkNewEntry(user, password, 1, 1); err != nil {
		return "", err
	}
	h := passwordHash{argon2: newArgon2, salt: randomBytes(argon2SaltSize), hash: make([]byte, argon2HashSize)}
	if h.hash, err = h.compute([]byte(password)); err != nil {
		return "", err
	}
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("%s:%sv=%d$%s$%s$%s", user, argon2Scheme, argon2.Version, &h.argon2, b64(h.salt), b64(h.hash)), nil
}

// NewPBKDF2Password makes an entry as mosquitto before 2.1 reads it, too.
func NewPBKDF2Password(user, password string, iterations int) (entry string, err error) {
	if err := checkNewEntry(user, password, iterations, 1); err != nil {
		return "", err
	}
	h := passwordHash{iterations: iterations, salt: randomBytes(pbkdf2SaltSize)}
	if h.hash, err = h.compute([]byte(password)); err != nil {
		return "", err
	}
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s:%s%d$%s$%s", user, pbkdf2Scheme, iterations, b64(h.salt), b64(h.hash)), nil
}
