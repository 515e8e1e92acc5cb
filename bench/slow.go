package bench

import (
	"context"
	"fmt"

	"hashplus/bench/drive"
)

// Slow is the scenario `slow`.
type Slow struct {
	Options
	Readers int `help:"Subscribers that read." default:"20"`
	Stalled int `help:"Subscribers that stop reading." default:"10"`
}

// Help is the scenario's page.
func (*Slow) Help() string {
	return `One publisher to all subscribers, at 1,000 messages of 1,024 bytes per second unless told otherwise. After half of the duration some
subscribers stop reading; they keep their connection. Reported is the latency of the others, before ("calm") and after, their loss,
and how far the broker's memory went. What the stalled ones miss does not count.`
}

// Run carries the scenario out.
func (c *Slow) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Slow) measure(ctx context.Context) (*Result, error) {
	o := &c.Options
	if o.Rate == 0 {
		o.Rate = 1000
	}
	if o.Payload == 0 {
		o.Payload = 1024
	}
	o.Duration /= 2
	s := o.build("slow", "delivery", 1, 1)
	s.title = fmt.Sprintf("slow, 1 → %d and %d that stall, QoS %d, %s", c.Readers, c.Stalled, o.QoS, o.pressure())
	s.params = map[string]any{"readers": c.Readers, "stalled": c.Stalled}
	for i := range c.Readers + c.Stalled {
		s.client(drive.Client{Subs: o.sub("hb/" + s.id + "/slow"), Flows: 1, StreamBase: uint32(i), Stall: i >= c.Readers, Part: i})
	}
	s.plan.Streams = c.Readers + c.Stalled
	s.sender(o, s.client(drive.Client{}), c.Readers, "hb/"+s.id+"/slow", "")
	return o.twice(ctx, s)
}

// twice measures s calm, then with the clients stalled that are to stall.
func (o *Options) twice(ctx context.Context, s *scenario) (*Result, error) {
	u, err := o.measured(ctx, s)
	if err != nil {
		return nil, err
	}
	defer u.close()
	calm, err := u.fleet.finish()
	if err != nil {
		return nil, err
	}
	if err := u.measure(ctx, o, true); err != nil {
		return nil, err
	}
	var first Result
	if err := first.add(calm); err != nil {
		return nil, err
	}
	r, err := u.finish()
	if err == nil {
		r.Calm = first.Latency
	}
	return r, err
}
