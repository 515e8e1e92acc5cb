package wire

// PassProperties are the properties of a PUBLISH that are passed on from the
// publisher to the subscribers, decoded. See Publish.Props for their encoding.
type PassProperties struct {
	PayloadIsText   bool // Payload Format Indicator 1
	HasExpiry       bool
	Expiry          uint32 // Message Expiry Interval, seconds
	ContentType     string
	ResponseTopic   string
	CorrelationData []byte
	UserProperties  []UserProperty
}

// Check reports why no PUBLISH can carry p: text that is not UTF-8 or holds
// U+0000, or a Response Topic with a wildcard. The error is an *Error.
func (p *PassProperties) Check() error {
	if err := checkText([]byte(p.ContentType), "Content Type"); err != nil {
		return err
	}
	if p.ResponseTopic != "" {
		topic := []byte(p.ResponseTopic)
		if err := checkText(topic, "Response Topic"); err != nil {
			return err
		}
		if err := checkResponseTopic(topic); err != nil {
			return err
		}
	}
	for _, u := range p.UserProperties {
		for _, text := range []string{u.Key, u.Value} {
			if err := checkText([]byte(text), "User Property"); err != nil {
				return err
			}
		}
	}
	return nil
}

// Append appends p in the form of Publish.Props and returns it with the offset
// of the Message Expiry Interval's value, or -1. Strings and binary data
// longer than 65,535 bytes are cut.
func (p *PassProperties) Append(dst []byte) (props []byte, expiryAt int) {
	out := packet{dst: dst}
	expiryAt = -1
	if p.PayloadIsText {
		out.propBit(propPayloadFormat, 1)
	}
	if p.HasExpiry {
		expiryAt = len(out.dst) + 1 - len(dst)
		out.propU32(propMessageExpiry, p.Expiry)
	}
	if p.ContentType != "" {
		out.propText(propContentType, p.ContentType)
	}
	if p.ResponseTopic != "" {
		out.propText(propResponseTopic, p.ResponseTopic)
	}
	if p.CorrelationData != nil {
		out.propBinary(propCorrelationData, p.CorrelationData)
	}
	out.propUsers(p.UserProperties)
	return out.dst, expiryAt
}

// ReadPassProperties decodes props, which is in the form of Publish.Props and
// was checked before; it panics if not. What it returns owns its memory.
func ReadPassProperties(props []byte) (p PassProperties) {
	ps := propertyReader{b: props, set: in(PUBLISH)}
	for ps.advance() {
		switch ps.id {
		case propPayloadFormat:
			p.PayloadIsText = ps.num == 1
		case propMessageExpiry:
			p.HasExpiry, p.Expiry = true, ps.num
		case propContentType:
			p.ContentType = string(ps.data)
		case propResponseTopic:
			p.ResponseTopic = string(ps.data)
		case propCorrelationData:
			p.CorrelationData = append([]byte{}, ps.data...)
		case propUser:
			p.UserProperties = append(p.UserProperties, ps.user())
		}
	}
	if ps.err != nil {
		panic("wire: properties that were not checked: " + ps.err.Error())
	}
	return p
}
