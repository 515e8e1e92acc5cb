package link

import "testing"

func TestLines_LetsMostThroughInASpanAndCountsTheOthers(t *testing.T) {
	l := Lines{Most: 3, Span: 100}
	allowed, missed := 0, 0
	for now := int64(1000); now < 1300; now++ {
		m, ok := l.Allow(now)
		missed += m
		if ok {
			allowed++
		}
	}
	if allowed != 9 || missed != 2*97 {
		t.Errorf("%d lines, and %d are said to be left out", allowed, missed)
	}
	var one Lines
	for now := range int64(25) {
		if _, ok := one.Allow(now * 1e9); ok != (now%10 == 0) {
			t.Errorf("after %d s: %t", now, ok)
		}
	}
}
