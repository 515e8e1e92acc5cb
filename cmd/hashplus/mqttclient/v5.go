package mqttclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// acknowledgeWithin bounds how long the library waits for an acknowledgement;
// the callers' contexts end earlier. It has no value for "no limit".
const acknowledgeWithin = 365 * 24 * time.Hour

// v5 is the driver for MQTT 5.0. The session's state (what is in flight) lives
// longer than its connections, each of which is a paho.Client.
type v5 struct {
	opts    *Options
	deliver func(Message) bool
	session *state.State
	cli     *paho.Client
	id      string // the client id in use once the server assigned one
}

func newV5(o *Options, deliver func(Message) bool) *v5 {
	return &v5{opts: o, deliver: deliver, session: state.NewInMemory(), id: o.ClientID}
}

func (d *v5) connect(ctx context.Context, first bool) (Connected, <-chan error, error) {
	conn, err := dial(ctx, d.opts)
	if err != nil {
		return Connected{}, nil, err
	}
	// The library may call both hooks, one of them several times, and does so
	// once it has shut the connection down.
	report := make(chan error, 1)
	tell := func(err error) {
		select {
		case report <- err:
		default:
		}
	}
	cli := paho.NewClient(paho.ClientConfig{
		Conn:          conn,
		Session:       d.session,
		PacketTimeout: acknowledgeWithin,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(p paho.PublishReceived) (bool, error) { return d.received(conn, p) },
		},
		OnClientError: func(err error) {
			tell(&Error{Stage: Running, Text: "connection lost", Err: err})
		},
		OnServerDisconnect: func(p *paho.Disconnect) { tell(disconnected(p)) },
	})
	ack, err := cli.Connect(ctx, d.packet(first))
	if err != nil {
		_ = conn.Close() // closed already in most cases
		switch {
		case ack != nil && ack.ReasonCode >= 0x80:
			detail := ""
			if ack.Properties != nil {
				detail = ack.Properties.ReasonString
				if r := ack.Properties.ServerReference; r != "" {
					detail += " (use " + r + ")"
				}
			}
			return Connected{}, nil, &Error{
				Stage: Connecting, Reason: ack.ReasonCode, Fatal: !passing(ack.ReasonCode),
				Text: describe("the server refused the connection", ack.ReasonCode, detail),
			}
		case ctx.Err() != nil:
			return Connected{}, nil, ctx.Err()
		}
		return Connected{}, nil, &Error{Stage: Dialing, Text: "no CONNACK from the server", Err: err}
	}
	d.cli = cli
	c := Connected{SessionPresent: ack.SessionPresent, ClientID: d.id}
	if p := ack.Properties; p != nil {
		if p.AssignedClientID != "" {
			d.id, c.ClientID = p.AssignedClientID, p.AssignedClientID
		}
		c.ResponseInformation = p.ResponseInfo
		if p.ServerKeepAlive != nil {
			c.ServerKeepAlive = *p.ServerKeepAlive
		}
	}
	return c, report, nil
}

// packet is the CONNECT. Only the first one may ask for a clean start: later
// ones resume what the connection before them left.
func (d *v5) packet(first bool) *paho.Connect {
	o := d.opts
	p := &paho.Connect{
		ClientID:     d.id,
		KeepAlive:    uint16(o.KeepAlive / time.Second),
		CleanStart:   o.CleanStart && first,
		UsernameFlag: o.HasUsername, Username: o.Username,
		PasswordFlag: o.HasPassword, Password: o.Password,
		Properties: &paho.ConnectProperties{
			RequestProblemInfo:  true,
			RequestResponseInfo: o.RequestResponse,
			User:                toUser(o.UserProperties),
		},
	}
	if o.SessionExpiry != 0 {
		p.Properties.SessionExpiryInterval = &o.SessionExpiry
	}
	if o.ReceiveMaximum != 0 {
		p.Properties.ReceiveMaximum = &o.ReceiveMaximum
	}
	if o.MaxPacketSize != 0 {
		p.Properties.MaximumPacketSize = &o.MaxPacketSize
	}
	if w := o.Will; w != nil {
		p.WillMessage = &paho.WillMessage{Topic: w.Topic, Payload: w.Payload, QoS: w.QoS, Retain: w.Retain}
		p.WillProperties = &paho.WillProperties{
			ContentType: w.ContentType, ResponseTopic: w.ResponseTopic,
			CorrelationData: w.CorrelationData, User: toUser(w.User),
			PayloadFormat: textFlag(w.Text),
		}
		if w.Delay != 0 {
			p.WillProperties.WillDelayInterval = &w.Delay
		}
		if w.HasExpiry {
			p.WillProperties.MessageExpiry = &w.Expiry
		}
	}
	return p
}

