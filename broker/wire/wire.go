// Package wire is the codec of MQTT control packets, versions 3.1, 3.1.1 and
// 5.0: bytes in, bytes out, no I/O and no state.
//
// What comes in is checked before it is believed: structure, bounds, UTF-8,
// flags, allowed and unique properties. PUBLISH, its acknowledgements and the
// pings are decoded as views over the bytes, with no allocation; the other
// packets own what they hold.
package wire

import "fmt"

// Version is the protocol level of CONNECT.
type Version byte

// Protocol levels.
const (
	V31  Version = 3 // MQIsdp
	V311 Version = 4
	V5   Version = 5
)

// Type is a control packet type (MQTT 5.0 section 2.1.2).
type Type byte

// Control packet types.
const (
	CONNECT Type = 1 + iota
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
	AUTH
)

// ReasonCode is a reason code of MQTT 5.0 (section 2.4). Packets of older
// versions carry what ConnectReturnCode and the granted QoS map it to.
type ReasonCode byte

// Error says what is wrong with a packet. The connection it came on is closed
// with Reason.
type Error struct {
	Reason ReasonCode
	Clause string // the normative statement that was broken, such as "MQTT-3.8.3-4", or ""
	Detail string // what was found, for the log and the Reason String
}

func (e *Error) Error() string {
	if e.Clause == "" {
		return fmt.Sprintf("%s: %s", e.Reason, e.Detail)
	}
	return fmt.Sprintf("%s: %s [%s]", e.Reason, e.Detail, e.Clause)
}

// Limits bound what a decoder accepts beside the protocol's own rules. Zero
// means no limit beyond the protocol's.
type Limits struct {
	UserProperties int // per packet
	TopicLength    int // bytes of a topic name or filter
	TopicLevels    int
}

// Header is a fixed header (MQTT 5.0 section 2.1.1).
type Header struct {
	Type      Type
	Flags     byte
	Size      int // of the header itself: 2 to 5 bytes
	Remaining int // bytes that follow it
}

// ReadHeader reads the fixed header at the start of b. Size is 0 if b does not
// hold all of it yet. It refuses type 0, flags that the type does not allow
// [MQTT-2.1.3-1] and a Remaining Length of more than four bytes or one that
// is not minimal [MQTT-1.5.5-1]; AUTH is refused below V5 by the caller.
func ReadHeader(b []byte) (h Header, err error)

// UserProperty is a name and value pair.
type UserProperty struct{ Key, Value string }

// Publish is a PUBLISH that came in, as views over its bytes.
type Publish struct {
	Topic    []byte // "" with a TopicAlias
	Payload  []byte
	PacketID uint16 // 0 at QoS 0
	QoS      byte
	Dup      bool
	Retain   bool

	TopicAlias uint16 // 0 if absent
	// Props are the properties to pass on, encoded, in the order they came,
	// without Topic Alias: what belongs between the Property Length and the
	// payload of a PUBLISH to a subscriber, beside Subscription Identifiers.
	Props []byte
	// ExpiryAt is the offset in Props of the four-byte value of the Message
	// Expiry Interval, or -1; Expiry is its value in seconds.
	ExpiryAt int
	Expiry   uint32

	HasPayloadFormat bool
	PayloadFormat    byte
	ResponseTopic    []byte // nil if absent
	CorrelationData  []byte // nil if absent
}

// Decode reads the body (the bytes after the fixed header, exactly
// h.Remaining) into p, which then holds views over body, valid as long as body
// is. It may move bytes within the properties to take the Topic Alias out.
// It checks everything that needs no state: topic name (UTF-8, no wildcard, no
// U+0000, limits; empty only with an alias), Response Topic, QoS 3, DUP at QoS
// 0, packet identifier 0, UTF-8 of a payload whose format indicator says so,
// Topic Alias 0, Subscription Identifier from a client. No allocation unless
// it fails; an error is always an *Error.
func (p *Publish) Decode(h Header, body []byte, v Version, lim *Limits) error

// Outgoing is a PUBLISH to a subscriber.
type Outgoing struct {
	Version  Version
	QoS      byte
	Dup      bool
	Retain   bool
	PacketID uint16   // ignored at QoS 0
	Topic    []byte   // may be empty with an Alias
	Alias    uint16   // 0: none; V5 only
	SubIDs   []uint32 // Subscription Identifiers; V5 only
	Props    []byte   // as in Publish.Props; V5 only
	ExpiryAt int      // as in Publish
	Expiry   uint32   // the value to write at ExpiryAt: what is left of it
	Payload  []byte
}

// Size is the length of the encoded packet, fixed header included.
func (o *Outgoing) Size() int

// Put writes the packet to dst, which has room for Size bytes, and returns
// that length and the offset of the Packet Identifier (0 at QoS 0). No
// allocation.
func (o *Outgoing) Put(dst []byte) (n, idAt int)

// AckSize is the most bytes that PutAck writes.
const AckSize = 5

// PutAck writes PUBACK, PUBREC, PUBREL or PUBCOMP to dst, which has room for
// AckSize bytes, in the shortest form (a reason of 0, and any reason below V5,
// is left out), and returns its length.
func PutAck(dst []byte, t Type, v Version, id uint16, reason ReasonCode) int

