package conformance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Control packet types.
const (
	tCONNECT byte = 1 + iota
	tCONNACK
	tPUBLISH
	tPUBACK
	tPUBREC
	tPUBREL
	tPUBCOMP
	tSUBSCRIBE
	tSUBACK
	tUNSUBSCRIBE
	tUNSUBACK
	tPINGREQ
	tPINGRESP
	tDISCONNECT
	tAUTH
)

var typeName = [16]string{"type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"}

// Protocol levels.
const (
	v31  byte = 3
	v311 byte = 4
	v5   byte = 5
)

func versionName(v byte) string { return map[byte]string{v31: "v3.1", v311: "v3.1.1", v5: "v5"}[v] }

// Property identifiers.
const (
	pPayloadFormat     = 0x01
	pMessageExpiry     = 0x02
	pContentType       = 0x03
	pResponseTopic     = 0x08
	pCorrelationData   = 0x09
	pSubscriptionID    = 0x0b
	pSessionExpiry     = 0x11
	pAssignedClientID  = 0x12
	pServerKeepAlive   = 0x13
	pAuthMethod        = 0x15
	pAuthData          = 0x16
	pRequestProblem    = 0x17
	pWillDelay         = 0x18
	pRequestResponse   = 0x19
	pResponseInfo      = 0x1a
	pServerReference   = 0x1c
	pReasonString      = 0x1f
	pReceiveMaximum    = 0x21
	pTopicAliasMaximum = 0x22
	pTopicAlias        = 0x23
	pMaximumQoS        = 0x24
	pRetainAvailable   = 0x25
	pUserProperty      = 0x26
	pMaximumPacketSize = 0x27
	pWildcardAvailable = 0x28
	pSubIDAvailable    = 0x29
	pSharedAvailable   = 0x2a
)

// kind is how a property's value is written.
var kind = map[byte]string{pPayloadFormat: "1", pMessageExpiry: "4", pContentType: "s", pResponseTopic: "s",
	pCorrelationData: "b", pSubscriptionID: "v", pSessionExpiry: "4", pAssignedClientID: "s", pServerKeepAlive: "2",
	pAuthMethod: "s", pAuthData: "b", pRequestProblem: "1", pWillDelay: "4", pRequestResponse: "1", pResponseInfo: "s",
	pServerReference: "s", pReasonString: "s", pReceiveMaximum: "2", pTopicAliasMaximum: "2", pTopicAlias: "2",
	pMaximumQoS: "1", pRetainAvailable: "1", pUserProperty: "p", pMaximumPacketSize: "4", pWildcardAvailable: "1",
	pSubIDAvailable: "1", pSharedAvailable: "1"}

// serverProps are the properties that a server may put in a packet (MQTT 5.0
// section 2.2.2.2).
var serverProps = map[byte]string{
	tCONNACK: "\x11\x12\x13\x15\x16\x1a\x1c\x1f\x21\x22\x24\x25\x26\x27\x28\x29\x2a",
	tPUBLISH: "\x01\x02\x03\x08\x09\x0b\x23\x26",
	tPUBACK:  "\x1f\x26", tPUBREC: "\x1f\x26", tPUBREL: "\x1f\x26", tPUBCOMP: "\x1f\x26",
	tSUBACK: "\x1f\x26", tUNSUBACK: "\x1f\x26",
	tDISCONNECT: "\x1c\x1f\x26", // 0x11 is for clients [MQTT-3.14.2-2]
	tAUTH:       "\x15\x16\x1f\x26",
}

// serverReasons are the reason codes that a server may put in a packet of 5.0.
var serverReasons = map[byte]string{
	tCONNACK:  "\x00\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8c\x90\x95\x97\x99\x9a\x9b\x9c\x9d\x9f",
	tPUBACK:   "\x00\x10\x80\x83\x87\x90\x91\x97\x99",
	tPUBREC:   "\x00\x10\x80\x83\x87\x90\x91\x97\x99",
	tPUBREL:   "\x00\x92",
	tPUBCOMP:  "\x00\x92",
	tSUBACK:   "\x00\x01\x02\x80\x83\x87\x8f\x91\x97\x9e\xa1\xa2",
	tUNSUBACK: "\x00\x11\x80\x83\x87\x8f\x91",
	tDISCONNECT: "\x00\x80\x81\x82\x83\x87\x89\x8b\x8d\x8e\x8f\x90\x93\x94\x95\x96\x97\x98\x99\x9a\x9b\x9c\x9d" +
		"\x9e\x9f\xa0\xa1\xa2",
	tAUTH: "\x00\x18",
}

