package wire

// Disconnect is a DISCONNECT, in either direction.
type Disconnect struct {
	Reason           ReasonCode
	HasSessionExpiry bool
	SessionExpiry    uint32
	ReasonString     string
	ServerReference  string
	UserProperties   []UserProperty
}

// DecodeDisconnect reads the body of a DISCONNECT from a client, which may not
// name a Server Reference and has reason codes of its own [MQTT-3.14.2-1].
// Below V5 the body is empty. The result shares no memory with body.
func DecodeDisconnect(h Header, body []byte, v Version, lim *Limits) (*Disconnect, error) {
	p, err := decodeDisconnect(body, v, lim, &clientDisconnectReasons)
	if err == nil && p.ServerReference != "" {
		return nil, violation("", "Server Reference from a client")
	}
	return p, err
}

func decodeDisconnect(body []byte, v Version, lim *Limits, allowed *reasonSet) (*Disconnect, error) {
	p := &Disconnect{}
	if len(body) == 0 {
		return p, nil
	}
	if v < V5 {
		return nil, malformed("", "DISCONNECT with a body")
	}
	r := &reader{b: body}
	p.Reason = ReasonCode(r.u8("Reason Code"))
	if err := checkReason(p.Reason, allowed, "MQTT-3.14.2-1"); err != nil {
		return nil, err
	}
	if len(r.b) == 0 { // a Remaining Length below 2 means no properties
		return p, nil
	}
	ps := r.properties(DISCONNECT, lim)
	for ps.advance() {
		switch ps.id {
		case propSessionExpiry:
			p.HasSessionExpiry, p.SessionExpiry = true, ps.num
		case propReasonString:
			p.ReasonString = string(ps.data)
		case propServerReference:
			p.ServerReference = string(ps.data)
		case propUser:
			p.UserProperties = append(p.UserProperties, ps.user())
		}
	}
	if ps.err != nil {
		return nil, ps.err
	}
	if r.end(); r.err != nil {
		return nil, r.err
	}
	return p, nil
}

// Append appends the packet in the form of V5: empty if it says nothing, else
// with a Property Length even if there are no properties, as some clients read
// on for it.
func (p *Disconnect) Append(dst []byte) []byte {
	out := beginPacket(dst, DISCONNECT)
	bare := !p.HasSessionExpiry && p.ReasonString == "" && p.ServerReference == "" && len(p.UserProperties) == 0
	if bare && p.Reason == NormalDisconnection {
		return out.end()
	}
	out.u8(byte(p.Reason))
	start := out.beginProperties()
	if p.HasSessionExpiry {
		out.propU32(propSessionExpiry, p.SessionExpiry)
	}
	if p.ReasonString != "" {
		out.propText(propReasonString, p.ReasonString)
	}
	out.propUsers(p.UserProperties)
	if p.ServerReference != "" {
		out.propText(propServerReference, p.ServerReference)
	}
	out.endProperties(start)
	return out.end()
}
