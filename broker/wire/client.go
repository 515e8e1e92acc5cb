package wire

import "encoding/binary"

// This file is what a client needs beside the rest: the broker's tests, its
// command line and a bridge speak the protocol from the other end.

// DecodeFromServer is Decode for a PUBLISH that a server sent: Subscription
// Identifiers are allowed, appended to ids, and not among Props. It returns ids
// with or without an error.
func (p *Publish) DecodeFromServer(h Header, body []byte, v Version, lim *Limits, ids []uint32) ([]uint32, error) {
	return p.decode(h, body, v, lim, ids, true)
}

// PingSize is the length of PINGREQ and PINGRESP.
const PingSize = 2

// PutPing writes PINGREQ or PINGRESP to dst, which has room for PingSize bytes,
// and returns its length.
func PutPing(dst []byte, t Type) int {
	dst[0], dst[1] = byte(t)<<4, 0
	return PingSize
}

// Append appends the packet in the form of p.Version; what that has no place
// for is left out.
func (p *Connect) Append(dst []byte) []byte {
	out := beginPacket(dst, CONNECT)
	if p.Version == V31 {
		out.text(protocolName31)
	} else {
		out.text(protocolName)
	}
	out.u8(byte(p.Version))
	out.u8(p.flags())
	out.u16(p.KeepAlive)
	if p.Version >= V5 {
		start := out.beginProperties()
		p.appendProperties(&out)
		out.endProperties(start)
	}
	out.text(p.ClientID)
	if w := p.Will; w != nil {
		if p.Version >= V5 {
			start := out.beginProperties()
			if w.Delay != 0 {
				out.propU32(propWillDelay, w.Delay)
			}
			out.dst = append(out.dst, w.Props...)
			out.endProperties(start)
		}
		out.text(w.Topic)
		out.binary(w.Payload)
	}
	if p.HasUsername {
		out.text(p.Username)
	}
	if p.HasPassword {
		out.binary(p.Password)
	}
	return out.end()
}

func (p *Connect) flags() (f byte) {
	if p.CleanStart {
		f |= connectCleanStart
	}
	if w := p.Will; w != nil {
		f |= connectWill | w.QoS<<3
		if w.Retain {
			f |= connectWillRetain
		}
	}
	if p.HasUsername {
		f |= connectUsername
	}
	if p.HasPassword {
		f |= connectPassword
	}
	return f
}

// appendProperties leaves out what has the value of its absence. The zero
// Connect asks for no problem information, so callers set RequestProblem.
func (p *Connect) appendProperties(out *packet) {
	if p.SessionExpiry != 0 {
		out.propU32(propSessionExpiry, p.SessionExpiry)
	}
	if p.ReceiveMaximum != 0 && p.ReceiveMaximum != defaultWindow {
		out.propU16(propReceiveMaximum, p.ReceiveMaximum)
	}
	if p.MaximumPacketSize != 0 {
		out.propU32(propMaximumPacketSize, p.MaximumPacketSize)
	}
	if p.TopicAliasMaximum != 0 {
		out.propU16(propTopicAliasMaximum, p.TopicAliasMaximum)
	}
	if p.RequestResponse {
		out.propBit(propRequestResponse, 1)
	}
	if !p.RequestProblem {
		out.propBit(propRequestProblem, 0)
	}
	out.propUsers(p.UserProperties)
	if p.HasAuthMethod {
		out.propText(propAuthMethod, p.AuthMethod)
	}
	if p.AuthData != nil {
		out.propBinary(propAuthData, p.AuthData)
	}
}

// DecodeConnack reads the body of a CONNACK. Below V5 Reason is what the return
// code means. The result shares no memory with body.
func DecodeConnack(h Header, body []byte, v Version) (*Connack, error) {
	r := &reader{b: body}
	flags := r.u8("Connect Acknowledge Flags")
	code := r.u8("Reason Code")
	if r.err != nil {
		return nil, r.err
	}
	if flags > 1 {
		return nil, malformed("MQTT-3.2.2-1", "reserved Connect Acknowledge Flags are set")
	}
	p := &Connack{SessionPresent: flags == 1}
	var err error
	if v < V5 {
		p.Reason, err = reasonOfReturnCode(code)
	} else {
		p.Reason = ReasonCode(code)
		if err = checkReason(p.Reason, &connackReasons, "MQTT-3.2.2-8"); err == nil {
			err = p.readProperties(r)
		}
	}
	if err != nil {
		return nil, err
	}
	if p.SessionPresent && p.Reason != Success {
		return nil, violation("MQTT-3.2.2-6", "Session Present in a refusal")
	}
	if r.end(); r.err != nil {
		return nil, r.err
	}
	return p, nil
}

func reasonOfReturnCode(code byte) (ReasonCode, error) {
	switch code {
	case returnAccepted:
		return Success, nil
	case returnVersion:
		return UnsupportedProtocolVersion, nil
	case returnIdentifier:
		return ClientIdentifierNotValid, nil
	case returnUnavailable:
		return ServerUnavailable, nil
	case returnCredentials:
		return BadUserNameOrPassword, nil
	case returnNotAuthorized:
		return NotAuthorized, nil
	}
	return 0, violation("", "unknown Connect Return code")
}

