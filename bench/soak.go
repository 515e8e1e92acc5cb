package bench

import (
	"context"
	"time"
)

// Soak is the scenario `soak`.
type Soak struct {
	Options
	Clients int           `help:"Clients, about." default:"1000"`
	For     time.Duration `help:"How long, in place of --duration." default:"1h"`
}

// Help is the scenario's page.
func (*Soak) Help() string {
	return mixture + `

Runs for --for, at 2,000 messages per second unless --rate says otherwise. The result has samples over the whole time, and how fast the
broker's memory grew in the last three quarters of it, as the slope of a line through the samples.`
}

// Run carries the scenario out.
func (c *Soak) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Soak) measure(ctx context.Context) (*Result, error) {
	c.Duration = c.For
	if c.Rate == 0 {
		c.Rate = 2000
	}
	s := mixed(&c.Options, "soak", c.Clients)
	r, err := c.execute(ctx, s)
	if err != nil {
		return nil, err
	}
	r.Growth = growth(r.Samples[len(r.Samples)/4:])
	return r, nil
}

// growth is the slope of memory over time in bytes per hour, by least squares.
func growth(samples []Sample) float64 {
	n := float64(len(samples))
	var t, m, tt, tm float64
	for _, s := range samples {
		t += s.At
		m += float64(s.RSS)
		tt += s.At * s.At
		tm += s.At * float64(s.RSS)
	}
	d := n*tt - t*t
	if d == 0 {
		return 0
	}
	return 3600 * (n*tm - t*m) / d
}
