package wire

// Auth is an AUTH, in either direction.
type Auth struct {
	Reason         ReasonCode
	Method         string
	Data           []byte // nil if absent
	ReasonString   string
	UserProperties []UserProperty
}

// DecodeAuth reads the body of an AUTH. An empty one is Success without a
// method; any other has to name its Authentication Method. That Success is the
// server's to send only is the caller's to check. The result shares no memory
// with body.
func DecodeAuth(h Header, body []byte, lim *Limits) (*Auth, error) {
	p := &Auth{}
	if len(body) == 0 {
		return p, nil
	}
	r := &reader{b: body}
	p.Reason = ReasonCode(r.u8("Reason Code"))
	if err := checkReason(p.Reason, &authReasons, "MQTT-3.15.2-1"); err != nil {
		return nil, err
	}
	hasMethod := false
	ps := r.properties(AUTH, lim)
	for ps.advance() {
		switch ps.id {
		case propAuthMethod:
			hasMethod, p.Method = true, string(ps.data)
		case propAuthData:
			p.Data = clone(ps.data)
		case propReasonString:
			p.ReasonString = string(ps.data)
		case propUser:
			p.UserProperties = append(p.UserProperties, ps.user())
		}
	}
	if ps.err != nil {
		return nil, ps.err
	}
	if !hasMethod {
		return nil, violation("", "AUTH without Authentication Method")
	}
	if r.end(); r.err != nil {
		return nil, r.err
	}
	return p, nil
}

// Append appends the packet. The Authentication Method is always in it, as
// section 3.15.2.2.2 asks.
func (p *Auth) Append(dst []byte) []byte {
	out := beginPacket(dst, AUTH)
	out.u8(byte(p.Reason))
	start := out.beginProperties()
	out.propText(propAuthMethod, p.Method)
	if p.Data != nil {
		out.propBinary(propAuthData, p.Data)
	}
	if p.ReasonString != "" {
		out.propText(propReasonString, p.ReasonString)
	}
	out.propUsers(p.UserProperties)
	out.endProperties(start)
	return out.end()
}
