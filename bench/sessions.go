package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hashplus/bench/drive"
)

// Unloaded is what a scenario takes that publishes nothing.
type Unloaded struct {
	Broker `group:"Broker:"`
	Pool   `group:"Clients:"`
	Output `group:"Output:"`

	all Options
}

// options returns the same pointer each time, so that a suite may change what
// the run will see.
func (u *Unloaded) options() *Options {
	if u.all.URL == "" {
		u.all = Options{Broker: u.Broker, Pool: u.Pool, Output: u.Output}
	}
	return &u.all
}

// Connect is the scenario `connect`.
type Connect struct {
	Unloaded
	Sessions int `help:"Connections to make; they stay open until the end." default:"5000"`
}

// Help is the scenario's page.
func (*Connect) Help() string {
	return `Opens the connections, --connecting at a time, and times each from dial to CONNACK, WebSocket upgrade included. CPU time of the
broker is per connect.`
}

// Run carries the scenario out.
func (c *Connect) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Connect) measure(ctx context.Context) (*Result, error) {
	o := c.options()
	s := o.sessions("connect", c.Sessions)
	r, err := o.ramp(ctx, s, []int{c.Sessions}, 0)
	if err != nil {
		return nil, err
	}
	r.Points = nil
	return r, nil
}

// Idle is the scenario `idle`.
type Idle struct {
	Unloaded
	Steps  []int         `help:"Numbers of sessions at which memory is read, ascending." default:"2000,6000,10000,14000,18000"`
	Settle time.Duration `help:"How long to wait before memory is read." default:"3s"`
}

// Help is the scenario's page.
func (*Idle) Help() string {
	return `Opens sessions with one subscription each, waits at each step, and reads the broker's resident memory (--pid). Bytes per session
is the growth from the first step to the last, divided by the sessions between them, so that what the broker needs anyway does not count.`
}

// Run carries the scenario out.
func (c *Idle) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Idle) measure(ctx context.Context) (*Result, error) {
	o := c.options()
	if len(c.Steps) == 0 || !slices.IsSorted(c.Steps) {
		return nil, errors.New("--steps must ascend")
	}
	s := o.sessions("idle", c.Steps[len(c.Steps)-1])
	for i := range s.plan.Clients {
		s.plan.Clients[i].Subs = o.sub(fmt.Sprintf("hb/%s/idle/%d", s.id, i))
	}
	r, err := o.ramp(ctx, s, c.Steps, c.Settle)
	if err != nil {
		return nil, err
	}
	a, b := r.Points[0], r.Points[len(r.Points)-1]
	if b.Sessions > a.Sessions {
		r.RSSPerUnit = (float64(b.RSS) - float64(a.RSS)) / float64(b.Sessions-a.Sessions)
	}
	return r, nil
}

// sessions is n clients that only connect.
func (o *Options) sessions(name string, n int) *scenario {
	o.Load = Load{Payload: 64}
	o.Load.Stall, o.Load.Drain = time.Second, time.Second
	s := o.build(name, "connect", 1, 1)
	s.title = fmt.Sprintf("%s %d sessions", name, n)
	s.params = map[string]any{"sessions": n}
	for i := range n {
		s.client(drive.Client{Part: i})
	}
	return s
}

// ramp connects in steps and reads the broker's memory after each.
func (o *Options) ramp(ctx context.Context, s *scenario, steps []int, settle time.Duration) (*Result, error) {
	u, err := o.prepare(ctx, s)
	if err != nil {
		return nil, err
	}
	defer u.close()
	r, g, f := u.result, u.gauge, u.fleet
	r.Load = nil
	from := 0
	for _, to := range steps {
		before := g.read()
		if err := f.connect(ctx, from, to); err != nil {
			return nil, err
		}
		after := g.read()
		r.Measured += after.at.Sub(before.at).Seconds()
		r.Units += after.connected - before.connected
		r.CPU += (after.cpu - before.cpu).Seconds()
		r.OwnCPU += (after.own - before.own).Seconds()
		sleep(ctx, settle)
		r.Points = append(r.Points, Point{Sessions: to, RSS: g.read().rss})
		from = to
	}
	r.rates()
	return u.finish()
}
