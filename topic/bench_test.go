package topic

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// The index of these benchmarks: a million exact filters of devices, and for
// some of them wildcards beside. Names are written into one hot buffer, as
// they stand in a loop's read buffer.
const million = 1_000_000

// digits writes n as six digits into name.
func digits(name []byte, at int, n uint32) {
	for i := at + 5; i >= at; i-- {
		name[i] = byte('0' + n%10)
		n /= 10
	}
}

const deviceAt = len("plant/7/device/")

func deviceName() []byte { return []byte("plant/7/device/000000/temperature") }

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func millionIndex(b *testing.B, wildcards ...string) *Index[[2]uint64] {
	b.Helper()
	before := heap()
	x := NewIndex[[2]uint64](nil)
	name := deviceName()
	for _, i := range rand.Perm(million) { // so that memory order is not name order
		digits(name, deviceAt, uint32(i))
		x.Add(string(name))
	}
	for _, f := range wildcards {
		x.Add(f)
	}
	b.Logf("%d bytes per filter, of which %d are the node and its filter",
		(heap()-before)/million, 56+len(name))
	return x
}

// run measures Match; pick chooses the device of each name from random bits.
// cpu-ns/op is the processor time of the threads that match, and of no other.
func run(b *testing.B, x *Index[[2]uint64], matches int, pick func(uint32) uint32) {
	b.ReportAllocs()
	var cpu atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		before := threadTime(b)
		defer func() { cpu.Add(int64(threadTime(b) - before)) }()
		name := deviceName()
		dst := make([]*Node[[2]uint64], 0, 16)
		state := rand.Uint64()
		for pb.Next() {
			state = state*6364136223846793005 + 1442695040888963407
			digits(name, deviceAt, pick(uint32(state>>33)))
			if dst, _ = x.Match(dst[:0], name); len(dst) != matches {
				b.Errorf("%d matches for %q", len(dst), name)
			}
		}
	})
	b.ReportMetric(float64(cpu.Load())/float64(b.N), "cpu-ns/op")
}

func hot(uint32) uint32       { return 424242 }
func uniform(r uint32) uint32 { return r % million }

// storm subscribes and unsubscribes in a goroutine until the function returned
// is called, which reports its pace.
func storm(b *testing.B, x *Index[[2]uint64]) (end func()) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	changes := 0
	wg.Go(func() {
		var held [1000]*Node[[2]uint64]
		for ; !stop.Load(); changes++ {
			i := changes % len(held)
			if held[i] != nil {
				x.Remove(held[i])
			}
			f := "plant/%d/device/%d/x"
			if changes%4 == 0 {
				f = "plant/%d/device/%d/+"
			}
			held[i] = x.Add(fmt.Sprintf(f, 8+changes%5, changes%300_000))
		}
		for _, n := range held {
			if n != nil {
				x.Remove(n)
			}
		}
	})
	return func() {
		stop.Store(true)
		wg.Wait()
		b.ReportMetric(float64(changes)/b.Elapsed().Seconds(), "changes/s")
	}
}

func BenchmarkMatch(b *testing.B) {
	// hot and thousand differ from uniform in nothing but cold memory.
	b.Run("exact", func(b *testing.B) {
		x := millionIndex(b)
		b.Run("hot", func(b *testing.B) { run(b, x, 1, hot) })
		b.Run("thousand", func(b *testing.B) { run(b, x, 1, func(r uint32) uint32 { return r % 1000 }) })
		b.Run("uniform", func(b *testing.B) { run(b, x, 1, uniform) })
		b.Run("storm/hot", func(b *testing.B) { end := storm(b, x); run(b, x, 1, hot); end() })
		b.Run("storm/uniform", func(b *testing.B) { end := storm(b, x); run(b, x, 1, uniform); end() })
	})
	b.Run("3wildcards", func(b *testing.B) {
		x := millionIndex(b, "plant/+/device/#", "+/7/device/+/temperature", "plant/7/#")
		b.Run("hot", func(b *testing.B) { run(b, x, 4, hot) })
		b.Run("uniform", func(b *testing.B) { run(b, x, 4, uniform) })
		b.Run("storm/uniform", func(b *testing.B) { end := storm(b, x); run(b, x, 4, uniform); end() })
	})
}

// BenchmarkMatch_Wild has a million filters with a wildcard, one per device,
// and three that all names match.
func BenchmarkMatch_Wild(b *testing.B) {
	before := heap()
	x := NewIndex[[2]uint64](nil)
	filter := []byte("plant/7/device/000000/+")
	for _, i := range rand.Perm(million) {
		digits(filter, deviceAt, uint32(i))
		x.Add(string(filter))
	}
	b.Logf("%d bytes per filter", (heap()-before)/million)
	b.Run("hot", func(b *testing.B) { run(b, x, 1, hot) })
	b.Run("uniform", func(b *testing.B) { run(b, x, 1, uniform) })
	for _, f := range []string{"plant/+/device/#", "+/7/device/+/temperature", "plant/7/#"} {
		x.Add(f)
	}
	b.Run("uniform/3more", func(b *testing.B) { run(b, x, 4, uniform) })
}

// BenchmarkAdd is the price of a new filter.
func BenchmarkAdd(b *testing.B) {
	for _, f := range []string{"plant/7/device/%d/temperature", "plant/7/device/%d/+"} {
		b.Run(f[len(f)-1:], func(b *testing.B) {
			x := NewIndex[int](nil)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				x.Add(fmt.Sprintf(f, i))
			}
		})
	}
}

// BenchmarkTable_Grow is the longest that an Add waits among a million: for one
// shard to double.
func BenchmarkTable_Grow(b *testing.B) {
	x := millionIndex(b)
	for i := uint64(0); b.Loop(); i++ {
		s := i % tableShards
		x.exact.resize(s, 2*x.exact.counts[s])
	}
}

func BenchmarkRetained(b *testing.B) {
	const n = 100_000
	before := heap()
	tree := NewRetained[int]()
	name, v := deviceName(), new(int)
	for i := range uint32(n) {
		digits(name, deviceAt, i)
		tree.Swap(name, v)
	}
	b.Logf("%d bytes per name of %d bytes", (heap()-before)/n, len(name))
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for i := uint32(0); b.Loop(); i++ {
			digits(name, deviceAt, i*7919%n)
			if tree.Get(name) == nil {
				b.Fatal("lost")
			}
		}
	})
	b.Run("swap", func(b *testing.B) {
		b.ReportAllocs()
		for i := uint32(0); b.Loop(); i++ {
			digits(name, deviceAt, i*7919%n)
			tree.Swap(name, v)
		}
	})
	for _, filter := range []string{"#", "plant/7/device/+/temperature", "plant/7/device/000777/#", "plant/7/device/000777/temperature"} {
		b.Run("walk/"+filter, func(b *testing.B) {
			names := 0
			for b.Loop() {
				c := tree.Walk(filter)
				for !c.Next(1000, func(string, *int) bool { names++; return true }) {
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(names), "ns/name")
		})
	}
}
