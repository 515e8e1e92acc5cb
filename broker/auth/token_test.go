package auth

import (
	"context"
	"errors"
	"strings"
	"testing"

	"hashplus/broker"
	"hashplus/broker/wire"
	"hashplus/transport/link"
)

func mustSource(t testing.TB, s string) TokenSource {
	t.Helper()
	source, err := ParseTokenSource(s)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func TestParseTokenSource_KnowsFivePlaces(t *testing.T) {
	for s, cookie := range map[string]string{"password": "", "header": "", "query": "", "subprotocol": "", "cookie=session": "session", "cookie=__Host-x": "__Host-x"} {
		if source, err := ParseTokenSource(s); err != nil || source.Cookie() != cookie {
			t.Errorf("%s: %+v, %v", s, source, err)
		}
	}
	for _, s := range []string{"", "Password", "cookie", "cookie=", "cookie=a b", "cookie=a;b", "query=x", "header=Authorization", "body", "password "} {
		if source, err := ParseTokenSource(s); err == nil {
			t.Errorf("%q: %+v", s, source)
		}
	}
}

// upgrade is a CONNECT over a WebSocket with header lines NAME: VALUE.
func upgrade(query string, header ...string) *broker.AuthRequest {
	h := &link.Handshake{Path: "/mqtt", Query: query, Header: map[string][]string{}}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		h.Header[name] = append(h.Header[name], value)
	}
	return &broker.AuthRequest{ClientID: "c", Handshake: h}
}

func TestTokenSource_FindsItsToken(t *testing.T) {
	const token = "eyJhbGciOiJub25lIn0.e30.c2ln"
	pages := []string{"https://app.example"}
	for _, tc := range []struct {
		source string
		r      *broker.AuthRequest
		want   string // "" if there is none
		fault  string
	}{
		{"password", login("x", token), token, ""},
		{"password", login("", token), token, ""},
		{"password", login("x", "hunter2"), "", ""},
		{"password", login("x", "a.b.c"), "", ""},
		{"password", &broker.AuthRequest{}, "", ""},
		{"password", upgrade("token="+token, "Authorization: Bearer "+token), "", ""},
		{"header", upgrade("", "Authorization: Bearer "+token), token, ""},
		{"header", upgrade("", "Authorization: bearer   "+token), token, ""},
		{"header", upgrade("", "Authorization: Basic dTpw"), "", ""},
		{"header", upgrade("", "Authorization: Basic dTpw", "Authorization: Bearer "+token), token, ""},
		{"header", upgrade("", "Authorization: Bearer "+token, "Authorization: Bearer x"), "", "2 tokens in the header"},
		{"header", upgrade("token=" + token), "", ""},
		{"header", login("x", token), "", ""},
		{"query", upgrade("token=" + token), token, ""},
		{"query", upgrade("a=b&token=" + token + "&c=d"), token, ""},
		{"query", upgrade("Token=" + token), "", ""},
		{"query", upgrade("token=a&token=b"), "", "2 tokens in the query"},
		{"query", upgrade("token=%zz" + token), "", "malformed"},
		{"query", upgrade("token=" + token + ";x"), "", "malformed"},
		{"query", upgrade(""), "", ""},
		{"subprotocol", upgrade("", "Sec-Websocket-Protocol: mqtt, bearer."+token), token, ""},
		{"subprotocol", upgrade("", "Sec-Websocket-Protocol: mqtt", "Sec-Websocket-Protocol: bearer."+token), token, ""},
		{"subprotocol", upgrade("", "Sec-Websocket-Protocol: mqtt, bearer.a, bearer.b"), "", "2 tokens in the subprotocol"},
		{"subprotocol", upgrade("", "Sec-Websocket-Protocol: mqtt"), "", ""},
		{"cookie=s", upgrade("", "Cookie: a=b; s="+token+"; c=d", "Origin: https://app.example"), token, ""},
		{"cookie=s", upgrade("", "Cookie: s=\""+token+"\"", "Origin: https://app.example"), token, ""},
		{"cookie=s", upgrade("", "Cookie: s="+token), token, ""}, // from a program
		{"cookie=s", upgrade("", "Cookie: S="+token, "Origin: https://app.example"), "", ""},
		{"cookie=s", upgrade("", "Cookie: xs="+token, "Origin: https://app.example"), "", ""},
		{"cookie=s", upgrade("", "Cookie: s=a; s=b", "Origin: https://app.example"), "", "2 tokens in the cookie"},
		{"cookie=s", upgrade("", "Cookie: s=a", "Cookie: s=b", "Origin: https://app.example"), "", "2 tokens in the cookie"},
		{"cookie=s", upgrade("", "Cookie: s="+token, "Origin: https://evil.example"), "", "origin is not listed"},
		{"cookie=s", upgrade("", "Cookie: s="+token, "Origin: null"), "", "origin is not listed"},
		{"cookie=s", upgrade("", "Cookie: s="+token, "Origin: http://localhost:3000"), "", "origin is not listed"},
		{"cookie=s", upgrade("", "Cookie: s="+token, "Origin: https://app.example", "Origin: https://evil.example"), "", "origin is not listed"},
		{"cookie=s", upgrade("", "Cookie: t="+token, "Origin: https://evil.example"), "", ""},
	} {
		got, found, err := mustSource(t, tc.source).find(tc.r, pages)
		if tc.fault != "" {
			if err == nil || found || got != "" || !strings.Contains(err.Error(), tc.fault) || strings.Contains(err.Error(), token) {
				t.Errorf("%s of %+v: %q, %v, %v; want %q", tc.source, tc.r.Handshake, got, found, err, tc.fault)
			}
			continue
		}
		if got != tc.want || found != (tc.want != "") || err != nil {
			t.Errorf("%s of %+v: %q, %v, %v", tc.source, tc.r.Handshake, got, found, err)
		}
	}
}

