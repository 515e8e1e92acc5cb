package auth

import (
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"hashplus/broker"
	"hashplus/broker/wire"
)

// ScramMethod is the Authentication Method of Scram.
const ScramMethod = "SCRAM-SHA-256"

// maxScramNonce is the longest nonce that is taken from a client, in bytes.
const maxScramNonce = 256

// Scram is SCRAM-SHA-256 (RFC 5802, RFC 7677) as the server plays it, a
// broker.EnhancedAuthenticator. It never sees a password, and proves to the
// client that it knows the user's verifier. Channel binding is not offered.
//
// Messages: the client's first is the Authentication Data of CONNECT, the
// server's first goes with AUTH 0x18, the client's final with AUTH 0x18, the
// server's final with CONNACK (AUTH 0x00 for a re-authentication). It is
// immutable; exchanges run beside each other.
type Scram struct {
	users     map[string]*scramVerifier
	verifiers []*scramVerifier // in the order of the file
	unknown   pretence
	nonce     func() string // the server's part; tests give RFC 7677's
}

var (
	_ broker.EnhancedAuthenticator = (*Scram)(nil)
	_ Voucher                      = (*Scram)(nil)
)

// scramVerifier is what the server knows of a password.
type scramVerifier struct {
	iterations int
	salt       []byte
	stored     []byte // StoredKey
	server     []byte // ServerKey
}

// deriveVerifier makes the verifier of a password that is prepared (RFC 5802
// section 3).
func deriveVerifier(password string, salt []byte, iterations int) (*scramVerifier, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return nil, err
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	return &scramVerifier{iterations: iterations, salt: salt, stored: stored[:], server: mac(salted, "Server Key")}, nil
}

// Method implements broker.EnhancedAuthenticator.
func (*Scram) Method() string { return ScramMethod }

// Begin implements broker.EnhancedAuthenticator. Who the client is the exchange
// alone says: a username in CONNECT is ignored.
func (s *Scram) Begin(*broker.AuthRequest) broker.AuthExchange { return &scramExchange{scram: s} }

// scramExchange is one exchange.
type scramExchange struct {
	scram *Scram

	// Set by the client's first message.
	started  bool
	user     string
	known    bool
	verifier *scramVerifier
	header   string // the GS2 header
	nonce    string // both parts
	message  string // AuthMessage as far as it has come
}

// Next implements broker.AuthExchange. Whether the user exists can't be told
// from its answers.
func (x *scramExchange) Next(_ context.Context, data []byte) (reply []byte, done bool, g broker.Grant, err error) {
	if !x.started {
		reply, err = x.first(string(data))
		return reply, false, broker.Grant{}, err
	}
	if reply, err = x.final(string(data)); err != nil {
		return nil, false, broker.Grant{}, err
	}
	return reply, true, broker.Grant{Username: x.user, Grounds: x.verifier}, nil
}

// Holds implements Voucher: the user has the same verifier as then.
func (s *Scram) Holds(username string, grounds any) (mine, holds bool) {
	v, mine := grounds.(*scramVerifier)
	if !mine {
		return false, false
	}
	now := s.users[username]
	return true, now != nil && now.iterations == v.iterations && bytes.Equal(now.salt, v.salt) &&
		subtle.ConstantTimeCompare(now.stored, v.stored) == 1
}

func scramRefusal(format string, args ...any) error {
	return &broker.Refusal{Reason: wire.NotAuthorized, Detail: ScramMethod + ": " + fmt.Sprintf(format, args...)}
}

