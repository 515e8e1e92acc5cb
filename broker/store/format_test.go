package store

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"hashplus/broker"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(dir string) error {
	d, err := Open(dir, Options{Logger: quiet})
	if err == nil {
		err = d.Close()
	}
	return err
}

func TestFormat_NewerOrForeignDirectoriesAreRefusedAndLeftAlone(t *testing.T) {
	for _, c := range []struct {
		name, file, text string
		want             error
		words            string
	}{
		{"newer", formatFile, "hashplus store\nversion 7\n", ErrNewer, "7, and this hashplus knows up to 2"},
		{"foreign file", formatFile, "something else", ErrForeign, "not one of hashplus"},
		{"no number", formatFile, "hashplus store\nversion x\n", ErrForeign, "not one of hashplus"},
		{"a sign", formatFile, "hashplus store\nversion +2\n", ErrForeign, "not one of hashplus"},
		{"older than all", formatFile, "hashplus store\nversion 0\n", ErrForeign, "not one of hashplus"},
		{"foreign directory", "precious.txt", "", ErrForeign, "it has precious.txt"},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, c.file), c.text)
		if err := open(dir); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", c.name, err)
		}
		if names, err := os.ReadDir(dir); len(names) != 1 || err != nil {
			t.Errorf("%s: %v, %v", c.name, names, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	if err := open(file); err == nil {
		t.Error("a file was opened")
	}
}

func TestFormat_EmptyDirectoriesAndWhatAnInterruptedStartLeftAreTaken(t *testing.T) {
	for _, names := range [][]string{{}, {"lost+found"}, {"LOCK"}, {"LOCK", pidFile, formatFile + ".new"}} {
		dir := t.TempDir()
		for _, name := range names {
			write(t, filepath.Join(dir, name), "")
		}
		if err := open(dir); err != nil {
			t.Errorf("%q: %v", names, err)
		}
	}
}

func TestFormat_NewDirectoryIsForItsOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if _, err := Open(dir, Options{ReadOnly: true}); !errors.Is(err, ErrMissing) {
		t.Fatal(err)
	}
	if err := open(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := open(dir); err != nil {
		t.Error(err)
	}
}

func TestFormat_OlderIsMigrated(t *testing.T) {
	dir := t.TempDir()
	d := openDisk(t, dir, Options{})
	commit(t, d, "old/1=x", "old/2=y")
	closeIt(t, d)
	write(t, filepath.Join(dir, formatFile), "hashplus store\nversion 1\n")

	step := migrations[1]
	defer func() { migrations[1] = step }()
	delete(migrations, 1)
	if err := open(dir); err == nil || !strings.Contains(err.Error(), "does not know how to change to 2") {
		t.Fatal(err)
	}
	runs, interrupted := 0, errors.New("interrupted")
	migrations[1] = func(s broker.Store) error {
		b := &broker.Batch{}
		if err := s.Scan([]byte("old/"), []byte("old0"), func(k, v []byte) bool {
			b.Set(append([]byte("new/"), k[4:]...), v)
			b.Delete(k)
			return true
		}); err != nil {
			return err
		}
		if runs++; runs == 1 {
			return interrupted
		}
		return applyAndWait(s, b)
	}
	if err := open(dir); !errors.Is(err, interrupted) {
		t.Fatal(err)
	}
	for range 2 { // once
		expect(t, openDiskOnce(t, dir), "new/1=x", "new/2=y")
	}
	if text, err := os.ReadFile(filepath.Join(dir, formatFile)); runs != 2 || string(text) != fmt.Sprintf("hashplus store\nversion %d\n", Version) {
		t.Errorf("%d runs, %q, %v", runs, text, err)
	}
}

// openDiskOnce is a store with what the one in dir holds, which is closed again.
func openDiskOnce(t *testing.T, dir string) broker.Store {
	t.Helper()
	d := openDisk(t, dir, Options{})
	m := NewMemory()
	for _, kv := range list(t, d, nil, nil) {
		commit(t, m, kv)
	}
	closeIt(t, d)
	return m
}

// A second process finds out who has the directory.
func TestFormat_SecondProcessIsRefused(t *testing.T) {
	if dir := os.Getenv("HASHPLUS_TEST_DIR"); dir != "" {
		if err := open(dir); err != nil {
			t.Log("refused:", err)
			return
		}
		t.Fatal("it was let in")
	}
	dir := t.TempDir()
	openDisk(t, dir, Options{})
	if err := open(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("the same process: %v", err)
	}
	c := exec.Command(os.Args[0], "-test.run=TestFormat_SecondProcessIsRefused", "-test.v")
	c.Env = append(os.Environ(), "HASHPLUS_TEST_DIR="+dir)
	out, err := c.CombinedOutput()
	if want := "refused: " + dir + " is in use by process " + strconv.Itoa(os.Getpid()); err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestFormat_DirectoryThatCannotBeWrittenSaysSo(t *testing.T) {
	dir := t.TempDir()
	if err := open(dir); err != nil {
		t.Fatal(err)
	}
	o := small
	o.FS = newFaults(readOnly{o.fs()}, os.ErrPermission, 1)
	_, err := Open(dir, o)
	if err == nil || !strings.Contains(err.Error(), "cannot write to "+dir) || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("%v", err)
	}
}

// Who only reads does not need to write: not even a lock, where nobody can.
func TestFormat_ReadOnlyFileSystemCanBeLookedInto(t *testing.T) {
	mem := vfs.NewMem()
	d := openFS(t, mem)
	commit(t, d, "a=1")
	closeIt(t, d)
	o := Options{FS: readOnly{mem}, ReadOnly: true, Logger: quiet}
	d, err := Open("data", o)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, d, "a=1")
	closeIt(t, d)
	if err := CheckFiles("data", Options{FS: readOnly{mem}}, func(what string) { t.Error(what) }, ignore); err != nil {
		t.Error(err)
	}
	o.ReadOnly = false
	if _, err := Open("data", o); err == nil || !strings.Contains(err.Error(), "cannot write to data") {
		t.Errorf("%v", err)
	}
}

func TestFormat_WhatIsNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	if err := open(file); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "is not a directory") {
		t.Errorf("%v", err)
	}
}
