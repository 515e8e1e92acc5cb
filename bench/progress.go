package bench

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"hashplus/bench/drive"
)

// gauge reads a run from outside the loop: its counters, the broker's process
// and our own. Safe for use from one goroutine at a time per method call.
type gauge struct {
	pid   int
	fleet *fleet

	mu   sync.Mutex
	rss  uint64
	peak uint64
}

// reading is one look at everything.
type reading struct {
	at              time.Time
	sent, delivered uint64
	ready, failed   uint64
	connected       uint64
	stalls          uint64
	gone            bool // the broker's process has ended: what follows of it is not known
	cpu, own        time.Duration
	waited          time.Duration // by the broker, for a processor
	rss             uint64
}

// newGauge fails if the broker's process cannot be read; pid 0 is none.
func newGauge(pid int, f *fleet) (*gauge, error) {
	g := &gauge{pid: pid, fleet: f}
	if pid != 0 {
		_, rss, err := usage(pid)
		if err != nil {
			return nil, fmt.Errorf("--pid: %w", err)
		}
		g.rss, g.peak = rss, rss
	}
	return g, nil
}

// read looks now. The broker is its process and those that it started.
func (g *gauge) read() reading {
	c := g.fleet.shared
	r := reading{
		at: time.Now(), sent: c.Total(drive.Sent), delivered: c.Total(drive.Delivered), stalls: c.Total(drive.Stalls),
		ready: c.Total(drive.Ready), failed: c.Total(drive.Failed), connected: c.Total(drive.Connected),
	}
	if g.pid != 0 {
		for _, pid := range family(g.pid) {
			cpu, rss, err := usage(pid)
			r.gone = r.gone || err != nil && pid == g.pid
			r.cpu, r.rss, r.waited = r.cpu+cpu, r.rss+rss, r.waited+waited(pid)
		}
		g.mu.Lock()
		g.rss, g.peak = r.rss, max(g.peak, r.rss)
		g.mu.Unlock()
	}
	for _, pid := range g.fleet.pids {
		// One that is gone has said so on its pipe.
		cpu, _, _ := usage(pid)
		r.own += cpu
	}
	return r
}

// progress samples a run once a second and shows it.
type progress struct {
	phase   atomic.Pointer[string] // what the run is at
	samples []Sample
	seen    int // samples taken
	stride  int // of which one in stride is kept; 0 is 1
	once    sync.Once
	quit    chan struct{}
	done    chan struct{}
}

// startProgress begins to sample. To a terminal it writes one line over and
// over, to anything else a line per sample, to nothing if quiet.
func startProgress(quiet bool, s *scenario, g *gauge) *progress {
	p := &progress{quit: make(chan struct{}), done: make(chan struct{})}
	p.enter("connecting")
	var w io.Writer = os.Stderr
	if quiet {
		w = io.Discard
	}
	live := !quiet && terminal(os.Stderr)
	go p.run(w, live, s, g)
	return p
}

// enter says what the run is at from now on. Any goroutine.
func (p *progress) enter(phase string) { p.phase.Store(&phase) }

// stop ends the sampling; afterwards samples may be read. It may be called twice.
func (p *progress) stop() {
	p.once.Do(func() { close(p.quit) })
	<-p.done
}

func (p *progress) run(w io.Writer, live bool, s *scenario, g *gauge) {
	defer close(p.done)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	first := g.read()
	last := first
	for {
		select {
		case <-p.quit:
			if live {
				fmt.Fprint(w, "\r\x1b[K")
			}
			return
		case <-tick.C:
		}
		r := g.read()
		if !r.gone {
			p.keep(Sample{
				At: r.at.Sub(first.at).Seconds(), Sent: r.sent, Delivered: r.delivered, Ready: r.ready,
				CPU: (r.cpu - first.cpu).Seconds(), RSS: r.rss,
			})
		}
		line := s.line(*p.phase.Load(), last, r, first)
		if live {
			fmt.Fprintf(w, "\r\x1b[K%s", fit(line, columns(os.Stderr)))
		} else {
			fmt.Fprintln(w, line)
		}
		last = r
	}
}

// maxSamples bounds what a run of days keeps.
const maxSamples = 2000

// keep stores s. When there are too many, every other sample goes, and from
// then on only every other one is kept.
func (p *progress) keep(s Sample) {
	p.seen++
	if p.seen%max(p.stride, 1) != 0 {
		return
	}
	p.samples = append(p.samples, s)
	if len(p.samples) < maxSamples {
		return
	}
	for i := range maxSamples / 2 {
		p.samples[i] = p.samples[2*i+1]
	}
	p.samples = p.samples[:maxSamples/2]
	p.stride = 2 * max(p.stride, 1)
}

// fit cuts line to a terminal's width, 0 if it is not known: a line that goes on
// in the next row could not be written over.
func fit(line string, columns int) string {
	if r := []rune(line); columns > 0 && len(r) >= columns {
		return string(r[:columns-1])
	}
	return line
}

// line is one line of progress.
func (s *scenario) line(phase string, a, b, first reading) string {
	d := b.at.Sub(a.at).Seconds()
	text := fmt.Sprintf("%-8s %4.0fs %-10s  %d/%d clients", s.name, b.at.Sub(first.at).Seconds(), phase, b.ready, len(s.plan.Clients))
	if b.ready != a.ready && b.sent == 0 {
		text += fmt.Sprintf("  %.0f connects/s", float64(b.connected-a.connected)/d)
	}
	if b.sent > 0 {
		text += fmt.Sprintf("  %.0f sent/s  %.0f %s/s", float64(b.sent-a.sent)/d, float64(b.delivered-a.delivered)/d, plural(s.unit))
	}
	if b.failed > 0 {
		text += fmt.Sprintf("  %d failed", b.failed)
	}
	if b.stalls > 0 {
		text += fmt.Sprintf("  %d stalls", b.stalls)
	}
	if b.rss > 0 {
		text += fmt.Sprintf("  broker %.0f %% CPU, %.1f MiB", 100*(b.cpu-a.cpu).Seconds()/d, float64(b.rss)/(1<<20))
	}
	return text
}

// terminal tells whether f is a terminal: a character device that is not the
// null device.
func terminal(f *os.File) bool {
	st, err := f.Stat()
	if err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err == nil && !os.SameFile(st, null)
}
