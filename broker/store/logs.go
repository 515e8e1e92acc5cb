package store

import (
	"cmp"
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
// What is in the file is durable before it has the name, which is not made durable:
// after a loss of power it may be an older one. That is right as well, as what the
// list says must be so is so for good. So an error in writing it is none of the store.
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

// readLogs is the list of dir; known is false if there is none, which says nothing.
func readLogs(f vfs.FS, dir string) (l logList, known bool, err error) {
	text, err := readFile(f, f.PathJoin(dir, logsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return l, false, nil
	}
	if err != nil {
		return l, false, err
	}
	if l, known = decodeLogs(string(text)); !known {
		return logList{}, false, fmt.Errorf("%w: the file %s, which says how much of each log was durable, cannot be read", broker.ErrStoreDamaged, logsFile)
	}
	return l, true, nil
}

// writeLogs makes the list of a directory to which nobody writes.
func writeLogs(f vfs.FS, dir string) error {
	_, wanted, err := checkManifest(f, dir, logList{})
	if err != nil {
		return err
	}
	names, err := wantedLogs(f, dir, wanted)
	l := logList{gone: wanted - 1, durable: map[int]int64{}}
	for _, name := range names {
		j, err := checkJournal(f, f.PathJoin(dir, name), nil)
		if err != nil {
			return err
		}
		l.there = append(l.there, int(j.log))
		l.durable[int(j.log)] = j.readable()
	}
	return cmp.Or(err, writeFile(f, f.PathJoin(dir, logsFile), l.encode()))
}

// noLogs is what a store without the list is said about.
const noLogs = "the file " + logsFile + " is missing, so that a log is missing, or cut off, might not be noticed"

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
		case info.Size()+trailerLength < l.durable[n]:
			return fmt.Errorf("%w: %s has %d bytes, and %d were durable", broker.ErrStoreDamaged, name, info.Size(), l.durable[n])
		}
	}
	return nil
}

// lacks fails if a log that has been read ends before what was durable of it.
func (l *logList) lacks(name string, j *journal) error {
	if durable := l.durable[int(j.log)]; !j.closed && l.had(j, j.readable()) {
		return fmt.Errorf("%w: %s can be read up to byte %d, and %d were durable", broker.ErrStoreDamaged, name, j.readable(), durable)
	}
	return nil
}

// had says whether a record that begins in a log at that byte was durable.
func (l *logList) had(j *journal, at int64) bool {
	return at+trailerLength < l.durable[int(j.log)]
}

func logName(n int) string { return fmt.Sprintf("%06d.log", n) }

// logBook keeps the list while the store is open. Any goroutine.
type logBook struct {
	mu      sync.Mutex // held while the list is written
	dir     string     // empty where no list is kept
	list    logList
	written bool             // the file has what list has
	files   map[int]*guarded // the logs that were made since begin, and not let go
}

// begin keeps a list in dir from now on, which goes on from the one that is there.
func (b *logBook) begin(dir string, list logList) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dir, b.list, b.files = dir, list, map[int]*guarded{}
	if list.durable == nil {
		b.list.durable = map[int]int64{}
	}
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

// change writes the list anew if f has changed it, or more is durable.
func (b *logBook) change(g *guard, f func(*logList) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dir == "" || g.fault() != nil || b.gone(g) {
		return
	}
	changed := f(&b.list)
	for _, n := range b.list.there {
		if file := b.files[n]; file != nil && file.durable.Load() > b.list.durable[n] {
			b.list.durable[n], changed = file.durable.Load(), true
		}
	}
	if !changed && b.written {
		return
	}
	name := g.PathJoin(b.dir, logsFile)
	b.written = g.read(func() error { // errors are not the store's
		err := writeFile(g.FS, name+".new", b.list.encode())
		if err == nil {
			return g.FS.Rename(name+".new", name)
		}
		_ = g.FS.Remove(name + ".new") // the next one is made anew
		return err
	}) == nil
}

// gone poisons the store if its directory is not there any more: what is written
// goes to files without a name, which nobody will find.
func (b *logBook) gone(g *guard) bool {
	name := g.PathJoin(b.dir, formatFile)
	err := g.read(func() error {
		_, err := g.FS.Stat(name)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		_ = g.poison(fmt.Errorf("%s is not there any more", name)) // the first error counts
		return true
	}
	return false
}

// logNumber is that in the name of a log.
func logNumber(name string) (n int, ok bool) {
	number, _, ok := wal.ParseLogFilename(path.Base(name))
	return int(number), ok
}
