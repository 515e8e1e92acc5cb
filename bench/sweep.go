package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sweep is one scenario at sizes that grow, to see what the cost of a unit does.
type Sweep struct {
	Name  string                  `json:"name"`
	Title string                  `json:"title"`
	X     string                  `json:"x"` // what grows
	Lines map[string][]SweepPoint `json:"lines"`
	Bare  []SweepPoint            `json:"bare_write,omitempty"` // without a broker: what the kernel takes at that size
}

// SweepPoint is the broker's CPU time per unit at one size, in µs, once per round.
type SweepPoint struct {
	X   int       `json:"x"`
	CPU []float64 `json:"broker_cpu_us_per_unit"`
}

// sweepCase is a sweep to run. The last of its arguments gets the size appended.
type sweepCase struct {
	name, title, x string
	args           []string
	sizes          []int
	each           time.Duration // what a run takes beside its warm-up and duration
	bare           int           // messages per write of the bare write to as many sockets; 0 is none
}

func sweepCases() []sweepCase {
	return []sweepCase{
		{
			"sweep-subscribers", "Broker CPU per delivery, µs: fan-out in bursts of 8", "subscribers",
			[]string{"fanout", "--burst=8", "--subscribers="}, []int{10, 100, 1000, 3000, 10000}, 1200 * time.Millisecond, 8,
		}, {
			"sweep-single", "Broker CPU per delivery, µs: fan-out, one message at a time", "subscribers",
			[]string{"fanout", "--burst=1", "--subscribers="}, []int{10, 100, 1000, 10000}, 1500 * time.Millisecond, 1,
		}, {
			"sweep-filters", "Broker CPU per delivery, µs: 100 pairs, window 16, beside filters of others", "filters that do not match",
			[]string{"pairs", "--pairs=100", "--window=16", "--others="}, []int{100, 10000, 1000000}, 5 * time.Second, 0,
		},
	}
}

// Each point of a sweep is measured for less time than a case: there are many.
const (
	sweepWarmup   = 300 * time.Millisecond
	sweepDuration = time.Second
	sweepBare     = 500 * time.Millisecond // for the bare write at each size
	sweepLimit    = 45 * time.Second       // until a broker counts as unable to
)

// sweep runs one sweep with every peer and adds it to s. A peer that fails at one
// size is not tried at the next ones.
func (c *Peers) sweep(ctx context.Context, s *Suite, sc sweepCase, peers []*peer, p *pace) error {
	s.Sweeps = append(s.Sweeps, Sweep{Name: sc.name, Title: sc.title, X: sc.x, Lines: map[string][]SweepPoint{}})
	this := &s.Sweeps[len(s.Sweeps)-1]
	into := this.Lines
	gone := map[string]bool{}
	last := len(sc.args) - 1
	for _, size := range sc.sizes {
		if sc.bare > 0 {
			if err := this.bareWrite(ctx, size, sc.bare); err != nil {
				fmt.Fprintf(os.Stderr, "%s %d: bare write: %v\n", sc.name, size, err)
			}
			p.done(sweepBare)
		}
		args := append(slices.Clone(sc.args[:last]), sc.args[last]+strconv.Itoa(size),
			"--warmup="+sweepWarmup.String(), "--duration="+sweepDuration.String())
		for range c.SweepRounds {
			for _, peer := range peers {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				p.done(sc.each + sweepWarmup + sweepDuration)
				if gone[peer.name] {
					continue
				}
				r, err := c.limited(ctx, args, peer)
				if err == nil && r.CPUPerUnit == 0 {
					err = errors.New("nothing was delivered")
				}
				if err != nil {
					fmt.Fprintf(os.Stderr, "%s %d: %s: %v\n", sc.name, size, peer.name, err)
					gone[peer.name] = true
					continue
				}
				line := into[peer.name]
				if n := len(line); n == 0 || line[n-1].X != size {
					line = append(line, SweepPoint{X: size})
				}
				at := &line[len(line)-1]
				at.CPU = append(at.CPU, r.CPUPerUnit)
				into[peer.name] = line
				fmt.Printf("%-17s %8d  %-12s %8.2f µs CPU per %s%s\n", sc.name, size, peer.name, r.CPUPerUnit, r.Unit, p.left())
			}
		}
	}
	return nil
}

