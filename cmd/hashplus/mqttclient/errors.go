package mqttclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"hashplus/broker/wire"
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

// ReasonText names a reason code that a server sends (MQTT 5.0 section 2.4), in
// the small letters of a sentence.
func ReasonText(r byte) string {
	return strings.Replace(strings.ToLower(wire.ReasonCode(r).String()), "qos", "QoS", 1)
}

// passing reports whether a CONNACK or DISCONNECT with this reason may turn out
// otherwise later. Session taken over is not: two clients with one id that both
// reconnect would throw each other out for ever.
func passing(r byte) bool {
	switch wire.ReasonCode(r) {
	case wire.Success, wire.UnspecifiedError, wire.ImplementationSpecificError, wire.ServerUnavailable, wire.ServerBusy,
		wire.ServerShuttingDown, wire.KeepAliveTimeout, wire.MessageRateTooHigh, wire.QuotaExceeded, wire.AdministrativeAction,
		wire.UseAnotherServer, wire.ConnectionRateExceeded, wire.MaximumConnectTime:
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
