package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"hashplus/broker"
)

// lossOf cuts the power of a store under each policy at random moments and says
// how often promised commits were lost. What is there is always a number of first
// commits, and the store opens.
func lossOf(t *testing.T, s Sync, rounds int) (lost int) {
	t.Helper()
	if nightly {
		rounds *= 20
	} else if raceEnabled {
		rounds /= 3
	}
	for round := range rounds {
		rnd := rand.New(rand.NewPCG(uint64(round), 7))
		mem := vfs.NewCrashableMem()
		o := small
		o.FS, o.Sync = mem, s
		d, err := Open("data", o)
		if err != nil {
			t.Fatal(err)
		}
		h := &history{}
		var promised atomic.Int64
		n, step := 5+rnd.IntN(120), 1+round%4
		done := make(chan error, 1)
		go func() {
			for h.applied < n {
				if err := h.run(d, min(h.applied+step, n)); err != nil {
					done <- err
					return
				}
				promised.Store(int64(h.promised))
			}
			done <- nil
		}()
		var over atomic.Bool
		var noting sync.WaitGroup
		noting.Go(func() { // what is noted of the log must not be ahead of it
			for round%4 < 2 && !over.Load() {
				d.guard.book.progress(d.guard)
				time.Sleep(200 * time.Microsecond)
			}
		})
		time.Sleep(time.Duration(rnd.IntN(4000)) * time.Microsecond)
		before := int(promised.Load()) // promised before the power goes
		crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[round%3], RNG: rnd})
		err = <-done
		over.Store(true)
		noting.Wait()
		if err != nil {
			t.Fatal(err)
		}
		closeIt(t, d)
		o.FS = crashed
		c, err := Open("data", o)
		if err != nil {
			t.Fatalf("%s, round %d: %v", s, round, err)
		}
		if h.holds(t, c) < before {
			lost++
		}
		// It goes on from there.
		h2 := &history{applied: h.holds(t, c)}
		if err := h2.run(c, h2.applied+5); err != nil {
			t.Fatal(err)
		}
		h2.keeps(t, c)
		closeIt(t, c)
	}
	return lost
}

func TestCrash_AlwaysLosesNothingThatWasPromised(t *testing.T) {
	if lost := lossOf(t, SyncAlways, 90); lost > 0 {
		t.Errorf("lost in %d rounds", lost)
	}
}

// That loss is found shows that the test above can fail.
func TestCrash_NeverLosesASuffix(t *testing.T) {
	if lost := lossOf(t, SyncNever, 60); lost == 0 {
		t.Error("nothing was lost, so this test finds nothing")
	}
}

func TestCrash_IntervalLosesASuffix(t *testing.T) {
	lossOf(t, SyncEvery(2*time.Millisecond), 30)
}

func TestSync_IntervalReachesTheMedium(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := small
	o.FS, o.Sync = mem, SyncEvery(5*time.Millisecond)
	d, err := Open("data", o)
	if err != nil {
		t.Fatal(err)
	}
	h := &history{}
	if err := h.run(d, 3); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		c := openFS(t, mem.CrashClone(vfs.CrashCloneCfg{}))
		n := h.holds(t, c)
		closeIt(t, c)
		if n == 3 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of 3 commits are durable", n)
		}
	}
	closeIt(t, d)
}

// An fsync that fails in the background poisons the store, though nobody waits.
func TestSync_IntervalFsyncErrorPoisons(t *testing.T) {
	f := newFaults(vfs.NewCrashableMem(), errors.New("broken"), 1<<30)
	f.only = "sync"
	o := small
	o.FS, o.Sync = f, SyncEvery(5*time.Millisecond)
	d, err := Open("data", o)
	if err != nil {
		t.Fatal(err)
	}
	f.left.Store(1)
	h := &history{}
	for end := time.Now().Add(time.Minute); err == nil; {
		if err = h.run(d, h.applied+1); time.Now().After(end) {
			t.Fatal("no error came up")
		}
	}
	if !errors.Is(err, f.fault) || !strings.Contains(err.Error(), "cannot sync") {
		t.Errorf("%v", err)
	}
	closeIt(t, d)
}

func TestSync_Text(t *testing.T) {
	for text, want := range map[string]Sync{
		"always": SyncAlways, "never": SyncNever, "interval=10ms": SyncEvery(10 * time.Millisecond), " interval=1s": SyncEvery(time.Second),
	} {
		var s Sync
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q: %v, %v", text, s, err)
		}
		if out, err := s.MarshalText(); string(out) != strings.TrimSpace(text) || err != nil {
			t.Errorf("%q: %q, %v", text, out, err)
		}
	}
	for _, text := range []string{"", "sometimes", "interval", "interval=", "interval=10", "interval=1us", "interval=2m", "interval=-1s"} {
		var s Sync
		if err := s.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "interval=DURATION") {
			t.Errorf("%q: %v, %v", text, s, err)
		}
	}
}

