package contents

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"hashplus/broker/store"
)

// A directory that a broker of each earlier format has written is opened, migrated,
// and has what it had: testdata/formatN, as export says it, in formatN.jsonl. The
// one of today's format is there too, so that a change of the format that comes
// without a version of its own and a migration is found here.
func TestFormat_DirectoriesOfEachVersionAreRead(t *testing.T) {
	for v := 1; v <= store.Version; v++ {
		name := filepath.Join("testdata", fmt.Sprintf("format%d", v))
		dir := filepath.Join(t.TempDir(), "data")
		if err := os.CopyFS(dir, os.DirFS(name)); err != nil {
			t.Fatal(err)
		}
		d, err := store.Open(dir, store.Options{MustExist: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if all := findings(t, d); len(all) > 0 {
			t.Errorf("format %d: %q", v, all)
		}
		var got bytes.Buffer
		if err := Export(d, &got); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(name + ".jsonl")
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != string(want) {
			t.Errorf("format %d: it has\n%s\nwant\n%s", v, &got, want)
		}
	}
}

// What is salvaged of an older format is of that format, and is migrated in its turn.
func TestFormat_SalvageOfAnOlderDirectoryIsMigrated(t *testing.T) {
	src, dst := filepath.Join(t.TempDir(), "src"), filepath.Join(t.TempDir(), "dst")
	if err := os.CopyFS(src, os.DirFS(filepath.Join("testdata", "format1"))); err != nil {
		t.Fatal(err)
	}
	o := store.Options{MustExist: true, Logger: slog.New(slog.DiscardHandler)}
	if _, err := store.Salvage(src, dst, o, func(what string) { t.Error(what) }, func(string) {}); err != nil {
		t.Fatal(err)
	}
	d, err := store.Open(dst, o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // it was only read
	if all := findings(t, d); len(all) > 0 {
		t.Errorf("%q", all)
	}
	var got bytes.Buffer
	if err := Export(d, &got); err != nil {
		t.Fatal(err)
	}
	if want, err := os.ReadFile(filepath.Join("testdata", "format1.jsonl")); err != nil || got.String() != string(want) {
		t.Errorf("%v: it has\n%s\nwant\n%s", err, &got, want)
	}
}
