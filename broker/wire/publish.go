package wire

import (
	"encoding/binary"
	"unicode/utf8"
)

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
//
// The payload is checked last: with PayloadFormatInvalid p is complete, so
// that the caller may acknowledge with that reason instead of disconnecting.
// After any other error p is undefined.
func (p *Publish) Decode(h Header, body []byte, v Version, lim *Limits) error {
	_, err := p.decode(h, body, v, lim, nil, false)
	return err
}

// decode is Decode for both directions: from a server it appends Subscription
// Identifiers to ids and takes them out of Props.
func (p *Publish) decode(h Header, body []byte, v Version, lim *Limits, ids []uint32, fromServer bool) ([]uint32, error) {
	*p = Publish{QoS: h.Flags >> 1 & 3, Dup: h.Flags&flagDup != 0, Retain: h.Flags&1 != 0, ExpiryAt: -1}
	if p.QoS == 3 {
		return ids, malformed("MQTT-3.3.1-4", "PUBLISH with QoS 3")
	}
	if p.Dup && p.QoS == 0 {
		return ids, violation("MQTT-3.3.1-2", "PUBLISH with DUP at QoS 0")
	}
	topic, n := block(body)
	if n == 0 {
		return ids, malformed("MQTT-3.3.2-1", "packet ends within Topic Name")
	}
	if err := checkTopicName(topic, lim, "Topic Name"); err != nil {
		return ids, err
	}
	p.Topic, body = topic, body[n:]
	if p.QoS > 0 {
		if len(body) < 2 {
			return ids, malformed("", "packet ends within Packet Identifier")
		}
		if p.PacketID = binary.BigEndian.Uint16(body); p.PacketID == 0 {
			return ids, violation("MQTT-2.2.1-3", "Packet Identifier is 0")
		}
		body = body[2:]
	}
	if v >= V5 {
		// A lone zero, no properties at all, is by far the most frequent.
		if len(body) > 0 && body[0] == 0 {
			body = body[1:]
		} else {
			var err error
			if body, ids, err = p.readProperties(body, lim, ids, fromServer); err != nil {
				return ids, err
			}
		}
	}
	if len(p.Topic) == 0 && p.TopicAlias == 0 {
		return ids, violation("MQTT-4.7.3-1", "Topic Name is empty and there is no Topic Alias")
	}
	p.Payload = body
	if p.PayloadFormat == 1 && !utf8.Valid(body) {
		return ids, &Error{Reason: PayloadFormatInvalid, Detail: "payload is not UTF-8, as its Payload Format Indicator says"}
	}
	return ids, nil
}

// readProperties reads the property section at the start of body and returns
// what follows it.
func (p *Publish) readProperties(body []byte, lim *Limits, ids []uint32, fromServer bool) ([]byte, []uint32, error) {
	r := reader{b: body}
	ps := r.properties(PUBLISH, lim)
	ps.many = fromServer
	gap := 0 // bytes taken out so far; what comes after moves down by it
	for ps.advance() {
		switch ps.id {
		case propTopicAlias:
			p.TopicAlias = uint16(ps.num)
			gap += ps.next - ps.at
			continue
		case propSubscriptionID:
			if !fromServer {
				return nil, ids, violation("MQTT-3.3.4-6", "Subscription Identifier from a client")
			}
			ids = append(ids, ps.num)
			gap += ps.next - ps.at
			continue
		}
		at, end := ps.at-gap, ps.next-gap
		if gap > 0 {
			copy(ps.b[at:], ps.b[ps.at:ps.next])
		}
		switch ps.id {
		case propMessageExpiry:
			p.ExpiryAt, p.Expiry = at+1, ps.num
		case propPayloadFormat:
			p.HasPayloadFormat, p.PayloadFormat = true, byte(ps.num)
		case propResponseTopic:
			p.ResponseTopic = ps.b[at+3 : end : end]
			if err := checkResponseTopic(p.ResponseTopic); err != nil {
				return nil, ids, err
			}
		case propCorrelationData:
			p.CorrelationData = ps.b[at+3 : end : end]
		}
	}
	if ps.err != nil {
		return nil, ids, ps.err
	}
	end := len(ps.b) - gap
	p.Props = ps.b[:end:end]
	return r.b, ids, nil
}

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
	ExpiryAt int      // as in Publish; 0 means none as well
	Expiry   uint32   // the value to write at ExpiryAt: what is left of it
	Payload  []byte
}

// propsSize is the Property Length.
func (o *Outgoing) propsSize() int {
	n := len(o.Props)
	if o.Alias != 0 {
		n += 3
	}
	for _, id := range o.SubIDs {
		n += 1 + varintSize(int(id))
	}
	return n
}

// sizes are the Property Length and the Remaining Length.
func (o *Outgoing) sizes() (props, remaining int) {
	remaining = 2 + len(o.Topic) + len(o.Payload)
	if o.QoS > 0 {
		remaining += 2
	}
	if o.Version >= V5 {
		props = o.propsSize()
		remaining += varintSize(props) + props
	}
	return props, remaining
}

// Size is the length of the encoded packet, fixed header included.
func (o *Outgoing) Size() int {
	_, remaining := o.sizes()
	return 1 + varintSize(remaining) + remaining
}

// Put writes the packet to dst, which has room for Size bytes, and returns
// that length and the offset of the Packet Identifier (0 at QoS 0). No
// allocation.
func (o *Outgoing) Put(dst []byte) (n, idAt int) {
	props, remaining := o.sizes()
	first := byte(PUBLISH)<<4 | o.QoS<<1
	if o.Dup {
		first |= flagDup
	}
	if o.Retain {
		first |= 1
	}
	dst[0] = first
	n = 1 + putVarint(dst[1:], remaining)
	binary.BigEndian.PutUint16(dst[n:], uint16(len(o.Topic)))
	n += 2 + copy(dst[n+2:], o.Topic)
	if o.QoS > 0 {
		idAt = n
		binary.BigEndian.PutUint16(dst[n:], o.PacketID)
		n += 2
	}
	if o.Version >= V5 {
		n += putVarint(dst[n:], props)
		n += o.putProps(dst[n:])
	}
	n += copy(dst[n:], o.Payload)
	return n, idAt
}

func (o *Outgoing) putProps(dst []byte) (n int) {
	if o.Alias != 0 {
		dst[0] = propTopicAlias
		binary.BigEndian.PutUint16(dst[1:], o.Alias)
		n = 3
	}
	for _, id := range o.SubIDs {
		dst[n] = propSubscriptionID
		n += 1 + putVarint(dst[n+1:], int(id))
	}
	if len(o.Props) > 0 {
		copy(dst[n:], o.Props)
		if o.ExpiryAt > 0 {
			binary.BigEndian.PutUint32(dst[n+o.ExpiryAt:], o.Expiry)
		}
		n += len(o.Props)
	}
	return n
}
