package broker

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hashplus/broker/record"
	"hashplus/transport/link"
)

// ledger writes to the store what the loops hand in, and tells them when it is
// there. One goroutine, run, takes all pages that have come in, makes one batch
// of them, has it synced and goes on with those that came meanwhile: the more
// there is to do, the more share one sync.
//
// When the store fails nothing is confirmed any more. run closes it, opens it
// anew until that succeeds, and applies the batch that failed again, so that
// what is in memory and what is stored never part.
type ledger struct {
	// Immutable after open.
	b    *Broker
	node []byte // identity of the store
	boot uint32 // how often the store was opened

	// Any goroutine.
	mu      sync.Mutex // guards in; held for an append, or a swap
	in      []*page
	wake    chan struct{}
	backlog atomic.Int64 // bytes handed in and not stored
	due     atomic.Bool  // housekeeping is
	choked  atomic.Bool  // publishers wait until the backlog is low
	owners  atomic.Uint64
	trouble atomic.Pointer[trouble] // nil: all is well
	damage  atomic.Pointer[damage]  // nil: none has been found
	reads   workers
	commits atomic.Int64
	closing atomic.Bool
	started atomic.Bool // run is, or was, running
	byHand  bool        // a test calls turn in place of run. Immutable
	done    chan struct{}

	// The store is used under it and replaced with it held.
	storeMu sync.RWMutex
	store   Store

	// Owned by run.
	batch    Batch
	spare    []*page    // for the next take
	cooling  []*message // retained ones, whose payload is left to the store
	key, val []byte     // scratch
	messages uint64     // number of the latest message identity of this boot
	refs     map[record.MessageID]uint32
	groups   map[rowKey]filing   // rows of share groups
	early    map[rowKey]struct{} // struck before they were put
	trimmed  map[uint64]uint64   // the latest row that this batch drops, by owner
	gone     map[uint64]struct{} // owners that are being removed
	purge    purge
	handed   []handed  // to tell share groups of
	over     bool      // run ends: nothing can be stored any more
	marked   time.Time // when the clock was last stored
	expiring bool      // deliveries with a deadline may be waiting
	doubt    bool      // one was seen since the search began anew
	search   []byte    // where the search for expired ones goes on
	orphans  orphans
	rest     time.Time // searches wait until then: what they came to is damaged
	unseen   int       // bytes stored since the disk was looked at
}

type rowKey struct{ owner, row uint64 }

// filing tells where the message of a row is.
type filing struct {
	filed bool
	id    record.MessageID
}

// trouble is why the ledger takes no messages.
type trouble struct {
	err    error
	broken bool // not even other changes are written
}

// Backlog of the ledger, in bytes: past high, publishers are not read until it
// is low.
const (
	backlogHigh = 32 << 20
	backlogLow  = 8 << 20
)

// takes reports whether messages may be given to the store.
func (g *ledger) takes() bool { return g.trouble.Load() == nil }

// works reports whether other changes may be.
func (g *ledger) works() bool {
	t := g.trouble.Load()
	return t == nil || !t.broken
}

// submit hands pages in, to be stored together. Any goroutine; it never blocks.
func (g *ledger) submit(ps ...*page) {
	size := 0
	for _, p := range ps {
		size += p.size
	}
	g.backlog.Add(int64(size))
	g.mu.Lock()
	g.in = append(g.in, ps...)
	g.mu.Unlock()
	g.poke()
}

func (g *ledger) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// take empties the list of pages; spare is used for the next one.
func (g *ledger) take(spare []*page) []*page {
	g.mu.Lock()
	defer g.mu.Unlock()
	ps := g.in
	g.in = spare[:0]
	return ps
}

// housekeeping is how often run looks at the disk and removes what has gone, in
// nanoseconds. It is reminded by a timer of a loop's: one of the runtime's costs
// every loop that goes to sleep.
const housekeeping = second

