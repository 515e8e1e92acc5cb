package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"hashplus/broker"
)

// logList says which logs there are, in the file LOGS beside them. pebble knows from
// its MANIFEST only from which number on it has to read logs: that one of them is
// missing it does not notice, nor that the MANIFEST has lost its latest records, as
// long as the tables that are left in it are there.
//
// The file is not made durable, so after a loss of power it may be an older one, or
// unreadable, which counts as none. An older one is right as well: what it says must
// be so is so for good.
type logList struct {
	gone    int           // logs up to this number are in tables, and were let go: the MANIFEST must not want them
	there   []int         // logs that were made, durably; those of them that the MANIFEST wants must be there
	durable map[int]int64 // bytes that were durable in them, at least
}

const logsText = "hashplus logs\n"

// encode is the list as text, with a checksum.
func (l *logList) encode() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%sgone %d\n", logsText, l.gone)
	for _, n := range l.there {
		fmt.Fprintf(&b, "log %d %d\n", n, l.durable[n])
	}
	return fmt.Sprintf("%ssum %08x\n", b.String(), crc32.Checksum([]byte(b.String()), castagnoli))
}

// decodeLogs reads what encode wrote; ok is false for anything else.
func decodeLogs(text string) (l logList, ok bool) {
	at := strings.LastIndex(text, "sum ")
	if at < 0 || text[at:] != fmt.Sprintf("sum %08x\n", crc32.Checksum([]byte(text[:at]), castagnoli)) {
		return l, false
	}
	lines, ours := strings.CutPrefix(text[:at], logsText)
	l.durable = map[int]int64{}
	for line := range strings.Lines(lines) {
		var n int
		var durable int64
		switch {
		case scan(line, "gone %d\n", &l.gone):
		case scan(line, "log %d %d\n", &n, &durable):
			l.there = append(l.there, n)
			l.durable[n] = durable
		}
	}
	return l, ours
}

func scan(line, format string, to ...any) bool {
	n, err := fmt.Sscanf(line, format, to...)
	return err == nil && n == len(to)
}

// readLogs is the list of dir. Where there is none that can be read, an empty one
// stands for it, which says nothing.
func readLogs(f vfs.FS, dir string) (l logList, err error) {
	text, err := readFile(f, f.PathJoin(dir, logsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	l, ok := decodeLogs(string(text))
	if !ok {
		l = logList{durable: map[int]int64{}}
	}
	return l, nil
}

// contradicts fails if the MANIFEST wants logs from number wanted on, and some of
// these were let go: it had said more.
func (l *logList) contradicts(manifest string, wanted int) error {
	if l.gone > 0 && wanted <= l.gone {
		return fmt.Errorf("%w: %s lacks its latest records, so tables that it does not list are needed", broker.ErrStoreDamaged, manifest)
	}
	return nil
}

// missing fails if a log from number wanted on is not in dir, or is shorter than
// what was durable of it.
func (l *logList) missing(f vfs.FS, dir string, wanted int) error {
	for _, n := range l.there {
		if n < wanted {
			continue
		}
		name := logName(n)
		info, err := f.Stat(f.PathJoin(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%w: %s is missing", broker.ErrStoreDamaged, name)
		case err != nil:
			return err
		case info.Size()+unread < l.durable[n]:
			return fmt.Errorf("%w: %s has %d bytes, and %d were durable", broker.ErrStoreDamaged, name, info.Size(), l.durable[n])
		}
	}
	return nil
}

// lacks fails if a log that has been read ends before what was durable of it.
func (l *logList) lacks(name string, j *journal) error {
	if durable := l.durable[int(j.log)]; int64(j.pos)+unread < durable {
		return fmt.Errorf("%w: %s can be read up to byte %d, and %d were durable", broker.ErrStoreDamaged, name, j.pos, durable)
	}
	return nil
}

// unread is what may be behind the last record of a log: padding, and the end that
// it gets when it is closed.
const unread = 64

func logName(n int) string { return fmt.Sprintf("%06d.log", n) }

// logBook keeps the list while the store is open. Any goroutine.
type logBook struct {
	mu    sync.Mutex // held while the list is written, which waits for no fsync
	dir   string     // empty where no list is kept
	list  logList
	files map[int]*guarded // the logs that were made since begin, and not let go
}

// begin keeps a list in dir from now on, which goes on from the one that is there.
func (b *logBook) begin(dir string, list logList) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dir, b.list, b.files = dir, list, map[int]*guarded{}
}

// opened says by which file a log is written.
func (b *logBook) opened(f *guarded) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n, ok := logNumber(f.name); ok && b.dir != "" {
		b.files[n] = f
	}
}

// made notes that the log of that number is there, durably.
func (b *logBook) made(g *guard, n int) {
	b.change(g, func(l *logList) bool {
		if !slices.Contains(l.there, n) {
			l.there = append(l.there, n)
		}
		return true
	})
}

// letGo notes that the log called name is not needed any more. It comes before the
// log is removed or used again.
func (b *logBook) letGo(g *guard, name string) {
	n, ok := logNumber(name)
	if !ok {
		return
	}
	b.change(g, func(l *logList) bool {
		l.gone = max(l.gone, n)
		l.there = slices.DeleteFunc(l.there, func(n int) bool { return n <= l.gone })
		maps.DeleteFunc(l.durable, func(n int, _ int64) bool { return n <= l.gone })
		maps.DeleteFunc(b.files, func(n int, _ *guarded) bool { return n <= l.gone })
		return true
	})
}

// progress notes what has become durable.
func (b *logBook) progress(g *guard) { b.change(g, func(*logList) bool { return false }) }

// change writes the list anew if f has changed it, or more is durable. An error
// poisons the store.
func (b *logBook) change(g *guard, f func(*logList) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dir == "" || g.fault() != nil {
		return
	}
	changed := f(&b.list)
	for _, n := range b.list.there {
		if file := b.files[n]; file != nil && file.durable.Load() > b.list.durable[n] {
			b.list.durable[n], changed = file.durable.Load(), true
		}
	}
	if !changed {
		return
	}
	name := g.PathJoin(b.dir, logsFile)
	file, err := g.Create(name+".new", vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = file.Write([]byte(b.list.encode()))
		err = errors.Join(err, file.Close())
	}
	if err == nil {
		_ = g.Rename(name+".new", name) // an error has poisoned the store
	}
}

// logNumber is that in the name of a log.
func logNumber(name string) (n int, ok bool) {
	number, _, ok := wal.ParseLogFilename(path.Base(name))
	return int(number), ok
}
