package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
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
// signal ends the process at once with 130. SIGHUP reloads the configuration;
// see reloader.
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
	flags := serveFlags(ctx)
	if err := errors.Join(emptyFlags(ctx), c.finish(), unknownVariables(os.Environ(), flags)); err != nil {
		return usageError{err}
	}
	r := newReloader(env, &c.configuration, flags)
	o := c.brokerOptions()
	o.Logger = r.log
	who, err := c.access(&o, r.log)
	if err != nil {
		return err
	}
	if c.Check {
		c.warnOfFiles(r.log)
		return c.writeEffective(env.stdout, flags)
	}
	if env.hangup == nil {
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
		env.hangup = hangup
	}
	return c.serve(env, o, who, r)
}

// emptyFlags finds files, directories and URLs that the command line gives as "": as
// --password-file "$FILE" does where FILE is not set. In the other sources that is how
// a default is written.
func emptyFlags(ctx *kong.Context) error {
	var faults []error
	for _, p := range ctx.Path {
		if p.Flag == nil || p.Resolved || !slices.Contains([]string{"FILE", "DIR", "URL"}, p.Flag.PlaceHolder) {
			continue
		}
		if strings.Trim(textOf(p.Flag.Target), ",") == "" {
			faults = append(faults, fmt.Errorf("%s: is given, and empty; leave the flag out if there is to be none", p.Flag.Name))
		}
	}
	return errors.Join(onlyOnce(faults)...)
}

// gcPercent is the garbage collector's target where GOGC does not set one: a
// delivery allocates nothing, so collecting sooner costs nothing that could be
// measured, and a session is a fifth smaller (docs/adr/0005).
const gcPercent = 50

// gcReserve counts as live memory and is never touched, so it takes addresses
// and no memory. With it the collector leaves gcPercent of it free at least: a
// small heap would else be collected for each megabyte of garbage.
const gcReserve = 16 << 20

func (c *configuration) serve(env *environment, o broker.Options, who *authentication, r *reloader) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
		reserve := make([]byte, gcReserve)
		defer runtime.KeepAlive(reserve)
	}
	stop, err := profiled()
	if err != nil {
		return err
	}
	err = c.run(env, o, who, r)
	return errors.Join(err, stop())
}

// uses are the values of io-uring.
var uses = map[string]transport.Use{"auto": transport.Auto, "on": transport.On, "off": transport.Off}

// run serves until the context of env ends. What can take a new configuration
// later, it registers with r.
func (c *configuration) run(env *environment, o broker.Options, who *authentication, r *reloader) error {
	log := o.Logger
	var serving atomic.Pointer[transport.Server]
	o.Sys = func(add func(name string, value int64)) {
		if s := serving.Load(); s != nil {
			transportSys(s, add)
		}
	}
	running, stop := context.WithCancelCause(env.ctx)
	defer stop(nil)
	probes, err := startHealth(c.Health, log)
	if err != nil {
		return err
	}
	defer probes.close()
	keeper := c.durability.store(&o, func(err error) {
		if !errors.Is(err, broker.ErrStoreDamaged) {
			err = stuckError{err}
		}
		stop(err)
	})
	b, err := broker.New(o)
	if err != nil {
		return err
	}
	options := c.serverOptions()
	options.Logger, options.Banned = log, b.Banned
	server, err := transport.New(options, b)
	if err != nil {
		return err
	}
	serving.Store(server)
	err = advise(c.Data, b.Recover(running))
	if err == nil {
		err = c.listen(env, server)
	}
	if err != nil {
		stopped, cancel := context.WithCancel(context.Background())
		cancel() // nobody is connected: nothing to wait for
		return errors.Join(err, quiet(b.Shutdown(stopped)), quiet(server.Shutdown(stopped)))
	}
	if keeper != nil {
		defer keeper.listen()()
	}
	log.Info("serving", "version", versionString(), "pid", os.Getpid(), "state", c.where())
	r.liveLimits(b, server)
	open := r.liveListeners(server)
	r.livePermissions(b)
	defer r.liveAuthentication(b, who)()
	working, end := context.WithCancel(context.Background())
	defer end()
	memory := newMemoryWatch(b, log, c.MaxMemory)
	go memory.run(working)
	r.protect(b, server, memory)
	r.liveHealth(probes)
	open()
	r.complete()
	probes.set(func() error { return advise(c.Data, b.Health()) })
	manager := newManager(os.Getenv, log)
	r.manager = manager
	manager.ready()
	go manager.watchdog(working, server.Probe)
	r.waitReload(running)

	log.Info("draining", "connections", server.Conns(), "within", time.Duration(c.Drain))
	manager.stopping()
	probes.set(func() error { return errDraining })
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.Drain))
	defer cancel()
	// The broker first: its DISCONNECT must go before the close frame.
	server.StopAccepting()
	if err := errors.Join(b.Drain(ctx, time.Duration(c.Drain)/4*3), server.Shutdown(ctx)); err != nil {
		log.Warn("not everything was written in time", "cause", err)
	}
	log.Info("stopped")
	var stuck stuckError
	if cause := context.Cause(running); errors.As(cause, &stuck) || errors.Is(cause, broker.ErrStoreDamaged) {
		return fmt.Errorf("the store failed and cannot be opened again by this process: %w", advise(c.Data, cause))
	}
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
			return l.fault("cannot listen on %s: %w", l.url(), err)
		}
		l.listens = u
		urls = append(urls, l.clients())
	}
	var lines strings.Builder // written at once: who has read the first has all
	for _, u := range urls {
		fmt.Fprintln(&lines, "listening", u)
	}
	_, err := io.WriteString(env.stdout, lines.String())
	return err
}

// clients is the URL of a listener that listens, as clients are to write it.
func (l *listenerConfig) clients() string {
	u := clientURL(l.listens)
	if l.upgrades() && *l.Path == "" {
		u += "/mqtt" // any path is answered; this is the one that clients try
	}
	return u
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
		Limits:            c.limits(),
		SysInterval:       time.Duration(c.SysInterval),
		Version:           "hashplus " + versionString(),
		ServerReference:   c.ServerReference,
		Strict:            c.Strict,
		MinFree:           int64(c.MinFree),
	}
	// In broker.Options zero asks for the default.
	if o.TopicAliasMaximum == 0 {
		o.TopicAliasMaximum = -1
	}
	if o.SysInterval == 0 {
		o.SysInterval = -1
	}
	if o.MinFree == 0 {
		o.MinFree = -1
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
