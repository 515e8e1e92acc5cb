package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"hashplus/broker"
)

// used is the size of the files in dir.
func used(t *testing.T, dir string) (n int64) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil { // else it has just been removed
			n += info.Size()
		}
	}
	return n
}

// tended tends d all the time, until stop is called.
func tended(d *Disk) (stop func()) {
	quit := make(chan struct{})
	go func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(5 * time.Millisecond):
				_ = d.Tend() // Apply says it, too
			}
		}
	}()
	return func() { close(quit) }
}

// A queue that has been emptied leaves the disk, though nothing more is written.
func TestDisk_WhatIsDeletedIsGivenBack(t *testing.T) {
	defer func(d time.Duration) { flushInterval = d }(flushInterval)
	flushInterval = 50 * time.Millisecond
	for name, remove := range map[string]func(b *broker.Batch, from, to int){
		"one by one": func(b *broker.Batch, from, to int) {
			for i := from; i < to; i++ {
				b.Delete(numbered(i))
			}
		},
		"in ranges": func(b *broker.Batch, from, to int) { b.DeleteRange(numbered(from), numbered(to)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			d := openDisk(t, dir, Options{Sync: SyncNever, memTable: 256 << 10})
			defer tended(d)()
			value, rnd := make([]byte, 3072), rand.NewChaCha8([32]byte{1}) // what cannot be compressed
			const n, step = 8000, 50
			for i := 0; i < n; i += step {
				b := &broker.Batch{}
				for k := i; k < i+step; k++ {
					_, _ = rnd.Read(value) // it never fails
					b.Set(numbered(k), value)
				}
				if err := applyAndWait(d, b); err != nil {
					t.Fatal(err)
				}
			}
			full := used(t, dir)
			for i := 0; i < n; i += step {
				b := &broker.Batch{}
				remove(b, i, i+step)
				if err := applyAndWait(d, b); err != nil {
					t.Fatal(err)
				}
			}
			least := full
			for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				if least = min(least, used(t, dir)); least < full/3 {
					return
				}
			}
			t.Errorf("%d bytes when it was full, %d after all was deleted", full, least)
		})
	}
}

func numbered(i int) []byte { return binary.BigEndian.AppendUint64([]byte("q"), uint64(i)) }

func TestDisk_BatchesOfAnySize(t *testing.T) {
	d := openDisk(t, t.TempDir(), Options{memTable: 256 << 10})
	for _, n := range []int{0, 1, 100 << 10, 300 << 10, 5 << 20} {
		b := &broker.Batch{}
		b.Set([]byte("k"), bytes.Repeat([]byte{1}, n))
		b.Set([]byte("l"), []byte("x"))
		if err := applyAndWait(d, b); err != nil {
			t.Fatal(err)
		}
		if v, ok, err := d.Get([]byte("k")); len(v) != n || !ok || err != nil {
			t.Errorf("%d bytes: %d, %v, %v", n, len(v), ok, err)
		}
	}
}

func TestDisk_FreeIsWhatTheOptionSays(t *testing.T) {
	broken := errors.New("broken")
	d := openDisk(t, t.TempDir(), Options{Free: func() (uint64, error) { return 7, broken }})
	if n, err := d.Free(); n != 7 || !errors.Is(err, broken) {
		t.Errorf("%d, %v", n, err)
	}
}

// A read that is going on does not keep Close from ending the calls that it makes.
func TestDisk_CloseDuringAScan(t *testing.T) {
	d := openDisk(t, t.TempDir(), Options{})
	commit(t, d, "a=1", "b=2")
	closed := make(chan error, 1)
	n := 0
	if err := d.Scan(nil, nil, func(_, _ []byte) bool {
		if n++; n == 1 {
			go func() { closed <- d.Close() }()
			for {
				if _, _, err := d.Get([]byte("a")); err != nil {
					return true
				}
			}
		}
		return true
	}); err != nil || n != 2 {
		t.Errorf("%d keys, %v", n, err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// Whatever fails on the side of a copy, the store goes on.
func TestDisk_CheckpointThatFailsIsNotTheStoresFault(t *testing.T) {
	f := newFaults(vfs.NewMem(), errors.New("no space there"), 1<<30)
	f.under = "copy"
	o := small
	o.FS = f
	d, err := Open("data", o)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, d)
	h := &history{}
	if err := h.run(d, 60); err != nil {
		t.Fatal(err)
	}
	for n := int64(1); ; n += 3 {
		f.left.Store(n)
		err := d.Checkpoint("copy")
		if err == nil {
			break
		}
		if !errors.Is(err, f.fault) {
			t.Fatalf("fault %d: %v", n, err)
		}
		if _, err := f.Stat("copy"); err == nil {
			t.Fatalf("fault %d: half a copy is there", n)
		}
		if err := h.run(d, h.applied+2); err != nil {
			t.Fatalf("after fault %d: %v", n, err)
		}
	}
	f.heal()
	o.FS = f.FS
	c, err := Open("copy", o)
	if err != nil {
		t.Fatal(err)
	}
	h.keeps(t, c)
	closeIt(t, c)
}

// A disk that is too full for what the log holds is not tried: pebble would not
// come back.
func TestDisk_OpenNeedsSpaceForWhatTheLogHolds(t *testing.T) {
	dir := t.TempDir()
	d := openDisk(t, dir, Options{})
	commit(t, d, "a="+string(make([]byte, 3<<20)))
	closeIt(t, d)
	free := uint64(2 << 20)
	o := Options{Logger: quiet, Free: func() (uint64, error) { return free, nil }}
	before := abandonedCount()
	if _, err := Open(dir, o); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("%v", err)
	}
	free = 1 << 30
	d = openDisk(t, dir, o)
	if _, ok, err := d.Get([]byte("a")); !ok || err != nil || abandonedCount() != before {
		t.Errorf("%v, %v", ok, err)
	}
}

// What cannot be closed again and again is an end: the memory would run out.
func TestDisk_TooManyThatCannotBeClosedAreStuck(t *testing.T) {
	defer func(n int) { maxAbandoned = n }(maxAbandoned)
	maxAbandoned = abandonedCount() + 2
	mem := vfs.NewMem()
	for n := range 4 {
		d := openFS(t, mem)
		d.users.Add(1) // as if a call did not return
		d.guard.markStuck()
		if err := d.Close(); errors.Is(err, ErrStuck) != (n >= 2) {
			t.Errorf("time %d: %v", n, err)
		}
		d.users.Add(-1)
	}
	abandoned.Lock()
	defer abandoned.Unlock()
	abandoned.dbs = nil
}
