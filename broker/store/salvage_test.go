package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// damageable is a file system with a closed store of n commits in tables and a
// log, and what it holds.
func damageable(t *testing.T, n int) (mem *vfs.MemFS, holds []string) {
	t.Helper()
	mem = vfs.NewCrashableMem()
	d := openFS(t, mem)
	h := &history{}
	if err := h.run(d, n); err != nil {
		t.Fatal(err)
	}
	commit(t, d, "-k000003", "-l000005-l000010", "z=last")
	holds = list(t, d, nil, nil)
	closeIt(t, d)
	return mem, holds
}

func filesOf(t *testing.T, f vfs.FS, suffix string) (names []string) {
	t.Helper()
	all, err := f.List("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		if strings.HasSuffix(n, suffix) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

func ignore(string) {}

func checkAndSalvage(t *testing.T, f vfs.FS) (found, lost, kept []string) {
	t.Helper()
	o := Options{FS: f, Logger: quiet}
	var noted, salvageNoted []string
	if err := CheckFiles("data", o, func(what string) { found = append(found, what) }, func(what string) { noted = append(noted, what) }); err != nil {
		t.Fatal(err)
	}
	n, err := Salvage("data", "saved", o, func(what string) { lost = append(lost, what) }, func(what string) { salvageNoted = append(salvageNoted, what) })
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open("saved", o)
	if err != nil {
		t.Fatal(err)
	}
	kept = list(t, d, nil, nil)
	closeIt(t, d)
	if slices.Contains(noted, noLogs) != slices.Contains(salvageNoted, noLogs) {
		t.Errorf("check notes %q, salvage %q", noted, salvageNoted)
	}
	if n != len(kept) {
		t.Errorf("%d keys were salvaged, the copy has %d", n, len(kept))
	}
	if _, err := Salvage("data", "saved", o, ignore, ignore); err == nil {
		t.Error("a directory that exists was overwritten")
	}
	return found, lost, kept
}

// missing is what of a is not in b.
func missing(a, b []string) (n int) {
	in := map[string]bool{}
	for _, x := range b {
		in[x] = true
	}
	for _, x := range a {
		if !in[x] {
			n++
		}
	}
	return n
}

func TestSalvage_OfAStoreWithoutDamageIsACopy(t *testing.T) {
	mem, holds := damageable(t, 200)
	found, lost, kept := checkAndSalvage(t, mem)
	if len(found) > 0 || len(lost) > 0 || !slices.Equal(kept, holds) {
		t.Errorf("found %q, lost %q, %d keys missing, %d more", found, lost, missing(holds, kept), missing(kept, holds))
	}
	c := openFS(t, mem) // nothing has changed
	if got := list(t, c, nil, nil); !slices.Equal(got, holds) {
		t.Error("the source has changed")
	}
	closeIt(t, c)
}

// A byte anywhere in a table costs what is near it, and is found.
func TestSalvage_ByteOfATable(t *testing.T) {
	mem, holds := damageable(t, 200)
	for _, name := range filesOf(t, mem, ".sst") {
		data, err := readFile(mem, "data/"+name)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(data); at += 1 + len(data)/salvageSteps() {
			f := mem.CrashClone(vfs.CrashCloneCfg{})
			flip(t, f, "data/"+name, at)
			found, lost, kept := checkAndSalvage(t, f)
			n := missing(holds, kept)
			if !strings.Contains(strings.Join(found, "\n"), name) {
				t.Errorf("%s, byte %d of %d: found %q", name, at, len(data), found)
			}
			if n > 0 && len(lost) == 0 {
				t.Errorf("%s, byte %d: %d keys are missing, and nothing is said", name, at, n)
			}
			if n > 60 && !strings.Contains(strings.Join(lost, ""), "all of it") {
				t.Errorf("%s, byte %d: %d keys are missing: %q", name, at, n, lost)
			}
		}
	}
}

func salvageSteps() int {
	if raceEnabled {
		return 2
	}
	return 6
}

func TestSalvage_MissingTable(t *testing.T) {
	mem, holds := damageable(t, 200)
	for _, name := range filesOf(t, mem, ".sst") {
		f := mem.CrashClone(vfs.CrashCloneCfg{})
		if err := f.Remove("data/" + name); err != nil {
			t.Fatal(err)
		}
		found, lost, kept := checkAndSalvage(t, f)
		if !strings.Contains(fmt.Sprint(found), name) || !strings.Contains(fmt.Sprint(lost), name) || len(kept) == 0 {
			t.Errorf("%s: found %q, lost %q; %d of %d keys missing", name, found, lost, missing(holds, kept), len(holds))
		}
	}
}

func TestSalvage_MissingManifest(t *testing.T) {
	mem, holds := damageable(t, 200)
	for _, name := range filesOf(t, mem, "") {
		if strings.HasPrefix(name, "marker.manifest") {
			if err := mem.Remove("data/" + name); err != nil {
				t.Fatal(err)
			}
		}
	}
	found, lost, kept := checkAndSalvage(t, mem)
	if len(found) == 0 || len(lost) == 0 || missing(holds, kept) > 0 {
		t.Errorf("found %q, lost %q; %d of %d keys missing", found, lost, missing(holds, kept), len(holds))
	}
}

// Behind what is damaged in a log, the rest is read.
func TestSalvage_ByteOfTheLog(t *testing.T) {
	mem, log := crashedStore(t, 40, SyncAlways)
	at := records(t, mem, log)
	for i := 0; i < 36; i += 5 {
		f := mem.CrashClone(vfs.CrashCloneCfg{})
		flip(t, f, log, at[i]+100)
		found, lost, kept := checkAndSalvage(t, f)
		if len(found) != 1 || len(lost) != 1 || len(kept) < 2*38 {
			t.Errorf("record %d: found %q, lost %q, %d keys", i, found, lost, len(kept))
		}
	}
}

func TestCheck_RefusesAStoreThatIsOpen(t *testing.T) {
	dir := t.TempDir()
	openDisk(t, dir, Options{})
	if err := CheckFiles(dir, Options{}, ignore, ignore); err == nil || !strings.Contains(err.Error(), "in use by process") {
		t.Error(err)
	}
}
