package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"hashplus/broker"
	"hashplus/transport/link"
)

// TokenSource is a place of a connection where a token may stand.
type TokenSource struct {
	place  tokenPlace
	cookie string // its name
}

type tokenPlace string

const (
	inPassword    tokenPlace = "password"
	inHeader      tokenPlace = "header"
	inCookie      tokenPlace = "cookie"
	inQuery       tokenPlace = "query"
	inSubprotocol tokenPlace = "subprotocol"
)

// inAuth is the Authentication Data of CONNECT and AUTH, which no source reads.
var inAuth = TokenSource{place: "auth"} //nolint:gochecknoglobals // a constant

// queryParameter and protocolPrefix are what a page, which can't set headers,
// puts its token behind.
const (
	queryParameter = "token"
	protocolPrefix = "bearer."
)

// ParseTokenSource reads one of
//
//	password     the password of CONNECT, whatever the username
//	header       Authorization: Bearer TOKEN, of the upgrade request
//	cookie=NAME  a cookie of the upgrade request
//	query        ?token=TOKEN in the URL
//	subprotocol  bearer.TOKEN among the offered WebSocket sub-protocols
func ParseTokenSource(s string) (TokenSource, error) {
	place, name, named := strings.Cut(s, "=")
	switch p := tokenPlace(place); {
	case p == inCookie && named:
		if (&http.Cookie{Name: name}).Valid() != nil {
			return TokenSource{}, fmt.Errorf("%q is not the name of a cookie", name)
		}
		return TokenSource{place: p, cookie: name}, nil
	case p == inCookie:
		return TokenSource{}, errors.New("cookie needs the cookie's name: cookie=NAME")
	case !named && slices.Contains([]tokenPlace{inPassword, inHeader, inQuery, inSubprotocol}, p):
		return TokenSource{place: p}, nil
	}
	return TokenSource{}, fmt.Errorf("unknown place %q: password, header, cookie=NAME, query and subprotocol are known", s)
}

// Cookie is the name of the cookie that s reads, or "".
func (s TokenSource) Cookie() string { return s.cookie }

// find returns the token that r has at s. The error tells of two of them, or of
// one that a foreign page may have had sent; it never holds the token.
func (s TokenSource) find(r *broker.AuthRequest, pages []string) (token string, found bool, err error) {
	if s.place == inPassword {
		// Only what looks like one: other methods may want the password.
		if p := string(r.Password); r.HasPassword && looksLikeToken(p) {
			return p, true, nil
		}
		return "", false, nil
	}
	if r.Handshake == nil {
		return "", false, nil
	}
	var tokens []string
	switch s.place {
	case inPassword:
	case inHeader:
		tokens = bearers(r.Handshake.Header["Authorization"])
	case inCookie:
		tokens = cookies(r.Handshake.Header["Cookie"], s.cookie)
		if len(tokens) > 0 && !fromPage(r.Handshake, pages) {
			return "", false, errForeignPage
		}
	case inQuery:
		if tokens, err = queryTokens(r.Handshake.Query); err != nil {
			return "", false, err
		}
	case inSubprotocol:
		tokens = offered(r.Handshake.Header["Sec-Websocket-Protocol"])
	}
	switch len(tokens) {
	case 0:
		return "", false, nil
	case 1:
		return tokens[0], true, nil
	}
	return "", false, fmt.Errorf("%d tokens in the %s", len(tokens), s.place)
}

var errForeignPage = errors.New("a cookie from a page whose origin is not listed")

// fromPage reports whether a request with cookies comes from one of pages, or
// from a program: a browser names the origin of every page, and adds cookies to
// the requests of foreign ones too.
func fromPage(h *link.Handshake, pages []string) bool {
	origins := h.Header["Origin"]
	return len(origins) == 0 || len(origins) == 1 && slices.Contains(pages, origins[0])
}

// looksLikeToken reports whether s has the outer form of a JWT: three parts,
// the first of which begins a JSON object in base64.
func looksLikeToken(s string) bool {
	return strings.HasPrefix(s, "eyJ") && strings.Count(s, ".") == 2
}

func bearers(values []string) (tokens []string) {
	for _, v := range values {
		scheme, token, _ := strings.Cut(v, " ")
		if strings.EqualFold(scheme, "Bearer") {
			tokens = append(tokens, textproto.TrimString(token))
		}
	}
	return tokens
}

func cookies(lines []string, name string) (tokens []string) {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ";") {
			n, v, ok := strings.Cut(textproto.TrimString(part), "=")
			if ok && n == name {
				tokens = append(tokens, strings.Trim(v, `"`))
			}
		}
	}
	return tokens
}

func queryTokens(query string) ([]string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("the query of the URL is malformed") // the error would hold a part of it
	}
	return values[queryParameter], nil
}

func offered(lists []string) (tokens []string) {
	for _, list := range lists {
		for name := range strings.SplitSeq(list, ",") {
			if token, ok := strings.CutPrefix(textproto.TrimString(name), protocolPrefix); ok {
				tokens = append(tokens, token)
			}
		}
	}
	return tokens
}
