package auth

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

const (
	// DefaultKeysInterval is how often KeyURL asks for the keys by itself.
	DefaultKeysInterval = 10 * time.Minute

	leastBetween = 10 * time.Second // two fetches that unknown keys ask for
)

// keysTimeout bounds a fetch. Tests set it.
var keysTimeout = 5 * time.Second

// KeyURL is a JSON Web Key Set that a server publishes and changes. The keys are
// asked for again every so often, and, though not more often than every ten
// seconds, when a token names one that is not known. While the server gives
// none the last ones stay in use; a key that is not in the set any more lets
// nobody in any more.
type KeyURL struct {
	// Immutable.
	url      string
	roots    string
	interval time.Duration
	client   *http.Client
	log      *slog.Logger
	stop     context.CancelFunc
	ctx      context.Context // until Close
	ended    chan struct{}

	waiting chan struct{} // one for each client that waits for a fetch

	mu       sync.Mutex
	keys     Keys
	failing  bool
	asked    time.Time     // when the last fetch began
	fetching chan struct{} // closed when the running fetch has ended; nil: none runs
	got      func()        // to be called after the next fetch that brings keys
}

var _ KeySource = (*KeyURL)(nil)

// NewKeyURL makes a KeyURL that has no keys until Start. rawURL is https, or http
// on this machine; see CheckURL. roots are certificates in PEM that the server's
// is held to, "" for the system's. interval 0 means the default.
func NewKeyURL(rawURL, roots string, interval time.Duration, log *slog.Logger) (*KeyURL, error) {
	if err := CheckURL(rawURL); err != nil {
		return nil, err
	}
	client, err := newHTTPClient(roots, keysTimeout, 2)
	if err != nil {
		return nil, err
	}
	u := &KeyURL{url: rawURL, roots: roots, interval: cmp.Or(interval, DefaultKeysInterval), client: client, log: log,
		ended: make(chan struct{}), waiting: make(chan struct{}, maxWaiting)}
	u.ctx, u.stop = context.WithCancel(context.Background())
	return u, nil
}

// Made reports whether the arguments are what the KeyURL was made with.
func (u *KeyURL) Made(rawURL, roots string, interval time.Duration) bool {
	return u.url == rawURL && u.roots == roots && u.interval == cmp.Or(interval, DefaultKeysInterval)
}

// Start has the keys fetched, now and from then on, in the background. It is
// called once. got, which may be nil, is called when they have first been had.
func (u *KeyURL) Start(got func()) {
	u.then(got)
	go u.run()
}

// then has got called after the next fetch that brings keys, once.
func (u *KeyURL) then(got func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.got = got
}

// Close ends what Start began. It is called once, after it.
func (u *KeyURL) Close() {
	u.stop()
	<-u.ended
	u.client.CloseIdleConnections()
}

func (u *KeyURL) run() {
	defer close(u.ended)
	for {
		wait := u.interval
		if <-u.refresh(0); u.isFailing() {
			wait = min(wait, leastBetween)
		}
		select {
		case <-time.After(wait):
		case <-u.ctx.Done():
			return
		}
	}
}

func (u *KeyURL) isFailing() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.failing
}

// refresh has the keys fetched, unless that was begun within the last between,
// and returns what is closed when it is done.
func (u *KeyURL) refresh(between time.Duration) <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fetching != nil {
		return u.fetching
	}
	done := make(chan struct{})
	if now := time.Now(); u.asked.IsZero() || now.Sub(u.asked) >= between {
		u.asked, u.fetching = now, done
		go u.fetch(done)
	} else {
		close(done)
	}
	return done
}

func (u *KeyURL) fetch(done chan struct{}) {
	keys, err := u.get()
	if got := u.fetched(keys, err); got != nil {
		got()
	}
	close(done)
}

