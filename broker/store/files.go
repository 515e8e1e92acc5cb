package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"

	"hashplus/broker"
)

// files are those of a database that is not open.
type files struct {
	fs       vfs.FS
	dir      string
	options  *pebble.Options
	tables   []string // those that are in use, if that is known
	unlisted []string // those that are not, as far as that is known; most often they are about to be removed
	logs     []string // oldest first
	list     logList
	noList   bool // there is no file LOGS
	holes    bool // the newest log was written without fsyncs

	// What is wrong with files of which there is one; nil if nothing is.
	format   error // FORMAT
	logList  error // LOGS
	listing  error // the MANIFEST: all tables and logs that are there are taken for those in use
	logsGone error // logs that are missing
}

// openFiles looks into dir, which no process may have open; lock is held on it.
func openFiles(f vfs.FS, dir string, lock *pebble.Lock) (*files, error) {
	d := &files{fs: f, dir: dir}
	d.options = pebbleOptions(newGuard(f, SyncAlways), &Options{Logger: slog.New(slog.DiscardHandler)})
	d.options.Logger = panicLogger{}
	d.options.ReadOnly, d.options.DisableConsistencyCheck, d.options.Lock = true, true, lock
	d.options.EnsureDefaults()
	list, known, err := readLogs(f, dir)
	switch {
	case errors.Is(err, broker.ErrStoreDamaged):
		d.logList = err
	case err != nil:
		return nil, err
	}
	d.list, d.noList = list, !known && err == nil
	if d.holes, err = hasHoles(f, dir); err != nil {
		return nil, err
	}
	manifest, wanted, err := checkManifest(f, dir, d.list)
	switch {
	case errors.Is(err, broker.ErrStoreDamaged):
		d.listing = err
	case err != nil:
		return nil, err
	case manifest == "" && d.logList == nil:
		return nil, errUnfinished(dir)
	default:
		d.listing = d.listTables()
	}
	names, err := f.List(dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	tables := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !isTable(name) })
	if d.listing != nil {
		d.tables = tables
		d.logs = slices.DeleteFunc(names, func(name string) bool { return !isLog(name) })
		return d, nil
	}
	d.unlisted = slices.DeleteFunc(tables, func(name string) bool { return slices.Contains(d.tables, name) })
	d.logsGone = d.list.missing(f, dir, wanted)
	d.logs, err = wantedLogs(f, dir, wanted)
	return d, err
}

// errUnfinished is about a directory that a first start was interrupted in. Another
// one goes on there.
func errUnfinished(dir string) error {
	return fmt.Errorf("%w in %s: it has not been more than begun", ErrMissing, dir)
}

// listTables fills in the tables that are in use, be they there or not.
func (d *files) listTables() error {
	err := d.askForTables()
	if version, _ := atomicfs.ReadMarker(d.fs, d.dir, "format-version"); err == nil && version == "" {
		// It may be missing where the first start was interrupted, and only there.
		if err = d.open(d.fs, func(*pebble.DB) error { return nil }); !errors.Is(err, pebble.ErrDBNotPristine) {
			return nil
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pebble.ErrDBNotPristine):
		return errNoFormatMarker
	}
	return fmt.Errorf("%w: which tables are in use cannot be read: %w", broker.ErrStoreDamaged, inOneLine(err))
}

// askForTables has pebble open the tables without a log, and list them.
func (d *files) askForTables() error {
	v := &view{FS: d.fs}
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
func (d *files) open(v vfs.FS, f func(*pebble.DB) error) (err error) {
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
	readable, err := sstable.NewSimpleReadable(&tableFile{File: file})
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, d.options.MakeReaderOptions())
	if err != nil {
		return nil, errors.Join(err, readable.Close())
	}
	return r, nil
}

// view is a file system without logs and with files that are not there.
type view struct {
	vfs.FS
	shown []string
}

// List implements vfs.FS.
func (v *view) List(dir string) ([]string, error) {
	names, err := v.FS.List(dir)
	names = slices.DeleteFunc(names, isLog)
	return append(names, v.shown...), err
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
	_, exists, formatErr := readVersion(o.FS, dir)
	if formatErr != nil && !errors.Is(formatErr, broker.ErrStoreDamaged) {
		return formatErr
	} else if formatErr == nil && !exists {
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
	d.format = formatErr
	return f(d)
}

// CheckFiles reads every table, log and list of the store in dir, which must not
// be open, and calls found for each thing that is damaged or missing, and noted for
// what a start lives with. It changes nothing. What the records mean is not looked at.
func CheckFiles(dir string, o Options, found, noted func(what string)) error {
	return locked(dir, &o, func(d *files) error {
		return d.check(found, noted)
	})
}

// CheckCopy is CheckFiles for a copy that nobody uses yet: it makes no file to be
// locked in it, which might be another user's.
func CheckCopy(dir string, o Options, found, noted func(what string)) error {
	o.EnsureDefaults()
	o.FS = lockless{o.FS}
	return CheckFiles(dir, o, found, noted)
}

func (d *files) check(found, noted func(what string)) error {
	for _, err := range []error{d.format, d.logList, d.listing, d.logsGone} {
		if err != nil {
			found(whatIs(err))
		}
	}
	if d.noList {
		noted(noLogs)
	}
	list := d.list
	if d.logsGone != nil {
		list = logList{} // that says it
	}
	for i, name := range d.logs {
		cut, err := checkLog(d.fs, d.dir, name, list, i == len(d.logs)-1, d.holes)
		if errors.Is(err, fs.ErrPermission) {
			return err // it tells nothing of what the file holds
		}
		if err != nil {
			found(whatIs(err))
		}
		if cut != nil {
			noted(fmt.Sprintf("%s: it has holes, as it was written without fsync, and a start cuts it at the first; a salvage has what is behind it, too", cut))
		}
	}
	for _, name := range d.tables {
		err := d.checkTable(name)
		if errors.Is(err, fs.ErrPermission) {
			return err
		}
		if err != nil {
			found(fmt.Sprintf("%s: %v", name, err))
		}
	}
	return nil
}

func (d *files) checkTable(name string) error {
	r, err := d.table(name)
	if err != nil {
		return tableError(name, err)
	}
	return tableError(name, errors.Join(r.ValidateBlockChecksums(), r.Close()))
}

// tableError gives an error of pebble's about a table the number of it, which it was
// not told, and a text of one line.
func tableError(name string, err error) error {
	if err == nil {
		return nil
	}
	one := inOneLine(err)
	return oneLine{strings.ReplaceAll(one.Error(), "000000", strings.TrimSuffix(name, ".sst")), one}
}

// whatIs is what an error says is damaged.
func whatIs(err error) string {
	return strings.TrimPrefix(err.Error(), broker.ErrStoreDamaged.Error()+": ")
}
