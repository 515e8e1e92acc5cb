package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"hashplus/cmd/hashplus/mqttclient"
	"hashplus/topic"
)

// connectionFlags are the flags that all clients share.
type connectionFlags struct {
	URL         string          `short:"u" required:"" placeholder:"URL" help:"Server: mqtt://, mqtts://, ws://, wss:// with host and port, or unix:///path."`
	MQTTVersion protocolVersion `name:"mqtt-version" short:"V" default:"5" help:"MQTT version: 3.1, 3.1.1 or 5."`

	ClientID      string   `short:"i" help:"Client identifier; default: chosen by the server, in 3.x by the client."`
	CleanStart    bool     `default:"true" negatable:"" help:"Begin without an earlier session; --no-clean-start resumes one."`
	SessionExpiry Seconds  `default:"0" help:"How long the server keeps the session after the connection ends: a duration or never (5)."`
	Keepalive     Duration `short:"k" default:"60s" help:"Keep alive; 0 switches it off."`

	Username     string   `help:"User name."`
	Password     argument `placeholder:"TEXT" help:"Password. Other users of the machine can see it here; prefer the environment variable or --password-file."`
	PasswordFile string   `type:"path" help:"File with the password, without the line end."`

	ConnectUserProperty []userProperty `placeholder:"NAME=VALUE" sep:"none" help:"User property of CONNECT (5). Repeatable."`
	ReceiveMaximum      uint16         `help:"QoS 1 and 2 messages that the server may have on the way to us (5)."`
	MaxPacketSize       Size           `help:"Largest packet that the server may send us (5)."`

	WillTopic        string         `help:"Topic of the will."`
	WillMessage      argument       `placeholder:"TEXT" help:"Payload of the will."`
	WillQoS          byte           `name:"will-qos" default:"0" help:"QoS of the will."`
	WillRetain       bool           `help:"Retain the will."`
	WillDelay        Seconds        `default:"0" help:"How long after the connection was lost the will is sent (5)."`
	WillExpiry       Seconds        `default:"0" help:"Message expiry of the will (5)."`
	WillContentType  string         `help:"Content type of the will (5)."`
	WillUserProperty []userProperty `placeholder:"NAME=VALUE" sep:"none" help:"User property of the will (5). Repeatable."`

	CAFile   string   `name:"cafile" type:"path" help:"PEM file of the authorities to trust instead of the system's."`
	Cert     string   `type:"path" help:"PEM file of the client's certificate."`
	Key      string   `type:"path" help:"PEM file of the client's key."`
	Insecure bool     `help:"Do not verify the server's certificate."`
	Header   []string `placeholder:"NAME: VALUE" sep:"none" help:"HTTP header of the WebSocket upgrade. Repeatable."`

	ConnectTimeout Duration `default:"10s" help:"Limit for one attempt to connect."`
	Reconnect      bool     `default:"true" negatable:"" help:"Connect again when the connection is lost."`
	RetryFirst     bool     `help:"Keep trying when the first connection fails, too."`
	BackoffMin     Duration `default:"1s" help:"First wait before connecting again; it doubles, with jitter."`
	BackoffMax     Duration `default:"1m" help:"Longest wait before connecting again."`
	Quiet          bool     `help:"No notices on stderr."`
}

// protocolVersion is an MQTT version as people and the protocol write it.
type protocolVersion mqttclient.Version

// UnmarshalText reads 3.1, 3.1.1, 5 or the protocol level 3, 4, 5.
func (v *protocolVersion) UnmarshalText(b []byte) error {
	switch strings.TrimPrefix(string(b), "v") {
	case "3", "3.1", "31":
		*v = protocolVersion(mqttclient.V31)
	case "4", "3.1.1", "311":
		*v = protocolVersion(mqttclient.V311)
	case "5", "5.0":
		*v = protocolVersion(mqttclient.V5)
	default:
		return fmt.Errorf("%q is not one of 3.1, 3.1.1, 5", b)
	}
	return nil
}

// userProperty is NAME=VALUE.
type userProperty mqttclient.UserProperty

// UnmarshalText splits at the first equals sign.
func (p *userProperty) UnmarshalText(b []byte) error {
	k, v, ok := strings.Cut(string(b), "=")
	if !ok {
		return fmt.Errorf("%q is not NAME=VALUE", b)
	}
	p.Key, p.Value = k, v
	return nil
}

func userProperties(in []userProperty) []mqttclient.UserProperty {
	var out []mqttclient.UserProperty
	for _, p := range in {
		out = append(out, mqttclient.UserProperty(p))
	}
	return out
}

