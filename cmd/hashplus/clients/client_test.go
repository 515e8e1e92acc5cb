package clients

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Versions, as CONNECT names them.
const (
	v31  = 3
	v311 = 4
	v5   = 5
)

// setup is how a client connects. The zero value of all but URL and Version
// is a new session, kept no longer than the connection.
type setup struct {
	URL                 string   `json:"url"`
	Version             int      `json:"version"`
	ClientID            string   `json:"clientId"`
	Keep                bool     `json:"keep,omitempty"` // resume the session and keep it for 300 s
	KeepAlive           int      `json:"keepAlive"`      // s; 0 is 30
	Will                *message `json:"will,omitempty"`
	ResponseInformation bool     `json:"responseInformation,omitempty"` // v5: ask for a reply prefix
	Aliases             int      `json:"aliases,omitempty"`             // v5: use topic aliases both ways, at most so many

	login // of libraries that canLogin knows
}

// login is how a client shows who it is.
type login struct {
	CA          string `json:"ca,omitempty"`          // certificates (PEM) that a server with TLS is held to
	Certificate string `json:"certificate,omitempty"` // its own (PEM), with Key
	Key         string `json:"key,omitempty"`
	Username    string `json:"username,omitempty"`
	Password    string `json:"password,omitempty"`
	Bearer      string `json:"bearer,omitempty"`      // in the Authorization header; not in browsers
	Subprotocol string `json:"subprotocol,omitempty"` // one more to offer; in browsers
	Renewable   bool   `json:"renewable,omitempty"`   // v5: the Authentication Method is JWT
	Token       string `json:"token,omitempty"`       // v5, if Renewable: the Authentication Data
}

// message is a PUBLISH, in or out.
type message struct {
	Topic      string      `json:"topic"`
	Payload    []byte      `json:"payload"`
	QoS        byte        `json:"qos"`
	Retain     bool        `json:"retain,omitempty"`
	Duplicate  bool        `json:"duplicate,omitempty"` // in only
	Properties *properties `json:"properties,omitempty"`
}

// properties are those of a v5 PUBLISH.
type properties struct {
	ResponseTopic string      `json:"responseTopic,omitempty"`
	Correlation   []byte      `json:"correlation,omitempty"`
	ContentType   string      `json:"contentType,omitempty"`
	UTF8          bool        `json:"utf8,omitempty"`
	Expiry        uint32      `json:"expiry,omitempty"` // s
	User          [][2]string `json:"user,omitempty"`
	Subscriptions []int       `json:"subscriptions,omitempty"` // in only
	Alias         int         `json:"alias,omitempty"`         // in only
}

func (m message) String() string {
	payload := string(m.Payload)
	if len(payload) > 40 {
		payload = fmt.Sprintf("%.40s… (%d bytes)", payload, len(m.Payload))
	}
	return fmt.Sprintf("%s q%d %q", m.Topic, m.QoS, payload)
}

// tls is what the client knows of certificates; nil without CA.
func (l *login) tls() *tls.Config {
	if l.CA == "" {
		return nil
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM([]byte(l.CA))
	if l.Certificate != "" {
		pair, err := tls.X509KeyPair([]byte(l.Certificate), []byte(l.Key))
		if err != nil {
			panic(err) // the test has made it
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

// subscription is one filter of a SUBSCRIBE; all but the first two are v5.
type subscription struct {
	Filter            string `json:"filter"`
	QoS               byte   `json:"qos"`
	NoLocal           bool   `json:"noLocal,omitempty"`
	RetainAsPublished bool   `json:"retainAsPublished,omitempty"`
	Identifier        int    `json:"identifier,omitempty"`
}

// client is one connection of a library, in one session. Libraries connect
// again on their own when the connection is lost.
type client interface {
	// connect returns when CONNACK has come.
	connect() (connected, error)
	// subscribe returns the code in SUBACK.
	subscribe(s subscription) (byte, error)
	unsubscribe(filter string) error
	// publish returns when the message has been sent (QoS 0), or when the last
	// packet of its handshake has come.
	publish(m message) error
	// disconnect sends DISCONNECT.
	disconnect() error
	// inbox is where what arrives is kept.
	inbox() *inbox
}

// connected is what CONNACK says, as far as the library passes it on.
type connected struct {
	Session             *bool  `json:"session"` // session present; nil: the library does not tell
	ResponseInformation string `json:"responseInformation"`
}

// inbox keeps what came to a client, in order. Any goroutine.
type inbox struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	messages []message
	ups      int   // connections after the first
	downs    int   // connections lost
	reasons  []int // of each DISCONNECT that the server sent
}

func newInbox() *inbox { return &inbox{changed: make(chan struct{})} }

func (in *inbox) change(f func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	f()
	close(in.changed)
	in.changed = make(chan struct{})
}

func (in *inbox) add(m message) { in.change(func() { in.messages = append(in.messages, m) }) }
func (in *inbox) up()           { in.change(func() { in.ups++ }) }
func (in *inbox) down()         { in.change(func() { in.downs++ }) }
func (in *inbox) told(reason int) {
	in.change(func() { in.reasons = append(in.reasons, reason) })
}

var errTime = errors.New("time is up")

// wait returns when ok, called with the inbox locked, reports true.
func (in *inbox) wait(ok func() bool) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		in.mu.Lock()
		done, changed := ok(), in.changed
		in.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-deadline.C:
			return errTime
		}
	}
}

// take waits for n messages, takes them out and returns them.
func (in *inbox) take(t *testing.T, n int) []message {
	t.Helper()
	err := in.wait(func() bool { return len(in.messages) >= n })
	in.mu.Lock()
	defer in.mu.Unlock()
	if err != nil {
		t.Fatalf("%d of %d messages came: %v", len(in.messages), n, in.messages)
	}
	taken := in.messages[:n:n]
	in.messages = in.messages[n:]
	return taken
}

