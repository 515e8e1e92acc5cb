package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"hashplus/broker"
	"hashplus/broker/record"
)

// Files of a store beside pebble's own.
const (
	// formatFile makes a directory a store and says in which format its keys,
	// values and files are. It is made before anything else.
	formatFile = "FORMAT"
	// pidFile names the process that has the store open, for error messages. What
	// keeps others out is pebble's lock.
	pidFile = "PID"
	// unsyncedFile is there while the log is written without an fsync before each
	// commit is promised. After the loss of power such a log may have holes.
	unsyncedFile = "UNSYNCED"
	// logsFile is written by logBook.
	logsFile = "LOGS"
	// ControlSocket is where a broker that has the store open takes commands.
	ControlSocket = "control.sock"
)

// Version is the format that this package writes: that of the records in it. What
// changes in pebble's own files it changes itself.
const Version = record.Format

// oldest is the first format that there was.
const oldest = 1

const formatText = "hashplus store\nversion "

// Errors that Open returns wrapped.
var (
	ErrInUse   = errors.New("in use")            // another process has it open
	ErrForeign = errors.New("not a store")       // a directory with something else
	ErrNewer   = errors.New("a newer format")    // made by a newer hashplus
	ErrMissing = errors.New("there is no store") // and it was not to be made
)

// readVersion is the version of the store in dir, 0 and ok == false if dir is
// empty, so that a store can be made there.
func readVersion(f vfs.FS, dir string) (version int, ok bool, err error) {
	text, err := readFile(f, f.PathJoin(dir, formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		names, err := f.List(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return 0, false, nil
		}
		if i := slices.IndexFunc(names, func(name string) bool {
			// What is left when a first start is interrupted; the root of a file system.
			return !slices.Contains([]string{"LOCK", pidFile, formatFile + ".new", "lost+found"}, name)
		}); i >= 0 {
			if isOurs(names) {
				return 0, false, fmt.Errorf("%w: the file %s is missing", broker.ErrStoreDamaged, formatFile)
			}
			return 0, false, fmt.Errorf("%w: %s is not empty (it has %s) and has no file %s", ErrForeign, dir, names[i], formatFile)
		}
		return 0, false, err
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return 0, false, fmt.Errorf("%w: %s is not a directory", ErrForeign, dir)
	}
	if err != nil {
		return 0, false, err
	}
	number, known := strings.CutPrefix(strings.TrimSuffix(string(text), "\n"), formatText)
	version, err = strconv.Atoi(number)
	switch {
	case !known || err != nil || version < oldest || strconv.Itoa(version) != number:
		if names, err := f.List(dir); err == nil && isOurs(names) {
			return 0, false, fmt.Errorf("%w: the file %s says no version", broker.ErrStoreDamaged, formatFile)
		}
		return 0, false, fmt.Errorf("%w: the file %s in %s is not one of hashplus", ErrForeign, formatFile, dir)
	case version > Version:
		return 0, false, fmt.Errorf("%s has %w: %d, and this hashplus knows up to %d", dir, ErrNewer, version, Version)
	}
	return version, true, nil
}

// isOurs says whether a directory with these files is a store though its FORMAT says
// nothing: pebble's files are in it, and one that only a broker makes beside them.
func isOurs(names []string) bool {
	return (slices.Contains(names, pidFile) || slices.Contains(names, logsFile)) && slices.ContainsFunc(names, func(name string) bool {
		return isTable(name) || isLog(name) || strings.HasPrefix(name, "MANIFEST-")
	})
}

// writeVersion makes the store in dir one of version v, durably.
func writeVersion(f vfs.FS, dir string, v int) error {
	name := f.PathJoin(dir, formatFile)
	if err := writeFile(f, name+".new", formatText+strconv.Itoa(v)+"\n"); err != nil {
		return err
	}
	if err := f.Rename(name+".new", name); err != nil {
		return err
	}
	return syncDir(f, dir)
}

// lock keeps other processes out of dir. Who only reads does without where nothing
// can be written: nobody else can have the store open there either.
func lock(f vfs.FS, dir string, onlyReads bool) (*pebble.Lock, error) {
	l, err := pebble.LockDirectory(dir, f)
	if onlyReads && errors.Is(err, syscall.EROFS) {
		l, err = pebble.LockDirectory(dir, lockless{f})
	}
	var path *fs.PathError
	switch {
	case errors.As(err, &path): // the file cannot be made: a read-only file system, permissions
		return nil, fmt.Errorf("cannot write to %s: %w", dir, err)
	case err != nil:
		if errors.Is(err, syscall.EAGAIN) {
			return nil, inUse(f, dir)
		}
		return nil, fmt.Errorf("%w (%w)", inUse(f, dir), err)
	}
	return l, nil
}

// InUse is the error for dir if another process has it open.
func InUse(dir string) error { return inUse(vfs.Default, dir) }

func inUse(f vfs.FS, dir string) error {
	holder := "another process"
	if pid, err := readFile(f, f.PathJoin(dir, pidFile)); err == nil && len(pid) > 1 {
		holder = "process " + string(bytes.TrimSpace(pid))
	}
	return fmt.Errorf("%s is %w by %s", dir, ErrInUse, holder)
}

// lockless is a file system in which everybody gets a lock.
type lockless struct{ vfs.FS }

// Lock implements vfs.FS.
func (lockless) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// hasHoles says whether the newest log was written without fsyncs.
func hasHoles(f vfs.FS, dir string) (bool, error) {
	_, err := f.Stat(f.PathJoin(dir, unsyncedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// setMark makes the file name in dir exist, or not, durably.
func setMark(f vfs.FS, dir, name string, on bool) error {
	path := f.PathJoin(dir, name)
	_, err := f.Stat(path)
	switch {
	case err == nil && !on:
		err = f.Remove(path)
	case errors.Is(err, fs.ErrNotExist) && on:
		err = writeFile(f, path, "")
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(f, dir)
}

func readFile(f vfs.FS, name string) (text []byte, err error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	text, err = io.ReadAll(file)
	return text, errors.Join(err, file.Close())
}

func writeFile(f vfs.FS, name, text string) error {
	file, err := f.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = file.Write([]byte(text))
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func syncDir(f vfs.FS, dir string) error {
	d, err := f.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes dir, for its owner only.
func makeDir(f vfs.FS, dir string) error {
	if err := f.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(f, f.PathDir(dir))
}

func pid() string { return strconv.Itoa(os.Getpid()) + "\n" }
