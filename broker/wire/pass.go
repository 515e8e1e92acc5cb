package wire

import "encoding/binary"

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

// Append appends p in the form of Publish.Props and returns it with the offset
// of the Message Expiry Interval's value, or -1. Strings and binary data
// longer than 65,535 bytes are cut.
func (p *PassProperties) Append(dst []byte) (props []byte, expiryAt int) {
	w := packet{dst: dst}
	expiryAt = -1
	if p.PayloadIsText {
		w.propBit(0x01, 1)
	}
	if p.HasExpiry {
		w.u8(0x02)
		expiryAt = len(w.dst) - len(dst)
		w.u32(p.Expiry)
	}
	if p.ContentType != "" {
		w.u8(0x03)
		w.text(p.ContentType)
	}
	if p.ResponseTopic != "" {
		w.u8(0x08)
		w.text(p.ResponseTopic)
	}
	if p.CorrelationData != nil {
		w.u8(0x09)
		w.binary(p.CorrelationData)
	}
	for _, u := range p.UserProperties {
		w.u8(0x26)
		w.text(u.Key)
		w.text(u.Value)
	}
	return w.dst, expiryAt
}

// ReadPassProperties decodes props, which is in the form of Publish.Props and
// was checked before. What it returns owns its memory.
func ReadPassProperties(props []byte) (p PassProperties) {
	block := func() []byte {
		n := int(binary.BigEndian.Uint16(props))
		b := props[2 : 2+n]
		props = props[2+n:]
		return b
	}
	for len(props) > 0 {
		id := props[0]
		props = props[1:]
		switch id {
		case 0x01:
			p.PayloadIsText = props[0] == 1
			props = props[1:]
		case 0x02:
			p.HasExpiry, p.Expiry = true, binary.BigEndian.Uint32(props)
			props = props[4:]
		case 0x03:
			p.ContentType = string(block())
		case 0x08:
			p.ResponseTopic = string(block())
		case 0x09:
			p.CorrelationData = append([]byte{}, block()...)
		case 0x26:
			key := string(block())
			p.UserProperties = append(p.UserProperties, UserProperty{key, string(block())})
		default:
			panic("wire: property that is not passed on")
		}
	}
	return p
}
