package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"hashplus/broker"
	"hashplus/broker/wire"
)

// CallbackOptions configure a Callback. The zero value of each field but URL
// means the default that its comment names.
type CallbackOptions struct {
	URL         string        // https, or http on this machine; see CheckURL
	Roots       string        // certificates in PEM that the server is held to; "": the system's
	Bearer      string        // sent as Authorization: Bearer, if it is not empty
	Timeout     time.Duration // of one request, the wait for its turn included; default 3 s
	Concurrency int           // requests at once; default 16
	// Allowed and Refused are for how long answers are remembered; negative: not
	// at all. Default 30 s and 5 s.
	Allowed, Refused time.Duration
	CacheSize        int // answers of each kind that are remembered; default 10,000
}

// EnsureDefaults replaces zero values by their defaults.
func (o *CallbackOptions) EnsureDefaults() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&o.Timeout, 3 * time.Second}, {&o.Allowed, 30 * time.Second}, {&o.Refused, 5 * time.Second}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.Concurrency == 0 {
		o.Concurrency = 16
	}
	if o.CacheSize == 0 {
		o.CacheSize = 10_000
	}
}

// Callback asks an HTTP server who a client is, a broker.Authenticator. It POSTs
// what the client says of itself as JSON (see callbackRequest) and takes for an
// answer only 200 with a JSON object whose result is allow, deny or ignore (see
// callbackAnswer). Everything else (no answer in time, another status, nonsense)
// refuses the client as ServerUnavailable, and is not remembered. Any goroutine may call it.
type Callback struct {
	// Immutable.
	o      CallbackOptions
	client *http.Client
	key    []byte // of the cache's keys, random: the cache holds no passwords

	// Any goroutine.
	slots   chan struct{} // one for each request that runs
	allowed *answerCache
	refused *answerCache

	mu       sync.Mutex
	failures int       // in a row
	pause    time.Time // until then nobody is asked
}

// pauseTime is for how long a server that does not answer is not asked. Clients
// that wait for it take the goroutines of others that it does not concern.
const pauseTime = time.Second

var errPaused = errors.New("it has not answered lately")

// paused reports whether the server is not to be asked now.
func (c *Callback) paused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.pause)
}

// ended counts how a request ended: after as many failures in a row as there can
// be requests at once the server gets a pause.
func (c *Callback) ended(failed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !failed {
		c.failures = 0
		return
	}
	if c.failures++; c.failures >= c.o.Concurrency {
		c.failures, c.pause = 0, time.Now().Add(pauseTime)
	}
}

var (
	_ broker.Authenticator = (*Callback)(nil)
	_ Voucher              = (*Callback)(nil)
)

// NewCallback makes a Callback. The error tells of the URL or the roots.
func NewCallback(o CallbackOptions) (*Callback, error) {
	o.EnsureDefaults()
	if err := CheckURL(o.URL); err != nil {
		return nil, err
	}
	client, err := newHTTPClient(o.Roots, o.Timeout, o.Concurrency)
	if err != nil {
		return nil, err
	}
	return &Callback{
		o: o, client: client, key: randomBytes(sha256.Size), slots: make(chan struct{}, o.Concurrency),
		allowed: newAnswerCache(o.CacheSize), refused: newAnswerCache(o.CacheSize),
	}, nil
}

// Made reports whether o are what the Callback was made with.
func (c *Callback) Made(o CallbackOptions) bool {
	o.EnsureDefaults()
	return c.o == o
}

// Close closes idle connections to the server.
func (c *Callback) Close() { c.client.CloseIdleConnections() }

// callbackRequest is what the server is asked. Absent fields were not given.
type callbackRequest struct {
	ClientID    string               `json:"client_id"`
	Username    *string              `json:"username,omitempty"`
	Password    *string              `json:"password,omitempty"`
	Binary      []byte               `json:"password_base64,omitempty"` // in place of password where that is not UTF-8
	Address     string               `json:"address,omitempty"`         // the client's, without a port
	Listener    string               `json:"listener"`
	Transport   string               `json:"transport"`
	Path        string               `json:"path,omitempty"` // of the WebSocket upgrade
	Certificate *callbackCertificate `json:"certificate,omitempty"`
}

// callbackCertificate is the client's verified certificate.
type callbackCertificate struct {
	Username   string   `json:"username,omitempty"` // the name that the listener reads from it
	CommonName string   `json:"common_name,omitempty"`
	DNSNames   []string `json:"dns_names,omitempty"`
	Emails     []string `json:"emails,omitempty"`
	URIs       []string `json:"uris,omitempty"`
	Serial     string   `json:"serial"`
	Issuer     string   `json:"issuer"`
}

// callbackAnswer is what the server answers, a JSON object with these members.
// Others are left out.
type callbackAnswer struct {
	Result    string    // result: allow, deny or, for the next method to decide, ignore
	Username  *string   // username; absent: as in the request
	Publish   *[]string // publish, see Claims.Publish; absent or null: it does not say
	Subscribe *[]string // subscribe, see Claims.Subscribe
	ExpiresAt *float64  // expires_at: seconds since 1970; the connection ends then
}

// UnmarshalJSON takes members by their exact names, and each once: what one
// parser reads as deny none may read as allow.
func (a *callbackAnswer) UnmarshalJSON(b []byte) error {
	if err := checkMembers(b); err != nil {
		return err
	}
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &members); err != nil {
		return err
	}
	for name, to := range map[string]any{
		"result": &a.Result, "username": &a.Username, "publish": &a.Publish, "subscribe": &a.Subscribe, "expires_at": &a.ExpiresAt,
	} {
		if raw, has := members[name]; has {
			if err := json.Unmarshal(raw, to); err != nil {
				return err
			}
		}
	}
	return nil
}

