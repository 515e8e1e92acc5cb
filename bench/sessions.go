package bench

import (
	"context"
	"fmt"
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

// sessions is n clients that only connect.
func (o *Options) sessions(name string, n int) *scenario {
	o.Load = Load{Duration: time.Second, Stall: time.Second, Drain: time.Second} // none of it is used
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
		err := f.connect(ctx, from, to)
		if err != nil && ctx.Err() == nil {
			return nil, err
		}
		after := g.read()
		r.Measured += after.at.Sub(before.at).Seconds()
		r.Units += after.connected - before.connected
		r.CPU += max(after.cpu-before.cpu, 0).Seconds()
		r.OwnCPU += (after.own - before.own).Seconds()
		if ctx.Err() != nil {
			r.Ended = interrupted
			break
		}
		u.progress.enter("settling")
		sleep(ctx, settle)
		r.Points = append(r.Points, Point{Sessions: to, RSS: g.read().rss})
		from = to
		u.progress.enter("connecting")
	}
	r.rates()
	return u.finish()
}
