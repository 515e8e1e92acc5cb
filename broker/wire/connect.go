package wire

import "unicode/utf8"

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

	SessionExpiry     uint32 // seconds; below V5: 0 if clean, else 0xFFFFFFFF
	ReceiveMaximum    uint16 // 65535 if absent
	MaximumPacketSize uint32 // 0 if absent
	TopicAliasMaximum uint16
	RequestResponse   bool // Request Response Information
	RequestProblem    bool // Request Problem Information; true if absent
	UserProperties    []UserProperty
	HasAuthMethod     bool
	AuthMethod        string
	AuthData          []byte // nil if absent
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

// Bits of the Connect Flags (section 3.1.2.3).
const (
	connectReserved   = 0x01
	connectCleanStart = 0x02
	connectWill       = 0x04
	connectWillRetain = 0x20
	connectPassword   = 0x40
	connectUsername   = 0x80
)

const (
	protocolName   = "MQTT"
	protocolName31 = "MQIsdp"
	defaultWindow  = 65535 // Receive Maximum if absent
	neverExpires   = 0xFFFFFFFF
)

// DecodeConnect reads the body of a CONNECT. An unknown protocol name or level
// gives an *Error with UnsupportedProtocolVersion, and a Connect whose Version
// says in which form to answer. A zero-length will payload, password or client
// identifier is legal, except that 3.1 wants a client identifier and 3.1.1
// wants one without Clean Session: that is ClientIdentifierNotValid.
//
// With every error the Connect is not nil, and its Version is the one to answer
// in; no other field of it means anything then. The Connect shares no memory
// with body.
func DecodeConnect(h Header, body []byte, lim *Limits) (*Connect, error) {
	c := &Connect{Version: V311, ReceiveMaximum: defaultWindow, RequestProblem: true}
	r := &reader{b: body}
	if err := c.readProtocol(r); err != nil {
		return c, err
	}
	flags := r.u8("Connect Flags")
	c.KeepAlive = r.u16("Keep Alive")
	if r.err != nil {
		return c, r.err
	}
	if err := c.checkFlags(flags); err != nil {
		return c, err
	}
	c.CleanStart = flags&connectCleanStart != 0
	if c.Version >= V5 {
		if err := c.readProperties(r, lim); err != nil {
			return c, err
		}
	} else if !c.CleanStart {
		c.SessionExpiry = neverExpires
	}
	c.ClientID = string(r.text("Client Identifier"))
	if flags&connectWill != 0 && r.err == nil {
		if err := c.readWill(r, flags, lim); err != nil {
			return c, err
		}
	}
	c.readCredentials(r, flags)
	if r.end(); r.err != nil {
		return c, r.err
	}
	return c, c.checkClientID()
}

// readProtocol reads Protocol Name and Protocol Version.
func (c *Connect) readProtocol(r *reader) error {
	name := string(r.text("Protocol Name"))
	level := Version(r.u8("Protocol Version"))
	if r.err != nil {
		return r.err
	}
	switch {
	case name == protocolName && (level == V311 || level == V5), name == protocolName31 && level == V31:
		c.Version = level
		return nil
	case name == protocolName31:
		c.Version = V31
	case level >= V5 && level < 0x80:
		// A level with the top bit set is how some bridges of 3.x announce
		// themselves, so only this side of it is a later protocol.
		c.Version = V5
	}
	e := &Error{Reason: UnsupportedProtocolVersion, Clause: "MQTT-3.1.2-2", Detail: "Protocol Version is not supported"}
	if name != protocolName && name != protocolName31 {
		e.Clause, e.Detail = "MQTT-3.1.2-1", "Protocol Name is not MQTT"
	}
	return e
}

func (c *Connect) checkFlags(flags byte) error {
	qos := flags >> 3 & 3
	switch {
	case flags&connectReserved != 0:
		return malformed("MQTT-3.1.2-3", "reserved Connect Flag is set")
	case flags&connectWill == 0 && qos != 0:
		return malformed("MQTT-3.1.2-11", "Will QoS without Will Flag")
	case flags&connectWill == 0 && flags&connectWillRetain != 0:
		return malformed("MQTT-3.1.2-13", "Will Retain without Will Flag")
	case qos == 3:
		return malformed("MQTT-3.1.2-12", "Will QoS is 3")
	case c.Version < V5 && flags&connectPassword != 0 && flags&connectUsername == 0:
		return malformed("MQTT3-3.1.2-22", "Password Flag without User Name Flag")
	}
	return nil
}

