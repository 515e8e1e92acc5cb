package vulnerabilities

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hashplus/bench/codec"
)

// part is a part of a token: JSON, or bytes as they are.
func part(v any) string {
	b, ok := v.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(v); err != nil {
			panic(err) // the test's own maps
		}
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

type claims map[string]any

// lasting are claims of alice for d from now.
func lasting(d time.Duration) claims {
	return claims{"sub": "alice", "exp": time.Now().Add(d).Unix()}
}

// token is one that sign signs.
func token(header, c claims, sign func(text []byte) []byte) string {
	text := part(header) + "." + part(c)
	return text + "." + part(sign([]byte(text)))
}

func hs256(secret []byte) func([]byte) []byte {
	return func(text []byte) []byte {
		m := hmac.New(sha256.New, secret)
		m.Write(text)
		return m.Sum(nil)
	}
}

func rs256(key *rsa.PrivateKey) func([]byte) []byte {
	return func(text []byte) []byte {
		sum := sha256.Sum256(text)
		s, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			panic(err) // a key of the test's own
		}
		return s
	}
}

func es256(key *ecdsa.PrivateKey) func([]byte) []byte {
	return func(text []byte) []byte {
		sum := sha256.Sum256(text)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			panic(err) // a key of the test's own
		}
		b := make([]byte, 64)
		r.FillBytes(b[:32])
		s.FillBytes(b[32:])
		return b
	}
}

