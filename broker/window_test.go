package broker

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// naiveWindow is what window is, said plainly.
type naiveWindow struct {
	slots []naiveSlot // in order of push
	next  uint64      // the number that the next push gets
}

type naiveSlot struct {
	number uint64
	seq    uint64
	done   bool
}

func (w *naiveWindow) push(seq uint64) uint64 {
	w.slots = append(w.slots, naiveSlot{number: w.next, seq: seq})
	w.next++
	return w.next - 1
}

func (w *naiveWindow) find(id uint16) *naiveSlot {
	for i := range w.slots {
		if s := &w.slots[i]; !s.done && s.number%65535+1 == uint64(id) {
			return s
		}
	}
	return nil
}

func (w *naiveWindow) finish(s *naiveSlot) {
	s.done = true
	for len(w.slots) > 0 && w.slots[0].done {
		w.slots = w.slots[1:]
	}
}

// The window does what a plain list does, wherever its numbers stand in the
// circle of packet identifiers. No identifier stands for two deliveries.
func TestWindow_AgreesWithAPlainList(t *testing.T) { // [MQTT-2.2.1-3] [MQTT-4.6.0-1]
	var spare rings // of a loop with many sessions
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 7))
		start := []uint64{0, 65500, 131000, 1 << 40}[seed%4]
		w := window{head: start, next: start}
		m := naiveWindow{next: start}
		most := 1 + rng.IntN(300)
		var seq uint64
		for range 20_000 {
			if rng.IntN(2) == 0 && w.count < most {
				seq++
				got, want := w.push(delivery{seq: seq}, &spare), m.push(seq)
				if got != want {
					t.Fatalf("seed %d: push gave %d, want %d", seed, got, want)
				}
				w.next = got + 1
				if packetID(got) == 0 {
					t.Fatal("identifier 0")
				}
			} else {
				id := uint16(rng.IntN(65536))
				if len(m.slots) > 0 && rng.IntN(8) > 0 {
					id = packetID(m.slots[rng.IntN(len(m.slots))].number)
				}
				got, want := w.find(id), m.find(id)
				if (got == nil) != (want == nil) || got != nil && got.seq != want.seq {
					t.Fatalf("seed %d: find(%d) = %v, want %v", seed, id, got, want)
				}
				if got != nil {
					w.finish(got, &spare)
					m.finish(want)
				}
			}
			if w.count != len(m.slots) || w.tail() != m.next || w.next < w.head || w.next > w.tail() {
				t.Fatalf("seed %d: count %d, tail %d, next %d, head %d; want count %d, tail %d",
					seed, w.count, w.tail(), w.next, w.head, len(m.slots), m.next)
			}
		}
		if w.count == 0 && cap(w.ring) > 64 {
			t.Errorf("seed %d: an empty window keeps %d slots", seed, cap(w.ring))
		}
	}
}

// All identifiers but one may be in use at once, each for one delivery.
func TestWindow_HoldsAllIdentifiersButOne(t *testing.T) { // [MQTT-2.2.1-3]
	w := window{head: 40_000, next: 40_000}
	var ids [65536]bool
	for !w.full() {
		id := packetID(w.push(delivery{}, nil))
		if ids[id] {
			t.Fatalf("identifier %d is given out twice", id)
		}
		ids[id] = true
	}
	if w.count != maxSpan || ids[0] {
		t.Fatalf("%d are in use", w.count)
	}
	for id, used := range ids {
		if (w.find(uint16(id)) != nil) != used {
			t.Fatalf("find(%d) is wrong", id)
		}
	}
	for id, used := range ids { // in another order than they were given out
		if used {
			w.finish(w.find(uint16(id)), nil)
		}
	}
	if w.count != 0 || w.ring != nil {
		t.Errorf("%d are left, and %d slots", w.count, cap(w.ring))
	}
}

// A window that fills and empties over and over allocates nothing, and one that
// is idle holds nothing that another could use.
func TestWindow_FillsAndEmptiesWithoutAllocating(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	var spare rings
	var w window
	cycle := func() {
		for range 500 {
			w.push(delivery{msg: &message{}}, &spare)
		}
		for w.count > 0 {
			w.finish(w.slot(w.head), &spare)
		}
	}
	m := &message{}
	cycle()
	if w.ring != nil || spare.slots == 0 {
		t.Fatalf("%d slots are kept, %d are spare", len(w.ring), spare.slots)
	}
	for _, class := range spare.free {
		for _, ring := range class {
			for i := range ring {
				if ring[i].msg != nil {
					t.Fatal("a spare ring holds a message")
				}
			}
		}
	}
	if n := testing.AllocsPerRun(20, func() {
		for range 500 {
			w.push(delivery{msg: m}, &spare)
		}
		for w.count > 0 {
			w.finish(w.slot(w.head), &spare)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
	for range 10_000 {
		spare.put(make([]delivery, 1024))
	}
	if spare.slots > spareSlots {
		t.Errorf("%d slots are spare", spare.slots)
	}
}

// The queue does what a plain list does, and its count of bytes is exact.
func TestQueue_AgreesWithAPlainList(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 8))
		var q queue
		var m []uint64
		bytes := 0
		most := 1 + rng.IntN(500)
		for seq := range uint64(20_000) {
			msg := &message{payload: make([]byte, seq%50), static: true}
			if rng.IntN(2) == 0 && len(m) < most {
				q.push(delivery{msg: msg, seq: seq})
				m = append(m, seq)
				bytes += msg.size()
			} else if len(m) > 0 {
				d := q.pop()
				if d.seq != m[0] {
					t.Fatalf("seed %d: popped %d, want %d", seed, d.seq, m[0])
				}
				m = slices.Delete(m, 0, 1)
				bytes -= d.msg.size()
			}
			if q.count != len(m) || q.bytes != bytes {
				t.Fatalf("seed %d: %d with %d bytes, want %d with %d", seed, q.count, q.bytes, len(m), bytes)
			}
		}
	}
}
