package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"hashplus/broker"
	"hashplus/broker/auth"
)

// authentication is who may connect, as a configuration says. It does not
// change; a reload makes another.
type authentication struct {
	chain     *auth.Chain // nil: everybody may, and nobody is asked anything
	enhanced  []broker.EnhancedAuthenticator
	passwords *auth.Passwords
	keys      *auth.KeyURL
	callback  *auth.Callback
}

// newAuthentication reads the files that c names. Nothing of it runs before
// start. What old has and c does not change is used again; old may be nil.
func (c *configuration) newAuthentication(old *authentication, log *slog.Logger) (*authentication, error) {
	for _, path := range slices.Concat([]string{c.PasswordFile, c.ScramFile, c.AuthHTTPTokenFile}, c.JWTSecret) {
		if path != "" && auth.WorldReadable(path) {
			log.Warn("a file with secrets can be read by every user of this machine", "file", path)
		}
		if path != "" && auth.WorldWritable(path) {
			log.Warn("a file that says who may connect can be changed by every user of this machine", "file", path)
		}
	}
	a := &authentication{}
	if len(c.methods()) == 0 {
		return a, nil
	}
	var methods []broker.Authenticator
	for _, name := range c.methods() {
		m, err := c.newMethod(name, a, old, log)
		if err != nil {
			return nil, usageError{err}
		}
		if m != nil {
			methods = append(methods, m)
		}
	}
	a.chain = auth.NewChain(*c.AllowAnonymous, methods...)
	for _, e := range a.enhanced {
		if v, ok := e.(auth.Voucher); ok {
			a.chain.Vouch(v)
		}
	}
	return a, nil
}

// newMethod makes the method called name. nil is one that only knows AUTH.
func (c *configuration) newMethod(name string, a, old *authentication, log *slog.Logger) (broker.Authenticator, error) {
	switch name {
	case "password":
		p, err := auth.LoadPasswords(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("password-file: %w", err)
		}
		if old != nil {
			p.Inherit(old.passwords)
		}
		a.passwords = p
		return p, nil
	case "scram":
		s, err := auth.LoadScram(c.ScramFile)
		if err != nil {
			return nil, fmt.Errorf("scram-file: %w", err)
		}
		a.enhanced = append(a.enhanced, s)
		return nil, nil
	case "jwt":
		return c.newJWT(a, old, log)
	case "http":
		return c.newCallback(a, old)
	case "certificate":
		return auth.Certificate{}, nil
	}
	return nil, fmt.Errorf("auth: unknown method %q", name) // checkAuth has looked at it
}

func (c *configuration) newJWT(a, old *authentication, log *slog.Logger) (broker.Authenticator, error) {
	o := auth.JWTOptions{
		Issuer: c.JWTIssuer, Audiences: c.JWTAudience, Skew: time.Duration(c.JWTClockSkew), Everlasting: !c.JWTRequireExp,
		UsernameClaim: c.JWTUsernameClaim, ClientIDClaim: c.JWTClientIDClaim,
		PublishClaim: c.JWTPublishClaim, SubscribeClaim: c.JWTSubscribeClaim,
	}
	for _, path := range c.JWTKeys {
		k, err := auth.LoadKeys(path)
		if err != nil {
			return nil, fmt.Errorf("jwt-keys: %w", err)
		}
		o.Keys = append(o.Keys, k)
	}
	for _, path := range c.JWTSecret {
		k, err := auth.LoadSecret(path)
		if err != nil {
			return nil, fmt.Errorf("jwt-secret: %w", err)
		}
		o.Keys = append(o.Keys, k)
	}
	if c.JWTJWKSURL != "" {
		u, err := c.keyURL(old, log)
		if err != nil {
			return nil, fmt.Errorf("jwt-jwks-url: %w", err)
		}
		a.keys = u
		o.Keys = append(o.Keys, u)
		if len(c.JWTAudience) == 0 {
			log.Warn("without jwt-audience every token that the server signs is taken, also those that it makes for others", "key", "jwt-jwks-url")
		}
	}
	for _, from := range c.JWTFrom {
		s, err := auth.ParseTokenSource(from)
		if err != nil {
			return nil, fmt.Errorf("jwt-from: %w", err)
		}
		o.Sources = append(o.Sources, s)
	}
	for i := range c.Listeners {
		o.Pages = append(o.Pages, c.Listeners[i].Origins...)
	}
	j := auth.NewJWT(o)
	a.enhanced = append(a.enhanced, j)
	return j, nil
}

// keyURL is old's, with its keys, if it is the same.
func (c *configuration) keyURL(old *authentication, log *slog.Logger) (*auth.KeyURL, error) {
	roots, err := readRoots(c.JWTJWKSCA)
	if err != nil {
		return nil, err
	}
	interval := time.Duration(c.JWTJWKSRefresh)
	if old != nil && old.keys != nil && old.keys.Made(c.JWTJWKSURL, roots, interval) {
		return old.keys, nil
	}
	return auth.NewKeyURL(c.JWTJWKSURL, roots, interval, log)
}

