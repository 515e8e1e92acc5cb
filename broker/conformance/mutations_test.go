package conformance

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// mutated is how many rules are switched off in turn by the mutate command.
const mutated = 30

// TestMutations_AreThoseOfThePick holds mutations.txt against the random
// order and the source, so that the mutate command has something to run.
func TestMutations_AreThoseOfThePick(t *testing.T) {
	t.Parallel()
	five, three, err := ReadStatements("testdata")
	if err != nil {
		t.Fatal(err)
	}
	all, err := ReadMutations("testdata")
	if err != nil {
		t.Fatal(err)
	}
	left := mutated
	for _, id := range Pick(slices.Concat(five, three)) {
		if left == 0 {
			break
		}
		i := slices.IndexFunc(all, func(m Mutation) bool { return m.ID == id })
		if i < 0 {
			t.Errorf("%s is picked and has no mutation", id)
			left--
			continue
		}
		m := all[i]
		if m.None != "" {
			continue // the next one takes its place
		}
		left--
		src, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(m.File)))
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := m.Apply(string(src)); err != nil {
			t.Error(err)
		}
		if !testName.MatchString(m.Test) {
			t.Errorf("%s: test %q", id, m.Test)
		}
	}
}
