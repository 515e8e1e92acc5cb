package topic

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"
)

// words make few enough names that filters and names meet often.
var words = []string{"a", "b", "c", "", "$x", "long-level-name-that-is-no-tiny-string"}

func randomName(r *rand.Rand) string {
	s := words[r.IntN(len(words))]
	for range r.IntN(5) {
		s += "/" + words[r.IntN(len(words))]
	}
	if s == "" {
		return "a"
	}
	return s
}

func randomFilter(r *rand.Rand) string {
	levels := strings.Split(randomName(r), "/")
	for i := range levels {
		if r.IntN(3) == 0 {
			levels[i] = "+"
		}
	}
	if r.IntN(3) == 0 {
		levels[len(levels)-1] = "#"
	}
	return strings.Join(levels, "/")
}

// filtersOf returns what Match returned, sorted.
func filtersOf[V any](nodes []*Node[V]) []string {
	var s []string
	for _, n := range nodes {
		s = append(s, n.Filter)
	}
	slices.Sort(s)
	return s
}

// matching is what Match finds.
func matching[V any](x *Index[V], name []byte) []*Node[V] {
	nodes, _ := x.Match(nil, name)
	return nodes
}

// naive is the model of an index: the filters in use, with their counts.
type naive map[string]int

func (m naive) match(name string) []string {
	var s []string
	for f := range m {
		if Matches(f, name) {
			s = append(s, f)
		}
	}
	slices.Sort(s)
	return s
}

func TestIndex_AgreesWithMatchesUnderRandomChange(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		x, model, nodes := NewIndex[int](nil), naive{}, map[string]*Node[int]{}
		for step := range 3000 {
			f := randomFilter(r)
			switch {
			case r.IntN(3) < 2:
				n := x.Add(f)
				if old := nodes[f]; old != nil && old != n || n.Filter != f {
					t.Fatalf("Add(%q) made a second node, %q", f, n.Filter)
				}
				nodes[f] = n
				model[f]++
			case model[f] > 0:
				x.Remove(nodes[f])
				if model[f]--; model[f] == 0 {
					delete(model, f)
					delete(nodes, f)
				}
			}
			if step%10 == 0 {
				name := randomName(r)
				if got, want := filtersOf(matching(x, []byte(name))), model.match(name); !slices.Equal(got, want) {
					t.Fatalf("seed %d step %d: Match(%q) = %q, want %q", seed, step, name, got, want)
				}
			}
			if x.Len() != len(model) {
				t.Fatalf("Len %d, want %d", x.Len(), len(model))
			}
		}
		for f, uses := range model {
			for range uses {
				x.Remove(nodes[f])
			}
		}
		checkEmpty(t, x)
	}
}

// checkEmpty proves that nothing stays behind: no branch, no array.
func checkEmpty[V any](t *testing.T, x *Index[V]) {
	t.Helper()
	if x.Len() != 0 || !x.wild.root.isEmpty() {
		t.Errorf("%d nodes left, trie empty: %v", x.Len(), x.wild.root.isEmpty())
	}
	for i := range tableShards {
		if x.exact.arrays[i].Load() != nil || x.wild.named.arrays[i].Load() != nil {
			t.Errorf("shard %d keeps an array", i)
		}
	}
}

func TestIndex_GrowsAndShrinksWithoutLosingAny(t *testing.T) {
	x := NewIndex[int](nil)
	var nodes []*Node[int]
	const n = 20000
	filter := func(i int) string {
		switch i % 4 {
		case 0:
			return fmt.Sprintf("dev/%d/+", i)
		case 1:
			return fmt.Sprintf("dev/%d/#", i)
		default:
			return fmt.Sprintf("dev/%d/x", i)
		}
	}
	found := func(i int) bool { return len(matching(x, fmt.Appendf(nil, "dev/%d/x", i))) == 1 }
	for i := range n {
		nodes = append(nodes, x.Add(filter(i)))
		if j := rand.IntN(i + 1); !found(j) {
			t.Fatalf("%q is lost after %d", filter(j), i)
		}
	}
	for i := range n {
		x.Remove(nodes[i])
		if found(i) {
			t.Fatalf("%q is still there", filter(i))
		}
		if i+1 < n {
			if j := i + 1 + rand.IntN(n-i-1); !found(j) {
				t.Fatalf("%q is lost", filter(j))
			}
		}
	}
	checkEmpty(t, x)
}

func TestIndex_InitRunsOncePerNodeBeforeMatchSeesIt(t *testing.T) {
	var calls int
	x := NewIndex(func(v *int) { calls++; *v = 42 })
	for _, f := range []string{"a", "+", "a", "+"} {
		if n := x.Add(f); n.Value != 42 {
			t.Errorf("%q has %d", f, n.Value)
		}
	}
	if calls != 2 {
		t.Errorf("init ran %d times for 2 nodes", calls)
	}
}

