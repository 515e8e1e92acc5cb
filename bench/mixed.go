package bench

import (
	"context"
	"fmt"
	"time"

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

// Soak is the scenario `soak`.
type Soak struct {
	Options
	Clients int           `help:"Clients, about." default:"1000"`
	Hours   time.Duration `help:"How long, in place of --duration." default:"1h" name:"for"`
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
	c.Duration = c.Hours
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
	u, err := o.prepare(ctx, s)
	if err != nil {
		return nil, err
	}
	defer u.close()
	if err := u.fleet.connect(ctx, 0, len(s.plan.Clients)); err != nil {
		return nil, err
	}
	if err := u.measure(ctx, o, false); err != nil {
		return nil, err
	}
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
