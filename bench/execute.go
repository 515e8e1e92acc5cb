package bench

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hashplus/bench/drive"
)

// lead is the time between the last connection and the first message.
const lead = 100 * time.Millisecond

// execute runs s and returns what it found.
func (o *Options) execute(ctx context.Context, s *scenario) (*Result, error) {
	target, err := o.target(ctx)
	if err != nil {
		return nil, err
	}
	s.plan.Target = target
	s.plan.EnsureDefaults()
	if err := s.plan.Validate(); err != nil {
		return nil, err
	}
	r := o.result(s)
	g, err := newGauge(o.PID)
	if err != nil {
		return nil, err
	}
	r.RSSBefore = g.rss
	p := startProgress(o.Quiet, s, g)
	defer p.stop()

	f := &fleet{plan: &s.plan, clock: drive.NewClock(), counters: g.counters}
	if err := f.start(ctx); err != nil {
		return nil, err
	}
	defer f.close()
	if err := f.connect(ctx, 0, len(s.plan.Clients)); err != nil {
		return nil, err
	}
	now := f.clock.Now()
	sched := drive.Schedule{Start: now + int64(lead)}
	sched.Measure = sched.Start + int64(o.Warmup)
	sched.End = sched.Measure + int64(o.Duration)
	done := f.drive(ctx, sched)

	// The CPU time and the counters are read at one moment at each end, so a
	// late wake-up of this goroutine shifts both together.
	sleep(ctx, time.Duration(sched.Measure-now))
	before := g.read()
	sleep(ctx, time.Duration(sched.End-f.clock.Now()))
	after := g.read()
	if err := <-done; err != nil {
		return nil, err
	}
	r.between(before, after)
	out, err := f.finish()
	if err != nil {
		return nil, err
	}
	p.stop()
	r.Samples, r.RSSPeak = p.samples, g.peak
	return r, r.add(out)
}

// result is the part of a Result that is known beforehand.
func (o *Options) result(s *scenario) *Result {
	broker := o.Label
	if broker == "" {
		broker = "broker"
	}
	delete(s.params, "run")
	return &Result{
		Scenario: s.name, Title: s.title, Unit: s.unit, Params: s.params,
		Broker: broker, URL: o.URL, Protocol: o.Protocol, Started: time.Now(),
		Load: &LoadResult{QoS: o.QoS, Payload: o.Payload, Burst: o.Burst, Window: o.Window, Rate: o.Rate},
	}
}

// between fills in what happened between two readings.
func (r *Result) between(a, b reading) {
	r.Measured = b.at.Sub(a.at).Seconds()
	r.Units = b.delivered - a.delivered
	r.Published = b.sent - a.sent
	r.CPU = (b.cpu - a.cpu).Seconds()
	r.OwnCPU = (b.own - a.own).Seconds()
	r.rates()
}

func (r *Result) rates() {
	if r.Measured > 0 {
		r.Rate = float64(r.Units) / r.Measured
	}
	if r.Units > 0 {
		r.CPUPerUnit = r.CPU * 1e6 / float64(r.Units)
	}
}

// add takes over what the clients counted.
func (r *Result) add(outcomes []*drive.Outcome) error {
	latency, connects := drive.NewHistogram(), drive.NewHistogram()
	for _, o := range outcomes {
		r.Tally.Add(&o.Tally)
		if len(o.Errors) > 0 && r.Errors == nil {
			r.Errors = map[string]int{}
		}
		maps.Copy(r.Errors, o.Errors)
		for _, h := range []struct {
			to *hdrhistogram.Histogram
			b  []byte
		}{{latency, o.Latency}, {connects, o.Connects}} {
			from, err := hdrhistogram.Decode(h.b)
			if err != nil {
				return fmt.Errorf("histogram: %w", err)
			}
			h.to.Merge(from)
		}
	}
	r.Latency, r.Connect = summarize(latency), summarize(connects)
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// fleet is the loop that carries a plan out, on a thread of its own.
type fleet struct {
	plan     *drive.Plan
	clock    drive.Clock
	counters *drive.Counters
	work     chan func(*drive.Loop)
	gone     chan struct{}
}

// start makes the loop. The connections idle between the calls below.
func (f *fleet) start(context.Context) error {
	f.work, f.gone = make(chan func(*drive.Loop)), make(chan struct{})
	made := make(chan error)
	go func() {
		defer close(f.gone)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		l, err := drive.New(f.plan, f.clock, f.counters)
		made <- err
		if err != nil {
			return
		}
		defer l.Close()
		for {
			select {
			case job, ok := <-f.work:
				if !ok {
					return
				}
				job(l)
			default:
				// A broken wait shows in the next job as well.
				_ = l.Step(20 * time.Millisecond)
			}
		}
	}()
	return <-made
}

func (f *fleet) close() {
	close(f.work)
	<-f.gone
}

// do runs job on the loop's thread.
func (f *fleet) do(job func(*drive.Loop) error) <-chan error {
	done := make(chan error, 1)
	f.work <- func(l *drive.Loop) { done <- job(l) }
	return done
}

func (f *fleet) connect(ctx context.Context, from, to int) error {
	return <-f.do(func(l *drive.Loop) error { return l.Connect(ctx, from, to) })
}

func (f *fleet) drive(ctx context.Context, s drive.Schedule) <-chan error {
	return f.do(func(l *drive.Loop) error { return l.Drive(ctx, s) })
}

func (f *fleet) finish() ([]*drive.Outcome, error) {
	var out *drive.Outcome
	err := <-f.do(func(l *drive.Loop) (err error) {
		out, err = l.Finish()
		return err
	})
	return []*drive.Outcome{out}, err
}
