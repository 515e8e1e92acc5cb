package wire

import (
	"encoding/binary"
	"fmt"
)

// UserProperty is a name and value pair.
type UserProperty struct{ Key, Value string }

// Property identifiers (MQTT 5.0 section 2.2.2.2).
const (
	propPayloadFormat      = 0x01
	propMessageExpiry      = 0x02
	propContentType        = 0x03
	propResponseTopic      = 0x08
	propCorrelationData    = 0x09
	propSubscriptionID     = 0x0B
	propSessionExpiry      = 0x11
	propAssignedClientID   = 0x12
	propServerKeepAlive    = 0x13
	propAuthMethod         = 0x15
	propAuthData           = 0x16
	propRequestProblem     = 0x17
	propWillDelay          = 0x18
	propRequestResponse    = 0x19
	propResponseInfo       = 0x1A
	propServerReference    = 0x1C
	propReasonString       = 0x1F
	propReceiveMaximum     = 0x21
	propTopicAliasMaximum  = 0x22
	propTopicAlias         = 0x23
	propMaximumQoS         = 0x24
	propRetainAvailable    = 0x25
	propUser               = 0x26
	propMaximumPacketSize  = 0x27
	propWildcardAvailable  = 0x28
	propSubIDAvailable     = 0x29
	propSharedSubAvailable = 0x2A
)

// inWill stands for the Will Properties where a packet type is asked for.
const inWill Type = 0

type propertyKind byte

const (
	kindUnknown propertyKind = iota
	kindBit                  // a byte that is 0 or 1, as all properties of one byte are
	kindU16
	kindU32
	kindVarint
	kindText
	kindBinary
	kindPair
)

// propertyRule is one line of table 2-4 of the specification.
type propertyRule struct {
	kind    propertyKind
	nonZero bool
	in      uint16 // bit per packet type
	name    string
}

func in(types ...Type) (set uint16) {
	for _, t := range types {
		set |= 1 << t
	}
	return set
}

// propertyRules is indexed by identifier. Read only.
var propertyRules = [...]propertyRule{
	propPayloadFormat:     {kind: kindBit, in: in(PUBLISH, inWill), name: "Payload Format Indicator"},
	propMessageExpiry:     {kind: kindU32, in: in(PUBLISH, inWill), name: "Message Expiry Interval"},
	propContentType:       {kind: kindText, in: in(PUBLISH, inWill), name: "Content Type"},
	propResponseTopic:     {kind: kindText, in: in(PUBLISH, inWill), name: "Response Topic"},
	propCorrelationData:   {kind: kindBinary, in: in(PUBLISH, inWill), name: "Correlation Data"},
	propSubscriptionID:    {kind: kindVarint, nonZero: true, in: in(PUBLISH, SUBSCRIBE), name: "Subscription Identifier"},
	propSessionExpiry:     {kind: kindU32, in: in(CONNECT, CONNACK, DISCONNECT), name: "Session Expiry Interval"},
	propAssignedClientID:  {kind: kindText, in: in(CONNACK), name: "Assigned Client Identifier"},
	propServerKeepAlive:   {kind: kindU16, in: in(CONNACK), name: "Server Keep Alive"},
	propAuthMethod:        {kind: kindText, in: in(CONNECT, CONNACK, AUTH), name: "Authentication Method"},
	propAuthData:          {kind: kindBinary, in: in(CONNECT, CONNACK, AUTH), name: "Authentication Data"},
	propRequestProblem:    {kind: kindBit, in: in(CONNECT), name: "Request Problem Information"},
	propWillDelay:         {kind: kindU32, in: in(inWill), name: "Will Delay Interval"},
	propRequestResponse:   {kind: kindBit, in: in(CONNECT), name: "Request Response Information"},
	propResponseInfo:      {kind: kindText, in: in(CONNACK), name: "Response Information"},
	propServerReference:   {kind: kindText, in: in(CONNACK, DISCONNECT), name: "Server Reference"},
	propReasonString:      {kind: kindText, in: in(CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH), name: "Reason String"},
	propReceiveMaximum:    {kind: kindU16, nonZero: true, in: in(CONNECT, CONNACK), name: "Receive Maximum"},
	propTopicAliasMaximum: {kind: kindU16, in: in(CONNECT, CONNACK), name: "Topic Alias Maximum"},
	propTopicAlias:        {kind: kindU16, nonZero: true, in: in(PUBLISH), name: "Topic Alias"},
	propMaximumQoS:        {kind: kindBit, in: in(CONNACK), name: "Maximum QoS"},
	propRetainAvailable:   {kind: kindBit, in: in(CONNACK), name: "Retain Available"},
	propUser: {kind: kindPair, in: in(inWill, CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE,
		SUBACK, UNSUBSCRIBE, UNSUBACK, DISCONNECT, AUTH), name: "User Property"},
	propMaximumPacketSize:  {kind: kindU32, nonZero: true, in: in(CONNECT, CONNACK), name: "Maximum Packet Size"},
	propWildcardAvailable:  {kind: kindBit, in: in(CONNACK), name: "Wildcard Subscription Available"},
	propSubIDAvailable:     {kind: kindBit, in: in(CONNACK), name: "Subscription Identifier Available"},
	propSharedSubAvailable: {kind: kindBit, in: in(CONNACK), name: "Shared Subscription Available"},
}

