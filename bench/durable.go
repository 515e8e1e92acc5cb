package bench

import (
	"context"
	"fmt"

	"hashplus/bench/drive"
)

// DurableOffline is the scenario `durable-offline`.
type DurableOffline struct {
	Options
	Publishers int `help:"Publishers." default:"500"`
	Sessions   int `help:"Durable sessions; the publishers divide among them." default:"500"`
}

// Help is the scenario's page.
func (*DurableOffline) Help() string {
	return `Clients make durable sessions with a subscription each and leave. Then publishers send to them at QoS 1 (or --qos 2), and what counts
is the acknowledgement: messages that the broker has taken charge of per second, CPU time for each, latency from publish to
acknowledgement. The queues grow by all of it and the sessions stay in the broker, so give each run a broker of its own.`
}

// Run carries the scenario out.
func (c *DurableOffline) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *DurableOffline) measure(ctx context.Context) (*Result, error) {
	s := durable(&c.Options, "durable-offline", "message", c.Publishers, c.Sessions)
	s.title = fmt.Sprintf("%d → %d durable sessions, offline, QoS %d, %s", c.Publishers, c.Sessions, c.QoS, c.pressure())
	s.plan.Acks = true
	for i := range c.Sessions {
		s.plan.Clients[i].Leaves = true
		s.plan.Clients[i].Flows = 0 // nobody waits for anything
	}
	for i := range s.plan.Senders {
		s.plan.Senders[i].Fan = 0
	}
	return c.execute(ctx, s)
}

// DurableOnline is the scenario `durable-online`.
type DurableOnline struct {
	Options
	Publishers int `help:"Publishers." default:"500"`
	Sessions   int `help:"Durable sessions; the publishers divide among them." default:"500"`
}

// Help is the scenario's page.
func (*DurableOnline) Help() string {
	return `Publishers send at QoS 1 (or --qos 2) to subscribers with durable sessions, each to one. A message counts as out until the
subscriber has it and the publisher has its acknowledgement. The sessions stay in the broker.`
}

// Run carries the scenario out.
func (c *DurableOnline) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *DurableOnline) measure(ctx context.Context) (*Result, error) {
	s := durable(&c.Options, "durable-online", "delivery", c.Publishers, c.Sessions)
	s.title = fmt.Sprintf("%d → %d durable sessions, online, QoS %d, %s", c.Publishers, c.Sessions, c.QoS, c.pressure())
	return c.execute(ctx, s)
}

// durable is publishers, each with a durable session that gets its messages. The
// sessions are the first clients of the plan.
func durable(o *Options, name, unit string, publishers, sessions int) *scenario {
	o.QoS = max(o.QoS, 1)
	s := o.build(name, unit, 1, 8)
	s.params = map[string]any{"publishers": publishers, "sessions": sessions}
	s.plan.Streams = publishers
	first := func(i int) int { return i * publishers / sessions }
	for i := range sessions {
		from, to := first(i), first(i+1)
		s.client(drive.Client{
			Subs: o.sub(fmt.Sprintf("hb/%s/kept/%d/+", s.id, i)), FlowBase: uint32(from), Flows: uint32(to - from),
			StreamBase: uint32(from), Part: i, Durable: true,
		})
	}
	for i := range sessions {
		for k := first(i); k < first(i+1); k++ {
			s.sender(o, s.client(drive.Client{Part: i}), 1, fmt.Sprintf("hb/%s/kept/%d/%d", s.id, i, k), "")
		}
	}
	return s
}
