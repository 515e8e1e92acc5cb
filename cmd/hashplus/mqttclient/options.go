// Package mqttclient is the MQTT client behind the pub, sub, request and
// respond commands: one small interface over two well-kept libraries, paho.golang
// for MQTT 5.0 and paho.mqtt.golang for 3.1 and 3.1.1. It adds what they leave
// to the caller: one way to dial every kind of URL, reconnecting with
// exponential back-off and jitter, subscribing again when the server kept no
// session, and errors that say whether trying again can help.
package mqttclient

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Version is the protocol level of CONNECT.
type Version byte

// Protocol levels.
const (
	V31  Version = 3 // MQIsdp
	V311 Version = 4
	V5   Version = 5
)

// Options say where and how to connect. URL is required; the zero value of each
// other field means what its comment says.
type Options struct {
	URL     *url.URL    // mqtt, mqtts, ws, wss or unix, see ParseURL
	TLS     *tls.Config // for mqtts and wss; nil verifies against the system's roots
	Header  http.Header // sent with a WebSocket upgrade
	Version Version     // 0 means V5

	ClientID      string // "" lets the server (5.0) or this package (3.x) choose
	Username      string
	HasUsername   bool // a username of zero length is legal
	Password      []byte
	HasPassword   bool
	CleanStart    bool          // of the first connect; Clean Session in 3.x
	SessionExpiry uint32        // seconds, 5.0 only
	KeepAlive     time.Duration // 0 switches it off; whole seconds up to 65535 s
	Will          *Will         // nil: none

	ReceiveMaximum  uint16         // 5.0; 0 leaves it out
	MaxPacketSize   uint32         // 5.0; 0 leaves it out
	RequestResponse bool           // 5.0: ask for Response Information
	UserProperties  []UserProperty // of CONNECT, 5.0

	ConnectTimeout time.Duration // of one attempt, network included; 0 means 10 s
	Reconnect      bool          // connect again when the connection is lost
	RetryFirst     bool          // also keep trying when the first connect fails
	Backoff        Backoff       // waits between attempts

	// OnMessage is called for each message that arrives, in order, on a
	// goroutine of the connection; the message is acknowledged when it returns
	// true. After it returned false nothing more is acknowledged, so that a
	// durable session gets the rest again. It must not wait for an
	// acknowledgement of its own client. The message belongs to the callee.
	OnMessage func(Message) (ack bool)

	// Log is told of lost connections and new attempts; nil is silent.
	Log *slog.Logger
}

// UserProperty is a name and value pair.
type UserProperty struct{ Key, Value string }

// Message is an application message, in either direction. What stands below
// Properties needs MQTT 5.0 and stays zero in older versions.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	Dup     bool // received messages only
	Properties
}

// Properties are the properties of a PUBLISH or a will.
type Properties struct {
	ContentType     string
	ResponseTopic   string
	CorrelationData []byte // nil: absent
	Text            bool   // Payload Format Indicator 1
	HasExpiry       bool
	Expiry          uint32 // Message Expiry Interval, seconds
	User            []UserProperty
	SubscriptionID  int // received messages only; 0: none
}

// IsZero reports whether no property is set.
func (p *Properties) IsZero() bool {
	return p.ContentType == "" && p.ResponseTopic == "" && p.CorrelationData == nil &&
		!p.Text && !p.HasExpiry && len(p.User) == 0
}

// Will is the message the server publishes when the connection is lost.
type Will struct {
	Message
	Delay uint32 // Will Delay Interval, seconds, 5.0 only
}

// Subscription is one topic filter with its options. NoLocal,
// RetainAsPublished and RetainHandling need MQTT 5.0.
type Subscription struct {
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte // 0: send retained; 1: only if new; 2: never
}

// Connected is what the server said when it accepted the connection.
type Connected struct {
	SessionPresent      bool
	ClientID            string // the one in use, assigned or asked for
	ResponseInformation string // 5.0, "" if none
	ServerKeepAlive     uint16 // 5.0, 0 if none
}

// ParseURL reads the address of a server: mqtt://, mqtts://, ws://, wss:// with
// host and optional port (1883, 8883, 80, 443) or unix:///path. tcp:// and ssl:// are
// read as mqtt:// and mqtts://. A missing path of ws:// and wss:// becomes /mqtt.
// A user and password in the URL are left there for the caller to take out.
func ParseURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		return nil, fmt.Errorf("%q has no scheme: write mqtt://, mqtts://, ws://, wss:// or unix://", s)
	}
	u, err := url.Parse(s)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) { // its text repeats the URL, which may hold a password
			err = ue.Err
		}
		return nil, fmt.Errorf("not a URL: %w", err)
	}
	var port string
	switch u.Scheme {
	case "mqtt", "tcp":
		u.Scheme, port = "mqtt", "1883"
	case "mqtts", "ssl", "tls":
		u.Scheme, port = "mqtts", "8883"
	case "ws":
		port = "80"
	case "wss":
		port = "443"
	case "unix":
		if u.Path = u.Host + u.Path; u.Path == "" {
			return nil, errors.New("unix:// needs a path, such as unix:///run/hashplus.sock")
		}
		u.Host = ""
		return u, nil
	default:
		return nil, fmt.Errorf("scheme %q is not one of mqtt, mqtts, ws, wss, unix", u.Scheme)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("%s:// needs a host", u.Scheme)
	}
	if u.Port() == "" {
		u.Host += ":" + port
	}
	if (u.Scheme == "ws" || u.Scheme == "wss") && (u.Path == "" || u.Path == "/") {
		u.Path = "/mqtt"
	}
	return u, nil
}

// check reports what the version or the protocol does not allow.
func (o *Options) check() error {
	switch o.Version {
	case 0:
		o.Version = V5
	case V31, V311, V5:
	default:
		return fmt.Errorf("MQTT version %d is not one of 3 (3.1), 4 (3.1.1), 5", o.Version)
	}
	if o.ConnectTimeout <= 0 {
		o.ConnectTimeout = 10 * time.Second
	}
	if o.KeepAlive < 0 || o.KeepAlive > 65535*time.Second {
		return errors.New("keep alive must be between 0 and 65535 s")
	}
	if o.Version == V5 {
		return nil
	}
	var bad []string
	note := func(set bool, what string) {
		if set {
			bad = append(bad, what)
		}
	}
	note(o.SessionExpiry != 0, "session expiry")
	note(o.ReceiveMaximum != 0, "receive maximum")
	note(o.MaxPacketSize != 0, "maximum packet size")
	note(len(o.UserProperties) > 0, "user properties")
	note(o.Will != nil && (o.Will.Delay != 0 || !o.Will.IsZero()), "will delay and will properties")
	if len(bad) > 0 {
		return fmt.Errorf("MQTT %s has no %s: use version 5", o.Version, strings.Join(bad, ", "))
	}
	if o.HasPassword && !o.HasUsername {
		return fmt.Errorf("MQTT %s allows no password without a username", o.Version)
	}
	if !o.CleanStart && o.ClientID == "" {
		return fmt.Errorf("MQTT %s needs a client id to resume a session", o.Version)
	}
	return nil
}

// String is the version as people write it.
func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	default:
		return "5.0"
	}
}
