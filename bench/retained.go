package bench

import (
	"context"
	"fmt"
	"time"

	"hashplus/bench/drive"
)

// Retained is the scenario `retained`.
type Retained struct {
	Options
	Names  int  `help:"Retained messages." default:"100000"`
	Repeat int  `help:"Subscribers that get them all, one after the other." default:"5"`
	Keep   bool `help:"Leave the messages in the broker at the end."`
}

// Help is the scenario's page.
func (*Retained) Help() string {
	return `Stores the messages at QoS 1, each on a name of its own, then subscribes one client after the other to # below them and counts what
is replayed. CPU time is per replayed message; latency counts from the SUBSCRIBE, so its maximum is the time to replay everything.
The duration and warm-up do not apply.`
}

// storers is how many clients store the messages.
const storers = 10

// Run carries the scenario out.
func (c *Retained) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Retained) scenario() *scenario {
	o := &c.Options
	s := o.build("retained", "delivery", 8, 64)
	s.title = fmt.Sprintf("retained, %d replayed, QoS %d", c.Names, o.QoS)
	s.params = map[string]any{"names": c.Names, "repeat": c.Repeat}
	s.plan.Retain = true
	s.plan.Stall = max(o.Stall, 20*time.Second)
	for i := range c.Repeat {
		s.client(drive.Client{Flows: uint32(c.Names), StreamBase: uint32(i * c.Names)})
	}
	s.plan.Streams = c.Repeat * c.Names
	n := min(storers, c.Names)
	for i := range n {
		first, next := i*c.Names/n, (i+1)*c.Names/n
		for f := first; f < next; f++ {
			s.plan.Flows = append(s.plan.Flows, drive.Flow{Topic: fmt.Sprintf("hb/%s/r/%d/%d", s.id, f%1000, f), Sender: int32(i)})
		}
		s.plan.Senders = append(s.plan.Senders, drive.Sender{
			Client: s.client(drive.Client{}), FlowBase: uint32(first), Flows: uint32(next - first),
			QoS: 1, Burst: o.Burst, Window: o.Window, Once: true,
		})
	}
	return s
}

func (c *Retained) measure(ctx context.Context) (*Result, error) {
	s := c.scenario()
	u, err := c.prepare(ctx, s)
	if err != nil {
		return nil, err
	}
	defer u.close()
	w, err := u.fleet.only()
	if err != nil {
		return nil, err
	}
	if err := w.connect(ctx, 0, len(s.plan.Clients)); err != nil {
		return nil, err
	}
	now := u.fleet.clock.Now()
	u.progress.enter("storing")
	if err := w.drive(ctx, drive.Schedule{Start: now, Measure: now, End: now + int64(10*time.Minute)}); err != nil {
		return nil, err
	}
	u.progress.enter("replaying")
	before := u.gauge.read()
	for i := range c.Repeat {
		err := w.do(func(l *drive.Loop) error {
			return l.Replay(ctx, i, c.sub("hb/"+s.id+"/r/#"))
		})
		if err != nil {
			return nil, err
		}
	}
	u.result.between(before, u.gauge.read())
	out, err := w.finish()
	if err != nil {
		return nil, err
	}
	if !c.Keep {
		// After an interruption too.
		u.progress.enter("clearing")
		if err := w.do(func(l *drive.Loop) error { return l.Clear(context.WithoutCancel(ctx)) }); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // what was not replayed would count as lost
	}
	return u.complete([]*drive.Outcome{out})
}
