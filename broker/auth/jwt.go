package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"hashplus/broker"
	"hashplus/broker/wire"
)

const (
	// JWTMethod is the Authentication Method with which a client sends a new
	// token in AUTH.
	JWTMethod = "JWT"

	maxTokenSize    = 16 << 10        // bytes
	maxUsernameSize = 1024            // bytes of a name that comes from outside
	endOfTime       = 253_402_300_799 // the last second of the year 9999
)

// JWTOptions say which tokens are taken. Zero values mean what the comments
// say.
type JWTOptions struct {
	Keys      []KeySource // at least one
	Issuer    string      // the iss claim has to be it; "" any
	Audiences []string    // the aud claim has to name one of them; none: any
	// Skew is by how much the clocks of issuer and broker may differ: a token is
	// valid that much earlier and longer.
	Skew time.Duration
	// Everlasting takes tokens without an exp claim, which never end.
	Everlasting bool

	UsernameClaim  string // names the user; "" is sub
	ClientIDClaim  string // if the token has it, it has to be the client's; "" is clientid
	PublishClaim   string // see Claims.Publish; "" is publish
	SubscribeClaim string // see Claims.Subscribe; "" is subscribe

	// Sources are where a token is looked for, in order; the first that is found
	// counts.
	Sources []TokenSource
	// Pages are the origins of the pages whose cookies count.
	Pages []string

	now func() time.Time // tests set it
}

// JWT lets clients in by signed tokens (RFC 7519), in CONNECT or the WebSocket
// upgrade as a broker.Authenticator, in AUTH as a broker.EnhancedAuthenticator.
// The Grant ends with the token; its Data are the token's *Claims, or nil where
// it has no permissions. Any goroutine may call it.
//
// The algorithm is the key's, never the token's to choose: RS256 of an RSA key,
// ES256 of one on P-256, EdDSA of an Ed25519 one, HS256 of a secret. There is no
// none.
type JWT struct {
	o      JWTOptions
	parser *jwt.Parser
}

var (
	_ broker.Authenticator         = (*JWT)(nil)
	_ broker.EnhancedAuthenticator = (*JWT)(nil)
	_ Voucher                      = (*JWT)(nil)
)

// NewJWT makes a JWT.
func NewJWT(o JWTOptions) *JWT {
	for _, claim := range []struct {
		name  *string
		value string
	}{{&o.UsernameClaim, "sub"}, {&o.ClientIDClaim, "clientid"}, {&o.PublishClaim, "publish"}, {&o.SubscribeClaim, "subscribe"}} {
		if *claim.name == "" {
			*claim.name = claim.value
		}
	}
	if o.now == nil {
		o.now = time.Now
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(algorithms[:]), jwt.WithStrictDecoding(), jwt.WithLeeway(o.Skew), jwt.WithTimeFunc(o.now),
	}
	if !o.Everlasting {
		options = append(options, jwt.WithExpirationRequired())
	}
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	if len(o.Audiences) > 0 {
		options = append(options, jwt.WithAudience(o.Audiences...))
	}
	return &JWT{o: o, parser: jwt.NewParser(options...)}
}

// Authenticate implements broker.Authenticator: a client that has a token at
// one of the sources is let in by it or refused, others are not its concern.
func (j *JWT) Authenticate(ctx context.Context, r *broker.AuthRequest) (broker.Grant, error) {
	for _, s := range j.o.Sources {
		token, found, err := s.find(r, j.o.Pages)
		if err != nil {
			return broker.Grant{}, tokenRefusal(err)
		}
		if found {
			return j.verify(ctx, token, r.ClientID, s)
		}
	}
	return broker.Grant{}, notMine{&broker.Refusal{Reason: wire.NotAuthorized, Detail: "no token"}}
}

// Method implements broker.EnhancedAuthenticator.
func (*JWT) Method() string { return JWTMethod }

