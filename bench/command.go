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

	Wildcard Wildcard `cmd:"" help:"Many filters of mixed kind."`
	Shared   Shared   `cmd:"" help:"Share groups: each message to one member of each."`
	Retained Retained `cmd:"" help:"Retained messages: store, then replay."`
	Mixed    Mixed    `cmd:"" help:"Telemetry, broadcast and requests at once."`
	Soak     Soak     `cmd:"" help:"The mixed load for hours: does memory grow?"`
	Slow     Slow     `cmd:"" help:"Some readers stall: what happens to the others."`

	Floor  Floor  `cmd:"" help:"What a bare write to a loopback socket costs here."`
	Peers  Peers  `cmd:"" help:"Run a suite of scenarios against several brokers in turn."`
	Report Report `cmd:"" help:"Turn results into Markdown and SVG plots."`
}

// Run parses args as `bench`'s command line and carries it out.
func Run(ctx context.Context, args []string) error {
	var c Command
	parser, err := kong.New(&c, kong.Name("bench"), kong.Description("Load generator for MQTT brokers."), kong.UsageOnError())
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

// Fanout is the scenario `fanout`.
type Fanout struct {
	Options
	Publishers  int `help:"Publishers." default:"1"`
	Subscribers int `help:"Subscribers; each gets every message." default:"1000"`
}

// Run carries the scenario out.
func (c *Fanout) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Fanout) measure(ctx context.Context) (*Result, error) {
	return c.execute(ctx, fanout(&c.Options, c.Publishers, c.Subscribers))
}

// Help is the scenario's page.
func (*Fanout) Help() string {
	return `Every message of each publisher goes to all subscribers. In the closed loop (the default) a publisher sends a burst in one write and
sends the next when the window has room again, that is when all subscribers have all messages but the window's. So --burst 8 --window 8 is
lock-step bursts of 8, and --burst 1 --window 1 is one message at a time. With --rate the loop is open.`
}

// Fanin is the scenario `fanin`.
type Fanin struct {
	Options
	Publishers  int `help:"Publishers." default:"500"`
	Subscribers int `help:"Subscribers; each gets every message." default:"1"`
}

// Run carries the scenario out.
func (c *Fanin) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Fanin) measure(ctx context.Context) (*Result, error) {
	return c.execute(ctx, fanin(&c.Options, c.Publishers, c.Subscribers))
}

// Help is the scenario's page.
func (*Fanin) Help() string {
	return `Publishers on names of their own, and a subscriber whose filter matches them all. Each publisher has its own window, so at most
publishers × window messages are on their way.`
}

// Pairs is the scenario `pairs`.
type Pairs struct {
	Options
	Pairs int `help:"Number of pairs." default:"500"`
}

// Run carries the scenario out.
func (c *Pairs) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Pairs) measure(ctx context.Context) (*Result, error) {
	return c.execute(ctx, pairs(&c.Options, c.Pairs))
}

// Help is the scenario's page.
func (*Pairs) Help() string {
	return `Each publisher has one subscriber on one name. A message counts as out until the subscriber has it and, at QoS 1 and 2, the
publisher has its acknowledgement.`
}

// Request is the scenario `request`.
type Request struct {
	Options
	Pairs int `help:"Number of requesters, each with a responder of its own." default:"500"`
}

// Run carries the scenario out.
func (c *Request) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Request) measure(ctx context.Context) (*Result, error) {
	return c.execute(ctx, request(&c.Options, c.Pairs))
}

// Help is the scenario's page.
func (*Request) Help() string {
	return `A requester publishes, its responder publishes the payload back on the reply's name, and the round trip ends when the requester has
it. One round trip is two messages through the broker; CPU time and latency are per round trip.`
}

// runner is a scenario's command, its flags filled in.
type runner interface {
	measure(ctx context.Context) (*Result, error)
	options() *Options
}

func (o *Options) options() *Options { return o }

// show prints the result and writes it where the options say. A process that
// carried a part of a run has nothing to show and has ended well.
func (o *Output) show(r *Result, err error) error {
	if errors.Is(err, errServed) {
		return nil
	}
	if err != nil {
		return err
	}
	return o.emit(r)
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
