package auth

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hashplus/broker"
	"hashplus/broker/wire"
)

// keyServer publishes what a test gives it.
type keyServer struct {
	*httptest.Server
	asked atomic.Int32

	mu     sync.Mutex
	answer func(w http.ResponseWriter)
}

func (s *keyServer) set(answer func(w http.ResponseWriter)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *keyServer) publish(text string) {
	s.set(func(w http.ResponseWriter) { _, _ = io.WriteString(w, text) })
}

func newKeyServer(t *testing.T, start func(http.Handler) *httptest.Server) *keyServer {
	s := &keyServer{}
	s.Server = start(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.asked.Add(1)
		s.mu.Lock()
		answer := s.answer
		s.mu.Unlock()
		answer(w)
	}))
	t.Cleanup(s.Close)
	return s
}

// syncBuffer is a log that a test reads while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func startKeyURL(t *testing.T, url, roots string, interval time.Duration) (*KeyURL, *syncBuffer) {
	t.Helper()
	log := &syncBuffer{}
	u, err := NewKeyURL(url, roots, interval, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	u.Start(nil)
	t.Cleanup(u.Close)
	return u, log
}

func TestKeyURL_FollowsTheServer(t *testing.T) {
	one, two := signers()["ES256"], signers()["EdDSA"]
	server := newKeyServer(t, httptest.NewServer)
	server.publish(keySetOf(t, webKeyOf(t, one.public, m{"kid": "one"})))
	u, _ := startKeyURL(t, server.URL, "", 0)
	j := newTestJWT(t, func(o *JWTOptions) { o.Keys = []KeySource{u} })
	takes := func(s signer, kid string) bool {
		_, err := j.verify(context.Background(), s.sign(t, valid(), m{"kid": kid}), "c", inAuth)
		return err == nil
	}
	if !takes(one, "one") {
		t.Fatal("a token of the published key is refused")
	}
	for range 20 { // the set is asked for once, however many keys nobody knows are named
		if takes(two, "two") {
			t.Fatal("a token of a key that is not published is taken")
		}
	}
	if n := server.asked.Load(); n != 1 {
		t.Errorf("the server was asked %d times", n)
	}
	server.publish(keySetOf(t, webKeyOf(t, one.public, m{"kid": "one"}), webKeyOf(t, two.public, m{"kid": "two"})))
	u.mu.Lock()
	u.asked = u.asked.Add(-leastBetween) // as if that had passed
	u.mu.Unlock()
	if !takes(two, "two") || !takes(one, "one") {
		t.Fatal("a key that was added is not known")
	}
	if n := server.asked.Load(); n != 2 {
		t.Errorf("the server was asked %d times", n)
	}
	// A key that is taken back lets nobody in once it is noticed.
	server.publish(keySetOf(t, webKeyOf(t, two.public, m{"kid": "two"})))
	<-u.refresh(0)
	if takes(one, "one") || !takes(two, "two") {
		t.Error("a key that was removed is still known, or another forgotten")
	}
}

func TestKeyURL_AsksAgainByItself(t *testing.T) {
	server := newKeyServer(t, httptest.NewServer)
	server.publish(keySetOf(t, webKeyOf(t, signers()["EdDSA"].public, nil)))
	startKeyURL(t, server.URL, "", 5*time.Millisecond)
	for end := time.Now().Add(patience); server.asked.Load() < 5; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("asked %d times", server.asked.Load())
		}
	}
}

