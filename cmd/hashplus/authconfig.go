package main

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"hashplus/broker/auth"
)

// authConfig says how clients show who they are, beside the files of passwords
// and SCRAM verifiers.
type authConfig struct {
	Auth []string `name:"auth" placeholder:"METHOD" help:"Methods by which clients show who they are, in the order in which they are asked: scram, certificate, jwt, password, http. The first one that the credentials are for decides. Default: those that are configured, in this order; certificate only if it is the only one. Repeatable."`

	JWTKeys           []string `name:"jwt-keys" placeholder:"FILE" help:"File with public keys that tokens (JWT) are signed with: PEM, or a JSON Web Key Set. RSA is for RS256, P-256 for ES256, Ed25519 for EdDSA. Repeatable."`
	JWTSecret         []string `name:"jwt-secret" placeholder:"FILE" help:"File with a secret that tokens are signed with (HS256), of 32 bytes or more. Repeatable."`
	JWTJWKSURL        string   `name:"jwt-jwks-url" placeholder:"URL" help:"Where a server publishes its JSON Web Key Set: https, or http on this machine."`
	JWTJWKSCA         string   `name:"jwt-jwks-ca" placeholder:"FILE" help:"Certificates (PEM) that the server of jwt-jwks-url is held to; empty means the system's."`
	JWTJWKSRefresh    Duration `name:"jwt-jwks-refresh" default:"10m" help:"How often the keys are fetched again. A token of a key that is not known has them fetched at once."`
	JWTIssuer         string   `name:"jwt-issuer" placeholder:"ISS" help:"The only issuer (iss) whose tokens are taken; empty takes any."`
	JWTAudience       []string `name:"jwt-audience" placeholder:"AUD" help:"Audiences (aud), one of which a token has to be for; without any a token for anybody is taken. Repeatable."`
	JWTClockSkew      Duration `name:"jwt-clock-skew" default:"10s" help:"By how much the clocks of issuer and broker may differ; a token is valid that much longer. At most 10m."`
	JWTRequireExp     bool     `name:"jwt-require-exp" default:"true" negatable:"" help:"Take only tokens that say when they end (exp)."`
	JWTUsernameClaim  string   `name:"jwt-username-claim" default:"sub" placeholder:"CLAIM" help:"The claim that names the user."`
	JWTClientIDClaim  string   `name:"jwt-client-id-claim" default:"clientid" placeholder:"CLAIM" help:"The claim that, if a token has it, must be the client identifier."`
	JWTPublishClaim   string   `name:"jwt-publish-claim" default:"publish" placeholder:"CLAIM" help:"The claim that, if a token has it, lists the filters of what may be published."`
	JWTSubscribeClaim string   `name:"jwt-subscribe-claim" default:"subscribe" placeholder:"CLAIM" help:"The claim that, if a token has it, lists the filters of what may be subscribed to and received."`
	JWTFrom           []string `name:"jwt-from" default:"password" placeholder:"PLACE" help:"Where a token is looked for: password, header (Authorization: Bearer), cookie=NAME, query (?token=) and subprotocol (bearer.TOKEN). The first that is found counts. cookie needs ws-origins. AUTH takes tokens in any case. Repeatable."`

	AuthHTTPURL          string   `name:"auth-http-url" placeholder:"URL" help:"Server that is asked who a client is, by POST with JSON: https, or http on this machine. If it does not answer, nobody is let in by it."`
	AuthHTTPCA           string   `name:"auth-http-ca" placeholder:"FILE" help:"Certificates (PEM) that the server of auth-http-url is held to; empty means the system's."`
	AuthHTTPTokenFile    string   `name:"auth-http-token-file" placeholder:"FILE" help:"File with what is sent to auth-http-url as Authorization: Bearer."`
	AuthHTTPTimeout      Duration `name:"auth-http-timeout" default:"3s" help:"How long the server may take for one client, waiting for its turn included."`
	AuthHTTPConcurrency  int      `name:"auth-http-concurrency" default:"16" help:"Requests to the server at once."`
	AuthHTTPCache        Duration `name:"auth-http-cache" default:"30s" help:"How long an answer that lets a client in is remembered; 0 remembers none."`
	AuthHTTPCacheRefused Duration `name:"auth-http-cache-refused" default:"5s" help:"How long an answer that does not is remembered; 0 remembers none."`
	AuthHTTPCacheSize    int      `name:"auth-http-cache-size" default:"10000" help:"Answers of each kind that are remembered."`
}