func TestIndex_RemoveWithoutAddPanics(t *testing.T) {
	for _, f := range []string{"a", "+"} {
		x := NewIndex[int](nil)
		n := x.Add(f)
		x.Remove(n)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("second Remove of %q went unnoticed", f)
				}
			}()
			x.Remove(n)
		}()
	}
}

// A node must not keep the packet alive that its filter came in, nor a level
// the filter that made it.
func TestIndex_CopiesTheFilter(t *testing.T) {
	x := NewIndex[int](nil)
	packet := strings.Repeat("x", 100) + "a/b" + "a/+"
	for _, f := range []string{packet[100:103], packet[103:]} {
		if n := x.Add(f); n.Filter != f || unsafe.StringData(n.Filter) == unsafe.StringData(f) {
			t.Errorf("%q is a part of the argument", n.Filter)
		}
	}
}

// Each of many `+` forks must be tried once: more than fit the array of match.
func TestIndex_ForksBeyondTheStackArray(t *testing.T) {
	const depth = 100
	x := NewIndex[int](nil)
	want := 0
	for i := range depth {
		for _, last := range []string{"#", "+", "a"} {
			levels := slices.Repeat([]string{"a"}, depth)
			levels[i], levels[depth-1] = "+", last
			f := strings.Join(levels, "/")
			if x.Add(f).uses == 1 {
				want++
			}
		}
	}
	name := []byte(strings.Repeat("a/", depth-1) + "a")
	if got := filtersOf(matching(x, name)); len(got) != want || len(slices.Compact(got)) != want {
		t.Errorf("%d matches, want %d", len(got), want)
	}
}

// What a name costs is told whether or not a filter matches: filters that end
// otherwise are entered as far as they go with it.
func TestIndex_StepsAreTheLevelsEntered(t *testing.T) {
	const depth = 12
	x := NewIndex[int](nil)
	for i := range 1 << depth {
		levels := slices.Repeat([]string{"a"}, depth)
		for bit := range levels {
			if i>>bit&1 == 1 {
				levels[bit] = "+"
			}
		}
		x.Add(strings.Join(levels, "/") + "/b/+")
	}
	const all = 1<<(depth+1) - 1
	name := strings.Repeat("a/", depth)
	for _, c := range []struct {
		name            string
		steps, matching int
	}{
		{name + "c/d", all, 0},
		{name + "b/c", all + 2<<depth, 1 << depth},
		{"x/b/c", 4, 0},
		{"$x/b/c", 1, 0},
	} {
		if nodes, steps := x.Match(nil, []byte(c.name)); steps != c.steps || len(nodes) != c.matching {
			t.Errorf("%s: %d steps and %d matches, want %d and %d", c.name, steps, len(nodes), c.steps, c.matching)
		}
	}
}

// Many entries of one hash fill buckets in a row and drive counts past belief.
// Of a few such hashes one after the other the disbelieved counts make a ring:
// searches must find what is there, and end.
func TestTable_SurvivesCollisions(t *testing.T) {
	type item struct{ hash uint64 }
	tab := table[item]{hash: func(e *item) uint64 { return e.hash }}
	find := func(e *item) bool {
		var p probe[item]
		for got := p.search(&tab, e.hash); got != nil; got = p.next() {
			if got == e {
				return true
			}
		}
		return false
	}
	const n = 2000 // in 512 buckets
	var items []*item
	for range n {
		items = append(items, &item{0})
		tab.insert(items[len(items)-1])
	}
	for _, hash := range []uint64{160, 320} {
		for i, old := range items {
			e := &item{hash}
			if !find(old) {
				t.Fatalf("item %d is lost", i)
			}
			tab.remove(old)
			tab.insert(e)
			items[i] = e
			if find(old) || !find(e) {
				t.Fatalf("item %d is not replaced", i)
			}
		}
	}
	for i := range tab.arrays[0].Load().buckets {
		if tab.arrays[0].Load().buckets[i].meta.Load() < overflowOne {
			t.Fatal("no ring: this test proves less than it says")
		}
	}
	if find(&item{77}) {
		t.Error("found what was never there")
	}
	for i, e := range items {
		tab.remove(e)
		if find(e) || i+1 < n && !find(items[n-1]) {
			t.Fatalf("wrong after removing %d", i)
		}
	}
	if tab.arrays[0].Load() != nil {
		t.Error("array kept")
	}
}

// The size on which the layout's cost rests: one cache line each.
func TestLayout_OneCacheLine(t *testing.T) {
	for what, size := range map[string]uintptr{
		"bucket": unsafe.Sizeof(bucket[int]{}),
		"level":  unsafe.Sizeof(level[int]{}),
		"place":  unsafe.Sizeof(place[int]{}),
	} {
		if unsafe.Sizeof(uintptr(0)) == 8 && size != 64 {
			t.Errorf("%s has %d bytes", what, size)
		}
	}
}

