package wire

import "fmt"

// ReasonCode is a reason code of MQTT 5.0 (section 2.4). Packets of older
// versions carry what ConnectReturnCode and the granted QoS map it to.
type ReasonCode byte

// Reason codes by their names in MQTT 5.0, table 2-6.
const (
	Success                             ReasonCode = 0x00
	NormalDisconnection                 ReasonCode = 0x00
	GrantedQoS0                         ReasonCode = 0x00
	GrantedQoS1                         ReasonCode = 0x01
	GrantedQoS2                         ReasonCode = 0x02
	DisconnectWithWillMessage           ReasonCode = 0x04
	NoMatchingSubscribers               ReasonCode = 0x10
	NoSubscriptionExisted               ReasonCode = 0x11
	ContinueAuthentication              ReasonCode = 0x18
	ReAuthenticate                      ReasonCode = 0x19
	UnspecifiedError                    ReasonCode = 0x80
	MalformedPacket                     ReasonCode = 0x81
	ProtocolError                       ReasonCode = 0x82
	ImplementationSpecificError         ReasonCode = 0x83
	UnsupportedProtocolVersion          ReasonCode = 0x84
	ClientIdentifierNotValid            ReasonCode = 0x85
	BadUserNameOrPassword               ReasonCode = 0x86
	NotAuthorized                       ReasonCode = 0x87
	ServerUnavailable                   ReasonCode = 0x88
	ServerBusy                          ReasonCode = 0x89
	Banned                              ReasonCode = 0x8A
	ServerShuttingDown                  ReasonCode = 0x8B
	BadAuthenticationMethod             ReasonCode = 0x8C
	KeepAliveTimeout                    ReasonCode = 0x8D
	SessionTakenOver                    ReasonCode = 0x8E
	TopicFilterInvalid                  ReasonCode = 0x8F
	TopicNameInvalid                    ReasonCode = 0x90
	PacketIdentifierInUse               ReasonCode = 0x91
	PacketIdentifierNotFound            ReasonCode = 0x92
	ReceiveMaximumExceeded              ReasonCode = 0x93
	TopicAliasInvalid                   ReasonCode = 0x94
	PacketTooLarge                      ReasonCode = 0x95
	MessageRateTooHigh                  ReasonCode = 0x96
	QuotaExceeded                       ReasonCode = 0x97
	AdministrativeAction                ReasonCode = 0x98
	PayloadFormatInvalid                ReasonCode = 0x99
	RetainNotSupported                  ReasonCode = 0x9A
	QoSNotSupported                     ReasonCode = 0x9B
	UseAnotherServer                    ReasonCode = 0x9C
	ServerMoved                         ReasonCode = 0x9D
	SharedSubscriptionsNotSupported     ReasonCode = 0x9E
	ConnectionRateExceeded              ReasonCode = 0x9F
	MaximumConnectTime                  ReasonCode = 0xA0
	SubscriptionIdentifiersNotSupported ReasonCode = 0xA1
	WildcardSubscriptionsNotSupported   ReasonCode = 0xA2
)

// String is the name of the reason as the specification has it; 0x00 is
// "Success" in whichever packet it stands.
func (r ReasonCode) String() string {
	switch r {
	case Success:
		return "Success"
	case GrantedQoS1:
		return "Granted QoS 1"
	case GrantedQoS2:
		return "Granted QoS 2"
	case DisconnectWithWillMessage:
		return "Disconnect with Will Message"
	case NoMatchingSubscribers:
		return "No matching subscribers"
	case NoSubscriptionExisted:
		return "No subscription existed"
	case ContinueAuthentication:
		return "Continue authentication"
	case ReAuthenticate:
		return "Re-authenticate"
	}
	if i := int(r) - int(UnspecifiedError); i >= 0 && i < len(failureNames) {
		return failureNames[i]
	}
	return fmt.Sprintf("Reason Code 0x%02X", byte(r))
}

// failureNames are the names of the codes from 0x80, which leave no gap.
var failureNames = [...]string{
	"Unspecified error", "Malformed Packet", "Protocol Error", "Implementation specific error",
	"Unsupported Protocol Version", "Client Identifier not valid", "Bad User Name or Password", "Not authorized",
	"Server unavailable", "Server busy", "Banned", "Server shutting down",
	"Bad authentication method", "Keep Alive timeout", "Session taken over", "Topic Filter invalid",
	"Topic Name invalid", "Packet Identifier in use", "Packet Identifier not found", "Receive Maximum exceeded",
	"Topic Alias invalid", "Packet too large", "Message rate too high", "Quota exceeded",
	"Administrative action", "Payload format invalid", "Retain not supported", "QoS not supported",
	"Use another server", "Server moved", "Shared Subscriptions not supported", "Connection rate exceeded",
	"Maximum connect time", "Subscription Identifiers not supported", "Wildcard Subscriptions not supported",
}

