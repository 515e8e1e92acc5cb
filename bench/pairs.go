package bench

import (
	"context"
	"fmt"

	"hashplus/bench/codec"
	"hashplus/bench/drive"
)

// Pairs is the scenario `pairs`.
type Pairs struct {
	Options
	Pairs  int `help:"Number of pairs." default:"500"`
	Others int `help:"Filters of other clients that match nothing of what is published." default:"0"`
}

// Run carries the scenario out.
func (c *Pairs) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Pairs) measure(ctx context.Context) (*Result, error) {
	return c.execute(ctx, pairs(&c.Options, c.Pairs, c.Others))
}

// Help is the scenario's page.
func (*Pairs) Help() string {
	return `Each publisher has one subscriber on one name. A message counts as out until the subscriber has it and, at QoS 1 and 2, the
publisher has its acknowledgement.

With --others further clients, 5,000 filters each, subscribe to names (80 %), and to filters with + (15 %) and # (5 %) beside those of the pairs:
what a message costs should not depend on them.`
}

// Request is the scenario `request`.
type Request struct {
	Options
	Pairs int `help:"Number of requesters, each with a responder of its own." default:"500"`
}

// Run carries the scenario out.
func (c *Request) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Request) measure(ctx context.Context) (*Result, error) {
	return c.execute(ctx, request(&c.Options, c.Pairs))
}

// Help is the scenario's page.
func (*Request) Help() string {
	return `A requester publishes, its responder publishes the payload back on the reply's name, and the round trip ends when the requester has
it. One round trip is two messages through the broker; CPU time and latency are per round trip.`
}

// othersPerClient is how many filters a bystander has: what brokers allow.
const othersPerClient = 5000

// pairs is n publishers, each with a subscriber of its own, and bystanders with
// that many filters that match nothing.
func pairs(o *Options, n, others int) *scenario {
	s := o.build("pairs", "delivery", 1, 1)
	s.title = fmt.Sprintf("pairs %d → %d, QoS %d, %s", n, n, o.QoS, o.pressure())
	s.params = map[string]any{"pairs": n}
	s.plan.Streams = n
	for i := range n {
		topic := fmt.Sprintf("hb/%s/pair/%d", s.id, i)
		s.client(drive.Client{Subs: o.sub(topic), FlowBase: uint32(i), Flows: 1, StreamBase: uint32(i), Part: i})
		s.sender(o, s.client(drive.Client{Part: i}), 1, topic, "")
	}
	if others > 0 {
		s.title += fmt.Sprintf(", beside %d filters", others)
		s.params["others"] = others
	}
	for first := 0; first < others; first += othersPerClient {
		subs := make([]codec.Subscription, 0, min(othersPerClient, others-first))
		for i := first; i < first+cap(subs); i++ {
			f := fmt.Sprintf("hb/%s/pair/%d/%d", s.id, i%(2*n), i)
			switch {
			case i%20 == 0:
				f += "/x/#"
			case i%20 < 4:
				f = fmt.Sprintf("hb/%s/+/%d/%d", s.id, i%(2*n), i)
			}
			subs = append(subs, codec.Subscription{Filter: f, QoS: o.QoS})
		}
		s.client(drive.Client{Subs: subs, Part: first / othersPerClient})
	}
	return s
}

// request is n requesters, each with a responder of its own.
func request(o *Options, n int) *scenario {
	s := o.build("request", "round trip", 1, 1)
	s.title = fmt.Sprintf("request/reply, pairs: %d, QoS %d, %s", n, o.QoS, o.pressure())
	s.params = map[string]any{"pairs": n}
	s.plan.Streams = 2 * n
	for i := range n {
		topic, reply := fmt.Sprintf("hb/%s/ask/%d", s.id, i), fmt.Sprintf("hb/%s/reply/%d", s.id, i)
		s.client(drive.Client{Subs: o.sub(topic), FlowBase: uint32(i), Flows: 1, StreamBase: uint32(n + i), Part: i, Echo: true})
		c := s.client(drive.Client{Subs: o.sub(reply), FlowBase: uint32(i), Flows: 1, StreamBase: uint32(i), Part: i})
		s.sender(o, c, 1, topic, reply)
	}
	return s
}