func TestIndex_MatchAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	x := NewIndex[int](nil)
	for _, f := range []string{"site/1/dev/2", "site/+/dev/+", "site/#", "+/1/dev/2", "other/+", "#"} {
		x.Add(f)
	}
	name := []byte("site/1/dev/2")
	deep := []byte(strings.Repeat("a/", 200) + "a")
	x.Add(strings.Repeat("a/", 200) + "+")
	x.Add(strings.Repeat("+/", 200) + "a")
	dst := make([]*Node[int], 0, 8)
	if n := testing.AllocsPerRun(100, func() {
		dst, _ = x.Match(dst[:0], name)
		dst, _ = x.Match(dst[:0], deep)
	}); n != 0 || len(dst) != 3 {
		t.Errorf("%v allocations, %d matches", n, len(dst))
	}
}

// Readers must always see what stays, never see what is gone before they
// began, and see everything once, whatever the writers do.
func TestIndex_MatchBesideWriters(t *testing.T) {
	x := NewIndex(func(v *atomic.Int64) { v.Store(1) })
	stay := []string{"s/a/b", "s/+/b", "s/#", "+/a/b", "s/a/+"}
	for _, f := range stay {
		x.Add(f)
	}
	slices.Sort(stay)
	never := x.Add("s/a/+/#") // matches, and leaves before any reader begins
	x.Remove(never)

	var stop atomic.Bool
	var writers, readers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 2))
			var held []*Node[atomic.Int64]
			for range 4000 {
				if len(held) > 0 && r.IntN(2) == 0 {
					i := r.IntN(len(held))
					x.Remove(held[i])
					held = slices.Delete(held, i, i+1)
					continue
				}
				f := randomFilter(r)
				switch r.IntN(3) {
				case 0:
					f = fmt.Sprintf("s/a/b/%d", r.IntN(500)) // grows and shrinks shards
				case 1:
					f = fmt.Sprintf("s/%d/+", r.IntN(500))
				}
				n := x.Add(f)
				if n.Filter != f || n.Value.Load() != 1 {
					t.Errorf("Add(%q) gave %q", f, n.Filter)
				}
				// Its Add has returned, its Remove has not begun: it must be found.
				name := strings.NewReplacer("+", "z", "#", "z").Replace(f)
				if !isSystem(name) && !slices.Contains(matching(x, []byte(name)), n) {
					t.Errorf("%q is not found by its own writer", f)
				}
				held = append(held, n)
			}
			for _, n := range held {
				x.Remove(n)
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			var dst []*Node[atomic.Int64]
			for !stop.Load() {
				dst, _ = x.Match(dst[:0], []byte("s/a/b"))
				got := filtersOf(dst)
				if len(slices.Compact(slices.Clone(got))) != len(got) {
					t.Errorf("twice: %q", got)
				}
				for _, f := range got {
					if !Matches(f, "s/a/b") {
						t.Errorf("%q does not match", f)
					}
				}
				for _, f := range stay {
					if !slices.Contains(got, f) {
						t.Errorf("%q is missing from %q", f, got)
					}
				}
				if slices.Contains(dst, never) {
					t.Error("a node that had left before")
				}
				if t.Failed() {
					return
				}
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	readers.Wait()
	if got := filtersOf(matching(x, []byte("s/a/b"))); !slices.Equal(got, stay) || x.Len() != len(stay) {
		t.Errorf("after all: %q, %d nodes", got, x.Len())
	}
}

// FuzzMatch holds index and walk against the definition: filters and names are
// the lines of the two arguments. The first half of the filters leaves again.
func FuzzMatch(f *testing.F) {
	f.Add("a/+\na/#\n#\na/b", "a/b\na\n$SYS/a")
	f.Add("+/+\n+/#\n$SYS/#\n//\n+", "/\n$SYS\na//b\n//")
	f.Fuzz(func(t *testing.T, filters, names string) {
		x, tree := NewIndex[int](nil), NewRetained[int]()
		model := naive{}
		var nodes []*Node[int]
		for _, f := range strings.Split(filters, "\n") {
			if CheckFilter(f) == nil {
				nodes = append(nodes, x.Add(f))
				model[f]++
			}
		}
		for _, n := range nodes[:len(nodes)/2] {
			x.Remove(n)
			if model[n.Filter]--; model[n.Filter] == 0 {
				delete(model, n.Filter)
			}
		}
		valid := map[string]bool{}
		for _, name := range strings.Split(names, "\n") {
			if CheckName(name) != nil {
				continue
			}
			valid[name] = true
			tree.Swap([]byte(name), new(int))
			if got, want := filtersOf(matching(x, []byte(name))), model.match(name); !slices.Equal(got, want) {
				t.Errorf("Match(%q) = %q, want %q", name, got, want)
			}
		}
		for f := range model {
			want := 0
			for name := range valid {
				if Matches(f, name) {
					want++
				}
			}
			tree.Walk(f).Next(1e9, func(name string, _ *int) bool {
				if !valid[name] || !Matches(f, name) {
					t.Errorf("Walk(%q) yields %q", f, name)
				}
				want--
				return true
			})
			if want != 0 {
				t.Errorf("Walk(%q) misses %d of %q", f, want, names)
			}
		}
	})
}
