package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"time"
)

// Options configure a Server. The zero value of each field stands for the
// default it names.
type Options struct {
	// Loops is the number of event loops; default half of GOMAXPROCS, rounded
	// up (docs/adr/0002).
	Loops int

	// Logger takes what has no caller to return to; default slog.Default().
	Logger *slog.Logger

	// HandshakeTimeout bounds the time from accept to the end of the WebSocket
	// upgrade; default 10 s.
	HandshakeTimeout time.Duration

	// WriteStall is how long a peer may take no byte of a write queue that is
	// not empty before Stream.Stalled is called; default 30 s.
	WriteStall time.Duration

	// CloseTimeout bounds an orderly close: what is queued is flushed and the
	// WebSocket close handshake made within it; default 5 s.
	CloseTimeout time.Duration

	// DrainTimeout is how long unread input is thrown away after that, so that
	// the last bytes reach the peer instead of a reset; default 1 s.
	DrainTimeout time.Duration

	// IOUring says whether connections that have something to write at the same
	// time are flushed with one system call, by io_uring; default Auto
	// (docs/adr/0008).
	IOUring Use

	// MaxConns bounds the connections of all listeners together; 0 means no
	// limit. A WebSocket client past it gets status 503, others are closed.
	MaxConns int

	// Limits can be changed later.
	Limits Limits

	// Banned, if not nil, reports whether connections from an address are shut
	// out. It is asked before anything is spent on one, and must not block.
	Banned func(netip.Addr) bool

	// TLSHandshakeTimeout bounds a TLS handshake, from accept on; default 10 s.
	// The WebSocket upgrade has its HandshakeTimeout after it.
	TLSHandshakeTimeout time.Duration

	// TLSHandshakeRate is how many TLS handshakes begin in a second; default
	// 1000 for each of GOMAXPROCS. Others wait for their turn.
	TLSHandshakeRate int

	// TLSWorkers is how many TLS handshakes compute at a time; default half of
	// GOMAXPROCS, at least 1.
	TLSWorkers int

	// TLSHandshakes is how many TLS handshakes may be under way; default 1024.
	// Past it the one that has waited longest for its peer, a second at least,
	// gives up its place.
	TLSHandshakes int

	// TLSWatch is the interval at which the files of TLS are looked at for
	// changes; default 10 s, negative for never. See Server.Reload.
	TLSWatch time.Duration

	// ReadBudget is how many bytes one connection may bring in within one tick
	// before the others get their turn; default 128 KiB.
	ReadBudget int
}

// Use says whether something that not every system has is to be used.
type Use uint8

const (
	Auto Use = iota // where the system has it
	On              // without it nothing starts
	Off
)

