package bench

import (
	"context"
	"fmt"
	"time"

	"hashplus/bench/drive"
)

// Connect is the scenario `connect`.
type Connect struct {
	Broker   `group:"Broker:"`
	Pool     `group:"Clients:"`
	Output   `group:"Output:"`
	Sessions int `help:"Connections to make; they stay open until the end." default:"5000"`
}

// Help is the scenario's page.
func (*Connect) Help() string {
	return `Opens the connections, --connecting at a time, and times each from dial to CONNACK, WebSocket upgrade included. CPU time of the
broker is per connect.`
}

// Run carries the scenario out.
func (c *Connect) Run(ctx context.Context) error {
	o := &Options{Broker: c.Broker, Pool: c.Pool, Output: c.Output}
	s, err := o.sessions(ctx, "connect", c.Sessions)
	if err != nil {
		return err
	}
	r, err := o.ramp(ctx, s, []int{c.Sessions}, 0)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	r.Points = nil
	return o.emit(r)
}

// Idle is the scenario `idle`.
type Idle struct {
	Broker `group:"Broker:"`
	Pool   `group:"Clients:"`
	Output `group:"Output:"`
	Steps  []int         `help:"Numbers of sessions at which memory is read, ascending." default:"2000,6000,10000,14000,18000"`
	Settle time.Duration `help:"How long to wait before memory is read." default:"3s"`
}

// Help is the scenario's page.
func (*Idle) Help() string {
	return `Opens sessions with one subscription each, waits at each step, and reads the broker's resident memory (--pid). Bytes per session
is the growth from the first step to the last, divided by the sessions between them, so that what the broker needs anyway does not count.`
}

// Run carries the scenario out.
func (c *Idle) Run(ctx context.Context) error {
	o := &Options{Broker: c.Broker, Pool: c.Pool, Output: c.Output}
	s, err := o.sessions(ctx, "idle", c.Steps[len(c.Steps)-1])
	if err != nil {
		return err
	}
	for i := range s.plan.Clients {
		s.plan.Clients[i].Subs = o.sub(fmt.Sprintf("hb/%s/idle/%d", s.params["run"], i))
	}
	r, err := o.ramp(ctx, s, c.Steps, c.Settle)
	if err != nil {
		return fmt.Errorf("idle: %w", err)
	}
	a, b := r.Points[0], r.Points[len(r.Points)-1]
	if b.Sessions > a.Sessions {
		r.RSSPerUnit = (float64(b.RSS) - float64(a.RSS)) / float64(b.Sessions-a.Sessions)
	}
	return o.emit(r)
}

// sessions is n clients that only connect.
func (o *Options) sessions(ctx context.Context, name string, n int) (*scenario, error) {
	o.Load = Load{Payload: 64}
	o.Load.Stall, o.Load.Drain = time.Second, time.Second
	s := o.build(name, "connect", 1, 1)
	s.title = fmt.Sprintf("%s %d sessions", name, n)
	s.params = map[string]any{"run": run(), "sessions": n}
	for range n {
		s.client(drive.Client{})
	}
	var err error
	s.plan.Target, err = o.target(ctx)
	s.plan.EnsureDefaults()
	return s, err
}

// ramp connects in steps and reads the broker's memory after each.
func (o *Options) ramp(ctx context.Context, s *scenario, steps []int, settle time.Duration) (*Result, error) {
	r := o.result(s)
	r.Load = nil
	g, err := newGauge(o.PID)
	if err != nil {
		return nil, err
	}
	r.RSSBefore = g.rss
	p := startProgress(o.Quiet, s, g)
	defer p.stop()
	f := &fleet{plan: &s.plan, clock: drive.NewClock(), counters: g.counters}
	if err := f.start(ctx); err != nil {
		return nil, err
	}
	defer f.close()
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
	out, err := f.finish()
	if err != nil {
		return nil, err
	}
	p.stop()
	r.Samples, r.RSSPeak = p.samples, g.peak
	return r, r.add(out)
}
