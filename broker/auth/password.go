package auth

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"

	"hashplus/broker"
	"hashplus/broker/wire"
)

const (
	// DefaultIterations is how often a new entry hashes its password. It costs
	// an attacker who has the file some 100 ms of one core for each guess, and
	// the broker as much at a user's first connection; see Passwords.
	DefaultIterations = 100_000
	maxIterations     = 10_000_000

	passwordScheme = "$7$"
	newSaltSize    = 12 // bytes; mosquitto reads no other size
	maxSaltSize    = 1024
)

// Passwords is a set of users and password hashes, a broker.Authenticator.
// Authenticate may be called from any goroutine.
//
// A password that was right once is known by a quick keyed hash from then on,
// for the life of the process: when all clients come back at once, after the
// network was away, they do not wait for the slow hash again. Wrong ones always
// take the slow way.
type Passwords struct {
	// Immutable.
	users   map[string]*passwordHash
	hashes  []*passwordHash // in the order of the file
	unknown pretence
	key     []byte // of the quick hash, random

	// Any goroutine.
	slots chan struct{} // one for each slow hash that is being computed
}

var _ broker.Authenticator = (*Passwords)(nil)

// passwordHash is PBKDF2-HMAC-SHA-512 of a password.
type passwordHash struct {
	// Immutable.
	iterations int
	salt       []byte
	hash       []byte // sha512.Size bytes

	// Any goroutine; atomic.
	quick atomic.Pointer[[]byte] // the quick hash, once the password has come
}

// LoadPasswords reads a password file; see ParsePasswords.
func LoadPasswords(path string) (*Passwords, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParsePasswords(path, text)
}

// ParsePasswords reads a password file in mosquitto's format, as
// mosquitto_passwd and NewPassword write it, with one user on a line:
//
//	USER:$7$ITERATIONS$SALT$HASH
//
// HASH is PBKDF2 with HMAC-SHA-512, 64 bytes of it; it and SALT are in base64.
// Entries of other schemes, $6$ among them, have to be made anew. The error
// names each faulty line as NAME:LINE.
func ParsePasswords(name string, text []byte) (*Passwords, error) {
	p := &Passwords{
		users:   make(map[string]*passwordHash),
		unknown: newPretence(text),
		key:     randomBytes(sha256.Size),
		// Hashing takes whole cores: it leaves some to the event loops.
		slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}
	err := parseEntries(name, text, func(user, secret string) error {
		h, err := parsePasswordHash(secret)
		p.users[user] = h
		p.hashes = append(p.hashes, h)
		return err
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

func parsePasswordHash(s string) (*passwordHash, error) {
	rest, ok := strings.CutPrefix(s, passwordScheme)
	parts := strings.Split(rest, "$")
	if !ok || len(parts) != 3 {
		return nil, errors.New("the entry is not USER:$7$ITERATIONS$SALT$HASH: make it with hashplus passwd or mosquitto_passwd")
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

// parseIterations bounds what a line of a file can make the broker compute.
func parseIterations(s string, least int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > maxIterations {
		return 0, fmt.Errorf("%.20q is not a number of iterations; %d to %d are allowed", s, least, maxIterations)
	}
	return n, nil
}

// NewPassword makes an entry of a password file, without a line break, with a
// random salt. The error says why there can't be one.
func NewPassword(user, password string, iterations int) (entry string, err error) {
	if err := checkNewEntry(user, password, iterations, 1); err != nil {
		return "", err
	}
	h := passwordHash{iterations: iterations, salt: randomBytes(newSaltSize)}
	if h.hash, err = h.compute([]byte(password)); err != nil {
		return "", err
	}
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s:%s%d$%s$%s", user, passwordScheme, iterations, b64(h.salt), b64(h.hash)), nil
}

func checkNewEntry(user, password string, iterations, least int) error {
	if err := checkUser(user); err != nil {
		return err
	}
	if password == "" {
		return errors.New("the password is empty")
	}
	if len(password) > 65535 {
		return errors.New("the password is longer than 65,535 bytes, which no CONNECT can carry")
	}
	_, err := parseIterations(strconv.Itoa(iterations), least)
	return err
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func (h *passwordHash) compute(password []byte) ([]byte, error) {
	return pbkdf2.Key(sha512.New, string(password), h.salt, h.iterations, sha512.Size)
}

// Authenticate implements broker.Authenticator. It refuses with
// BadUserNameOrPassword. An unknown user takes as long as a known one, and the
// hashes are compared in constant time. It computes few hashes at once, so that
// a storm of clients does not take the cores from the event loops; the others
// wait until ctx ends.
func (p *Passwords) Authenticate(ctx context.Context, r *broker.AuthRequest) (broker.Grant, error) {
	if !r.HasUsername || !r.HasPassword {
		return broker.Grant{}, &broker.Refusal{Reason: wire.BadUserNameOrPassword, Detail: "a username and a password are needed"}
	}
	pretended := p.pretend(r.Username) // always: to make it up takes time
	h, known := p.users[r.Username]
	if !known {
		h = pretended
	}
	quick := mac(p.key, string(r.Password))
	if q := h.quick.Load(); q != nil && subtle.ConstantTimeCompare(*q, quick) == 1 {
		return broker.Grant{Username: r.Username}, nil
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return broker.Grant{}, ctx.Err()
	}
	hash, err := h.compute(r.Password)
	if err != nil {
		return broker.Grant{}, err
	}
	if subtle.ConstantTimeCompare(hash, h.hash) != 1 || !known {
		return broker.Grant{}, &broker.Refusal{Reason: wire.BadUserNameOrPassword, Detail: "wrong username or password"}
	}
	h.quick.Store(&quick)
	return broker.Grant{Username: r.Username}, nil
}

// pretend is what is computed for an unknown user: it costs what some user's
// password does, for the same name always the same one's.
func (p *Passwords) pretend(user string) *passwordHash {
	h := &passwordHash{iterations: DefaultIterations, salt: p.unknown.bytes("salt", user)[:newSaltSize], hash: make([]byte, sha512.Size)}
	if len(p.hashes) > 0 {
		h.iterations = p.hashes[p.unknown.pick(user, len(p.hashes))].iterations
	}
	return h
}

// AllowAnonymous lets clients in that name no user, as anonymous ones, and
// leaves the others to a; a nil one refuses them.
func AllowAnonymous(a broker.Authenticator) broker.Authenticator { return anonymous{a} }

type anonymous struct{ rest broker.Authenticator }

// Authenticate implements broker.Authenticator.
func (a anonymous) Authenticate(ctx context.Context, r *broker.AuthRequest) (broker.Grant, error) {
	switch {
	case !r.HasUsername:
		return broker.Grant{}, nil
	case a.rest == nil:
		return broker.Grant{}, &broker.Refusal{Reason: wire.BadUserNameOrPassword, Detail: "nobody can log in with a password here"}
	}
	return a.rest.Authenticate(ctx, r)
}
