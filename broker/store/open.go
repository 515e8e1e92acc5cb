package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"time"

	crdb "github.com/cockroachdb/errors"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/wal"

	"hashplus/broker"
)

// Open opens the store in dir, which is made if it does not exist. The errors
// of this package and broker.ErrStoreDamaged tell what is in the way.
func Open(dir string, o Options) (*Disk, error) {
	o.EnsureDefaults()
	g := newGuard(o.FS, o.Sync)
	in, err := openGuarded(dir, g, &o)
	if err != nil {
		return nil, err
	}
	d := &Disk{
		dir: dir, opts: o, guard: g, db: in.db, lock: in.lock,
		commits: make(chan *pebble.Batch), done: make(chan error, 1), quit: make(chan struct{}),
		tend: make(chan struct{}, 1), note: make(chan struct{}, 1),
	}
	d.idle.Add(1)
	go d.commitLoop()
	if !o.ReadOnly {
		d.idle.Add(1)
		go d.noteLoop()
	}
	if o.Sync.Every > 0 {
		d.idle.Add(1)
		go d.syncLoop()
	}
	err = migrate(g, dir, in.version, d, o.Logger)
	if err := cmp.Or(g.fault(), err); err != nil { // the guard hides its own
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// instance is an open database.
type instance struct {
	db      *pebble.DB
	lock    *pebble.Lock
	version int // of the format, as it was found
}

// openGuarded opens the database in dir, or fails in bounded time with nothing
// of it left.
func openGuarded(dir string, g *guard, o *Options) (instance, error) {
	type result struct {
		in  instance
		err error
	}
	opened := make(chan result, 1)
	go func() {
		in, err := openPebble(dir, g, o)
		if fault := g.fault(); fault != nil {
			g.release()
			if err == nil {
				_ = closePebble(in.db) // what is wrong is known
			}
			err = fault
		}
		opened <- result{in, err}
	}()
	var r result
	returned := true
	select {
	case r = <-opened:
	case <-g.poisoned:
		select { // pebble goes on in the shadow, and is closed
		case r = <-opened:
		case <-time.After(closePoisonTimeout):
			r.err, returned = g.fault(), false
		}
	}
	if r.err == nil {
		g.advance(serving)
		return r.in, nil
	}
	err := errors.Join(r.err, g.sever(severTimeout))
	if !returned {
		err = errors.Join(err, abandon(nil))
	}
	return instance{}, err
}

func openPebble(dir string, g *guard, o *Options) (in instance, err error) {
	defer func() { // pebble panics for some of what it finds
		if r := recover(); r != nil {
			in, err = instance{}, fmt.Errorf("%v", r)
		}
	}()
	_, exists, err := readVersion(g, dir) // first, so that nothing is put into a foreign directory
	if err != nil {
		return in, err
	}
	if !exists {
		if o.ReadOnly || o.MustExist {
			return in, fmt.Errorf("%w in %s", ErrMissing, dir)
		}
		if err := makeDir(g, dir); err != nil {
			return in, err
		}
	}
	l, err := lock(g, dir, o.ReadOnly)
	if err != nil {
		return in, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	version, exists, err := readVersion(g, dir) // nobody else can change it now
	if err != nil {
		return in, err
	}
	if o.ReadOnly {
		return openReadOnly(dir, version, g, o, l)
	}
	if !exists {
		version = Version
		if err := writeVersion(g, dir, version); err != nil {
			return in, err
		}
	}
	list, err := prepareLogs(dir, g, o)
	if err != nil {
		return in, err
	}
	g.book.begin(dir, list)
	if err := roomToOpen(dir, g, o); err != nil {
		return in, err
	}
	if err := writeFile(g, g.PathJoin(dir, pidFile), pid()); err != nil { // nothing is changed before
		return in, err
	}
	po := pebbleOptions(g, o)
	po.Lock = l
	g.advance(opening)
	db, err := pebble.Open(dir, po)
	if err == nil && !exists && g.fault() == nil {
		// The log of a new database is begun in pebble's oldest format, which does
		// not say what was durable. The next one is not.
		if err := closePebble(db); err != nil {
			return in, err
		}
		db, err = pebble.Open(dir, po)
	}
	if err != nil {
		return in, damageOf(err)
	}
	// What the log held is in tables now.
	if err := setMark(g, dir, unsyncedFile, o.Sync != SyncAlways); err != nil {
		return in, errors.Join(err, closePebble(db))
	}
	return instance{db, l, version}, nil
}

func openReadOnly(dir string, version int, g *guard, o *Options, l *pebble.Lock) (in instance, err error) {
	if version != Version {
		return in, fmt.Errorf("%s has format %d; a broker that is started on it changes it to %d", dir, version, Version)
	}
	j, err := checkJournals(g, dir)
	if err != nil {
		return in, err
	}
	if j.manifest == "" {
		return in, errUnfinished(dir)
	}
	po := pebbleOptions(g, o)
	po.ReadOnly, po.Lock = true, l
	if j.cut != nil {
		po.FS = j.cut
	}
	g.advance(opening)
	db, err := pebble.Open(dir, po)
	if err != nil {
		return in, damageOf(err)
	}
	return instance{db, l, version}, nil
}

// errNoFormatMarker is pebble's complaint about it.
var errNoFormatMarker = fmt.Errorf("%w: the file marker.format-version.* is missing", broker.ErrStoreDamaged)

// damageOf is the error for what pebble.Open could not do, other than to read or
// write a file.
func damageOf(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if errors.Is(err, pebble.ErrDBNotPristine) {
		return errNoFormatMarker
	}
	if details := crdb.FlattenDetails(err); details != "" {
		err = fmt.Errorf("%w (%s)", err, details)
	}
	return fmt.Errorf("%w: %w", broker.ErrStoreDamaged, inOneLine(err))
}

// roomToOpen fails if there is no space for the tables into which the logs are to
// be written: they would be read into memory, only to fail.
func roomToOpen(dir string, g *guard, o *Options) error {
	free, err := o.free(dir)
	if err != nil {
		return nil //nolint:nilerr // it is not known; an error of a write says so as well
	}
	logs, err := wal.Scan(wal.Dir{FS: g, Dirname: dir})
	if err != nil {
		return err
	}
	need := uint64(1 << 20)
	for _, l := range logs {
		size, err := l.PhysicalSize()
		if err != nil {
			return err
		}
		need += size
	}
	if free < need {
		return fmt.Errorf("no space on the file system of %s: %d bytes are free, %d are needed to open it", dir, free, need)
	}
	return nil
}

// prepareLogs looks for damage that pebble would take for the end of a log, and cuts
// off what is behind a hole. It says what list of the logs there is.
func prepareLogs(dir string, g *guard, o *Options) (list logList, err error) {
	j, err := checkJournals(g, dir)
	if err != nil {
		return list, err
	}
	if j.noList && j.manifest != "" {
		o.Logger.Warn("damage might not be noticed at this start", "cause", noLogs)
	}
	if j.cut != nil {
		o.Logger.Warn("the log had holes, as it was written without fsync; it was cut at the first", "at", j.cut)
		err = replaceFile(g, dir, j.cut.name, j.cut.data)
	}
	return j.list, err
}
