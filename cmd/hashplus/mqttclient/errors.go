package mqttclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// Stage says in which exchange an Error arose.
type Stage uint8

const (
	// Dialing is the network connection, TLS and the WebSocket upgrade.
	Dialing Stage = iota
	// Connecting is CONNECT: the server answered with a reason to refuse.
	Connecting
	// Publishing is a PUBLISH that the server refused.
	Publishing
	// Subscribing is a filter that the server refused.
	Subscribing
	// Running is a connection that was up: lost, or ended by DISCONNECT.
	Running
)

// Error is every failure that this package returns beside the caller's own
// context errors and wrong arguments.
type Error struct {
	Stage  Stage
	Reason byte   // reason code of 5.0, CONNACK return code of 3.x, or 0
	Text   string // what happened, for people
	Fatal  bool   // trying again cannot help
	Err    error  // the cause, or nil
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Text + ": " + e.Err.Error()
	}
	return e.Text
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// errLost is wrapped by errors of requests that the loss of the connection cut
// short; they are made again on the next one.
var errLost = errors.New("connection lost")

// ReasonText names the reason codes that a server sends (MQTT 5.0 section 2.4).
func ReasonText(r byte) string {
	switch r {
	case 0x00:
		return "success"
	case 0x04:
		return "disconnect with will message"
	case 0x10:
		return "no matching subscribers"
	case 0x80:
		return "unspecified error"
	case 0x81:
		return "malformed packet"
	case 0x82:
		return "protocol error"
	case 0x83:
		return "implementation specific error"
	case 0x84:
		return "unsupported protocol version"
	case 0x85:
		return "client identifier not valid"
	case 0x86:
		return "bad user name or password"
	case 0x87:
		return "not authorized"
	case 0x88:
		return "server unavailable"
	case 0x89:
		return "server busy"
	case 0x8A:
		return "banned"
	case 0x8B:
		return "server shutting down"
	case 0x8C:
		return "bad authentication method"
	case 0x8D:
		return "keep alive timeout"
	case 0x8E:
		return "session taken over"
	case 0x8F:
		return "topic filter invalid"
	case 0x90:
		return "topic name invalid"
	case 0x91:
		return "packet identifier in use"
	case 0x92:
		return "packet identifier not found"
	case 0x93:
		return "receive maximum exceeded"
	case 0x94:
		return "topic alias invalid"
	case 0x95:
		return "packet too large"
	case 0x96:
		return "message rate too high"
	case 0x97:
		return "quota exceeded"
	case 0x98:
		return "administrative action"
	case 0x99:
		return "payload format invalid"
	case 0x9A:
		return "retain not supported"
	case 0x9B:
		return "QoS not supported"
	case 0x9C:
		return "use another server"
	case 0x9D:
		return "server moved"
	case 0x9E:
		return "shared subscriptions not supported"
	case 0x9F:
		return "connection rate exceeded"
	case 0xA0:
		return "maximum connect time"
	case 0xA1:
		return "subscription identifiers not supported"
	case 0xA2:
		return "wildcard subscriptions not supported"
	default:
		return "unknown reason"
	}
}

// passing reports whether a CONNACK or DISCONNECT with this reason may turn out
// otherwise later. Session taken over is not: two clients with one id that both
// reconnect would throw each other out for ever.
func passing(r byte) bool {
	switch r {
	case 0x00, 0x80, 0x83, 0x88, 0x89, 0x8B, 0x8D, 0x96, 0x97, 0x98, 0x9C, 0x9F, 0xA0:
		return true
	default:
		return false
	}
}

// describe is "what: reason text (0x..): detail".
func describe(what string, r byte, detail string) string {
	s := fmt.Sprintf("%s: %s (0x%02X)", what, ReasonText(r), r)
	if detail != "" {
		s += ": " + detail
	}
	return s
}

// connackText names the CONNACK return codes of 3.1 and 3.1.1 (section 3.2.2.3).
func connackText(rc byte) string {
	switch rc {
	case 1:
		return "unacceptable protocol version"
	case 2:
		return "identifier rejected"
	case 3:
		return "server unavailable"
	case 4:
		return "bad user name or password"
	case 5:
		return "not authorized"
	default:
		return "unknown return code"
	}
}

// dialError wraps a failure to reach the server. A certificate that does not
// verify stays as it is, so it is not tried again.
func dialError(where string, err error) error {
	var (
		verify *tls.CertificateVerificationError
		author x509.UnknownAuthorityError
		host   x509.HostnameError
		record tls.RecordHeaderError
	)
	fatal := errors.As(err, &verify) || errors.As(err, &author) || errors.As(err, &host) || errors.As(err, &record)
	var already *Error
	if errors.As(err, &already) {
		return already
	}
	return &Error{Stage: Dialing, Text: "cannot reach " + where, Fatal: fatal, Err: err}
}