func TestKeyURL_KeepsTheKeysWhileTheServerFails(t *testing.T) {
	s := signers()["EdDSA"]
	server := newKeyServer(t, httptest.NewServer)
	good := keySetOf(t, webKeyOf(t, s.public, nil))
	server.publish(good)
	u, log := startKeyURL(t, server.URL+"/keys?secret=hidden", "", 0)
	if len(u.find(context.Background(), "", "EdDSA")) != 1 {
		t.Fatal("no key")
	}
	for name, answer := range map[string]func(w http.ResponseWriter){
		"500":      func(w http.ResponseWriter) { w.WriteHeader(500); _, _ = io.WriteString(w, good) },
		"204":      func(w http.ResponseWriter) { w.WriteHeader(204) },
		"redirect": func(w http.ResponseWriter) { w.Header().Set("Location", "/other"); w.WriteHeader(302) },
		"nothing":  func(http.ResponseWriter) {},
		"HTML":     func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") },
		"useless":  func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"keys":[{"kty":"oct","k":"AAAA"}]}`) },
		"endless":  func(w http.ResponseWriter) { _, _ = io.WriteString(w, strings.Repeat(" ", maxKeyFileSize)+good) },
		"cut off":  func(w http.ResponseWriter) { w.Header().Set("Content-Length", "9999"); _, _ = io.WriteString(w, good) },
	} {
		server.set(answer)
		<-u.refresh(0)
		if !u.isFailing() || len(u.find(context.Background(), "", "EdDSA")) != 1 {
			t.Errorf("%s: failing: %v", name, u.isFailing())
		}
	}
	if text := log.String(); strings.Count(text, "level=ERROR") != 1 || strings.Contains(text, "hidden") {
		t.Errorf("it is not told once, without the query: %s", text)
	}
	server.publish(good)
	<-u.refresh(0)
	if u.isFailing() || !strings.Contains(log.String(), "got the keys") {
		t.Error("it does not recover")
	}
}

// A server that takes all keys back has answered.
func TestKeyURL_AnEmptySetShutsOutEveryToken(t *testing.T) {
	s := signers()["EdDSA"]
	server := newKeyServer(t, httptest.NewServer)
	server.publish(keySetOf(t, webKeyOf(t, s.public, nil)))
	u, log := startKeyURL(t, server.URL, "", 0)
	j := newTestJWT(t, func(o *JWTOptions) { o.Keys = []KeySource{u} })
	token := s.sign(t, valid(), nil)
	if _, err := j.verify(context.Background(), token, "c", inAuth); err != nil {
		t.Fatal(err)
	}
	server.publish(`{"keys":[]}`)
	<-u.refresh(0)
	if _, err := j.verify(context.Background(), token, "c", inAuth); err == nil || u.isFailing() {
		t.Errorf("%v, failing: %v", err, u.isFailing())
	}
	if !strings.Contains(log.String(), "the set of keys is empty now") {
		t.Errorf("the log says %s", log)
	}
}

func TestKeyURL_WithoutAnyKeysTheServerIsUnavailable(t *testing.T) {
	server := newKeyServer(t, httptest.NewServer)
	server.set(func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) })
	u, _ := startKeyURL(t, server.URL, "", 0)
	j := newTestJWT(t, func(o *JWTOptions) { o.Keys = []KeySource{u} })
	token := signers()["EdDSA"].sign(t, valid(), nil)
	if _, err := j.verify(context.Background(), token, "c", inAuth); reasonOf(err) != wire.ServerUnavailable {
		t.Errorf("%v", err)
	}
	server.publish(keySetOf(t, webKeyOf(t, signers()["ES256"].public, m{"kid": "other"})))
	<-u.refresh(0)
	refusesToken(t, j, "a key that is not in the set", token, "no key")
}

func TestKeyURL_WaitsNoLongerThanTheClientMay(t *testing.T) {
	release := make(chan struct{})
	server := newKeyServer(t, httptest.NewServer)
	server.set(func(http.ResponseWriter) { <-release })
	defer close(release)
	u, _ := startKeyURL(t, server.URL, "", 0)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if found := u.find(ctx, "k", "EdDSA"); found != nil {
		t.Error(found)
	}
	if found := u.find(context.Background(), "k", "HS256"); found != nil { // has nothing to wait for
		t.Error(found)
	}
}

func TestKeyURL_HoldsTheServerToItsCertificate(t *testing.T) {
	server := newKeyServer(t, httptest.NewTLSServer)
	server.Config.ErrorLog = nil
	server.publish(keySetOf(t, webKeyOf(t, signers()["EdDSA"].public, nil)))
	roots := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	u, log := startKeyURL(t, server.URL, roots, 0)
	if len(u.find(context.Background(), "", "EdDSA")) != 1 {
		t.Errorf("with its certificate: %s", log)
	}
	u, log = startKeyURL(t, server.URL, "", 0)
	if len(u.find(context.Background(), "", "EdDSA")) != 0 || !strings.Contains(log.String(), "certificate") {
		t.Errorf("a server that nobody vouches for is believed: %s", log)
	}
	if _, err := NewKeyURL(server.URL, "no PEM", 0, nil); err == nil {
		t.Error("roots that are none are taken")
	}
}

func TestCheckURL_NobodyOnTheWayAnswersInItsPlace(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://login.example.com/keys": true, "https://login.example.com/keys?p=policy": true,
		"http://127.0.0.1:8080/keys": true, "http://localhost/keys": true, "http://[::1]:1/": true, "http://127.9.9.9/": true,
		"http://login.example.com/keys": false, "http://10.0.0.1/": false, "http://localhost.evil.example/": false, "http://127.0.0.1.evil.example/": false,
		"https://user:password@login.example.com/": false, "https://user@login.example.com/": false, "https://a.example/#x": false, "https://a.example/?...": false,
		"": false, "login.example.com": false, "ftp://a/": false, "file:///etc/passwd": false, "https://": false, "http://%zz/": false, "unix:///a": false,
	} {
		if err := CheckURL(url); (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		} else if err != nil && strings.Contains(err.Error(), "password@") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}

// A query can be a password, and errors of HTTP hold whole URLs.
func TestURLs_QueriesAreNeitherLoggedNorShown(t *testing.T) {
	for raw, want := range map[string]string{
		"https://a.example/x?key=hush": "https://a.example/x?...", "https://a.example/x": "https://a.example/x",
		"https://u:hush@a.example/#hush": "https://a.example/", "https://a.example/%zz?hush": "(malformed)",
	} {
		if got := RedactURL(raw); got != want {
			t.Errorf("%s is shown as %s", raw, got)
		}
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	moved := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/?key=hush", http.StatusFound))
	defer moved.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer broken.Close()
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	defer plain.Close()
	for _, url := range []string{gone.URL, moved.URL, broken.URL, strings.Replace(plain.URL, "http:", "https:", 1), plain.URL, "https://a.invalid"} {
		url += "/path?key=hush"
		u, log := startKeyURL(t, url, "", 0)
		<-u.refresh(0)
		if text := log.String(); !strings.Contains(text, "/path?...") || strings.Contains(text, "hush") {
			t.Errorf("%s: the log says %s", url, text)
		}
		_, err := newTestCallback(t, url).Authenticate(context.Background(), &broker.AuthRequest{Username: "u"})
		var r *broker.Refusal
		if !errors.As(err, &r) || r.Cause == nil || strings.Contains(r.Cause.Error()+err.Error(), "hush") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