// first takes client-first-message and returns server-first-message.
func (x *scramExchange) first(message string) ([]byte, error) {
	flag, rest, ok1 := strings.Cut(message, ",")
	authzid, bare, ok2 := strings.Cut(rest, ",")
	switch {
	case !ok1 || !ok2:
		return nil, scramRefusal("the first message has no GS2 header")
	case strings.HasPrefix(flag, "p="):
		return nil, scramRefusal("channel binding is not offered")
	case flag != "n" && flag != "y":
		return nil, scramRefusal("unknown channel binding flag")
	}
	name, rest, ok1 := strings.Cut(bare, ",")
	nonce, _, _ := strings.Cut(rest, ",") // extensions after it are optional
	encoded, ok2 := strings.CutPrefix(name, "n=")
	nonce, ok3 := strings.CutPrefix(nonce, "r=")
	if !ok1 || !ok2 || !ok3 {
		return nil, scramRefusal("the first message is not n=USER,r=NONCE") // m= is refused here too
	}
	user, ok := decodeName(encoded)
	if !ok {
		return nil, scramRefusal("the username is empty or has a bare = in it")
	}
	if !validNonce(nonce) {
		return nil, scramRefusal("the nonce is not 1 to %d printable characters", maxScramNonce)
	}
	if authzid != "" && authzid != "a="+encoded {
		return nil, scramRefusal("to act as another user is not offered")
	}
	x.started, x.user = true, user
	x.header = flag + "," + authzid + ","
	x.nonce = nonce + x.scram.nonce()
	pretended := x.scram.pretend(user) // always: to make it up takes time
	if x.verifier, x.known = x.scram.users[user]; !x.known {
		x.verifier = pretended
	}
	reply := fmt.Sprintf("r=%s,s=%s,i=%d", x.nonce, base64.StdEncoding.EncodeToString(x.verifier.salt), x.verifier.iterations)
	x.message = bare + "," + reply + ","
	return []byte(reply), nil
}

// final takes client-final-message and returns server-final-message.
func (x *scramExchange) final(message string) ([]byte, error) {
	at := strings.LastIndex(message, ",p=")
	if at < 0 {
		return nil, scramRefusal("the final message has no proof")
	}
	without := message[:at]
	proof, err := base64.StdEncoding.DecodeString(message[at+len(",p="):])
	if err != nil || len(proof) != sha256.Size {
		return nil, scramRefusal("the proof is not %d bytes in base64", sha256.Size)
	}
	binding, rest, _ := strings.Cut(without, ",")
	nonce, _, _ := strings.Cut(rest, ",") // extensions after it are optional
	if binding != "c="+base64.StdEncoding.EncodeToString([]byte(x.header)) {
		return nil, scramRefusal("the channel binding is not that of the first message")
	}
	if subtle.ConstantTimeCompare([]byte(nonce), []byte("r="+x.nonce)) != 1 {
		return nil, scramRefusal("the nonce is not that of this exchange")
	}
	authMessage := x.message + without
	key := mac(x.verifier.stored, authMessage)
	subtle.XORBytes(key, key, proof) // ClientKey, if the proof is right
	stored := sha256.Sum256(key)
	if subtle.ConstantTimeCompare(stored[:], x.verifier.stored) != 1 || !x.known {
		return nil, scramRefusal("wrong username or password")
	}
	signature := mac(x.verifier.server, authMessage)
	return []byte("v=" + base64.StdEncoding.EncodeToString(signature)), nil
}

// pretend is the verifier of an unknown user. It looks like a known one's, for
// the same name always the same.
func (s *Scram) pretend(user string) *scramVerifier {
	size, iterations := newScramSaltSize, DefaultScramIterations
	if len(s.verifiers) > 0 {
		like := s.verifiers[s.unknown.pick(user, len(s.verifiers))]
		size, iterations = len(like.salt), like.iterations
	}
	salt := make([]byte, 0, size+sha256.Size)
	for i := 0; len(salt) < size; i++ {
		salt = append(salt, s.unknown.bytes(fmt.Sprintf("salt %d", i), user)...)
	}
	return &scramVerifier{
		iterations: iterations, salt: salt[:size],
		stored: s.unknown.bytes("stored", user), server: s.unknown.bytes("server", user),
	}
}

// decodeName undoes the escapes of a saslname: =2C is a comma, =3D an equals
// sign, and no other = may stand there.
func decodeName(s string) (name string, ok bool) {
	if strings.Count(s, "=") != strings.Count(s, "=2C")+strings.Count(s, "=3D") {
		return "", false
	}
	return strings.NewReplacer("=2C", ",", "=3D", "=").Replace(s), s != ""
}

func validNonce(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e { // a comma has ended it already
			return false
		}
	}
	return s != "" && len(s) <= maxScramNonce
}

// newNonce is the server's part of a nonce: 130 random bits.
func newNonce() string { return rand.Text() }
