package topic

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// collect runs a walk to its end and returns the names sorted.
func collect[V any](c *Cursor[V], budget int) []string {
	var s []string
	for !c.Next(budget, func(name string, _ *V) bool { s = append(s, name); return true }) {
	}
	slices.Sort(s)
	return s
}

func TestRetained_AgreesWithAMapUnderRandomChange(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 3))
		tree, model := NewRetained[int](), map[string]*int{}
		for step := range 3000 {
			name := randomName(r)
			var v *int
			if r.IntN(5) < 3 {
				v = new(int)
			}
			if old := tree.Swap([]byte(name), v); old != model[name] {
				t.Fatalf("Swap(%q) returned %p, want %p", name, old, model[name])
			}
			model[name] = v
			if v == nil {
				delete(model, name)
			}
			if other := randomName(r); tree.Get([]byte(other)) != model[other] {
				t.Fatalf("Get(%q) is wrong", other)
			}
			if tree.Len() != len(model) {
				t.Fatalf("Len %d, want %d", tree.Len(), len(model))
			}
			if step%20 == 0 {
				f := randomFilter(r)
				var want []string
				for name := range model {
					if Matches(f, name) {
						want = append(want, name)
					}
				}
				slices.Sort(want)
				if got := collect(tree.Walk(f), 1+r.IntN(20)); !slices.Equal(got, want) {
					t.Fatalf("seed %d: Walk(%q) = %q, want %q", seed, f, got, want)
				}
			}
		}
		for name := range model {
			tree.Swap([]byte(name), nil)
		}
		if tree.Len() != 0 || tree.root.first.Load() != nil {
			t.Error("places left in an empty tree")
		}
		for i := range tableShards {
			if tree.places.arrays[i].Load() != nil {
				t.Errorf("shard %d keeps an array", i)
			}
		}
	}
}

func TestRetained_CopiesTheName(t *testing.T) {
	tree := NewRetained[int]()
	name, v := []byte("a/b"), new(int)
	tree.Swap(name, v)
	copy(name, "x/y")
	if tree.Get([]byte("a/b")) != v || !slices.Equal(collect(tree.Walk("#"), 9), []string{"a/b"}) {
		t.Error("the tree changed with its argument")
	}
}

func TestWalk_YieldsTheCurrentValue(t *testing.T) {
	tree := NewRetained[int]()
	v1, v2 := new(int), new(int)
	tree.Swap([]byte("a"), v1)
	c := tree.Walk("#")
	tree.Swap([]byte("a"), v2)
	c.Next(10, func(_ string, v *int) bool {
		if v != v2 {
			t.Error("an old value")
		}
		return true
	})
}

func TestWalk_StopsWhenYieldSaysSoAndGoesOnAfterIt(t *testing.T) {
	tree := NewRetained[int]()
	for i := range 10 {
		tree.Swap(fmt.Appendf(nil, "a/%d", i), new(int))
	}
	c := tree.Walk("a/+")
	seen := map[string]int{}
	calls := 0
	for done := false; !done; calls++ {
		before := len(seen)
		done = c.Next(1000, func(name string, _ *int) bool { seen[name]++; return false })
		if len(seen) > before+1 {
			t.Fatal("it went on after false")
		}
	}
	if len(seen) != 10 || calls != 11 {
		t.Errorf("%d names in %d calls", len(seen), calls)
	}
	if !c.Next(1, func(string, *int) bool { t.Error("yield after the end"); return true }) {
		t.Error("an ended walk goes on")
	}
}

// Steps count levels looked at, whether they match or not, and an exact or
// prefixed filter does not look at the rest of the tree.
func TestWalk_KeepsToItsBudget(t *testing.T) {
	tree := NewRetained[int]()
	const n = 5000
	for i := range n {
		tree.Swap(fmt.Appendf(nil, "d%d/y", i), new(int))
	}
	tree.Swap([]byte("d7/x"), new(int))
	tree.Swap([]byte("p/q/1"), new(int))
	tree.Swap([]byte("p/q/2"), new(int))
	for _, w := range []struct {
		filter   string
		min, max int // calls of Next(10) until done
		names    int
	}{
		{"d7/x", 1, 1, 1}, {"nobody/x", 1, 1, 0}, {"p/q/#", 1, 1, 2}, {"p/+/2", 1, 1, 1},
		{"+/x", n / 10, 3 * n / 10, 1}, {"#", 2 * n / 10, 5 * n / 10, n + 3},
	} {
		c, calls, names := tree.Walk(w.filter), 0, 0
		for done := false; !done; calls++ {
			yields := 0
			done = c.Next(10, func(string, *int) bool { yields++; return true })
			if yields > 10 {
				t.Errorf("%q: %d names for a budget of 10", w.filter, yields)
			}
			names += yields
		}
		if calls < w.min || calls > w.max || names != w.names {
			t.Errorf("%q: %d names in %d calls", w.filter, names, calls)
		}
	}
	c, calls := tree.Walk("#"), 0
	for !c.Next(0, func(string, *int) bool { return true }) {
		if calls++; calls > 10*n {
			t.Fatal("a budget of 0 makes no step: its caller would wait for ever")
		}
	}
}

