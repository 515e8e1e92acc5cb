package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"hashplus/broker"
	"hashplus/broker/wire"
)

// aliceByMosquitto was written by mosquitto_passwd 2.0.11 for the password
// "secret".
const aliceByMosquitto = "alice:$7$101$KlxGw2Pon2blwuxN$6SnmVDF+LTJzFwZKd5ELGZE31j//+Is81JQBU/MYbgscu1euWNxO09cajZ/i8f/KUqOsH/S8T2YkV5ntIZodVA=="

func mustPasswords(t testing.TB, text string) *Passwords {
	t.Helper()
	p, err := ParsePasswords("passwords", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func login(user, password string) *broker.AuthRequest {
	return &broker.AuthRequest{ClientID: "c", HasUsername: true, Username: user, HasPassword: true, Password: []byte(password)}
}

// refused reports whether err tells the client BadUserNameOrPassword.
func refused(err error) bool {
	var r *broker.Refusal
	return errors.As(err, &r) && r.Reason == wire.BadUserNameOrPassword
}

func TestPasswords_ReadsMosquittosEntries(t *testing.T) {
	p := mustPasswords(t, "# users\n\n"+aliceByMosquitto+"\r\n")
	if g, err := p.Authenticate(context.Background(), login("alice", "secret")); err != nil || g.Username != "alice" {
		t.Errorf("%v, %v", g, err)
	}
	for _, r := range []*broker.AuthRequest{
		login("alice", "Secret"), login("alice", ""), login("Alice", "secret"), login("bob", "secret"), login("", "secret"), login("", ""),
		{HasUsername: true, Username: "alice"}, {HasPassword: true, Password: []byte("secret")}, {},
	} {
		if g, err := p.Authenticate(context.Background(), r); !refused(err) || g != (broker.Grant{}) || errors.Is(err, ErrNotMine) != (r.Username != "alice" || !r.HasPassword) {
			t.Errorf("%+v: %v, %v", r, g, err)
		}
	}
}

// These were written by argon2 of the reference implementation; the first with
// the parameters of mosquitto_passwd 2.1.
const (
	bobByMosquitto = "bob:$argon2id$v=19$m=47104,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$s0elE0u89nTzfO2baeLN6KuKuK8stZe1ihxEYvpiGv9JIATSR5xvLtYKbs0eLMeJOaZH6BgzjfycOGswAJsOAQ"
	carolByArgon2  = "carol:$argon2id$v=19$m=4096,t=3,p=4$MDEyMzQ1Njc4OWFiY2RlZg$EeJZ9GNjs+S4RA90JMN8tvsRX7fHWvWXNFPtuDnFUT0"
)

func TestPasswords_ReadsArgon2(t *testing.T) {
	p := mustPasswords(t, bobByMosquitto+"\n"+aliceByMosquitto+"\n"+carolByArgon2+"\n")
	for user, password := range map[string]string{"bob": "secret", "alice": "secret", "carol": "correct horse"} {
		if g, err := p.Authenticate(context.Background(), login(user, password)); err != nil || g.Username != user {
			t.Errorf("%s: %v, %v", user, g, err)
		}
		if _, err := p.Authenticate(context.Background(), login(user, password+" ")); !refused(err) || errors.Is(err, ErrNotMine) {
			t.Errorf("%s with another password: %v", user, err)
		}
	}
}

func TestParsePasswords_BoundsWhatArgon2Costs(t *testing.T) {
	const salt, hash = "c29tZXNhbHQ", "MDEyMzQ1Njc4OWFiY2RlZg"
	for secret, ok := range map[string]bool{
		"v=19$m=4096,t=3,p=4$" + salt + "$" + hash:                true,
		"v=19$m=8,t=1,p=1$" + salt + "$" + hash:                   true,
		"v=16$m=4096,t=3,p=4$" + salt + "$" + hash:                false,
		"m=4096,t=3,p=4$" + salt + "$" + hash:                     false,
		"v=19$m=4096,t=3$" + salt + "$" + hash:                    false,
		"v=19$m=4096,t=3,p=4,x=1$" + salt + "$" + hash:            false,
		"v=19$m=04096,t=3,p=4$" + salt + "$" + hash:               false,
		"v=19$m=4096,t=0,p=4$" + salt + "$" + hash:                false,
		"v=19$m=4096,t=3,p=0$" + salt + "$" + hash:                false,
		"v=19$m=4096,t=3,p=256$" + salt + "$" + hash:              false,
		"v=19$m=31,t=3,p=4$" + salt + "$" + hash:                  false,
		"v=19$m=4194304,t=2,p=1$" + salt + "$" + hash:             false,
		"v=19$m=4294967295,t=4294967295,p=1$" + salt + "$" + hash: false,
		"v=19$m=-1,t=3,p=4$" + salt + "$" + hash:                  false,
		"v=19$m=4096,t=3,p=4$" + salt + "==$" + hash:              false,
		"v=19$m=4096,t=3,p=4$c2hvcnQ$" + hash:                     false,
		"v=19$m=4096,t=3,p=4$" + salt + "$c2hvcnQ":                false,
		"v=19$m=4096,t=3,p=4$" + salt + "$" + hash + "$":          false,
	} {
		if _, err := ParsePasswords("passwords", []byte("alice:$argon2id$"+secret)); (err == nil) != ok {
			t.Errorf("%s: %v", secret, err)
		} else if err != nil && strings.Contains(err.Error(), hash) {
			t.Errorf("%s: the error shows the hash: %v", secret, err)
		}
	}
}

func TestNewPassword_IsReadAgain(t *testing.T) {
	for prefix, make := range map[string]func(user, password string) (string, error){
		"alice:$argon2id$v=19$m=19456,t=2,p=1$": NewPassword,
		"alice:$7$10$":                          func(user, password string) (string, error) { return NewPBKDF2Password(user, password, 10) },
	} {
		for _, password := range []string{"x", "pass:word$", strings.Repeat("long", 100), "straße", "\x00\xff"} {
			one, err := make("alice", password)
			two, err2 := make("alice", password)
			if err != nil || err2 != nil || one == two || !strings.HasPrefix(one, prefix) {
				t.Fatalf("%v, %v, %q, %q", err, err2, one, two)
			}
			if g, err := mustPasswords(t, one).Authenticate(context.Background(), login("alice", password)); err != nil || g.Username != "alice" {
				t.Errorf("%q: %v, %v", password, g, err)
			}
		}
	}
}

func TestNewEntry_RefusesWhatCannotBeOne(t *testing.T) {
	for name, make := range map[string]func(user, password string, iterations int) (string, error){
		"pbkdf2": NewPBKDF2Password, "scram": NewScram, "argon2": func(user, password string, iterations int) (string, error) {
			if iterations != 5000 {
				return "", errors.New("it has no iterations")
			}
			return NewPassword(user, password)
		},
	} {
		for _, c := range []struct {
			user, password string
			iterations     int
		}{
			{"", "x", 5000}, {"a:b", "x", 5000}, {"a\nb", "x", 5000}, {"a\rb", "x", 5000}, {"#a", "x", 5000}, {"a\xff", "x", 5000}, {"a\x00", "x", 5000},
			{"a", "", 5000}, {"a", strings.Repeat("x", 65536), 5000}, {"a", "x", 0}, {"a", "x", maxIterations + 1}, {strings.Repeat("a", 65536), "x", 5000},
		} {
			if entry, err := make(c.user, c.password, c.iterations); err == nil {
				t.Errorf("%s: %.20q: %.40q", name, c.user, entry)
			}
		}
	}
	if _, err := NewScram("a", "x", 4095); err == nil {
		t.Error("4,095 iterations, fewer than RFC 7677 asks for")
	}
}

func TestPasswords_UnknownUserCostsWhatAKnownOneDoes(t *testing.T) {
	p := mustPasswords(t, aliceByMosquitto+"\n"+strings.Replace(strings.Replace(aliceByMosquitto, "alice", "bob", 1), "$101$", "$202$", 1))
	seen := map[int]bool{}
	for i := range 50 {
		name := fmt.Sprint("user", i)
		h := p.pretend(name)
		if again := p.pretend(name); again.iterations != h.iterations {
			t.Errorf("%s: %d and %d iterations", name, h.iterations, again.iterations)
		}
		seen[h.iterations] = true
	}
	if len(seen) != 2 || !seen[101] || !seen[202] {
		t.Errorf("iterations of unknown users: %v", seen)
	}
	if got := mustPasswords(t, "").pretend("x").argon2; got != newArgon2 {
		t.Errorf("empty file: %v", got)
	}
	h := mustPasswords(t, bobByMosquitto).pretend("x")
	if want := (argon2Cost{47104, 1, 1}); h.argon2 != want || len(h.hash) != 64 || len(h.salt) != 16 {
		t.Errorf("beside one with Argon2id: %v, a hash of %d and a salt of %d bytes", h.argon2, len(h.hash), len(h.salt))
	}
	// What the clock says, with hashes that take long enough to be measured.
	text, err := NewPBKDF2Password("alice", "secret", 30_000)
	if err != nil {
		t.Fatal(err)
	}
	p = mustPasswords(t, text)
	// The least of several, and of many on a machine that has much else to do.
	known, unknown := time.Hour, time.Hour
	for n := 0; n < 5 || n < 200 && (known > 3*unknown || unknown > 3*known); n++ {
		for user, least := range map[string]*time.Duration{"alice": &known, "bob": &unknown} {
			start := time.Now()
			if _, err := p.Authenticate(context.Background(), login(user, "wrong")); !refused(err) {
				t.Fatal(err)
			}
			*least = min(*least, time.Since(start))
		}
	}
	if known > 3*unknown || unknown > 3*known {
		t.Errorf("known %v, unknown %v", known, unknown)
	}
}

func TestPasswords_WaitersLeaveWithTheirDeadline(t *testing.T) {
	p := mustPasswords(t, aliceByMosquitto)
	if got, want := cap(p.slots), max(1, runtime.GOMAXPROCS(0)/2); got != want {
		t.Errorf("%d hashes at once, not %d", got, want)
	}
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Authenticate(ctx, login("alice", "secret")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-p.slots
	for range 3 { // a slot is given back
		p.users["alice"].quick.Store(nil)
		if _, err := p.Authenticate(context.Background(), login("alice", "secret")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPasswords_ThoseWhoTryPasswordsDoNotFillTheQueue(t *testing.T) {
	p := mustPasswords(t, aliceByMosquitto)
	if _, err := p.Authenticate(context.Background(), login("alice", "secret")); err != nil {
		t.Fatal(err)
	}
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	results := make(chan error, maxWaiting)
	for i := range maxWaiting {
		go func() {
			_, err := p.Authenticate(ctx, login(fmt.Sprint("user", i), "x"))
			results <- err
		}()
	}
	for len(p.waiting) < maxWaiting {
		time.Sleep(time.Millisecond)
	}
	for _, user := range []string{"alice", "bob"} { // whether there is such a user or not
		if _, err := p.Authenticate(context.Background(), login(user, "wrong")); reasonOf(err) != wire.ServerBusy || errors.Is(err, ErrNotMine) {
			t.Errorf("%s: %v", user, err)
		}
	}
	if _, err := p.Authenticate(context.Background(), login("alice", "secret")); err != nil {
		t.Errorf("a password that is known: %v", err)
	}
	cancel()
	for range maxWaiting {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if len(p.waiting) != 0 {
		t.Errorf("%d wait", len(p.waiting))
	}
}

func TestPasswords_InheritKnowsWhoWasRight(t *testing.T) {
	old := mustPasswords(t, aliceByMosquitto)
	if _, err := old.Authenticate(context.Background(), login("alice", "secret")); err != nil {
		t.Fatal(err)
	}
	other, err := NewPBKDF2Password("alice", "secret", 10)
	if err != nil {
		t.Fatal(err)
	}
	for text, quick := range map[string]bool{
		aliceByMosquitto + "\n" + carolByArgon2: true, other: false, carolByArgon2: false,
	} {
		p := mustPasswords(t, text)
		p.Inherit(nil)
		p.Inherit(old)
		if h := p.users["alice"]; h != nil && (h.quick.Load() != nil) != quick {
			t.Errorf("%.60q: known: %v", text, !quick)
		}
		if quick {
			for range cap(p.slots) { // old's: a slow hash of either would wait
				old.slots <- struct{}{}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			if _, err := p.Authenticate(ctx, login("alice", "secret")); err != nil {
				t.Error(err)
			}
			if _, err := p.Authenticate(ctx, login("alice", "wrong")); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("wrong: %v", err)
			}
			cancel()
			for range cap(p.slots) {
				<-old.slots
			}
		}
	}
}

func TestPasswords_RightOnceIsQuickAfterwards(t *testing.T) {
	p := mustPasswords(t, aliceByMosquitto)
	authenticate := func(password string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		_, err := p.Authenticate(ctx, login("alice", password))
		return err
	}
	if _, err := p.Authenticate(context.Background(), login("alice", "wrong")); !refused(err) {
		t.Fatal(err)
	}
	for range cap(p.slots) { // from here on a slow hash waits until its deadline
		p.slots <- struct{}{}
	}
	for _, password := range []string{"wrong", "secret"} {
		if err := authenticate(password); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s, before: %v", password, err)
		}
	}
	<-p.slots
	if _, err := p.Authenticate(context.Background(), login("alice", "secret")); err != nil {
		t.Fatal(err)
	}
	p.slots <- struct{}{}
	if err := authenticate("secret"); err != nil {
		t.Errorf("right, again: %v", err)
	}
	for _, password := range []string{"wrong", ""} {
		if err := authenticate(password); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q, after: %v", password, err)
		}
	}
}

func TestParsePasswords_ErrorsNameLineAndFault(t *testing.T) {
	hash := base64.StdEncoding.EncodeToString(make([]byte, 64))
	for line, want := range map[string]string{
		"alice":                          "passwords:2: no colon",
		"alice:secret":                   "passwords:2: the entry is neither USER:$argon2id$",
		"alice:$6$QQ==$" + hash:          "passwords:2: the entry is neither USER:$argon2id$",
		"alice:$7$1$QQ==$" + hash + "$":  "passwords:2: the entry is neither USER:$argon2id$",
		"alice:$7$0$QQ==$" + hash:        `passwords:2: "0" is not a number of iterations; 1 to 10000000 are allowed`,
		"alice:$7$x$QQ==$" + hash:        `passwords:2: "x" is not a number`,
		"alice:$7$99999999$QQ==$" + hash: `passwords:2: "99999999" is not a number`,
		"alice:$7$1$$" + hash:            "passwords:2: the salt",
		"alice:$7$1$Q$" + hash:           "passwords:2: the salt",
		"alice:$7$1$QQ==$QQ==":           "passwords:2: the hash is not 64 bytes in base64",
		":$7$1$QQ==$" + hash:             "passwords:2: the username is empty",
		"bob:$7$1$QQ==$" + hash:          `passwords:2: user "bob" has an entry in line 1 already`,
	} {
		_, err := ParsePasswords("passwords", []byte("bob:$7$1$QQ==$"+hash+"\n"+line+"\n"))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", line, err)
		}
		if err != nil && (strings.Contains(err.Error(), hash) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%q: the error shows a secret: %v", line, err)
		}
	}
	_, err := ParsePasswords("passwords", []byte(strings.Repeat("x\n", 1000)))
	if got := strings.Count(fmt.Sprint(err), "\n"); got != maxFaults {
		t.Errorf("%d lines", got)
	}
}

func TestSetEntry_LeavesOtherLines(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "bob:new\n"},
		{"# c\nalice:x\n", "# c\nalice:x\nbob:new\n"},
		{"alice:x", "alice:x\nbob:new\n"},
		{"# c\nbob:old\nbobby:x\n\nalice:y\n", "# c\nbob:new\nbobby:x\n\nalice:y\n"},
		{"bob:1\r\nbob:2\nx:y\r\n", "bob:new\nx:y\r\n"},
	} {
		if got := string(SetEntry([]byte(c.text), "bob:new")); got != c.want {
			t.Errorf("%q: %q, not %q", c.text, got, c.want)
		}
	}
}

func TestRemoveEntry_LeavesOtherLines(t *testing.T) {
	for _, c := range []struct {
		text, want string
		found      bool
	}{
		{"", "", false}, {"bobby:x\n# bob:\n", "bobby:x\n# bob:\n", false},
		{"a:b\nbob:x\nbobby:y", "a:b\nbobby:y", true}, {"bob:x", "", true},
	} {
		if got, found := RemoveEntry([]byte(c.text), "bob"); string(got) != c.want || found != c.found {
			t.Errorf("%q: %q, %v", c.text, got, found)
		}
	}
}

func TestWorldReadable_SeesTheMode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such mode")
	}
	path := filepath.Join(t.TempDir(), "passwords")
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o604: true} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if got := WorldReadable(path); got != want {
			t.Errorf("%o: %v", mode, got)
		}
	}
	if WorldReadable(path + "-not-there") {
		t.Error("a file that is not there")
	}
}

