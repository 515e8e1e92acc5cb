package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"hashplus/bench/codec"
	"hashplus/bench/drive"
)

// Broker says which broker to load and how to speak to it.
type Broker struct {
	URL       string   `help:"Broker to load: ws://, wss://, tcp://, mqtt:// or mqtts://." default:"ws://127.0.0.1:8083/mqtt" placeholder:"URL"`
	Protocol  string   `help:"MQTT version: 3.1.1 or 5." enum:"3.1.1,5" default:"3.1.1"`
	Username  string   `help:"User name for CONNECT." placeholder:"NAME"`
	Password  string   `help:"Password for CONNECT." placeholder:"TEXT"`
	Header    []string `help:"Header of the WebSocket request, such as 'Cookie: token=x'; may be given several times." placeholder:"NAME: VALUE" sep:"none"`
	KeepAlive uint16   `help:"Keep alive in seconds; 0 turns it off." default:"0"`
	CA        string   `help:"File with the certificates to trust, for wss and mqtts." name:"ca" type:"existingfile" placeholder:"FILE"`
	Insecure  bool     `help:"Trust any certificate."`
	PID       int      `help:"Process id of the broker, to read the CPU time and memory of it and of the processes that it started." name:"pid" placeholder:"PID"`
	Label     string   `help:"Name of the broker in the results." placeholder:"NAME"`
}

// Load says how hard to press. Zero means the scenario's own default.
type Load struct {
	QoS      byte          `help:"Quality of service of publishers and subscribers." enum:"0,1,2" default:"0" name:"qos"`
	Payload  int           `help:"Payload size in bytes, at least 16; 64 unless the scenario says otherwise." placeholder:"BYTES"`
	Burst    int           `help:"Messages that leave in one write." placeholder:"N"`
	Window   int           `help:"Closed loop: messages that a publisher may have out, from publish to the last delivery." placeholder:"N"`
	Rate     float64       `help:"Open loop: messages published per second, in all. Latency then counts from when a message was due." placeholder:"PER-SECOND"`
	Duration time.Duration `help:"How long to measure." default:"10s"`
	Warmup   time.Duration `help:"How long to run before measuring." default:"2s"`
	Stall    time.Duration `help:"Closed loop: give up on messages after this long without a delivery." default:"2s"`
	Drain    time.Duration `help:"At the end, wait for late messages until none came for this long; what is not there by then is lost." default:"3s"`
}

// check finds settings that no load can have.
func (l *Load) check() error {
	var faults []error
	for flag, negative := range map[string]bool{
		"payload": l.Payload < 0, "burst": l.Burst < 0, "window": l.Window < 0, "rate": l.Rate < 0,
		"warmup": l.Warmup < 0, "stall": l.Stall < 0, "drain": l.Drain < 0,
	} {
		if negative {
			faults = append(faults, fmt.Errorf("--%s must not be negative", flag))
		}
	}
	if l.Duration <= 0 {
		faults = append(faults, errors.New("--duration must be above 0"))
	}
	return errors.Join(faults...)
}

// Pool says how the clients are made.
type Pool struct {
	Connecting int `help:"Connection attempts at a time." default:"64"`
	Processes  int `help:"Processes to spread the clients over; 0 takes as many as their file descriptors need." default:"0"`
	SourceSize int `help:"Connections per source address 127.0.0.x, on loopback." default:"20000"`
}

// Output says where results go.
type Output struct {
	JSON  string `help:"Write the result as JSON to this file; - is standard output." name:"json" placeholder:"FILE"`
	Quiet bool   `help:"No progress."`
	Floor bool   `help:"Measure a bare write first, and give CPU time in multiples of it too."`
}

// Options is what every scenario takes.
type Options struct {
	Broker `group:"Broker:"`
	Load   `group:"Load:"`
	Pool   `group:"Clients:"`
	Output `group:"Output:"`

	argv []string // arguments that give these options, if not the process's own
}

// tls is the configuration for the host name.
func (b *Broker) tls(host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, InsecureSkipVerify: b.Insecure}
	if b.CA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(b.CA)
	if err != nil {
		return nil, err
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", b.CA)
	}
	return c, nil
}

// header is the lines of --header as they go into a request.
func (b *Broker) header() (string, error) {
	var lines strings.Builder
	for _, h := range b.Header {
		name, value, ok := strings.Cut(h, ":")
		if !ok || name == "" || strings.ContainsAny(h, "\r\n") {
			return "", fmt.Errorf("--header: %q is not NAME: VALUE", h)
		}
		fmt.Fprintf(&lines, "%s: %s\r\n", name, strings.TrimSpace(value))
	}
	return lines.String(), nil
}

// target resolves the broker's URL.
func (b *Broker) target(ctx context.Context) (t drive.Target, err error) {
	u, err := url.Parse(b.URL)
	if err != nil {
		return t, fmt.Errorf("broker URL: %w", err)
	}
	port := u.Port()
	switch u.Scheme {
	case "ws", "wss":
		t.WebSocket = true
	case "tcp", "mqtt", "mqtts":
	default:
		return t, fmt.Errorf("broker URL: scheme %q is not one of ws, wss, tcp, mqtt, mqtts", u.Scheme)
	}
	if port == "" {
		port = map[string]string{"ws": "80", "wss": "443", "tcp": "1883", "mqtt": "1883", "mqtts": "8883"}[u.Scheme]
	}
	if u.Scheme == "wss" || u.Scheme == "mqtts" {
		if t.TLS, err = b.tls(u.Hostname()); err != nil {
			return t, err
		}
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return t, fmt.Errorf("broker URL: %w", err)
	}
	if len(addrs) == 0 {
		return t, errors.New("broker URL: host has no address")
	}
	addr, err := netip.ParseAddrPort(net.JoinHostPort(addrs[0].Unmap().String(), port))
	if err != nil {
		return t, fmt.Errorf("broker URL: %w", err)
	}
	t.Addr, t.Host = addr, u.Host
	if t.Path = u.RequestURI(); u.Path == "" {
		t.Path = "/mqtt"
	}
	t.Version = codec.V311
	if b.Protocol == "5" {
		t.Version = codec.V5
	}
	t.Username, t.Password, t.KeepAlive = b.Username, b.Password, b.KeepAlive
	t.Header, err = b.header()
	return t, err
}
