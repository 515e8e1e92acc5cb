package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"hashplus/broker"
)

// faults is a file system whose n-th change fails, and all after it until heal.
type faults struct {
	vfs.FS
	fault   error
	torn    bool          // half of what is written arrives
	only    string        // operations that are counted: those that contain it
	under   string        // and names that begin with it
	suffix  string        // and end with it
	slow    time.Duration // what it takes to fail
	left    atomic.Int64  // changes until the fault
	healthy atomic.Bool
	hit     atomic.Pointer[string] // what was first to fail
}

func newFaults(under vfs.FS, fault error, n int) *faults {
	f := &faults{FS: under, fault: fault}
	f.left.Store(int64(n))
	return f
}

func (f *faults) heal() { f.healthy.Store(true) }

// next is the error of one more change.
func (f *faults) next(op, name string) error {
	if f.healthy.Load() || !strings.Contains(op, f.only) || !strings.HasPrefix(name, f.under) || !strings.HasSuffix(name, f.suffix) || f.left.Add(-1) > 0 {
		return nil
	}
	time.Sleep(f.slow)
	what := op + " " + path.Base(name)
	f.hit.CompareAndSwap(nil, &what)
	return &fs.PathError{Op: op, Path: name, Err: f.fault}
}

func (f *faults) wrap(file vfs.File, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f, name}, nil
}

func (f *faults) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.next("create", name); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, c)
	return f.wrap(file, name, err)
}

func (f *faults) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.next("reuse", to); err != nil {
		return nil, err
	}
	file, err := f.FS.ReuseForWrite(from, to, c)
	return f.wrap(file, to, err)
}

func (f *faults) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return f.wrap(file, name, err)
}

func (f *faults) Link(from, to string) error {
	return errors.Join(f.next("link", to), f.FS.Link(from, to))
}