// RFC 4013 section 3, and what RFC 5802 asks of passwords.
func TestPrepare_RFC4013(t *testing.T) {
	for in, want := range map[string]string{
		"I\u00adX": "IX", "user": "user", "USER": "USER", "\u00aa": "a", "\u2168": "IX",
		"pass word": "pass word", "a\u00a0b": "a b", "a\u3000b\u200b": "a b ", "u\u0308": "ü", "\u0627\u0031\u0628": "\u0627\u0031\u0628",
	} {
		if got, err := Prepare(in); got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"\u0007", "\u0627\u0031", "\u0627a\u0628", "a\xff", "\u00ad", "x\ue000", "x\ufffd", "x\u200e", "x\ufdd0", "x\U0001fffe", "x\U000e0001", "x\u0085", "\x7f"} {
		if got, err := Prepare(in); err == nil {
			t.Errorf("%q: %q", in, got)
		}
	}
	if entry, err := NewScram("alice", "a\u0007", 4096); err == nil {
		t.Errorf("%q", entry)
	}
}

func BenchmarkPasswords_Default(b *testing.B) {
	text, err := NewPassword("alice", "secret")
	if err != nil {
		b.Fatal(err)
	}
	p := mustPasswords(b, text)
	for b.Loop() {
		p.users["alice"].quick.Store(nil)
		if _, err := p.Authenticate(context.Background(), login("alice", "secret")); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzPasswords(f *testing.F) {
	f.Add([]byte(aliceByMosquitto+"\n# c\n"), "alice", "bob:x")
	f.Add([]byte(bobByMosquitto+"\n"+carolByArgon2), "carol", "bob:x")
	f.Fuzz(func(t *testing.T, text []byte, user, entry string) {
		p, err := ParsePasswords("passwords", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "passwords:") {
				t.Fatalf("no place in %q", err)
			}
			return
		}
		if checkUser(user) != nil {
			return
		}
		_, known := p.users[user]
		rest, found := RemoveEntry(text, user)
		if found != known {
			t.Fatalf("%q is known: %v, removed: %v", user, known, found)
		}
		q, err := ParsePasswords("rest", rest)
		if err != nil || q.users[user] != nil || found && len(q.users) != len(p.users)-1 {
			t.Fatalf("%v", err)
		}
		_, secret, _ := strings.Cut(aliceByMosquitto, ":")
		q, err = ParsePasswords("set", SetEntry(text, user+":"+secret))
		if err != nil || q.users[user] == nil {
			t.Fatalf("%v", err)
		}
	})
}
