package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"hashplus/broker"
	"hashplus/broker/wire"
	"hashplus/transport/link"
)

// authServer answers callbacks as a test says, and keeps what it was asked.
type authServer struct {
	*httptest.Server
	handle func(w http.ResponseWriter, r *http.Request)

	mu       sync.Mutex
	requests []string
}

func newAuthServer(t *testing.T, handle func(w http.ResponseWriter, r *http.Request)) *authServer {
	s := &authServer{handle: handle}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.requests = append(s.requests, fmt.Sprint(r.Method, " ", r.Header.Get("Content-Type"), " ", r.Header.Get("Authorization"), " ", string(body)))
		s.mu.Unlock()
		s.handle(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func answers(text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

func (s *authServer) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func newTestCallback(t *testing.T, url string, change ...func(*CallbackOptions)) *Callback {
	t.Helper()
	o := CallbackOptions{URL: url, Timeout: patience}
	for _, f := range change {
		f(&o)
	}
	c, err := NewCallback(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestCallback_SaysWhatTheClientSaysOfItself(t *testing.T) {
	s := newAuthServer(t, answers(`{"result":"allow","username":"known"}`))
	c := newTestCallback(t, s.URL, func(o *CallbackOptions) { o.Bearer = "ours" })
	full := login("alice", "s\"ecret")
	full.Info = &link.Info{Listener: "wss://0.0.0.0:8084", Transport: "wss", Remote: netip.MustParseAddrPort("[::ffff:10.1.2.3]:555"),
		TLS: &link.TLS{Certificate: &link.Certificate{Username: "dev", CommonName: "dev", DNSNames: []string{"dev.example"}, Serial: "0a", Issuer: "CN=ca"}}}
	full.Handshake = &link.Handshake{Path: "/mqtt", Query: "token=secret", Header: map[string][]string{"Cookie": {"s=secret"}}}
	for _, tc := range []struct {
		r    *broker.AuthRequest
		want string
	}{
		{full, `{"client_id":"c","username":"alice","password":"s\"ecret","address":"10.1.2.3","listener":"wss://0.0.0.0:8084","transport":"wss","path":"/mqtt",` +
			`"certificate":{"username":"dev","common_name":"dev","dns_names":["dev.example"],"serial":"0a","issuer":"CN=ca"}}`},
		{&broker.AuthRequest{ClientID: "d", Info: &link.Info{Listener: "unix:///s", Transport: "unix"}}, `{"client_id":"d","listener":"unix:///s","transport":"unix"}`},
		{login("", "\xff"), `{"client_id":"c","username":"","password_base64":"/w==","listener":"","transport":""}`},
	} {
		if g, err := c.Authenticate(context.Background(), tc.r); err != nil || g.Username != "known" {
			t.Errorf("%+v, %v", g, err)
		}
		asked := s.asked()
		if got, want := asked[len(asked)-1], "POST application/json Bearer ours "+tc.want; got != want {
			t.Errorf("asked\n%s, want\n%s", got, want)
		}
	}
}

func TestCallback_TakesNothingButAnAnswer(t *testing.T) {
	for _, tc := range []struct {
		answer string
		want   broker.Grant
		claims *Claims
		reason wire.ReasonCode // of a refusal; 0 is let in
		passes bool
	}{
		{`{"result":"allow"}`, broker.Grant{Username: "alice"}, nil, 0, false},
		{` {"result":"allow","username":"bob","more":[1]} `, broker.Grant{Username: "bob"}, nil, 0, false},
		{`{"result":"allow","publish":["a/#"],"subscribe":[]}`, broker.Grant{Username: "alice"}, &Claims{Publish: []string{"a/#"}, Subscribe: []string{}}, 0, false},
		{`{"result":"allow","publish":null}`, broker.Grant{Username: "alice"}, nil, 0, false},
		{`{"result":"allow","expires_at":32503680000}`, broker.Grant{Username: "alice", ExpiresAt: time.Unix(32503680000, 0)}, nil, 0, false},
		{`{"result":"deny"}`, broker.Grant{}, nil, wire.NotAuthorized, false},
		{`{"result":"ignore"}`, broker.Grant{}, nil, wire.NotAuthorized, true},
		{``, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`null`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`true`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`"allow"`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"Allow"}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"Result":"allow"}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":true}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"allow","result":"deny"}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"deny","Result":"allow"}`, broker.Grant{}, nil, wire.NotAuthorized, false},
		{`{"result":"allow"`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"allow"} x`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`[{"result":"allow"}]`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"allow","username":""}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"allow","username":7}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"allow","username":"\u0000"}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"allow","publish":"a"}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"allow","publish":["a#"]}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"allow","subscribe":[1]}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"allow","expires_at":"soon"}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"allow","expires_at":0}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"allow","expires_at":1e300}`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`<html>allow</html>`, broker.Grant{}, nil, wire.ServerUnavailable, false},
		{`{"result":"allow"}` + strings.Repeat(" ", maxAnswerSize), broker.Grant{}, nil, wire.ServerUnavailable, false},
	} {
		s := newAuthServer(t, answers(tc.answer))
		g, err := newTestCallback(t, s.URL).Authenticate(context.Background(), login("alice", "secret"))
		if g.Username != tc.want.Username || !g.ExpiresAt.Equal(tc.want.ExpiresAt) || !sameClaims(g.Data, tc.claims) || (err == nil) != (tc.want.Username != "") || reasonOf(err) != tc.reason || errors.Is(err, ErrNotMine) != tc.passes {
			t.Errorf("%.60s: %+v, %v", tc.answer, g, err)
		}
	}
	// Nobody is let in without a name.
	s := newAuthServer(t, answers(`{"result":"allow"}`))
	if g, err := newTestCallback(t, s.URL).Authenticate(context.Background(), &broker.AuthRequest{ClientID: "c"}); err == nil {
		t.Errorf("%+v", g)
	}
}

func TestCallback_WhatIsDownRefuses(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	const allow = `{"result":"allow"}`
	for name, handle := range map[string]func(http.ResponseWriter, *http.Request){
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); _, _ = io.WriteString(w, allow) },
		"401": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401); _, _ = io.WriteString(w, allow) },
		"201": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); _, _ = io.WriteString(w, allow) },
		"204": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"hangs up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"slow":     func(http.ResponseWriter, *http.Request) { <-release },
		"stalls": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, allow[:5])
			w.(http.Flusher).Flush()
			<-release
		},
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			_, _ = io.WriteString(w, allow)
		},
	} {
		s := newAuthServer(t, handle)
		c := newTestCallback(t, s.URL, func(o *CallbackOptions) { o.Timeout = 100 * time.Millisecond })
		g, err := c.Authenticate(context.Background(), login("alice", "secret"))
		if err == nil || g.Username != "" || errors.Is(err, ErrNotMine) || reasonOf(err) != wire.ServerUnavailable {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "alice")) {
			t.Errorf("%s: the error shows a secret: %v", name, err)
		}
		// Not even for those who say nothing, where they would be let in.
		if _, err := NewChain(true, c).Authenticate(context.Background(), &broker.AuthRequest{ClientID: "c"}); err == nil {
			t.Errorf("%s: an anonymous client is let in", name)
		}
	}
	s := newAuthServer(t, answers(allow))
	c := newTestCallback(t, s.URL)
	s.Close()
	if _, err := c.Authenticate(context.Background(), login("alice", "secret")); err == nil {
		t.Error("down: let in")
	}
}

