package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hashplus/broker"
)

// damagedTable is the directory of a store in which a block of the only table is
// damaged.
func damagedTable(t *testing.T) (dir, table string) {
	t.Helper()
	dir = t.TempDir()
	d := openDisk(t, dir, Options{})
	b := &broker.Batch{}
	for i := range 2000 {
		b.Set([]byte(fmt.Sprintf("k%06d", i)), bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 40))
	}
	if err := applyAndWait(d, b); err != nil {
		t.Fatal(err)
	}
	closeIt(t, d)
	table = onlyTable(t, dir)
	data, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	copy(data[len(data)/2:], "damage damage damage")
	if err := os.WriteFile(table, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, table
}

// onlyTable brings what is in the log of a closed store into a table, the only one.
func onlyTable(t *testing.T, dir string) (name string) {
	t.Helper()
	closeIt(t, openDisk(t, dir, Options{}))
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatalf("%q, %v", tables, err)
	}
	return tables[0]
}

// What a read comes to is an error of one line, is logged once, and is remembered
// while the store is open. All else can be read and written.
func TestDisk_DamageIsRememberedAndLoggedOnce(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		dir, table := damagedTable(t)
		var log bytes.Buffer
		d, err := Open(dir, Options{ReadOnly: readOnly, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if files, err := d.Damage(); err != nil || files != 0 {
			t.Fatalf("%v in %d files before anything was read", err, files)
		}
		for range 3 {
			err := d.Scan(nil, nil, func(_, _ []byte) bool { return true })
			if !errors.Is(err, broker.ErrStoreDamaged) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "carrier") {
				t.Errorf("%v", err)
			}
		}
		if files, err := d.Damage(); !errors.Is(err, broker.ErrStoreDamaged) || files != 1 {
			t.Errorf("%v in %d files", err, files)
		}
		if n := strings.Count(log.String(), "stored data are damaged"); n != 1 || !strings.Contains(log.String(), filepath.Base(table)) ||
			strings.Contains(log.String(), "stack trace") {
			t.Errorf("it is logged %d times: %s", n, log.String())
		}
		if _, ok, err := d.Get([]byte("k000000")); !ok || err != nil {
			t.Errorf("what is whole: %v, %v", ok, err)
		}
		if !readOnly {
			commit(t, d, "new=1")
		}
		closeIt(t, d)
	}
}

// pebble would try each bit of a large block, for minutes in sum: what is bad is said
// before it looks, to the broker, to check and to salvage.
func TestDisk_LargeBlockThatIsDamagedIsNotSearchedForABit(t *testing.T) {
	dir := t.TempDir()
	d := openDisk(t, dir, Options{})
	for i := range 4 {
		b := &broker.Batch{}
		large := make([]byte, 200<<10)
		for j := range large {
			large[j] = byte(rand.Uint32())
		}
		b.Set([]byte(fmt.Sprintf("k%d", i)), large)
		if err := applyAndWait(d, b); err != nil {
			t.Fatal(err)
		}
	}
	closeIt(t, d)
	table := onlyTable(t, dir)
	flip(t, small.fs(), table, 300<<10)
	ours := filepath.Base(table) + ": block "
	d = openDisk(t, dir, Options{Logger: quiet})
	if _, _, err := d.Get([]byte("k1")); !errors.Is(err, broker.ErrStoreDamaged) || !strings.Contains(err.Error(), ours) {
		t.Errorf("%v", err)
	}
	if files, err := d.Damage(); files != 1 || err == nil {
		t.Errorf("%v in %d files", err, files)
	}
	closeIt(t, d)
	var found, lost []string
	if err := CheckFiles(dir, Options{}, func(what string) { found = append(found, what) }, ignore); err != nil || len(found) != 1 || !strings.Contains(found[0], ours) {
		t.Errorf("found %q, %v", found, err)
	}
	n, err := Salvage(dir, filepath.Join(t.TempDir(), "saved"), Options{}, func(what string) { lost = append(lost, what) }, ignore)
	if err != nil || n != 3 || len(lost) != 1 || !strings.Contains(lost[0], "checksum mismatch") || strings.Contains(lost[0], "pebble") {
		t.Errorf("%d keys, lost %q, %v", n, lost, err)
	}
}

// A compaction that comes to damage ends nothing, and is told.
func TestDisk_DamageMetInTheBackgroundIsRemembered(t *testing.T) {
	dir, _ := damagedTable(t)
	d := openDisk(t, dir, Options{Logger: quiet})
	_ = d.db.Compact(t.Context(), []byte("a"), []byte("z"), false) // it may find another way
	commit(t, d, "k000001=new", "k001999=new")
	if _, err := d.db.AsyncFlush(); err != nil {
		t.Fatal(err)
	}
	_ = d.db.Compact(t.Context(), []byte("a"), []byte("z"), false)
	if files, err := d.Damage(); !errors.Is(err, broker.ErrStoreDamaged) || files != 1 {
		t.Errorf("%v in %d files", err, files)
	}
	commit(t, d, "still=1")
	closeIt(t, d)
}
