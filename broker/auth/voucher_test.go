package auth

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"hashplus/broker"
	"hashplus/transport/link"
)

// letIn returns what a method's consent to r rests on.
func letIn(t *testing.T, a broker.Authenticator, r *broker.AuthRequest) any {
	t.Helper()
	g, err := a.Authenticate(context.Background(), r)
	if err != nil || g.Grounds == nil {
		t.Fatalf("grounds %v, %v", g.Grounds, err)
	}
	return g.Grounds
}

// A consent holds as long as the entry of the file is the same: another password,
// the same one hashed anew, and no entry at all are not.
func TestPasswords_StandByWhomTheyHaveTheSameEntryOf(t *testing.T) {
	entry := func(user, password string) string {
		e, err := NewPBKDF2Password(user, password, 1)
		if err != nil {
			t.Fatal(err)
		}
		return e + "\n"
	}
	parse := func(text string) *Passwords {
		p, err := ParsePasswords("p", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	kept := entry("alice", "a")
	old := parse(kept + entry("bob", "b") + entry("carol", "c"))
	grounds := map[string]any{}
	for user, password := range map[string]string{"alice": "a", "bob": "b", "carol": "c"} {
		grounds[user] = letIn(t, old, login(user, password))
		if again := letIn(t, old, login(user, password)); again != grounds[user] { // by the quick hash
			t.Errorf("%s: other grounds the second time", user)
		}
	}
	next := parse("# a comment\n" + entry("bob", "b") + kept + entry("dave", "d"))
	next.Inherit(old)
	for _, p := range []*Passwords{next, parse(kept)} { // the second has inherited nothing
		for user, want := range map[string]bool{"alice": true, "bob": false, "carol": false} {
			if mine, holds := p.Holds(user, grounds[user]); !mine || holds != want {
				t.Errorf("%s: mine %t, holds %t", user, mine, holds)
			}
		}
	}
	if mine, _ := next.Holds("alice", Certificate{}); mine {
		t.Error("the grounds of another method are theirs")
	}
	letIn(t, next, login("alice", "a"))
}

func TestScram_StandsByWhomItHasTheSameVerifierOf(t *testing.T) {
	s := oneUser(t, "alice", "secret")
	_, g, err := alice().run(s)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		s    *Scram
		want bool
	}{
		"itself": {s, true}, "another salt": {oneUser(t, "alice", "secret"), false}, "another user": {oneUser(t, "bob", "secret"), false},
	} {
		if mine, holds := tc.s.Holds("alice", g.Grounds); !mine || holds != tc.want {
			t.Errorf("%s: mine %t, holds %t", name, mine, holds)
		}
	}
}

func TestCallback_StandsByWhatTheSameServerHasSaid(t *testing.T) {
	s, other := newAuthServer(t, answers(`{"result":"allow"}`)), newAuthServer(t, answers(`{"result":"deny"}`))
	grounds := letIn(t, newTestCallback(t, s.URL), login("alice", "x"))
	for url, want := range map[string]bool{s.URL: true, other.URL: false} {
		c := newTestCallback(t, url, func(o *CallbackOptions) { o.Timeout = 2 * time.Second })
		if mine, holds := c.Holds("alice", grounds); !mine || holds != want {
			t.Errorf("mine %t, holds %t", mine, holds)
		}
	}
	if len(other.asked()) > 0 {
		t.Error("a server was asked")
	}
}

func TestJWT_StandsByTokensThatWouldPassNow(t *testing.T) {
	ours, other := signers()["ES256"], signers()["EdDSA"]
	ask := func(claims m) *broker.AuthRequest { return login("", ours.sign(t, claims, nil)) }
	only := func(s signer) func(*JWTOptions) {
		return func(o *JWTOptions) { o.Keys = []KeySource{Keys{s.key(t, "renamed")}} }
	}
	for name, tc := range map[string]struct {
		change func(*JWTOptions)
		holds  bool
	}{
		"nothing has changed":       {func(*JWTOptions) {}, true},
		"other keys are gone":       {only(ours), true},
		"its key is gone":           {only(other), false},
		"keys are to come":          {func(o *JWTOptions) { o.Keys = []KeySource{Keys{}} }, true},
		"another issuer":            {func(o *JWTOptions) { o.Issuer = "them" }, false},
		"any issuer":                {func(o *JWTOptions) { o.Issuer = "" }, true},
		"its audience is gone":      {func(o *JWTOptions) { o.Audiences = []string{"other", "third"} }, false},
		"other audiences are gone":  {func(o *JWTOptions) { o.Audiences = []string{"mqtt"} }, true},
		"its place is switched off": {func(o *JWTOptions) { o.Sources = []TokenSource{{place: inHeader}} }, false},
		"another name":              {func(o *JWTOptions) { o.UsernameClaim = "name" }, false},
		"other permissions":         {func(o *JWTOptions) { o.PublishClaim = "pub" }, false},
		"more skew":                 {func(o *JWTOptions) { o.Skew = time.Hour }, true},
	} {
		fromPassword := func(o *JWTOptions) { o.Sources = []TokenSource{{place: inPassword}} }
		grounds := letIn(t, newTestJWT(t, fromPassword), ask(valid()))
		if mine, holds := newTestJWT(t, fromPassword, tc.change).Holds("alice", grounds); !mine || holds != tc.holds {
			t.Errorf("%s: mine %t, holds %t", name, mine, holds)
		}
	}
	forever := func(o *JWTOptions) { o.Everlasting, o.Sources = true, []TokenSource{{place: inPassword}} }
	grounds := letIn(t, newTestJWT(t, forever), ask(valid(m{"exp": nil})))
	if _, holds := newTestJWT(t, forever).Holds("alice", grounds); !holds {
		t.Error("a token without an end")
	}
	if _, holds := newTestJWT(t, forever, func(o *JWTOptions) { o.Everlasting = false }).Holds("alice", grounds); holds {
		t.Error("a token without an end, where they need one")
	}
	// What came by AUTH came from no place that can be switched off.
	g, err := newTestJWT(t).verify(context.Background(), ours.sign(t, valid(), nil), "c", inAuth)
	if err != nil {
		t.Fatal(err)
	}
	if _, holds := newTestJWT(t).Holds("alice", g.Grounds); !holds {
		t.Error("a token that came by AUTH")
	}
}

// Of several keys of one algorithm it is the one that signed which counts.
func TestJWT_KnowsWhichKeySigned(t *testing.T) {
	s := signers()["HS256"]
	secrets := []string{strings.Repeat("a", 32), strings.Repeat("b", 32), strings.Repeat("c", 32)}
	all := Keys{}
	for _, secret := range secrets {
		k, err := parseSecret([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, k...)
	}
	for i, secret := range secrets {
		token := signer{s.method, []byte(secret), nil}.sign(t, valid(), nil)
		g, err := newTestJWT(t, func(o *JWTOptions) { o.Keys = []KeySource{all} }).verify(context.Background(), token, "c", inAuth)
		if err != nil {
			t.Fatal(err)
		}
		for k := range secrets {
			_, holds := newTestJWT(t, func(o *JWTOptions) { o.Keys = []KeySource{all[k : k+1]} }).Holds("alice", g.Grounds)
			if holds != (i == k) {
				t.Errorf("signed by %d, with key %d only: %t", i, k, holds)
			}
		}
	}
}

// Keys that a server publishes count as known until they have been had, and who
// waits is told when they are.
func TestKeyURL_TellsWhenTheKeysAreHad(t *testing.T) {
	one, two := signers()["ES256"], signers()["EdDSA"]
	server := newKeyServer(t, httptest.NewServer)
	server.publish(keySetOf(t, webKeyOf(t, one.public, m{"kid": "one"})))
	u, _ := startKeyURL(t, server.URL, "", 0)
	j := newTestJWT(t, func(o *JWTOptions) { o.Keys = []KeySource{u} })
	g, err := j.verify(context.Background(), one.sign(t, valid(), m{"kid": "one"}), "c", inAuth)
	if err != nil {
		t.Fatal(err)
	}
	server.publish(keySetOf(t, webKeyOf(t, two.public, m{"kid": "two"})))
	if _, holds := j.Holds("alice", g.Grounds); !holds {
		t.Error("the key is gone before it was looked at")
	}
	got := make(chan struct{})
	u.Refresh(func() { close(got) })
	<-got
	if _, holds := j.Holds("alice", g.Grounds); holds {
		t.Error("a key that is gone counts")
	}
}

func TestChain_HoldsWhatOneOfItsMethodsStandsBy(t *testing.T) {
	certificate := &broker.AuthRequest{Info: &link.Info{TLS: &link.TLS{Certificate: &link.Certificate{Username: "dev"}}}}
	entry, err := NewPBKDF2Password("alice", "a", 1)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePasswords("p", []byte(entry))
	if err != nil {
		t.Fatal(err)
	}
	s := oneUser(t, "alice", "secret")
	_, byScram, err := alice().run(s)
	if err != nil {
		t.Fatal(err)
	}
	byPassword, byCertificate := letIn(t, p, login("alice", "a")), letIn(t, Certificate{}, certificate)
	with := func(c *Chain, v Voucher) *Chain { c.Vouch(v); return c }
	asked := 0
	for name, tc := range map[string]struct {
		chain *Chain
		holds [4]bool // by password, certificate, SCRAM; nobody
	}{
		"all":          {with(NewChain(true, Certificate{}, p), s), [4]bool{true, true, true, true}},
		"passwords":    {NewChain(false, p), [4]bool{true, false, false, false}},
		"certificates": {NewChain(false, Certificate{}), [4]bool{false, true, false, false}},
		"SCRAM":        {with(NewChain(false), s), [4]bool{false, false, true, false}},
		"nothing":      {NewChain(true), [4]bool{false, false, false, true}},
		// Who says nothing of what was said on no grounds is not spoken for.
		"a stranger": {NewChain(false, fixed{asked: &asked}), [4]bool{false, false, false, true}},
	} {
		for i, c := range []struct {
			user    string
			grounds any
		}{{"alice", byPassword}, {"dev", byCertificate}, {"alice", byScram.Grounds}, {"", nil}} {
			if got := tc.chain.Holds(c.user, c.grounds); got != tc.holds[i] {
				t.Errorf("%s: %d: %t", name, i, got)
			}
		}
	}
}
