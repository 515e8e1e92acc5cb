package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"hashplus/broker"
	"hashplus/broker/wire"
)

// signer makes tokens of one algorithm.
type signer struct {
	method jwt.SigningMethod
	secret any
	public any
}

// signers are made once: RSA keys take time.
var signers = sync.OnceValue(func() map[string]signer {
	must := func(k any, err error) any {
		if err != nil {
			panic(err)
		}
		return k
	}
	r := must(rsa.GenerateKey(rand.Reader, 2048)).(*rsa.PrivateKey)
	e := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).(*ecdsa.PrivateKey)
	_, d, _ := ed25519.GenerateKey(rand.Reader)
	hmac := []byte("a secret of thirty-two bytes: 32")
	return map[string]signer{
		"RS256": {jwt.SigningMethodRS256, r, &r.PublicKey},
		"ES256": {jwt.SigningMethodES256, e, &e.PublicKey},
		"EdDSA": {jwt.SigningMethodEdDSA, d, d.Public()},
		"HS256": {jwt.SigningMethodHS256, hmac, hmac},
	}
})

// key is the one that verifies what s signs.
func (s signer) key(t testing.TB, id string) key {
	t.Helper()
	if b, ok := s.public.([]byte); ok {
		return key{id, "HS256", b, sha256.Sum256(b)}
	}
	k, err := newKey(id, s.public)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// pem is the public key of s.
func (s signer) pem(t testing.TB) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(s.public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// now is the time in the tests of tokens.
var now = time.Unix(1_800_000_000, 0)

func seconds(d time.Duration) int64 { return now.Add(d).Unix() }

// valid are the claims of a token that is taken, with some of them changed; nil
// removes one.
func valid(changes ...map[string]any) map[string]any {
	c := map[string]any{"sub": "alice", "exp": seconds(time.Minute), "iss": "us", "aud": "mqtt"}
	for _, more := range changes {
		maps.Copy(c, more)
	}
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

type m = map[string]any

// sign makes a token; header adds to what is usual, nil removes.
func (s signer) sign(t testing.TB, claims, header map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(s.method, jwt.MapClaims(claims))
	for k, v := range header {
		if v == nil {
			delete(token.Header, k)
		} else {
			token.Header[k] = v
		}
	}
	text, err := token.SignedString(s.secret)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// signParts signs a header and claims that no library would make.
func (s signer) signParts(t testing.TB, header, claims string) string {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	text := b64([]byte(header)) + "." + b64([]byte(claims))
	signature, err := s.method.Sign(text, s.secret)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(signature)
}

// newTestJWT takes tokens of every algorithm.
func newTestJWT(t testing.TB, change ...func(*JWTOptions)) *JWT {
	t.Helper()
	o := JWTOptions{Issuer: "us", Audiences: []string{"other", "mqtt"}, Skew: 10 * time.Second, now: func() time.Time { return now }}
	var keys Keys
	for _, s := range signers() {
		keys = append(keys, s.key(t, ""))
	}
	o.Keys = []KeySource{keys}
	for _, f := range change {
		f(&o)
	}
	return NewJWT(o)
}

// refusesToken wants token refused for a reason that has want in it, and of
// which no part is the token's.
func refusesToken(t *testing.T, j *JWT, name, token, want string) {
	t.Helper()
	g, err := j.verify(context.Background(), token, "c", inAuth)
	if err == nil {
		t.Errorf("%s: taken", name)
		return
	}
	if g.Username != "" || g.Data != nil || !g.ExpiresAt.IsZero() {
		t.Errorf("%s: refused with a grant: %+v", name, g)
	}
	if reasonOf(err) != wire.NotAuthorized || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", name, err, want)
	}
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 8 && strings.Contains(err.Error(), part[:8]) {
			t.Errorf("%s: the error shows the token: %v", name, err)
		}
	}
	if strings.Contains(err.Error(), "alice") {
		t.Errorf("%s: the error shows a claim: %v", name, err)
	}
}

func TestJWT_TakesEveryAlgorithm(t *testing.T) {
	j := newTestJWT(t)
	for alg, s := range signers() {
		g, err := j.verify(context.Background(), s.sign(t, valid(), nil), "c", inAuth)
		want := broker.Grant{Username: "alice", ExpiresAt: now.Add(70 * time.Second)}
		if err != nil || !g.ExpiresAt.Equal(want.ExpiresAt) || g.Username != want.Username || g.Data != nil {
			t.Errorf("%s: %+v, %v", alg, g, err)
		}
		last := s.sign(t, valid(), nil)
		tampered := last[:len(last)-4] + "AAAA"
		refusesToken(t, j, alg+", another signature", tampered, "signature")
		parts := strings.Split(last, ".")
		other := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"root","exp":1900000000,"iss":"us","aud":"mqtt"}`))
		refusesToken(t, j, alg+", other claims", parts[0]+"."+other+"."+parts[2], "signature")
		refusesToken(t, j, alg+", no signature", parts[0]+"."+parts[1]+".", "signature")
	}
}

// The instances are those of the literature on JWT: RFC 8725 section 2.1 and
// what libraries had CVEs for.
func TestJWT_TheAlgorithmIsTheKeys(t *testing.T) {
	s := signers()
	rsaOnly := newTestJWT(t, func(o *JWTOptions) { o.Keys = []KeySource{Keys{s["RS256"].key(t, "")}} })
	// The public key's text, and its bytes, as a secret.
	der, err := x509.MarshalPKIXPublicKey(s["RS256"].public)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string][]byte{
		"PEM": []byte(s["RS256"].pem(t)), "PEM without the line break": []byte(strings.TrimSpace(s["RS256"].pem(t))),
		"DER": der, "empty": {},
	} {
		forged := signer{jwt.SigningMethodHS256, secret, nil}
		for _, j := range []*JWT{rsaOnly, newTestJWT(t)} {
			if name != "empty" || j == rsaOnly {
				_, err := j.verify(context.Background(), forged.sign(t, valid(), nil), "c", inAuth)
				if err == nil {
					t.Errorf("a token of HS256 with the public key, %s, was taken", name)
				}
			}
		}
	}
	b64 := base64.RawURLEncoding.EncodeToString
	claims, err := json.Marshal(valid())
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		token := b64(fmt.Appendf(nil, `{"alg":%q}`, alg)) + "." + b64(claims) + "."
		refusesToken(t, newTestJWT(t), "alg "+alg, token, "token: ")
		refusesToken(t, newTestJWT(t), "alg "+alg+" with a signature", token+b64([]byte("x")), "token: ")
	}
	r := s["RS256"].secret
	for _, other := range []jwt.SigningMethod{jwt.SigningMethodRS384, jwt.SigningMethodRS512, jwt.SigningMethodPS256} {
		refusesToken(t, newTestJWT(t), other.Alg(), signer{other, r, nil}.sign(t, valid(), nil), "token: ")
	}
	for _, size := range []jwt.SigningMethod{jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
		refusesToken(t, newTestJWT(t), size.Alg(), signer{size, s["HS256"].secret, nil}.sign(t, valid(), nil), "token: ")
	}
	for name, header := range map[string]string{
		"no alg": `{"typ":"JWT"}`, "alg is a number": `{"alg":1}`, "alg is a list": `{"alg":["RS256"]}`, "alg is null": `{"alg":null}`,
		"lower case": `{"alg":"rs256"}`, "with a space": `{"alg":"RS256 "}`, "another key's": `{"alg":"ES256"}`,
	} {
		refusesToken(t, newTestJWT(t), name, s["RS256"].signParts(t, header, string(claims)), "token: ")
	}
	// A key is not taken for one of another algorithm, whatever the token says.
	for have, a := range s {
		only := newTestJWT(t, func(o *JWTOptions) { o.Keys = []KeySource{Keys{a.key(t, "")}} })
		for signs, b := range s {
			_, err := only.verify(context.Background(), b.sign(t, valid(), nil), "c", inAuth)
			if (err == nil) != (have == signs) {
				t.Errorf("a key for %s, a token of %s: %v", have, signs, err)
			}
		}
	}
}

func TestJWT_TheKidPicksTheKey(t *testing.T) {
	one, two := signers()["ES256"], signers()["EdDSA"]
	second, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other := signer{jwt.SigningMethodES256, second, &second.PublicKey}
	j := newTestJWT(t, func(o *JWTOptions) {
		o.Keys = []KeySource{Keys{one.key(t, "one"), other.key(t, "two")}, Keys{two.key(t, "")}}
	})
	for _, tc := range []struct {
		name string
		s    signer
		kid  any
		ok   bool
	}{
		{"its own", one, "one", true}, {"its own", other, "two", true}, {"none", one, nil, true}, {"none", other, nil, true},
		{"the other's", one, "two", false}, {"the other's", other, "one", false}, {"an unknown one", one, "three", false},
		{"an empty one", one, "", true}, {"of a key without", two, "whatever", true},
		{"a path", one, "../../dev/null", false}, {"SQL", one, "x' UNION SELECT 'a", false}, {"NUL", one, "one\x00", false},
		{"a number", one, 1, false}, {"a list", one, []string{"one"}, false}, {"an object", one, m{"one": 1}, false}, {"true", one, true, false},
	} {
		if _, err := j.verify(context.Background(), tc.s.sign(t, valid(), m{"kid": tc.kid}), "c", inAuth); (err == nil) != tc.ok {
			t.Errorf("kid %s: %v", tc.name, err)
		}
	}
	null := one.signParts(t, `{"alg":"ES256","kid":null}`, `{"sub":"alice","exp":1800000060,"iss":"us","aud":"mqtt"}`)
	refusesToken(t, j, "kid null", null, "can't be verified")
}

// Keys that the token brings itself are nobody's.
func TestJWT_HeadersThatNameKeysAreNotRead(t *testing.T) {
	_, private, _ := ed25519.GenerateKey(rand.Reader)
	forger := signer{jwt.SigningMethodEdDSA, private, nil}
	x := base64.RawURLEncoding.EncodeToString(private.Public().(ed25519.PublicKey))
	for name, header := range map[string]m{
		"jwk": {"jwk": m{"kty": "OKP", "crv": "Ed25519", "x": x}},
		"jku": {"jku": "http://127.0.0.1:1/keys"}, "x5u": {"x5u": "http://127.0.0.1:1/cert"}, "x5c": {"x5c": []string{"AAAA"}},
	} {
		refusesToken(t, newTestJWT(t), name, forger.sign(t, valid(), header), "signature")
	}
	refusesToken(t, newTestJWT(t), "crit", signers()["EdDSA"].sign(t, valid(), m{"crit": []string{"exp"}}), "can't be verified")
	refusesToken(t, newTestJWT(t), "b64", signers()["EdDSA"].sign(t, valid(), m{"b64": false, "crit": []string{"b64"}}), "can't be verified")
}

func TestJWT_TimesAndSkew(t *testing.T) {
	s := signers()["EdDSA"]
	for _, tc := range []struct {
		name   string
		claims m
		fault  string // "" if it is taken
	}{
		{"ends in a second", m{"exp": seconds(time.Second)}, ""},
		{"ended within the skew", m{"exp": seconds(-9 * time.Second)}, ""},
		{"ended before", m{"exp": seconds(-11 * time.Second)}, "expired"},
		{"ended long ago", m{"exp": 1}, "expired"},
		{"no exp", m{"exp": nil}, "required"},
		{"exp is 0", m{"exp": 0}, "token: "},
		{"exp is 0.0", m{"exp": 0.0}, "token: "},
		{"exp is negative", m{"exp": -5}, "expired"},
		{"exp is text", m{"exp": "1900000000"}, "wrong type"},
		{"exp is a list", m{"exp": []int{1900000000}}, "wrong type"},
		{"exp is true", m{"exp": true}, "wrong type"},
		{"exp is too large", m{"exp": 1e18}, "exp"},
		{"exp overflows", m{"exp": 1e300}, "token: "},
		{"exp is a fraction", m{"exp": float64(seconds(time.Second)) + 0.5}, ""},
		{"the year 9999", m{"exp": endOfTime}, ""},
		{"began", m{"nbf": seconds(-time.Hour)}, ""},
		{"begins within the skew", m{"nbf": seconds(9 * time.Second)}, ""},
		{"begins later", m{"nbf": seconds(11 * time.Second)}, "not valid yet"},
		{"nbf is text", m{"nbf": "1"}, "wrong type"},
		{"nbf overflows", m{"nbf": 1e300}, "token: "},
		{"made later", m{"iat": seconds(time.Hour)}, ""}, // RFC 7519 section 4.1.6 has no rule for it
	} {
		token := s.sign(t, valid(tc.claims), nil)
		if tc.fault != "" {
			refusesToken(t, newTestJWT(t), tc.name, token, tc.fault)
		} else if _, err := newTestJWT(t).verify(context.Background(), token, "c", inAuth); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	everlasting := newTestJWT(t, func(o *JWTOptions) { o.Everlasting = true })
	if g, err := everlasting.verify(context.Background(), s.sign(t, valid(m{"exp": nil}), nil), "c", inAuth); err != nil || !g.ExpiresAt.IsZero() {
		t.Errorf("without exp: %+v, %v", g, err)
	}
	for name, exp := range map[string]any{"0": 0, "null": json.RawMessage("null"), "-1": -1, "in the past": seconds(-time.Hour)} {
		refusesToken(t, everlasting, "everlasting, exp "+name, s.sign(t, valid(m{"exp": exp}), nil), "token: ")
	}
	refusesToken(t, newTestJWT(t), "1e999", s.signParts(t, `{"alg":"EdDSA"}`, `{"sub":"alice","exp":1e999,"iss":"us","aud":"mqtt"}`), "not a JWT")
}

func TestJWT_IssuerAndAudience(t *testing.T) {
	s := signers()["EdDSA"]
	for _, tc := range []struct {
		name   string
		claims m
		fault  string
	}{
		{"another issuer", m{"iss": "them"}, "issuer"}, {"no issuer", m{"iss": nil}, "required"}, {"a prefix", m{"iss": "u"}, "issuer"},
		{"in other letters", m{"iss": "US"}, "issuer"}, {"a list", m{"iss": []string{"us"}}, "wrong type"},
		{"another audience", m{"aud": "web"}, "audience"}, {"no audience", m{"aud": nil}, "required"}, {"an empty one", m{"aud": ""}, "token: "},
		{"none of them", m{"aud": []string{"web", "mail"}}, "audience"}, {"an empty list", m{"aud": []string{}}, "required"},
		{"one of them", m{"aud": []string{"web", "mqtt"}}, ""}, {"the other", m{"aud": "other"}, ""}, {"a number", m{"aud": 1}, "token: "},
	} {
		token := s.sign(t, valid(tc.claims), nil)
		if tc.fault != "" {
			refusesToken(t, newTestJWT(t), tc.name, token, tc.fault)
		} else if _, err := newTestJWT(t).verify(context.Background(), token, "c", inAuth); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	lax := newTestJWT(t, func(o *JWTOptions) { o.Issuer, o.Audiences = "", nil })
	if _, err := lax.verify(context.Background(), s.sign(t, valid(m{"iss": nil, "aud": nil}), nil), "c", inAuth); err != nil {
		t.Error(err)
	}
}

// sameClaims reports whether data are Claims with the lists of want, or none
// where want is nil.
func sameClaims(data any, want *Claims) bool {
	got, ok := data.(*Claims)
	if !ok || want == nil {
		return data == nil && want == nil
	}
	return reflect.DeepEqual(got.Publish, want.Publish) && reflect.DeepEqual(got.Subscribe, want.Subscribe)
}

func TestJWT_ClaimsGiveNameAndPermissions(t *testing.T) {
	s := signers()["EdDSA"]
	for _, tc := range []struct {
		name   string
		claims m
		want   *Claims
		fault  string
	}{
		{"none", m{}, nil, ""},
		{"both", m{"publish": []string{"a/+"}, "subscribe": []string{"b/#", "c"}}, &Claims{Publish: []string{"a/+"}, Subscribe: []string{"b/#", "c"}}, ""},
		{"one", m{"publish": []string{"a"}}, &Claims{Publish: []string{"a"}}, ""},
		{"an empty one", m{"subscribe": []string{}}, &Claims{Subscribe: []string{}}, ""},
		{"text", m{"publish": "a"}, nil, "not a list"},
		{"null", m{"publish": json.RawMessage("null")}, nil, "not a list"},
		{"a number in it", m{"subscribe": []any{"a", 1}}, nil, "not a list"},
		{"not a filter", m{"subscribe": []string{"a#"}}, nil, "not valid"},
		{"a share group", m{"subscribe": []string{"$share/g/a"}}, nil, "share group"},
		{"too many", m{"publish": make([]string, 300)}, nil, "300 filters"},
		{"no name", m{"sub": nil}, nil, "names no user"},
		{"an empty name", m{"sub": ""}, nil, "not a username"},
		{"a number as name", m{"sub": 7}, nil, "not a username"},
		{"U+0000 in the name", m{"sub": "a\x00b"}, nil, "can't have"},
		{"a long name", m{"sub": strings.Repeat("a", 1025)}, nil, "1024"},
		{"the client's identifier", m{"clientid": "c"}, nil, ""},
		{"another identifier", m{"clientid": "d"}, nil, "identifier"},
		{"a list of identifiers", m{"clientid": []string{"c"}}, nil, "identifier"},
		{"an empty identifier", m{"clientid": ""}, nil, "identifier"},
		{"OAuth's client", m{"client_id": "app"}, nil, ""},
	} {
		token := s.sign(t, valid(tc.claims), nil)
		if tc.fault != "" {
			refusesToken(t, newTestJWT(t), tc.name, token, tc.fault)
			continue
		}
		g, err := newTestJWT(t).verify(context.Background(), token, "c", inAuth)
		if err != nil || g.Username != "alice" || !sameClaims(g.Data, tc.want) {
			t.Errorf("%s: %+v %+v, %v", tc.name, g, g.Data, err)
		}
	}
	named := newTestJWT(t, func(o *JWTOptions) {
		o.UsernameClaim, o.ClientIDClaim, o.PublishClaim, o.SubscribeClaim = "https://x/user", "device", "pub", "sub_"
	})
	claims := m{"https://x/user": "bob", "device": "c", "pub": []string{"p"}, "sub_": []string{"s"}, "publish": []string{"#"}, "clientid": "d"}
	g, err := named.verify(context.Background(), s.sign(t, valid(claims), nil), "c", inAuth)
	if err != nil || g.Username != "bob" || !sameClaims(g.Data, &Claims{Publish: []string{"p"}, Subscribe: []string{"s"}}) {
		t.Errorf("%+v %+v, %v", g, g.Data, err)
	}
}

func TestJWT_RefusesWhatIsReadInMoreThanOneWay(t *testing.T) {
	s := signers()["EdDSA"]
	const header, claims = `{"alg":"EdDSA"}`, `{"sub":"alice","exp":1800000060,"iss":"us","aud":"mqtt"}`
	good := s.signParts(t, header, claims)
	if _, err := newTestJWT(t).verify(context.Background(), good, "c", inAuth); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"sub twice":               s.signParts(t, header, `{"sub":"alice","sub":"root","exp":1800000060,"iss":"us","aud":"mqtt"}`),
		"exp twice":               s.signParts(t, header, `{"exp":1,"sub":"alice","exp":1800000060,"iss":"us","aud":"mqtt"}`),
		"escaped twice":           s.signParts(t, header, `{"sub":"alice","\u0073ub":"root","exp":1800000060,"iss":"us","aud":"mqtt"}`),
		"alg twice":               s.signParts(t, `{"alg":"none","alg":"EdDSA"}`, claims),
		"a list":                  s.signParts(t, header, `[`+claims+`]`),
		"null":                    s.signParts(t, header, `null`),
		"two objects":             s.signParts(t, header, claims+claims),
		"cut off":                 s.signParts(t, header, claims[:len(claims)-1]),
		"a header in pieces":      s.signParts(t, `{"alg":"EdDSA"`, claims),
		"padding":                 good + "==",
		"a fourth part":           good + ".AAAA",
		"a line break":            good + "\n",
		"a space before":          " " + good,
		"nothing":                 "",
		"dots":                    "..",
		"four dots":               "....",
		"Bearer":                  "Bearer " + good,
		"JSON in place of it":     `{"payload":"` + good + `"}`,
		"a JWE":                   good + ".AAAA.AAAA",
		"bytes that are no UTF-8": "\xff\xfe." + good,
	} {
		refusesToken(t, newTestJWT(t), name, token, "token: ")
	}
	// The last letter of the signature has bits that mean nothing.
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(letters, good[len(good)-1])
	refusesToken(t, newTestJWT(t), "other bits at the end", good[:len(good)-1]+letters[last+1:last+2], "token: ")
	for name, token := range map[string]string{
		"a long claim":   s.sign(t, valid(m{"x": strings.Repeat("x", maxTokenSize)}), nil),
		"a long header":  s.sign(t, valid(), m{"x": strings.Repeat("x", maxTokenSize)}),
		"only letters":   strings.Repeat("a", 1<<20),
		"only dots":      strings.Repeat(".", 1<<20),
		"nested deeply":  s.signParts(t, header, strings.Repeat(`{"a":`, 5000)+"1"+strings.Repeat("}", 5000)),
		"many dots":      good + strings.Repeat(".a", maxTokenSize/4),
		"a deep header":  s.signParts(t, strings.Repeat("[", 8000), claims),
		"many members":   s.signParts(t, header, "{"+strings.Repeat(`"a":1,`, 1500)+`"b":1}`),
		"a large number": s.signParts(t, header, `{"exp":`+strings.Repeat("9", 5000)+`}`),
	} {
		refusesToken(t, newTestJWT(t), name, token, "token: ")
	}
}

func TestJWT_Exchange(t *testing.T) {
	s := signers()["EdDSA"]
	source, err := ParseTokenSource("password")
	if err != nil {
		t.Fatal(err)
	}
	j := newTestJWT(t, func(o *JWTOptions) { o.Sources = []TokenSource{source} })
	token := s.sign(t, valid(), nil)
	if j.Method() != "JWT" {
		t.Errorf("method %q", j.Method())
	}
	reply, done, g, err := j.Begin(&broker.AuthRequest{ClientID: "c"}).Next(context.Background(), []byte(token))
	if reply != nil || !done || g.Username != "alice" || err != nil {
		t.Errorf("%q, %v, %+v, %v", reply, done, g, err)
	}
	_, done, g, err = j.Begin(login("x", token)).Next(context.Background(), nil)
	if !done || g.Username != "alice" || err != nil {
		t.Errorf("without data, a token as the password: %v, %+v, %v", done, g, err)
	}
	for name, r := range map[string]*broker.AuthRequest{"nothing": {ClientID: "c"}, "a password": login("x", "secret")} {
		if _, done, _, err := j.Begin(r).Next(context.Background(), nil); done || reasonOf(err) != wire.NotAuthorized {
			t.Errorf("%s: %v, %v", name, done, err)
		}
	}
	if _, done, _, err := j.Begin(login("x", token)).Next(context.Background(), []byte("nonsense")); done || reasonOf(err) != wire.NotAuthorized {
		t.Errorf("data that are no token, beside a password that is: %v, %v", done, err)
	}
}

func TestLoadKeys_ReadsPEMAndKeySets(t *testing.T) {
	var all strings.Builder
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		all.WriteString("a comment\n" + signers()[alg].pem(t))
	}
	keys, err := parsePublicKeys([]byte(all.String()))
	if err != nil || len(keys) != 3 || keys[0].alg != "RS256" || keys[1].alg != "ES256" || keys[2].alg != "EdDSA" {
		t.Errorf("%v, %v", keys, err)
	}
	r := signers()["RS256"].public.(*rsa.PublicKey)
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(r)}))
	if keys, err := parsePublicKeys([]byte(pkcs1)); err != nil || len(keys) != 1 || keys[0].alg != "RS256" {
		t.Errorf("%v, %v", keys, err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(signers()["EdDSA"].secret)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                                      "neither PEM",
		"hello":                                 "neither PEM",
		signer{public: &small.PublicKey}.pem(t): "1024 bits",
		signer{public: &p384.PublicKey}.pem(t):  "P-384",
		signers()["EdDSA"].pem(t) + signer{public: &p384.PublicKey}.pem(t):              "key 2:",
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})):     "not a public key",
		string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})):  "key 1:",
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})): "key 1:",
		strings.Repeat(signers()["EdDSA"].pem(t), maxKeys+1):                            "more than 100 keys",
		`{"keys":[]}`:                       "no key",
		`{"keys":[{"kty":"oct","k":"AA"}]}`: "a secret",
		`{"a":1}`:                           "not a JSON Web Key Set",
	} {
		if keys, err := parsePublicKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %d keys, %v; want %q", text, len(keys), err, want)
		}
	}
}

func TestLoadSecret_TakesNothingThatIsNone(t *testing.T) {
	secret := strings.Repeat("s", 32)
	for text, ok := range map[string]bool{
		secret: true, secret + "\n": true, secret + "\r\n": true, secret + "\n\n": true, strings.Repeat("\x00\xff", 16): true,
		secret[1:]: false, "": false, strings.Repeat("\n", 40): false, `{"keys":[{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAA"}]}`: false,
		signers()["RS256"].pem(t): false, signers()["EdDSA"].pem(t): false, "# comment\n" + signers()["ES256"].pem(t): false,
	} {
		keys, err := parseSecret([]byte(text))
		if (err == nil) != ok {
			t.Errorf("%.40q: %v", text, err)
		}
		if ok && len(text) < 40 && string(keys[0].material.([]byte)) != secret && text[0] == 's' {
			t.Errorf("%q: %q", text, keys[0].material)
		}
		if err != nil && len(text) > 8 && strings.Contains(err.Error(), text[:8]) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

// webKeyOf is the JSON Web Key of a public key.
func webKeyOf(t testing.TB, public crypto.PublicKey, more m) m {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	w := m{"use": "sig"}
	switch k := public.(type) {
	case *rsa.PublicKey:
		w["kty"], w["n"], w["e"] = "RSA", b64(k.N.Bytes()), "AQAB"
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		w["kty"], w["crv"], w["x"], w["y"] = "EC", k.Curve.Params().Name, b64(point[1:33]), b64(point[33:65])
	case ed25519.PublicKey:
		w["kty"], w["crv"], w["x"] = "OKP", "Ed25519", b64(k)
	}
	maps.Copy(w, more)
	maps.DeleteFunc(w, func(_ string, v any) bool { return v == nil })
	return w
}

func keySetOf(t testing.TB, keys ...m) string {
	t.Helper()
	b, err := json.Marshal(m{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParseJWKS_LeavesOutWhatIsNotForUs(t *testing.T) {
	s := signers()
	for _, tc := range []struct {
		name string
		key  m
		alg  string // "" if it is left out
	}{
		{"RSA", webKeyOf(t, s["RS256"].public, m{"kid": "k"}), "RS256"},
		{"RSA with its alg", webKeyOf(t, s["RS256"].public, m{"alg": "RS256", "use": nil}), "RS256"},
		{"RSA for RS512", webKeyOf(t, s["RS256"].public, m{"alg": "RS512"}), ""},
		{"RSA for HS256", webKeyOf(t, s["RS256"].public, m{"alg": "HS256"}), ""},
		{"RSA for none", webKeyOf(t, s["RS256"].public, m{"alg": "none"}), ""},
		{"RSA for encryption", webKeyOf(t, s["RS256"].public, m{"use": "enc"}), ""},
		{"RSA with operations", webKeyOf(t, s["RS256"].public, m{"key_ops": []string{"verify"}}), "RS256"},
		{"RSA with others", webKeyOf(t, s["RS256"].public, m{"key_ops": []string{"encrypt"}}), ""},
		{"RSA, exponent 1", webKeyOf(t, s["RS256"].public, m{"e": "AQ"}), ""},
		{"RSA, exponent 2", webKeyOf(t, s["RS256"].public, m{"e": "Ag"}), ""},
		{"RSA, a large exponent", webKeyOf(t, s["RS256"].public, m{"e": strings.Repeat("_", 20)}), ""},
		{"RSA, no exponent", webKeyOf(t, s["RS256"].public, m{"e": nil}), ""},
		{"RSA, a short modulus", webKeyOf(t, s["RS256"].public, m{"n": "AQAB"}), ""},
		{"RSA, padded", webKeyOf(t, s["RS256"].public, m{"e": "AQAB=="}), ""},
		{"P-256", webKeyOf(t, s["ES256"].public, nil), "ES256"},
		{"P-256 for RS256", webKeyOf(t, s["ES256"].public, m{"alg": "RS256"}), ""},
		{"P-256 that is P-384", webKeyOf(t, s["ES256"].public, m{"crv": "P-384"}), ""},
		{"not on the curve", webKeyOf(t, s["ES256"].public, m{"y": base64.RawURLEncoding.EncodeToString(make([]byte, 32))}), ""},
		{"a short coordinate", webKeyOf(t, s["ES256"].public, m{"x": "AQ"}), ""},
		{"Ed25519", webKeyOf(t, s["EdDSA"].public, m{"alg": "EdDSA"}), "EdDSA"},
		{"Ed25519 by its new name", webKeyOf(t, s["EdDSA"].public, m{"alg": "Ed25519"}), "EdDSA"},
		{"Ed448", webKeyOf(t, s["EdDSA"].public, m{"crv": "Ed448"}), ""},
		{"X25519", webKeyOf(t, s["EdDSA"].public, m{"crv": "X25519"}), ""},
		{"Ed25519, short", webKeyOf(t, s["EdDSA"].public, m{"x": "AQ"}), ""},
		{"a secret", m{"kty": "oct", "k": strings.Repeat("A", 60), "alg": "HS256"}, ""},
		{"of no type", m{"x": "AQ"}, ""},
		{"kid is a number", webKeyOf(t, s["EdDSA"].public, m{"kid": 1}), ""},
	} {
		// The good one behind it is there in any case.
		keys, faults, err := parseJWKS([]byte(keySetOf(t, tc.key, webKeyOf(t, s["EdDSA"].public, m{"kid": "last"}))))
		want := 1
		if tc.alg != "" {
			want = 2
		}
		if err != nil || len(keys) != want || len(faults) != 2-want || keys[len(keys)-1].id != "last" || tc.alg != "" && keys[0].alg != tc.alg {
			t.Errorf("%s: %d keys, %v, %v", tc.name, len(keys), faults, err)
		}
	}
	for _, text := range []string{"", "null", "[]", "{}", `{"keys":null}`, `{"keys":1}`, `{"keys":[`, keySetOf(t, make([]m, maxKeys+1)...)} {
		if keys, _, err := parseJWKS([]byte(text)); err == nil {
			t.Errorf("%.40q: %v", text, keys)
		}
	}
	if keys, faults, err := parseJWKS([]byte(`{"keys":[1,null,"x",[]]}`)); err != nil || len(keys) != 0 || len(faults) != 4 {
		t.Errorf("%v, %v, %v", keys, faults, err)
	}
}

func TestJWT_FaultsAreInOurWords(t *testing.T) {
	// What the library says of a token may quote it.
	if got := faultOf(fmt.Errorf("x %w", errors.Join(jwt.ErrTokenMalformed, errors.New("eyJhbGciOi")))); strings.Contains(got.Error(), "eyJ") {
		t.Error(got)
	}
}
