package store

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// pebbleOptions are pebble's options for what a broker stores. docs/adr/0013 has
// the measurements.
func pebbleOptions(g *guard, o *Options) *pebble.Options {
	p := &pebble.Options{
		FS:                          g,
		Logger:                      logger{o.Logger, g},
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   16 << 20,
		MemTableSize:                8 << 20,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       1000,
		LBaseMaxBytes:               16 << 20,
		MaxOpenFiles:                512,
		FlushDelayDeleteRange:       0,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		EventListener: &pebble.EventListener{
			// What is damaged stays so, and the rest can be used. Without this handler
			// pebble ends the process.
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				g.damages.found(info.Path, info.Details, o.Logger)
			},
			WALCreated: func(info pebble.WALCreateInfo) {
				if info.Err == nil {
					g.book.made(g, int(info.FileNum))
				}
			},
			BackgroundError: func(err error) {
				if !pebble.IsCorruptionError(err) {
					_ = g.poison(fmt.Errorf("in the background: %w", err)) // the first error counts
				}
			},
		},
	}
	if o.memTable != 0 {
		p.MemTableSize, p.LBaseMaxBytes = o.memTable, 4*int64(o.memTable)
	}
	p.EventListener.EnsureDefaults(p.Logger)
	for i := range p.Levels {
		p.Levels[i].BlockSize = 16 << 10
		p.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return p
}