// received passes a message of conn on. It runs on the goroutine that hands out
// messages, in order.
func (d *v5) received(conn *packetConn, p paho.PublishReceived) (bool, error) {
	m := Message{
		Topic: p.Packet.Topic, Payload: p.Packet.Payload,
		QoS: p.Packet.QoS, Retain: p.Packet.Retain, Dup: p.Packet.Duplicate(),
	}
	if pp := p.Packet.Properties; pp != nil {
		m.ContentType, m.ResponseTopic, m.CorrelationData = pp.ContentType, pp.ResponseTopic, pp.CorrelationData
		m.Text = pp.PayloadFormat != nil && *pp.PayloadFormat == 1
		if pp.MessageExpiry != nil {
			m.HasExpiry, m.Expiry = true, *pp.MessageExpiry
		}
		if pp.SubscriptionIdentifier != nil {
			m.SubscriptionID = *pp.SubscriptionIdentifier
		}
		for _, u := range pp.User {
			m.User = append(m.User, UserProperty{u.Key, u.Value})
		}
	}
	if !d.deliver(m) {
		// The library acknowledges when this returns, so a message that is not
		// wanted is held until the connection has gone.
		<-conn.closed
	}
	return true, nil
}

func (d *v5) publish(ctx context.Context, m *Message) (byte, error) {
	p := &paho.Publish{Topic: m.Topic, Payload: m.Payload, QoS: m.QoS, Retain: m.Retain}
	if !m.IsZero() {
		p.Properties = &paho.PublishProperties{
			ContentType: m.ContentType, ResponseTopic: m.ResponseTopic,
			CorrelationData: m.CorrelationData, PayloadFormat: textFlag(m.Text), User: toUser(m.User),
		}
		if m.HasExpiry {
			p.Properties.MessageExpiry = &m.Expiry
		}
	}
	resp, err := d.cli.Publish(ctx, p)
	switch {
	case resp != nil && m.QoS == 2 && resp.ReasonCode == 0x92:
		// A PUBREL sent again after a loss that took only the PUBCOMP: the
		// server is done with the message (MQTT 5.0 section 3.7.2.1).
		return 0, nil
	case resp != nil && resp.ReasonCode >= 0x80:
		detail := ""
		if resp.Properties != nil {
			detail = resp.Properties.ReasonString
		}
		return resp.ReasonCode, &Error{
			Stage: Publishing, Reason: resp.ReasonCode, Fatal: true,
			Text: describe("the server refused the message to "+m.Topic, resp.ReasonCode, detail),
		}
	case err == nil:
		return resp.ReasonCode, nil
	}
	return 0, requestError(ctx, Publishing, err)
}

func (d *v5) subscribe(ctx context.Context, subs []Subscription) ([]byte, error) {
	p := &paho.Subscribe{}
	for _, s := range subs {
		p.Subscriptions = append(p.Subscriptions, paho.SubscribeOptions{
			Topic: s.Filter, QoS: s.QoS, NoLocal: s.NoLocal,
			RetainAsPublished: s.RetainAsPublished, RetainHandling: s.RetainHandling,
		})
	}
	ack, err := d.cli.Subscribe(ctx, p)
	if ack != nil && len(ack.Reasons) == len(subs) {
		return ack.Reasons, nil // refusals are among the reasons
	}
	if err == nil {
		err = fmt.Errorf("SUBACK does not fit the SUBSCRIBE")
	}
	return nil, requestError(ctx, Subscribing, err)
}

func (d *v5) disconnect(ctx context.Context, withWill bool) {
	if d.cli == nil {
		return
	}
	p := &paho.Disconnect{}
	if withWill {
		p.ReasonCode = 0x04
	}
	_ = d.cli.Disconnect(p) // the connection may be gone already
	select {
	case <-d.cli.Done():
	case <-ctx.Done():
	}
}

// requestError sorts out why a request failed: the caller's context, an
// argument that the server's limits do not allow, or the connection.
func requestError(ctx context.Context, stage Stage, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, paho.ErrInvalidArguments) {
		return &Error{Stage: stage, Text: "the server does not allow this", Fatal: true, Err: err}
	}
	if errors.Is(err, session.ErrNoConnection) {
		return errLost
	}
	return fmt.Errorf("%w: %w", errLost, err)
}

func disconnected(p *paho.Disconnect) error {
	detail := ""
	if p.Properties != nil {
		detail = p.Properties.ReasonString
		if r := p.Properties.ServerReference; r != "" {
			detail += " (use " + r + ")"
		}
	}
	return &Error{
		Stage: Running, Reason: p.ReasonCode, Fatal: !passing(p.ReasonCode),
		Text: describe("the server ended the connection", p.ReasonCode, detail),
	}
}

func textFlag(text bool) *byte {
	if !text {
		return nil
	}
	one := byte(1)
	return &one
}

func toUser(in []UserProperty) paho.UserProperties {
	var out paho.UserProperties
	for _, u := range in {
		out = append(out, paho.UserProperty{Key: u.Key, Value: u.Value})
	}
	return out
}