func TestCallback_BoundsRequestsAtOnce(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{}, 10)
	s := newAuthServer(t, func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-release
		_, _ = io.WriteString(w, `{"result":"allow"}`)
	})
	c := newTestCallback(t, s.URL, func(o *CallbackOptions) { o.Concurrency, o.Timeout = 2, patience })
	results := make(chan error, 2)
	for i := range 2 {
		go func() {
			_, err := c.Authenticate(context.Background(), login(fmt.Sprint("u", i), "x"))
			results <- err
		}()
		<-entered
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Authenticate(ctx, login("third", "x")); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("%v", err)
	}
	if len(s.asked()) != 2 {
		t.Errorf("%q", s.asked())
	}
	close(release)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Authenticate(context.Background(), login("third", "x")); err != nil {
		t.Errorf("a turn is not given back: %v", err)
	}
}

// Those who wait for a server that does not answer stand in the way of others.
func TestCallback_AServerThatFailsGetsAPause(t *testing.T) {
	failing := true
	s := newAuthServer(t, func(w http.ResponseWriter, _ *http.Request) {
		if failing {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = io.WriteString(w, `{"result":"allow"}`)
	})
	c := newTestCallback(t, s.URL, func(o *CallbackOptions) { o.Concurrency = 3 })
	for range 10 {
		if _, err := c.Authenticate(context.Background(), login("alice", "x")); reasonOf(err) != wire.ServerUnavailable {
			t.Fatal(err)
		}
	}
	if n := len(s.asked()); n != 3 {
		t.Errorf("asked %d times", n)
	}
	failing = false
	c.mu.Lock()
	c.pause = time.Time{} // as if it was over
	c.mu.Unlock()
	if _, err := c.Authenticate(context.Background(), login("alice", "x")); err != nil {
		t.Error(err)
	}
	failing = true
	for range 2 {
		_, _ = c.Authenticate(context.Background(), login("bob", "x"))
	}
	if c.paused() {
		t.Error("two failures are enough")
	}
	gone, leave := context.WithCancel(context.Background())
	leave()
	for range 10 {
		_, _ = c.Authenticate(gone, login("carol", "x"))
	}
	if c.paused() {
		t.Error("clients that leave make the server look broken")
	}
}

func TestCallback_RemembersAnswersForAWhile(t *testing.T) {
	result := "allow"
	s := newAuthServer(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(m{"result": result})
	})
	c := newTestCallback(t, s.URL)
	asks := func(want int, r *broker.AuthRequest, ok bool) {
		t.Helper()
		before := len(s.asked())
		_, err := c.Authenticate(context.Background(), r)
		if got := len(s.asked()) - before; got != want || (err == nil) != ok {
			t.Errorf("%q: asked %d times, not %d: %v", r.Username, got, want, err)
		}
	}
	at := func(r *broker.AuthRequest, address string, more func(*link.Info)) *broker.AuthRequest {
		r.Info = &link.Info{Listener: "a", Remote: netip.MustParseAddrPort(address)}
		if more != nil {
			more(r.Info)
		}
		return r
	}
	asks(1, at(login("alice", "x"), "10.0.0.1:1", nil), true)
	asks(0, at(login("alice", "x"), "10.0.0.1:2", nil), true) // the port is of no account
	asks(1, at(login("alice", "y"), "10.0.0.1:1", nil), true)
	asks(1, at(login("bob", "x"), "10.0.0.1:1", nil), true)
	asks(1, at(login("alice", "x"), "10.0.0.2:1", nil), true)
	asks(1, at(login("alice", "x"), "10.0.0.1:1", func(i *link.Info) { i.Listener = "b" }), true)
	result = "deny"
	asks(0, at(login("alice", "x"), "10.0.0.1:3", nil), true)
	asks(1, at(login("mallory", "x"), "10.0.0.1:1", nil), false)
	asks(0, at(login("mallory", "x"), "10.0.0.1:1", nil), false)
	result = "ignore"
	asks(1, at(login("carol", "x"), "10.0.0.1:1", nil), false)
	asks(0, at(login("carol", "x"), "10.0.0.1:1", nil), false)
	result = "nonsense" // is no answer, and not remembered
	asks(1, at(login("dave", "x"), "10.0.0.1:1", nil), false)
	asks(1, at(login("dave", "x"), "10.0.0.1:1", nil), false)
	c = newTestCallback(t, s.URL, func(o *CallbackOptions) { o.Allowed, o.Refused = -1, -1 })
	for _, r := range []string{"allow", "deny"} {
		result = r
		asks(1, login("alice", "x"), r == "allow")
		asks(1, login("alice", "x"), r == "allow")
	}
}

