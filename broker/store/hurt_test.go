package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"hashplus/broker"
)

// killed is what a file system has when a process is: all that was written to it.
func killed(f *vfs.MemFS) *vfs.MemFS {
	return f.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

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
			clone := killed(fs)
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
// a journal begin.
func hurts(size int, records []int) map[string]func(f vfs.FS, name string) error {
	m := map[string]func(vfs.FS, string) error{
		"removed": func(f vfs.FS, name string) error { return f.Remove(name) },
	}
	cuts, flips := append([]int{0, 1, size / 4, size / 2, size - 1}, records...), append([]int{0, 6, 8, size / 3, size / 2, size - 1}, records...)
	for i, at := range records { // within them
		if i > 0 {
			flips = append(flips, at-3, (records[i-1]+at)/2)
		}
	}
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

// hurtsOf are the hurts of a file; of the records of a log the latest count.
func hurtsOf(t *testing.T, f vfs.FS, name string) map[string]func(vfs.FS, string) error {
	t.Helper()
	path := "data/" + name
	data, err := readFile(f, path)
	if err != nil {
		t.Fatal(err)
	}
	var at []int
	switch {
	case strings.HasPrefix(name, "MANIFEST-"):
		at = records(t, f, path)
	case isLog(name):
		at = records(t, f, path)
		at = at[max(0, len(at)-7):]
	}
	return hurts(len(data), at)
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
			for hurt, do := range hurtsOf(t, mem, name) {
				if isTable(name) && strings.HasPrefix(hurt, "bit") {
					continue // TestSalvage_ByteOfATable
				}
				f := mem.CrashClone(vfs.CrashCloneCfg{})
				if err := do(f, "data/"+name); err != nil {
					t.Fatal(err)
				}
				t.Run(fmt.Sprintf("%s: %s %s", state, name, hurt), func(t *testing.T) {
					tail := name == newestLog && hurt != "removed" && strings.Contains(state, "killed") && !strings.Contains(state, "later")
					if hurtOne(t, f, mem.commits, []string{name}, tail) {
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

// What says of the logs what was durable is hurt together with one of them: it is
// refused for the list, or, where there is none, said that nothing can be known.
func TestHurt_ListOfTheLogsAndALog(t *testing.T) {
	for state, mem := range hurtStates(t) {
		logs := filesOf(t, mem, ".log")
		name := logs[len(logs)-1]
		for hurt, do := range hurtsOf(t, mem, name) {
			for listHurt, doList := range hurtsOf(t, mem, logsFile) {
				if raceEnabled && listHurt != "removed" && !strings.HasPrefix(listHurt, "cut at 0") {
					continue // there are many
				}
				f := mem.CrashClone(vfs.CrashCloneCfg{})
				if err := errors.Join(do(f, "data/"+name), doList(f, "data/"+logsFile)); err != nil {
					t.Fatal(err)
				}
				t.Run(fmt.Sprintf("%s: %s %s, list %s", state, name, hurt, listHurt), func(t *testing.T) {
					if listHurt != "removed" {
						if !hurtOne(t, f, mem.commits, []string{name, logsFile}, false) {
							t.Error("it was opened")
						}
						return
					}
					noted := ""
					if err := CheckFiles("data", Options{FS: f, Logger: quiet}, ignore, func(what string) { noted += what }); err != nil {
						t.Fatal(err)
					}
					if checkAndSalvage(t, f); !strings.Contains(noted, noLogs) { // and so does salvage
						t.Errorf("noted %q", noted)
					}
				})
			}
		}
	}
}

// content is what is in a directory, but for the file that is locked.
func content(t *testing.T, f vfs.FS, dir string) map[string]string {
	t.Helper()
	names, err := f.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range names {
		data, err := readFile(f, dir+"/"+name)
		if err != nil {
			t.Fatal(err)
		}
		if name != "LOCK" {
			all[name] = string(data)
		}
	}
	return all
}

// hurtOne looks what becomes of the store in f, of which these files are hurt. tail
// says whether that may have been the power. refused is whether it was not opened.
func hurtOne(t *testing.T, f vfs.FS, commits int, names []string, tail bool) (refused bool) {
	before := content(t, f, "data")
	var found []string
	if err := CheckFiles("data", Options{FS: f, Logger: quiet}, func(what string) { found = append(found, what) }, ignore); err != nil {
		if !errors.Is(err, ErrForeign) && !errors.Is(err, ErrNewer) {
			t.Errorf("check: %v", err)
		}
		return true // it looks like a directory of something else, and is left alone
	}
	o := small
	o.FS, o.Logger = f, quiet
	if err := Copy("data", "copy", o); err != nil {
		t.Errorf("copy: %v", err)
	}
	o.ReadOnly = true
	r, readErr := Open("data", o)
	if readErr == nil {
		h := &history{applied: commits}
		h.holds(t, r)
		closeIt(t, r)
	}
	if !maps.Equal(before, content(t, f, "data")) {
		t.Error("looking into it has changed it")
	}
	if !maps.Equal(before, content(t, f, "copy")) {
		t.Error("the copy is not one")
	}
	o.ReadOnly = false
	d, err := Open("data", o)
	if (err == nil) != (readErr == nil) {
		t.Errorf("%v; opened for reading only: %v", err, readErr)
	}
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
	if after := content(t, f, "data"); !maps.Equal(before, after) {
		t.Error("it was refused, and is changed")
	}
	_, lost, kept := checkAndSalvage(t, f)
	got := 0
	for _, kv := range kept {
		if strings.HasPrefix(kv, "k") {
			got++
		}
	}
	if len(lost) == 0 || got < commits && !slices.ContainsFunc(names, func(name string) bool { return isTable(name) || isLog(name) }) {
		t.Errorf("%v; salvage has %d of %d commits, and says that it lost %q", err, got, commits, lost)
	}
	return true
}
