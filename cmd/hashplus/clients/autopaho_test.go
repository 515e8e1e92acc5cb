package clients

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

// autoPaho is github.com/eclipse/paho.golang with its reconnecting wrapper.
type autoPaho struct {
	config autopaho.ClientConfig
	conn   *autopaho.ConnectionManager
	first  chan connected
	failed chan error
	in     *inbox
	stop   context.CancelFunc
}

func newAutopaho(t *testing.T, s setup) client {
	server, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := &autoPaho{in: newInbox(), first: make(chan connected, 1), failed: make(chan error, 1)}
	var connects atomic.Int32
	c.config = autopaho.ClientConfig{
		ServerUrls:                    []*url.URL{server},
		KeepAlive:                     uint16(s.KeepAlive),
		CleanStartOnInitialConnection: !s.Keep,
		ConnectTimeout:                patience,
		ReconnectBackoff:              func(int) time.Duration { return 100 * time.Millisecond },
		OnConnectionUp: func(_ *autopaho.ConnectionManager, ack *paho.Connack) {
			if connects.Add(1) > 1 {
				c.in.up()
				return
			}
			up := connected{Session: &ack.SessionPresent}
			if ack.Properties != nil {
				up.ResponseInformation = ack.Properties.ResponseInfo
			}
			c.first <- up
		},
		OnConnectionDown: func() bool { c.in.down(); return true },
		OnConnectError: func(err error) {
			select {
			case c.failed <- err:
			default: // only the first is of interest
			}
		},
		ConnectPacketBuilder: func(p *paho.Connect, _ *url.URL) (*paho.Connect, error) {
			if p.Properties == nil {
				p.Properties = new(paho.ConnectProperties)
			}
			p.Properties.RequestResponseInfo = s.ResponseInformation
			if s.Renewable {
				p.Properties.AuthMethod, p.Properties.AuthData = "JWT", []byte(s.Token)
			}
			return p, nil
		},
		ClientConfig: paho.ClientConfig{
			ClientID: s.ClientID,
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
				c.in.add(fromPaho(p.Packet))
				return true, nil
			}},
			OnServerDisconnect: func(d *paho.Disconnect) { c.in.told(int(d.ReasonCode)) },
		},
	}
	if s.Keep {
		c.config.SessionExpiryInterval = 300
	}
	if s.Renewable {
		c.config.AuthHandler = oneStep{}
	}
	if s.Username != "" || s.Password != "" {
		c.config.ConnectUsername, c.config.ConnectPassword = s.Username, []byte(s.Password)
	}
	c.config.TlsCfg = s.tls()
	if s.Bearer != "" {
		c.config.WebSocketCfg = &autopaho.WebSocketConfig{Header: func(*url.URL, *tls.Config) http.Header {
			return http.Header{"Authorization": {"Bearer " + s.Bearer}}
		}}
	}
	if w := s.Will; w != nil {
		c.config.WillMessage = &paho.WillMessage{Topic: w.Topic, Payload: w.Payload, QoS: w.QoS, Retain: w.Retain}
		p := toPaho(w.Properties)
		c.config.WillProperties = &paho.WillProperties{
			PayloadFormat: p.PayloadFormat, MessageExpiry: p.MessageExpiry, ContentType: p.ContentType,
			ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, User: p.User,
		}
	}
	return c
}

func fromPaho(p *paho.Publish) message {
	m := message{Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, Retain: p.Retain, Duplicate: p.Duplicate()}
	if from := p.Properties; from != nil {
		to := &properties{ResponseTopic: from.ResponseTopic, Correlation: from.CorrelationData, ContentType: from.ContentType}
		to.UTF8 = from.PayloadFormat != nil && *from.PayloadFormat == 1
		if from.MessageExpiry != nil {
			to.Expiry = *from.MessageExpiry
		}
		for _, u := range from.User {
			to.User = append(to.User, [2]string{u.Key, u.Value})
		}
		if from.SubscriptionIdentifier != nil {
			to.Subscriptions = []int{*from.SubscriptionIdentifier}
		}
		m.Properties = to
	}
	return m
}

func toPaho(from *properties) *paho.PublishProperties {
	to := new(paho.PublishProperties)
	if from == nil {
		return to
	}
	to.ResponseTopic, to.CorrelationData, to.ContentType = from.ResponseTopic, from.Correlation, from.ContentType
	if from.UTF8 {
		to.PayloadFormat = paho.Byte(1)
	}
	if from.Expiry > 0 {
		to.MessageExpiry = paho.Uint32(from.Expiry)
	}
	for _, u := range from.User {
		to.User.Add(u[0], u[1])
	}
	return to
}

func (c *autoPaho) connect() (connected, error) {
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	conn, err := autopaho.NewConnection(ctx, c.config)
	if err != nil {
		return connected{}, err
	}
	c.conn = conn
	select {
	case up := <-c.first:
		return up, nil
	case err := <-c.failed:
		cancel()
		return connected{}, err
	case <-time.After(patience):
		cancel()
		return connected{}, errTime
	}
}

func (c *autoPaho) subscribe(s subscription) (byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p := &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{
		Topic: s.Filter, QoS: s.QoS, NoLocal: s.NoLocal, RetainAsPublished: s.RetainAsPublished,
	}}}
	if s.Identifier > 0 {
		p.Properties = &paho.SubscribeProperties{SubscriptionIdentifier: &s.Identifier}
	}
	ack, err := c.conn.Subscribe(ctx, p)
	if ack != nil && len(ack.Reasons) == 1 {
		return ack.Reasons[0], nil
	}
	return 0, err
}

func (c *autoPaho) unsubscribe(filter string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := c.conn.Unsubscribe(ctx, &paho.Unsubscribe{Topics: []string{filter}})
	return err
}

func (c *autoPaho) publish(m message) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := c.conn.Publish(ctx, &paho.Publish{Topic: m.Topic, Payload: m.Payload, QoS: m.QoS, Retain: m.Retain, Properties: toPaho(m.Properties)})
	return err
}

func (c *autoPaho) disconnect() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer c.stop()
	return c.conn.Disconnect(ctx)
}

func (c *autoPaho) inbox() *inbox { return c.in }

// oneStep is the handler of exchanges that the server never asks to go on with.
type oneStep struct{}

func (oneStep) Authenticate(*paho.Auth) *paho.Auth { panic("the server asks for more than a token") }
func (oneStep) Authenticated()                     {}

// renew re-authenticates with a new token.
func (c *autoPaho) renew(token string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer, err := c.conn.Authenticate(ctx, &paho.Auth{ReasonCode: 0x19, Properties: &paho.AuthProperties{AuthMethod: "JWT", AuthData: []byte(token)}})
	if err == nil && !answer.Success {
		err = errors.New("refused")
	}
	return err
}
