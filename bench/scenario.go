package bench

import (
	"crypto/rand"
	"errors"
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

// check finds sizes that leave nothing to measure. The parameters have the names
// of the flags that set them; these two may be zero.
func (s *scenario) check() error {
	var faults []error
	for flag, v := range s.params {
		if n, ok := v.(int); ok && n < 1 && flag != "others" && flag != "stalled" {
			faults = append(faults, fmt.Errorf("--%s is %d, must be at least 1", flag, n))
		}
	}
	return errors.Join(faults...)
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
