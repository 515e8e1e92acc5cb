package store

import (
	"errors"
	"fmt"
	"path"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// track wraps the file that a call has opened; name is empty for reading.
func (g *guard) track(f *vfs.File, name string, err error) error {
	if err != nil {
		*f = nil
		return err
	}
	w := &guarded{File: *f, guard: g, name: name}
	w.log = g.isLog(name)
	w.lazy = w.log && g.sync != SyncAlways
	g.mu.Lock()
	g.files[w] = struct{}{}
	g.mu.Unlock()
	if w.log {
		g.book.opened(w)
	}
	*f = w
	return nil
}

// guarded is a file under a guard.
type guarded struct {
	vfs.File
	// Immutable after track.
	guard *guard
	name  string // empty if it is open for reading
	log   bool   // it is written from its beginning to its end
	lazy  bool   // it is a log of which an fsync is not waited for

	dirty   atomic.Bool  // lazy, and written since the last fsync
	length  atomic.Int64 // bytes that were written to a log
	durable atomic.Int64 // those of them that an fsync was made for

	mu     sync.Mutex // held during a lazy fsync
	closed bool
}

// change makes a call that changes the file.
func (f *guarded) change(op string, call func() error) error {
	return f.guard.change(op, f.name, call, f.shadowed)
}

// shadowed is what pebble hears of a change that is not made any more. A table of
// which a part is missing would be read, so it must be written anew: in the
// shadow. Of other files nobody reads what was written.
func (f *guarded) shadowed() error {
	if isTable(f.name) {
		return f.guard.fault()
	}
	return nil
}

// Write implements vfs.File.
func (f *guarded) Write(p []byte) (n int, err error) {
	err = f.change("write", func() error {
		n, err = f.File.Write(p)
		return err
	})
	if err == nil {
		n = len(p) // it may be shadowed
		f.length.Add(int64(n))
	}
	if f.lazy && err == nil && f.dirty.CompareAndSwap(false, true) {
		select {
		case f.guard.dirtied <- struct{}{}:
		default: // it is known
		}
	}
	return n, err
}

// WriteAt implements vfs.File.
func (f *guarded) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.change("write", func() error {
		n, err = f.File.WriteAt(p, off)
		return err
	})
	if err == nil {
		n = len(p)
	}
	return n, err
}

// Sync implements vfs.File.
func (f *guarded) Sync() error {
	if f.lazy {
		return nil
	}
	return f.synced(f.File.Sync)
}

// synced makes durable what was written.
func (f *guarded) synced(call func() error) error {
	length := f.length.Load()
	err := f.change("sync", call)
	if err == nil && f.guard.fault() == nil { // else it may be shadowed
		f.durable.Store(length)
	}
	return err
}

// SyncData implements vfs.File.
func (f *guarded) SyncData() error {
	if f.lazy {
		return nil
	}
	return f.synced(f.File.SyncData)
}

// SyncTo implements vfs.File.
func (f *guarded) SyncTo(length int64) (full bool, err error) {
	err = f.change("sync", func() error {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

// syncLazily makes what was written durable.
func (f *guarded) syncLazily() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || !f.dirty.Swap(false) {
		return nil
	}
	return f.synced(f.File.SyncData)
}

// Preallocate implements vfs.File. It is a hint; pebble takes no notice of errors.
func (f *guarded) Preallocate(offset, length int64) error {
	if f.guard.fault() != nil {
		return nil
	}
	return f.guard.read(func() error { return f.File.Preallocate(offset, length) })
}

// Read implements vfs.File.
func (f *guarded) Read(p []byte) (n int, err error) {
	if !f.guard.enter() {
		return 0, errClosed
	}
	defer f.guard.exit()
	return f.File.Read(p)
}

// ReadAt implements vfs.File.
func (f *guarded) ReadAt(p []byte, off int64) (n int, err error) {
	if !f.guard.enter() {
		return 0, errClosed
	}
	defer f.guard.exit()
	return f.File.ReadAt(p, off)
}

// Stat implements vfs.File.
func (f *guarded) Stat() (info vfs.FileInfo, err error) {
	err = f.guard.read(func() error {
		info, err = f.File.Stat()
		return err
	})
	return info, err
}

// Prefetch implements vfs.File.
func (f *guarded) Prefetch(offset, length int64) error {
	return f.guard.read(func() error { return f.File.Prefetch(offset, length) })
}

// Close implements vfs.File. A log whose last bytes are not durable must be so
// before the next one exists: only the last one may have a torn end.
func (f *guarded) Close() error {
	err := f.syncLazily()
	g := f.guard
	g.mu.Lock()
	_, open := g.files[f]
	delete(g.files, f)
	g.mu.Unlock()
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	if open {
		err = errors.Join(err, f.File.Close())
	}
	if f.name == "" {
		return nil // it was only read
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("cannot close %s: %w", path.Base(f.name), err)
	if !g.isCopy(f.name) {
		err = g.poison(err)
	}
	return g.hide(f.name, err, f.shadowed)
}
