package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guard stands between pebble and the file system. It does three things, which
// docs/adr/0013 gives the reasons for.
//
//   - It sees the first error of a write, of an fsync or of a change of a name,
//     and poisons the store with it. From then on nothing more is written.
//   - pebble does not hear of it: what it would do ends the process, repeats for
//     ever, or waits for what never comes. It goes on as if all were well, on a
//     shadow in memory, until it is closed, and closes as ever. Whoever waits for a
//     commit looks at the poison once pebble has answered.
//   - It can cut off an instance that cannot be closed (sever), as a call of the
//     file system does not return: what is left of it can no longer touch a file.
//
// It also carries the policies without an fsync: to pebble the log is synced
// when the operating system has it.
type guard struct {
	vfs.FS // never written through without enter

	// Immutable after newGuard.
	sync   Sync
	shadow *vfs.MemFS // files that are made once it is poisoned, all in one directory

	// Any goroutine.
	phase    atomic.Int32  // of phase
	ops      atomic.Int64  // calls of the file system that are going on
	poisoned chan struct{} // closed with the first error
	closing  chan struct{} // closed by release
	stuck    chan struct{} // closed when a goroutine of pebble's will never go on
	dirtied  chan struct{} // a lazy file has become dirty

	damages damages // what pebble has told of, and reads have come to
	book    logBook

	// copies is the directory that Checkpoint writes to, if it does: another disk,
	// maybe, whose errors are not the store's.
	copies atomic.Pointer[string]

	mu    sync.Mutex
	err   error // why it is poisoned
	files map[*guarded]struct{}
	locks map[*guardedLock]struct{}
}

type phase int32

const (
	preparing phase = iota // pebble has not begun: errors go to who makes the calls
	opening                // pebble.Open goes on
	serving
	ending  // Close goes on
	severed // nothing passes
)

func newGuard(under vfs.FS, s Sync) *guard {
	return &guard{
		FS: under, sync: s, shadow: vfs.NewMem(),
		poisoned: make(chan struct{}), closing: make(chan struct{}),
		stuck: make(chan struct{}), dirtied: make(chan struct{}, 1),
		files: map[*guarded]struct{}{}, locks: map[*guardedLock]struct{}{},
	}
}

// poison makes err the reason why the store does nothing more. The first counts.
func (g *guard) poison(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
		close(g.poisoned)
	}
	return g.err
}

// fault is why the store is poisoned, nil if it is not.
func (g *guard) fault() error {
	select {
	case <-g.poisoned:
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.err
	default:
		return nil
	}
}

// advance begins a phase, unless a later one has begun.
func (g *guard) advance(to phase) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if phase(g.phase.Load()) < to {
		g.phase.Store(int32(to))
	}
}

// release says that Close has begun: who waits in the shadow of the first error
// goes on.
func (g *guard) release() {
	g.advance(ending)
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.closing:
	default:
		close(g.closing)
	}
}

// sever cuts off whoever still uses the guard, releases the lock of the
// directory and closes the files. It fails if calls of the file system do not
// end within d, because what they do to the files cannot be known.
func (g *guard) sever(d time.Duration) error {
	g.release()
	g.advance(severed)
	for end := time.Now().Add(d); g.ops.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%d calls of the file system have not returned in %s: %w", g.ops.Load(), d, ErrStuck)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for f := range g.files {
		_ = f.File.Close() // nothing that was promised depends on it
	}
	var errs []error
	for l := range g.locks {
		errs = append(errs, l.under.Close())
	}
	clear(g.files)
	clear(g.locks)
	return errors.Join(errs...)
}

// enter begins a call of the file system; ok is false if it must not be made.
func (g *guard) enter() (ok bool) {
	g.ops.Add(1)
	if phase(g.phase.Load()) == severed {
		g.ops.Add(-1)
		return false
	}
	return true
}

func (g *guard) exit() { g.ops.Add(-1) }

// read makes a call that changes nothing.
func (g *guard) read(call func() error) error {
	if !g.enter() {
		return errClosed
	}
	defer g.exit()
	return call()
}

// change makes a call that changes files or names; in a poisoned store it makes
// shadowed instead, which does the same where only pebble sees it.
func (g *guard) change(op, name string, call, shadowed func() error) error {
	if err := g.fault(); err != nil {
		return g.hide(name, err, shadowed)
	}
	if !g.enter() {
		return errClosed
	}
	err := call()
	g.exit()
	if err == nil || op == "remove" && errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return err // that a name is there, or has gone, is an answer
	}
	err = fmt.Errorf("cannot %s %s: %w", op, path.Base(name), err)
	if g.isCopy(name) {
		return err
	}
	return g.hide(name, g.poison(err), shadowed)
}

// hide makes shadowed in place of what cannot be done because of err.
//
// While the store serves, tables wait until it is being closed, which soon follows:
// the shadow must not grow. They must be there then: pebble writes a table that
// failed again at once, and while memory is full of what waits for it a commit
// does not end, and neither does Close.
func (g *guard) hide(name string, err error, shadowed func() error) error {
	if phase(g.phase.Load()) == preparing || g.isCopy(name) {
		return err
	}
	if isTable(name) && phase(g.phase.Load()) == serving {
		<-g.closing
	}
	return shadowed()
}

func isTable(name string) bool { return strings.HasSuffix(name, ".sst") }

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

func (g *guard) isCopy(name string) bool {
	dir := g.copies.Load()
	return dir != nil && strings.HasPrefix(name, *dir)
}