// Begin implements broker.EnhancedAuthenticator.
func (j *JWT) Begin(r *broker.AuthRequest) broker.AuthExchange { return &jwtExchange{j, r} }

type jwtExchange struct {
	jwt     *JWT
	request *broker.AuthRequest
}

// Next implements broker.AuthExchange: the client's data are its token, and
// there is no second step. A CONNECT without data may have its token at one of
// the sources, as it could without the method: the method is what lets the
// client send new ones later.
func (x *jwtExchange) Next(ctx context.Context, data []byte) (reply []byte, done bool, g broker.Grant, err error) {
	if len(data) == 0 {
		g, err = x.jwt.Authenticate(ctx, x.request)
	} else {
		g, err = x.jwt.verify(ctx, string(data), x.request.ClientID, inAuth)
	}
	return nil, err == nil, g, err
}

// tokenRefusal refuses a token. err must not hold any of it.
func tokenRefusal(err error) error {
	return &broker.Refusal{Reason: wire.NotAuthorized, Detail: "token: " + err.Error()}
}

// verify checks token, which was found at from, and returns what it grants to the
// client.
func (j *JWT) verify(ctx context.Context, token, clientID string, from TokenSource) (broker.Grant, error) {
	if len(token) > maxTokenSize {
		return broker.Grant{}, tokenRefusal(fmt.Errorf("%d bytes; %d are allowed", len(token), maxTokenSize))
	}
	if err := checkForm(token); err != nil {
		return broker.Grant{}, tokenRefusal(err)
	}
	claims := jwt.MapClaims{}
	var keys []key
	parsed, err := j.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (set any, err error) {
		keys, set, err = j.keys(ctx, t.Header)
		return set, err
	})
	switch {
	case errors.Is(err, errNoKeys): // it is not the client's fault
		return broker.Grant{}, &broker.Refusal{Reason: wire.ServerUnavailable, Cause: errNoKeys}
	case err != nil:
		return broker.Grant{}, tokenRefusal(faultOf(err))
	}
	g, err := j.grant(claims, clientID)
	if err != nil {
		return broker.Grant{}, tokenRefusal(err)
	}
	g.Grounds = j.grounds(claims, signerOf(parsed, keys), from)
	return g, nil
}

// checkForm refuses what parsers read in different ways: line breaks, which
// decoders of base64 skip, and members that come twice (RFC 7515 section 4, RFC
// 7519 section 4).
func checkForm(token string) error {
	if strings.Count(token, ".") != 2 || strings.ContainsFunc(token, func(r rune) bool {
		return r != '.' && r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return errors.New("not a JWT")
	}
	for _, part := range strings.Split(token, ".")[:2] {
		b, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil {
			return errors.New("not a JWT")
		}
		if err := checkMembers(b); err != nil {
			return err
		}
	}
	return nil
}

// checkMembers wants one JSON object none of whose members come twice.
func checkMembers(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("not a JWT")
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return errors.New("not a JWT")
		}
		if seen[name] {
			return errors.New("a member comes twice")
		}
		seen[name] = true
		var skip json.RawMessage
		if d.Decode(&skip) != nil {
			return errors.New("not a JWT")
		}
	}
	return nil
}

// keys are those that may have signed a token with header, for us and for the
// library.
func (j *JWT) keys(ctx context.Context, header map[string]any) (found []key, _ any, err error) {
	if _, has := header["crit"]; has { // RFC 7515 section 4.1.11: none of them is understood here
		return nil, nil, errors.New("it has a crit header")
	}
	id, has := header["kid"].(string)
	if _, any := header["kid"]; any && !has {
		return nil, nil, errors.New("its kid is not a string")
	}
	alg, _ := header["alg"].(string) // the parser has looked at it
	var set jwt.VerificationKeySet
	for _, s := range j.o.Keys {
		for _, k := range s.find(ctx, id, alg) {
			found = append(found, k)
			set.Keys = append(set.Keys, k.material)
		}
	}
	switch {
	case len(found) > 0:
		return found, set, nil
	case slices.ContainsFunc(j.o.Keys, KeySource.empty):
		return nil, nil, errNoKeys
	}
	return nil, nil, errNoKey
}

