package bench

import (
	"context"
	"fmt"

	"hashplus/bench/drive"
)

// Mixed is the scenario `mixed`.
type Mixed struct {
	Options
	Clients int `help:"Clients, about." default:"1000"`
}

// Help is the scenario's page.
func (*Mixed) Help() string {
	return mixture + `

Without --rate the loop is open at 5,000 messages per second.`
}

const mixture = `Of the clients 40 % publish telemetry at QoS 1, 1 % collect it by wildcard filters, 30 % listen to two broadcasters at QoS 0, and the
rest are pairs that send requests and replies at QoS 0. --qos does not apply. Each publisher sends equally often, so at 5,000 messages per
second of 1,000 clients about 3,600 are telemetry, 1,300 are requests and 18 are broadcasts that reach 300 clients each.`

// Run carries the scenario out.
func (c *Mixed) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Mixed) measure(ctx context.Context) (*Result, error) {
	return c.execute(ctx, mixed(&c.Options, "mixed", c.Clients))
}

func mixed(o *Options, name string, clients int) *scenario {
	if o.Rate == 0 {
		o.Rate = 5000
	}
	s := o.build(name, "delivery", 1, 16)
	s.title = fmt.Sprintf("%s, %d clients, %s", name, clients, o.pressure())
	s.params = map[string]any{"clients": clients}
	devices, collectors := max(clients*40/100, 1), max(clients/100, 1)
	listeners, asking := max(clients*30/100, 1), max(clients*14/100, 1)

	at := *o
	at.QoS = 1
	streams := uint32(0)
	for k := range collectors {
		base := uint32(len(s.plan.Flows))
		first, next := k*devices/collectors, (k+1)*devices/collectors
		s.client(drive.Client{
			Subs: at.sub(fmt.Sprintf("hb/%s/site/%d/+/temp", s.id, k)), FlowBase: base, Flows: uint32(next - first),
			StreamBase: streams, Part: k,
		})
		streams += uint32(next - first)
		for d := first; d < next; d++ {
			s.sender(&at, s.client(drive.Client{Part: k}), 1, fmt.Sprintf("hb/%s/site/%d/%d/temp", s.id, k, d), "")
		}
	}
	at.QoS = 0
	const broadcasters = 2
	base := uint32(len(s.plan.Flows))
	for i := range listeners {
		s.client(drive.Client{Subs: at.sub("hb/" + s.id + "/news/#"), FlowBase: base, Flows: broadcasters, StreamBase: streams, Part: i})
		streams += broadcasters
	}
	for i := range broadcasters {
		s.sender(&at, s.client(drive.Client{Part: i}), listeners, fmt.Sprintf("hb/%s/news/%d", s.id, i), "")
	}
	for i := range asking {
		topic, reply := fmt.Sprintf("hb/%s/ask/%d", s.id, i), fmt.Sprintf("hb/%s/reply/%d", s.id, i)
		flow := uint32(len(s.plan.Flows))
		s.client(drive.Client{Subs: at.sub(topic), FlowBase: flow, Flows: 1, StreamBase: streams, Part: i, Echo: true})
		c := s.client(drive.Client{Subs: at.sub(reply), FlowBase: flow, Flows: 1, StreamBase: streams + 1, Part: i})
		streams += 2
		s.sender(&at, c, 1, topic, reply)
	}
	s.plan.Streams = int(streams)
	return s
}
