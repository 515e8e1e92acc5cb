package main

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"hashplus/broker"
)

func TestMemory_IsShortAboveTheLimitUntilATenthBelow(t *testing.T) {
	b, err := broker.New(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	used := int64(0)
	w := &memoryWatch{b: b, log: slog.New(slog.NewTextHandler(&log, nil)), used: func() int64 { return used }}
	w.limit.Store(1000)
	now := time.Now()
	for i, step := range []struct {
		used  int64
		short bool
	}{{999, false}, {1000, false}, {1001, true}, {950, true}, {901, true}, {900, false}, {1000, false}, {1001, true}} {
		used = step.used
		w.look(now)
		if st := b.Stats(); st.MemoryShort != step.short || st.MemoryUsed != step.used {
			t.Errorf("step %d, %d bytes: short is %t", i, st.MemoryUsed, st.MemoryShort)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
	w.limit.Store(0)
	if w.look(now); b.Stats().MemoryShort {
		t.Error("short without a limit")
	}
}

func TestMemory_IsMeasured(t *testing.T) {
	if n := residentMemory()(); n < 1<<20 || n > 1<<40 {
		t.Errorf("%d bytes", n)
	}
	b, err := broker.New(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOMEMLIMIT", "off") // leave the test's own alone
	w := newMemoryWatch(b, slog.New(slog.NewTextHandler(io.Discard, nil)), 0)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { w.run(ctx); close(ended) }()
	eventually(t, "a look at the memory", func() bool { return b.Stats().MemoryUsed > 0 })
	cancel()
	<-ended
}