// options turns the flags into options. Its errors are usage errors.
func (f *connectionFlags) options(env *environment) (mqttclient.Options, error) {
	u, err := mqttclient.ParseURL(f.URL)
	if err != nil {
		return mqttclient.Options{}, usagef("--url: %w", err)
	}
	o := mqttclient.Options{
		URL:            u,
		Version:        mqttclient.Version(f.MQTTVersion),
		ClientID:       f.ClientID,
		CleanStart:     f.CleanStart,
		SessionExpiry:  uint32(f.SessionExpiry),
		KeepAlive:      time.Duration(f.Keepalive),
		ReceiveMaximum: f.ReceiveMaximum,
		MaxPacketSize:  uint32(min(f.MaxPacketSize, 1<<32-1)),
		UserProperties: userProperties(f.ConnectUserProperty),
		ConnectTimeout: time.Duration(f.ConnectTimeout),
		Reconnect:      f.Reconnect,
		RetryFirst:     f.RetryFirst,
		Backoff:        mqttclient.Backoff{Min: time.Duration(f.BackoffMin), Max: time.Duration(f.BackoffMax)},
	}
	if !f.Quiet {
		o.Log = slog.New(slog.NewTextHandler(env.stderr, &slog.HandlerOptions{ReplaceAttr: plain}))
	}
	if err := f.credentials(&o); err != nil {
		return o, usageError{err}
	}
	if err := f.will(&o); err != nil {
		return o, usageError{err}
	}
	if o.TLS, err = f.tls(u.Scheme); err != nil {
		return o, usageError{err}
	}
	for _, h := range f.Header {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return o, usagef("--header %q is not NAME: VALUE", name) // the value may be a secret
		}
		if o.Header == nil {
			o.Header = http.Header{}
		}
		o.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return o, nil
}

// plain leaves the time out of a notice, as it stands beside a terminal's
// other lines.
func plain(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

func (f *connectionFlags) credentials(o *mqttclient.Options) error {
	if user := o.URL.User; user != nil {
		o.Username, o.HasUsername = user.Username(), true
		if p, ok := user.Password(); ok {
			o.Password, o.HasPassword = []byte(p), true
		}
		o.URL.User = nil
	}
	if f.Username != "" {
		o.Username, o.HasUsername = f.Username, true
	}
	if f.Password.given && f.PasswordFile != "" {
		return errors.New("--password and --password-file: give one of them")
	}
	if f.Password.given {
		o.Password, o.HasPassword = f.Password.bytes(), true
	}
	if f.PasswordFile != "" {
		b, err := os.ReadFile(f.PasswordFile)
		if err != nil {
			return fmt.Errorf("--password-file: %w", err)
		}
		b = bytes.TrimSuffix(b, []byte("\n"))
		o.Password, o.HasPassword = bytes.TrimSuffix(b, []byte("\r")), true
	}
	return nil
}

func (f *connectionFlags) will(o *mqttclient.Options) error {
	if f.WillTopic == "" {
		if f.WillMessage.given || f.WillQoS != 0 || f.WillRetain || f.WillDelay != 0 || f.WillExpiry != 0 ||
			f.WillContentType != "" || len(f.WillUserProperty) > 0 {
			return errors.New("the --will flags need --will-topic")
		}
		return nil
	}
	if err := checkTopic("--will-topic", f.WillTopic); err != nil {
		return err
	}
	if f.WillQoS > 2 {
		return fmt.Errorf("--will-qos is %d; allowed are 0, 1, 2", f.WillQoS)
	}
	w := &mqttclient.Will{Delay: uint32(f.WillDelay)}
	w.Topic, w.Payload, w.QoS, w.Retain = f.WillTopic, f.WillMessage.bytes(), f.WillQoS, f.WillRetain
	w.ContentType, w.User = f.WillContentType, userProperties(f.WillUserProperty)
	w.HasExpiry, w.Expiry = f.WillExpiry != 0, uint32(f.WillExpiry)
	o.Will = w
	return nil
}

func (f *connectionFlags) tls(scheme string) (*tls.Config, error) {
	if scheme != "mqtts" && scheme != "wss" {
		if f.CAFile != "" || f.Cert != "" || f.Key != "" || f.Insecure {
			return nil, fmt.Errorf("--cafile, --cert, --key and --insecure need mqtts:// or wss://, not %s://", scheme)
		}
		return nil, nil
	}
	c := &tls.Config{InsecureSkipVerify: f.Insecure} //nolint:gosec // asked for by a flag that says so
	if f.CAFile != "" {
		pem, err := os.ReadFile(f.CAFile)
		if err != nil {
			return nil, fmt.Errorf("--cafile: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--cafile: no certificate in %s", f.CAFile)
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("--cert and --key go together")
	}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("--cert, --key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// dial connects. Wrong combinations of flags come back as usage errors.
func dial(ctx context.Context, env *environment, o mqttclient.Options) (*mqttclient.Client, error) {
	c, err := mqttclient.Dial(ctx, o)
	var known *mqttclient.Error
	if err == nil || errors.As(err, &known) || ctx.Err() != nil {
		return c, ended(env, ctx, err)
	}
	return nil, usageError{err}
}

// deadline is the context of a command: it ends with the first signal, and
// after timeout unless that is 0.
func deadline(env *environment, timeout Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return context.WithCancel(env.ctx)
	}
	return context.WithTimeoutCause(env.ctx, time.Duration(timeout), errTimeout)
}

// ended replaces the bare end of ctx by what ended it: a signal or --timeout.
func ended(env *environment, ctx context.Context, err error) error {
	switch {
	case err == nil, ctx.Err() == nil, !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded):
		return err
	case env.ctx.Err() != nil:
		return errInterrupted
	default:
		return errTimeout
	}
}

// checkTopic refuses what cannot be published to.
func checkTopic(flag, name string) error {
	if err := topic.CheckName(name); err != nil {
		return fmt.Errorf("%s %q: %w", flag, name, err)
	}
	return nil
}