func (c *Connect) readProperties(r *reader, lim *Limits) error {
	ps := r.properties(CONNECT, lim)
	for ps.advance() {
		switch ps.id {
		case propSessionExpiry:
			c.SessionExpiry = ps.num
		case propReceiveMaximum:
			c.ReceiveMaximum = uint16(ps.num)
		case propMaximumPacketSize:
			c.MaximumPacketSize = ps.num
		case propTopicAliasMaximum:
			c.TopicAliasMaximum = uint16(ps.num)
		case propRequestResponse:
			c.RequestResponse = ps.num == 1
		case propRequestProblem:
			c.RequestProblem = ps.num == 1
		case propUser:
			c.UserProperties = append(c.UserProperties, ps.user())
		case propAuthMethod:
			c.HasAuthMethod, c.AuthMethod = true, string(ps.data)
		case propAuthData:
			c.AuthData = clone(ps.data)
		}
	}
	if ps.err != nil {
		return ps.err
	}
	if c.AuthData != nil && !c.HasAuthMethod {
		return violation("", "Authentication Data without Authentication Method")
	}
	return nil
}

func (c *Connect) readWill(r *reader, flags byte, lim *Limits) error {
	w := &Will{QoS: flags >> 3 & 3, Retain: flags&connectWillRetain != 0, ExpiryAt: -1}
	format := byte(0)
	if c.Version >= V5 {
		var err error
		if format, err = w.readProperties(r, lim); err != nil {
			return err
		}
	}
	topic := r.binary("Will Topic")
	w.Payload = clone(r.binary("Will Payload"))
	if r.err != nil {
		return r.err
	}
	if len(topic) == 0 {
		return &Error{Reason: TopicNameInvalid, Clause: "MQTT-4.7.3-1", Detail: "Will Topic is empty"}
	}
	if err := checkTopicName(topic, lim, "Will Topic"); err != nil {
		return err
	}
	if format == 1 && !utf8.Valid(w.Payload) {
		return &Error{Reason: PayloadFormatInvalid, Detail: "Will Payload is not UTF-8, as its Payload Format Indicator says"}
	}
	w.Topic = string(topic)
	c.Will = w
	return nil
}

// readProperties keeps a copy of all Will Properties but the Will Delay
// Interval, and returns the Payload Format Indicator.
func (w *Will) readProperties(r *reader, lim *Limits) (format byte, err error) {
	ps := r.properties(inWill, lim)
	for ps.advance() {
		switch ps.id {
		case propWillDelay:
			w.Delay = ps.num
			continue
		case propMessageExpiry:
			w.ExpiryAt, w.Expiry = len(w.Props)+1, ps.num
		case propPayloadFormat:
			format = byte(ps.num)
		case propResponseTopic:
			if err := checkResponseTopic(ps.data); err != nil {
				return 0, err
			}
		}
		w.Props = append(w.Props, ps.b[ps.at:ps.next]...)
	}
	return format, ps.err
}

func (c *Connect) readCredentials(r *reader, flags byte) {
	// MQTT 3.1, section 3.1: the Remaining Length takes precedence over the
	// flags, so either string may be missing at the end.
	mayEnd := func() bool { return c.Version == V31 && r.err == nil && len(r.b) == 0 }
	if flags&connectUsername != 0 && !mayEnd() {
		c.HasUsername, c.Username = true, string(r.text("User Name"))
	}
	if flags&connectPassword != 0 && !mayEnd() {
		c.HasPassword, c.Password = true, clone(r.binary("Password"))
	}
}

func (c *Connect) checkClientID() error {
	switch {
	case c.ClientID != "":
		return nil
	case c.Version == V31:
		return &Error{Reason: ClientIdentifierNotValid, Detail: "MQTT 3.1 needs a Client Identifier"}
	case c.Version == V311 && !c.CleanStart:
		return &Error{Reason: ClientIdentifierNotValid, Clause: "MQTT3-3.1.3-8", Detail: "no Client Identifier and no Clean Session"}
	}
	return nil
}
