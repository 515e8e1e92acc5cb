package broker

import (
	"sync"
	"sync/atomic"
	"time"

	"hashplus/broker/record"
)

// changeKind is what a change does to the store.
type changeKind uint8

const (
	putRow     changeKind = iota // a delivery is owner's, with its message
	markRow                      // a delivery has got its packet identifier
	releaseRow                   // PUBREC came: the message has arrived
	strikeRow                    // a delivery is over
	trimRows                     // the first delivery from row on is dropped
	setKey                       // key has a value
	deleteKey                    // key has none
	retain                       // the retained message of a topic changed
	forgetAll                    // owner has gone
)

// change is one thing that the store is to know.
type change struct {
	kind  changeKind
	s     *session    // told when it is stored, see session.written; nil: nobody
	g     *shareGroup // the same
	owner uint64
	row   uint64
	d     delivery         // of a row; of strikeRow, what tells where the message is
	id    record.MessageID // of strikeRow, if the message is filed
	at    uint64           // number of the delivery in the window
	has   bool             // it has a number
	key   []byte           // of setKey and deleteKey; the topic, of retain
	value []byte
}

// page is what happened on one loop and is to be stored together. It belongs
// to its loop until it is submitted, then to the ledger, and to its loop again
// once it is stored.
type page struct {
	l       *loop
	clock   int64 // Unix time less that of the loop, nanoseconds
	changes []change
	acks    []ackRef // that may leave then
	thens   []func() // and what is to be done then
	size    int      // bytes, about

	told, answered, called int // how far landed is with changes, acks and thens
}

// ackRef is an answer that waits, see owed.
type ackRef struct {
	c *client
	n uint64
}

var pages = sync.Pool{New: func() any { return new(page) }}

func newPage(l *loop) *page {
	p := pages.Get().(*page)
	p.l, p.clock = l, time.Now().UnixNano()-l.now()
	return p
}

func (p *page) free() {
	clear(p.changes)
	clear(p.acks)
	clear(p.thens)
	p.l, p.changes, p.acks, p.thens, p.size = nil, p.changes[:0], p.acks[:0], p.thens[:0], 0
	p.told, p.answered, p.called = 0, 0, 0
	if cap(p.changes) <= 8192 {
		pages.Put(p)
	}
}

// changeSize is what a change counts for beside its bytes.
const changeSize = 192

func (p *page) add(c change) {
	p.changes = append(p.changes, c)
	p.size += changeSize + len(c.key) + len(c.value)
}

func (p *page) set(key, value []byte) { p.add(change{kind: setKey, key: key, value: value}) }

func (p *page) delete(key []byte) { p.add(change{kind: deleteKey, key: key}) }

// after has f called on the page's loop once the page is stored.
func (p *page) after(f func()) { p.thens = append(p.thens, f) }

// putGroup stores m as number seq of what waits for the members of g. With tell
// set, on the group's home, the group is told when that is done.
func (p *page) putGroup(g *shareGroup, m *message, seq uint64, tell bool) {
	c := change{kind: putRow, owner: g.owner, row: seq, d: delivery{msg: m.own(), qos: m.qos, retain: m.retain, row: seq}}
	if tell {
		c.g = g
	}
	p.add(c)
	p.size += m.size()
}

// strikeGroup is the inverse of putGroup.
func (p *page) strikeGroup(g *shareGroup, seq uint64) {
	p.add(change{kind: strikeRow, owner: g.owner, row: seq})
}

// notes returns the page for what is not part of a message's publication: it is
// stored with all else of this tick. Pages of one loop are stored in their order.
func (l *loop) notes() *page {
	if l.ticked == nil {
		l.ticked = newPage(l)
	}
	return l.ticked
}

// sheet returns the page for deliveries that have just come to be: that of the
// message's posting, if it has one.
func (l *loop) sheet() *page {
	if l.posting != nil {
		return l.posting.page(l)
	}
	return l.notes()
}

// submitNotes is the end of a tick.
func (l *loop) submitNotes() {
	if p := l.ticked; p != nil {
		l.ticked = nil
		l.b.ledger.submit(p)
	}
}

// posting is the publication of one message on several loops, or in several ticks:
// the pages of all of them are stored together, so that a crash leaves the message
// with all of its receivers or with none. The postings of one session are stored in their
// order: else a crash could lose a message and keep a later one, and the
// publisher, which sends the first one again, would find them reordered.
type posting struct {
	b     *Broker
	pages []*page // each belongs to its loop as long as the posting is open
	open  atomic.Int32
	next  atomic.Pointer[posting] // waits for this one; submitted once this one is
}

// submitted stands for the next of a posting that is not open any more.
var submitted = new(posting)

// newPosting returns a posting that is open until leave, and that is submitted
// after last, the session's latest, which may be nil.
func newPosting(b *Broker, last *posting) *posting {
	t := &posting{b: b, pages: make([]*page, len(b.loops))}
	t.open.Store(2)
	if last == nil || !last.next.CompareAndSwap(nil, t) {
		t.open.Store(1)
	}
	return t
}

func (t *posting) page(l *loop) *page {
	p := t.pages[l.id]
	if p == nil {
		p = newPage(l)
		t.pages[l.id] = p
	}
	return p
}

// enter keeps t open until one more leave. t may be nil.
func (t *posting) enter() *posting {
	if t != nil {
		t.open.Add(1)
	}
	return t
}

// leave says that the caller adds nothing any more; the last one submits. t may
// be nil.
func (t *posting) leave() {
	for t != nil && t.open.Add(-1) == 0 {
		written := t.pages[:0]
		for _, p := range t.pages {
			if p != nil {
				written = append(written, p)
			}
		}
		t.b.ledger.submit(written...)
		t.pages = nil
		t = t.next.Swap(submitted)
	}
}