// answer is a callbackAnswer in our terms.
type answer struct {
	grant broker.Grant
	err   error // a *broker.Refusal, perhaps as ErrNotMine
}

// Authenticate implements broker.Authenticator.
func (c *Callback) Authenticate(ctx context.Context, r *broker.AuthRequest) (broker.Grant, error) {
	body, err := json.Marshal(describe(r))
	if err != nil {
		return broker.Grant{}, err
	}
	key := answerKey(mac(c.key, string(body)))
	now := time.Now()
	for _, cache := range []*answerCache{c.allowed, c.refused} {
		if a, ok := cache.get(key, now); ok {
			return a.grant, a.err
		}
	}
	a, err := c.ask(ctx, body, r)
	if err != nil {
		return broker.Grant{}, &broker.Refusal{Reason: wire.ServerUnavailable, Detail: "no answer of the authentication server", Cause: err}
	}
	if a.err != nil {
		c.refused.put(key, a, now.Add(c.o.Refused), now)
	} else {
		until := now.Add(c.o.Allowed)
		if end := a.grant.ExpiresAt; !end.IsZero() && end.Before(until) {
			until = end
		}
		c.allowed.put(key, a, until, now)
	}
	return a.grant, a.err
}

// ask makes the request. An error is no answer.
func (c *Callback) ask(ctx context.Context, body []byte, r *broker.AuthRequest) (answer, error) {
	client := ctx
	ctx, cancel := context.WithTimeout(client, c.o.Timeout)
	defer cancel()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return answer{}, errors.New("too many requests wait for the server")
	}
	if c.paused() { // after the wait: it may have begun meanwhile
		return answer{}, errPaused
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.o.URL, bytes.NewReader(body))
	if err != nil {
		return answer{}, errors.New("the URL is malformed")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	if c.o.Bearer != "" {
		request.Header.Set("Authorization", "Bearer "+c.o.Bearer)
	}
	text, err := exchange(c.client, request, maxAnswerSize)
	if client.Err() == nil { // else it is the client that did not wait
		c.ended(err != nil)
	}
	if err != nil {
		return answer{}, err
	}
	a, err := parseAnswer(text, r)
	a.grant.Grounds = server(c.o.URL)
	return a, err
}

const maxAnswerSize = 64 << 10

// describe is what the server is told of r.
func describe(r *broker.AuthRequest) *callbackRequest {
	q := &callbackRequest{ClientID: r.ClientID}
	if r.HasUsername {
		q.Username = &r.Username
	}
	if r.HasPassword {
		if p := string(r.Password); utf8.ValidString(p) {
			q.Password = &p
		} else {
			q.Binary = r.Password
		}
	}
	if i := r.Info; i != nil {
		q.Listener, q.Transport = i.Listener, i.Transport
		if i.Remote.IsValid() {
			q.Address = i.Remote.Addr().Unmap().String()
		}
		if i.TLS != nil && i.TLS.Certificate != nil {
			x := i.TLS.Certificate
			q.Certificate = &callbackCertificate{
				Username: x.Username, CommonName: x.CommonName, DNSNames: x.DNSNames, Emails: x.Emails, URIs: x.URIs,
				Serial: x.Serial, Issuer: x.Issuer,
			}
		}
	}
	if r.Handshake != nil {
		q.Path = r.Handshake.Path
	}
	return q
}

// parseAnswer reads the server's answer to r.
func parseAnswer(text []byte, r *broker.AuthRequest) (a answer, err error) {
	var v callbackAnswer
	if json.Unmarshal(text, &v) != nil {
		return a, errors.New("the answer is not the JSON object that is expected")
	}
	switch v.Result {
	case "allow":
	case "deny":
		a.err = &broker.Refusal{Reason: wire.NotAuthorized, Detail: "refused by the authentication server"}
		return a, nil
	case "ignore":
		a.err = notMine{&broker.Refusal{Reason: wire.NotAuthorized, Detail: "unknown to the authentication server"}}
		return a, nil
	default:
		return a, fmt.Errorf("the answer's result is %.20q, not allow, deny or ignore", v.Result)
	}
	name := r.Username
	if v.Username != nil {
		name = *v.Username
	}
	if a.grant.Username, err = claimedName(name); err != nil {
		return answer{}, fmt.Errorf("the answer allows, but its username %w", err)
	}
	if v.ExpiresAt != nil {
		if *v.ExpiresAt <= 0 || *v.ExpiresAt > endOfTime {
			return answer{}, errors.New("the answer's expires_at is not a time that is to come")
		}
		a.grant.ExpiresAt = time.UnixMilli(int64(*v.ExpiresAt * 1000))
	}
	if v.Publish != nil || v.Subscribe != nil {
		claims, err := NewClaims(filtersOf(v.Publish), filtersOf(v.Subscribe))
		if err != nil {
			return answer{}, fmt.Errorf("the answer: %w", err)
		}
		a.grant.Data = claims
	}
	return a, nil
}

// server are the grounds of what a Callback lets in: who has said so.
type server string

// Holds implements Voucher: the server is the one that was asked then. It is not
// asked again: for that nobody keeps passwords.
func (c *Callback) Holds(_ string, grounds any) (mine, holds bool) {
	s, mine := grounds.(server)
	return mine, mine && string(s) == c.o.URL
}

func filtersOf(p *[]string) []string {
	if p == nil {
		return nil
	}
	return *p
}
