package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"hashplus/broker"
)

// journal reads the records of a log of commits, or of a MANIFEST, which lists
// the tables. Both end wherever the power was lost. pebble takes the first bad
// record for the end of a MANIFEST, and in most cases for that of the newest log:
// what stands behind it is lost in silence. So they are looked at before pebble
// reads them, and something bad counts as the end only if nothing behind it says
// that it had been durable.
//
// A record is in chunks. These begin with a checksum of what follows it, the
// length of the data, and the kind. In a log its number follows, so that what the
// file held before its reuse is not taken for part of it, and how much of the log
// was durable when the chunk was written.
type journal struct {
	data []byte
	log  uint32 // its number, 0 for a MANIFEST

	pos    int  // of the next record
	bad    int  // where something is not a chunk; -1 if nothing has been found
	closed bool // it is a log, and its end is there that it gets when the next one is begun
}

const (
	chunkBlock  = 32 << 10 // no chunk crosses from one block into the next
	chunkHeader = 7

	// Kinds are four in a row for each form: a whole record, its first part, one
	// from the middle, the last.
	kindsPlain  = 1 // only the header
	kindsLog    = 5 // the number of the log follows
	kindsSynced = 9 // and what was durable
	kindsEnd    = 13
)

type chunkPart int

const (
	wholeRecord chunkPart = iota
	firstPart
	middlePart
	lastPart
)

type chunk struct {
	part   chunkPart
	data   []byte
	synced uint64 // how much of the log was durable; 0 if it is not said
	next   int    // where the next one begins
}

func openJournal(f vfs.FS, name string) (*journal, error) {
	data, err := readFile(f, name)
	if err != nil {
		return nil, err
	}
	j := &journal{data: data, bad: -1}
	if n, _, ok := wal.ParseLogFilename(f.PathBase(name)); ok {
		j.log = uint32(n)
	}
	return j, nil
}

// next is the next record, in memory of its own if it is in parts. ok is false
// at the end: a clean one, or bad says where it is not.
func (j *journal) next() (record []byte, ok bool) {
	for p, within := j.pos, false; ; {
		c, state := j.chunk(p)
		switch {
		case (state == chunkEnd || state == chunkTrailer) && !within:
			j.closed = state == chunkTrailer
			return nil, false
		case state != chunkGood, within != (c.part == middlePart || c.part == lastPart):
			j.bad = p
			return nil, false
		}
		p = c.next
		if within || c.part == firstPart {
			record = append(record, c.data...)
		} else {
			record = c.data
		}
		if c.part == wholeRecord || c.part == lastPart {
			j.pos = p
			return record, true
		}
		within = true
	}
}

type chunkState int

const (
	chunkGood chunkState = iota
	chunkBad
	chunkEnd
	chunkTrailer // the end of a log that was closed
)

// trailerLength is what a log gets behind its last record when it is closed. No
// record is so short.
const trailerLength = chunkHeader + 4

// chunk reads the one at p.
func (j *journal) chunk(p int) (c chunk, s chunkState) {
	left := chunkBlock - p%chunkBlock
	rest := j.data[min(p, len(j.data)):]
	rest = rest[:min(left, len(rest))]
	if left < chunkHeader || isZero(rest) && len(rest) == left && left < j.header() {
		if p+left >= len(j.data) {
			return c, chunkEnd
		}
		return j.chunk(p + left) // there was no room for one
	}
	if len(rest) == 0 {
		return c, chunkEnd
	}
	if len(rest) < chunkHeader {
		return c, chunkBad
	}
	kind, header := int(rest[6]), chunkHeader
	if j.log != 0 {
		switch {
		case kind < kindsLog || kind >= kindsEnd || len(rest) < chunkHeader+4:
			return c, chunkBad
		case binary.LittleEndian.Uint32(rest[7:]) == j.log+1:
			return c, chunkTrailer
		case binary.LittleEndian.Uint32(rest[7:]) != j.log:
			return c, chunkBad
		}
		header += 4
		if kind >= kindsSynced {
			header += 8
		}
	} else if kind < kindsPlain || kind >= kindsLog {
		return c, chunkBad
	}
	length := int(binary.LittleEndian.Uint16(rest[4:]))
	if len(rest) < header+length || chunkChecksum(rest[6:header+length]) != binary.LittleEndian.Uint32(rest) {
		return c, chunkBad
	}
	if kind >= kindsSynced {
		c.synced = binary.LittleEndian.Uint64(rest[11:])
	}
	c.part, c.data, c.next = chunkPart((kind-kindsPlain)%4), rest[header:header+length], p+header+length
	return c, chunkGood
}

