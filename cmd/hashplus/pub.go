package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"hashplus/broker/wire"
	"hashplus/cmd/hashplus/mqttclient"
)

// pubCommand publishes messages and ends when the last one is acknowledged.
type pubCommand struct {
	connectionFlags
	messageFlags
	payloadFlags
	StdinLines bool     `short:"l" xor:"payload" help:"Publish each line of standard input."`
	Count      int      `short:"c" default:"1" help:"How often to publish the message; 0 means until interrupted."`
	Interval   Duration `default:"0s" help:"Wait between two messages."`
	Timeout    Duration `short:"W" default:"0s" help:"Give up after this time; 0 means never."`
	JSON       bool     `name:"json" help:"Print one JSON object for each message once it is acknowledged."`
	EndByWill  bool     `help:"End so that the server publishes the will."`
}

// Run publishes.
func (c *pubCommand) Run(env *environment) error {
	m, err := c.message(c.MQTTVersion)
	if err != nil {
		return err
	}
	if !c.StdinLines && !c.given() {
		return usagef("nothing to publish: give --message, --file, --empty or --stdin-lines")
	}
	if c.StdinLines && c.Count != 1 {
		return usagef("--count and --stdin-lines exclude each other")
	}
	if c.Count < 0 {
		return usagef("--count is %d; it must not be negative", c.Count)
	}
	if m.Payload, err = c.read(env.stdin); err != nil {
		return err
	}
	if err := checkText(&m); err != nil {
		return usageError{err}
	}
	o, err := c.options(env)
	if err != nil {
		return err
	}
	ctx, cancel := deadline(env, c.Timeout)
	defer cancel()
	client, err := dial(ctx, env, o)
	if err != nil {
		return err
	}
	if c.EndByWill {
		defer client.CloseWithWill()
	} else {
		defer client.Close()
	}
	if c.StdinLines {
		return ended(env, ctx, c.publishLines(ctx, env, client, m))
	}
	for n := 0; c.Count == 0 || n < c.Count; n++ {
		if n > 0 && !pause(ctx, c.Interval) {
			if c.Count == 0 && env.ctx.Err() != nil {
				return nil // that is how this ends
			}
			return ended(env, ctx, ctx.Err())
		}
		if err := c.publish(ctx, env, client, m); err != nil {
			if c.Count == 0 && n > 0 && env.ctx.Err() != nil {
				return nil
			}
			return ended(env, ctx, err)
		}
	}
	return nil
}

// publishLines reads in a goroutine of its own, so that a signal ends the
// command while it waits for input. That goroutine ends with the input or the
// process.
func (c *pubCommand) publishLines(ctx context.Context, env *environment, client *mqttclient.Client, m mqttclient.Message) error {
	line := make(chan []byte)
	finished := make(chan error, 1)
	go func() {
		finished <- lines(env.stdin, func(b []byte) error {
			select {
			case line <- b:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	for n := 0; ; n++ {
		select {
		case m.Payload = <-line:
		case err := <-finished:
			return err
		case <-client.Done():
			return client.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
		if n > 0 && !pause(ctx, c.Interval) {
			return ctx.Err()
		}
		if err := checkText(&m); err != nil {
			return err
		}
		if err := c.publish(ctx, env, client, m); err != nil {
			return err
		}
	}
}

func (c *pubCommand) publish(ctx context.Context, env *environment, client *mqttclient.Client, m mqttclient.Message) error {
	reason, err := client.Publish(ctx, m)
	if err != nil || !c.JSON {
		return err
	}
	r := toRecord(&m, time.Now())
	if mqttclient.Version(c.MQTTVersion) == mqttclient.V5 && m.QoS > 0 {
		r.ReasonCode, r.DeliveredNobody = &reason, reason == byte(wire.NoMatchingSubscribers)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.stdout, "%s\n", b)
	return err
}

// pause waits and reports false if ctx ended first.
func pause(ctx context.Context, d Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(time.Duration(d))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
