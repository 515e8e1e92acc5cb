package bench

import (
	"context"
	"fmt"

	"hashplus/bench/drive"
)

// Shared is the scenario `shared`.
type Shared struct {
	Options
	Publishers int `help:"Publishers." default:"100"`
	Groups     int `help:"Share groups; each gets every message once." default:"10"`
	Members    int `help:"Members of each group." default:"10"`
}

// Help is the scenario's page.
func (*Shared) Help() string {
	return `Every message goes to one member of each group. Loss and duplicates are counted per group, over all its members; order is judged
per member, as a group promises none.`
}

// Run carries the scenario out.
func (c *Shared) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Shared) measure(ctx context.Context) (*Result, error) {
	o := &c.Options
	s := o.build("shared", "delivery", 1, 8)
	s.title = fmt.Sprintf("shared, %d → %d groups of %d, QoS %d, %s", c.Publishers, c.Groups, c.Members, o.QoS, o.pressure())
	s.params = map[string]any{"publishers": c.Publishers, "groups": c.Groups, "members": c.Members}
	for g := range c.Groups {
		for m := range c.Members {
			s.client(drive.Client{
				Subs: o.sub(fmt.Sprintf("$share/g%d/hb/%s/s/+", g, s.id)), Flows: uint32(c.Publishers),
				StreamBase: uint32(g * c.Publishers), Shared: true, OrderBase: uint32((g*c.Members + m) * c.Publishers), Part: g,
			})
		}
	}
	s.plan.Streams = c.Groups * c.Publishers
	s.plan.Orders = c.Groups * c.Members * c.Publishers
	for i := range c.Publishers {
		s.sender(o, s.client(drive.Client{Part: i}), c.Groups, fmt.Sprintf("hb/%s/s/%d", s.id, i), "")
	}
	return o.execute(ctx, s)
}
