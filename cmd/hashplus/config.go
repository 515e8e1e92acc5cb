package main

import (
	"encoding"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"
	"unicode"

	"hashplus/broker"
)

// configuration is everything that can be set about the broker. Each field is a
// flag of serve, an environment variable HASHPLUS_<FLAG> and, under the flag's
// name, a key of the YAML file. The default tags are the defaults of
// broker.Options and transport.Options, which a test holds them to.
type configuration struct {
	WS        []string         `name:"ws" group:"Listeners" placeholder:"ADDR" help:"Listen for MQTT over WebSocket at host:port. Repeatable."`
	TCP       []string         `name:"tcp" group:"Listeners" placeholder:"ADDR" help:"Listen for MQTT over TCP at host:port. Repeatable."`
	WSS       []string         `name:"wss" group:"Listeners" placeholder:"ADDR" help:"Listen for MQTT over WebSocket with TLS at host:port. Repeatable."`
	TLS       []string         `name:"tls" group:"Listeners" placeholder:"ADDR" help:"Listen for MQTT over TLS at host:port. Repeatable."`
	Unix      []string         `name:"unix" group:"Listeners" placeholder:"PATH" help:"Listen for MQTT on a Unix socket. Repeatable."`
	Listeners []listenerConfig `kong:"-"`

	WSPath               string   `group:"WebSocket" placeholder:"PATH" help:"The only request path that is answered; empty answers any."`
	WSOrigins            []string `group:"WebSocket" placeholder:"ORIGIN" help:"Values of the Origin header that are let in, such as https://example.com; * lets in every page. Requests without one are let in, and on a loopback listener those of loopback pages. Repeatable."`
	WSRequireSubprotocol bool     `group:"WebSocket" help:"Refuse clients that do not offer the sub-protocol mqtt or mqttv3.1."`
	WSDeflate            bool     `group:"WebSocket" help:"Let clients negotiate compression (permessage-deflate)."`
	WSDeflateMinSize     Size     `group:"WebSocket" default:"128" help:"Smallest packet that is worth compressing, 128 bytes at least. Where listeners differ the smallest holds for all of them."`
	WSPing               Duration `group:"WebSocket" default:"25s" help:"Interval of pings to clients, which keep proxies from closing idle connections; 0 sends none."`
	PongGrace            bool     `group:"WebSocket" default:"true" negatable:"" help:"Let pongs stretch the keep alive, to at most three times since the last MQTT packet."`

	tlsConfig `embed:"" group:"TLS"`

	proxyConfig `embed:"" group:"Proxies"`

	AllowAnonymous *bool  `group:"Access" negatable:"" help:"Let in clients without a username. Default: only if no authentication is configured, and then only on loopback and Unix listeners."`
	PasswordFile   string `group:"Access" placeholder:"FILE" help:"File with users and password hashes, as hashplus passwd and mosquitto_passwd write it (Argon2id, and PBKDF2, $$7$$)."`
	ScramFile      string `group:"Access" placeholder:"FILE" help:"File with SCRAM-SHA-256 verifiers, for MQTT 5.0 extended authentication."`

	authConfig `embed:"" group:"Access"`

	ACL string `name:"acl" group:"Access" placeholder:"FILE" help:"File with access rules, in the format of mosquitto; see permissions.md."`

	MaxKeepalive      Seconds `group:"Announced to clients" default:"0" help:"Longest keep alive of a version 5 client, which is told so; 0 does not limit it."`
	ReceiveMaximum    uint16  `group:"Announced to clients" default:"1024" help:"QoS 1 and 2 messages that a client may have on the way to the broker."`
	MaxPacketSize     Size    `group:"Announced to clients" default:"1MiB" help:"Largest packet from a client."`
	TopicAliasMaximum uint16  `group:"Announced to clients" default:"16" help:"Topic aliases of a connection, for each direction; 0 allows none."`
	MaxQoS            byte    `name:"max-qos" group:"Announced to clients" default:"2" help:"Highest QoS: 0, 1 or 2."`
	RetainAvailable   bool    `group:"Announced to clients" default:"true" negatable:"" help:"Accept retained messages."`
	MaxSessionExpiry  Seconds `group:"Announced to clients" default:"0" help:"Longest session expiry; 0 does not limit it."`
	ServerReference   string  `group:"Announced to clients" help:"Another server to name to version 5 clients when the broker shuts down."`

	MaxConnections    int       `group:"Limits" default:"100000" help:"Connections of all listeners together; 0 means as many as the system allows."`
	MaxSessions       int       `group:"Limits" default:"1000000" help:"Sessions, connected or not."`
	ConnectTimeout    Duration  `group:"Limits" default:"10s" help:"From the end of the handshake to a complete CONNECT; as long again for the WebSocket handshake before it."`
	MaxConnectSize    Size      `group:"Limits" default:"64KiB" help:"Largest CONNECT."`
	MaxInflight       int       `group:"Limits" default:"1024" help:"QoS 1 and 2 messages on the way to one client."`
	MaxQueuedMessages int       `group:"Limits" default:"10000" help:"Messages that wait in one session, beside those in flight."`
	MaxQueuedBytes    Size      `group:"Limits" default:"16MiB" help:"Bytes of messages that wait in one session."`
	QueueFull         queueFull `group:"Limits" default:"drop-newest" placeholder:"POLICY" help:"When a session's queue is full: drop-newest, drop-oldest, or disconnect, which ends the session, also an absent client's, with all that is queued."`
	MaxSubscriptions  int       `group:"Limits" default:"10000" help:"Subscriptions of one session."`
	MaxTopicLevels    int       `group:"Limits" default:"128" help:"Levels of a topic name or filter."`
	MaxTopicLength    int       `group:"Limits" default:"4096" help:"Bytes of a topic name or filter."`
	MaxUserProperties int       `group:"Limits" default:"64" help:"User properties of one packet."`
	WriteQueueBytes   Size      `group:"Limits" default:"1MiB" help:"Bytes that wait to be written to one connection before QoS 0 messages to it are dropped and others wait in its session."`
	WriteStall        Duration  `group:"Limits" default:"30s" help:"How long a client may read nothing of what waits for it before it is disconnected."`
	protection        `embed:"" group:"Limits"`
	Strict            bool `group:"Limits" help:"Keep to the letter of the specifications: pongs do not stretch the keep alive, and unmasked pong and close frames, which Python's paho sends, are refused."`

	durability `embed:"" group:"Durability"`

	Loops       int      `group:"Operation" default:"0" help:"Event loops; 0 means half as many as cores, 64 are the most."`
	IOUring     string   `name:"io-uring" group:"Operation" enum:"auto,on,off" default:"auto" help:"Flush connections together with Linux's io_uring: auto where the kernel lets us, on (fails to start without it) or off."`
	Health      string   `group:"Operation" placeholder:"ADDR" help:"Answer health probes over HTTP at host:port: /livez, and /readyz, which is 503 while the state is recovered, while the store fails or its disk is nearly full, and while the broker drains."`
	SysInterval Duration `group:"Operation" default:"10s" help:"Interval of the $$SYS topics; 0 switches them off."`
	Drain       Duration `group:"Operation" default:"10s" help:"How long to wait at the end until clients have been told and what is queued for them is written."`
	LogLevel    string   `group:"Operation" enum:"debug,info,warn,error" default:"info" help:"Least severe level that is logged: debug, info, warn or error."`
	LogFormat   string   `group:"Operation" enum:"text,json" default:"text" help:"Form of the log on stderr: text or json."`
}

