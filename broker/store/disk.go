package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"hashplus/broker"
)

// Options is how a store is opened. The zero value is good.
type Options struct {
	Sync   Sync
	Logger *slog.Logger // default: slog.Default()

	// FS is the file system; default: that of the operating system. Free is the
	// space that it has left; default: what it says about the directory.
	FS   vfs.FS
	Free func() (uint64, error)

	// MustExist refuses to make a new store.
	MustExist bool
	// ReadOnly opens a store that exists, and changes nothing in it.
	ReadOnly bool

	memTable uint64 // size of pebble's, in tests
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
}

// Disk is a broker.Store in a directory.
type Disk struct {
	// Immutable after Open.
	dir   string
	opts  Options
	guard *guard
	db    *pebble.DB
	lock  *pebble.Lock // of the directory

	// Owned by who calls Apply.
	commits chan *pebble.Batch
	done    chan error // of what was sent to commits
	tend    chan struct{}
	note    chan struct{}

	closed atomic.Bool
	quit   chan struct{} // closed by Close
	idle   sync.WaitGroup
	users  atomic.Int64 // calls that go on; Close waits for them

	copying sync.Mutex // held by Checkpoint
}

// Apply implements broker.Store.
func (d *Disk) Apply(b *broker.Batch) (wait func() error, err error) {
	d.users.Add(1) // before it looks whether the store is closed
	defer d.users.Add(-1)
	if err := d.usable(); err != nil {
		return nil, err
	}
	if b.Len() == 0 {
		return d.guard.fault, nil
	}
	pb, err := d.batch(b)
	if err != nil {
		return nil, d.guard.poison(err)
	}
	select {
	case d.commits <- pb:
	case <-d.guard.poisoned:
		return nil, d.guard.fault()
	}
	select {
	case err = <-d.done:
	case <-d.guard.poisoned:
		err = d.guard.fault()
	}
	if err != nil {
		return nil, d.guard.poison(err)
	}
	return func() error {
		if err := pb.SyncWait(); err != nil {
			return d.guard.poison(err)
		}
		// What the log has is there, but a store that fails must not seem to work.
		if err := d.guard.fault(); err != nil {
			return err
		}
		return pb.Close()
	}, nil
}

// maxBatch is what a batch may hold: pebble keeps lengths in 32 bits.
const maxBatch = 1 << 30

func (d *Disk) batch(b *broker.Batch) (pb *pebble.Batch, err error) {
	if b.Size() > maxBatch {
		return nil, fmt.Errorf("a batch of %d bytes is larger than %d", b.Size(), maxBatch)
	}
	pb = d.db.NewBatchWithSize(b.Size() + 16*b.Len() + 64)
	b.Each(func(op broker.Op, key, value []byte) {
		if err != nil {
			return
		}
		switch op {
		case broker.OpSet:
			err = pb.Set(key, value, nil)
		case broker.OpDelete:
			err = pb.Delete(key, nil)
		case broker.OpDeleteRange:
			if bytes.Compare(key, value) < 0 {
				err = pb.DeleteRange(key, value, nil)
			}
		}
	})
	return pb, err
}

// commitLoop commits batches on a goroutine of its own: pebble may not come
// back from a commit when something else has failed.
func (d *Disk) commitLoop() {
	defer d.idle.Done()
	changed, flushed := false, time.Now()
	for {
		select {
		case b := <-d.commits:
			d.done <- d.commit(b)
			changed = true
		case <-d.tend:
			if changed && !d.opts.ReadOnly && time.Since(flushed) >= flushInterval {
				changed, flushed = false, time.Now()
				d.flush()
			}
		case <-d.quit:
			return
		}
	}
}

// Tend implements broker.Tender.
func (d *Disk) Tend() error {
	for _, c := range []chan struct{}{d.tend, d.note} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	return d.guard.fault()
}

// noteLoop notes what has become durable. It has a goroutine of its own, as commits
// do not wait for the fsync of the note.
func (d *Disk) noteLoop() {
	defer d.idle.Done()
	for {
		select {
		case <-d.note:
			d.guard.book.progress(d.guard)
		case <-d.quit:
			return
		}
	}
}

