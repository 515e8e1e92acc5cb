package wire

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// side is who sent a packet.
type side bool

const (
	fromClient side = false
	fromServer side = true
)

// fromServerPublish is a PUBLISH with the Subscription Identifiers of a server.
type fromServerPublish struct {
	Publish
	IDs []uint32
}

// ack is what ReadAck returns.
type ack struct {
	ID     uint16
	Reason ReasonCode
}

// ping is a PINGREQ or PINGRESP.
type ping struct{}

// decodeBody sends a body to the decoder of its type and sender.
func decodeBody(h Header, body []byte, v Version, s side, lim *Limits) (any, error) {
	switch h.Type {
	case CONNECT:
		return anyOf(DecodeConnect(h, body, lim))
	case CONNACK:
		return anyOf(DecodeConnack(h, body, v))
	case PUBLISH:
		if s == fromServer {
			p := &fromServerPublish{}
			var err error
			p.IDs, err = p.DecodeFromServer(h, body, v, lim, nil)
			return anyOf(p, err)
		}
		p := &Publish{}
		return anyOf(p, p.Decode(h, body, v, lim))
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		id, r, err := ReadAck(h, body, v, lim)
		return anyOf(&ack{id, r}, err)
	case SUBSCRIBE:
		return anyOf(DecodeSubscribe(h, body, v, lim))
	case SUBACK:
		return anyOf(DecodeSuback(h, body, v))
	case UNSUBSCRIBE:
		return anyOf(DecodeUnsubscribe(h, body, v, lim))
	case UNSUBACK:
		return anyOf(DecodeUnsuback(h, body, v))
	case DISCONNECT:
		if s == fromServer && v >= V5 {
			return anyOf(DecodeServerDisconnect(h, body, lim))
		}
		return anyOf(DecodeDisconnect(h, body, v, lim))
	case AUTH:
		return anyOf(DecodeAuth(h, body, lim))
	}
	return &ping{}, nil
}

