package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/sstable"

	"hashplus/broker"
)

// Salvage copies what can be read of the store in src, which must not be open,
// to a new one in dst, and calls lost for what it could not read, or knows not
// to be right, and noted for what it cannot know. src is not changed. It takes
// memory for each key, and reads everything twice.
//
// Of each key the newest version that can be read counts, so where a newer one is
// lost, an older one, or one that had been deleted, may be there again.
func Salvage(src, dst string, o Options, lost, noted func(what string)) (keys int, err error) {
	o.EnsureDefaults()
	if _, err := o.FS.Stat(dst); !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("cannot salvage to %s: %w", dst, errors.Join(fs.ErrExist, err))
	}
	err = locked(src, &o, func(d *files) error {
		s := &salvage{files: d, lost: lost, newest: map[string]version{}}
		if d.noList {
			noted(noLogs)
		}
		s.preamble()
		s.read()
		if s.denied != nil {
			return s.denied
		}
		s.applyRanges()
		out, err := Open(dst, Options{FS: o.FS, Logger: o.Logger})
		if err != nil {
			return err
		}
		keys, err = s.write(out)
		if err = errors.Join(err, out.Close()); err != nil {
			return err
		}
		if v, ok, err := readVersion(o.FS, src); err == nil && ok && v < Version {
			return writeVersion(o.FS, dst, v) // what was read is of that version
		}
		return nil
	})
	return keys, err
}

// preamble says what is wrong with the files of which there is one, and takes all
// tables if it is not certain which of them count.
func (s *salvage) preamble() {
	if s.format != nil {
		s.lost(fmt.Sprintf("%s; the records were taken to be of format %d", whatIs(s.format), Version))
	}
	if s.logList != nil {
		s.lost(whatIs(s.logList))
	}
	if s.listing != nil {
		s.lost(whatIs(s.listing) + "; all tables that are there were taken, so what had been deleted or changed may be there as it was")
	}
	if s.logsGone != nil {
		s.lost(whatIs(s.logsGone))
	}
	if s.listing == nil && slices.ContainsFunc(s.tables, func(name string) bool {
		_, err := s.fs.Stat(s.path(name))
		return errors.Is(err, fs.ErrNotExist)
	}) {
		s.tables = append(s.tables, s.unlisted...) // the latest changes of the list may be lost, too
	}
}

// salvage puts together what is in tables and logs.
type salvage struct {
	*files
	lost   func(what string)
	denied error // a file is there, and may not be read
	newest map[string]version
	ranges []rangeDeletion
}

// version is one of a key. Commits are numbered; what was once compacted to the
// lowest level has number 0, and is the oldest.
type version struct {
	seq  uint64
	kind pebble.InternalKeyKind
}

type rangeDeletion struct {
	from, to []byte
	seq      uint64
}

// entry is called for each version of a key that can be read.
type entry func(key []byte, v version, value []byte)

// read finds the newest version of each key.
func (s *salvage) read() {
	s.each(s.lost, func(key []byte, v version, value []byte) {
		if v.kind == pebble.InternalKeyKindRangeDelete {
			s.ranges = append(s.ranges, rangeDeletion{bytes.Clone(key), bytes.Clone(value), v.seq})
		} else if old, ok := s.newest[string(key)]; !ok || v.seq >= old.seq {
			s.newest[string(key)] = v
		}
	})
}

// applyRanges takes out what was deleted.
func (s *salvage) applyRanges() {
	slices.SortFunc(s.ranges, func(a, b rangeDeletion) int { return bytes.Compare(a.from, b.from) })
	keys := make([]string, 0, len(s.newest))
	for k, v := range s.newest {
		if v.kind == pebble.InternalKeyKindSet || v.kind == pebble.InternalKeyKindSetWithDelete {
			keys = append(keys, k)
		} else {
			delete(s.newest, k)
		}
	}
	slices.Sort(keys)
	var active []rangeDeletion
	next := 0
	for _, k := range keys {
		key := []byte(k)
		for ; next < len(s.ranges) && bytes.Compare(s.ranges[next].from, key) <= 0; next++ {
			active = append(active, s.ranges[next])
		}
		active = slices.DeleteFunc(active, func(r rangeDeletion) bool { return bytes.Compare(r.to, key) <= 0 })
		if slices.ContainsFunc(active, func(r rangeDeletion) bool { return r.seq > s.newest[k].seq }) {
			delete(s.newest, k)
		}
	}
}

// write copies the newest versions.
func (s *salvage) write(out broker.Store) (keys int, err error) {
	var b broker.Batch
	flush := func(least int) {
		if err == nil && b.Size() >= least {
			err = applyAndWait(out, &b)
			b.Reset()
		}
	}
	s.each(func(string) {}, func(key []byte, v version, value []byte) {
		if want, ok := s.newest[string(key)]; err != nil || !ok || want != v {
			return
		}
		b.Set(key, value)
		keys++
		delete(s.newest, string(key)) // another file may have it, too
		flush(4 << 20)
	})
	flush(1)
	return keys, err
}

// each reads all sources.
func (s *salvage) each(lost func(string), f entry) {
	for _, name := range s.tables {
		s.readTable(name, lost, f)
	}
	for i, name := range s.logs {
		s.readLog(name, i == len(s.logs)-1, lost, f)
	}
}

