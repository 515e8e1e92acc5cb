package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hashplus/bench/drive"
)

// lead is the time between the last connection and the first message.
const lead = 100 * time.Millisecond

// setup is what a run consists of while it goes on.
type setup struct {
	result   *Result
	gauge    *gauge
	fleet    *fleet
	progress *progress
}

// prepare starts everything that s needs but the connections. A process that
// was started by a run to carry a part of it never returns from here but with
// errServed.
func (o *Options) prepare(ctx context.Context, s *scenario) (*setup, error) {
	if err := errors.Join(o.Load.check(), s.check()); err != nil {
		return nil, err
	}
	target, err := o.target(ctx)
	if err != nil {
		return nil, err
	}
	s.plan.Target = target
	s.plan.EnsureDefaults()
	if err := s.plan.Validate(); err != nil {
		return nil, err
	}
	if p := o.part(); p != nil {
		return nil, p.serve(ctx, &s.plan)
	}
	if err := o.Output.check(); err != nil {
		return nil, err
	}
	var bare float64
	if o.Floor {
		if bare, err = floor(ctx, usualSockets, usualFrame, 1, time.Second); err != nil {
			return nil, fmt.Errorf("floor: %w", err)
		}
	}
	f, err := o.startFleet(ctx, s)
	if err != nil {
		return nil, err
	}
	g, err := newGauge(o.PID, f)
	if err != nil {
		f.close()
		return nil, err
	}
	r := o.result(s)
	r.RSSBefore, r.Floor = g.rss, bare
	return &setup{result: r, gauge: g, fleet: f, progress: startProgress(o.Quiet, s, g)}, nil
}

// close ends the run; it may be called twice.
func (u *setup) close() {
	u.progress.stop()
	u.fleet.close()
}

// finish completes the result.
func (u *setup) finish() (*Result, error) {
	out, err := u.fleet.finish()
	if err != nil {
		return nil, err
	}
	return u.complete(out)
}

// complete fills in what is known when all is done.
func (u *setup) complete(out []*drive.Outcome) (*Result, error) {
	u.progress.stop()
	r := u.result
	r.Samples, r.RSSPeak = u.progress.samples, u.gauge.peak
	if err := r.add(out); err != nil {
		return nil, err
	}
	r.Notes = r.remarks(u.fleet.processes(), u.gauge.pid != 0, quota(out))
	return r, nil
}

// execute runs s and returns what it found. If ctx ends while it measures, that
// is what it found until then.
func (o *Options) execute(ctx context.Context, s *scenario) (*Result, error) {
	u, err := o.measured(ctx, s)
	if err != nil {
		return nil, err
	}
	defer u.close()
	return u.finish()
}

// measured is a run of s whose clients are connected and that has been measured
// once. The caller closes it.
func (o *Options) measured(ctx context.Context, s *scenario) (*setup, error) {
	u, err := o.prepare(ctx, s)
	if err != nil {
		return nil, err
	}
	if err = u.fleet.connect(ctx, 0, len(s.plan.Clients)); err == nil {
		err = u.measure(ctx, o, false)
	}
	if err != nil {
		u.close()
		return nil, err
	}
	return u, nil
}

// measure publishes for the warm-up and the duration that o says, and fills in
// what happened in the duration.
func (u *setup) measure(ctx context.Context, o *Options, stall bool) error {
	f := u.fleet
	now := f.clock.Now()
	sched := drive.Schedule{Start: now + int64(lead)}
	sched.Measure = sched.Start + int64(o.Warmup)
	sched.End = sched.Measure + int64(o.Duration)
	sched.Stall = stall
	done := f.drive(ctx, sched)

	// The CPU time and the counters are read at one moment at each end, so a
	// late wake-up of this goroutine shifts both together.
	u.progress.enter("warm-up")
	u.until(ctx, sched.Measure)
	u.progress.enter("measuring")
	before := u.gauge.read()
	u.until(ctx, sched.End)
	after := u.gauge.read()
	u.result.between(before, after)
	u.result.Ended = u.endedBy(ctx, after)
	u.progress.enter("draining")
	return <-done
}

// until waits for the clock to show t, or for the end of ctx, or until there is
// nobody left to publish.
func (u *setup) until(ctx context.Context, t int64) {
	for ctx.Err() == nil && u.fleet.shared.Total(drive.Publishing) > 0 {
		left := time.Duration(t - u.fleet.clock.Now())
		if left <= 0 {
			return
		}
		sleep(ctx, min(left, 50*time.Millisecond))
	}
}

// endedBy is what kept a run from going on to its end; nothing, mostly.
func (u *setup) endedBy(ctx context.Context, after reading) string {
	switch {
	case after.gone:
		return brokerGone
	case u.fleet.shared.Total(drive.Publishing) == 0:
		return nobodyLeft
	case ctx.Err() != nil:
		return interrupted
	}
	return ""
}

// What Result.Ended says.
const (
	interrupted = "interrupted"
	nobodyLeft  = "no publisher is connected any more"
	brokerGone  = "the broker's process has ended"
)

// quota is the smallest Receive Maximum that a publisher was given, 0 without any.
func quota(outcomes []*drive.Outcome) (q int) {
	for _, o := range outcomes {
		if o.Quota > 0 && (q == 0 || o.Quota < q) {
			q = o.Quota
		}
	}
	return q
}

// result is the part of a Result that is known beforehand.
func (o *Options) result(s *scenario) *Result {
	broker := o.Label
	if broker == "" {
		broker = "broker"
	}
	return &Result{
		Scenario: s.name, Title: s.title, Unit: s.unit, Params: s.params,
		Broker: broker, URL: o.URL, Protocol: o.Protocol, Started: time.Now(), Machine: machine(),
		Load: &LoadResult{QoS: o.QoS, Payload: o.Payload, Burst: o.Burst, Window: o.Window, Rate: o.Rate},
	}
}

// between fills in what happened between two readings.
func (r *Result) between(a, b reading) {
	r.Measured = b.at.Sub(a.at).Seconds()
	r.Units = b.delivered - a.delivered
	r.Published = b.sent - a.sent
	if !b.gone {
		r.CPU = max(b.cpu-a.cpu, 0).Seconds()          // what an ended child has used is gone,
		r.Waited = max(b.waited-a.waited, 0).Seconds() // and what an ended thread has waited
	}
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
		for e, n := range o.Errors {
			r.Errors[e] += n
		}
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
