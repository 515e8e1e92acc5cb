package store

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	crdb "github.com/cockroachdb/errors"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

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

// verifyBlock fails if p, read at that byte of a table, is a block whose
// checksum does not hold, which pebble would find, too: but then it tries each bit of
// it, up to 40 KiB, whether it is the one that was changed. That takes a quarter of a
// second for a block of 16 KiB, half a minute for a message of 1 MiB, each time that
// it is read.
func verifyBlock(p []byte, at int64) error {
	const trailer = 1 + 4 // how it is compressed, and the checksum of all before
	end := len(p) - 4
	if len(p) < trailer {
		return nil
	}
	want, got := binary.LittleEndian.Uint32(p[end:]), chunkChecksum(p[:end])
	if want == got {
		return nil
	}
	return crdb.Mark(fmt.Errorf("block %d/%d: checksum mismatch %x != %x", at, len(p)-trailer, want, got), pebble.ErrCorruption)
}

// largeRead is from which length on what is read of a table is a block for sure, and
// its checksum is looked at before pebble does.
const largeRead = 4 << 10

// tableFile is a table that is open for reading.
type tableFile struct {
	vfs.File
	name string // for errors; empty where who reads it adds it
}

// ReadAt implements vfs.File.
func (t *tableFile) ReadAt(p []byte, at int64) (n int, err error) {
	if n, err = t.File.ReadAt(p, at); err == nil && len(p) >= largeRead {
		err = verifyBlock(p, at)
		if err != nil && t.name != "" {
			err = fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return n, err
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
