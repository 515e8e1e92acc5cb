package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"hashplus/broker/wire"
	"hashplus/cmd/hashplus/mqttclient"
)

// requestCommand publishes a request and prints the replies to it.
//
// In MQTT 5.0 the request carries a Response Topic and Correlation Data. The
// topic lies under the Response Information that the server gives, where it
// gives any: a prefix that only this client may subscribe to.
//
// MQTT 3.x has neither. A client of this broker learns its reply prefix by
// subscribing to $reply/self, which brings one message with the prefix as
// payload; how the responder learns the reply topic is between the two of them,
// so it goes into the payload where that says {reply}.
type requestCommand struct {
	connectionFlags
	messageFlags
	payloadFlags
	outputFlags
	ReplyTopicInPayload bool     `help:"Replace {reply} in the payload by the reply topic; the way to ask in MQTT 3.x."`
	Count               int      `short:"c" default:"1" help:"How many replies to wait for."`
	Timeout             Duration `short:"W" default:"30s" help:"Give up after this time; 0 means never."`
}

// selfTopic is where a 3.x client learns its reply prefix.
const selfTopic = "$reply/self"

// Run asks and prints.
func (c *requestCommand) Run(env *environment) error {
	if err := c.outputFlags.check(); err != nil {
		return usageError{err}
	}
	v5 := mqttclient.Version(c.MQTTVersion) == mqttclient.V5
	responseTopic := c.ResponseTopic
	if !v5 {
		c.ResponseTopic = "" // it goes into the payload, not into a property
		if !c.ReplyTopicInPayload {
			return usagef("MQTT %s has no Response Topic, so a responder cannot know where to reply: give --reply-topic-in-payload "+
				"and write {reply} in the message where the reply topic belongs, or use --mqtt-version 5", mqttclient.Version(c.MQTTVersion))
		}
	}
	m, err := c.message(c.MQTTVersion)
	if err != nil {
		return err
	}
	if m.Payload, err = c.read(env.stdin); err != nil {
		return err
	}
	if c.ReplyTopicInPayload && !bytes.Contains(m.Payload, []byte("{reply}")) {
		return usagef("--reply-topic-in-payload: the message has no {reply} to replace")
	}
	if c.Count < 1 {
		return usagef("--count is %d; it must be at least 1", c.Count)
	}
	o, err := c.options(env)
	if err != nil {
		return err
	}
	o.RequestResponse = v5
	w := &replies{
		printer: printer{env: env, out: &c.outputFlags, left: c.Count, done: make(chan error, 1)},
		prefix:  make(chan string, 1),
	}
	o.OnMessage = w.message
	ctx, cancel := deadline(env, c.Timeout)
	defer cancel()
	client, err := dial(ctx, env, o)
	if err != nil {
		return err
	}
	defer client.Close()
	return ended(env, ctx, c.ask(ctx, client, w, m, responseTopic))
}

// ask subscribes to the reply topic, publishes the request and waits.
func (c *requestCommand) ask(ctx context.Context, client *mqttclient.Client, w *replies, m mqttclient.Message, replyTo string) error {
	v5 := mqttclient.Version(c.MQTTVersion) == mqttclient.V5
	filter, own := replyTo, replyTo == ""
	if own {
		prefix, err := c.replyPrefix(ctx, client, w, v5)
		if err != nil {
			return err
		}
		replyTo, filter = prefix+rand.Text()[:10], prefix+"#"
	}
	if v5 {
		m.ResponseTopic = replyTo
		if m.CorrelationData == nil {
			m.CorrelationData = []byte(rand.Text()[:16])
		}
	}
	if own {
		// The topic is for this request only, and a responder that got it in the
		// payload may speak 3.x, which cannot return Correlation Data.
		w.expect(replyTo, nil)
	} else {
		w.expect(replyTo, m.CorrelationData)
	}
	if err := subscribe(ctx, client, []mqttclient.Subscription{{Filter: filter, QoS: m.QoS}}); err != nil {
		return err
	}
	if c.ReplyTopicInPayload {
		m.Payload = bytes.ReplaceAll(m.Payload, []byte("{reply}"), []byte(replyTo))
	}
	reason, err := client.Publish(ctx, m)
	if err != nil {
		return err
	}
	if reason == byte(wire.NoMatchingSubscribers) {
		return rejectedError{"nobody subscribes to " + m.Topic + ", so nobody will answer"}
	}
	select {
	case err := <-w.done:
		return err
	case <-client.Done():
		return client.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// replyPrefix is the start of topics that replies may go to: the server's where
// it gives one, else one that nobody guesses.
func (c *requestCommand) replyPrefix(ctx context.Context, client *mqttclient.Client, w *replies, v5 bool) (string, error) {
	if v5 {
		if p := client.Info().ResponseInformation; p != "" {
			return strings.TrimSuffix(p, "/") + "/", nil
		}
	} else if p, err := w.askPrefix(ctx, client); err != nil || p != "" {
		return p, err
	}
	id := make([]byte, 12)
	_, _ = rand.Read(id) // never fails
	return "hashplus/reply/" + hex.EncodeToString(id) + "/", nil
}

// replies is a printer that takes only what answers the request.
type replies struct {
	printer
	prefix chan string // what came on selfTopic

	topic       string
	correlation []byte // nil: any
	asked       bool
}

// expect sets what a reply looks like.
func (w *replies) expect(topic string, correlation []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.topic, w.correlation, w.asked = topic, correlation, true
}

func (w *replies) message(m mqttclient.Message) bool {
	if m.Topic == selfTopic {
		select {
		case w.prefix <- string(m.Payload):
		default: // once is enough
		}
		return true
	}
	w.mu.Lock()
	mine := w.asked && m.Topic == w.topic && (w.correlation == nil || bytes.Equal(w.correlation, m.CorrelationData))
	w.mu.Unlock()
	if !mine {
		return true // a late reply to someone else's request
	}
	return w.printer.message(m)
}

// askPrefix asks the broker for the reply prefix the way 3.x clients do. It is
// "" from a server that does not know of this.
func (w *replies) askPrefix(ctx context.Context, client *mqttclient.Client) (string, error) {
	if err := subscribe(ctx, client, []mqttclient.Subscription{{Filter: selfTopic}}); err != nil {
		var refused rejectedError
		if errors.As(err, &refused) {
			return "", nil
		}
		return "", err
	}
	select {
	case p := <-w.prefix:
		return strings.TrimSuffix(p, "/") + "/", nil
	case <-time.After(time.Second):
		return "", nil
	case <-client.Done():
		return "", client.Err()
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