// Failed tells whether the code says that the operation failed (section 2.4).
func (r ReasonCode) Failed() bool { return r >= UnspecifiedError }

// Error says what is wrong with a packet. The connection it came on is closed
// with Reason.
type Error struct {
	Reason ReasonCode
	Clause string // the normative statement that was broken, such as "MQTT-3.8.3-4", or ""
	Detail string // what was found, for the log and the Reason String
}

// Error is the reason, the detail and the clause.
func (e *Error) Error() string {
	if e.Clause == "" {
		return fmt.Sprintf("%s: %s", e.Reason, e.Detail)
	}
	return fmt.Sprintf("%s: %s [%s]", e.Reason, e.Detail, e.Clause)
}

// malformed is a packet that cannot be parsed as the specification says.
func malformed(clause, detail string) error {
	return &Error{Reason: MalformedPacket, Clause: clause, Detail: detail}
}

// violation is a packet that can be parsed, with content that is not allowed.
func violation(clause, detail string) error {
	return &Error{Reason: ProtocolError, Clause: clause, Detail: detail}
}

// reasonSet is a set of reason codes, one bit each.
type reasonSet [4]uint64

func reasons(codes ...ReasonCode) (s reasonSet) {
	for _, r := range codes {
		s[r>>6] |= 1 << (r & 63)
	}
	return s
}

func (s *reasonSet) has(r ReasonCode) bool { return s[r>>6]>>(r&63)&1 != 0 }

// What each packet type may say. Read only.
var (
	connackReasons = reasons(Success, UnspecifiedError, MalformedPacket, ProtocolError, ImplementationSpecificError,
		UnsupportedProtocolVersion, ClientIdentifierNotValid, BadUserNameOrPassword, NotAuthorized, ServerUnavailable,
		ServerBusy, Banned, BadAuthenticationMethod, TopicNameInvalid, PacketTooLarge, QuotaExceeded,
		PayloadFormatInvalid, RetainNotSupported, QoSNotSupported, UseAnotherServer, ServerMoved, ConnectionRateExceeded)
	pubackReasons = reasons(Success, NoMatchingSubscribers, UnspecifiedError, ImplementationSpecificError, NotAuthorized,
		TopicNameInvalid, PacketIdentifierInUse, QuotaExceeded, PayloadFormatInvalid) // PUBREC as well
	pubrelReasons = reasons(Success, PacketIdentifierNotFound) // PUBCOMP as well
	subackReasons = reasons(GrantedQoS0, GrantedQoS1, GrantedQoS2, UnspecifiedError, ImplementationSpecificError,
		NotAuthorized, TopicFilterInvalid, PacketIdentifierInUse, QuotaExceeded, SharedSubscriptionsNotSupported,
		SubscriptionIdentifiersNotSupported, WildcardSubscriptionsNotSupported)
	subackCodes3    = reasons(GrantedQoS0, GrantedQoS1, GrantedQoS2, UnspecifiedError) // of 3.1.1
	unsubackReasons = reasons(Success, NoSubscriptionExisted, UnspecifiedError, ImplementationSpecificError,
		NotAuthorized, TopicFilterInvalid, PacketIdentifierInUse)
	clientDisconnectReasons = reasons(NormalDisconnection, DisconnectWithWillMessage, UnspecifiedError, MalformedPacket,
		ProtocolError, ImplementationSpecificError, TopicNameInvalid, ReceiveMaximumExceeded, TopicAliasInvalid,
		PacketTooLarge, MessageRateTooHigh, QuotaExceeded, AdministrativeAction, PayloadFormatInvalid)
	serverDisconnectReasons = reasons(NormalDisconnection, UnspecifiedError, MalformedPacket, ProtocolError,
		ImplementationSpecificError, NotAuthorized, ServerBusy, ServerShuttingDown, KeepAliveTimeout, SessionTakenOver,
		TopicFilterInvalid, TopicNameInvalid, ReceiveMaximumExceeded, TopicAliasInvalid, PacketTooLarge,
		MessageRateTooHigh, QuotaExceeded, AdministrativeAction, PayloadFormatInvalid, RetainNotSupported,
		QoSNotSupported, UseAnotherServer, ServerMoved, SharedSubscriptionsNotSupported, ConnectionRateExceeded,
		MaximumConnectTime, SubscriptionIdentifiersNotSupported, WildcardSubscriptionsNotSupported)
	authReasons = reasons(Success, ContinueAuthentication, ReAuthenticate)
)

func checkReason(r ReasonCode, allowed *reasonSet, clause string) error {
	if allowed.has(r) {
		return nil
	}
	return violation(clause, fmt.Sprintf("reason code 0x%02X does not belong in this packet", byte(r)))
}