// reminder reminds the ledger.
type reminder struct {
	l     *loop
	timer link.Timer
}

func (l *loop) startReminder() {
	r := &reminder{l: l}
	r.timer.Owner = r
	l.arm(&r.timer, l.now()+housekeeping)
}

// Expire implements link.Expirer.
func (r *reminder) Expire(t *link.Timer) {
	g := r.l.b.ledger
	g.due.Store(true)
	g.poke()
	r.l.arm(t, r.l.now()+housekeeping)
}

// run is the ledger's goroutine.
func (g *ledger) run() {
	defer close(g.done)
	more := false // there is something to clean up
	for {
		if !more {
			<-g.wake
		}
		if g.due.Swap(false) {
			g.lookAround()
			more = more || g.purge.due() && g.b.ready.Load() && !g.resting() // groups are there to take back
		}
		worked, ok := g.turn()
		if !ok || !worked && g.closing.Load() {
			return
		}
		if more { // a little of it even when there is much else
			more = g.clean()
		}
		if g.over {
			return
		}
	}
}

// turn stores what has been handed in, and reports whether there was anything;
// ok is false if the ledger has ended.
func (g *ledger) turn() (worked, ok bool) {
	ps := g.take(g.spare)
	if len(ps) > 0 {
		g.batch.Reset()
		g.encode(ps)
		if !g.commit() {
			return true, false
		}
		for _, m := range g.cooling {
			g.b.retained.cool(m)
		}
		g.stored(ps)
		if g.unseen >= spaceStep {
			g.checkSpace()
		}
	}
	clear(g.cooling)
	g.cooling = g.cooling[:0]
	clear(ps)
	g.spare = ps
	return len(ps) > 0, true
}

// commit applies the batch and waits until it is durable, however often the
// store has to be opened for it. It reports false when the ledger closes first.
func (g *ledger) commit() bool {
	if g.batch.Len() == 0 {
		return true
	}
	g.markClock()
	for pause := time.Duration(0); ; pause = min(max(2*pause, 50*time.Millisecond), 2*time.Second) {
		if pause > 0 {
			time.Sleep(pause)
			if g.closing.Load() {
				g.over = true
				return false
			}
		}
		if g.store == nil {
			switch err := g.reopen(); {
			case errors.Is(err, ErrStoreDamaged): // time does not mend it
				g.stuck(err)
				return false
			case err != nil:
				g.b.log.Debug("the store cannot be opened yet", "cause", err)
				continue
			}
		}
		err := apply(g.store, &g.batch)
		if err == nil {
			break
		}
		if err := g.fail(err); err != nil {
			g.stuck(err)
			return false
		}
	}
	g.commits.Add(1)
	g.unseen += g.batch.Size()
	if t := g.trouble.Load(); t != nil && t.broken {
		g.trouble.Store(nil)
		g.b.log.Info("the store works again")
		g.resume()
	}
	return true
}

// clockEvery is how far the clock in the store may be behind: by it recovery knows
// when the connections of a process that died were lost.
const clockEvery = 10 * time.Second

// markClock puts the time into the batch.
func (g *ledger) markClock() {
	g.marked = time.Now()
	g.key = record.AppendMeta(g.key[:0], record.MetaClock)
	g.val = appendUvarint(g.val[:0], uint64(g.marked.UnixMilli()))
	g.batch.Set(g.key, g.val)
}

func apply(s Store, b *Batch) error {
	wait, err := s.Apply(b)
	if err == nil {
		err = wait()
	}
	return err
}

// stuck is the end of the ledger: only another process can go on.
func (g *ledger) stuck(err error) {
	g.over = true
	g.b.log.Error("the store cannot be used any more", "cause", err)
	if f := g.b.opts.StoreStuck; f != nil {
		f(err)
	}
}