// queueFull is broker.QueueFull with the text form that flags need.
type queueFull broker.QueueFull

// UnmarshalText reads a policy.
func (q *queueFull) UnmarshalText(b []byte) error { return (*broker.QueueFull)(q).UnmarshalText(b) }

// MarshalText writes a policy.
func (q queueFull) MarshalText() ([]byte, error) { return broker.QueueFull(q).MarshalText() }

// changed are the keys of a part of the configuration, a pointer to a struct, whose
// values are not the defaults.
func changed(part any) (keys []string) {
	v := reflect.ValueOf(part).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if textOf(v.Field(i)) != f.Tag.Get("default") && !(v.Field(i).IsZero() && f.Tag.Get("default") == "") {
			keys = append(keys, keyOf(f))
		}
	}
	return keys
}

// keyOf is the key of a field: the name in its tag, or max-publish-rate for
// MaxPublishRate.
func keyOf(f reflect.StructField) string {
	if name := f.Tag.Get("name"); name != "" {
		return name
	}
	var b strings.Builder
	for i, r := range f.Name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// textOf is a value as it stands in a default tag, or in the file.
func textOf(v reflect.Value) string {
	if list, ok := v.Interface().([]string); ok {
		return strings.Join(list, ",")
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, _ := m.MarshalText() // ours do not fail
		return string(text)
	}
	return fmt.Sprint(v.Interface())
}

// finish resolves the listeners and validates everything. It reports all faults
// at once, each with its key; after it listeners holds every listener and
// AllowAnonymous is set.
func (c *configuration) finish() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	named := len(c.WS)+len(c.TCP)+len(c.WSS)+len(c.TLS)+len(c.Unix)+len(c.Listeners) > 0
	if !named {
		c.WS, c.TCP = []string{"127.0.0.1:8083"}, []string{"127.0.0.1:1883"}
	}
	for _, address := range c.WS {
		c.Listeners = append(c.Listeners, listenerConfig{key: "ws", Network: "ws", Address: address})
	}
	for _, address := range c.TCP {
		c.Listeners = append(c.Listeners, listenerConfig{key: "tcp", Network: "tcp", Address: address})
	}
	for _, address := range c.WSS {
		c.Listeners = append(c.Listeners, listenerConfig{key: "wss", Network: "wss", Address: address})
	}
	for _, address := range c.TLS {
		c.Listeners = append(c.Listeners, listenerConfig{key: "tls", Network: "tls", Address: address})
	}
	for _, path := range c.Unix {
		c.Listeners = append(c.Listeners, listenerConfig{key: "unix", Network: "unix", Address: path})
	}
	c.WS, c.TCP, c.WSS, c.TLS, c.Unix = nil, nil, nil, nil, nil
	for i := range c.Listeners {
		if err := c.Listeners[i].finish(c); err != nil {
			faults = append(faults, err)
		}
	}
	c.checkAddresses(fault)
	c.proxyConfig.check(c.Listeners, fault)
	c.tlsConfig.check(c.Listeners, fault)
	c.protection.check(fault)
	c.durability.check(fault)
	c.checkAccess(fault)
	c.checkRanges(fault)
	return errors.Join(onlyOnce(faults)...)
}