func publicPEM(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// keys are those that a broker takes tokens of.
type keys struct {
	rsa     *rsa.PrivateKey
	ec      *ecdsa.PrivateKey
	ed      ed25519.PrivateKey
	pem     string // of the public ones
	rsaPEM  string
	options []string
}

func newKeys(t *testing.T) *keys {
	t.Helper()
	k := new(keys)
	var err error
	if k.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if k.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, k.ed, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	k.rsaPEM = publicPEM(t, k.rsa.Public())
	k.pem = k.rsaPEM + publicPEM(t, k.ec.Public()) + publicPEM(t, k.ed.Public())
	k.options = []string{"--jwt-keys=" + file(t, k.pem), "--jwt-clock-skew=1s"}
	return k
}

// admits reports whether a token lets its bearer in.
func (b *broker) admits(token string) bool {
	b.t.Helper()
	c := b.dial()
	defer c.drop()
	return c.knock(who{user: "alice", password: token}) == 0
}

// Libraries and brokers took tokens whose header said that they are not signed
// (CVE-2015-9235), or signed with HS256 and a secret that was the public key
// (CVE-2016-5431), or by a key that the token brought along (CVE-2018-0114).
func TestCVE_2015_9235_TokenChoosesItsAlgorithm(t *testing.T) {
	t.Parallel()
	k := newKeys(t)
	b := serve(t, k.options...)
	good := lasting(time.Minute)
	none := func([]byte) []byte { return nil }
	signEd := func(text []byte) []byte { return ed25519.Sign(k.ed, text) }
	for name, test := range map[string]string{
		"RS256": token(claims{"alg": "RS256", "typ": "JWT"}, good, rs256(k.rsa)),
		"ES256": token(claims{"alg": "ES256"}, good, es256(k.ec)),
		"EdDSA": token(claims{"alg": "EdDSA"}, good, signEd),
	} {
		if !b.admits(test) {
			t.Errorf("a good %s token is refused", name)
		}
	}
	thief, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	exponent := big.NewInt(int64(thief.E)).Bytes()
	jwk := claims{"kty": "RSA", "n": part(thief.N.Bytes()), "e": part(exponent)}
	rightly := token(claims{"alg": "RS256"}, good, rs256(k.rsa))
	head, rest, _ := strings.Cut(rightly, ".")
	body, signature, _ := strings.Cut(rest, ".")
	for name, test := range map[string]string{
		"none":                        token(claims{"alg": "none"}, good, none),
		"None":                        token(claims{"alg": "None"}, good, none),
		"no algorithm":                token(claims{"typ": "JWT"}, good, none),
		"empty algorithm":             token(claims{"alg": ""}, good, none),
		"none with a good signature":  part(claims{"alg": "none"}) + "." + body + "." + signature,
		"HS256 with the public key":   token(claims{"alg": "HS256"}, good, hs256([]byte(k.rsaPEM))),
		"HS256 with the file of keys": token(claims{"alg": "HS256"}, good, hs256([]byte(k.pem))),
		"HS256 with an empty secret":  token(claims{"alg": "HS256"}, good, hs256(nil)),
		"ES256 with the RSA key":      token(claims{"alg": "ES256"}, good, rs256(k.rsa)),
		"RS384":                       token(claims{"alg": "RS384"}, good, rs256(k.rsa)),
		"another key":                 token(claims{"alg": "RS256"}, good, rs256(thief)),
		"a key in the token":          token(claims{"alg": "RS256", "jwk": jwk}, good, rs256(thief)),
		"a key at an address":         token(claims{"alg": "RS256", "jku": "http://127.0.0.1:1/keys"}, good, rs256(thief)),
		"a key file":                  token(claims{"alg": "HS256", "kid": "/dev/null"}, good, hs256(nil)),
		"other claims":                head + "." + part(claims{"sub": "root", "exp": good["exp"]}) + "." + signature,
		"no signature":                head + "." + body + ".",
		"two parts":                   head + "." + body,
		"four parts":                  rightly + ".x",
		"an ES256 signature of zeros": token(claims{"alg": "ES256"}, good, func([]byte) []byte { return make([]byte, 64) }),
		"an ES256 signature in DER": token(claims{"alg": "ES256"}, good, func(text []byte) []byte {
			s := sha256.Sum256(text)
			d, _ := ecdsa.SignASN1(rand.Reader, k.ec, s[:])
			return d
		}),
		"an unknown critical extension": token(claims{"alg": "RS256", "crit": []string{"b64"}, "b64": false}, good, rs256(k.rsa)),
		"a signature with a space":      rightly + " ",
		"an empty password":             "\x00",
	} {
		if b.admits(test) {
			t.Errorf("a token with %s is taken", name)
		}
	}
}

// arena-web-core #862: a token was taken again and again after its end.
func TestArena862_TokenAfterItsEnd(t *testing.T) {
	t.Parallel()
	k := newKeys(t)
	b := serve(t, append(k.options, "--jwt-issuer=me", "--jwt-audience=broker")...)
	now := time.Now()
	sign := func(c claims) string { return token(claims{"alg": "RS256"}, c, rs256(k.rsa)) }
	claimed := func(change func(claims)) string {
		c := claims{"sub": "alice", "iss": "me", "aud": "broker", "exp": now.Add(time.Minute).Unix()}
		change(c)
		return sign(c)
	}
	if !b.admits(claimed(func(claims) {})) {
		t.Error("a good token is refused")
	}
	for name, change := range map[string]func(claims){
		"an end that is over":        func(c claims) { c["exp"] = now.Add(-3 * time.Second).Unix() },
		"no end":                     func(c claims) { delete(c, "exp") },
		"an end that is no number":   func(c claims) { c["exp"] = "tomorrow" },
		"an end of null":             func(c claims) { c["exp"] = nil },
		"an end below 0":             func(c claims) { c["exp"] = -1 },
		"an end of 0":                func(c claims) { c["exp"] = 0 },
		"a beginning that is to be":  func(c claims) { c["nbf"] = now.Add(time.Minute).Unix() },
		"another issuer":             func(c claims) { c["iss"] = "somebody" },
		"no issuer":                  func(c claims) { delete(c, "iss") },
		"another audience":           func(c claims) { c["aud"] = []string{"shop", "mail"} },
		"no audience":                func(c claims) { delete(c, "aud") },
		"an audience like the right": func(c claims) { c["aud"] = "broker.example" },
		"another client identifier":  func(c claims) { c["clientid"] = "not this one" },
	} {
		if b.admits(claimed(change)) {
			t.Errorf("a token with %s is taken", name)
		}
	}
	short := claimed(func(c claims) { c["exp"] = time.Now().Add(5 * time.Second).Unix() })
	if !b.admits(short) {
		t.Error("a short token is refused")
	}
	time.Sleep(7500 * time.Millisecond)
	if b.admits(short) {
		t.Error("a token is taken after its end")
	}
}

// RabbitMQ #2922: a connection went on when its token had ended.
func TestRabbitMQ2922_ConnectionOutlivesItsToken(t *testing.T) {
	t.Parallel()
	k := newKeys(t)
	b := serve(t, k.options...)
	for _, web := range []bool{false, true} {
		c := b.dial()
		if web {
			c = b.dialWS("")
		}
		c.join(who{user: "alice", password: token(claims{"alg": "RS256"}, lasting(5*time.Second), rs256(k.rsa))})
		c.subscribe("t", 0)
		if reason := c.ended(); reason != 0x87 {
			t.Errorf("it ended with %#02x", reason)
		}
		if web && c.closed != 1008 {
			t.Errorf("the WebSocket closed with %d", c.closed)
		}
	}
}

// A token that names a key that nobody knows has the keys fetched anew: whoever
// sends many of them must not make the broker flood the server that has the keys.
func TestJWKS_UnknownKeysDoNotFloodItsServer(t *testing.T) {
	t.Parallel()
	var fetched atomic.Int64
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		_, _ = w.Write([]byte(`{"keys":[]}`)) // the broker may have gone
	}))
	defer keys.Close()
	k := newKeys(t)
	b := serve(t, append(k.options, "--jwt-jwks-url="+keys.URL)...)
	began := time.Now()
	for i := range 300 {
		if b.admits(token(claims{"alg": "RS256", "kid": fmt.Sprint("key-", i)}, lasting(time.Minute), es256(k.ec))) {
			t.Fatal("it is taken")
		}
	}
	took := time.Since(began)
	t.Logf("300 tokens of unknown keys in %v: %d fetches", took, fetched.Load())
	if n := fetched.Load(); n > 5+int64(took/time.Second) {
		t.Errorf("the keys were fetched %d times in %v", n, took)
	}
}