// ReadAck reads the body of a PUBACK, PUBREC, PUBREL or PUBCOMP. It checks the
// properties and that the reason code is one of that packet type's. No
// allocation unless it fails.
func ReadAck(h Header, body []byte, v Version, lim *Limits) (id uint16, reason ReasonCode, err error)

// Connect is a CONNECT.
type Connect struct {
	Version    Version
	CleanStart bool
	KeepAlive  uint16 // seconds
	ClientID   string

	HasUsername, HasPassword bool
	Username                 string
	Password                 []byte
	Will                     *Will

	SessionExpiry      uint32 // seconds; below V5: 0 if clean, else 0xFFFFFFFF
	ReceiveMaximum     uint16 // 65535 if absent
	MaximumPacketSize  uint32 // 0 if absent
	TopicAliasMaximum  uint16
	RequestResponse    bool // Request Response Information
	RequestProblem     bool // Request Problem Information; true if absent
	UserProperties     []UserProperty
	HasAuthMethod      bool
	AuthMethod         string
	AuthData           []byte
}

// Will is the message a CONNECT leaves behind.
type Will struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	Delay   uint32 // Will Delay Interval, seconds

	// As in Publish; Will Delay Interval is not among Props.
	Props    []byte
	ExpiryAt int
	Expiry   uint32
}

// DecodeConnect reads the body of a CONNECT. An unknown protocol name or level
// gives an *Error with UnsupportedProtocolVersion, and a Connect whose Version
// says in which form to answer. A zero-length will payload, password or client
// identifier is legal.
func DecodeConnect(h Header, body []byte, lim *Limits) (*Connect, error)

// Connack is a CONNACK. Fields below Reason are for V5; the zero value of each
// leaves its property out, except where noted.
type Connack struct {
	SessionPresent bool
	Reason         ReasonCode // below V5 written as its return code, see ConnectReturnCode

	HasSessionExpiry     bool
	SessionExpiry        uint32
	ReceiveMaximum       uint16
	LimitQoS             bool // write Maximum QoS
	MaximumQoS           byte
	RetainUnavailable    bool
	MaximumPacketSize    uint32
	AssignedClientID     string
	TopicAliasMaximum    uint16
	ReasonString         string
	UserProperties       []UserProperty
	WildcardUnavailable  bool
	SubIDUnavailable     bool
	SharedUnavailable    bool
	HasServerKeepAlive   bool
	ServerKeepAlive      uint16
	ResponseInformation  string
	ServerReference      string
	AuthMethod           string
	AuthData             []byte
}

// Append appends the packet in the form of v.
func (p *Connack) Append(dst []byte, v Version) []byte

// ConnectReturnCode maps a reason to the CONNACK return code of 3.1 and 3.1.1.
func ConnectReturnCode(r ReasonCode) byte

// Subscription is one entry of a SUBSCRIBE.
type Subscription struct {
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte // 0, 1 or 2
}

// Subscribe is a SUBSCRIBE.
type Subscribe struct {
	PacketID       uint16
	SubscriptionID uint32 // 0 if absent
	UserProperties []UserProperty
	Filters        []Subscription
}

// DecodeSubscribe reads the body of a SUBSCRIBE. Filters are checked for UTF-8
// only: what a filter means is the caller's, who refuses it with a reason code
// of its own. An empty list is an error [MQTT-3.8.3-2].
func DecodeSubscribe(h Header, body []byte, v Version, lim *Limits) (*Subscribe, error)

// AppendSuback appends a SUBACK. Below V5 every reason from 0x80 is written as
// 0x80 (and by 3.1 as well, which has no failure code but whose clients expect
// 3.1.1's).
func AppendSuback(dst []byte, v Version, id uint16, reasons []ReasonCode) []byte

// Unsubscribe is an UNSUBSCRIBE.
type Unsubscribe struct {
	PacketID       uint16
	UserProperties []UserProperty
	Filters        []string
}

// DecodeUnsubscribe reads the body of an UNSUBSCRIBE.
func DecodeUnsubscribe(h Header, body []byte, v Version, lim *Limits) (*Unsubscribe, error)

// AppendUnsuback appends an UNSUBACK; below V5 it carries no reasons.
func AppendUnsuback(dst []byte, v Version, id uint16, reasons []ReasonCode) []byte

// Disconnect is a DISCONNECT, in either direction.
type Disconnect struct {
	Reason           ReasonCode
	HasSessionExpiry bool
	SessionExpiry    uint32
	ReasonString     string
	ServerReference  string
	UserProperties   []UserProperty
}

// DecodeDisconnect reads the body of a DISCONNECT. Below V5 the body is empty.
func DecodeDisconnect(h Header, body []byte, v Version, lim *Limits) (*Disconnect, error)

// Append appends the packet in the form of V5.
func (p *Disconnect) Append(dst []byte) []byte

// Auth is an AUTH, in either direction.
type Auth struct {
	Reason         ReasonCode
	Method         string
	Data           []byte
	ReasonString   string
	UserProperties []UserProperty
}

// DecodeAuth reads the body of an AUTH.
func DecodeAuth(h Header, body []byte, lim *Limits) (*Auth, error)

// Append appends the packet.
func (p *Auth) Append(dst []byte) []byte
