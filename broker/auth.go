package broker

import (
	"context"
	"net/netip"
	"time"

	"hashplus/broker/wire"
	"hashplus/transport/link"
)

// Identity is who a client is, once it is let in. It is immutable, and shared
// by all that ask about the client.
type Identity struct {
	ClientID string
	Username string         // "" for an anonymous client
	Remote   netip.AddrPort // zero for a Unix socket or a pipe
	Listener string
	// Data belongs to the Authenticator and Authorizer: claims, roles. See
	// Options.ReadData for when it outlives the process.
	Data any
}

// AuthRequest is what a client says of itself when it connects.
type AuthRequest struct {
	ClientID    string
	HasUsername bool
	Username    string
	HasPassword bool
	Password    []byte
	Info        *link.Info
	Handshake   *link.Handshake // nil unless it came over WebSocket
}

// Grant is an Authenticator's consent.
type Grant struct {
	Username string // becomes the session's owner
	Data     any    // becomes Identity.Data
	// ExpiresAt is when the consent ends, and with it the connection
	// (NotAuthorized), unless a re-authentication renews it; zero: never.
	ExpiresAt time.Time
	// Grounds are what the consent rests on, such as the entry of a file. The
	// broker keeps them with the connection, for a Reviewer.
	Grounds any
}

// Refusal is an error with the reason that the client is told. Any other error
// of an Authenticator tells it NotAuthorized.
type Refusal struct {
	Reason wire.ReasonCode
	Detail string // for the log and, in version 5, the Reason String
	Cause  error  // for the log only; where it is set the client is not told Detail
}

func (r *Refusal) Error() string {
	s := r.Reason.String()
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	if r.Cause != nil {
		s += ": " + r.Cause.Error()
	}
	return s
}

// Unwrap is the cause.
func (r *Refusal) Unwrap() error { return r.Cause }

// Authenticator decides who a client is. Authenticate may block: it runs on a
// goroutine of its own, of which the broker bounds the number, while the
// connection's reads are paused. ctx ends when the connect deadline does.
type Authenticator interface {
	Authenticate(ctx context.Context, r *AuthRequest) (Grant, error)
}

// Reviewer is an Authenticator that can tell whether a consent, its own or that of
// an Authenticator or EnhancedAuthenticator before it, would be given now.
type Reviewer interface {
	Authenticator
	// Holds reports whether a client that was let in as username on grounds may
	// stay; both are zero for one that was let in without an Authenticator. It is
	// called on a loop: it must not block, nor hash slowly.
	Holds(username string, grounds any) bool
}

// EnhancedAuthenticator is a method of extended authentication (MQTT 5.0
// section 4.12).
type EnhancedAuthenticator interface {
	// Method is the Authentication Method.
	Method() string
	// Begin starts an exchange, at CONNECT or for a re-authentication.
	Begin(r *AuthRequest) AuthExchange
}

// AuthExchange is the server's side of one exchange. Its calls do not overlap
// and run where Authenticator's do.
type AuthExchange interface {
	// Next takes the client's Authentication Data and returns the server's.
	// With done set the exchange has succeeded, and reply, if not nil, goes
	// with CONNACK or the final AUTH.
	Next(ctx context.Context, data []byte) (reply []byte, done bool, g Grant, err error)
}

// Authorizer decides what a client may do. Its methods are called on the path
// of every message: they must not block, and should not allocate. id is never
// nil. topic and filter are valid; topic is a view that must not be kept. A panic
// counts as false, and is logged.
type Authorizer interface {
	// CanPublish is asked for each PUBLISH and for a will, at CONNECT and
	// again when it fires.
	CanPublish(id *Identity, topic []byte) bool
	// CanSubscribe is asked for each filter, without `$share/{group}/`, and
	// again for those that are there after SetAuthorizer.
	CanSubscribe(id *Identity, filter string) bool
	// CanReceive is asked before each delivery, whatever path it takes.
	CanReceive(id *Identity, topic []byte) bool
}

// FilterAuthorizer is an Authorizer that can answer for all names of a filter
// at once. The deliveries of a subscription that it clears cost nothing.
type FilterAuthorizer interface {
	Authorizer
	// CanReceiveAll reports whether CanReceive is true for every name that
	// filter matches, and stays so until SetAuthorizer is called.
	CanReceiveAll(id *Identity, filter string) bool
}

// ClientEvent describes a connection to an Observer.
type ClientEvent struct {
	Identity
	Version    wire.Version
	CleanStart bool
	Resumed    bool            // a session was present
	Reason     wire.ReasonCode // of the disconnection
}

// Observer is told what happens. Its methods are called on a loop: they must
// not block. A panic is logged. An embedded NopObserver makes a partial one
// complete.
type Observer interface {
	Connected(e ClientEvent)
	Disconnected(e ClientEvent)
	Subscribed(id *Identity, filter string, qos byte)
	Unsubscribed(id *Identity, filter string)
	// Dropped tells of a message that did not reach the session of clientID.
	Dropped(clientID string, topic []byte, why DropReason)
}

// NopObserver ignores everything.
type NopObserver struct{}

// Connected does nothing.
func (NopObserver) Connected(ClientEvent) {}

// Disconnected does nothing.
func (NopObserver) Disconnected(ClientEvent) {}

// Subscribed does nothing.
func (NopObserver) Subscribed(*Identity, string, byte) {}

// Unsubscribed does nothing.
func (NopObserver) Unsubscribed(*Identity, string) {}

// Dropped does nothing.
func (NopObserver) Dropped(string, []byte, DropReason) {}
