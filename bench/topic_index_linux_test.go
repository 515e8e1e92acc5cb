package bench

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"hashplus/topic"
)

// matcher is a subscription index: ours, or mochi's. Only this test knows one of
// ours; everything else here sees brokers from outside.
type matcher interface {
	subscribe(client, filter string)
	// match returns how many subscriptions match name.
	match(name []byte) int
}

type ourIndex struct {
	*topic.Index[int]
	found []*topic.Node[int]
}

func (x *ourIndex) subscribe(_, filter string) { x.Add(filter) }

func (x *ourIndex) match(name []byte) int {
	x.found, _ = x.Match(x.found[:0], name)
	return len(x.found)
}

type mochiIndex struct{ *mochi.TopicsIndex }

func (x mochiIndex) subscribe(client, filter string) {
	x.Subscribe(client, packets.Subscription{Filter: filter})
}

func (x mochiIndex) match(name []byte) int { return len(x.Subscribers(string(name)).Subscriptions) }

var indexes = map[string]func() matcher{
	"hashplus": func() matcher { return &ourIndex{Index: topic.NewIndex[int](nil)} },
	"mochi":    func() matcher { return mochiIndex{mochi.NewTopicsIndex()} },
}

func deviceTopic(i int) string { return fmt.Sprintf("plant/7/device/%06d/temperature", i) }

// subscribeAll makes subscriptions to n names and, with wild, three filters that
// match all of them, each by a client of its own.
func subscribeAll(x matcher, n int, wild bool) {
	for _, i := range rand.Perm(n) {
		x.subscribe(fmt.Sprint("client", i), deviceTopic(i))
	}
	if wild {
		for _, f := range []string{"plant/+/device/#", "+/7/device/+/temperature", "plant/7/#"} {
			x.subscribe("client of "+f, f)
		}
	}
}

// Both count the same, so that what the benchmark compares is the same work.
func TestIndexes_FindTheSame(t *testing.T) {
	for name, index := range indexes {
		x := index()
		subscribeAll(x, 100, true)
		for topic, want := range map[string]int{deviceTopic(42): 4, "plant/7/device/x": 2, "plant/8/device/x": 1, "a": 0} {
			if n := x.match([]byte(topic)); n != want {
				t.Errorf("%s: %d subscriptions match %s, not %d", name, n, topic, want)
			}
		}
	}
}

// BenchmarkIndex looks up names among 1,000,000 subscriptions, 100,000 with
// -short: one name over and over, and names drawn from all.
func BenchmarkIndex(b *testing.B) {
	n := 1_000_000
	if testing.Short() {
		n = 100_000
	}
	for _, wild := range []bool{false, true} {
		for _, who := range []string{"hashplus", "mochi"} {
			kind, matches := "exact", 1
			if wild {
				kind, matches = "3wildcards", 4
			}
			x := indexes[who]()
			subscribeAll(x, n, wild)
			for _, pick := range []string{"hot", "uniform"} {
				b.Run(fmt.Sprintf("subscriptions=%d/%s/%s/index=%s", n, kind, pick, who), func(b *testing.B) {
					b.ReportAllocs()
					// Processor time of this thread: the machine may do other things as well.
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					before := threadCPU()
					// Written into one buffer, as names stand in a read buffer.
					name, digits := []byte(deviceTopic(n/3)), len("plant/7/device/")
					state := rand.Uint64()
					for b.Loop() {
						if pick == "uniform" {
							state = state*6364136223846793005 + 1442695040888963407
							for at, i := int(state>>33)%n, digits+5; i >= digits; at, i = at/10, i-1 {
								name[i] = byte('0' + at%10)
							}
						}
						if got := x.match(name); got != matches {
							b.Fatalf("%d matches", got)
						}
					}
					b.ReportMetric(float64(threadCPU()-before)/float64(b.N), "cpu-ns/op")
				})
			}
		}
	}
}