func TestCallback_RemembersNoGrantPastItsEnd(t *testing.T) {
	s := newAuthServer(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(m{"result": "allow", "expires_at": float64(time.Now().UnixMilli())/1000 + 0.05})
	})
	c := newTestCallback(t, s.URL)
	for range 2 {
		if _, err := c.Authenticate(context.Background(), login("alice", "x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(60 * time.Millisecond)
	}
	if n := len(s.asked()); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

func TestAnswerCache_IsBoundedAndForgetsTheLeastRecent(t *testing.T) {
	c := newAnswerCache(3)
	start := time.Now()
	key := func(b byte) answerKey { return answerKey{b} }
	put := func(b byte) {
		c.put(key(b), answer{grant: broker.Grant{Username: string(rune('a' + b))}}, start.Add(time.Minute), start)
	}
	put(0)
	put(1)
	put(2)
	c.get(key(0), start)
	put(0)
	put(3) // 1 is the one that was asked for longest ago
	for b, want := range []bool{true, false, true, true} {
		a, ok := c.get(key(byte(b)), start)
		if ok != want || ok && a.grant.Username != string(rune('a'+b)) {
			t.Errorf("%d: %v, %+v", b, ok, a)
		}
	}
	if _, ok := c.get(key(3), start.Add(time.Minute)); ok {
		t.Error("what has expired is given")
	}
	c.put(key(9), answer{}, start, start)
	if len(c.entries) != 2 || c.recent.Len() != 2 {
		t.Errorf("%d, %d entries", len(c.entries), c.recent.Len())
	}
}

func FuzzCallbackAnswer(f *testing.F) {
	for _, text := range []string{
		`{"result":"allow","username":"a","publish":["a/#"],"subscribe":[],"expires_at":32503680000}`, `{"result":"deny"}`,
		`{"result":"ignore"}`, `{"result":"allow","result":"deny"}`, `{"result":"deny","Result":"allow"}`, `[]`, `null`,
	} {
		f.Add([]byte(text))
	}
	r := login("alice", "x")
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := parseAnswer(text, r)
		allowed := err == nil && a.err == nil
		if allowed && (a.grant.Username == "" || !strings.Contains(string(text), "result")) {
			t.Fatalf("%q allows %+v", text, a)
		}
		if !allowed && (a.grant.Username != "" || a.grant.Data != nil) {
			t.Fatalf("%q refuses and grants %+v", text, a)
		}
	})
}
