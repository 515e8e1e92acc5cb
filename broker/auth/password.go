package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"hashplus/broker"
	"hashplus/broker/wire"
)

// maxSlots bounds the memory of slow hashes on machines with many cores.
const maxSlots = 16

// maxWaiting is how many clients wait for a slow hash. It leaves half of the
// goroutines of authentication to those who need none: clients with a token, or
// with a password that is known, get in while somebody tries passwords.
const maxWaiting = 32

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
	slots   chan struct{} // one for each slow hash that is being computed
	waiting chan struct{} // one for each client that waits for a slot
}

var (
	_ broker.Authenticator = (*Passwords)(nil)
	_ Voucher              = (*Passwords)(nil)
)

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
//	USER:$argon2id$v=19$m=MEMORY,t=PASSES,p=LANES$SALT$HASH
//	USER:$7$ITERATIONS$SALT$HASH
//
// The first is Argon2id, MEMORY in KiB, the second PBKDF2 with HMAC-SHA-512, 64
// bytes of it. SALT and HASH are in base64. Entries of other schemes, $6$ among
// them, have to be made anew. The error names each faulty line as NAME:LINE.
func ParsePasswords(name string, text []byte) (*Passwords, error) {
	p := &Passwords{
		users:   make(map[string]*passwordHash),
		unknown: newPretence(text),
		key:     randomBytes(sha256.Size),
		// Hashing takes whole cores, and 19 MiB each: it leaves some to the event
		// loops.
		slots:   make(chan struct{}, min(max(1, runtime.GOMAXPROCS(0)/2), maxSlots)),
		waiting: make(chan struct{}, maxWaiting),
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

// parseIterations bounds what a line of a file can make the broker compute.
func parseIterations(s string, least int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > maxIterations {
		return 0, fmt.Errorf("%.20q is not a number of iterations; %d to %d are allowed", s, least, maxIterations)
	}
	return n, nil
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

// Authenticate implements broker.Authenticator. It refuses with
// BadUserNameOrPassword; to a client without username and password, or with a
// name that is not in the file, the refusal is ErrNotMine too. An unknown user
// takes as long as a known one, and the hashes are compared in constant time. It
// computes few hashes at once, so that a storm of clients does not take the
// cores from the event loops; others wait until ctx ends, or are told ServerBusy
// where too many wait.
func (p *Passwords) Authenticate(ctx context.Context, r *broker.AuthRequest) (broker.Grant, error) {
	if !r.HasUsername || !r.HasPassword {
		return broker.Grant{}, notMine{&broker.Refusal{Reason: wire.BadUserNameOrPassword, Detail: "a username and a password are needed"}}
	}
	pretended := p.pretend(r.Username) // always: to make it up takes time
	h, known := p.users[r.Username]
	if !known {
		h = pretended
	}
	quick := mac(p.key, string(r.Password))
	if q := h.quick.Load(); q != nil && subtle.ConstantTimeCompare(*q, quick) == 1 {
		return broker.Grant{Username: r.Username, Grounds: h}, nil
	}
	if err := p.wait(ctx); err != nil {
		return broker.Grant{}, err
	}
	defer func() { <-p.slots }()
	hash, err := h.compute(r.Password)
	if err != nil {
		return broker.Grant{}, err
	}
	if right := subtle.ConstantTimeCompare(hash, h.hash) == 1; !right || !known {
		wrong := &broker.Refusal{Reason: wire.BadUserNameOrPassword, Detail: "wrong username or password"}
		if !known {
			return broker.Grant{}, notMine{wrong}
		}
		return broker.Grant{}, wrong
	}
	h.quick.Store(&quick)
	return broker.Grant{Username: r.Username, Grounds: h}, nil
}

// Holds implements Voucher: the user has the same entry as then.
func (p *Passwords) Holds(username string, grounds any) (mine, holds bool) {
	h, mine := grounds.(*passwordHash)
	if !mine {
		return false, false
	}
	now := p.users[username]
	return true, now != nil && (now == h || now.same(h))
}

// wait takes a slot, unless too many wait for one already.
func (p *Passwords) wait(ctx context.Context) error {
	select {
	case p.waiting <- struct{}{}:
		defer func() { <-p.waiting }()
	default:
		return &broker.Refusal{Reason: wire.ServerBusy, Detail: "too many passwords are being checked"}
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pretend is what is computed for an unknown user: it costs what some user's
// password does, for the same name always the same one's.
func (p *Passwords) pretend(user string) *passwordHash {
	like := &passwordHash{argon2: newArgon2, salt: make([]byte, argon2SaltSize), hash: make([]byte, argon2HashSize)}
	if len(p.hashes) > 0 {
		like = p.hashes[p.unknown.pick(user, len(p.hashes))]
	}
	h := &passwordHash{iterations: like.iterations, argon2: like.argon2, hash: make([]byte, len(like.hash))}
	for i := 0; len(h.salt) < len(like.salt); i++ {
		h.salt = append(h.salt, p.unknown.bytes(fmt.Sprintf("salt %d", i), user)...)
	}
	h.salt = h.salt[:len(like.salt)]
	return h
}

// Inherit takes over from old, which p is to replace, the entries that are the same
// in both, with what it knows of them: clients that come back do not wait for the slow
// hash because another user was added. It is called before p is used; old may be
// in use, or nil.
func (p *Passwords) Inherit(old *Passwords) {
	if old == nil {
		return
	}
	p.key, p.slots, p.waiting = old.key, old.slots, old.waiting
	for user, h := range p.users {
		if o := old.users[user]; o != nil && h.same(o) {
			p.users[user] = o
		}
	}
}
