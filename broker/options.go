package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"
)

// QueueFull says what happens to a message for a session whose queue is full.
type QueueFull uint8

// Policies for a full queue.
const (
	DropNewest QueueFull = iota // the message that comes is dropped
	DropOldest                  // the message that waits longest is dropped
	Disconnect                  // the client is disconnected with 0x97; its session ends, present or absent, and its queue with it
)

var queueFullNames = [...]string{"drop-newest", "drop-oldest", "disconnect"}

func (q QueueFull) String() string {
	if int(q) < len(queueFullNames) {
		return queueFullNames[q]
	}
	return fmt.Sprintf("QueueFull(%d)", uint8(q))
}

// UnmarshalText reads one of drop-newest, drop-oldest and disconnect.
func (q *QueueFull) UnmarshalText(b []byte) error {
	for i, name := range queueFullNames {
		if string(b) == name {
			*q = QueueFull(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not one of drop-newest, drop-oldest, disconnect", b)
}

// MarshalText is the inverse of UnmarshalText.
func (q QueueFull) MarshalText() ([]byte, error) { return []byte(q.String()), nil }

// Options configure a Broker. The zero value of each field means the default
// that its comment names; New applies the defaults and validates.
type Options struct {
	Logger *slog.Logger // default: slog.Default()

	// Authenticator decides who may connect; nil lets everybody in as an
	// anonymous client.
	Authenticator Authenticator
	// EnhancedAuthenticators are the methods of MQTT 5.0 AUTH exchanges.
	EnhancedAuthenticators []EnhancedAuthenticator
	// Authorizer decides what a client may do; nil allows everything but what
	// the broker keeps to itself ($SYS, other clients' reply prefixes).
	Authorizer Authorizer
	// Observer is told of connections, subscriptions and losses.
	Observer Observer

	// OpenStore opens the durable state: sessions with an expiry, what they are
	// owed, retained messages. It is called by Recover, and again, on a goroutine
	// of the broker's, after a store has failed and was closed. nil keeps
	// everything in memory.
	OpenStore func() (Store, error)
	// ReadData makes an Identity's Data of what its MarshalBinary has returned. A
	// will that is stored brings the Data of its client with it, if they are an
	// encoding.BinaryMarshaler and take at most 64 KiB. Where they can't be had back
	// after a restart, such a will is not published if there is an Authorizer.
	ReadData func([]byte) (any, error)
	// StoreStuck is called if a store that failed can't be closed, or is found to be
	// damaged (ErrStoreDamaged) when it is opened again, so that only a new process
	// can go on. nil: nothing is written any more.
	StoreStuck func(error)
	// MinFree is the space in bytes on the store's file system below which
	// messages that would have to be stored are refused; default 256 MiB;
	// negative: none, and a disk that the store itself has filled works again only
	// when others make room.
	MinFree int64

	// Announced in CONNACK and enforced.
	ReceiveMaximum    uint16 // QoS 1 and 2 messages a client may have on the way to us; default 1,024
	MaximumPacketSize int    // bytes; default 1 MiB
	TopicAliasMaximum int    // per connection, for each direction; default 16; -1: none
	MaximumQoS        *byte  // default 2
	RetainUnavailable bool
	MaxKeepAlive      uint16 // seconds; a version 5 client's is capped to it; 0: not capped
	MaxSessionExpiry  uint32 // seconds; 0: not capped

	// Limits.
	ConnectTimeout    time.Duration // from Open to a complete CONNECT; default 10 s
	MaxConnectSize    int           // bytes of a CONNECT; default 64 KiB
	MaxInflight       int           // QoS 1 and 2 messages on the way to one client; default 1,024
	MaxQueuedMessages int           // per session, beside those in flight; default 10,000
	MaxQueuedBytes    int           // per session; default 16 MiB
	QueueFull         QueueFull
	MaxSubscriptions  int // per session; default 10,000
	MaxTopicLevels    int // default 128
	MaxTopicLength    int // bytes; default 4,096
	MaxUserProperties int // per packet; default 64
	MaxSessions       int // connected or not; default 1,000,000
	WriteQueueBytes   int // high water of a connection's write queue; default 1 MiB
	Limits            Limits

	// SysInterval is the time between two rounds of $SYS topics; default
	// 10 s; negative: none.
	SysInterval time.Duration
	// Sys adds values that the broker does not know itself, such as those of the
	// transport, to a round. Names are below $SYS/broker/.
	Sys func(add func(name string, value int64))
	// Version is what $SYS/broker/version says.
	Version string
	// ServerReference goes into DISCONNECT when the broker shuts down.
	ServerReference string
	// Strict keeps to the letter of the specification where the broker
	// deviates by default: a WebSocket pong does not stretch the keep alive.
	Strict bool
}

// EnsureDefaults replaces zero values by their defaults.
func (o *Options) EnsureDefaults() {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	def(&o.ReceiveMaximum, 1024)
	def(&o.MaximumPacketSize, 1<<20)
	def(&o.TopicAliasMaximum, 16)
	if o.TopicAliasMaximum < 0 {
		o.TopicAliasMaximum = 0
	}
	if o.MaximumQoS == nil {
		two := byte(2)
		o.MaximumQoS = &two
	}
	def(&o.ConnectTimeout, 10*time.Second)
	def(&o.MaxConnectSize, 64<<10)
	def(&o.MaxInflight, 1024)
	def(&o.MaxQueuedMessages, 10_000)
	def(&o.MaxQueuedBytes, 16<<20)
	def(&o.MaxSubscriptions, 10_000)
	def(&o.MaxTopicLevels, 128)
	def(&o.MaxTopicLength, 4096)
	def(&o.MaxUserProperties, 64)
	def(&o.MaxSessions, 1_000_000)
	def(&o.WriteQueueBytes, 1<<20)
	def(&o.MinFree, 256<<20)
	def(&o.SysInterval, 10*time.Second)
	def(&o.Version, "hashplus")
	o.Limits.EnsureDefaults()
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports every fault of o at once.
func (o *Options) Validate() error {
	var faults []error
	within := func(name string, v, lo, hi int) {
		if v < lo || v > hi {
			faults = append(faults, fmt.Errorf("%s is %d; allowed are %d to %d", name, v, lo, hi))
		}
	}
	within("ReceiveMaximum", int(o.ReceiveMaximum), 1, 65535)
	within("MaximumPacketSize", o.MaximumPacketSize, 128, 268_435_460)
	within("TopicAliasMaximum", o.TopicAliasMaximum, 0, 65535)
	within("MaximumQoS", int(*o.MaximumQoS), 0, 2)
	within("MaxConnectSize", o.MaxConnectSize, 128, 1<<20)
	within("MaxInflight", o.MaxInflight, 1, 65535)
	within("MaxQueuedMessages", o.MaxQueuedMessages, 1, 1<<30)
	within("MaxQueuedBytes", o.MaxQueuedBytes, 1024, min(1<<40, math.MaxInt))
	within("MaxSubscriptions", o.MaxSubscriptions, 1, 1<<24)
	within("MaxTopicLevels", o.MaxTopicLevels, 1, 65535)
	within("MaxTopicLength", o.MaxTopicLength, 1, 65535)
	within("MaxUserProperties", o.MaxUserProperties, 1, 1<<20)
	within("MaxSessions", o.MaxSessions, 1, 1<<30)
	within("WriteQueueBytes", o.WriteQueueBytes, 4096, 1<<30)
	within("QueueFull", int(o.QueueFull), 0, len(queueFullNames)-1)
	if err := o.Limits.Validate(); err != nil {
		faults = append(faults, err)
	}
	if o.ConnectTimeout < 0 {
		faults = append(faults, fmt.Errorf("ConnectTimeout is %v; it must be positive", o.ConnectTimeout))
	}
	return errors.Join(faults...)
}