// parkForEver does not return. What the goroutine holds it keeps, so the
// instance cannot be closed, only severed.
func (g *guard) parkForEver() {
	g.markStuck()
	select {}
}

func (g *guard) markStuck() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.stuck:
	default:
		close(g.stuck)
	}
}

func (g *guard) isLog(name string) bool { return isLog(name) && !g.isCopy(name) }

// Create implements vfs.FS.
func (g *guard) Create(name string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = g.change("create", name, func() error {
		f, err = g.FS.Create(name, category)
		return g.track(&f, name, err)
	}, g.create(&f, name, category))
	return f, err
}

// create makes a file in the shadow.
func (g *guard) create(f *vfs.File, name string, category vfs.DiskWriteCategory) func() error {
	return func() (err error) {
		*f, err = g.shadow.Create(g.PathBase(name), category)
		return err
	}
}

// ReuseForWrite implements vfs.FS.
func (g *guard) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	g.book.letGo(g, from)
	err = g.change("reuse "+path.Base(from)+" as", to, func() error {
		f, err = g.FS.ReuseForWrite(from, to, category)
		return g.track(&f, to, err)
	}, g.create(&f, to, category))
	return f, err
}

// OpenReadWrite implements vfs.FS.
func (g *guard) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (f vfs.File, err error) {
	err = g.change("open", name, func() error {
		f, err = g.FS.OpenReadWrite(name, category, opts...)
		return g.track(&f, name, err)
	}, g.create(&f, name, category))
	return f, err
}

// Open implements vfs.FS.
func (g *guard) Open(name string, opts ...vfs.OpenOption) (f vfs.File, err error) {
	if g.fault() != nil {
		if f, err := g.shadow.Open(g.PathBase(name)); err == nil {
			return f, nil
		}
	}
	err = g.read(func() error {
		f, err = g.FS.Open(name, opts...)
		return g.track(&f, "", err)
	})
	if err == nil && isTable(name) {
		f = &tableFile{f, path.Base(name)}
	}
	return f, err
}

// OpenDir implements vfs.FS.
func (g *guard) OpenDir(name string) (f vfs.File, err error) {
	err = g.read(func() error {
		f, err = g.FS.OpenDir(name)
		return g.track(&f, name, err)
	})
	return f, err
}

// done is the shadow of what leaves nothing that pebble would look at.
func done() error { return nil }

// Link implements vfs.FS.
func (g *guard) Link(from, to string) error {
	return g.change("link "+path.Base(from)+" to", to, func() error { return g.FS.Link(from, to) }, done)
}

// Remove implements vfs.FS.
func (g *guard) Remove(name string) error {
	if g.isLog(name) {
		g.book.letGo(g, name)
	}
	return g.change("remove", name, func() error { return g.FS.Remove(name) }, func() error {
		_ = g.shadow.Remove(g.PathBase(name)) // it is there if it was made in the shadow
		return nil
	})
}

// RemoveAll implements vfs.FS.
func (g *guard) RemoveAll(name string) error {
	return g.change("remove", name, func() error { return g.FS.RemoveAll(name) }, done)
}

// Rename implements vfs.FS.
func (g *guard) Rename(from, to string) error {
	return g.change("rename "+path.Base(from)+" to", to, func() error { return g.FS.Rename(from, to) }, func() error {
		_ = g.shadow.Rename(g.PathBase(from), g.PathBase(to)) // as with Remove
		return nil
	})
}

// MkdirAll implements vfs.FS.
func (g *guard) MkdirAll(dir string, perm os.FileMode) error {
	if g.isCopy(dir) {
		perm = 0o700 // pebble lets everybody read a copy
	}
	return g.change("make", dir, func() error { return g.FS.MkdirAll(dir, perm) }, done)
}

// List implements vfs.FS.
func (g *guard) List(dir string) (names []string, err error) {
	err = g.read(func() error {
		names, err = g.FS.List(dir)
		return err
	})
	return names, err
}

// Stat implements vfs.FS.
func (g *guard) Stat(name string) (info vfs.FileInfo, err error) {
	if g.fault() != nil {
		if info, err := g.shadow.Stat(g.PathBase(name)); err == nil {
			return info, nil
		}
	}
	err = g.read(func() error {
		info, err = g.FS.Stat(name)
		return err
	})
	return info, err
}

// GetDiskUsage implements vfs.FS. That it fails is no reason to stop.
func (g *guard) GetDiskUsage(name string) (usage vfs.DiskUsage, err error) {
	if err = g.read(func() error {
		usage, err = g.FS.GetDiskUsage(name)
		return err
	}); err != nil {
		err = vfs.ErrUnsupported
	}
	return usage, err
}

// Unwrap implements vfs.FS.
func (g *guard) Unwrap() vfs.FS { return g.FS }

// Lock implements vfs.FS.
func (g *guard) Lock(name string) (io.Closer, error) {
	c, err := g.FS.Lock(name)
	if err != nil {
		return nil, err
	}
	l := &guardedLock{guard: g, under: c}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.locks[l] = struct{}{}
	return l, nil
}

type guardedLock struct {
	guard *guard
	under io.Closer
}

// Close implements io.Closer.
func (l *guardedLock) Close() error {
	l.guard.mu.Lock()
	_, held := l.guard.locks[l]
	delete(l.guard.locks, l)
	l.guard.mu.Unlock()
	if !held {
		return nil
	}
	return l.under.Close()
}

// logs are the files of the log that are open.
func (g *guard) logs() (files []*guarded) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for f := range g.files {
		if f.lazy {
			files = append(files, f)
		}
	}
	return files
}