// all takes what has come by now.
func (in *inbox) all() []message {
	in.mu.Lock()
	defer in.mu.Unlock()
	taken := in.messages
	in.messages = nil
	return taken
}

// awaitDown waits until n connections in all have been lost.
func (in *inbox) awaitDown(t *testing.T, n int) {
	t.Helper()
	if in.wait(func() bool { return in.downs >= n }) != nil {
		t.Fatal("the client did not notice that its connection was lost")
	}
}

// awaitReasons waits for the DISCONNECT of the server, of which some libraries tell
// only after the end of the connection.
func (in *inbox) awaitReasons(t *testing.T) []int {
	t.Helper()
	if in.wait(func() bool { return len(in.reasons) > 0 }) != nil {
		t.Fatal("the client was told no reason")
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.reasons)
}

// lost is how many connections have been lost.
func (in *inbox) lost() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.downs
}

// awaitUp waits until the client has connected again n times in all.
func (in *inbox) awaitUp(t *testing.T, n int) {
	t.Helper()
	if in.wait(func() bool { return in.ups >= n }) != nil {
		t.Fatal("the client did not connect again")
	}
}

// library is an MQTT client library.
type library struct {
	name     string
	versions []int
	schemes  []string // of the URLs that it connects to
	client   func(t *testing.T, s setup) client
}

func libraries() []library {
	both := []string{"ws", "mqtt"}
	return []library{
		{name: "paho.mqtt.golang", versions: []int{v31, v311}, schemes: both, client: newPahoGo},
		{name: "autopaho", versions: []int{v5}, schemes: both, client: newAutopaho},
		{name: "paho-python", versions: []int{v31, v311, v5}, schemes: both, client: foreignClient(python, "")},
		{name: "MQTT.js", versions: []int{v31, v311, v5}, schemes: both, client: foreignClient(node, "")},
		{name: "MQTT.js-browser", versions: []int{v31, v311, v5}, schemes: []string{"ws"}, client: foreignClient(browser, "mqttjs")},
		{name: "paho-js-browser", versions: []int{v31, v311}, schemes: []string{"ws"}, client: foreignClient(browser, "pahojs")},
	}
}

// kind is a library speaking one version over one transport.
type kind struct {
	library
	version int
	scheme  string
}

func (k kind) String() string {
	return fmt.Sprintf("%s/%s/%s", k.name, map[string]string{"ws": "WebSocket", "mqtt": "TCP"}[k.scheme],
		map[int]string{v31: "3.1", v311: "3.1.1", v5: "5.0"}[k.version])
}

// url is where the shared broker listens for the kind.
func (k kind) url() string {
	if k.scheme == "ws" {
		return shared.ws
	}
	return shared.tcp
}

// eachKind runs f, in parallel, for every kind that the filters let through.
func eachKind(t *testing.T, f func(t *testing.T, k kind), filters ...func(kind) bool) {
	t.Parallel()
	ran := 0
	for _, l := range libraries() {
		for _, scheme := range l.schemes {
		versions:
			for _, version := range l.versions {
				k := kind{l, version, scheme}
				for _, ok := range filters {
					if !ok(k) {
						continue versions
					}
				}
				ran++
				t.Run(k.String(), func(t *testing.T) {
					t.Parallel()
					f(t, k)
				})
			}
		}
	}
	if ran == 0 {
		t.Fatal("no kind of client is left to test")
	}
}

func speaks5(k kind) bool { return k.version == v5 }

// room is a piece of topic space and client id space that belongs to one test.
// It has no character that a topic level may not hold, and at most 23 bytes.
func room(t *testing.T) string {
	roomsMu.Lock()
	defer roomsMu.Unlock()
	rooms++
	return fmt.Sprintf("r%dx%d", time.Now().UnixMilli()%1e8, rooms)
}

var (
	roomsMu sync.Mutex
	rooms   int
)

// dial connects a client of the kind; it is disconnected when the test ends.
func (k kind) dial(t *testing.T, s setup) (client, connected) {
	t.Helper()
	s.Version = k.version
	if s.URL == "" {
		s.URL = k.url()
	}
	if s.ClientID == "" {
		s.ClientID = room(t)
	}
	if s.KeepAlive == 0 {
		s.KeepAlive = 30
	}
	c := k.client(t, s)
	up, err := c.connect()
	if err != nil {
		t.Fatalf("connect to %s: %v", s.URL, err)
	}
	if k.version == v31 {
		up.Session = nil // CONNACK of MQTT 3.1 has no such flag
	}
	t.Cleanup(func() { c.disconnect() }) // may be gone already
	return c, up
}

func mustSubscribe(t *testing.T, c client, s subscription) {
	t.Helper()
	granted, err := c.subscribe(s)
	if err != nil {
		t.Fatalf("subscribe to %s: %v", s.Filter, err)
	}
	if granted != s.QoS {
		t.Fatalf("subscribe to %s at QoS %d: granted %#x", s.Filter, s.QoS, granted)
	}
}

func mustPublish(t *testing.T, c client, messages ...message) {
	t.Helper()
	for _, m := range messages {
		if err := c.publish(m); err != nil {
			t.Fatalf("publish %v: %v", m, err)
		}
	}
}

func mustDisconnect(t *testing.T, c client) {
	t.Helper()
	if err := c.disconnect(); err != nil {
		t.Fatalf("disconnect: %v", err)
	}
}

// payloads joins what messages say, in order.
func payloads(messages []message) string {
	var all []string
	for _, m := range messages {
		all = append(all, string(m.Payload))
	}
	return strings.Join(all, " ")
}