// onlyOnce leaves out faults that say the same: listeners share settings.
func onlyOnce(faults []error) (once []error) {
	said := map[string]bool{}
	for _, joined := range faults {
		for _, f := range parts(joined) {
			if !said[f.Error()] {
				once = append(once, f)
			}
			said[f.Error()] = true
		}
	}
	return once
}

// parts are the errors that were joined to err, or err alone; none are nil's.
func parts(err error) (all []error) {
	joined, ok := err.(interface{ Unwrap() []error }) // one that is wrapped is one fault
	switch {
	case err == nil:
	case ok:
		for _, e := range joined.Unwrap() {
			all = append(all, parts(e)...)
		}
	default:
		all = []error{err}
	}
	return all
}

// checkAccess settles who may connect without a name.
func (c *configuration) checkAccess(fault func(key, format string, args ...any)) {
	c.checkAuth(fault)
	authenticated := len(c.methods()) > 0
	if c.BanAuthFailures > 0 && !authenticated {
		fault("ban-auth-failures", "is set, but nobody has to show who they are: no authentication (such as password-file or jwt-keys) is configured")
	}
	explicit := c.AllowAnonymous != nil
	allow := !authenticated
	if explicit {
		allow = *c.AllowAnonymous
	}
	c.AllowAnonymous = &allow
	for _, f := range []struct{ key, path string }{
		{"password-file", c.PasswordFile}, {"scram-file", c.ScramFile}, {"acl", c.ACL},
		{"jwt-jwks-ca", c.JWTJWKSCA}, {"auth-http-ca", c.AuthHTTPCA}, {"auth-http-token-file", c.AuthHTTPTokenFile},
	} {
		if f.path == "" {
			continue
		}
		if info, err := os.Stat(f.path); err != nil {
			fault(f.key, "%v", err)
		} else if info.IsDir() {
			fault(f.key, "%s is a directory", f.path)
		}
	}
	switch {
	case !allow && !authenticated:
		fault("allow-anonymous", "is off, but no authentication (such as password-file or jwt-keys) is configured, so nobody could connect")
	case allow && !explicit:
		for _, l := range c.Listeners {
			if !l.local() {
				fault(l.key, "%s can be reached from other machines: configure authentication (such as password-file or jwt-keys) "+
					"or say allow-anonymous to let everybody in", l.url())
			}
		}
	}
}