func TestJWT_ASourceThatIsNotSwitchedOnIsNotRead(t *testing.T) {
	token := signers()["EdDSA"].sign(t, valid(), nil)
	everywhere := upgrade("token="+token, "Authorization: Bearer "+token, "Cookie: s="+token, "Sec-Websocket-Protocol: mqtt, bearer."+token)
	everywhere.HasPassword, everywhere.Password = true, []byte(token)
	if _, err := newTestJWT(t).Authenticate(context.Background(), everywhere); !errors.Is(err, ErrNotMine) {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"password", "header", "cookie=s", "query", "subprotocol"} {
		j := newTestJWT(t, func(o *JWTOptions) { o.Sources = []TokenSource{mustSource(t, name)} })
		if g, err := j.Authenticate(context.Background(), everywhere); err != nil || g.Username != "alice" {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
}

func TestJWT_TheFirstSourceThatHasOneCounts(t *testing.T) {
	bob := signers()["EdDSA"].sign(t, valid(m{"sub": "bob"}), nil)
	j := newTestJWT(t, func(o *JWTOptions) {
		o.Sources = []TokenSource{mustSource(t, "header"), mustSource(t, "query")}
	})
	if g, err := j.Authenticate(context.Background(), upgrade("token="+bob)); err != nil || g.Username != "bob" {
		t.Errorf("%+v, %v", g, err)
	}
	// A bad one at the first does not make the second count.
	if _, err := j.Authenticate(context.Background(), upgrade("token="+bob, "Authorization: Bearer x")); reasonOf(err) != wire.NotAuthorized || errors.Is(err, ErrNotMine) {
		t.Errorf("%v", err)
	}
}

func FuzzTokenSources(f *testing.F) {
	f.Add("token=a", "Bearer a", "s=a; b=c", "mqtt, bearer.a", "eyJ.a.b")
	f.Add("token=a&token=b;%zz", "bearer", "s=", "bearer.,", "eyJ")
	f.Fuzz(func(t *testing.T, query, authorization, cookie, protocols, password string) {
		r := upgrade(query)
		r.Handshake.Header = map[string][]string{"Authorization": {authorization}, "Cookie": {cookie}, "Sec-Websocket-Protocol": {protocols}}
		r.HasPassword, r.Password = true, []byte(password)
		for _, name := range []string{"password", "header", "cookie=s", "query", "subprotocol"} {
			token, found, err := mustSource(t, name).find(r, nil)
			if err != nil && (found || token != "") || !found && token != "" {
				t.Fatalf("%s: %q, %v, %v", name, token, found, err)
			}
		}
	})
}

func FuzzJWT(f *testing.F) {
	s := signers()
	var keys Keys
	for alg, one := range s {
		keys = append(keys, one.key(f, ""))
		f.Add(one.sign(f, valid(), m{"kid": alg}))
	}
	f.Add(s["EdDSA"].signParts(f, `{"alg":"EdDSA","crit":["b64"]}`, `{"sub":"alice","exp":0}`))
	j := newTestJWT(f, func(o *JWTOptions) { o.Keys = []KeySource{keys} })
	f.Fuzz(func(t *testing.T, token string) {
		g, err := j.verify(context.Background(), token, "c", inAuth)
		switch {
		case err == nil && g.Username != "alice":
			t.Fatalf("%q gives %+v", token, g) // nobody signs for another
		case err != nil && (reasonOf(err) != wire.NotAuthorized || g.Username != ""):
			t.Fatalf("%q: %+v, %v", token, g, err)
		}
	})
}

// FuzzClaims signs whatever comes, so that claims are read which no issuer makes.
func FuzzClaims(f *testing.F) {
	s := signers()["HS256"]
	j := newTestJWT(f, func(o *JWTOptions) { o.Issuer, o.Audiences, o.Everlasting = "", nil, true })
	for _, claims := range []string{
		`{"sub":"alice","exp":1800000060}`, `{"sub":"a","publish":["a/+","#"],"subscribe":[]}`, `{"sub":"a","clientid":"c","nbf":1}`,
		`{"sub":"a","exp":1e300}`, `{"sub":"a","exp":0}`, `{"sub":null}`, `null`, `[]`,
	} {
		f.Add(claims)
	}
	f.Fuzz(func(t *testing.T, claims string) {
		g, err := j.verify(context.Background(), s.signParts(t, `{"alg":"HS256"}`, claims), "c", inAuth)
		if err != nil {
			if reasonOf(err) != wire.NotAuthorized {
				t.Fatalf("%q: %v", claims, err)
			}
			return
		}
		if g.Username == "" || len(g.Username) > maxUsernameSize || !g.ExpiresAt.IsZero() && g.ExpiresAt.Before(now) {
			t.Fatalf("%q gives %+v", claims, g)
		}
		if c, ok := g.Data.(*Claims); ok {
			if _, err := NewClaims(c.Publish, c.Subscribe); err != nil {
				t.Fatalf("%q gives filters that are none: %v", claims, err)
			}
		}
	})
}

func FuzzKeys(f *testing.F) {
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		s := signers()[alg]
		f.Add([]byte(s.pem(f)))
		f.Add([]byte(keySetOf(f, webKeyOf(f, s.public, m{"kid": alg}))))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parsePublicKeys(text)
		if err == nil && len(keys) == 0 || err != nil && keys != nil {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			if k.alg == "HS256" || k.material == nil {
				t.Fatalf("a public file has %+v", k)
			}
		}
	})
}
