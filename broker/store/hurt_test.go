package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"hashplus/broker"
)

// hurtState is a store as a start finds it, and how many commits it has.
type hurtState struct {
	*vfs.MemFS
	commits int
}

func hurtStates(t *testing.T) map[string]hurtState {
	t.Helper()
	states := map[string]hurtState{}
	for _, size := range []struct {
		name  string
		table uint64
	}{{"many tables", small.memTable}, {"one table", 0}} {
		fs := vfs.NewCrashableMem()
		o := small
		o.FS, o.memTable = fs, size.table
		h := &history{}
		open := func() *Disk {
			d, err := Open("data", o)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		run := func(d *Disk, n int) {
			for h.applied < n {
				if err := h.run(d, min(h.applied+5, n)); err != nil {
					t.Fatal(err)
				}
			}
		}
		keep := func(name string) {
			clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
			states[size.name+", "+name] = hurtState{clone, h.applied}
		}

		d := open()
		run(d, 40)
		keep("killed in the first run")
		d.guard.book.progress(d.guard)
		keep("killed a second later")
		closeIt(t, d)
		keep("closed")
		d = open()
		keep("killed after a start")
		run(d, 60)
		keep("killed in the second run")
		closeIt(t, d)
	}
	return states
}

// hurts are what can happen to a file of that many bytes; records are where those of
// a MANIFEST begin.
func hurts(size int, records []int) map[string]func(f vfs.FS, name string) error {
	m := map[string]func(vfs.FS, string) error{
		"removed": func(f vfs.FS, name string) error { return f.Remove(name) },
	}
	cuts, flips := append([]int{0, 1, size / 4, size / 2, size - 1}, records...), append([]int{0, 6, 8, size / 3, size / 2, size - 1}, records...)
	for _, at := range cuts {
		if at >= 0 && at < size {
			m[fmt.Sprintf("cut at %d of %d", at, size)] = func(f vfs.FS, name string) error {
				data, err := readFile(f, name)
				if err == nil {
					err = writeFile(f, name, string(data[:at]))
				}
				return err
			}
		}
	}
	for _, at := range flips {
		if at >= 0 && at < size {
			m[fmt.Sprintf("bit of byte %d of %d", at, size)] = func(f vfs.FS, name string) error {
				data, err := readFile(f, name)
				if err == nil {
					data[at] ^= 1
					err = writeFile(f, name, string(data))
				}
				return err
			}
		}
	}
	return m
}

// Whatever happens to one file of a store: either all is there, or nothing is touched,
// check says what is wrong, and salvage loses nothing in silence. The one exception is
// the end of the log of a store that was not closed, which looks as if the power had
// been lost.
func TestHurt_AnyFileOfAStoreIsFoundOrHarmless(t *testing.T) {
	refused := 0
	for state, mem := range hurtStates(t) {
		logs := filesOf(t, mem, ".log")
		newestLog := logs[len(logs)-1]
		for _, name := range filesOf(t, mem, "") {
			path := "data/" + name
			data, err := readFile(mem, path)
			if err != nil {
				t.Fatal(err)
			}
			var at []int
			if strings.HasPrefix(name, "MANIFEST-") {
				at = records(t, mem, path)
			}
			for hurt, do := range hurts(len(data), at) {
				if isTable(name) && strings.HasPrefix(hurt, "bit") {
					continue // TestSalvage_ByteOfATable
				}
				what := fmt.Sprintf("%s: %s %s", state, name, hurt)
				f := mem.CrashClone(vfs.CrashCloneCfg{})
				if err := do(f, path); err != nil {
					t.Fatal(err)
				}
				t.Run(what, func(t *testing.T) {
					if hurtOne(t, f, mem.commits, name, name == newestLog && hurt != "removed" && strings.Contains(state, "killed") && !strings.Contains(state, "later")) {
						refused++
					}
				})
			}
		}
	}
	if refused == 0 {
		t.Error("nothing was refused, so this test finds nothing")
	}
}

// hurtOne looks what becomes of the store in f, of which the file name is hurt. tail
// says whether that may have been the power. refused is whether it was not opened.
func hurtOne(t *testing.T, f vfs.FS, commits int, name string, tail bool) (refused bool) {
	var found []string
	if err := CheckFiles("data", Options{FS: f, Logger: quiet}, func(what string) { found = append(found, what) }); err != nil {
		if !errors.Is(err, ErrForeign) && !errors.Is(err, ErrNewer) {
			t.Errorf("check: %v", err)
		}
		return true // it looks like a directory of something else, and is left alone
	}
	o := small
	o.FS, o.Logger = f, quiet
	d, err := Open("data", o)
	if err == nil {
		h := &history{applied: commits}
		got := h.holds(t, d)
		closeIt(t, d)
		if got < commits && !tail || len(found) > 0 {
			t.Errorf("it opened with %d of %d commits; check found %q", got, commits, found)
		}
		return false
	}
	if !errors.Is(err, broker.ErrStoreDamaged) || len(found) == 0 {
		t.Errorf("%v; check found %q", err, found)
	}
	_, lost, kept := checkAndSalvage(t, f)
	got := 0
	for _, kv := range kept {
		if strings.HasPrefix(kv, "k") {
			got++
		}
	}
	if len(lost) == 0 || got < commits && !isTable(name) && !isLog(name) {
		t.Errorf("%v; salvage has %d of %d commits, and says that it lost %q", err, got, commits, lost)
	}
	return true
}
