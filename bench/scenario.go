package bench

import (
	"crypto/rand"
	"fmt"

	"hashplus/bench/codec"
	"hashplus/bench/drive"
)

// scenario is one load, ready to run.
type scenario struct {
	name   string
	title  string // in results and on plots
	unit   string // what the broker's CPU time is divided by: delivery, round trip
	plan   drive.Plan
	params map[string]any
	id     string // of the run, in topics and client ids
}

// build begins a scenario from what its command was given. burst and window are
// the scenario's own defaults.
func (o *Options) build(name, unit string, burst, window int) *scenario {
	l := &o.Load
	if l.Payload == 0 {
		l.Payload = 64
	}
	if l.Burst == 0 {
		l.Burst = burst
	}
	if l.Window == 0 {
		l.Window = max(window, l.Burst)
	}
	return &scenario{
		name: name, unit: unit,
		plan: drive.Plan{
			Payload: l.Payload, OpenRate: l.Rate, Connecting: o.Connecting, SourceSize: o.SourceSize,
			Duration: l.Duration, Warmup: l.Warmup, Stall: l.Stall, Drain: l.Drain,
		},
		params: map[string]any{}, id: o.run(),
	}
}

// run identifies one run in topics and client ids, so that it never meets what
// an earlier run left in the broker.
func (o *Options) run() string {
	if p := o.part(); p != nil {
		return p.run
	}
	return rand.Text()[:6]
}

func (s *scenario) client(c drive.Client) int {
	c.ID = fmt.Sprintf("%s-%d", s.id, len(s.plan.Clients))
	s.plan.Clients = append(s.plan.Clients, c)
	return len(s.plan.Clients) - 1
}

// sender adds a publisher of one flow on topic.
func (s *scenario) sender(o *Options, client, fan int, topic, reply string) {
	s.plan.Flows = append(s.plan.Flows, drive.Flow{Topic: topic, Reply: reply, Sender: int32(len(s.plan.Senders))})
	s.plan.Senders = append(s.plan.Senders, drive.Sender{
		Client: client, FlowBase: uint32(len(s.plan.Flows) - 1), Flows: 1,
		QoS: o.QoS, Fan: fan, Burst: o.Burst, Window: o.Window,
	})
}

func (o *Options) sub(filters ...string) []codec.Subscription {
	subs := make([]codec.Subscription, len(filters))
	for i, f := range filters {
		subs[i] = codec.Subscription{Filter: f, QoS: o.QoS}
	}
	return subs
}

// fanout is publishers → every subscriber.
func fanout(o *Options, publishers, subscribers int) *scenario {
	s := o.build("fanout", "delivery", 8, 0)
	s.title = fmt.Sprintf("fan-out %d → %d, QoS %d, %s", publishers, subscribers, o.QoS, o.pressure())
	s.params = map[string]any{"publishers": publishers, "subscribers": subscribers}
	for i := range subscribers {
		s.client(drive.Client{Subs: o.sub("hb/" + s.id + "/out/+"), Flows: uint32(publishers), StreamBase: uint32(i * publishers), Part: i})
	}
	s.plan.Streams = subscribers * publishers
	for i := range publishers {
		s.sender(o, s.client(drive.Client{Part: i}), subscribers, fmt.Sprintf("hb/%s/out/%d", s.id, i), "")
	}
	return s
}

// fanin is many publishers → few subscribers, each of which gets everything.
func fanin(o *Options, publishers, subscribers int) *scenario {
	s := o.build("fanin", "delivery", 8, 0)
	s.title = fmt.Sprintf("fan-in %d → %d, QoS %d, %s", publishers, subscribers, o.QoS, o.pressure())
	s.params = map[string]any{"publishers": publishers, "subscribers": subscribers}
	for i := range subscribers {
		s.client(drive.Client{Subs: o.sub("hb/" + s.id + "/in/+"), Flows: uint32(publishers), StreamBase: uint32(i * publishers), Part: i})
	}
	s.plan.Streams = subscribers * publishers
	for i := range publishers {
		s.sender(o, s.client(drive.Client{Part: i}), subscribers, fmt.Sprintf("hb/%s/in/%d", s.id, i), "")
	}
	return s
}

// pairs is n publishers, each with a subscriber of its own.
func pairs(o *Options, n int) *scenario {
	s := o.build("pairs", "delivery", 1, 1)
	s.title = fmt.Sprintf("pairs %d → %d, QoS %d, %s", n, n, o.QoS, o.pressure())
	s.params = map[string]any{"pairs": n}
	s.plan.Streams = n
	for i := range n {
		topic := fmt.Sprintf("hb/%s/pair/%d", s.id, i)
		s.client(drive.Client{Subs: o.sub(topic), FlowBase: uint32(i), Flows: 1, StreamBase: uint32(i), Part: i})
		s.sender(o, s.client(drive.Client{Part: i}), 1, topic, "")
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

// pressure names the load in a title.
func (l *Load) pressure() string {
	switch {
	case l.Rate > 0:
		return fmt.Sprintf("%.0f/s", l.Rate)
	case l.Burst > 1:
		return fmt.Sprintf("bursts of %d, window %d", l.Burst, l.Window)
	}
	return fmt.Sprintf("window %d", l.Window)
}
