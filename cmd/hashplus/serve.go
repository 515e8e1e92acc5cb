package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"hashplus/broker"
	"hashplus/transport"
)

// serveCommand runs the broker.
//
// It prints one line, "listening URL", for each listener on stdout once all of
// them listen; the log goes to stderr. The first SIGTERM or SIGINT drains it:
// listeners close, clients are told (DISCONNECT 0x8B, WebSocket 1001), what is
// queued for them is written within --drain, and the exit code is 0. A second
// signal ends the process at once with 130.
type serveCommand struct {
	Config string `short:"c" type:"path" placeholder:"FILE" help:"YAML file with the configuration. A flag comes before the environment, which comes before the file."`
	Check  bool   `help:"Validate the configuration, print it as YAML and end."`
	configuration
}

// BeforeResolve loads the file that --config or HASHPLUS_CONFIG names.
func (c *serveCommand) BeforeResolve(ctx *kong.Context) error {
	flags := serveFlags(ctx)
	path := ""
	for _, f := range flags {
		if f.Name == "config" {
			path, _ = ctx.FlagValue(f).(string)
		}
	}
	if path == "" {
		return nil
	}
	file, err := loadConfigFile(path, flags)
	if err != nil {
		return err
	}
	c.Listeners = file.listeners
	ctx.AddResolver(file)
	return nil
}

// serveFlags are the flags of serve, in the order of the struct.
func serveFlags(ctx *kong.Context) []*kong.Flag {
	for _, node := range ctx.Model.Children {
		if node.Name == "serve" {
			return node.Flags
		}
	}
	return nil
}

// Run checks the configuration, then serves until the environment's context
// ends.
func (c *serveCommand) Run(env *environment, ctx *kong.Context) error {
	if err := c.finish(); err != nil {
		return usageError{err}
	}
	log := c.logger(env)
	o := c.brokerOptions()
	o.Logger = log
	if err := c.access(&o, log); err != nil {
		return err
	}
	if c.Check {
		return c.writeEffective(env.stdout, serveFlags(ctx))
	}
	return c.serve(env, o)
}

// gcPercent is the garbage collector's target where GOGC does not set one: a
// delivery allocates nothing, so collecting sooner costs nothing that could be
// measured, and a session is a fifth smaller (docs/adr/0005).
const gcPercent = 50

// gcReserve counts as live memory and is never touched, so it takes addresses
// and no memory. With it the collector leaves gcPercent of it free at least: a
// small heap would else be collected for each megabyte of garbage.
const gcReserve = 16 << 20

func (c *configuration) serve(env *environment, o broker.Options) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
		reserve := make([]byte, gcReserve)
		defer runtime.KeepAlive(reserve)
	}
	stop, err := profiled()
	if err != nil {
		return err
	}
	err = c.run(env, o)
	return errors.Join(err, stop())
}

// run serves until the context of env ends.
func (c *configuration) run(env *environment, o broker.Options) error {
	log := o.Logger
	b, err := broker.New(o)
	if err != nil {
		return err
	}
	server, err := transport.New(transport.Options{
		Loops:            c.Loops,
		Logger:           log,
		HandshakeTimeout: time.Duration(c.ConnectTimeout),
		WriteStall:       time.Duration(c.WriteStall),
		MaxConns:         c.MaxConnections,
	}, b)
	if err != nil {
		return err
	}
	if err := c.listen(env, server); err != nil {
		stopped, cancel := context.WithCancel(context.Background())
		cancel() // nobody is connected: nothing to wait for
		return errors.Join(err, quiet(server.Shutdown(stopped)))
	}
	log.Info("serving", "version", versionString(), "pid", os.Getpid())
	<-env.ctx.Done()

	log.Info("draining", "connections", server.Conns(), "within", time.Duration(c.Drain))
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.Drain))
	defer cancel()
	// The broker first: its DISCONNECT must go before the close frame.
	server.StopAccepting()
	if err := errors.Join(b.Shutdown(ctx), server.Shutdown(ctx)); err != nil {
		log.Warn("not everything was written in time", "cause", err)
	}
	log.Info("stopped")
	return nil
}

// listen opens every listener and then prints their URLs, so that a line on
// stdout means that all of them are there.
func (c *configuration) listen(env *environment, server *transport.Server) error {
	var urls []string
	for i := range c.Listeners {
		l := &c.Listeners[i]
		u, err := server.Listen(l.listener(c))
		if err != nil {
			return fmt.Errorf("cannot listen on %s: %w", l.url(), err)
		}
		if rest, ok := strings.CutPrefix(u, "tcp://"); ok {
			u = "mqtt://" + rest
		}
		if l.Network == "ws" && *l.Path == "" {
			u += "/mqtt" // any path is answered; this is the one that clients try
		}
		urls = append(urls, u)
	}
	for _, u := range urls {
		if _, err := fmt.Fprintln(env.stdout, "listening", u); err != nil {
			return err
		}
	}
	return nil
}

// brokerOptions is the configuration for the broker.
func (c *configuration) brokerOptions() broker.Options {
	maxQoS := c.MaxQoS
	o := broker.Options{
		ReceiveMaximum:    c.ReceiveMaximum,
		MaximumPacketSize: int(c.MaxPacketSize),
		TopicAliasMaximum: int(c.TopicAliasMaximum),
		MaximumQoS:        &maxQoS,
		RetainUnavailable: !c.RetainAvailable,
		MaxKeepAlive:      uint16(c.MaxKeepalive),
		MaxSessionExpiry:  uint32(c.MaxSessionExpiry),
		ConnectTimeout:    time.Duration(c.ConnectTimeout),
		MaxConnectSize:    int(c.MaxConnectSize),
		MaxInflight:       c.MaxInflight,
		MaxQueuedMessages: c.MaxQueuedMessages,
		MaxQueuedBytes:    int(c.MaxQueuedBytes),
		QueueFull:         broker.QueueFull(c.QueueFull),
		MaxSubscriptions:  c.MaxSubscriptions,
		MaxTopicLevels:    c.MaxTopicLevels,
		MaxTopicLength:    c.MaxTopicLength,
		MaxUserProperties: c.MaxUserProperties,
		MaxSessions:       c.MaxSessions,
		WriteQueueBytes:   int(c.WriteQueueBytes),
		SysInterval:       time.Duration(c.SysInterval),
		Version:           "hashplus " + versionString(),
		ServerReference:   c.ServerReference,
		Strict:            c.Strict,
	}
	// In broker.Options zero asks for the default.
	if o.TopicAliasMaximum == 0 {
		o.TopicAliasMaximum = -1
	}
	if o.SysInterval == 0 {
		o.SysInterval = -1
	}
	return o
}

// quiet leaves out the end of a context that was meant to end.
func quiet(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
