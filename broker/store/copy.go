package store

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Copy copies the store in src, which must not be open, to a new directory dst,
// whatever its format is and whether or not it is damaged. src is not changed. Tables
// are linked where they can be.
func Copy(src, dst string, o Options) error {
	o.EnsureDefaults()
	if _, err := o.FS.Stat(dst); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot copy to %s: %w", dst, errors.Join(fs.ErrExist, err))
	}
	return locked(src, &o, func(d *files) error {
		err := d.copyTo(dst)
		if err != nil {
			err = errors.Join(err, o.FS.RemoveAll(dst))
		}
		return err
	})
}

// copyTo copies all that is of the store. PID is: it helps to know one whose FORMAT
// is damaged.
func (d *files) copyTo(dst string) error {
	names, err := d.fs.List(d.dir)
	if err != nil {
		return err
	}
	if err := makeDir(d.fs, dst); err != nil {
		return err
	}
	format := false
	for _, name := range names {
		to := d.fs.PathJoin(dst, name)
		switch {
		case isTable(name):
			err = vfs.LinkOrCopy(d.fs, d.path(name), to)
		case isLog(name) || name == logsFile || name == unsyncedFile || name == pidFile || isList(name):
			err = vfs.Copy(d.fs, d.path(name), to)
		case name == formatFile:
			format = true
		}
		if err != nil {
			return fmt.Errorf("cannot copy %s: %w", name, err)
		}
	}
	if format { // last: nobody takes half a copy for one
		err = vfs.Copy(d.fs, d.path(formatFile), d.fs.PathJoin(dst, formatFile))
	}
	return errors.Join(err, syncDir(d.fs, dst))
}

// isList says whether a file of that name is one of those by which pebble finds its
// tables and logs.
func isList(name string) bool {
	for _, prefix := range []string{"MANIFEST-", "OPTIONS-", "marker."} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
