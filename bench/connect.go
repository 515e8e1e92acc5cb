package bench

import (
	"context"
	"errors"
	"fmt"
)

// Connect is the scenario `connect`.
type Connect struct {
	Unloaded
	Sessions int     `help:"Connections to make; they stay open until the end." default:"5000"`
	Rate     float64 `help:"Open loop: connections per second. Latency then counts from when one was due." placeholder:"PER-SECOND"`
}

// Help is the scenario's page.
func (*Connect) Help() string {
	return `Opens the connections, --connecting at a time, and times each from dial to CONNACK, WebSocket upgrade included. CPU time of the
broker is per connect.

With --rate connections are due on a fixed schedule, and at most --connecting of them are under way: what waits because the broker is slow
waits in its latency.`
}

// Run carries the scenario out.
func (c *Connect) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Connect) measure(ctx context.Context) (*Result, error) {
	if c.Rate < 0 {
		return nil, errors.New("--rate must not be negative")
	}
	o := c.options()
	s := o.sessions("connect", c.Sessions)
	if s.plan.DialRate = c.Rate; c.Rate > 0 {
		s.title += fmt.Sprintf(", %.0f/s", c.Rate)
		s.params["rate"] = c.Rate
	}
	r, err := o.ramp(ctx, s, []int{c.Sessions}, 0)
	if err != nil {
		return nil, err
	}
	r.Points = nil
	return r, nil
}
