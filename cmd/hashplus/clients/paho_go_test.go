package clients

import (
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// pahoGo is github.com/eclipse/paho.mqtt.golang.
type pahoGo struct {
	mqtt mqtt.Client
	in   *inbox
}

func newPahoGo(_ *testing.T, s setup) client {
	c := &pahoGo{in: newInbox()}
	var connects atomic.Int32
	o := mqtt.NewClientOptions().
		AddBroker(s.URL).
		SetClientID(s.ClientID).
		SetProtocolVersion(uint(s.Version)).
		SetCleanSession(!s.Keep).
		SetKeepAlive(time.Duration(s.KeepAlive) * time.Second).
		SetConnectTimeout(patience).
		SetMaxReconnectInterval(200 * time.Millisecond).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
			c.in.add(message{Topic: m.Topic(), Payload: m.Payload(), QoS: m.Qos(), Retain: m.Retained(), Duplicate: m.Duplicate()})
		}).
		SetConnectionLostHandler(func(mqtt.Client, error) { c.in.down() }).
		SetOnConnectHandler(func(mqtt.Client) {
			if connects.Add(1) > 1 {
				c.in.up()
			}
		})
	if s.Username != "" || s.Password != "" {
		o.SetUsername(s.Username).SetPassword(s.Password)
	}
	if config := s.tls(); config != nil {
		o.SetTLSConfig(config)
	}
	if s.Bearer != "" {
		o.SetHTTPHeaders(http.Header{"Authorization": {"Bearer " + s.Bearer}})
	}
	if w := s.Will; w != nil {
		o.SetBinaryWill(w.Topic, w.Payload, w.QoS, w.Retain)
	}
	c.mqtt = mqtt.NewClient(o)
	return c
}

func await(token mqtt.Token) error {
	if !token.WaitTimeout(patience) {
		return errTime
	}
	return token.Error()
}

func (c *pahoGo) connect() (connected, error) {
	token := c.mqtt.Connect()
	err := await(token)
	present := token.(*mqtt.ConnectToken).SessionPresent()
	return connected{Session: &present}, err
}

func (c *pahoGo) subscribe(s subscription) (byte, error) {
	token := c.mqtt.Subscribe(s.Filter, s.QoS, nil)
	err := await(token)
	// For $share/group/filter the result may be filed under the filter alone.
	// A refusal is in the result too, beside the error.
	for _, granted := range token.(*mqtt.SubscribeToken).Result() {
		return granted, nil
	}
	return 0, errors.Join(errors.New("SUBACK had no code"), err)
}

func (c *pahoGo) unsubscribe(filter string) error { return await(c.mqtt.Unsubscribe(filter)) }

func (c *pahoGo) publish(m message) error {
	return await(c.mqtt.Publish(m.Topic, m.QoS, m.Retain, m.Payload))
}

func (c *pahoGo) disconnect() error {
	c.mqtt.Disconnect(10_000) // ms at most; it returns when DISCONNECT has been sent
	return nil
}

func (c *pahoGo) inbox() *inbox { return c.in }
