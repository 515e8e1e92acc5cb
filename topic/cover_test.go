package topic

import (
	"strings"
	"testing"
)

// Every pair of short filters is held to what they match, name by name.
func TestCoversAndOverlap_AgreeWithMatching(t *testing.T) {
	var names, filters []string
	var grow func(list *[]string, prefix []string, levels []string, depth int)
	grow = func(list *[]string, prefix []string, levels []string, depth int) {
		for _, l := range levels {
			f := append(prefix[:len(prefix):len(prefix)], l)
			if s := strings.Join(f, "/"); s != "" {
				*list = append(*list, s)
			}
			if depth > 1 && l != "#" {
				grow(list, f, levels, depth-1)
			}
		}
	}
	grow(&names, nil, []string{"a", "", "$", "other"}, 4)
	grow(&filters, nil, []string{"a", "", "$", "+", "#"}, 3)
	for _, f := range filters {
		for _, g := range filters {
			covers, overlap := true, false
			for _, n := range names {
				in := Matches(g, n)
				overlap = overlap || in && Matches(f, n)
				covers = covers && (!in || Matches(f, n))
			}
			if Covers(f, g) != covers {
				t.Errorf("Covers(%q, %q) is %v", f, g, !covers)
			}
			if Overlap(f, g) != overlap {
				t.Errorf("Overlap(%q, %q) is %v", f, g, !overlap)
			}
		}
	}
}
