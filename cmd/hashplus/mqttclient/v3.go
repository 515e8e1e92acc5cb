package mqttclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// v3 is the driver for MQTT 3.1 and 3.1.1. One library client serves all
// connections, as what is in flight lives in it; its own reconnecting is off.
type v3 struct {
	opts    *Options
	deliver func(Message) bool
	cli     mqtt.Client
	id      string

	conn    atomic.Pointer[packetConn]      // the latest
	lost    atomic.Pointer[chan error]      // of the connection that is up
	dialCtx atomic.Pointer[context.Context] // of the attempt that runs
	dialErr atomic.Pointer[error]           // why it failed, as dial said it
}

func newV3(o *Options, deliver func(Message) bool) *v3 {
	d := &v3{opts: o, deliver: deliver, id: o.ClientID}
	if d.id == "" {
		// A zero-length identifier is not legal in 3.1, and the library counts
		// on one. 23 characters are what every server takes [MQTT3-3.1.3-5].
		d.id = fmt.Sprintf("hashplus%015x", rand.Uint64N(1<<60))
	}
	m := mqtt.NewClientOptions()
	m.AddBroker("tcp://server") // the URL stays with dial
	m.SetCustomOpenConnectionFn(d.open)
	m.SetProtocolVersion(uint(o.Version))
	m.SetClientID(d.id)
	if o.HasUsername {
		m.SetUsername(o.Username)
		m.SetPassword(string(o.Password))
	}
	m.SetCleanSession(o.CleanStart)
	m.SetKeepAlive(o.KeepAlive)
	m.SetConnectTimeout(o.ConnectTimeout)
	m.SetAutoReconnect(false)
	m.SetConnectRetry(false)
	m.SetOrderMatters(true)
	m.SetAutoAckDisabled(true)
	m.SetStore(mqtt.NewOrderedMemoryStore())
	m.SetDefaultPublishHandler(d.received)
	m.SetConnectionLostHandler(func(_ mqtt.Client, err error) {
		*d.lost.Load() <- &Error{Stage: Running, Text: "connection lost", Err: err}
	})
	if w := o.Will; w != nil {
		m.SetBinaryWill(w.Topic, w.Payload, w.QoS, w.Retain)
	}
	d.cli = mqtt.NewClient(m)
	return d
}

func (d *v3) open(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
	c, err := dial(*d.dialCtx.Load(), d.opts)
	if err != nil {
		d.dialErr.Store(&err)
		return nil, err
	}
	d.conn.Store(c)
	return c, nil
}

func (d *v3) connect(ctx context.Context, _ bool) (Connected, <-chan error, error) {
	lost := make(chan error, 1) // the library reports once for each connection
	d.lost.Store(&lost)
	d.dialCtx.Store(&ctx)
	d.dialErr.Store(nil)
	t := d.cli.Connect().(*mqtt.ConnectToken)
	// Dialing ends with ctx and the handshake has ConnectTimeout, so this ends.
	<-t.Done()
	if err := t.Error(); err != nil {
		if ctx.Err() != nil {
			return Connected{}, nil, ctx.Err()
		}
		if p := d.dialErr.Load(); p != nil {
			return Connected{}, nil, *p
		}
		if rc := t.ReturnCode(); rc >= 1 && rc <= 5 {
			return Connected{}, nil, &Error{
				Stage: Connecting, Reason: rc, Fatal: rc != packets.ErrRefusedServerUnavailable,
				Text: fmt.Sprintf("the server refused the connection: %s (return code %d)", connackText(rc), rc),
			}
		}
		return Connected{}, nil, &Error{Stage: Dialing, Text: "no CONNACK from the server", Err: err}
	}
	return Connected{SessionPresent: t.SessionPresent(), ClientID: d.id}, lost, nil
}

func (d *v3) received(_ mqtt.Client, in mqtt.Message) {
	if d.deliver(Message{
		Topic: in.Topic(), Payload: in.Payload(), QoS: in.Qos(), Retain: in.Retained(), Dup: in.Duplicate(),
	}) {
		in.Ack()
	}
}

func (d *v3) publish(ctx context.Context, m *Message) (byte, error) {
	t := d.cli.Publish(m.Topic, m.QoS, m.Retain, m.Payload)
	return 0, wait(ctx, t)
}

func (d *v3) subscribe(ctx context.Context, subs []Subscription) ([]byte, error) {
	// One SUBSCRIBE for each filter: the library reports results by topic, and
	// names those of shared subscriptions otherwise than they were asked for.
	reasons := make([]byte, 0, len(subs))
	for _, s := range subs {
		t := d.cli.Subscribe(s.Filter, s.QoS, nil).(*mqtt.SubscribeToken)
		err := wait(ctx, t)
		reason, ok := byte(0x80), false
		for _, r := range t.Result() {
			reason, ok = r, true
		}
		if !ok && err != nil {
			return nil, err
		}
		reasons = append(reasons, reason)
	}
	return reasons, nil
}

func (d *v3) disconnect(ctx context.Context, withWill bool) {
	if withWill {
		// 3.x has no such DISCONNECT: dropping the connection is it. The library
		// does not notice a Close by others, but a read that fails.
		_ = d.conn.Load().SetReadDeadline(time.Unix(1, 0)) // it may be closed already
		select {
		case <-*d.lost.Load():
		case <-ctx.Done():
		}
		return
	}
	quiesce := 2 * time.Second
	if t, ok := ctx.Deadline(); ok {
		quiesce = min(quiesce, time.Until(t))
	}
	d.cli.Disconnect(uint(max(quiesce, 0) / time.Millisecond))
}

// wait waits for a token of the library or ctx.
func wait(ctx context.Context, t mqtt.Token) error {
	select {
	case <-t.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	err := t.Error()
	if err == nil {
		return nil
	}
	if errors.Is(err, mqtt.ErrInvalidTopicEmptyString) || errors.Is(err, mqtt.ErrInvalidTopicMultilevel) || errors.Is(err, mqtt.ErrInvalidQos) {
		return &Error{Stage: Subscribing, Text: "not a valid subscription", Fatal: true, Err: err}
	}
	return fmt.Errorf("%w: %w", errLost, err)
}
