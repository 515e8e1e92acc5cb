package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

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
	if !ascending(c.Steps) {
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
	if n := len(r.Points); n > 1 {
		a, b := r.Points[0], r.Points[n-1]
		r.RSSPerUnit = (float64(b.RSS) - float64(a.RSS)) / float64(b.Sessions-a.Sessions)
	}
	return r, nil
}

// ascending tells whether each step is larger than the one before, and there is one.
func ascending(steps []int) bool {
	return len(steps) > 0 && slices.IsSorted(steps) && len(slices.Compact(slices.Clone(steps))) == len(steps)
}
