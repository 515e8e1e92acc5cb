package store

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The copy that is advised before an update is of the format that the old hashplus
// knows, and nothing has been done to the directory.
func TestCopy_IsWhatWasThereInItsFormat(t *testing.T) {
	mem, holds := damageable(t, 100)
	if err := writeVersion(mem, "data", 1); err != nil {
		t.Fatal(err)
	}
	before := content(t, mem, "data")
	if err := Copy("data", "copy", Options{FS: mem, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(before, content(t, mem, "data")) {
		t.Error("it has changed the store")
	}
	if v, ok, err := readVersion(mem, "copy"); v != 1 || !ok || err != nil {
		t.Errorf("version %d, %v, %v", v, ok, err)
	}
	if err := Copy("data", "copy", Options{FS: mem, Logger: quiet}); !errors.Is(err, os.ErrExist) {
		t.Errorf("%v", err)
	}
	d, err := Open("copy", Options{FS: mem, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, d, holds...)
	closeIt(t, d)
}

func TestCopy_OfNothingOrOfAStoreThatIsOpen(t *testing.T) {
	dir := t.TempDir()
	to := filepath.Join(t.TempDir(), "copy")
	if err := Copy(dir, to, Options{}); !errors.Is(err, ErrMissing) {
		t.Errorf("%v", err)
	}
	openDisk(t, dir, small)
	if err := Copy(dir, to, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// Whichever operation of a copy fails: nothing is left that could be taken for one,
// and nothing is changed.
func TestCopy_ThatFailsLeavesNothing(t *testing.T) {
	for n := 1; ; n++ {
		mem, _ := damageable(t, 30)
		before := content(t, mem, "data")
		f := newFaults(mem, errors.New("broken"), n)
		f.under = "copy"
		err := Copy("data", "copy", Options{FS: f, Logger: quiet})
		if !maps.Equal(before, content(t, mem, "data")) {
			t.Errorf("%d: the store is changed", n)
		}
		if err == nil {
			if n < 10 {
				t.Errorf("it has made only %d changes", n)
			}
			return
		}
		if _, err := mem.Stat("copy"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%d, %s: something is left: %v", n, *f.hit.Load(), err)
		}
	}
}

// A copy of a store that serves is complete: it has what tells that a log is missing.
func TestCopy_OfAStoreThatServesMissesNoLog(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := small
	o.FS = mem
	d, err := Open("data", o)
	if err != nil {
		t.Fatal(err)
	}
	h := &history{}
	if err := h.run(d, 60); err != nil {
		t.Fatal(err)
	}
	if err := d.Checkpoint("backup"); err != nil {
		t.Fatal(err)
	}
	closeIt(t, d)
	if err := mem.RemoveAll("data"); err != nil {
		t.Fatal(err)
	}
	if err := mem.Rename("backup", "data"); err != nil {
		t.Fatal(err)
	}
	for _, name := range filesOf(t, mem, ".log") {
		f := killed(mem)
		if err := f.Remove("data/" + name); err != nil {
			t.Fatal(err)
		}
		hurtOne(t, f, h.applied, []string{name}, false)
	}
	var said []string
	say := func(what string) { said = append(said, what) }
	if err := CheckFiles("data", Options{FS: mem}, say, say); err != nil || len(said) > 0 {
		t.Errorf("%v, %q", err, said)
	}
	o.FS = mem
	d, err = Open("data", o)
	if err != nil {
		t.Fatal(err)
	}
	h.keeps(t, d)
	if err := h.run(d, 80); err != nil {
		t.Fatal(err)
	}
	closeIt(t, d)
}

// A list of the logs that cannot be written ends nothing: an older one is right, too.
// When it can be written again it is.
func TestLogs_ThatCannotBeWrittenEndNothing(t *testing.T) {
	for _, op := range []string{"create", "write", "sync", "rename"} {
		mem := vfs.NewCrashableMem()
		f := newFaults(mem, errors.New("no space"), 1<<30)
		f.under, f.only, f.suffix = "data/"+logsFile, op, ""
		o := small
		o.FS = f
		d, err := Open("data", o)
		if err != nil {
			t.Fatal(err)
		}
		f.left.Store(1)
		h := &history{}
		for range 4 {
			if err := h.run(d, h.applied+20); err != nil {
				t.Fatalf("%s: %v", op, err)
			}
			d.guard.book.progress(d.guard)
		}
		if f.hit.Load() == nil {
			t.Fatalf("%s: nothing failed, so this test finds nothing", op)
		}
		crashed := killed(mem)
		c := openFS(t, crashed)
		h.keeps(t, c)
		closeIt(t, c)
		f.heal()
		d.guard.book.progress(d.guard)
		list, known, err := readLogs(mem, "data")
		if fmt.Sprint(list) != fmt.Sprint(d.guard.book.list) || !known || err != nil {
			t.Errorf("%s: %v, want %v; %v", op, list, d.guard.book.list, err)
		}
		closeIt(t, d)
	}
}