func anyOf[T any](p *T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

// decodePacket reads one whole packet, of which nothing may be left over.
func decodePacket(b []byte, v Version, s side) (any, error) {
	h, err := ReadHeader(b)
	if err != nil {
		return nil, err
	}
	if h.Size == 0 || h.Size+h.Remaining != len(b) {
		return nil, errors.New("not one whole packet")
	}
	return decodeBody(h, b[h.Size:], v, s, nil)
}

// reference decodes with the other codec.
func reference(h Header, body []byte, v Version) (pk *packets.Packet, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	pk = &packets.Packet{ProtocolVersion: byte(v), FixedHeader: packets.FixedHeader{
		Type: byte(h.Type), Remaining: h.Remaining, Qos: h.Flags >> 1 & 3, Dup: h.Flags&8 != 0, Retain: h.Flags&1 != 0}}
	decode := map[Type]func([]byte) error{CONNECT: pk.ConnectDecode, CONNACK: pk.ConnackDecode, PUBLISH: pk.PublishDecode,
		PUBACK: pk.PubackDecode, PUBREC: pk.PubrecDecode, PUBREL: pk.PubrelDecode, PUBCOMP: pk.PubcompDecode,
		SUBSCRIBE: pk.SubscribeDecode, SUBACK: pk.SubackDecode, UNSUBSCRIBE: pk.UnsubscribeDecode, UNSUBACK: pk.UnsubackDecode,
		PINGREQ: pk.PingreqDecode, PINGRESP: pk.PingrespDecode, DISCONNECT: pk.DisconnectDecode, AUTH: pk.AuthDecode}
	return pk, decode[h.Type](body)
}

// checkAgainstReference decodes an accepted packet with the other codec as well
// and compares all values. body is as it was before our decoder saw it.
func checkAgainstReference(t *testing.T, got any, h Header, body []byte, v Version) {
	t.Helper()
	if c, ok := got.(*Connect); ok {
		v = c.Version
	}
	if knownDifference(got, h, v) {
		return
	}
	pk, err := reference(h, body, v)
	if err != nil {
		t.Fatalf("accepted %v % x (%v), which the reference refuses: %v", h, body, v, err)
	}
	want := fromReference(t, pk, got)
	if !reflect.DeepEqual(norm(got), norm(want)) {
		t.Fatalf("%v % x (%v)\n got %+v\nwant %+v", h, body, v, got, want)
	}
}

// knownDifference names where the reference is wrong about a packet of ours.
func knownDifference(got any, h Header, v Version) bool {
	switch p := got.(type) {
	case *Connect:
		// MQTT 3.1 lets the credentials be missing; the reference does not.
		return p.Version == V31 && !(p.HasUsername && p.HasPassword)
	case *Auth:
		// It wants a reason code, which may be left out.
		return h.Remaining == 0
	case *Disconnect:
		// It reads no reason code of a DISCONNECT of one byte.
		return v >= V5 && h.Remaining == 1
	}
	return false
}

// norm makes an absent and an empty value compare as equal, which the reference
// does not tell apart, and gives values to compare instead of pointers.
func norm(p any) string {
	switch p := p.(type) {
	case *Connect:
		c := *p
		will := ""
		if c.Will != nil {
			will = fmt.Sprintf("%+q", fmt.Sprintf("%+v", *c.Will))
		}
		c.Will = nil
		return fmt.Sprintf("%+v %s", c, will)
	case *Publish:
		return fmt.Sprintf("%+v", *p)
	case *fromServerPublish:
		return fmt.Sprintf("%+v", *p)
	}
	return fmt.Sprintf("%+v", p)
}

func users(ps []packets.UserProperty) (out []UserProperty) {
	for _, p := range ps {
		out = append(out, UserProperty{p.Key, p.Val})
	}
	return out
}

// fromReference puts what the reference decoded into the type of got. Props are
// taken over from got if the reference reads the same from them as from the
// packet.
func fromReference(t *testing.T, pk *packets.Packet, got any) any {
	t.Helper()
	ps := &pk.Properties
	switch got := got.(type) {
	case *Connect:
		return connectFromReference(t, pk, got)
	case *Connack:
		c := &Connack{SessionPresent: pk.SessionPresent, Reason: ReasonCode(pk.ReasonCode),
			HasSessionExpiry: ps.SessionExpiryIntervalFlag, SessionExpiry: ps.SessionExpiryInterval,
			ReceiveMaximum: ps.ReceiveMaximum, LimitQoS: ps.MaximumQosFlag, MaximumQoS: ps.MaximumQos,
			RetainUnavailable: ps.RetainAvailableFlag && ps.RetainAvailable == 0, MaximumPacketSize: ps.MaximumPacketSize,
			AssignedClientID: ps.AssignedClientID, TopicAliasMaximum: ps.TopicAliasMaximum, ReasonString: ps.ReasonString,
			UserProperties: users(ps.User), WildcardUnavailable: ps.WildcardSubAvailableFlag && ps.WildcardSubAvailable == 0,
			SubIDUnavailable:   ps.SubIDAvailableFlag && ps.SubIDAvailable == 0,
			SharedUnavailable:  ps.SharedSubAvailableFlag && ps.SharedSubAvailable == 0,
			HasServerKeepAlive: ps.ServerKeepAliveFlag, ServerKeepAlive: ps.ServerKeepAlive,
			ResponseInformation: ps.ResponseInfo, ServerReference: ps.ServerReference,
			AuthMethod: ps.AuthenticationMethod, AuthData: ps.AuthenticationData}
		if pk.ProtocolVersion < 5 {
			c.Reason, _ = reasonOfReturnCode(pk.ReasonCode)
		}
		return c
	case *Publish:
		p := publishFromReference(t, pk, got)
		return &p
	case *fromServerPublish:
		w := &fromServerPublish{Publish: publishFromReference(t, pk, &got.Publish)}
		for _, id := range ps.SubscriptionIdentifier {
			w.IDs = append(w.IDs, uint32(id))
		}
		return w
	case *ack:
		return &ack{pk.PacketID, ReasonCode(pk.ReasonCode)}
	case *Subscribe:
		s := &Subscribe{PacketID: pk.PacketID, UserProperties: users(ps.User)}
		if len(ps.SubscriptionIdentifier) > 0 {
			s.SubscriptionID = uint32(ps.SubscriptionIdentifier[0])
		}
		for _, f := range pk.Filters {
			s.Filters = append(s.Filters, Subscription{f.Filter, f.Qos, f.NoLocal, f.RetainAsPublished, f.RetainHandling})
		}
		return s
	case *Suback:
		s := &Suback{PacketID: pk.PacketID, ReasonString: ps.ReasonString, UserProperties: users(ps.User)}
		for _, r := range pk.ReasonCodes {
			s.Reasons = append(s.Reasons, ReasonCode(r))
		}
		return s
	case *Unsubscribe:
		u := &Unsubscribe{PacketID: pk.PacketID, UserProperties: users(ps.User)}
		for _, f := range pk.Filters {
			u.Filters = append(u.Filters, f.Filter)
		}
		return u
	case *Disconnect:
		return &Disconnect{Reason: ReasonCode(pk.ReasonCode), HasSessionExpiry: ps.SessionExpiryIntervalFlag,
			SessionExpiry: ps.SessionExpiryInterval, ReasonString: ps.ReasonString, ServerReference: ps.ServerReference,
			UserProperties: users(ps.User)}
	case *Auth:
		return &Auth{Reason: ReasonCode(pk.ReasonCode), Method: ps.AuthenticationMethod, Data: ps.AuthenticationData,
			ReasonString: ps.ReasonString, UserProperties: users(ps.User)}
	}
	return got
}

func publishFromReference(t *testing.T, pk *packets.Packet, got *Publish) Publish {
	t.Helper()
	ps := pk.Properties
	p := Publish{Topic: []byte(pk.TopicName), Payload: pk.Payload, PacketID: pk.PacketID, QoS: pk.FixedHeader.Qos,
		Dup: pk.FixedHeader.Dup, Retain: pk.FixedHeader.Retain, TopicAlias: ps.TopicAlias, Expiry: ps.MessageExpiryInterval,
		HasPayloadFormat: ps.PayloadFormatFlag, PayloadFormat: ps.PayloadFormat, ResponseTopic: []byte(ps.ResponseTopic),
		CorrelationData: ps.CorrelationData, Props: got.Props, ExpiryAt: got.ExpiryAt}
	checkExpiryAt(t, got.Props, got.ExpiryAt, got.Expiry)
	ps.TopicAlias, ps.TopicAliasFlag, ps.SubscriptionIdentifier = 0, false, nil
	checkProps(t, got.Props, packets.Publish, ps)
	return p
}

func connectFromReference(t *testing.T, pk *packets.Packet, got *Connect) *Connect {
	t.Helper()
	ps := &pk.Properties
	c := &Connect{Version: Version(pk.ProtocolVersion), CleanStart: pk.Connect.Clean, KeepAlive: pk.Connect.Keepalive,
		ClientID: pk.Connect.ClientIdentifier, HasUsername: pk.Connect.UsernameFlag, HasPassword: pk.Connect.PasswordFlag,
		Username: string(pk.Connect.Username), Password: pk.Connect.Password, SessionExpiry: ps.SessionExpiryInterval,
		ReceiveMaximum: ps.ReceiveMaximum, MaximumPacketSize: ps.MaximumPacketSize, TopicAliasMaximum: ps.TopicAliasMaximum,
		RequestResponse: ps.RequestResponseInfo == 1, RequestProblem: !ps.RequestProblemInfoFlag || ps.RequestProblemInfo == 1,
		UserProperties: users(ps.User), HasAuthMethod: got.HasAuthMethod, AuthMethod: ps.AuthenticationMethod,
		AuthData: ps.AuthenticationData}
	if c.ReceiveMaximum == 0 {
		c.ReceiveMaximum = 65535
	}
	if c.Version < V5 && !c.CleanStart {
		c.SessionExpiry = 0xFFFFFFFF
	}
	if pk.Connect.WillFlag && got.Will != nil {
		wp := pk.Connect.WillProperties
		c.Will = &Will{Topic: pk.Connect.WillTopic, Payload: pk.Connect.WillPayload, QoS: pk.Connect.WillQos,
			Retain: pk.Connect.WillRetain, Delay: wp.WillDelayInterval, Expiry: wp.MessageExpiryInterval,
			Props: got.Will.Props, ExpiryAt: got.Will.ExpiryAt}
		checkExpiryAt(t, got.Will.Props, got.Will.ExpiryAt, got.Will.Expiry)
		wp.WillDelayInterval = 0
		checkProps(t, got.Will.Props, packets.WillProperties, wp)
	}
	return c
}

func checkExpiryAt(t *testing.T, props []byte, at int, expiry uint32) {
	t.Helper()
	if at < 0 {
		if expiry != 0 {
			t.Fatalf("ExpiryAt %d with Expiry %d", at, expiry)
		}
		return
	}
	want := []byte{2, byte(expiry >> 24), byte(expiry >> 16), byte(expiry >> 8), byte(expiry)}
	if at < 1 || at+4 > len(props) || !bytes.Equal(props[at-1:at+4], want) {
		t.Fatalf("ExpiryAt %d does not point at %d in % x", at, expiry, props)
	}
}

func checkProps(t *testing.T, props []byte, where byte, want packets.Properties) {
	t.Helper()
	var length [4]byte
	b := append(length[:putVarint(length[:], len(props))], props...)
	got := packets.Properties{}
	if _, err := got.Decode(where, bytes.NewBuffer(b)); err != nil {
		t.Fatalf("Props % x: %v", props, err)
	}
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Fatalf("Props % x\n got %s\nwant %s", props, g, w)
	}
}