// Mosquitto, EMQX and others have written passwords or tokens into their logs.
func TestSecrets_StayOutOfTheLog(t *testing.T) {
	t.Parallel()
	k := newKeys(t)
	b := serve(t, append(k.options, "--password-file="+passwords(t, "alice", "bob"), "--log-level=debug",
		"--jwt-from=password,header,query,subprotocol,cookie=session", "--ws-origins=http://localhost")...)
	good := token(claims{"alg": "RS256"}, lasting(time.Minute), rs256(k.rsa))
	bad := token(claims{"alg": "RS256"}, lasting(-time.Minute), rs256(k.rsa))
	const secret = "correct-horse-battery"
	for _, password := range []string{secret, good, bad, "bob"} {
		for _, v3 := range []bool{false, true} {
			c := b.dial()
			_ = c.knock(who{v3: v3, user: "bob", password: password}) // whatever it says
			c.send([]byte{0xff, 0xff, 0xff, 0xff, 0xff})              // is logged
			c.ended()
		}
	}
	for _, tok := range []string{good, bad, secret} {
		for _, request := range []string{
			strings.Replace(handshake, "/mqtt", "/mqtt?token="+tok, 1),
			strings.Replace(handshake, "/mqtt", "/other?token="+tok, 1),
			handshake + "Authorization: Bearer " + tok + "\r\n",
			handshake + "Cookie: session=" + tok + "\r\nOrigin: http://localhost\r\n",
			handshake + "Cookie: session=" + tok + "\r\nOrigin: http://elsewhere\r\n",
			strings.Replace(handshake, "Protocol: mqtt", "Protocol: mqtt, bearer."+tok, 1),
			strings.Replace(handshake, "13", "7", 1) + "Authorization: Bearer " + tok + "\r\n",
			strings.Replace(handshake, "HTTP/1.1", "HTTP/1.1?token="+tok, 1),
			strings.Replace(handshake, "GET /mqtt", "POST /mqtt?token="+tok, 1),
		} {
			c := b.over(b.ws)
			c.write([]byte(request + "\r\n"))
			c.write(codec.AppendFrame(nil, codec.OpBinary, 1, who{id: "x", user: "bob", password: tok}.connect()))
			c.write(codec.AppendFrame(nil, codec.OpBinary, 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff}))
			c.deadline(300 * time.Millisecond)
			_, _ = io.Copy(io.Discard, c.in) // whatever it says
			c.drop()
		}
	}
	log := b.Log.String()
	if len(log) < 1000 {
		t.Errorf("the log says too little for this test:\n%s", log)
	}
	for name, secret := range map[string]string{
		"a password": secret, "a token": good[len(good)-40:], "a token that is over": bad[len(bad)-40:], "claims of a token": strings.Split(good, ".")[1],
	} {
		if strings.Contains(log, secret) {
			t.Errorf("%s stands in the log:\n%s", name, log)
		}
	}
}
