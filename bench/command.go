package bench

import (
	"context"
	"errors"
	"os"

	"github.com/alecthomas/kong"
)

// Command is the `bench` command line for kong. Its Run methods take a
// context.Context, which the parent binds with kong.BindTo.
type Command struct {
	Connect Connect `cmd:"" help:"Connection rate, and latency from dial to CONNACK."`
	Idle    Idle    `cmd:"" help:"Memory per idle session."`
	Fanout  Fanout  `cmd:"" help:"One publisher to many subscribers."`
	Fanin   Fanin   `cmd:"" help:"Many publishers to one subscriber."`
	Pairs   Pairs   `cmd:"" help:"Many publishers, each to a subscriber of its own."`
	Request Request `cmd:"" help:"Request and reply: round trips."`

	Wildcard       Wildcard       `cmd:"" help:"Many filters of mixed kind."`
	Shared         Shared         `cmd:"" help:"Share groups: each message to one member of each."`
	Retained       Retained       `cmd:"" help:"Retained messages: store, then replay."`
	DurableOffline DurableOffline `cmd:"" help:"QoS 1 messages for sessions whose clients are away."`
	DurableOnline  DurableOnline  `cmd:"" help:"QoS 1 messages for durable sessions whose clients are there."`

	Mixed Mixed `cmd:"" help:"Telemetry, broadcast and requests at once."`
	Soak  Soak  `cmd:"" help:"The mixed load for hours: does memory grow?"`
	Slow  Slow  `cmd:"" help:"Some readers stall: what happens to the others."`

	Floor  Floor  `cmd:"" help:"What a bare write to a loopback socket costs here."`
	Peers  Peers  `cmd:"" help:"Run a suite of scenarios against several brokers in turn."`
	Report Report `cmd:"" help:"Turn results into Markdown and SVG plots."`
}

// Run parses args as `bench`'s command line and carries it out.
func Run(ctx context.Context, args []string) error {
	var c Command
	parser, err := kong.New(&c, kong.Name("bench"), kong.Description("Load generator for MQTT brokers."), kong.ShortUsageOnError())
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		parser.FatalIfErrorf(err)
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return parsed.Run()
}

// runner is a scenario's command, its flags filled in.
type runner interface {
	measure(ctx context.Context) (*Result, error)
	options() *Options
}

func (o *Options) options() *Options { return o }

// show prints the result and writes it where the options say. It is an error if
// the broker did not hold out. A process that carried a part of a run has nothing
// to show and has ended well.
func (o *Output) show(r *Result, err error) error {
	if errors.Is(err, errServed) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := o.emit(r); err != nil {
		return err
	}
	if r.Ended != "" && r.Ended != interrupted {
		return errors.New(r.Ended)
	}
	return nil
}

// check makes sure before a run, which may take hours, that its result can be
// written.
func (o *Output) check() error {
	if o.JSON == "" || o.JSON == "-" {
		return nil
	}
	f, err := os.OpenFile(o.JSON, os.O_WRONLY|os.O_CREATE, 0o666) //nolint:gosec // as os.Create does: the umask decides
	if err != nil {
		return err
	}
	return f.Close()
}

// emit prints r and writes it where the options say.
func (o *Output) emit(r *Result) error {
	if o.JSON == "-" {
		return r.write(os.Stdout)
	}
	r.print(os.Stdout)
	if o.JSON == "" {
		return nil
	}
	f, err := os.Create(o.JSON)
	if err != nil {
		return err
	}
	if err := r.write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