// bareWrite measures what the kernel alone takes for messages to that many
// sockets. Both ends are in one process here, which may hold a few too few.
func (w *Sweep) bareWrite(ctx context.Context, size, batch int) error {
	sockets := min(size, descriptors()/2)
	if sockets < size*9/10 {
		return fmt.Errorf("%d sockets are all that one process can connect to itself", sockets)
	}
	cpu, err := floor(ctx, sockets, usualFrame, batch, sweepBare)
	if err != nil {
		return err
	}
	w.Bare = append(w.Bare, SweepPoint{X: size, CPU: []float64{cpu}})
	fmt.Printf("%-17s %8d  %-12s %8.2f µs CPU per message\n", w.Name, size, bareName, cpu)
	return nil
}

// bareName is what the bare write is called beside the brokers.
const bareName = "bare write"

// limited is one with an end: a broker may be unable to carry a size at all.
func (c *Peers) limited(ctx context.Context, args []string, p *peer) (*Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, sweepLimit, fmt.Errorf("not done after %v", sweepLimit))
	defer cancel()
	r, err := c.one(ctx, args, p)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return r, err
}

// sweeps writes the tables of all sweeps.
func (s *Suite) sweeps(b *strings.Builder, plots map[string]string) {
	for _, w := range s.Sweeps {
		sizes := map[int]bool{}
		for _, line := range w.Lines {
			for _, p := range line {
				sizes[p.X] = true
			}
		}
		columns, lines := w.columns(s.Peers)
		fmt.Fprintf(b, "\n## %s\n\n| %s | %s |\n|---:%s|\n", w.Title, w.X, strings.Join(columns, " | "), strings.Repeat("|---:", len(columns)))
		for _, x := range sortedKeys(sizes) {
			fmt.Fprintf(b, "| %d", x)
			for _, line := range lines {
				i := slices.IndexFunc(line, func(p SweepPoint) bool { return p.X == x })
				if i < 0 || spreadOver(line[i].CPU).median == 0 {
					b.WriteString(" | –")
					continue
				}
				v := spreadOver(line[i].CPU)
				fmt.Fprintf(b, " | %.2f", v.median)
				if v.max > v.min {
					fmt.Fprintf(b, " (%.2f–%.2f)", v.min, v.max)
				}
			}
			b.WriteString(" |\n")
		}
		if len(w.Bare) > 0 {
			b.WriteString("\nThe bare write has no broker: it is what the kernel takes to give a message to each of that many sockets in turn.\n")
		}
		image(b, plots, w.Name+".svg", w.Title)
	}
}

// columns are the peers' lines, and that of the bare write if there is one.
func (w *Sweep) columns(peers []string) (names []string, lines [][]SweepPoint) {
	for _, peer := range peers {
		names, lines = append(names, peer), append(lines, w.Lines[peer])
	}
	if len(w.Bare) > 0 {
		names, lines = append(names, bareName), append(lines, w.Bare)
	}
	return names, lines
}

func sortedKeys(m map[int]bool) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// chart shows the sweep. Cost that is proportional to the work is a level line.
func (w *Sweep) chart(peers []string) lineChart {
	chart := lineChart{title: w.Title, x: w.X, logX: true, logY: true}
	names, lines := w.columns(peers)
	for i, points := range lines {
		line := chartLine{name: names[i], color: i}
		if names[i] == bareName {
			line.color = grey
		}
		for _, p := range points {
			if v := spreadOver(p.CPU).median; v > 0 {
				line.points = append(line.points, [2]float64{float64(p.X), v})
			}
		}
		if len(line.points) > 1 {
			chart.lines = append(chart.lines, line)
		}
	}
	return chart
}