// A log that nothing was written to, and that is not the newest any more, holds what
// it held before it was used again, or nothing. It stops no start.
func TestCrash_AgainAndAgainWithoutACommit(t *testing.T) {
	fs := vfs.NewCrashableMem()
	h := &history{}
	for round := range 6 {
		o := small
		o.FS = fs
		d, err := Open("data", o)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if round == 0 {
			if err := h.run(d, 60); err != nil { // logs are used again
				t.Fatal(err)
			}
			d.flush() // the newest one holds nothing
			time.Sleep(100 * time.Millisecond)
		}
		h.keeps(t, d)
		crashed := killed(fs)
		closeIt(t, d)
		fs = crashed
	}
}

// crashedStore is a file system with a store of n commits that lost its power,
// and the name of its newest log.
func crashedStore(t *testing.T, n int, s Sync) (mem *vfs.MemFS, log string) {
	t.Helper()
	live := vfs.NewCrashableMem()
	o := Options{FS: live, Logger: quiet, Sync: s}
	d, err := Open("data", o)
	if err != nil {
		t.Fatal(err)
	}
	h := &history{}
	for h.applied < n { // one at a time: an fsync for each
		if err := h.run(d, h.applied+1); err != nil {
			t.Fatal(err)
		}
	}
	mem = killed(live)
	closeIt(t, d)
	logs, err := wal.Scan(wal.Dir{FS: mem, Dirname: "data"})
	if err != nil || len(logs) == 0 {
		t.Fatalf("%d logs, %v", len(logs), err)
	}
	_, log = logs[len(logs)-1].SegmentLocation(0)
	return mem, log
}

// records are the places where the records of a journal begin, and its end.
func records(t *testing.T, f vfs.FS, name string) (at []int) {
	t.Helper()
	j, err := openJournal(f, name)
	if err != nil {
		t.Fatal(err)
	}
	for ok := true; ok; _, ok = j.next() {
		if len(at) == 0 || at[len(at)-1] != j.pos {
			at = append(at, j.pos)
		}
	}
	return at
}

func flip(t *testing.T, f vfs.FS, name string, at int) {
	t.Helper()
	data, err := readFile(f, name)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= 0x40
	if err := writeFile(f, name, string(data)); err != nil {
		t.Fatal(err)
	}
}

func TestJournal_ReadsWhatPebbleWrites(t *testing.T) {
	mem, log := crashedStore(t, 100, SyncAlways) // 200 kB: chunks of all kinds
	if at := records(t, mem, log); len(at) != 101 {
		t.Errorf("%d places, want 100 records and the end", len(at))
	}
}

// Wherever the last commit is torn, those before it are there.
func TestJournal_TornTailIsRecoveredToTheLastCommit(t *testing.T) {
	mem, log := crashedStore(t, 20, SyncAlways)
	at := records(t, mem, log)
	whole, err := readFile(mem, log)
	if err != nil {
		t.Fatal(err)
	}
	last, end := at[len(at)-2], at[len(at)-1]
	for cut := last; cut < end; cut += 1 + (end-last)/20 {
		for _, tail := range []string{"", strings.Repeat("\x00", 5000), strings.Repeat("x", 5000)} {
			f := mem.CrashClone(vfs.CrashCloneCfg{})
			if err := writeFile(f, log, string(whole[:cut])+tail); err != nil {
				t.Fatal(err)
			}
			c := openFS(t, f)
			h := &history{applied: 20}
			if n := h.holds(t, c); n != 19 {
				t.Fatalf("cut at %d of %d with %d behind it: %d commits", cut-last, end-last, len(tail), n)
			}
			closeIt(t, c)
		}
	}
}

// pebble would take any of these for the end, and lose what is behind it.
func TestJournal_DamageBeforeTheTailStopsTheStart(t *testing.T) {
	mem, log := crashedStore(t, 40, SyncAlways)
	at := records(t, mem, log)
	for i := 0; i < 36; i += 5 {
		for _, place := range []int{0, 5, 6, 9, 15, 200} { // checksum, length, kind, number, count, data
			f := mem.CrashClone(vfs.CrashCloneCfg{})
			flip(t, f, log, at[i]+place)
			o := small
			o.FS = f
			_, err := Open("data", o)
			if !errors.Is(err, broker.ErrStoreDamaged) || !strings.Contains(err.Error(), f.PathBase(log)) {
				t.Errorf("record %d, byte %d: %v", i, place, err)
			}
		}
	}
}

