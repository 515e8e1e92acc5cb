package drive

import (
	"sync/atomic"
	"unsafe"
)

// Shared is what the processes of one run tell each other while it goes on. A
// run of one process has it on its heap, a larger one in mapped memory.
type Shared struct {
	Counters []Counters        // per process
	Arrived  [][]atomic.Uint64 // per process and sender: deliveries for senders of other processes
	Seq      []atomic.Uint64   // per flow: messages published; stored by the publisher's process
	Forgiven []atomic.Uint64   // per flow: nobody waits for numbers below it
}

// SharedSize is how many bytes a Shared for plan and parts processes takes.
func SharedSize(plan *Plan, parts int) int {
	return 8 * (parts*(len(Counters{})+len(plan.Senders)) + 2*len(plan.Flows))
}

// NewShared lays a Shared over mem, which holds SharedSize bytes, zero at
// first, aligned to 8. A nil mem is allocated.
func NewShared(plan *Plan, parts int, mem []byte) *Shared {
	n := SharedSize(plan, parts) / 8
	var words []atomic.Uint64
	if mem == nil {
		words = make([]atomic.Uint64, n)
	} else {
		words = unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(&mem[0])), n)
	}
	cut := func(n int) []atomic.Uint64 {
		w := words[:n:n]
		words = words[n:]
		return w
	}
	s := &Shared{Arrived: make([][]atomic.Uint64, parts)}
	head := cut(parts * len(Counters{}))
	s.Counters = unsafe.Slice((*Counters)(unsafe.Pointer(&head[0])), parts)
	for i := range s.Arrived {
		s.Arrived[i] = cut(len(plan.Senders))
	}
	s.Seq, s.Forgiven = cut(len(plan.Flows)), cut(len(plan.Flows))
	return s
}

// Total sums one counter over all processes.
func (s *Shared) Total(counter int) (n uint64) {
	for i := range s.Counters {
		n += s.Counters[i][counter].Load()
	}
	return n
}
