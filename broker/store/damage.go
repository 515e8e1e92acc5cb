package store

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"hashplus/broker"
)

// damages are what was found damaged while a store is open: by reads, or in the
// background. The rest can be used. Any goroutine.
type damages struct {
	mu    sync.Mutex
	files map[string]struct{} // each is logged once
	first error
}

// found notes damage in the file at path, or, if that is "", wherever cause says.
func (d *damages) found(path string, cause error, log *slog.Logger) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if path == "" && d.first != nil {
		return // pebble has told where
	}
	if _, known := d.files[path]; known {
		return
	}
	if d.files == nil {
		d.files = map[string]struct{}{}
	}
	d.files[path] = struct{}{}
	cause = inOneLine(cause)
	if d.first == nil {
		d.first = fmt.Errorf("%w: %w", broker.ErrStoreDamaged, cause)
	}
	log.Error("stored data are damaged", "file", path, "cause", cause)
}

// Damage implements broker.Inspected.
func (d *Disk) Damage() (files int, first error) {
	d.guard.damages.mu.Lock()
	defer d.guard.damages.mu.Unlock()
	return len(d.guard.damages.files), d.guard.damages.first
}

// explain tells damage from other errors.
func (d *Disk) explain(err error) error {
	if !pebble.IsCorruptionError(err) {
		return err
	}
	d.guard.damages.found("", err, d.opts.Logger)
	return fmt.Errorf("%w: %w", broker.ErrStoreDamaged, inOneLine(err))
}

// inOneLine gives an error of pebble's a text of one line, without what it says
// twice.
func inOneLine(err error) error {
	var lines []string
	for _, l := range strings.Split(err.Error(), "\n") {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "<") && !slices.Contains(lines, l) {
			lines = append(lines, l)
		}
	}
	return oneLine{strings.Join(lines, "; "), err}
}

type oneLine struct {
	text string
	err  error
}

func (e oneLine) Error() string { return e.text }

// Unwrap is the error with all its lines.
func (e oneLine) Unwrap() error { return e.err }