func (f *faults) Rename(from, to string) error {
	if err := f.next("rename", to); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

func (f *faults) Remove(name string) error {
	if err := f.next("remove", name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *faults) Unwrap() vfs.FS { return f.FS }

type faultyFile struct {
	vfs.File
	faults *faults
	name   string
}

func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.faults.next("write", f.name); err != nil {
		n := 0
		if f.faults.torn && len(p) > 1 {
			n, _ = f.File.Write(p[:len(p)/2]) // it fails in any case
		}
		return n, err
	}
	return f.File.Write(p)
}

func (f *faultyFile) Sync() error {
	if err := f.faults.next("sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultyFile) SyncData() error {
	if err := f.faults.next("sync", f.name); err != nil {
		return err
	}
	return f.File.SyncData()
}

// readOnly is a file system that cannot be written to.
type readOnly struct{ vfs.FS }

func (r readOnly) Lock(name string) (io.Closer, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EROFS}
}

func (o Options) fs() vfs.FS {
	o.EnsureDefaults()
	return o.FS
}

// history is what was asked of a store, in order, and what it promised.
type history struct {
	applied  int
	promised int // the first of them
}

// commitNumber is commit i: two keys, for atomicity, and a range that is deleted.
func commitNumber(i int) *broker.Batch {
	b := &broker.Batch{}
	value := strings.Repeat(string(rune('a'+i%26)), 1000)
	b.DeleteRange(numberKey("x", 0), numberKey("x", i))
	b.Set(numberKey("k", i), []byte(value))
	b.Set(numberKey("l", i), []byte(value))
	b.Set(numberKey("x", i), nil)
	return b
}

func numberKey(p string, i int) []byte { return fmt.Appendf(nil, "%s%06d", p, i) }

// run applies up to n commits, some of them at a time, until there is an error.
func (h *history) run(s broker.Store, n int) error {
	type pending struct {
		number int
		wait   func() error
	}
	var waiting []pending
	var failed error
	for h.applied < n && failed == nil {
		wait, err := s.Apply(commitNumber(h.applied))
		if err != nil {
			failed = err
			break
		}
		h.applied++
		waiting = append(waiting, pending{h.applied, wait})
		if len(waiting) < 3 && h.applied < n {
			continue
		}
		for _, p := range waiting {
			if err := p.wait(); err != nil {
				failed = err
			} else {
				h.promised = max(h.promised, p.number)
			}
		}
		waiting = nil
	}
	for _, p := range waiting {
		if p.wait() == nil {
			h.promised = max(h.promised, p.number)
		}
	}
	return failed
}

// holds says what of the history s has: a number of first commits. It fails the
// test if it is anything else.
func (h *history) holds(t *testing.T, s broker.Store) (n int) {
	t.Helper()
	count := func(p string) (keys []string) {
		for _, kv := range list(t, s, []byte(p), []byte(p+"~")) {
			keys = append(keys, kv[:7])
		}
		return keys
	}
	keys, twins, marks := count("k"), count("l"), count("x")
	for i, k := range keys {
		if k != string(numberKey("k", i)) {
			t.Fatalf("commit %d is missing, though a later one is there", i)
		}
	}
	if len(keys) != len(twins) {
		t.Fatalf("half a commit: %d and %d keys", len(keys), len(twins))
	}
	if n = len(keys); n > 0 && (len(marks) != 1 || marks[0] != string(numberKey("x", n-1))) {
		t.Fatalf("after %d commits: %q", n, marks)
	}
	if n > h.applied+1 { // the one that failed may be there
		t.Fatalf("%d commits of %d", n, h.applied)
	}
	return n
}

// keeps fails the test if s lacks what was promised.
func (h *history) keeps(t *testing.T, s broker.Store) {
	t.Helper()
	if n := h.holds(t, s); n < h.promised {
		t.Fatalf("%d commits are there, %d were promised", n, h.promised)
	}
}

// small makes pebble change logs, write tables and compact them soon.
var small = Options{memTable: 32 << 10, Logger: quiet}

// Whatever fails, and when: what was promised is there, nothing else is promised,
// the store closes, and on a disk that works again it opens.
func TestFault_AtEachStep(t *testing.T) {
	const commits = 120
	defer func(d time.Duration) { flushInterval = d }(flushInterval)
	flushInterval = 20 * time.Millisecond
	for _, kind := range []struct {
		name  string
		fault error
		torn  bool
		only  string
	}{
		{"no space", syscall.ENOSPC, false, ""},
		{"no space for half", syscall.ENOSPC, true, "write"},
		{"I/O error", syscall.EIO, true, ""},
		{"fsync error", syscall.EIO, false, "sync"},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			var steps, opened int
			for n := 1; ; n += faultStride(n) {
				mem := vfs.NewCrashableMem()
				f := newFaults(mem, kind.fault, n)
				f.torn, f.only = kind.torn, kind.only
				o := small
				o.FS = f
				steps = n
				if !faultAt(t, f, o, mem, commits, &opened) {
					break
				}
				if t.Failed() {
					t.Fatalf("step %d: %s", n, *f.hit.Load())
				}
			}
			t.Logf("%d steps; in %d the store was open", steps, opened)
		})
	}
}

// faultStride leaves out steps: what is done while a store is open repeats.
func faultStride(n int) int {
	switch {
	case nightly:
		return 1
	case raceEnabled:
		return 1 + n/5
	case n < 50:
		return 1
	}
	return 7
}

