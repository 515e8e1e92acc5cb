package clients

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"hashplus/cmd/hashplus/launch"
)

// issuer signs tokens.
type issuer struct {
	id     string // kid
	key    ed25519.PrivateKey
	issued *issuedTokens
}

// issuedTokens are all that a test had made: none may stand in a log.
type issuedTokens struct {
	mu   sync.Mutex
	list []string
}

func newIssuer(t *testing.T, id string) *issuer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{id: id, key: key, issued: &issuedTokens{}}
}

// token is one for user, with more claims.
func (i *issuer) token(t *testing.T, user string, lasts time.Duration, more ...jwt.MapClaims) string {
	t.Helper()
	claims := jwt.MapClaims{"sub": user, "exp": time.Now().Add(lasts).Unix()}
	for _, m := range more {
		maps.Copy(claims, m)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	token.Header["kid"] = i.id
	text, err := token.SignedString(i.key)
	if err != nil {
		t.Fatal(err)
	}
	i.issued.mu.Lock()
	defer i.issued.mu.Unlock()
	i.issued.list = append(i.issued.list, text)
	return text
}

// pem is a file with the public key.
func (i *issuer) pem(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(i.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return file(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
}

// webKey is the public key as a JSON Web Key.
func (i *issuer) webKey() string {
	x := base64.RawURLEncoding.EncodeToString(i.key.Public().(ed25519.PublicKey))
	return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":%q,"x":%q}`, i.id, x)
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// noSecretsIn wants that the log of b has none of the tokens, nor a piece of
// their signatures, and none of the other secrets.
func noSecretsIn(t *testing.T, b *broker, tokens *issuedTokens, others ...string) {
	t.Helper()
	log := b.Log.String()
	tokens.mu.Lock()
	defer tokens.mu.Unlock()
	for _, token := range tokens.list {
		parts := strings.Split(token, ".")
		others = append(others, parts[1][:16], parts[2][:16])
	}
	for _, secret := range others {
		if strings.Contains(log, secret) {
			t.Errorf("the log shows the secret %.20s…", secret)
		}
	}
}

// passwords is a password file that hashplus passwd made.
func passwords(t *testing.T, users map[string]string, options ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "passwords")
	for user, password := range users {
		addUser(t, path, user, password, options...)
	}
	return path
}

func addUser(t *testing.T, path, user, password string, options ...string) {
	t.Helper()
	passwd := launch.Command(binary, append(append([]string{"passwd"}, options...), path, user)...)
	passwd.Stdin = strings.NewReader(password + "\n")
	if out, err := passwd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// canLogin filters the libraries that know setup.login.
func canLogin(k kind) bool {
	return slices.Contains([]string{"paho.mqtt.golang", "autopaho", "MQTT.js", "MQTT.js-browser"}, k.name) && k.version != v31
}

func isBrowser(k kind) bool { return strings.HasSuffix(k.name, "-browser") }

// urlOf is where b listens for the kind.
func (b *broker) urlOf(k kind) string {
	if k.scheme == "mqtt" {
		return b.tcp
	}
	return b.ws
}

// tries reports whether a client with s is let in.
func (k kind) tries(t *testing.T, s setup) error {
	t.Helper()
	s.Version, s.ClientID, s.KeepAlive = k.version, room(t), 30
	c := k.client(t, s)
	_, err := c.connect()
	t.Cleanup(func() { c.disconnect() }) // may be gone already
	return err
}

func TestLogin_ByPasswordAndByToken(t *testing.T) {
	needHashplus(t)
	i := newIssuer(t, "one")
	file := passwords(t, map[string]string{"alice": "correct horse"})
	addUser(t, file, "bob", "battery staple", "--pbkdf2", "--iterations", "1000")
	b := startFor(t, "--ws", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--password-file", file, "--jwt-keys", i.pem(t),
		"--jwt-from", "password,header,query,subprotocol", "--log-level", "debug")
	t.Run("clients", func(t *testing.T) {
		eachKind(t, func(t *testing.T, k kind) {
			at := b.urlOf(k)
			token, expired := i.token(t, "carol", time.Hour), i.token(t, "carol", -time.Hour)
			stranger := newIssuer(t, "one").token(t, "carol", time.Hour)
			type attempt struct {
				name  string
				login login
				url   string
				ok    bool
			}
			attempts := []attempt{
				{"a password", login{Username: "alice", Password: "correct horse"}, at, true},
				{"an older hash", login{Username: "bob", Password: "battery staple"}, at, true},
				{"a wrong password", login{Username: "alice", Password: "correct"}, at, false},
				{"an unknown user", login{Username: "mallory", Password: "correct horse"}, at, false},
				{"nothing", login{}, at, false},
				{"a token", login{Username: "ignored", Password: token}, at, true},
				{"an expired token", login{Username: "ignored", Password: expired}, at, false},
				{"a stranger's token", login{Username: "ignored", Password: stranger}, at, false},
			}
			if k.scheme == "ws" {
				attempts = append(attempts,
					attempt{"?token=", login{}, at + "?token=" + token, true},
					attempt{"?token= that has expired", login{}, at + "?token=" + expired, false})
			}
			if k.scheme == "ws" && !isBrowser(k) {
				attempts = append(attempts,
					attempt{"Authorization", login{Bearer: token}, at, true},
					attempt{"Authorization that has expired", login{Bearer: expired}, at, false})
			}
			if isBrowser(k) {
				attempts = append(attempts,
					attempt{"a sub-protocol", login{Subprotocol: "bearer." + token}, at, true},
					attempt{"a sub-protocol that has expired", login{Subprotocol: "bearer." + expired}, at, false})
			}
			if k.version == v5 {
				attempts = append(attempts,
					attempt{"AUTH", login{Renewable: true, Token: token}, at, true},
					attempt{"AUTH with an expired one", login{Renewable: true, Token: expired}, at, false})
			}
			for _, a := range attempts {
				if err := k.tries(t, setup{URL: a.url, login: a.login}); (err == nil) != a.ok {
					t.Errorf("%s: %v", a.name, err)
				}
			}
		}, canLogin)
	})
	noSecretsIn(t, b, i.issued, "correct horse", "battery staple")
}

func TestLogin_TheConnectionEndsWithTheTokenUnlessItIsRenewed(t *testing.T) {
	needHashplus(t)
	i := newIssuer(t, "one")
	b := startFor(t, "--ws", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--jwt-keys", i.pem(t), "--jwt-clock-skew", "0s")
	eachKind(t, func(t *testing.T, k kind) {
		const lasts = 10 * time.Second // in which a client must be let in and have another token
		ends, _ := k.dial(t, setup{URL: b.urlOf(k), login: login{Username: "x", Password: i.token(t, "alice", lasts)}})
		if k.version != v5 {
			ends.inbox().awaitDown(t, 1)
			return
		}
		kept := []client{}
		for range 2 { // from both kinds of token
			token := i.token(t, "alice", lasts)
			s := setup{URL: b.urlOf(k), login: login{Renewable: true, Token: token}}
			if len(kept) == 1 { // the method alone in CONNECT, the token elsewhere
				s.login = login{Renewable: true, Username: "x", Password: token}
			}
			c, _ := k.dial(t, s)
			if err := c.(interface{ renew(string) error }).renew(i.token(t, "alice", time.Hour)); err != nil {
				t.Fatal(err)
			}
			kept = append(kept, c)
		}
		over := time.Now().Add(lasts)
		ends.inbox().awaitDown(t, 1)
		if got := ends.inbox().awaitReasons(t); !slices.Equal(got[:min(1, len(got))], []int{0x87}) {
			t.Errorf("told %#x", got)
		}
		time.Sleep(time.Until(over.Add(time.Second)))
		for _, c := range kept {
			in := room(t)
			mustSubscribe(t, c, subscription{Filter: in, QoS: 1})
			mustPublish(t, c, text(in, 1, "still here"))
			if got := payloads(c.inbox().take(t, 1)); got != "still here" || c.inbox().lost() != 0 {
				t.Errorf("%q, lost %d times", got, c.inbox().lost())
			}
		}
	}, canLogin)
}

func TestLogin_TheWebSocketEndsWithTheToken(t *testing.T) {
	needHashplus(t)
	t.Parallel()
	i := newIssuer(t, "one")
	b := startFor(t, "--ws", "127.0.0.1:0", "--jwt-keys", i.pem(t), "--jwt-clock-skew", "0s", "--jwt-from", "subprotocol")
	d, page := openPage(t, "localhost")
	connect := []byte{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 1, 'c'} // 3.1.1, which has no DISCONNECT for it
	var got dialed
	how := map[string]any{"page": page, "url": b.ws, "protocols": []string{"mqtt", "bearer." + i.token(t, "alice", 10*time.Second)},
		"name": room(t), "packet": base64.StdEncoding.EncodeToString(connect)}
	if err := d.call("", "dial", how, &got); err != nil {
		t.Fatal(err)
	}
	if !got.Opened || got.Protocol != "mqtt" || got.Code != 1008 || got.Reason != "" && !strings.Contains(got.Reason, "expired") {
		t.Errorf("%+v", got)
	}
}

// keys is a server of a JSON Web Key Set that changes.
type keys struct {
	*httptest.Server
	mu   sync.Mutex
	text string
}

func (k *keys) publish(issuers ...*issuer) {
	var list []string
	for _, i := range issuers {
		list = append(list, i.webKey())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.text = `{"keys":[` + strings.Join(list, ",") + `]}`
}

func newKeys(t *testing.T) *keys {
	k := &keys{}
	k.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		k.mu.Lock()
		defer k.mu.Unlock()
		io.WriteString(w, k.text)
	}))
	t.Cleanup(k.Close)
	return k
}

func TestLogin_TheKeysRotate(t *testing.T) {
	needHashplus(t)
	t.Parallel()
	old, next := newIssuer(t, "old"), newIssuer(t, "next")
	server := newKeys(t)
	server.publish(old)
	b := startFor(t, "--ws", "127.0.0.1:0", "--jwt-jwks-url", server.URL+"/keys", "--jwt-jwks-refresh", "1s", "--log-level", "debug")
	k := kind{libraries()[0], v311, "ws"}
	tries := func(i *issuer) error {
		return k.tries(t, setup{URL: b.ws, login: login{Username: "x", Password: i.token(t, "alice", time.Hour)}})
	}
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(patience); !ok(); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	if err := tries(old); err != nil {
		t.Fatal(err)
	}
	if tries(next) == nil {
		t.Fatal("a key that is not published is trusted")
	}
	live, _ := k.dial(t, setup{URL: b.ws, login: login{Username: "x", Password: old.token(t, "alice", time.Hour)}})
	server.publish(old, next)
	eventually("the new key is not found", func() bool { return tries(next) == nil })
	if err := tries(old); err != nil {
		t.Errorf("the old key, which is still published: %v", err)
	}
	server.publish(next)
	eventually("the old key is trusted for ever", func() bool { return tries(old) != nil })
	server.Close()
	time.Sleep(1500 * time.Millisecond)
	if err := tries(next); err != nil {
		t.Errorf("while the server is down: %v", err)
	}
	if live.inbox().lost() != 0 {
		t.Error("a connection ended with the key of its token")
	}
	noSecretsIn(t, b, &issuedTokens{list: append(old.issued.list, next.issued.list...)})
}

func TestLogin_ByCallback(t *testing.T) {
	needHashplus(t)
	t.Parallel()
	var mu sync.Mutex
	answer := func(w http.ResponseWriter, body string) {
		if strings.Contains(body, `"username":"alice","password":"correct horse"`) {
			io.WriteString(w, `{"result":"allow","publish":["in/#"],"subscribe":["in/#"]}`)
			return
		}
		io.WriteString(w, `{"result":"deny"}`)
	}
	var last string
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		f := answer
		last = string(body)
		mu.Unlock()
		f(w, string(body))
	}))
	defer server.Close()
	defer close(release)
	b := startFor(t, "--ws", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--auth-http-url", server.URL+"/mqtt", "--auth-http-timeout", "5s",
		"--auth-http-cache", "0s", "--auth-http-cache-refused", "0s", "--log-level", "debug")
	for _, l := range libraries() {
		for _, scheme := range l.schemes {
			k := kind{l, l.versions[len(l.versions)-1], scheme}
			if !canLogin(k) {
				continue
			}
			c, _ := k.dial(t, setup{URL: b.urlOf(k), login: login{Username: "alice", Password: "correct horse"}})
			if granted, err := c.subscribe(subscription{Filter: "out"}); err == nil && granted < 0x80 {
				t.Errorf("%v: subscribed to what the answer does not list", k)
			}
			if err := k.tries(t, setup{URL: b.urlOf(k), login: login{Username: "alice", Password: "wrong"}}); err == nil {
				t.Errorf("%v: let in with a wrong password", k)
			}
		}
	}
	u, err := url.Parse(b.ws)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if !strings.Contains(last, `"address":"127.0.0.1","listener":"ws://`+u.Host) || !strings.Contains(last, `"path":"/mqtt"`) {
		t.Errorf("asked %s", last)
	}
	mu.Unlock()
	k := kind{libraries()[0], v311, "ws"}
	tries := func() error {
		return k.tries(t, setup{URL: b.ws, login: login{Username: "alice", Password: "correct horse"}})
	}
	for name, broken := range map[string]func(w http.ResponseWriter, body string){
		"garbage": func(w http.ResponseWriter, _ string) { io.WriteString(w, "allow") },
		"500":     func(w http.ResponseWriter, _ string) { w.WriteHeader(500); io.WriteString(w, `{"result":"allow"}`) },
		"slow":    func(http.ResponseWriter, string) { <-release },
	} {
		mu.Lock()
		good := answer
		answer = broken
		mu.Unlock()
		if tries() == nil {
			t.Errorf("%s: let in", name)
		}
		mu.Lock()
		answer = good
		mu.Unlock()
		if err := tries(); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
	server.Listener.Close() // down, but for connections that are there
	server.CloseClientConnections()
	if tries() == nil {
		t.Error("let in while the server is down")
	}
	noSecretsIn(t, b, &issuedTokens{}, "correct horse")
}

func TestLogin_ReloadBringsNewUsersAndKeepsOldOnesOut(t *testing.T) {
	needHashplus(t)
	t.Parallel()
	file := passwords(t, map[string]string{"alice": "a", "bob": "b"})
	b := startFor(t, "--ws", "127.0.0.1:0", "--password-file", file)
	k := kind{libraries()[0], v311, "ws"}
	tries := func(user, password string) bool {
		return k.tries(t, setup{URL: b.ws, login: login{Username: user, Password: password}}) == nil
	}
	reload := func(want string) {
		t.Helper()
		before := len(b.Log.String())
		if err := b.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(patience); !strings.Contains(b.Log.String()[before:], want); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the log does not say %q: %s", want, b.Log.String()[before:])
			}
		}
	}
	if !tries("alice", "a") || !tries("bob", "b") || tries("carol", "c") {
		t.Fatal("before")
	}
	addUser(t, file, "carol", "c")
	addUser(t, file, "alice", "new")
	if out, err := launch.Command(binary, "passwd", "-D", file, "bob").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	reload("msg=reloaded")
	if !tries("carol", "c") || !tries("alice", "new") || tries("alice", "a") || tries("bob", "b") {
		t.Error("the new file is not in force")
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(good, "nonsense\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	reload("password-file: ")
	if !tries("carol", "c") || !tries("alice", "new") {
		t.Error("a faulty file has replaced the good one")
	}
}
