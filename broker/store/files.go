package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
)

// files are those of a database that is not open.
type files struct {
	fs       vfs.FS
	dir      string
	options  *pebble.Options
	manifest string
	tables   []string // those that are in use, if that is known
	logs     []string // oldest first
	known    bool     // else the MANIFEST cannot be read, and they are all that there are
}

// openFiles looks into dir, which no process may have open; lock is held on it.
func openFiles(f vfs.FS, dir string, lock *pebble.Lock) (*files, error) {
	d := &files{fs: f, dir: dir}
	d.options = pebbleOptions(newGuard(f, SyncAlways), &Options{Logger: slog.New(slog.DiscardHandler)})
	d.options.Logger = panicLogger{}
	d.options.ReadOnly, d.options.DisableConsistencyCheck, d.options.Lock = true, true, lock
	d.options.EnsureDefaults()
	var err error
	if d.manifest, err = atomicfs.ReadMarker(f, dir, "manifest"); err != nil {
		return nil, err
	}
	// Which tables are in use, pebble says when it opens them without a log; which
	// logs, when it opens all.
	if d.manifest != "" && d.listTables() == nil {
		d.known = true
		v := &view{FS: f}
		_ = d.open(v, func(*pebble.DB) error { return nil }) // what is wrong is found by whoever reads the logs
		d.logs = v.logs
		return d, nil
	}
	names, err := f.List(dir)
	d.tables, d.logs = nil, nil
	for _, name := range names {
		switch {
		case strings.HasSuffix(name, ".sst"):
			d.tables = append(d.tables, name)
		case strings.HasSuffix(name, ".log"):
			d.logs = append(d.logs, name)
		}
	}
	slices.Sort(d.tables)
	slices.Sort(d.logs)
	return d, err
}

// listTables fills in the tables that are in use, be they there or not.
func (d *files) listTables() error {
	v := &view{FS: d.fs, hideLogs: true}
	for {
		err := d.open(v, func(db *pebble.DB) error {
			levels, err := db.SSTables()
			if err != nil {
				return err
			}
			for _, tables := range levels {
				for _, t := range tables {
					d.tables = append(d.tables, t.FileNum.String()+".sst")
				}
			}
			return nil
		})
		if err == nil {
			return nil
		}
		// pebble lists none if one is missing, so that one is shown to it.
		m := missingTable.FindStringSubmatch(err.Error())
		if m == nil || slices.Contains(v.shown, m[1]+".sst") {
			return err
		}
		v.shown = append(v.shown, m[1]+".sst")
	}
}

var missingTable = regexp.MustCompile(`file (\d+) \(type sstable\) unknown`)

func (d *files) path(name string) string { return d.fs.PathJoin(d.dir, name) }

// open opens the database as v shows it, for f.
func (d *files) open(v *view, f func(*pebble.DB) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	o := d.options.Clone()
	o.FS = v
	db, err := pebble.Open(d.dir, o)
	if err != nil {
		return err
	}
	return errors.Join(f(db), db.Close())
}

// table opens one.
func (d *files) table(name string) (*sstable.Reader, error) {
	file, err := d.fs.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	readable, err := sstable.NewSimpleReadable(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, d.options.MakeReaderOptions())
	if err != nil {
		return nil, errors.Join(err, readable.Close())
	}
	return r, nil
}

// view is a file system without logs and with files that are not there, or one
// that notes which logs are read.
type view struct {
	vfs.FS
	hideLogs bool
	shown    []string

	mu   sync.Mutex
	logs []string
}

// List implements vfs.FS.
func (v *view) List(dir string) ([]string, error) {
	names, err := v.FS.List(dir)
	if v.hideLogs {
		names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, ".log") })
	}
	return append(names, v.shown...), err
}

// Open implements vfs.FS.
func (v *view) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if strings.HasSuffix(name, ".log") {
		v.mu.Lock()
		v.logs = append(v.logs, v.PathBase(name))
		v.mu.Unlock()
	}
	return v.FS.Open(name, opts...)
}

// Unwrap implements vfs.FS.
func (v *view) Unwrap() vfs.FS { return v.FS }

// panicLogger makes what is fatal to pebble an error of files.open.
type panicLogger struct{}

func (panicLogger) Infof(string, ...any)  {}
func (panicLogger) Errorf(string, ...any) {}
func (panicLogger) Fatalf(format string, args ...any) {
	panic(fmt.Errorf(format, args...))
}

// locked runs f with the directory, which must be a store, locked.
func locked(dir string, o *Options, f func(*files) error) (err error) {
	o.EnsureDefaults()
	if _, exists, err := readVersion(o.FS, dir); err != nil {
		return err
	} else if !exists {
		return fmt.Errorf("%w in %s", ErrMissing, dir)
	}
	l, err := lock(o.FS, dir, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	d, err := openFiles(o.FS, dir, l)
	if err != nil {
		return err
	}
	return f(d)
}

// CheckFiles reads every table, log and list of the store in dir, which must not
// be open, and calls found for each thing that is damaged or missing. It changes
// nothing. What the records mean is not looked at.
func CheckFiles(dir string, o Options, found func(what string)) error {
	return locked(dir, &o, func(d *files) error {
		if d.manifest == "" {
			found("the MANIFEST, which lists the tables, is missing")
		} else if _, err := checkJournal(d.fs, d.path(d.manifest)); err != nil {
			found(err.Error())
		} else if !d.known {
			found(d.manifest + " cannot be read: which tables are in use is not known")
		}
		_, err := d.fs.Stat(d.path(unsyncedFile))
		holes := err == nil
		for i, name := range d.logs {
			j, err := checkJournal(d.fs, d.path(name))
			last := i == len(d.logs)-1
			switch {
			case err != nil && (!last || !holes):
				found(err.Error())
			case !last && j.bad >= 0:
				found(fmt.Sprintf("%s is cut off at byte %d of %d, and there is a newer one", name, j.bad, len(j.data)))
			}
		}
		for _, name := range d.tables {
			if err := d.checkTable(name); err != nil {
				found(fmt.Sprintf("%s: %v", name, err))
			}
		}
		return nil
	})
}

func (d *files) checkTable(name string) (err error) {
	defer func() {
		if err != nil {
			err = inOneLine(err)
		}
	}()
	r, err := d.table(name)
	if err != nil {
		return err
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}
