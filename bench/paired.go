package bench

import (
	"fmt"
	"io"
	"math"
	"slices"
)

// paired compares two brokers run by run: what b's figure is as a multiple of
// a's in the same round, over all rounds. Runs of one round see the same
// machine, so the median of their ratios says more than the ratio of two
// medians. ok is false unless both have the same number of runs, and the metric.
func paired(a, b []Result, metric func(*Result) float64) (s spreadOf, ok bool) {
	if len(a) != len(b) {
		return s, false
	}
	var ratios []float64
	for i := range a {
		if x := metric(&b[i]) / metric(&a[i]); !math.IsNaN(x) {
			ratios = append(ratios, x)
		}
	}
	if len(ratios) == 0 {
		return s, false
	}
	slices.Sort(ratios)
	n := len(ratios)
	return spreadOf{median: (ratios[(n-1)/2] + ratios[n/2]) / 2, min: ratios[0], max: ratios[n-1]}, true
}

// printPaired says how the other peers compare with the first in one case.
func (c *Case) printPaired(w io.Writer, peers []*peer) {
	for _, p := range peers[1:] {
		for _, m := range []struct {
			name string
			of   func(*Result) float64
		}{{"CPU per " + c.Unit, cpuOf}, {"rate", rateOf}} {
			first, other := c.Runs[peers[0].name], c.Runs[p.name]
			if s, ok := paired(first, other, m.of); ok && len(first) > 1 {
				fmt.Fprintf(w, "%-14s %s of %s in multiples of %s's: %.3f (%.3f to %.3f), %d pairs\n",
					c.Name, m.name, p.name, peers[0].name, s.median, s.min, s.max, len(first))
			}
		}
	}
}