// readLog goes on behind what is damaged with the next block.
func (s *salvage) readLog(name string, newest bool, lost func(string), f entry) {
	j, err := openJournal(s.fs, s.path(name))
	if err != nil {
		s.deny(err)
		lost(fmt.Sprintf("%s: %v", name, err))
		return
	}
	end, told := 0, -1 // of what could be read; the last place that was told of
	for {
		repr, ok := j.next()
		if ok {
			end = j.pos
			readBatch(repr, f)
			continue
		}
		if j.bad < 0 {
			break
		}
		// The newest log may end anywhere behind what was durable.
		if j.damaged() || s.list.had(j, int64(j.bad)) {
			told = j.bad
			lost(fmt.Sprintf("%s: what is at byte %d", name, j.bad))
		}
		j.skip()
	}
	j.pos = end // it may have been skipped over what is bad
	lacks := s.logsGone == nil && s.list.lacks(name, j) != nil
	if told < end && (lacks || !newest && !j.closed && end > 0) {
		lost(fmt.Sprintf("%s: what was behind byte %d", name, end))
	}
}

// deny keeps an error that tells nothing of what the file holds.
func (s *salvage) deny(err error) {
	if errors.Is(err, fs.ErrPermission) {
		s.denied = cmp.Or(s.denied, err)
	}
}

func readBatch(repr []byte, f entry) {
	h, ok := batchrepr.ReadHeader(repr)
	if !ok {
		return
	}
	r := batchrepr.Read(repr)
	for seq := uint64(h.SeqNum); ; seq++ {
		kind, key, value, ok, err := r.Next()
		if !ok || err != nil {
			return
		}
		f(key, version{seq, kind}, value)
	}
}

// skip goes to the first whole record behind what is bad.
func (j *journal) skip() {
	for p := j.bad + 1; p < len(j.data); p++ {
		if c, state := j.chunkBehind(p); state == chunkGood && (c.part == wholeRecord || c.part == firstPart) {
			j.pos, j.bad = p, -1
			return
		}
	}
	j.pos, j.bad = len(j.data), -1
}

// readTable reads what it can of a table.
func (s *salvage) readTable(name string, lost func(string), f entry) {
	r, err := s.table(name)
	if err != nil {
		s.deny(err)
		lost(fmt.Sprintf("%s, all of it: %v", name, tableError(name, err)))
		return
	}
	defer r.Close() //nolint:errcheck // it was only read
	if err := rangeDeletions(r, f); err != nil {
		lost(fmt.Sprintf("%s, which ranges it deletes: %v", name, tableError(name, err)))
	}
	from := []byte{}
	for from != nil {
		last, err := readFrom(r, from, f)
		if err == nil {
			return
		}
		if last == nil {
			last = from
		}
		from = readableAfter(r, last)
		lost(fmt.Sprintf("%s, %s: %v", name, between(last, from), tableError(name, err)))
	}
}

// between says in which part of a table something is lost; to is nil for its end.
func between(from, to []byte) string {
	if to == nil {
		return fmt.Sprintf("all keys from %q on", from)
	}
	return fmt.Sprintf("keys between %q and %q", from, bytes.TrimRight(to, "\x00"))
}

func rangeDeletions(r *sstable.Reader, f entry) error {
	it, err := r.NewRawRangeDelIter(context.Background(), sstable.NoFragmentTransforms, sstable.NoReadEnv)
	if it == nil || err != nil {
		return err
	}
	defer it.Close()
	span, err := it.First()
	for ; span != nil && err == nil; span, err = it.Next() {
		for _, k := range span.Keys {
			f(span.Start, version{uint64(k.SeqNum()), pebble.InternalKeyKindRangeDelete}, span.End)
		}
	}
	return err
}

// readFrom reads a table until something cannot be read; last is the key before.
func readFrom(r *sstable.Reader, from []byte, f entry) (last []byte, err error) {
	it, err := r.NewIter(sstable.NoTransforms, from, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for kv := it.First(); kv != nil; kv = it.Next() {
		value, _, err := kv.Value(nil)
		if err != nil {
			return last, err
		}
		f(kv.K.UserKey, version{uint64(kv.K.SeqNum()), kv.K.Kind()}, value)
		last = append(last[:0], kv.K.UserKey...)
	}
	return last, it.Error()
}

// readableAfter is a key behind last from which on something can be read, as near
// as is found; nil if there is none. Keys are numbers for it, in which it goes
// ever further and then halves the way back.
func readableAfter(r *sstable.Reader, last []byte) []byte {
	const digits = 40 // bytes of a key that count
	at := new(big.Int).SetBytes(append(slices.Clone(last[:min(len(last), digits)]), make([]byte, digits-min(len(last), digits))...))
	limit := new(big.Int).Lsh(big.NewInt(1), 8*digits)
	key := func(n *big.Int) []byte { return n.FillBytes(make([]byte, digits)) }
	more := false // behind the place that was readable last
	readable := func(n *big.Int) bool {
		it, err := r.NewIter(sstable.NoTransforms, key(n), nil, sstable.AssertNoBlobHandles)
		if err != nil {
			return false
		}
		found := it.First() != nil
		ok := errors.Join(it.Error(), it.Close()) == nil
		if ok {
			more = found
		}
		return ok
	}
	low, step := at, big.NewInt(1)
	high := new(big.Int).Add(at, step)
	for ; !readable(high); high = new(big.Int).Add(at, step) {
		low = high
		step.Lsh(step, 1)
		if new(big.Int).Add(at, step).Cmp(limit) >= 0 {
			return nil
		}
	}
	// high is readable, or behind the last key.
	for range 8 * digits {
		middle := new(big.Int).Add(low, high)
		if middle.Rsh(middle, 1); middle.Cmp(low) == 0 {
			break
		}
		if readable(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	if !readable(high) || !more {
		return nil
	}
	return key(high)
}
