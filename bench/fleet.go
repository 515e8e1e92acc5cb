package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"hashplus/bench/drive"
)

// fleet is the processes that carry a plan out: this one, or, if the clients
// need more file descriptors than one has, several that this one started.
type fleet struct {
	clock   drive.Clock
	shared  *drive.Shared
	workers []worker
	pids    []int
	release func()
	closed  bool
}

// worker carries one part of a plan. Its calls come from one goroutine.
type worker interface {
	connect(ctx context.Context, from, to int) error
	drive(ctx context.Context, s drive.Schedule) error
	finish() (*drive.Outcome, error)
	close()
}

// startFleet makes the workers for s. The connections idle between its calls.
func (o *Options) startFleet(ctx context.Context, s *scenario) (*fleet, error) {
	parts := o.Processes
	if parts == 0 {
		parts = 1 + len(s.plan.Clients)/descriptors()
	}
	spread(&s.plan, parts)
	if parts > 1 {
		return o.startProcesses(ctx, s, parts)
	}
	f := &fleet{clock: drive.NewClock(), shared: drive.NewShared(&s.plan, 1, nil), pids: []int{os.Getpid()}, release: func() {}}
	w, err := newLocal(&s.plan, f.clock, f.shared, 0)
	if err != nil {
		return nil, err
	}
	f.workers = []worker{w}
	return f, nil
}

// spread divides the clients of plan among parts processes. Clients of one Part
// stay together.
func spread(plan *drive.Plan, parts int) {
	plan.Connecting = max(plan.Connecting/parts, 1)
	for i := range plan.Clients {
		plan.Clients[i].Part %= parts
	}
}

func (f *fleet) close() {
	if f.closed {
		return
	}
	f.closed = true
	for _, w := range f.workers {
		w.close()
	}
	f.release()
}

// each has all workers do something at once.
func (f *fleet) each(do func(worker) error) error {
	errs := make(chan error)
	for _, w := range f.workers {
		go func() { errs <- do(w) }()
	}
	var all []error
	for range f.workers {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// processes is how many carry clients.
func (f *fleet) processes() int { return len(f.workers) }

func (f *fleet) connect(ctx context.Context, from, to int) error {
	return f.each(func(w worker) error { return w.connect(ctx, from, to) })
}

func (f *fleet) drive(ctx context.Context, s drive.Schedule) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f.each(func(w worker) error { return w.drive(ctx, s) }) }()
	return done
}

// finish must follow the end of drive, as what is lost shows only when all
// processes have stopped publishing.
func (f *fleet) finish() ([]*drive.Outcome, error) {
	var out []*drive.Outcome
	for _, w := range f.workers {
		o, err := w.finish()
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// local is a worker in this process: a loop on a thread of its own.
type local struct {
	work chan func(*drive.Loop)
	gone chan struct{}
}

func newLocal(plan *drive.Plan, clock drive.Clock, shared *drive.Shared, part int) (*local, error) {
	w := &local{work: make(chan func(*drive.Loop)), gone: make(chan struct{})}
	made := make(chan error)
	go func() {
		defer close(w.gone)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		l, err := drive.New(plan, clock, shared, part)
		made <- err
		if err != nil {
			return
		}
		defer l.Close()
		w.run(l)
	}()
	return w, <-made
}

func (w *local) run(l *drive.Loop) {
	for {
		select {
		case job, ok := <-w.work:
			if !ok {
				return
			}
			job(l)
		default:
			// A wait that is broken shows in the next job as well.
			_ = l.Step(20 * time.Millisecond)
		}
	}
}

// do runs job on the loop's thread.
func (w *local) do(job func(*drive.Loop) error) error {
	done := make(chan error, 1)
	w.work <- func(l *drive.Loop) { done <- job(l) }
	return <-done
}

func (w *local) connect(ctx context.Context, from, to int) error {
	return w.do(func(l *drive.Loop) error { return l.Connect(ctx, from, to) })
}

func (w *local) drive(ctx context.Context, s drive.Schedule) error {
	return w.do(func(l *drive.Loop) error { return l.Drive(ctx, s) })
}

func (w *local) finish() (out *drive.Outcome, err error) {
	err = w.do(func(l *drive.Loop) (err error) {
		out, err = l.Finish()
		return err
	})
	return out, err
}

func (w *local) close() {
	close(w.work)
	<-w.gone
}

// only is the loop of a fleet of one process, for scenarios that need more of
// it than a worker offers.
func (f *fleet) only() (*local, error) {
	if w, ok := f.workers[0].(*local); ok {
		return w, nil
	}
	return nil, fmt.Errorf("this scenario runs in one process, and %d clients need more", len(f.workers))
}
