package main

import (
	"context"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"hashplus/broker"
	"hashplus/transport/link"
)

const (
	memoryInterval = 100 * time.Millisecond

	// memoryEnough, in percent of the limit, is how far the memory in use must
	// fall until new work is taken again: between the two nothing changes, so
	// that the broker does not flutter.
	memoryEnough = 90

	// freeInterval is the time between two collections that give memory back to
	// the system while there is too little.
	freeInterval = 5 * time.Second
)

// memoryWatch compares the memory in use with the limit, away from the path of
// messages, and tells the broker.
type memoryWatch struct {
	b     *broker.Broker
	log   *slog.Logger
	limit atomic.Int64 // bytes; 0: none. Any goroutine

	// Owned by run.
	short bool
	freed time.Time
	lines link.Lines
	used  func() int64
}

func newMemoryWatch(b *broker.Broker, log *slog.Logger, limit Size) *memoryWatch {
	w := &memoryWatch{b: b, log: log, used: residentMemory()}
	w.set(limit)
	return w
}

// set changes the limit. The collector is told of it too, so that it works harder
// before work has to be refused.
func (w *memoryWatch) set(limit Size) {
	w.limit.Store(int64(limit))
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	soft := int64(math.MaxInt64)
	if limit > 0 {
		soft = int64(limit) / 100 * memoryEnough
	}
	debug.SetMemoryLimit(soft)
}

// run looks until ctx ends.
func (w *memoryWatch) run(ctx context.Context) {
	for ctx.Err() == nil {
		doze(memoryInterval)
		w.look(time.Now())
	}
}

func (w *memoryWatch) look(now time.Time) {
	used, limit := w.used(), w.limit.Load()
	was := w.short
	switch {
	case limit == 0:
		w.short = false
	case used > limit:
		w.short = true
	case used <= limit/100*memoryEnough:
		w.short = false
	}
	w.b.SetMemory(used, w.short)
	if w.short && now.Sub(w.freed) >= freeInterval {
		w.freed = now
		go debug.FreeOSMemory()
	}
	if w.short == was {
		return
	}
	if missed, ok := w.lines.Allow(now.UnixNano()); ok {
		text := "memory is short: new connections, QoS 1 and 2 messages and subscriptions are refused"
		if !w.short {
			text = "memory is not short any more"
		}
		w.log.Warn(text, "used", Size(used), "limit", Size(limit), "others", missed)
	}
}

// residentMemory returns a function that says how much memory the process uses:
// the pages that are in memory where the system tells in /proc, else what the Go
// runtime holds.
func residentMemory() func() int64 {
	page := int64(os.Getpagesize())
	resident := func() (int64, bool) {
		b, err := os.ReadFile("/proc/self/statm")
		fields := strings.Fields(string(b))
		if err != nil || len(fields) < 2 {
			return 0, false
		}
		pages, err := strconv.ParseInt(fields[1], 10, 64)
		return pages * page, err == nil
	}
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	return func() int64 {
		if n, ok := resident(); ok {
			return n
		}
		metrics.Read(samples)
		return int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
	}
}