// Between every two steps of a walk the tree changes: what stays comes once,
// what comes and goes at most once.
func TestWalk_IsExactUnderChangeBetweenSteps(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 4))
		tree, model := NewRetained[int](), map[string]bool{}
		swap := func(name string, in bool) {
			var v *int
			if in {
				v = new(int)
			}
			tree.Swap([]byte(name), v)
			if model[name] = in; !in {
				delete(model, name)
			}
		}
		for range 40 {
			swap(randomName(r), true)
		}
		filter := randomFilter(r)
		if seed%3 == 0 {
			filter = "#"
		}
		stayed := maps.Clone(model)
		seen := map[string]int{}
		c := tree.Walk(filter)
		change := func() {
			for range r.IntN(6) {
				name := randomName(r)
				if r.IntN(2) == 0 && len(seen) > 0 {
					for name = range seen {
						break // one that was yielded leaves and returns
					}
					swap(name, false)
					delete(stayed, name)
				}
				swap(name, r.IntN(2) == 0)
				if !model[name] {
					delete(stayed, name)
				}
			}
		}
		for done := false; !done; {
			change()
			done = c.Next(1, func(name string, v *int) bool {
				if seen[name]++; !Matches(filter, name) || v == nil {
					t.Fatalf("Walk(%q) yields %q, %p", filter, name, v)
				}
				change()
				return r.IntN(4) > 0
			})
		}
		for name, n := range seen {
			if n > 1 {
				t.Fatalf("seed %d: Walk(%q) yields %q %d times", seed, filter, name, n)
			}
		}
		for name := range stayed {
			if Matches(filter, name) && seen[name] != 1 {
				t.Fatalf("seed %d: Walk(%q) misses %q", seed, filter, name)
			}
		}
	}
}

func TestRetained_ReadersBesideWriters(t *testing.T) {
	tree := NewRetained[string]()
	var stay []string
	for i := range 200 {
		name := fmt.Sprintf("s/%d/t", i)
		if i%3 == 0 {
			name = fmt.Sprintf("s/%d", i)
		}
		stay = append(stay, name)
		tree.Swap([]byte(name), &name)
	}
	var stop atomic.Bool
	var writers, readers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 5))
			for range 6000 {
				name := fmt.Sprintf("s/%d/%d", r.IntN(300), r.IntN(3)) // beside, below and between the others
				var v *string
				if r.IntN(2) == 0 {
					v = &name
				}
				tree.Swap([]byte(name), v)
				own := stay[w*100+r.IntN(100)]
				if old := tree.Swap([]byte(own), &own); old == nil || *old != own {
					t.Errorf("%q was lost", own)
				}
			}
		})
	}
	for _, filter := range []string{"#", "s/+/t"} {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(6, 6))
			for !stop.Load() && !t.Failed() {
				seen := map[string]int{}
				for c := tree.Walk(filter); !c.Next(1+r.IntN(50), func(name string, v *string) bool {
					if seen[name]++; *v != name {
						t.Errorf("%q has the value of %q", name, *v)
					}
					return true
				}); {
					if name := stay[r.IntN(len(stay))]; tree.Get([]byte(name)) == nil {
						t.Errorf("Get(%q) is nil", name)
					}
				}
				for name, n := range seen {
					if n != 1 {
						t.Errorf("%q came %d times", name, n)
					}
				}
				for _, name := range stay {
					if Matches(filter, name) && seen[name] != 1 {
						t.Errorf("Walk(%q) missed %q", filter, name)
					}
				}
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	readers.Wait()
}

func TestRetained_GetAndNextAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	tree := NewRetained[int]()
	for i := range 100 {
		tree.Swap(fmt.Appendf(nil, "a/%d/c", i), new(int))
	}
	name := []byte("a/7/c")
	c := tree.Walk("a/+/c")
	yield := func(string, *int) bool { return true }
	v := new(int)
	if n := testing.AllocsPerRun(50, func() {
		tree.Get(name)
		tree.Swap(name, v)
		c.Next(2, yield)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A place must not keep a name alive that is gone: the longest name leaves, a
// short one below the same levels stays.
func TestRetained_PlacesKeepNoNames(t *testing.T) {
	tree := NewRetained[int]()
	long := "a/b/" + strings.Repeat("x", 60000)
	tree.Swap([]byte(long), new(int))
	tree.Swap([]byte("a/b/c"), new(int))
	tree.Swap([]byte(long), nil)
	tree.Swap([]byte("a/b"), new(int))
	tree.Swap([]byte("a/b"), nil)
	for p := tree.root.first.Load(); p != nil; p = p.first.Load() {
		if len(p.level) != 1 || p.next.Load() != nil || (p.entry.Load() != nil) != (p.level == "c") {
			t.Errorf("place %.10q is not what one name leaves", p.level)
		}
	}
}