// header is the length of the headers that are written today.
func (j *journal) header() int {
	if j.log == 0 {
		return chunkHeader
	}
	return chunkHeader + 4 + 8
}

// damaged says whether what is bad had been durable once: it is not the end.
//
//   - In a MANIFEST each record is made durable before the next is written, so
//     any beginning of one behind the bad place tells.
//   - In a log, a chunk tells that was written when the log was durable to beyond
//     the bad place. pebble counts too little there, so three different counts
//     behind it tell, too: between the first and the third, an fsync began and
//     ended.
func (j *journal) damaged() bool {
	if j.bad < 0 {
		return false
	}
	counts := map[uint64]bool{}
	for p := j.bad + 1; p < len(j.data); {
		c, state := j.chunkBehind(p)
		if state != chunkGood {
			p++
			continue
		}
		if j.log == 0 && (c.part == wholeRecord || c.part == firstPart) || c.synced > uint64(j.bad) {
			return true
		}
		if c.synced > 0 {
			counts[c.synced] = true
		}
		if len(counts) >= 3 {
			return true
		}
		p = c.next
	}
	return false
}

// chunkBehind reads a chunk where there may be none: an empty one proves nothing.
func (j *journal) chunkBehind(p int) (c chunk, s chunkState) {
	if p+chunkHeader > len(j.data) || j.data[p+4]|j.data[p+5] == 0 {
		return c, chunkBad
	}
	c, s = j.chunk(p)
	if s == chunkGood && c.next <= p {
		s = chunkBad
	}
	return c, s
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func chunkChecksum(p []byte) uint32 {
	c := crc32.Checksum(p, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

// readable is how far a log has been read without a gap.
func (j *journal) readable() int64 {
	end := max(j.pos, j.bad) // it may be bad within a record
	if left := chunkBlock - end%chunkBlock; left < j.header() {
		end += left // no chunk had room there
	}
	return int64(end)
}

// journals are what is read of a directory before pebble reads it.
type journals struct {
	manifest string // its name; empty where pebble has nothing yet
	list     logList
	noList   bool    // there is none
	cut      *cutLog // where the newest log is to be cut, as it was written without fsyncs
}

// checkJournals fails if the MANIFEST, the list of the logs, or a log that is wanted
// is missing, or is damaged elsewhere than at its end.
func checkJournals(f vfs.FS, dir string) (j journals, err error) {
	list, known, err := readLogs(f, dir)
	if err != nil {
		return j, err
	}
	j.list, j.noList = list, !known
	holes, err := hasHoles(f, dir)
	if err != nil {
		return j, err
	}
	manifest, wanted, err := checkManifest(f, dir, list)
	if err == nil {
		err = list.missing(f, dir, wanted)
	}
	if err != nil {
		return j, err
	}
	j.manifest = manifest
	logs, err := wantedLogs(f, dir, wanted)
	for i, name := range logs {
		if j.cut, err = checkLog(f, dir, name, list, i == len(logs)-1, holes); err != nil {
			break
		}
	}
	return j, err
}

// wantedLogs are those of dir from number wanted on, oldest first.
func wantedLogs(f vfs.FS, dir string, wanted int) (names []string, err error) {
	logs, err := wal.Scan(wal.Dir{FS: f, Dirname: dir})
	for _, l := range logs {
		if int(l.Num) >= wanted {
			names = append(names, logName(int(l.Num)))
		}
	}
	return names, err
}

// checkLog fails if a log is damaged. The newest one may end anywhere behind what was
// durable of it, and with holes may be bad there: cut says where, if it is.
func checkLog(f vfs.FS, dir, name string, list logList, newest, holes bool) (cut *cutLog, err error) {
	j, err := checkJournal(f, f.PathJoin(dir, name), nil)
	if j == nil {
		return nil, err
	}
	lacks := list.lacks(name, j)
	switch {
	case !newest && err == nil && !j.closed && j.pos > 0: // one that nothing was written to may have no end
		err = fmt.Errorf("%w: %s is cut off at byte %d of %d, and there is a newer one",
			broker.ErrStoreDamaged, name, max(j.pos, j.bad), len(j.data))
	case newest && holes && err != nil && lacks == nil:
		return &cutLog{FS: f, name: f.PathJoin(dir, name), data: j.data[:j.pos], of: len(j.data)}, nil
	}
	return nil, cmp.Or(err, lacks)
}

// cutLog is a file system in which a log ends before its first hole.
type cutLog struct {
	vfs.FS
	name string
	data []byte
	of   int // bytes that it really has
}

func (c *cutLog) String() string {
	return fmt.Sprintf("%s at byte %d of %d", path.Base(c.name), len(c.data), c.of)
}

// Open implements vfs.FS.
func (c *cutLog) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if name != c.name {
		return c.FS.Open(name, opts...)
	}
	return vfs.NewMemFile(c.data), nil
}

// Unwrap implements vfs.FS.
func (c *cutLog) Unwrap() vfs.FS { return c.FS }

// checkManifest fails if the MANIFEST of dir is missing, is damaged elsewhere than
// at its end, or lacks its end. wanted is the number from which on it wants logs.
// name is empty in a directory in which pebble has nothing yet.
func checkManifest(f vfs.FS, dir string, list logList) (name string, wanted int, err error) {
	name, err = atomicfs.ReadMarker(f, dir, "manifest")
	if err != nil {
		return "", 0, err
	}
	if name == "" {
		names, err := f.List(dir)
		if list.gone > 0 || len(list.there) > 0 ||
			slices.ContainsFunc(names, func(name string) bool { return isTable(name) || isLog(name) }) {
			// pebble would make a new one, and remove what that does not list.
			err = fmt.Errorf("%w: the file marker.manifest.*, which names the MANIFEST, is missing", broker.ErrStoreDamaged)
		}
		return "", 0, err
	}
	if _, err = checkJournal(f, f.PathJoin(dir, name), func(record []byte) {
		if n, ok := logWanted(record); ok {
			wanted = n
		}
	}); errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %s, which lists the tables, is missing", broker.ErrStoreDamaged, name)
	}
	if err == nil {
		err = list.contradicts(name, wanted)
	}
	return name, wanted, err
}

// logWanted is the number from which on logs are wanted, if a record of a MANIFEST
// changes it. It stands before the tables in it.
func logWanted(record []byte) (n int, ok bool) {
	const ( // tags of what may be before it
		tagComparer  = 1
		tagLogNumber = 2
	)
	for {
		tag, k := binary.Uvarint(record)
		if k <= 0 || tag != tagComparer && tag != tagLogNumber {
			return 0, false
		}
		number, m := binary.Uvarint(record[k:])
		if m <= 0 || tag == tagComparer && number > uint64(len(record)-k-m) {
			return 0, false
		}
		if tag == tagLogNumber {
			return int(number), true
		}
		record = record[k+m+int(number):]
	}
}

// checkJournal reads all of a journal, and calls each, if it is not nil, for every
// record up to the end or what is bad.
func checkJournal(f vfs.FS, name string, each func(record []byte)) (*journal, error) {
	j, err := openJournal(f, name)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", f.PathBase(name), err)
	}
	for {
		record, ok := j.next()
		if !ok {
			break
		}
		if each != nil {
			each(record)
		}
	}
	if j.damaged() {
		return j, fmt.Errorf("%w: %s is damaged at byte %d of %d, before what had been durable",
			broker.ErrStoreDamaged, f.PathBase(name), j.bad, len(j.data))
	}
	return j, nil
}

// replaceFile gives the file the contents data in one step.
func replaceFile(f vfs.FS, dir, name string, data []byte) error {
	fresh := strings.TrimSuffix(name, ".log") + ".dbtmp" // pebble removes these
	if err := writeFile(f, fresh, string(data)); err != nil {
		return err
	}
	if err := f.Rename(fresh, name); err != nil {
		return err
	}
	return syncDir(f, dir)
}
