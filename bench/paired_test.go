package bench

import "testing"

func TestPaired_IsTheMedianOfTheRatiosOfEachRound(t *testing.T) {
	runs := func(cpu ...float64) (r []Result) {
		for _, c := range cpu {
			r = append(r, Result{CPUPerUnit: c})
		}
		return r
	}
	// The machine slows down threefold on the way; the ratio stays.
	s, ok := paired(runs(1, 2, 3), runs(2, 4, 9), cpuOf)
	if !ok || s.median != 2 || s.min != 2 || s.max != 3 {
		t.Errorf("%+v %v", s, ok)
	}
	if s, ok := paired(runs(1, 1), runs(1, 3), cpuOf); !ok || s.median != 2 {
		t.Errorf("%+v %v", s, ok)
	}
	if _, ok := paired(runs(1, 2), runs(1), cpuOf); ok {
		t.Error("a run without its partner is compared")
	}
	if _, ok := paired(runs(0), runs(0), cpuOf); ok {
		t.Error("runs without a figure are compared")
	}
}