// fail takes a store out of use that has returned err. It returns an error if
// there can be no other.
func (g *ledger) fail(err error) error {
	if g.works() {
		g.b.log.Error("the store has failed; nothing is acknowledged until it works again", "cause", err)
	}
	g.trouble.Store(&trouble{err: fmt.Errorf("broker: the store has failed: %w", err), broken: true})
	g.storeMu.Lock()
	s := g.store
	g.store = nil
	stuck := s.Close()
	g.storeMu.Unlock()
	return stuck
}

func (g *ledger) reopen() error {
	s, err := g.b.opts.OpenStore()
	if err != nil {
		return err
	}
	node, _, err := s.Get(record.AppendMeta(nil, record.MetaNode))
	if err == nil && !bytes.Equal(node, g.node) {
		err = errors.New("another store is in its place")
	}
	if err != nil {
		return errors.Join(err, s.Close())
	}
	g.storeMu.Lock()
	g.store = s
	g.storeMu.Unlock()
	return nil
}

// resume tells the loops that the store takes messages again.
func (g *ledger) resume() {
	for _, l := range g.b.loops {
		l.call((*loop).saveRetained)
	}
}

// stored tells the loops that ps are durable.
func (g *ledger) stored(ps []*page) {
	size := 0
	byLoop := make([][]*page, len(g.b.loops))
	for _, p := range ps {
		size += p.size
		byLoop[p.l.id] = append(byLoop[p.l.id], p)
	}
	left := g.backlog.Add(-int64(size))
	for i, of := range byLoop {
		if len(of) > 0 {
			g.b.loops[i].call(func(l *loop) { l.landed(of) })
		}
	}
	if left < backlogLow && g.choked.Swap(false) {
		for _, l := range g.b.loops {
			l.call((*loop).unchoke)
		}
	}
}

// landed goes on with what waited for the pages to be stored.
func (l *loop) landed(ps []*page) {
	defer func() {
		if len(ps) > 0 { // something has panicked: the others wait all the same
			l.call(func(l *loop) { l.landed(ps) })
		}
	}()
	for len(ps) > 0 {
		p := ps[0]
		for p.told < len(p.changes) {
			c := &p.changes[p.told]
			p.told++
			switch {
			case c.s != nil:
				c.s.written(c)
			case c.g != nil:
				c.g.written(c.row)
			}
		}
		for p.answered < len(p.acks) {
			a := p.acks[p.answered]
			p.answered++
			a.c.settle(a.n)
		}
		for p.called < len(p.thens) {
			f := p.thens[p.called]
			p.called++
			f()
		}
		ps = ps[1:]
		p.free()
	}
}

// press pauses c, which has published something that is to be stored, while
// the store is behind.
func (l *loop) press(c *client) {
	g := l.b.ledger
	if g.backlog.Load() < backlogHigh {
		return
	}
	c.hold()
	l.pressed = append(l.pressed, c)
	g.choked.Store(true)
	if g.backlog.Load() < backlogLow { // it was stored meanwhile
		l.call((*loop).unchoke)
	}
}

// unchoke resumes the publishers that press paused.
func (l *loop) unchoke() {
	for i, c := range l.pressed {
		l.pressed[i] = nil
		if c.state != closed {
			c.unhold()
		}
	}
	l.pressed = l.pressed[:0]
}

// read runs f with the store, away from the loops. err is not nil if there is
// no store to read from now.
func (g *ledger) read(f func(s Store, err error)) {
	g.reads.run(func() {
		g.storeMu.RLock()
		defer g.storeMu.RUnlock()
		if g.store == nil {
			f(nil, errors.New("broker: the store is closed"))
			return
		}
		f(g.store, nil)
	})
}

// close writes what has been handed in, and closes the store.
func (g *ledger) close() error {
	g.closing.Store(true)
	if g.started.Load() {
		g.poke()
		<-g.done
	}
	g.storeMu.Lock()
	defer g.storeMu.Unlock()
	if g.store == nil {
		return g.failure()
	}
	s := g.store
	g.store = nil
	return s.Close()
}
