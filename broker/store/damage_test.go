package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
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
	closeIt(t, openDisk(t, dir, Options{})) // what is in the log comes into a table
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatalf("%q, %v", tables, err)
	}
	data, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	copy(data[len(data)/2:], "damage damage damage")
	if err := os.WriteFile(tables[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, tables[0]
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