// checkAuth settles which methods there are. It follows the listeners' finish.
func (c *configuration) checkAuth(fault func(key, format string, args ...any)) {
	for i, name := range c.Auth {
		known := slices.IndexFunc(authMethods, func(m authMethod) bool { return m.name == name })
		switch {
		case known < 0:
			fault("auth", "unknown method %q; %s are known", name, methodNames())
		case slices.Contains(c.Auth[:i], name):
			fault("auth", "%s stands there twice", name)
		case !authMethods[known].configured(c):
			fault("auth", "names %s, but there is no %s", name, authMethods[known].needs)
		}
	}
	for _, m := range authMethods {
		if len(c.Auth) > 0 && m.name != "certificate" && m.configured(c) && !slices.Contains(c.Auth, m.name) {
			fault("auth", "leaves out %s, although there is %s", m.name, m.needs)
		}
	}
	for _, u := range []struct{ key, url string }{{"jwt-jwks-url", c.JWTJWKSURL}, {"auth-http-url", c.AuthHTTPURL}} {
		if u.url == "" {
			continue
		}
		if err := auth.CheckURL(u.url); err != nil {
			fault(u.key, "%v", err)
		}
	}
	for _, claim := range []struct{ key, name string }{
		{"jwt-username-claim", c.JWTUsernameClaim}, {"jwt-client-id-claim", c.JWTClientIDClaim},
		{"jwt-publish-claim", c.JWTPublishClaim}, {"jwt-subscribe-claim", c.JWTSubscribeClaim},
	} {
		if claim.name == "" {
			fault(claim.key, "is empty")
		}
	}
	c.checkUse(fault)
	c.checkTokenSources(fault)
}

// checkUse finds settings of methods that are not there: who sets one thinks that
// clients are held to it.
func (c *configuration) checkUse(fault func(key, format string, args ...any)) {
	for _, key := range changed(&c.authConfig) {
		switch {
		case strings.HasPrefix(key, "jwt-jwks-") && c.JWTJWKSURL == "":
			fault(key, "is set, but keys are not fetched: jwt-jwks-url is empty")
		case strings.HasPrefix(key, "jwt-") && !c.takesTokens():
			fault(key, "is set, but tokens are not taken: there is none of jwt-keys, jwt-secret and jwt-jwks-url to check them by")
		case strings.HasPrefix(key, "auth-http-") && c.AuthHTTPURL == "":
			fault(key, "is set, but no server is asked: auth-http-url is empty")
		case key == "jwt-jwks-ca" && plainHTTP(c.JWTJWKSURL):
			fault(key, "is set, but no server is held to it: jwt-jwks-url is http://")
		case key == "auth-http-ca" && plainHTTP(c.AuthHTTPURL):
			fault(key, "is set, but no server is held to it: auth-http-url is http://")
		}
	}
}

// plainHTTP reports whether a server shows no certificate.
func plainHTTP(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && u.Scheme == "http"
}

// checkAuthRanges holds the numbers to what makes sense.
func (c *configuration) checkAuthRanges(fault func(key, format string, args ...any), between func(key string, v, lo, hi Duration)) {
	// What is revoked, or has ended, is let in for that much longer.
	between("jwt-jwks-refresh", c.JWTJWKSRefresh, Duration(time.Second), Duration(24*time.Hour))
	between("jwt-clock-skew", c.JWTClockSkew, 0, Duration(10*time.Minute))
	between("auth-http-timeout", c.AuthHTTPTimeout, Duration(time.Millisecond), Duration(time.Minute))
	checkNumber(fault, "auth-http-concurrency", c.AuthHTTPConcurrency)
	between("auth-http-cache", c.AuthHTTPCache, 0, Duration(24*time.Hour))
	between("auth-http-cache-refused", c.AuthHTTPCacheRefused, 0, Duration(24*time.Hour))
	checkNumber(fault, "auth-http-cache-size", c.AuthHTTPCacheSize)
}

// checkTokenSources holds cookies to a list of origins: a browser adds them to
// the upgrade requests of foreign pages too, so that without one every page that
// a user visits could act in their name.
func (c *configuration) checkTokenSources(fault func(key, format string, args ...any)) {
	cookies := false
	for _, from := range c.JWTFrom {
		s, err := auth.ParseTokenSource(from)
		if err != nil {
			fault("jwt-from", "%v", err)
		}
		cookies = cookies || s.Cookie() != ""
	}
	if !cookies || !slices.Contains(c.methods(), "jwt") {
		return
	}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if !l.upgrades() {
			continue
		}
		open := slices.IndexFunc(l.Origins, func(o string) bool { return o == "*" || o == "null" })
		switch {
		case len(l.Origins) == 0:
			fault("jwt-from", "cookie needs the origins whose pages may connect, and %s has none: list them in ws-origins (or origins of the listener)", l.url())
		case open >= 0:
			fault("jwt-from", "cookie needs the origins whose pages may connect, and %s lets in %q, which is every page", l.url(), l.Origins[open])
		}
	}
}
