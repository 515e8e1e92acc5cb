package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"hashplus/cmd/hashplus/mqttclient"
	"hashplus/topic"
)

// subCommand prints what arrives on its filters.
type subCommand struct {
	connectionFlags
	outputFlags
	Topic             []string `short:"t" required:"" sep:"none" help:"Topic filter, such as sensor/# or $$share/group/sensor/+. Repeatable."`
	QoS               byte     `name:"qos" short:"q" default:"0" help:"Largest QoS to receive: 0, 1 or 2."`
	NoLocal           bool     `help:"Not what this client publishes itself (5)."`
	RetainAsPublished bool     `help:"Keep the retain flag as it was published (5)."`
	RetainHandling    byte     `default:"0" help:"Retained messages: 0 send, 1 send if the subscription is new, 2 do not send (5)."`
	Count             int      `short:"C" default:"0" help:"End after so many messages; 0 means never."`
	Timeout           Duration `short:"W" default:"0s" help:"End after this time; 0 means never."`
}

// Run subscribes and prints until it is done.
func (c *subCommand) Run(env *environment) error {
	if err := c.outputFlags.check(); err != nil {
		return usageError{err}
	}
	subs, err := subscriptions(c.Topic, c.QoS)
	if err != nil {
		return err
	}
	if c.RetainHandling > 2 {
		return usagef("--retain-handling is %d; allowed are 0, 1, 2", c.RetainHandling)
	}
	if c.Count < 0 {
		return usagef("--count is %d; it must not be negative", c.Count)
	}
	if (c.NoLocal || c.RetainAsPublished || c.RetainHandling != 0) && mqttclient.Version(c.MQTTVersion) != mqttclient.V5 {
		return usagef("--no-local, --retain-as-published and --retain-handling need --mqtt-version 5")
	}
	for i := range subs {
		subs[i].NoLocal, subs[i].RetainAsPublished, subs[i].RetainHandling = c.NoLocal, c.RetainAsPublished, c.RetainHandling
	}
	o, err := c.options(env)
	if err != nil {
		return err
	}
	p := &printer{env: env, out: &c.outputFlags, left: c.Count, done: make(chan error, 1)}
	o.OnMessage = p.message
	ctx, cancel := deadline(env, c.Timeout)
	defer cancel()
	client, err := dial(ctx, env, o)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := subscribe(ctx, client, subs); err != nil {
		return ended(env, ctx, err)
	}
	select {
	case err := <-p.done:
		return err
	case <-client.Done():
		return client.Err()
	case <-ctx.Done():
		if c.Count == 0 {
			return nil // a signal or --timeout is how this ends
		}
		return fmt.Errorf("%w after %d of %d messages", ended(env, ctx, ctx.Err()), c.Count-p.missing(), c.Count)
	}
}

// printer prints the messages of a client until enough were printed.
type printer struct {
	env  *environment
	out  *outputFlags
	done chan error // gets one value

	mu    sync.Mutex
	left  int // messages still wanted; 0 at first means all
	ended bool
}

// message prints m. It refuses those past the last that is wanted, so that a
// durable session keeps them.
func (p *printer) message(m mqttclient.Message) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	err := p.out.print(p.env.stdout, &m)
	last := p.left == 1
	if p.left > 0 {
		p.left--
	}
	if err != nil || last {
		p.ended = true
		// The acknowledgement leaves when this returns: let it go first.
		time.AfterFunc(acknowledgeFirst(m.QoS), func() { p.done <- err })
	}
	return true
}

// missing is how many messages are still wanted.
func (p *printer) missing() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left
}

// acknowledgeFirst is how long to wait before disconnecting after a message, as
// the libraries do not say when its acknowledgement has been written.
func acknowledgeFirst(qos byte) time.Duration {
	if qos == 0 {
		return 0
	}
	return 50 * time.Millisecond
}

// subscriptions checks filters: some servers answer a wrong one by closing the
// connection without a word.
func subscriptions(filters []string, qos byte) ([]mqttclient.Subscription, error) {
	if qos > 2 {
		return nil, usagef("--qos is %d; allowed are 0, 1, 2", qos)
	}
	var subs []mqttclient.Subscription
	for _, f := range filters {
		_, _, shared, err := topic.ParseShare(f)
		if !shared {
			err = topic.CheckFilter(f)
		}
		if err != nil {
			return nil, usagef("--topic %q: %w", f, err)
		}
		subs = append(subs, mqttclient.Subscription{Filter: f, QoS: qos})
	}
	return subs, nil
}

// subscribe subscribes to all or fails with the first refusal.
func subscribe(ctx context.Context, client *mqttclient.Client, subs []mqttclient.Subscription) error {
	reasons, err := client.Subscribe(ctx, subs...)
	if err != nil {
		return err
	}
	var refused []error
	for i, r := range reasons {
		if r >= 0x80 {
			refused = append(refused, fmt.Errorf("the server refused the subscription to %s: %s", subs[i].Filter, mqttclient.ReasonText(r)))
		}
	}
	if err := errors.Join(refused...); err != nil {
		return rejectedError{err.Error()}
	}
	return nil
}