// faultAt is one run; again is false if no fault came up.
func faultAt(t *testing.T, f *faults, o Options, mem *vfs.MemFS, commits int, opened *int) (again bool) {
	t.Helper()
	h := &history{}
	d, err := Open("data", o)
	if err == nil {
		defer tended(d)()
		*opened++
		err = h.run(d, commits)
		if err == nil && f.hit.Load() != nil {
			// In the background; it must come up.
			for end := time.Now().Add(5 * time.Second); err == nil && time.Now().Before(end); {
				_, err = d.Apply(batch("zz=1"))
			}
		}
		if err == nil {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			return f.hit.Load() != nil
		}
		if _, err2 := d.Apply(batch("zz=2")); err2 == nil || err2.Error() != err.Error() {
			t.Fatalf("first %v, then %v", err, err2)
		}
		if _, _, err := d.Get([]byte("k000000")); err == nil {
			t.Fatal("a poisoned store answers")
		}
		// What a crash would leave now, without anything that was not synced.
		crashed := mem.CrashClone(vfs.CrashCloneCfg{})
		if err := d.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		c := openFS(t, crashed)
		h.keeps(t, c)
		closeIt(t, c)
	}
	if !errors.Is(err, f.fault) {
		t.Fatalf("the error is %v", err)
	}
	if n := abandonedCount(); n > 0 {
		t.Fatalf("%d instances were not closed", n)
	}
	f.heal()
	s := openFS(t, f)
	h.keeps(t, s)
	h.applied = h.holds(t, s)
	if err := h.run(s, h.applied+10); err != nil {
		t.Fatalf("after the disk works again: %v", err)
	}
	h.keeps(t, s)
	closeIt(t, s)
	return true
}

func openFS(t *testing.T, f vfs.FS) *Disk {
	t.Helper()
	o := small
	o.FS = f
	d, err := Open("data", o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func closeIt(t *testing.T, s broker.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func abandonedCount() int {
	abandoned.Lock()
	defer abandoned.Unlock()
	return len(abandoned.dbs)
}

// A commit that waits for memory waits for a table that cannot be written. The
// store is closed nevertheless, and at once.
func TestFault_CloseWhileACommitWaitsForTables(t *testing.T) {
	for _, where := range []string{"create", "write", "sync"} {
		f := newFaults(vfs.NewMem(), syscall.ENOSPC, 1)
		f.only, f.under = where, "data/0"
		f.suffix, f.slow = ".sst", 300*time.Millisecond // until memory is full
		o := small
		o.FS = f
		d, err := Open("data", o)
		if err != nil {
			t.Fatal(err)
		}
		h := &history{}
		if err := h.run(d, 1_000_000); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		began := time.Now()
		closeIt(t, d)
		if took := time.Since(began); took > closePoisonTimeout/2 {
			t.Errorf("%s: it took %s", where, took)
		}
		f.heal()
		s := openFS(t, f)
		h.keeps(t, s)
		closeIt(t, s)
	}
	if n := abandonedCount(); n > 0 {
		t.Errorf("%d instances were not closed", n)
	}
}

// However often it fails, nothing of an instance is left: no goroutine, no
// descriptor, no lock.
func TestFault_AHundredTimesLeaveNothingBehind(t *testing.T) {
	dir := t.TempDir()
	o := small
	goroutines, descriptors := 0, 0
	for round := range 100 {
		f := newFaults(vfs.Default, []error{syscall.ENOSPC, syscall.EIO}[round%2], 40+2*round)
		o.FS = f
		d, err := Open(dir, o)
		if err == nil {
			stop := tended(d)
			for err == nil {
				_, err = d.Apply(batch("k=" + strings.Repeat("v", 3_000)))
			}
			stop()
			closeIt(t, d)
		}
		if !errors.Is(err, f.fault) {
			t.Fatalf("round %d: %v", round, err)
		}
		if round == 10 {
			goroutines, descriptors = runtime.NumGoroutine(), openDescriptors()
		}
	}
	if n := abandonedCount(); n > 0 {
		t.Errorf("%d instances were not closed", n)
	}
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	if n := openDescriptors(); n > descriptors {
		t.Errorf("%d descriptors, %d before", n, descriptors)
	}
	o.FS = nil
	d, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	closeIt(t, d)
}

// openDescriptors is 0 where it is not known.
func openDescriptors() int {
	names, _ := os.ReadDir("/proc/self/fd") // without it there are none
	return len(names)
}

// Whoever removes the directory of an open store gets an error, and the process
// goes on.
func TestFault_DirectoryIsRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	o := small
	d, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	commit(t, d, "a=1")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = d.Apply(batch("k=" + strings.Repeat("v", 3_000)))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	closeIt(t, d)
	o.MustExist = true
	if _, err := Open(dir, o); !errors.Is(err, ErrMissing) {
		t.Errorf("%v", err)
	}
}
