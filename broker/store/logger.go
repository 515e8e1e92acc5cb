package store

import (
	"fmt"
	"log/slog"
)

// logger is where pebble's words go. Fatalf must not return: pebble goes on as
// if nothing had happened, and reports success for what it lost.
type logger struct {
	log   *slog.Logger
	guard *guard
}

// Infof implements pebble.Logger.
func (l logger) Infof(format string, args ...any) {
	l.log.Debug("store: " + fmt.Sprintf(format, args...))
}

// Errorf implements pebble.Logger. What matters comes back as an error, too.
func (l logger) Errorf(format string, args ...any) {
	l.log.Debug("store: " + fmt.Sprintf(format, args...))
}

// Fatalf poisons the store and never returns: the goroutine stays where it is, as
// its deferred calls panic when it is ended. Whoever waits for one of ours looks
// at the poison, too. The guard keeps errors of files from coming here.
func (l logger) Fatalf(format string, args ...any) {
	_ = l.guard.poison(fmt.Errorf(format, args...)) // the first error counts
	if isReader() {
		panic(fatal{})
	}
	l.guard.parkForEver()
}

// fatal is what a reader's goroutine is taken out of pebble with.
type fatal struct{}
