package wire

// Connack is a CONNACK. Fields below Reason are for V5; the zero value of each
// leaves its property out, except where noted.
type Connack struct {
	SessionPresent bool
	Reason         ReasonCode // below V5 written as its return code, see ConnectReturnCode

	HasSessionExpiry    bool
	SessionExpiry       uint32
	ReceiveMaximum      uint16
	LimitQoS            bool // write Maximum QoS
	MaximumQoS          byte // 0 or 1; more is written as no limit
	RetainUnavailable   bool
	MaximumPacketSize   uint32
	AssignedClientID    string
	TopicAliasMaximum   uint16
	ReasonString        string
	UserProperties      []UserProperty
	WildcardUnavailable bool
	SubIDUnavailable    bool
	SharedUnavailable   bool
	HasServerKeepAlive  bool
	ServerKeepAlive     uint16
	ResponseInformation string
	ServerReference     string
	AuthMethod          string
	AuthData            []byte
}

// Append appends the packet in the form of v. Session Present is left out of a
// refusal [MQTT-3.2.2-6] and of a CONNACK of 3.1, which has no such flag.
func (p *Connack) Append(dst []byte, v Version) []byte {
	out := beginPacket(dst, CONNACK)
	flags := byte(0)
	if p.SessionPresent && p.Reason == Success && v > V31 {
		flags = 1
	}
	out.u8(flags)
	if v < V5 {
		out.u8(ConnectReturnCode(p.Reason))
		return out.end()
	}
	out.u8(byte(p.Reason))
	start := out.beginProperties()
	p.appendProperties(&out)
	out.endProperties(start)
	return out.end()
}

// appendProperties keeps the order of section 3.2.2.3.
func (p *Connack) appendProperties(out *packet) {
	if p.HasSessionExpiry {
		out.propU32(propSessionExpiry, p.SessionExpiry)
	}
	if p.ReceiveMaximum != 0 {
		out.propU16(propReceiveMaximum, p.ReceiveMaximum)
	}
	if p.LimitQoS && p.MaximumQoS < 2 {
		out.propBit(propMaximumQoS, p.MaximumQoS)
	}
	if p.RetainUnavailable {
		out.propBit(propRetainAvailable, 0)
	}
	if p.MaximumPacketSize != 0 {
		out.propU32(propMaximumPacketSize, p.MaximumPacketSize)
	}
	if p.AssignedClientID != "" {
		out.propText(propAssignedClientID, p.AssignedClientID)
	}
	if p.TopicAliasMaximum != 0 {
		out.propU16(propTopicAliasMaximum, p.TopicAliasMaximum)
	}
	if p.ReasonString != "" {
		out.propText(propReasonString, p.ReasonString)
	}
	out.propUsers(p.UserProperties)
	if p.WildcardUnavailable {
		out.propBit(propWildcardAvailable, 0)
	}
	if p.SubIDUnavailable {
		out.propBit(propSubIDAvailable, 0)
	}
	if p.SharedUnavailable {
		out.propBit(propSharedSubAvailable, 0)
	}
	if p.HasServerKeepAlive {
		out.propU16(propServerKeepAlive, p.ServerKeepAlive)
	}
	if p.ResponseInformation != "" {
		out.propText(propResponseInfo, p.ResponseInformation)
	}
	if p.ServerReference != "" {
		out.propText(propServerReference, p.ServerReference)
	}
	if p.AuthMethod != "" {
		out.propText(propAuthMethod, p.AuthMethod)
	}
	if p.AuthData != nil {
		out.propBinary(propAuthData, p.AuthData)
	}
}

// Return codes of a CONNACK of 3.1 and 3.1.1 (MQTT 3.1.1, table 3.1).
const (
	returnAccepted byte = iota
	returnVersion
	returnIdentifier
	returnUnavailable
	returnCredentials
	returnNotAuthorized
)

// ConnectReturnCode maps a reason to the CONNACK return code of 3.1 and 3.1.1,
// or to 0 if they have none for it: a packet that is in error, for example. The
// connection is closed without a CONNACK then [MQTT3-3.2.2-6].
func ConnectReturnCode(r ReasonCode) byte {
	switch r {
	case UnsupportedProtocolVersion:
		return returnVersion
	case ClientIdentifierNotValid:
		return returnIdentifier
	case BadUserNameOrPassword:
		return returnCredentials
	case NotAuthorized, Banned, BadAuthenticationMethod:
		return returnNotAuthorized
	case ServerUnavailable, ServerBusy, ServerShuttingDown, QuotaExceeded,
		UseAnotherServer, ServerMoved, ConnectionRateExceeded:
		return returnUnavailable
	}
	return returnAccepted
}