// propertyReader walks a property section and checks each property on its own:
// that it is known, belongs here, ends within the section, stands once, is
// well-formed and in range.
type propertyReader struct {
	b    []byte // the section, without its Property Length
	err  error
	seen uint64 // bit per identifier
	set  uint16 // the bit of where this is
	next int    // offset of the next property
	many bool   // Subscription Identifier may repeat

	users, maxUsers int

	// The property that advance found.
	id   byte
	at   int    // its offset in b; it ends at next
	num  uint32 // value of a number
	data []byte // value of a string, binary value or pair: a view
	key  []byte // of a pair: a view
}

// properties takes a property section, Property Length included.
func (r *reader) properties(where Type, lim *Limits) propertyReader {
	n, size, err := readVarint(r.b)
	switch {
	case err != nil:
		r.fail(err)
	case size == 0:
		r.short("Property Length")
	case int(n) > len(r.b)-size:
		r.fail(malformed("", "Property Length is beyond the packet"))
	}
	if r.err != nil {
		return propertyReader{err: r.err}
	}
	section := r.b[size : size+int(n) : size+int(n)]
	r.b = r.b[size+int(n):]
	return propertyReader{b: section, set: 1 << where, maxUsers: lim.userProperties()}
}

// advance goes to the next property. It returns false at the end of the
// section, and if the property is refused, which err tells.
func (p *propertyReader) advance() bool {
	if p.next >= len(p.b) || p.err != nil {
		return false
	}
	p.at = p.next
	p.id = p.b[p.at]
	if int(p.id) >= len(propertyRules) || propertyRules[p.id].in&p.set == 0 {
		p.err = malformed("", fmt.Sprintf("property 0x%02X does not belong here", p.id))
		return false
	}
	rule := &propertyRules[p.id]
	if bit := uint64(1) << p.id; p.seen&bit == 0 {
		p.seen |= bit
	} else if p.id != propUser && !(p.id == propSubscriptionID && p.many) {
		p.err = violation("", rule.name+" stands more than once")
		return false
	}
	rest := p.b[p.at+1:]
	size := 0 // of the value
	switch rule.kind {
	case kindBit:
		if len(rest) >= 1 {
			p.num, size = uint32(rest[0]), 1
			if p.num > 1 {
				p.err = violation("", fmt.Sprintf("%s is %d", rule.name, p.num))
				return false
			}
		}
	case kindU16:
		if len(rest) >= 2 {
			p.num, size = uint32(binary.BigEndian.Uint16(rest)), 2
		}
	case kindU32:
		if len(rest) >= 4 {
			p.num, size = binary.BigEndian.Uint32(rest), 4
		}
	case kindVarint:
		p.num, size, p.err = readVarint(rest)
		if p.err != nil {
			return false
		}
	case kindText:
		p.data, size = block(rest)
		if p.err = checkText(p.data, rule.name); p.err != nil {
			return false
		}
	case kindBinary:
		p.data, size = block(rest)
	case kindPair:
		if size = p.pair(rest); p.err != nil {
			return false
		}
	}
	if size == 0 {
		p.err = malformed("", rule.name+" ends beyond the Property Length")
		return false
	}
	if rule.nonZero && p.num == 0 {
		p.err = zeroError(p.id, rule.name)
		return false
	}
	p.next = p.at + 1 + size
	return true
}

// pair reads a UTF-8 String Pair and returns its length, 0 if b is too short.
func (p *propertyReader) pair(b []byte) int {
	p.users++
	if p.maxUsers > 0 && p.users > p.maxUsers {
		p.err = &Error{Reason: QuotaExceeded, Detail: fmt.Sprintf("more than %d User Properties", p.maxUsers)}
		return 0
	}
	key, n := block(b)
	if n == 0 {
		return 0
	}
	value, m := block(b[n:])
	if m == 0 {
		return 0
	}
	if p.err = checkText(key, "User Property"); p.err == nil {
		p.err = checkText(value, "User Property")
	}
	p.key, p.data = key, value
	return n + m
}

// user is the pair that advance found, copied.
func (p *propertyReader) user() UserProperty {
	return UserProperty{Key: string(p.key), Value: string(p.data)}
}

// block reads a two-byte length and that many bytes, a view. n is their length
// altogether, 0 if b is too short.
func block(b []byte) (data []byte, n int) {
	if len(b) < 2 {
		return nil, 0
	}
	n = 2 + int(binary.BigEndian.Uint16(b))
	if len(b) < n {
		return nil, 0
	}
	return b[2:n:n], n
}

func zeroError(id byte, name string) error {
	if id == propTopicAlias {
		return &Error{Reason: TopicAliasInvalid, Clause: "MQTT-3.3.2-8", Detail: "Topic Alias is 0"}
	}
	return violation("", name+" is 0")
}