// flushInterval is how often what is in pebble's memory is written to tables. What
// was deleted takes up space until then, and a quiet store would never do it. It
// also keeps the log, which a start has to read, short. Tests do it more often.
var flushInterval = time.Minute

// flush begins to write a table.
func (d *Disk) flush() {
	defer func() {
		if r := recover(); r != nil {
			_ = d.guard.poison(fmt.Errorf("cannot flush: %v", r)) // the first error counts
			d.guard.markStuck()
		}
	}()
	if d.guard.fault() != nil {
		return
	}
	if _, err := d.db.AsyncFlush(); err != nil {
		_ = d.guard.poison(err) // the first error counts
	}
}

func (d *Disk) commit(b *pebble.Batch) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot commit: %v", r)
			d.guard.markStuck() // pebble does not unlock when it panics
		}
	}()
	return d.db.ApplyNoSyncWait(b, pebble.Sync)
}

// syncLoop makes the log durable at the interval of the policy.
func (d *Disk) syncLoop() {
	defer d.idle.Done()
	for {
		select {
		case <-d.guard.dirtied:
		case <-d.quit:
			return
		}
		select {
		case <-time.After(d.opts.Sync.Every):
		case <-d.quit:
			return // Close makes it durable
		}
		for _, f := range d.guard.logs() {
			_ = f.syncLazily() // an error poisons the store
		}
	}
}

// usable is why nothing can be done.
func (d *Disk) usable() error {
	fault := d.guard.fault()
	if d.closed.Load() {
		return cmp.Or(fault, errClosed)
	}
	return fault
}

// read runs f, which reads the database, unless that cannot be done.
func (d *Disk) read(f func() error) (err error) {
	d.users.Add(1) // before it looks whether the store is closed
	defer d.users.Add(-1)
	if err := d.usable(); err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(fatal); !ok {
				panic(r)
			}
			err = d.guard.fault()
		}
	}()
	if err := f(); err != nil {
		return d.explain(err)
	}
	return nil
}

// Get implements broker.Store.
func (d *Disk) Get(key []byte) (value []byte, ok bool, err error) {
	err = d.read(func() error {
		v, closer, err := d.db.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		value, ok = append([]byte{}, v...), true
		return closer.Close()
	})
	return value, ok, err
}

// Scan implements broker.Store.
func (d *Disk) Scan(from, to []byte, f func(key, value []byte) bool) error {
	if to != nil && bytes.Compare(from, to) >= 0 {
		return d.usable()
	}
	return d.read(func() error {
		it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
		if err != nil {
			return err
		}
		for ok := it.First(); ok; ok = it.Next() {
			value, err := it.ValueAndErr()
			if err != nil {
				return errors.Join(err, it.Close())
			}
			if !f(it.Key(), value) {
				break
			}
		}
		return errors.Join(it.Error(), it.Close())
	})
}

// Free implements broker.Store.
func (d *Disk) Free() (uint64, error) { return d.opts.free(d.dir) }

func (o *Options) free(dir string) (uint64, error) {
	if o.Free != nil {
		return o.Free()
	}
	usage, err := o.FS.GetDiskUsage(dir)
	return usage.AvailBytes, err
}

// checkpoint is pebble's, which panics when it cannot sync the directory.
func (d *Disk) checkpoint(dir string) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case error:
			err = r
		case fatal:
			err = d.guard.fault()
		default:
			panic(r)
		}
	}()
	return d.db.Checkpoint(dir, pebble.WithFlushedWAL())
}

// Checkpoint implements broker.Store. Tables are linked where they can be.
func (d *Disk) Checkpoint(dir string) error {
	d.copying.Lock()
	defer d.copying.Unlock()
	return d.read(func() (err error) {
		if _, err := d.guard.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot copy to %s: %w", dir, errors.Join(fs.ErrExist, err))
		}
		d.guard.copies.Store(&dir)
		defer d.guard.copies.Store(nil)
		if err = d.checkpoint(dir); err == nil {
			err = writeLogs(d.guard, dir)
		}
		if err == nil {
			err = writeVersion(d.guard, dir, Version) // last: nobody takes half a copy for one
		}
		if err != nil {
			err = errors.Join(err, d.guard.RemoveAll(dir))
		}
		return err
	})
}