// cat joins byte slices into a new one.
func cat(bs ...[]byte) []byte {
	out := []byte{}
	for _, b := range bs {
		out = append(out, b...)
	}
	return out
}

func u16(n int) []byte    { return []byte{byte(n >> 8), byte(n)} }
func u32(n int) []byte    { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
func str(s string) []byte { return append(u16(len(s)), s...) }

func varint(n int) []byte {
	var out []byte
	for {
		b := byte(n & 0x7f)
		if n >>= 7; n == 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}

// frame puts a fixed header before body.
func frame(typ, flags byte, body ...[]byte) []byte {
	b := cat(body...)
	return cat([]byte{typ<<4 | flags}, varint(len(b)), b)
}

// Properties, encoded.
func prop1(id byte, n int) []byte        { return []byte{id, byte(n)} }
func prop2(id byte, n int) []byte        { return cat([]byte{id}, u16(n)) }
func prop4(id byte, n int) []byte        { return cat([]byte{id}, u32(n)) }
func propV(id byte, n int) []byte        { return cat([]byte{id}, varint(n)) }
func propS(id byte, s string) []byte     { return cat([]byte{id}, str(s)) }
func userProp(name, value string) []byte { return cat([]byte{pUserProperty}, str(name), str(value)) }

// props is a property length and what it counts.
func props(p ...[]byte) []byte { b := cat(p...); return cat(varint(len(b)), b) }

// will of a CONNECT.
type will struct {
	props   []byte
	topic   string
	payload string
	qos     byte
	retain  bool
}

// connect is a CONNECT to be written.
type connect struct {
	version    byte
	clean      bool
	keepAlive  int
	id         string
	props      []byte
	will       *will
	user, pass *string

	name  string // protocol name, if not the version's own
	flags byte   // added to the connect flags
}

func (c *connect) bytes() []byte {
	name := c.name
	if name == "" {
		name = "MQTT"
		if c.version == v31 {
			name = "MQIsdp"
		}
	}
	flags := c.flags
	payload := str(c.id)
	if c.clean {
		flags |= 0x02
	}
	if w := c.will; w != nil {
		flags |= 0x04 | w.qos<<3
		if w.retain {
			flags |= 0x20
		}
		if c.version == v5 {
			payload = cat(payload, props(w.props))
		}
		payload = cat(payload, str(w.topic), str(w.payload))
	}
	if c.user != nil {
		flags |= 0x80
		payload = cat(payload, str(*c.user))
	}
	if c.pass != nil {
		flags |= 0x40
		payload = cat(payload, str(*c.pass))
	}
	head := cat(str(name), []byte{c.version, flags}, u16(c.keepAlive))
	if c.version == v5 {
		head = cat(head, props(c.props))
	}
	return frame(tCONNECT, 0, head, payload)
}

// publish is a PUBLISH, to be written or as it was read.
type publish struct {
	topic   string
	payload string
	qos     byte
	dup     bool
	retain  bool
	id      int
	props   []byte
}

func (p *publish) bytes(v byte) []byte {
	flags := p.qos << 1
	if p.dup {
		flags |= 8
	}
	if p.retain {
		flags |= 1
	}
	body := str(p.topic)
	if p.qos > 0 {
		body = cat(body, u16(p.id))
	}
	if v == v5 {
		body = cat(body, props(p.props))
	}
	return frame(tPUBLISH, flags, body, []byte(p.payload))
}

// ack is a PUBACK, PUBREC, PUBREL or PUBCOMP with reason 0.
func ack(typ byte, id int) []byte {
	flags := byte(0)
	if typ == tPUBREL {
		flags = 2
	}
	return frame(typ, flags, u16(id))
}

// nack is one with a reason (5.0 only).
func nack(typ byte, id int, reason byte) []byte {
	return frame(typ, ack(typ, id)[0]&15, u16(id), []byte{reason})
}

// sub is a filter with its subscription options.
type sub struct {
	filter string
	opts   byte
}

func subscribe(v byte, id int, p []byte, subs ...sub) []byte {
	body := u16(id)
	if v == v5 {
		body = cat(body, props(p))
	}
	for _, s := range subs {
		body = cat(body, str(s.filter), []byte{s.opts})
	}
	return frame(tSUBSCRIBE, 2, body)
}

func unsubscribe(v byte, id int, filters ...string) []byte {
	body := u16(id)
	if v == v5 {
		body = append(body, 0)
	}
	for _, f := range filters {
		body = cat(body, str(f))
	}
	return frame(tUNSUBSCRIBE, 2, body)
}

var (
	pingreq    = frame(tPINGREQ, 0)
	disconnect = frame(tDISCONNECT, 0)
)

// disconnectWith is a DISCONNECT of 5.0 with a reason and properties.
func disconnectWith(reason byte, p ...[]byte) []byte {
	return frame(tDISCONNECT, 0, []byte{reason}, props(p...))
}

// property is one that was read.
type property struct {
	id   byte
	num  int
	text string // string, binary data, or the name of a user property
	val  string // the value of a user property
}

// packet is one that was read from a server, taken apart and checked.
type packet struct {
	typ     byte
	flags   byte
	size    int
	id      int
	reason  byte   // of acknowledgements, CONNACK, DISCONNECT, AUTH
	reasons []byte // of SUBACK and UNSUBACK
	present bool   // Session Present
	props   []property
	pub     publish
}

func (p *packet) String() string {
	s := fmt.Sprintf("%s flags=%x id=%d reason=%02x reasons=%x", typeName[p.typ], p.flags, p.id, p.reason, p.reasons)
	if p.typ == tPUBLISH {
		s += fmt.Sprintf(" topic=%.60q payload=%.60q", p.pub.topic, p.pub.payload)
	}
	for _, x := range p.props {
		s += fmt.Sprintf(" %02x=%d%q%q", x.id, x.num, x.text, x.val)
	}
	return s
}

// all returns the properties with an identifier, in their order.
func (p *packet) all(id byte) []property {
	var out []property
	for _, x := range p.props {
		if x.id == id {
			out = append(out, x)
		}
	}
	return out
}

// prop returns the property with an identifier, if it is there.
func (p *packet) prop(id byte) (property, bool) {
	if a := p.all(id); len(a) > 0 {
		return a[0], true
	}
	return property{}, false
}

// has reports whether there is such a property.
func (p *packet) has(id byte) bool { _, ok := p.prop(id); return ok }

// cursor reads fields; the first fault sticks.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) take(n int) []byte {
	if c.err != nil || n > len(c.b) {
		c.err = errors.Join(c.err, errors.New("packet is too short"))
		return make([]byte, min(n, 4))
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) u8() byte    { return c.take(1)[0] }
func (c *cursor) u16() int    { return int(binary.BigEndian.Uint16(c.take(2))) }
func (c *cursor) u32() int    { return int(binary.BigEndian.Uint32(c.take(4))) }
func (c *cursor) bin() string { return string(c.take(c.u16())) }

func (c *cursor) str() string {
	s := c.bin()
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		c.err = errors.Join(c.err, fmt.Errorf("string %q is not valid", s))
	}
	return s
}

func (c *cursor) varint() int {
	n, shift := 0, 0
	for {
		b := c.u8()
		n |= int(b&0x7f) << shift
		if b < 0x80 || c.err != nil {
			if b == 0 && shift > 0 {
				c.err = errors.Join(c.err, errors.New("variable byte integer is not the shortest"))
			}
			return n
		}
		if shift += 7; shift > 21 {
			c.err = errors.Join(c.err, errors.New("variable byte integer is too long"))
			return 0
		}
	}
}

func (c *cursor) props(typ byte) (out []property) {
	in := cursor{b: c.take(c.varint())}
	for len(in.b) > 0 && in.err == nil {
		p := property{id: in.u8()}
		switch kind[p.id] {
		case "1":
			p.num = int(in.u8())
		case "2":
			p.num = in.u16()
		case "4":
			p.num = in.u32()
		case "v":
			p.num = in.varint()
		case "s":
			p.text = in.str()
		case "b":
			p.text = in.bin()
		case "p":
			p.text, p.val = in.str(), in.str()
		}
		if strings.IndexByte(serverProps[typ], p.id) < 0 {
			in.err = errors.Join(in.err, fmt.Errorf("property %02x in %s from a server", p.id, typeName[typ]))
		}
		if p.id != pUserProperty && p.id != pSubscriptionID {
			for _, q := range out {
				if q.id == p.id {
					in.err = errors.Join(in.err, fmt.Errorf("property %02x twice in %s", p.id, typeName[typ]))
				}
			}
		}
		out = append(out, p)
	}
	c.err = errors.Join(c.err, in.err)
	return out
}

// readPacket reads one packet from a server that speaks version v. An error
// that wraps errFormat says how the packet breaks the protocol.
func readPacket(r io.Reader, v byte) (*packet, error) {
	var h [5]byte
	if _, err := io.ReadFull(r, h[:1]); err != nil {
		return nil, err
	}
	n := 1
	for {
		if _, err := io.ReadFull(r, h[n:n+1]); err != nil {
			return nil, err
		}
		if n++; h[n-1] < 0x80 || n == 5 {
			break
		}
	}
	lc := cursor{b: h[1:n]}
	remaining := lc.varint()
	if lc.err != nil {
		return nil, fmt.Errorf("%w: remaining length: %w", errFormat, lc.err)
	}
	body := make([]byte, remaining)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	p := &packet{typ: h[0] >> 4, flags: h[0] & 15, size: n + remaining}
	if err := p.parse(body, v); err != nil {
		return p, fmt.Errorf("%w: %s %x%x: %w", errFormat, typeName[p.typ], h[:n], body[:min(len(body), 200)], err)
	}
	return p, nil
}

var errFormat = errors.New("the server sent a bad packet")

func (p *packet) parse(body []byte, v byte) error {
	c := cursor{b: body}
	switch p.typ {
	case tCONNACK:
		f := c.u8()
		p.present = f&1 != 0
		p.reason = c.u8()
		if f&^1 != 0 {
			return fmt.Errorf("acknowledge flags %02x", f)
		}
		if v == v5 {
			p.props = c.props(p.typ)
		} else if p.reason > 5 {
			return fmt.Errorf("return code %d", p.reason)
		}
	case tPUBLISH:
		p.pub = publish{qos: p.flags >> 1 & 3, dup: p.flags&8 != 0, retain: p.flags&1 != 0}
		p.pub.topic = c.str()
		if p.pub.qos == 3 || p.pub.qos == 0 && p.pub.dup {
			return fmt.Errorf("flags %x", p.flags)
		}
		if p.pub.qos > 0 {
			if p.id = c.u16(); p.id == 0 {
				return errors.New("packet identifier 0")
			}
			p.pub.id = p.id
		}
		if v == v5 {
			p.props = c.props(p.typ)
		}
		p.pub.payload = string(c.b)
		c.b = nil
		if a, ok := p.prop(pTopicAlias); ok && a.num == 0 {
			return errors.New("topic alias 0")
		}
	case tPUBACK, tPUBREC, tPUBREL, tPUBCOMP:
		p.id = c.u16()
		if v == v5 && len(c.b) > 0 {
			if p.reason = c.u8(); len(c.b) > 0 {
				p.props = c.props(p.typ)
			}
		}
	case tSUBACK, tUNSUBACK:
		p.id = c.u16()
		if v == v5 {
			p.props = c.props(p.typ)
		}
		if p.typ == tSUBACK || v == v5 {
			p.reasons, c.b = c.b, nil
		}
	case tPINGRESP:
	case tDISCONNECT, tAUTH:
		if v != v5 {
			return errors.New("a server sends it in 5.0 only")
		}
		if len(c.b) > 0 {
			if p.reason = c.u8(); len(c.b) > 0 {
				p.props = c.props(p.typ)
			}
		}
	default:
		return errors.New("not for a server to send")
	}
	if c.err != nil {
		return c.err
	}
	if len(c.b) > 0 {
		return fmt.Errorf("%d bytes too many", len(c.b))
	}
	return p.check(v)
}

// check holds flags and reason codes against the tables of the specification.
func (p *packet) check(v byte) error {
	want := byte(0)
	if p.typ == tPUBREL {
		want = 2
	}
	if p.typ != tPUBLISH && p.flags != want {
		return fmt.Errorf("flags %x", p.flags)
	}
	codes := serverReasons[p.typ]
	if p.typ == tSUBACK && v != v5 {
		codes = "\x00\x01\x02\x80"
	}
	for _, r := range p.reasons {
		if strings.IndexByte(codes, r) < 0 {
			return fmt.Errorf("reason code %02x", r)
		}
	}
	if v == v5 && p.reasons == nil && codes != "" && strings.IndexByte(codes, p.reason) < 0 {
		return fmt.Errorf("reason code %02x", p.reason)
	}
	return nil
}