func (p *Connack) readProperties(r *reader) error {
	ps := r.properties(CONNACK, nil)
	for ps.advance() {
		switch ps.id {
		case propSessionExpiry:
			p.HasSessionExpiry, p.SessionExpiry = true, ps.num
		case propReceiveMaximum:
			p.ReceiveMaximum = uint16(ps.num)
		case propMaximumQoS:
			p.LimitQoS, p.MaximumQoS = true, byte(ps.num)
		case propRetainAvailable:
			p.RetainUnavailable = ps.num == 0
		case propMaximumPacketSize:
			p.MaximumPacketSize = ps.num
		case propAssignedClientID:
			p.AssignedClientID = string(ps.data)
		case propTopicAliasMaximum:
			p.TopicAliasMaximum = uint16(ps.num)
		case propReasonString:
			p.ReasonString = string(ps.data)
		case propUser:
			p.UserProperties = append(p.UserProperties, ps.user())
		case propWildcardAvailable:
			p.WildcardUnavailable = ps.num == 0
		case propSubIDAvailable:
			p.SubIDUnavailable = ps.num == 0
		case propSharedSubAvailable:
			p.SharedUnavailable = ps.num == 0
		case propServerKeepAlive:
			p.HasServerKeepAlive, p.ServerKeepAlive = true, uint16(ps.num)
		case propResponseInfo:
			p.ResponseInformation = string(ps.data)
		case propServerReference:
			p.ServerReference = string(ps.data)
		case propAuthMethod:
			p.AuthMethod = string(ps.data)
		case propAuthData:
			p.AuthData = clone(ps.data)
		}
	}
	return ps.err
}

// Append appends the packet in the form of v. The caller has given it a Packet
// Identifier and at least one filter.
func (p *Subscribe) Append(dst []byte, v Version) []byte {
	out := beginPacket(dst, SUBSCRIBE)
	out.u16(p.PacketID)
	if v >= V5 {
		start := out.beginProperties()
		if p.SubscriptionID != 0 {
			out.propVarint(propSubscriptionID, p.SubscriptionID)
		}
		out.propUsers(p.UserProperties)
		out.endProperties(start)
	}
	for i := range p.Filters {
		out.text(p.Filters[i].Filter)
		out.u8(p.Filters[i].options(v))
	}
	return out.end()
}

func (s *Subscription) options(v Version) byte {
	o := s.QoS
	if v < V5 {
		return o
	}
	if s.NoLocal {
		o |= optionNoLocal
	}
	if s.RetainAsPublished {
		o |= optionRetainAsPublished
	}
	return o | s.RetainHandling<<4
}

// Append appends the packet in the form of v. The caller has given it a Packet
// Identifier and at least one filter.
func (p *Unsubscribe) Append(dst []byte, v Version) []byte {
	out := beginPacket(dst, UNSUBSCRIBE)
	out.u16(p.PacketID)
	if v >= V5 {
		start := out.beginProperties()
		out.propUsers(p.UserProperties)
		out.endProperties(start)
	}
	for _, f := range p.Filters {
		out.text(f)
	}
	return out.end()
}

// Suback is a SUBACK or an UNSUBACK as a client reads it.
type Suback struct {
	PacketID       uint16
	Reasons        []ReasonCode // one per filter; none in an UNSUBACK below V5
	ReasonString   string
	UserProperties []UserProperty
}

// DecodeSuback reads the body of a SUBACK.
func DecodeSuback(h Header, body []byte, v Version) (*Suback, error) {
	allowed := &subackReasons
	if v < V5 {
		allowed = &subackCodes3
	}
	p, err := decodeSuback(body, v, SUBACK, allowed, "MQTT-3.9.3-2")
	if err == nil && len(p.Reasons) == 0 {
		return nil, malformed("MQTT-3.8.4-6", "SUBACK without a reason code")
	}
	return p, err
}

// DecodeUnsuback reads the body of an UNSUBACK.
func DecodeUnsuback(h Header, body []byte, v Version) (*Suback, error) {
	p, err := decodeSuback(body, v, UNSUBACK, &unsubackReasons, "MQTT-3.11.3-2")
	if err == nil && v < V5 && len(p.Reasons) > 0 {
		return nil, malformed("", "UNSUBACK with a payload")
	}
	return p, err
}

func decodeSuback(body []byte, v Version, t Type, allowed *reasonSet, clause string) (*Suback, error) {
	if len(body) < 2 {
		return nil, malformed("", "packet ends within Packet Identifier")
	}
	p := &Suback{PacketID: binary.BigEndian.Uint16(body)}
	if p.PacketID == 0 {
		return nil, violation("MQTT-2.2.1-6", "Packet Identifier is 0")
	}
	r := &reader{b: body[2:]}
	if v >= V5 {
		ps := r.properties(t, nil)
		for ps.advance() {
			switch ps.id {
			case propReasonString:
				p.ReasonString = string(ps.data)
			case propUser:
				p.UserProperties = append(p.UserProperties, ps.user())
			}
		}
		if ps.err != nil {
			return nil, ps.err
		}
	}
	for _, c := range r.b {
		if err := checkReason(ReasonCode(c), allowed, clause); err != nil {
			return nil, err
		}
		p.Reasons = append(p.Reasons, ReasonCode(c))
	}
	return p, nil
}

// DecodeServerDisconnect is DecodeDisconnect for one that a server of V5 sent,
// which may not name a Session Expiry Interval [MQTT-3.14.2-2].
func DecodeServerDisconnect(h Header, body []byte, lim *Limits) (*Disconnect, error) {
	p, err := decodeDisconnect(body, V5, lim, &serverDisconnectReasons)
	if err == nil && p.HasSessionExpiry {
		return nil, violation("MQTT-3.14.2-2", "Session Expiry Interval from a server")
	}
	return p, err
}
