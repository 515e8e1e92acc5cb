package wire

import "strings"

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

// Bits of the Subscription Options (section 3.8.3.1).
const (
	optionQoS               = 0x03
	optionNoLocal           = 0x04
	optionRetainAsPublished = 0x08
	optionReserved          = 0xC0
	optionsReserved3        = 0xFC // in 3.x, where there is only the QoS
)

// DecodeSubscribe reads the body of a SUBSCRIBE. Filters are checked for UTF-8
// only: what a filter means is the caller's, who refuses it with a reason code
// of its own. An empty list is an error [MQTT-3.8.3-2], and so is No Local on
// a filter that begins with $share/ [MQTT-3.8.3-4]. The result shares no
// memory with body.
func DecodeSubscribe(h Header, body []byte, v Version, lim *Limits) (*Subscribe, error) {
	if err := checkDupFlag(h, v); err != nil {
		return nil, err
	}
	r := &reader{b: body}
	p := &Subscribe{PacketID: r.packetID()}
	if v >= V5 && r.err == nil {
		ps := r.properties(SUBSCRIBE, lim)
		for ps.advance() {
			switch ps.id {
			case propSubscriptionID:
				p.SubscriptionID = ps.num
			case propUser:
				p.UserProperties = append(p.UserProperties, ps.user())
			}
		}
		if ps.err != nil {
			return nil, ps.err
		}
	}
	for r.err == nil && len(r.b) > 0 {
		s := Subscription{Filter: string(r.text("Topic Filter"))}
		options := r.u8("Subscription Options")
		if r.err != nil {
			break
		}
		if err := s.readOptions(options, v); err != nil {
			return nil, err
		}
		p.Filters = append(p.Filters, s)
	}
	if r.err != nil {
		return nil, r.err
	}
	if len(p.Filters) == 0 {
		return nil, violation("MQTT-3.8.3-2", "SUBSCRIBE without a Topic Filter")
	}
	return p, nil
}

func (s *Subscription) readOptions(o byte, v Version) error {
	s.QoS = o & optionQoS
	if v < V5 {
		if o&optionsReserved3 != 0 || s.QoS == 3 {
			return malformed("MQTT3-3.8.3-4", "Requested QoS is none of 0, 1 and 2")
		}
		return nil
	}
	s.NoLocal = o&optionNoLocal != 0
	s.RetainAsPublished = o&optionRetainAsPublished != 0
	s.RetainHandling = o >> 4 & 3
	switch {
	case o&optionReserved != 0:
		return malformed("MQTT-3.8.3-5", "reserved Subscription Options are set")
	case s.QoS == 3:
		return violation("", "Maximum QoS of a subscription is 3")
	case s.RetainHandling == 3:
		return violation("", "Retain Handling is 3")
	case s.NoLocal && strings.HasPrefix(s.Filter, "$share/"):
		return violation("MQTT-3.8.3-4", "No Local on a Shared Subscription")
	}
	return nil
}

// AppendSuback appends a SUBACK. Below V5 every reason from 0x80 is written as
// 0x80 (and by 3.1 as well, which has no failure code but whose clients expect
// 3.1.1's).
func AppendSuback(dst []byte, v Version, id uint16, reasons []ReasonCode) []byte {
	out := beginPacket(dst, SUBACK)
	out.u16(id)
	if v >= V5 {
		out.u8(0)
	}
	for _, r := range reasons {
		if v < V5 && r.Failed() {
			r = UnspecifiedError
		}
		out.u8(byte(r))
	}
	return out.end()
}

// Unsubscribe is an UNSUBSCRIBE.
type Unsubscribe struct {
	PacketID       uint16
	UserProperties []UserProperty
	Filters        []string
}

// DecodeUnsubscribe reads the body of an UNSUBSCRIBE. Filters are checked for
// UTF-8 only; an empty list is an error [MQTT-3.10.3-2]. The result shares no
// memory with body.
func DecodeUnsubscribe(h Header, body []byte, v Version, lim *Limits) (*Unsubscribe, error) {
	if err := checkDupFlag(h, v); err != nil {
		return nil, err
	}
	r := &reader{b: body}
	p := &Unsubscribe{PacketID: r.packetID()}
	if v >= V5 && r.err == nil {
		ps := r.properties(UNSUBSCRIBE, lim)
		for ps.advance() {
			p.UserProperties = append(p.UserProperties, ps.user())
		}
		if ps.err != nil {
			return nil, ps.err
		}
	}
	for r.err == nil && len(r.b) > 0 {
		p.Filters = append(p.Filters, string(r.text("Topic Filter")))
	}
	if r.err != nil {
		return nil, r.err
	}
	if len(p.Filters) == 0 {
		return nil, violation("MQTT-3.10.3-2", "UNSUBSCRIBE without a Topic Filter")
	}
	return p, nil
}

// AppendUnsuback appends an UNSUBACK; below V5 it carries no reasons.
func AppendUnsuback(dst []byte, v Version, id uint16, reasons []ReasonCode) []byte {
	out := beginPacket(dst, UNSUBACK)
	out.u16(id)
	if v >= V5 {
		out.u8(0)
		for _, r := range reasons {
			out.u8(byte(r))
		}
	}
	return out.end()
}