// Without fsyncs there may be holes anywhere; the first is the end, also for who only
// looks.
func TestJournal_HolesOfAnUnsyncedLogAreItsEnd(t *testing.T) {
	mem, log := crashedStore(t, 40, SyncNever)
	at := records(t, mem, log)
	for i := 0; i < 40; i += 7 {
		f := mem.CrashClone(vfs.CrashCloneCfg{})
		flip(t, f, log, at[i]+100)
		found, noted := "", ""
		if err := CheckFiles("data", Options{FS: f}, func(what string) { found += what }, func(what string) { noted += what }); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(noted, fmt.Sprintf("%s at byte %d of", f.PathBase(log), at[i])) || found != "" {
			t.Errorf("a hole in record %d: noted %q, found %q", i, noted, found)
		}
		for _, readOnly := range []bool{true, false} {
			c, err := Open("data", Options{FS: f, Logger: quiet, ReadOnly: readOnly})
			if err != nil {
				t.Fatal(err)
			}
			h := &history{applied: 40}
			if n := h.holds(t, c); n != i {
				t.Errorf("a hole in record %d: %d commits", i, n)
			}
			closeIt(t, c)
		}
	}
}

func TestJournal_DamagedManifestStopsTheStart(t *testing.T) {
	mem := vfs.NewCrashableMem()
	d := openFS(t, mem)
	h := &history{}
	if err := h.run(d, 100); err != nil {
		t.Fatal(err)
	}
	closeIt(t, d)
	names, err := mem.List("data")
	if err != nil {
		t.Fatal(err)
	}
	newest := ""
	for _, n := range names {
		if strings.HasPrefix(n, "MANIFEST-") {
			newest = max(newest, n)
		}
	}
	at := records(t, mem, "data/"+newest)
	if len(at) < 4 {
		t.Fatalf("%d places", len(at))
	}
	for i, p := range at[:len(at)-2] {
		f := mem.CrashClone(vfs.CrashCloneCfg{})
		flip(t, f, "data/"+newest, p+8)
		o := small
		o.FS = f
		if _, err := Open("data", o); !errors.Is(err, broker.ErrStoreDamaged) || !strings.Contains(err.Error(), newest) {
			t.Errorf("record %d: %v", i, err)
		}
	}
}

func TestJournal_MissingOrShortTableStopsTheStart(t *testing.T) {
	mem := vfs.NewCrashableMem()
	d := openFS(t, mem)
	h := &history{}
	if err := h.run(d, 100); err != nil {
		t.Fatal(err)
	}
	closeIt(t, d)
	names, err := mem.List("data")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, n := range names {
		if !strings.HasSuffix(n, ".sst") {
			continue
		}
		tried++
		for _, hurt := range []func(f vfs.FS) error{
			func(f vfs.FS) error { return f.Remove("data/" + n) },
			func(f vfs.FS) error { return writeFile(f, "data/"+n, "short") },
		} {
			f := mem.CrashClone(vfs.CrashCloneCfg{})
			if err := hurt(f); err != nil {
				t.Fatal(err)
			}
			o := small
			o.FS = f
			_, err := Open("data", o)
			if !errors.Is(err, broker.ErrStoreDamaged) || !strings.Contains(err.Error(), strings.TrimSuffix(n, ".sst")) {
				t.Errorf("%s: %v", n, err)
			}
		}
	}
	if tried == 0 {
		t.Error("there is no table")
	}
}

// A journal may hold anything.
func FuzzJournal(f *testing.F) {
	good := func(kind byte, log uint32, synced uint64, data string) []byte {
		b := binary.LittleEndian.AppendUint32(make([]byte, 7), log)
		b = append(binary.LittleEndian.AppendUint64(b, synced), data...)
		b[6] = kind
		binary.LittleEndian.PutUint16(b[4:], uint16(len(data)))
		binary.LittleEndian.PutUint32(b, chunkChecksum(b[6:]))
		return b
	}
	f.Add(append(good(9, 1, 0, "abc"), good(10, 1, 22, "d")...), uint32(1))
	f.Add(append(good(9, 1, 0, "abc"), good(9, 2, 22, "d")...), uint32(1))
	f.Add(make([]byte, 3*chunkBlock), uint32(1))
	f.Add(make([]byte, 100), uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, log uint32) {
		j := &journal{data: data, log: log, bad: -1}
		for ok := true; ok; {
			before := j.pos
			if _, ok = j.next(); ok && j.pos <= before {
				t.Fatalf("a record from %d to %d", before, j.pos)
			}
		}
		j.damaged()
		logWanted(data)
	})
}
