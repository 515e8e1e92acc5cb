package auth

import (
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"hashplus/broker"
	"hashplus/broker/wire"
)

// scramClient is the client's side of an exchange.
type scramClient struct {
	user, password, nonce string
	header                string // of GS2; "" is "n,,"

	signature string // what the server has to answer, after final
}

func (c *scramClient) gs2() string {
	if c.header == "" {
		return "n,,"
	}
	return c.header
}

func (c *scramClient) bare() string {
	return "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(c.user) + ",r=" + c.nonce
}

func (c *scramClient) first() []byte { return []byte(c.gs2() + c.bare()) }

func (c *scramClient) final(challenge []byte) ([]byte, error) {
	var nonce, salt64, count string
	for part := range strings.SplitSeq(string(challenge), ",") {
		switch key, value, _ := strings.Cut(part, "="); key {
		case "r":
			nonce = value
		case "s":
			salt64 = value
		case "i":
			count = value
		}
	}
	salt, err1 := base64.StdEncoding.DecodeString(salt64)
	iterations, err2 := strconv.Atoi(count)
	if err := errors.Join(err1, err2); err != nil || !strings.HasPrefix(nonce, c.nonce) || nonce == c.nonce {
		return nil, fmt.Errorf("challenge %q: %w", challenge, err)
	}
	salted, err := pbkdf2.Key(sha256.New, c.password, salt, iterations, sha256.Size)
	if err != nil {
		return nil, err
	}
	key := mac(salted, "Client Key")
	stored := sha256.Sum256(key)
	without := "c=" + base64.StdEncoding.EncodeToString([]byte(c.gs2())) + ",r=" + nonce
	message := c.bare() + "," + string(challenge) + "," + without
	c.signature = "v=" + base64.StdEncoding.EncodeToString(mac(mac(salted, "Server Key"), message))
	proof := mac(stored[:], message)
	subtle.XORBytes(proof, proof, key)
	return []byte(without + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// oneUser is a Scram that knows user with password.
func oneUser(t testing.TB, user, password string) *Scram {
	t.Helper()
	entry, err := NewScram(user, password, 4096)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseScram("scram", []byte(entry+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run plays an exchange and returns the server's final message and its grant.
func (c *scramClient) run(s *Scram) (reply string, g broker.Grant, err error) {
	x := s.Begin(&broker.AuthRequest{})
	challenge, done, g, err := x.Next(context.Background(), c.first())
	if err != nil || done || g != (broker.Grant{}) {
		return "", g, fmt.Errorf("first: done %v, grant %v: %w", done, g, err)
	}
	final, err := c.final(challenge)
	if err != nil {
		return "", g, err
	}
	b, done, g, err := x.Next(context.Background(), final)
	if err == nil && !done {
		err = errors.New("the exchange goes on")
	}
	return string(b), g, err
}

// wantRefusal wants err to be NotAuthorized with the detail.
func wantRefusal(t *testing.T, err error, detail string) {
	t.Helper()
	var r *broker.Refusal
	if !errors.As(err, &r) || r.Reason != wire.NotAuthorized || !strings.Contains(r.Detail, detail) {
		t.Errorf("%v, want %q", err, detail)
	}
}

func TestScram_RFC7677Exchange(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	v, err := deriveVerifier("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseScram("scram", []byte("user:"+v.String()))
	if err != nil {
		t.Fatal(err)
	}
	s.nonce = func() string { return "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" }
	x := s.Begin(&broker.AuthRequest{})
	for i, step := range []struct{ client, server string }{
		{"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"},
		{"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="},
	} {
		reply, done, g, err := x.Next(context.Background(), []byte(step.client))
		if err != nil || string(reply) != step.server || done != (i == 1) || done && g.Username != "user" {
			t.Fatalf("step %d: %q, done %v, %v, %v", i, reply, done, g, err)
		}
	}
}

func TestScram_LetsInWhoHasThePassword(t *testing.T) {
	for _, c := range []scramClient{
		{user: "alice", password: "secret", nonce: "abc"},
		{user: "a,b=c,=3D", password: "pass word", nonce: "~!x"},
		{user: "müller", password: "straße", nonce: "abc", header: "y,,"},
		{user: "a,b", password: "p", nonce: "abc", header: "n,a=a=2Cb,"},
	} {
		reply, g, err := c.run(oneUser(t, c.user, c.password))
		if err != nil || reply != c.signature || g.Username != c.user {
			t.Errorf("%+v: %q, %v, %v", c, reply, g, err)
		}
	}
}

func TestScram_WrongPasswordAndUnknownUserLookTheSame(t *testing.T) {
	s := oneUser(t, "alice", "secret")
	var details []string
	for _, c := range []scramClient{
		{user: "alice", password: "Secret", nonce: "abc"},
		{user: "bob", password: "secret", nonce: "abc"},
		{user: "alice\x00", password: "secret", nonce: "abc"},
	} {
		_, g, err := c.run(s)
		wantRefusal(t, err, "wrong username or password")
		if g != (broker.Grant{}) {
			t.Errorf("%+v: %v", c, g)
		}
		details = append(details, fmt.Sprint(err))
	}
	if details[0] != details[1] {
		t.Errorf("%q", details)
	}
}

// challenge is what the server sends user, without the nonce.
func challenge(t *testing.T, s *Scram, user string) string {
	t.Helper()
	c := scramClient{user: user, nonce: "abc"}
	reply, _, _, err := s.Begin(&broker.AuthRequest{}).Next(context.Background(), c.first())
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(reply), ",")
	return rest
}

func TestScram_UnknownUserIsChallengedLikeAKnownOne(t *testing.T) {
	entry, err := NewScram("alice", "secret", 5000)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte(entry)
	s, err := ParseScram("scram", text)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseScram("scram", bytes.Clone(text)) // after a restart
	if err != nil {
		t.Fatal(err)
	}
	known, bob, carol := challenge(t, s, "alice"), challenge(t, s, "bob"), challenge(t, s, "carol")
	if len(known) != len(bob) || !strings.HasSuffix(bob, ",i=5000") {
		t.Errorf("known %q, unknown %q", known, bob)
	}
	if bob == carol || bob != challenge(t, s, "bob") || bob != challenge(t, again, "bob") {
		t.Error("the made-up salt is not the name's own, for as long as the file is the same")
	}
	other := oneUser(t, "alice", "secret")
	if challenge(t, other, "bob") == bob {
		t.Error("the made-up salt can be told without the file")
	}
	empty, err := ParseScram("scram", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := challenge(t, empty, "bob"); !strings.HasSuffix(got, ",i=4096") {
		t.Errorf("%q", got)
	}
}

func TestScram_NonceIsNewEachTime(t *testing.T) {
	s := oneUser(t, "alice", "secret")
	c := scramClient{user: "alice", nonce: "abc"}
	seen := map[string]bool{}
	for range 10 {
		reply, _, _, err := s.Begin(&broker.AuthRequest{}).Next(context.Background(), c.first())
		if err != nil {
			t.Fatal(err)
		}
		nonce, _, _ := strings.Cut(string(reply), ",")
		if seen[nonce] || len(nonce) < len("r=abc")+22 {
			t.Errorf("%q", nonce)
		}
		seen[nonce] = true
	}
}

func TestScram_FirstMessageIsChecked(t *testing.T) {
	s := oneUser(t, "alice", "secret")
	for message, detail := range map[string]string{
		"":                                   "no GS2 header",
		"n,":                                 "no GS2 header",
		"p=tls-unique,,n=alice,r=abc":        "channel binding is not offered",
		"p=tls-exporter,a=alice,n=alice,r=x": "channel binding is not offered",
		"x,,n=alice,r=abc":                   "unknown channel binding flag",
		"n,,":                                "is not n=USER,r=NONCE",
		"n,,n=alice":                         "is not n=USER,r=NONCE",
		"n,,r=abc,n=alice":                   "is not n=USER,r=NONCE",
		"n,,m=x,n=alice,r=abc":               "is not n=USER,r=NONCE",
		"n,,n=,r=abc":                        "username",
		"n,,n=a=b,r=abc":                     "username",
		"n,,n=a=2c,r=abc":                    "username",
		"n,,n=alice,r=":                      "nonce",
		"n,,n=alice,r=a b":                   "nonce",
		"n,,n=alice,r=a\x7f":                 "nonce",
		"n,,n=alice,r=" + strings.Repeat("a", 257): "nonce",
		"n,a=bob,n=alice,r=abc":                    "act as another",
		"n,b,n=alice,r=abc":                        "act as another",
	} {
		_, done, _, err := s.Begin(&broker.AuthRequest{}).Next(context.Background(), []byte(message))
		if done {
			t.Errorf("%q let in", message)
		}
		wantRefusal(t, err, detail)
	}
	if _, _, _, err := s.Begin(&broker.AuthRequest{}).Next(context.Background(), []byte("n,,n=alice,r=abc,x=an extension")); err != nil {
		t.Errorf("extension: %v", err)
	}
}

func TestScram_FinalMessageIsChecked(t *testing.T) {
	s := oneUser(t, "alice", "secret")
	for name, c := range map[string]struct {
		spoil  func(string) string
		detail string
	}{
		"empty":         {func(string) string { return "" }, "no proof"},
		"no proof":      {func(m string) string { return m[:strings.Index(m, ",p=")] }, "no proof"},
		"empty proof":   {func(m string) string { return m[:strings.Index(m, ",p=")+3] }, "the proof is not"},
		"short proof":   {func(m string) string { return m[:len(m)-4] }, "the proof is not"},
		"no base64":     {func(m string) string { return m[:len(m)-4] + "****" }, "the proof is not"},
		"other proof":   {func(m string) string { return m[:strings.Index(m, ",p=")+3] + strings.Repeat("A", 43) + "=" }, "wrong username or password"},
		"other binding": {func(m string) string { return strings.Replace(m, "c=biws", "c=eSws", 1) }, "channel binding"},
		"other nonce":   {func(m string) string { return strings.Replace(m, "r=abc", "r=abd", 1) }, "nonce"},
		"more":          {func(m string) string { return strings.Replace(m, ",p=", ",x=1,p=", 1) }, "wrong username or password"},
	} {
		x := s.Begin(&broker.AuthRequest{})
		client := scramClient{user: "alice", password: "secret", nonce: "abc"}
		challenge, _, _, err := x.Next(context.Background(), client.first())
		if err != nil {
			t.Fatal(err)
		}
		final, err := client.final(challenge)
		if err != nil {
			t.Fatal(err)
		}
		_, done, g, err := x.Next(context.Background(), []byte(c.spoil(string(final))))
		if done || g != (broker.Grant{}) {
			t.Errorf("%s: let in", name)
		}
		wantRefusal(t, err, c.detail)
	}
}

// A proof serves for one exchange.
func TestScram_ReplayIsRefused(t *testing.T) {
	s := oneUser(t, "alice", "secret")
	c := scramClient{user: "alice", password: "secret", nonce: "abc"}
	x := s.Begin(&broker.AuthRequest{})
	reply, _, _, _ := x.Next(context.Background(), c.first())
	final, err := c.final(reply)
	if err != nil {
		t.Fatal(err)
	}
	y := s.Begin(&broker.AuthRequest{})
	if _, _, _, err := y.Next(context.Background(), c.first()); err != nil {
		t.Fatal(err)
	}
	_, _, _, err = y.Next(context.Background(), final)
	wantRefusal(t, err, "nonce")
}

func TestParseScram_ErrorsNameLineAndFault(t *testing.T) {
	good := oneUser(t, "alice", "x").verifiers[0].String()
	key := base64.StdEncoding.EncodeToString(make([]byte, sha256.Size))
	for line, want := range map[string]string{
		"alice":          "scram:2: no colon",
		":" + good:       "scram:2: the username is empty",
		"alice:password": "scram:2: the entry is not USER:SCRAM-SHA-256$",
		"alice:SCRAM-SHA-1$4096:QQ==$" + key + ":" + key:       "scram:2: the entry is not",
		"alice:SCRAM-SHA-256$4096$" + key + ":" + key:          "scram:2: the entry is not",
		"alice:SCRAM-SHA-256$4095:QQ==$" + key + ":" + key:     `scram:2: "4095" is not a number of iterations; 4096 to 10000000`,
		"alice:SCRAM-SHA-256$10000001:QQ==$" + key + ":" + key: "scram:2: \"10000001\"",
		"alice:SCRAM-SHA-256$4096:$" + key + ":" + key:         "scram:2: the salt",
		"alice:SCRAM-SHA-256$4096:QQ==$" + key + ":QQ==":       "scram:2: the server key",
		"alice:SCRAM-SHA-256$4096:QQ==$QQ==:" + key:            "scram:2: the stored key",
		"bob:" + good:       `scram:2: user "bob" has an entry in line 1 already`,
		"al\xffice:" + good: "scram:2: the username",
	} {
		_, err := ParseScram("scram", []byte("bob:"+good+"\r\n"+line+"\n# comment:\n\n"))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", line, err)
		}
		if err != nil && strings.Contains(err.Error(), key) {
			t.Errorf("%q: the error shows a secret: %v", line, err)
		}
	}
}

// FuzzScram feeds both steps; without the password nobody is let in.
func FuzzScram(f *testing.F) {
	c := scramClient{user: "alice", password: "wrong", nonce: "abc"}
	f.Add(c.first(), []byte("c=biws,r=abc,p=AAAA"))
	f.Add([]byte("y,a=alice,n=alice,r=abc,x=1"), []byte("c=eSxhPWFsaWNlLA==,r=abc,x=2,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="))
	s := oneUser(f, "alice", "secret")
	s.nonce = func() string { return "" } // so that the fuzzer can find it
	f.Fuzz(func(t *testing.T, first, final []byte) {
		x := s.Begin(&broker.AuthRequest{})
		if _, done, _, err := x.Next(context.Background(), first); err != nil || done {
			if done {
				t.Fatal("let in")
			}
			return
		}
		if _, done, _, err := x.Next(context.Background(), final); done || err == nil {
			t.Fatal("let in")
		}
	})
}

func FuzzScramFile(f *testing.F) {
	f.Add([]byte("alice:" + oneUser(f, "alice", "x").verifiers[0].String() + "\n# c\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseScram("scram", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "scram:") {
				t.Fatalf("no place in %q", err)
			}
			return
		}
		var again strings.Builder
		for user, v := range s.users {
			fmt.Fprintf(&again, "%s:%s\n", user, v)
		}
		t2, err := ParseScram("again", []byte(again.String()))
		if err != nil || len(t2.users) != len(s.users) {
			t.Fatalf("%v of %q", err, &again)
		}
	})
}