// EnsureDefaults fills in the defaults.
func (o *Options) EnsureDefaults() {
	if o.Loops == 0 {
		o.Loops = (runtime.GOMAXPROCS(0) + 1) / 2
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	setDefault(&o.HandshakeTimeout, 10*time.Second)
	setDefault(&o.WriteStall, 30*time.Second)
	setDefault(&o.CloseTimeout, 5*time.Second)
	setDefault(&o.DrainTimeout, time.Second)
	o.Limits.EnsureDefaults()
	setDefault(&o.TLSHandshakeTimeout, 10*time.Second)
	setDefault(&o.TLSWatch, 10*time.Second)
	if o.TLSHandshakeRate == 0 {
		o.TLSHandshakeRate = 1000 * runtime.GOMAXPROCS(0)
	}
	if o.TLSWorkers == 0 {
		o.TLSWorkers = max(1, runtime.GOMAXPROCS(0)/2)
	}
	if o.TLSHandshakes == 0 {
		o.TLSHandshakes = 1024
	}
	if o.ReadBudget == 0 {
		o.ReadBudget = 128 << 10
	}
}

// Validate reports every fault at once.
func (o *Options) Validate() error {
	var faults []error
	if o.Loops < 1 || o.Loops > 1024 {
		faults = append(faults, fmt.Errorf("Loops is %d, must be 1 to 1024", o.Loops))
	}
	for name, d := range map[string]time.Duration{
		"HandshakeTimeout": o.HandshakeTimeout, "WriteStall": o.WriteStall,
		"CloseTimeout": o.CloseTimeout, "DrainTimeout": o.DrainTimeout,
		"TLSHandshakeTimeout": o.TLSHandshakeTimeout,
	} {
		if d < 0 {
			faults = append(faults, fmt.Errorf("%s is %v, must not be negative", name, d))
		}
	}
	if o.IOUring > Off {
		faults = append(faults, fmt.Errorf("IOUring is %d, must be Auto, On or Off", o.IOUring))
	}
	if err := o.Limits.Validate(); err != nil {
		faults = append(faults, err)
	}
	for name, n := range map[string]int{
		"MaxConns": o.MaxConns, "ReadBudget": o.ReadBudget, "TLSHandshakeRate": o.TLSHandshakeRate,
		"TLSWorkers": o.TLSWorkers, "TLSHandshakes": o.TLSHandshakes,
	} {
		if n < 0 {
			faults = append(faults, fmt.Errorf("%s is %d, must not be negative", name, n))
		}
	}
	return errors.Join(faults...)
}

// Listener describes where connections come from and what they may do.
type Listener struct {
	// Name is for logs and link.Info; default the URL.
	Name string

	// Network is "ws", "tcp" or "unix", or "wss" or "tls", which are the first
	// two with TLS.
	Network string

	// Addr is host:port, or a path for "unix". Port 0 lets the system choose.
	Addr string

	// Trusted are the proxies that are believed when they name the client whom
	// they speak for: by ForwardedHeader, and by ProxyProtocol where that is on.
	Trusted Networks

	// ProxyProtocol says whether connections begin with a header of the PROXY
	// protocol.
	ProxyProtocol ProxyProtocol

	// TLS is for "wss" and "tls", which need it.
	TLS *TLS

	// The rest is for "ws" and "wss".

	// ForwardedHeader is the one header that Trusted put the client's address
	// into, XForwardedFor or Forwarded; "" looks at neither. A proxy that writes
	// one of them passes the other one on as the client wrote it.
	ForwardedHeader string

	// Path is the only request path that is answered; "" answers any.
	Path string

	// Origins are the values of the Origin header that are let in, compared as
	// a whole. "*" lets every page in. A request without an Origin always is; on
	// a loopback listener also a loopback Origin, elsewhere also one whose host
	// is an IP address and equals the Host header (docs/adr/0006). A loopback
	// listener wants a Host header that is loopback too, or the host of one of
	// Origins, unless "*" is among them.
	Origins []string

	// Subprotocols are the protocols spoken; default "mqtt" and "mqttv3.1". The
	// first one that the client offers is chosen; a client that offers only
	// others is refused.
	Subprotocols []string

	// RequireSubprotocol refuses a client that offers none at all.
	RequireSubprotocol bool

	// Strict refuses unmasked pong and close frames; without it they pass,
	// because Python's paho sends them.
	Strict bool

	// Ping is the interval of server pings; default 25 s, negative for none.
	Ping time.Duration

	// PongGrace is handed on in link.Info.
	PongGrace bool

	// Deflate lets clients negotiate permessage-deflate.
	Deflate bool

	// DeflateMinSize is the smallest message that is worth compressing; default,
	// and the least that counts, 128 bytes. What link.Loop.AppendFrame encodes is
	// for connections of all listeners: the smallest of theirs holds for it.
	DeflateMinSize int

	// MaxMessage bounds a message in message mode, and one that was compressed
	// after inflation; default 1 MiB.
	MaxMessage int
}

// EnsureDefaults fills in the defaults.
func (l *Listener) EnsureDefaults() {
	setDefault(&l.Ping, 25*time.Second)
	if l.DeflateMinSize == 0 {
		l.DeflateMinSize = 128
	}
	if l.MaxMessage == 0 {
		l.MaxMessage = 1 << 20
	}
}

// Validate reports every fault at once.
func (l *Listener) Validate() error {
	var faults []error
	switch l.Network {
	case "tcp", "unix", "tls":
		if l.Path != "" || len(l.Origins) > 0 || len(l.Subprotocols) > 0 || l.RequireSubprotocol || l.Deflate {
			faults = append(faults, fmt.Errorf("listener %q: path, origins, sub-protocols and deflate need network ws or wss", l.Addr))
		}
		if l.ForwardedHeader != "" {
			faults = append(faults, fmt.Errorf("listener %q: a header needs network ws or wss", l.Addr))
		}
	case "ws", "wss":
		if l.Path != "" && l.Path[0] != '/' {
			faults = append(faults, fmt.Errorf("listener %q: path %q must begin with /", l.Addr, l.Path))
		}
		if l.RequireSubprotocol && l.Subprotocols != nil && len(l.Subprotocols) == 0 {
			faults = append(faults, fmt.Errorf("listener %q requires a sub-protocol but names none", l.Addr))
		}
	default:
		faults = append(faults, fmt.Errorf("listener %q: network %q is not ws, wss, tcp, tls or unix", l.Addr, l.Network))
	}
	if l.secured() != (l.TLS != nil) {
		faults = append(faults, fmt.Errorf("listener %q: TLS is for networks wss and tls, and they need it", l.Addr))
	} else if l.secured() {
		if err := l.TLS.Validate(); err != nil {
			faults = append(faults, fmt.Errorf("listener %q: %w", l.Addr, err))
		}
	}
	switch l.ForwardedHeader {
	case "", XForwardedFor, Forwarded:
	default:
		faults = append(faults, fmt.Errorf("listener %q: header %q is not %s or %s", l.Addr, l.ForwardedHeader, XForwardedFor, Forwarded))
	}
	if l.ProxyProtocol > ProxyOptional {
		faults = append(faults, fmt.Errorf("listener %q: ProxyProtocol is %d, must be 0 to 2", l.Addr, l.ProxyProtocol))
	}
	if l.ProxyProtocol != ProxyOff && l.Trusted.Empty() {
		faults = append(faults, fmt.Errorf("listener %q: PROXY protocol needs trusted proxies", l.Addr))
	}
	if l.DeflateMinSize < 0 || l.MaxMessage < 0 {
		faults = append(faults, fmt.Errorf("listener %q: sizes must not be negative", l.Addr))
	}
	return errors.Join(faults...)
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}