// fetched takes what a fetch has brought, and returns what is to be called for it.
func (u *KeyURL) fetched(keys Keys, err error) (got func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fetching = nil
	switch {
	case u.ctx.Err() != nil:
	case err != nil:
		if !u.failing { // once, not for each attempt
			u.log.Error("the keys of tokens cannot be had; those that are known stay in use", "url", RedactURL(u.url), "keys", len(u.keys), "cause", err)
		}
		u.failing = true
	default:
		if len(keys) == 0 && len(u.keys) > 0 {
			u.log.Warn("the set of keys is empty now: no token is taken", "url", RedactURL(u.url))
		} else if len(keys) > 0 && (u.failing || len(u.keys) == 0) {
			u.log.Info("got the keys of tokens", "url", RedactURL(u.url), "keys", len(keys))
		}
		u.failing = false
		u.keys = keys
		got, u.got = u.got, nil
	}
	return got
}

func (u *KeyURL) get() (Keys, error) {
	ctx, cancel := context.WithTimeout(u.ctx, keysTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.url, nil)
	if err != nil {
		return nil, errors.New("the URL is malformed")
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	body, err := exchange(u.client, r, maxKeyFileSize)
	if err != nil {
		return nil, err
	}
	keys, faults, err := parseJWKS(body)
	if err == nil && len(keys) == 0 && len(faults) > 0 { // an empty set says that no key is good any more
		err = errors.Join(append([]error{errors.New("the set has no key for RS256, ES256 or EdDSA")}, faults...)...)
	}
	return keys, err
}

// find implements KeySource. For a key that is not known it waits for a fetch.
func (u *KeyURL) find(ctx context.Context, id, alg string) []key {
	if found := u.known(id, alg); len(found) > 0 || alg == "HS256" {
		return found
	}
	done := u.refresh(min(leastBetween, u.interval))
	select {
	case u.waiting <- struct{}{}:
		defer func() { <-u.waiting }()
	default: // tokens of keys that nobody knows must not hold up other clients
		return nil
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
	return u.known(id, alg)
}

func (u *KeyURL) empty() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.keys.empty()
}

func (u *KeyURL) has(print fingerprint) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.keys.has(print)
}

func (u *KeyURL) known(id, alg string) []key {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.keys.find(u.ctx, id, alg)
}

// Refresh asks for the keys and does not wait for them. got, which may be nil, is
// called when they have been had: not before the server answers again.
func (u *KeyURL) Refresh(got func()) {
	u.then(got)
	u.refresh(0)
}

// CheckURL reports why a server that decides who is let in must not be asked
// there: over plain http anybody on the way could answer in its place.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("it is not a URL such as https://login.example.com/path")
	case u.User != nil:
		return errors.New("the URL has a user or password in it, which --check and the process list would show")
	case u.RawQuery == hidden:
		return errors.New("the query is ..., which --check shows in place of one; put the real one there")
	case u.Fragment != "":
		return errors.New("the URL has a fragment, which no server gets")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return errors.New("http:// is for servers on this machine; anybody on the way could answer in the place of others, so they need https://")
	}
	return nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// hidden stands for a query.
const hidden = "..."

// RedactURL is raw as it may be shown: without what its query says.
func RedactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(malformed)"
	}
	if u.RawQuery != "" {
		u.RawQuery = hidden
	}
	u.User, u.Fragment = nil, ""
	return u.String()
}

// newHTTPClient is a client that holds servers to the certificates roots, "" for
// the system's, follows no redirects, and keeps at most conns connections.
func newHTTPClient(roots string, timeout time.Duration, conns int) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if roots != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(roots)) {
			return nil, errors.New("no certificate in PEM to hold the server to")
		}
	}
	return &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: timeout}).DialContext,
			TLSClientConfig:        config,
			ForceAttemptHTTP2:      true,
			MaxConnsPerHost:        conns,
			MaxIdleConnsPerHost:    conns,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}, nil
}

// exchange makes a request and returns the body of an answer with 200, of at
// most limit bytes. The error holds nothing of the URL but its host.
func exchange(c *http.Client, r *http.Request, limit int64) ([]byte, error) {
	response, err := c.Do(r)
	if err != nil {
		var u *url.Error // it holds the whole URL
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", r.URL.Host, response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("%s answered with more than %d bytes", r.URL.Host, limit)
	}
	return body, err
}