// readRoots reads the file of certificates at path, "" for none.
func readRoots(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

func (c *configuration) newCallback(a, old *authentication) (broker.Authenticator, error) {
	roots, err := readRoots(c.AuthHTTPCA)
	if err != nil {
		return nil, fmt.Errorf("auth-http-ca: %w", err)
	}
	o := auth.CallbackOptions{
		URL: c.AuthHTTPURL, Roots: roots, Timeout: time.Duration(c.AuthHTTPTimeout), Concurrency: c.AuthHTTPConcurrency,
		Allowed: time.Duration(c.AuthHTTPCache), Refused: time.Duration(c.AuthHTTPCacheRefused), CacheSize: c.AuthHTTPCacheSize,
	}
	for _, d := range []*time.Duration{&o.Allowed, &o.Refused} {
		if *d == 0 { // in auth.CallbackOptions zero asks for the default
			*d = -1
		}
	}
	if c.AuthHTTPTokenFile != "" {
		token, err := os.ReadFile(c.AuthHTTPTokenFile)
		if err != nil {
			return nil, fmt.Errorf("auth-http-token-file: %w", err)
		}
		o.Bearer = string(bytes.TrimSpace(token))
		if o.Bearer == "" || strings.ContainsFunc(o.Bearer, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("auth-http-token-file: %s has no token in one word of ASCII", c.AuthHTTPTokenFile)
		}
	}
	if old != nil && old.callback != nil && old.callback.Made(o) {
		a.callback = old.callback // what it remembers is still right
		return a.callback, nil
	}
	callback, err := auth.NewCallback(o)
	if err != nil {
		return nil, fmt.Errorf("auth-http-url: %w", err)
	}
	a.callback = callback
	return callback, nil
}

// authenticator is what the broker asks; nil lets everybody in.
func (a *authentication) authenticator() broker.Authenticator {
	if a.chain == nil {
		return nil
	}
	return a.chain
}

// start begins the work in the background, of what old did not have already. review
// is called, from any goroutine, when keys have come that a published set has now.
func (a *authentication) start(old *authentication, review func()) {
	switch {
	case a.keys == nil:
	case old != nil && old.keys == a.keys:
		a.keys.Refresh(review)
	default:
		a.keys.Start(review)
	}
}

// stop ends the work in the background, of what next does not have too; nil is
// no next.
func (a *authentication) stop(next *authentication) {
	if a.keys != nil && (next == nil || next.keys != a.keys) {
		a.keys.Close()
	}
	if a.callback != nil && (next == nil || next.callback != a.callback) {
		a.callback.Close()
	}
}

// givesClaims reports whether a method says what its clients may do.
func (c *configuration) givesClaims() bool {
	return slices.Contains(c.methods(), "jwt") || slices.Contains(c.methods(), "http")
}

// flagNames are the names of a configuration struct's flags.
func flagNames(t reflect.Type) (names []string) {
	for i := range t.NumField() {
		names = append(names, keyOf(t.Field(i)))
	}
	return names
}

// methods are the names of the methods that are asked, in order.
func (c *configuration) methods() []string {
	if len(c.Auth) > 0 {
		return c.Auth
	}
	var names []string
	for _, m := range authMethods {
		if m.configured(c) {
			names = append(names, m.name)
		}
	}
	if len(names) > 1 {
		// That a certificate is enough where there are passwords has to be said.
		names = slices.DeleteFunc(names, func(n string) bool { return n == "certificate" })
	}
	return names
}

// namesClients reports whether clients get names from their certificates.
func (l *listenerConfig) namesClients() bool {
	return l.withTLS() && l.ClientAuth != nil && *l.ClientAuth != "none" && l.CertUsername != nil && *l.CertUsername != "none"
}

// takesTokens reports whether there is something to check tokens by.
func (c *configuration) takesTokens() bool {
	return len(c.JWTKeys)+len(c.JWTSecret) > 0 || c.JWTJWKSURL != ""
}

// authMethod is what is to be known of a method.
type authMethod struct {
	name, needs string
	configured  func(c *configuration) bool
}

// authMethods are all methods, in the order in which they are asked if auth
// does not give one: those that need not wait first.
var authMethods = []authMethod{ //nolint:gochecknoglobals // a table
	{"scram", "scram-file", func(c *configuration) bool { return c.ScramFile != "" }},
	{"certificate", "listener that takes names from client certificates (tls-client-auth, tls-username)", func(c *configuration) bool {
		return slices.ContainsFunc(c.Listeners, func(l listenerConfig) bool { return l.namesClients() })
	}},
	{"jwt", "jwt-keys, jwt-secret or jwt-jwks-url", (*configuration).takesTokens},
	{"password", "password-file", func(c *configuration) bool { return c.PasswordFile != "" }},
	{"http", "auth-http-url", func(c *configuration) bool { return c.AuthHTTPURL != "" }},
}

// methodNames are for messages.
func methodNames() string {
	var names []string
	for _, m := range authMethods {
		names = append(names, m.name)
	}
	return strings.Join(names, ", ")
}
