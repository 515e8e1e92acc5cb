package bench

import (
	"context"
	"fmt"

	"hashplus/bench/drive"
)

// Fanout is the scenario `fanout`.
type Fanout struct {
	Options
	Publishers  int `help:"Publishers." default:"1"`
	Subscribers int `help:"Subscribers; each gets every message." default:"1000"`
}

// Run carries the scenario out.
func (c *Fanout) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Fanout) measure(ctx context.Context) (*Result, error) {
	return c.execute(ctx, fanout(&c.Options, c.Publishers, c.Subscribers))
}

// Help is the scenario's page.
func (*Fanout) Help() string {
	return `Every message of each publisher goes to all subscribers. In the closed loop (the default) a publisher sends a burst in one write and
sends the next when the window has room again, that is when all subscribers have all messages but the window's. So --burst 8 --window 8 is
lock-step bursts of 8, and --burst 1 --window 1 is one message at a time. With --rate the loop is open.`
}

// Fanin is the scenario `fanin`.
type Fanin struct {
	Options
	Publishers  int `help:"Publishers." default:"500"`
	Subscribers int `help:"Subscribers; each gets every message." default:"1"`
}

// Run carries the scenario out.
func (c *Fanin) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Fanin) measure(ctx context.Context) (*Result, error) {
	return c.execute(ctx, fanin(&c.Options, c.Publishers, c.Subscribers))
}

// Help is the scenario's page.
func (*Fanin) Help() string {
	return `Publishers on names of their own, and a subscriber whose filter matches them all. Each publisher has its own window, so at most
publishers × window messages are on their way.`
}

// fanout is few publishers → many subscribers.
func fanout(o *Options, publishers, subscribers int) *scenario {
	return everybodyToEverybody(o, "fanout", "fan-out", publishers, subscribers)
}

// fanin is many publishers → few subscribers.
func fanin(o *Options, publishers, subscribers int) *scenario {
	return everybodyToEverybody(o, "fanin", "fan-in", publishers, subscribers)
}

// everybodyToEverybody is publishers on names of their own → subscribers each of
// which gets them all.
func everybodyToEverybody(o *Options, name, title string, publishers, subscribers int) *scenario {
	s := o.build(name, "delivery", 8, 0)
	s.title = fmt.Sprintf("%s %d → %d, QoS %d, %s", title, publishers, subscribers, o.QoS, o.pressure())
	s.params = map[string]any{"publishers": publishers, "subscribers": subscribers}
	for i := range subscribers {
		s.client(drive.Client{Subs: o.sub("hb/" + s.id + "/all/+"), Flows: uint32(publishers), StreamBase: uint32(i * publishers), Part: i})
	}
	s.plan.Streams = subscribers * publishers
	for i := range publishers {
		s.sender(o, s.client(drive.Client{Part: i}), subscribers, fmt.Sprintf("hb/%s/all/%d", s.id, i), "")
	}
	return s
}