// checkRanges holds the numbers to what the protocol and the broker allow.
func (c *configuration) checkRanges(fault func(key, format string, args ...any)) {
	atLeast := func(key string, v, lo Duration) {
		if v < lo {
			fault(key, "%s is not allowed; %s or more is", v, lo)
		}
	}
	if c.WSPath != "" && !strings.HasPrefix(c.WSPath, "/") {
		fault("ws-path", "%q does not begin with /", c.WSPath)
	}
	for _, o := range c.WSOrigins {
		if err := checkOrigin(o); err != nil {
			fault("ws-origins", "%v", err)
		}
	}
	checkSize(fault, "ws-deflate-min-size", c.WSDeflateMinSize)
	atLeast("ws-ping", c.WSPing, 0)

	checkNumber(fault, "max-keepalive", c.MaxKeepalive)
	checkNumber(fault, "receive-maximum", c.ReceiveMaximum)
	checkSize(fault, "max-packet-size", c.MaxPacketSize)
	checkNumber(fault, "max-qos", c.MaxQoS)

	c.checkAuthRanges(fault, func(key string, v, lo, hi Duration) {
		if v < lo || v > hi {
			fault(key, "%s is not allowed; from %s to %s is", v, lo, hi)
		}
	})

	checkNumber(fault, "max-connections", c.MaxConnections)
	checkNumber(fault, "max-sessions", c.MaxSessions)
	atLeast("connect-timeout", c.ConnectTimeout, Duration(time.Millisecond))
	checkSize(fault, "max-connect-size", c.MaxConnectSize)
	checkNumber(fault, "max-inflight", c.MaxInflight)
	checkNumber(fault, "max-queued-messages", c.MaxQueuedMessages)
	checkSize(fault, "max-queued-bytes", c.MaxQueuedBytes)
	checkNumber(fault, "max-subscriptions", c.MaxSubscriptions)
	checkNumber(fault, "max-topic-levels", c.MaxTopicLevels)
	checkNumber(fault, "max-topic-length", c.MaxTopicLength)
	checkNumber(fault, "max-user-properties", c.MaxUserProperties)
	checkSize(fault, "write-queue-bytes", c.WriteQueueBytes)
	atLeast("write-stall", c.WriteStall, Duration(time.Millisecond))

	checkNumber(fault, "loops", c.Loops)
	atLeast("sys-interval", c.SysInterval, 0)
	atLeast("drain", c.Drain, 0)
}
