package drive

import (
	"math/rand/v2"
	"testing"
)

func TestStream_TellsLateFromDuplicateFromLost(t *testing.T) {
	for _, c := range []struct {
		name                 string
		arrivals             []uint64
		sent                 uint64
		late, twice, missing int
	}{
		{"all in order", []uint64{0, 1, 2, 3}, 4, 0, 0, 0},
		{"the end is lost", []uint64{0, 1}, 4, 0, 0, 2},
		{"the start is lost", []uint64{2, 3}, 4, 0, 0, 2},
		{"everything is lost", nil, 4, 0, 0, 4},
		{"two swapped", []uint64{1, 0, 2}, 3, 1, 0, 0},
		{"a gap filled from its middle", []uint64{0, 9, 5, 3, 7, 4, 6}, 10, 5, 0, 3},
		{"a duplicate at once", []uint64{0, 0, 1}, 2, 0, 1, 0},
		{"a duplicate of a late one", []uint64{1, 0, 0}, 2, 1, 1, 0},
		{"a duplicate below a gap", []uint64{0, 3, 0}, 4, 0, 1, 2},
		{"a duplicate between gaps", []uint64{0, 2, 4, 2}, 5, 0, 1, 2},
	} {
		var s stream
		lates, twice := 0, 0
		for _, seq := range c.arrivals {
			switch s.take(s.extend(uint32(seq))) {
			case late:
				lates++
			case duplicate:
				twice++
			}
		}
		if m := s.missing(c.sent); lates != c.late || twice != c.twice || int(m) != c.missing {
			t.Errorf("%s: %d late, %d duplicates, %d missing", c.name, lates, twice, m)
		}
	}
}

// TestStream_AgreesWithASet holds the gaps against the plain way: a set of all
// that came, and the highest of them.
func TestStream_AgreesWithASet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var s stream
		seen, next := map[uint64]bool{}, uint64(0)
		sent := rng.Uint64N(60) + 1
		for range rng.IntN(100) {
			seq := rng.Uint64N(sent)
			want := inOrder
			switch {
			case seen[seq]:
				want = duplicate
			case seq < next:
				want = late
			}
			if got := s.take(s.extend(uint32(seq))); got != want {
				t.Fatalf("%d after %v: %d, not %d", seq, seen, got, want)
			}
			seen[seq] = true
			next = max(next, seq+1)
		}
		if got := s.missing(sent); got != sent-uint64(len(seen)) {
			t.Fatalf("missing %d of %d with %d seen", got, sent, len(seen))
		}
	}
}

func TestStream_NumbersGoOnPastThirtyTwoBits(t *testing.T) {
	s := stream{next: 1<<32 - 2}
	for want := uint64(1<<32 - 2); want < 1<<32+3; want++ {
		if got := s.extend(uint32(want)); got != want {
			t.Fatalf("%d, not %d", got, want)
		}
		if s.take(want) != inOrder {
			t.Fatal(want)
		}
	}
	if got := s.extend(1<<32 - 1); got != 1<<32-1 {
		t.Fatalf("a late one across the border is %d", got)
	}
}