var (
	errNoKey  = errors.New("no key of that kid and alg is known")
	errNoKeys = errors.New("the keys of tokens have not been had yet")
)

// faultOf says what is wrong with a token in words of ours: the library's may
// hold pieces of it.
func faultOf(err error) error {
	for _, f := range []struct {
		is   error
		text string
	}{
		{errNoKey, errNoKey.Error()},
		{jwt.ErrTokenExpired, "expired"},
		{jwt.ErrTokenNotValidYet, "not valid yet"},
		{jwt.ErrTokenInvalidAudience, "for another audience"},
		{jwt.ErrTokenInvalidIssuer, "of another issuer"},
		{jwt.ErrTokenRequiredClaimMissing, "a claim that is required is missing (exp, iss or aud)"},
		{jwt.ErrTokenSignatureInvalid, "the signature is not right"},
		{jwt.ErrTokenUnverifiable, "it can't be verified"},
		{jwt.ErrTokenInvalidClaims, "a claim is of the wrong type"},
	} {
		if errors.Is(err, f.is) {
			return errors.New(f.text)
		}
	}
	return errors.New("not a JWT")
}

// grant reads the claims of a token that is verified.
func (j *JWT) grant(claims jwt.MapClaims, clientID string) (g broker.Grant, err error) {
	// The library takes an exp of 0 for none, and lets numbers overflow.
	if at, has := claims["exp"]; has {
		seconds, ok := at.(float64)
		if !ok || seconds <= 0 || seconds > endOfTime {
			return g, errors.New("exp is not a time that is to come")
		}
		g.ExpiresAt = time.UnixMilli(int64(seconds * 1000)).Add(j.o.Skew)
	}
	if at, has := claims["nbf"]; has {
		if seconds, ok := at.(float64); !ok || seconds > endOfTime {
			return g, errors.New("nbf is not a time that has passed")
		}
	}
	if g.Username, err = claimedName(claims[j.o.UsernameClaim]); err != nil {
		return g, fmt.Errorf("the claim %s %w", j.o.UsernameClaim, err)
	}
	if id, has := claims[j.o.ClientIDClaim]; has && id != any(clientID) {
		return g, fmt.Errorf("the claim %s is not the client's identifier", j.o.ClientIDClaim)
	}
	publish, err := claimedFilters(claims, j.o.PublishClaim)
	if err != nil {
		return g, err
	}
	subscribe, err := claimedFilters(claims, j.o.SubscribeClaim)
	if err != nil {
		return g, err
	}
	if publish != nil || subscribe != nil {
		c, err := NewClaims(publish, subscribe)
		if err != nil {
			return g, err
		}
		g.Data = c
	}
	return g, nil
}

// claimedName is a username that comes from outside. The error goes on from the
// name of the claim.
func claimedName(v any) (string, error) {
	s, ok := v.(string)
	switch {
	case v == nil:
		return "", errors.New("is missing: the token names no user")
	case !ok || s == "":
		return "", errors.New("is not a username")
	case len(s) > maxUsernameSize:
		return "", fmt.Errorf("has more than %d bytes", maxUsernameSize)
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0): // [MQTT-1.5.4-2]
		return "", errors.New("has a character in it that a username can't have")
	}
	return s, nil
}

// claimedFilters is a list of filters; nil if there is no such claim. What is
// there and is none is an error: a permission that is misread is not left out.
func claimedFilters(claims map[string]any, name string) ([]string, error) {
	v, has := claims[name]
	if !has {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("the claim %s is not a list of filters", name)
	}
	filters := make([]string, 0, len(list))
	for _, item := range list {
		f, ok := item.(string)
		if !ok {
			return nil, fmt.Errorf("the claim %s is not a list of filters", name)
		}
		filters = append(filters, f)
	}
	return filters, nil
}
