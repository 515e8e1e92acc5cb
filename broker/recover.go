package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hashplus/broker/record"
	"hashplus/topic"
)

var errRecovering = errors.New("broker: the stored state is still being recovered")

// openLedger opens the store, and makes it one of ours if it is new.
func openLedger(b *Broker) (*ledger, error) {
	s, err := b.opts.OpenStore()
	if err != nil {
		return nil, fmt.Errorf("the store cannot be opened: %w", err)
	}
	g := &ledger{
		b: b, store: s, wake: make(chan struct{}, 1), done: make(chan struct{}), reads: workers{limit: 4},
		refs: make(map[record.MessageID]uint32), groups: make(map[rowKey]filing), early: make(map[rowKey]struct{}),
		trimmed: make(map[uint64]uint64), gone: make(map[uint64]struct{}),
	}
	if err := g.identify(); err != nil {
		return nil, errors.Join(fmt.Errorf("the store cannot be used: %w", err), s.Close())
	}
	return g, nil
}

// identify reads the identity of the store, and counts that it was opened.
func (g *ledger) identify() error {
	get := func(name string) ([]byte, error) {
		v, _, err := g.store.Get(record.AppendMeta(nil, name))
		return v, err
	}
	node, err := get(record.MetaNode)
	if err != nil {
		return err
	}
	if node == nil {
		node = make([]byte, 16)
		_, _ = rand.Read(node) // it never fails
	}
	boot, err := get(record.MetaBoot)
	if err != nil {
		return err
	}
	if len(node) != 16 {
		return record.ErrCorrupt
	}
	n, _ := binary.Uvarint(boot)
	g.node, g.boot = node, uint32(n)+1
	var batch Batch
	batch.Set(record.AppendMeta(nil, record.MetaNode), g.node)
	batch.Set(record.AppendMeta(nil, record.MetaBoot), appendUvarint(nil, uint64(g.boot)))
	return apply(g.store, &batch)
}

// recovery is what is read from the store at the start.
type recovery struct {
	g        *ledger
	ctx      context.Context
	clock    int64  // Unix time less that of the loops
	crash    uint64 // Unix milliseconds at which the last process ended, about
	sessions map[uint64]*recovered

	publishers map[[2]string]*Identity // of retained messages, by client identifier and username

	wills  []*recoveredWill // that are due, whatever became of their sessions
	groups map[uint64]*groupRows
	last   uint64 // largest number of a session
	mu     sync.Mutex
	homes  map[string]*shareGroup // by their record.Delivery.Group; written under mu
	rows   int
	kept   int          // retained messages
	seen   atomic.Int64 // keys, for the log
}

type recovered struct {
	owner uint64
	record.Session
	s      *session
	will   *recoveredWill
	subs   []recoveredSub
	shared []sharedDelivery
}

// sharedDelivery is a delivery that came through a share group.
type sharedDelivery struct {
	number uint64
	group  string
	seq    uint64
}

type recoveredSub struct {
	filter string
	record.Subscription
}

// groupRows is what waits for a share group.
type groupRows struct {
	rows    []uint64
	claimed bool // the group is there. Written by its home
}

// recover reads the state and hands it to the loops, in steps that all loops
// take together: sessions with their subscriptions, what waits for share groups,
// and at last the time that has passed, so that a will that is due finds
// everybody in place.
func (g *ledger) recover(ctx context.Context) error {
	r := &recovery{
		g: g, ctx: ctx, sessions: make(map[uint64]*recovered), groups: make(map[uint64]*groupRows), homes: make(map[string]*shareGroup),
		publishers: make(map[[2]string]*Identity),
	}
	began := time.Now()
	stop := r.progress(began)
	defer stop()
	b := g.b
	if err := b.each(ctx, func(l *loop) {
		if l.id == 0 {
			r.clock = l.clock()
		}
	}); err != nil {
		return err
	}
	if err := r.read(); err != nil {
		return fmt.Errorf("the stored state cannot be read: %w", err)
	}
	g.owners.Store(r.last)
	g.checkSpace() // before anybody can ask whether there is some
	if !g.byHand {
		g.started.Store(true)
		go g.run()
		b.loops[0].call((*loop).startReminder)
	}

	byLoop := make([][]*recovered, len(b.loops))
	for _, rs := range r.sessions {
		l := b.home(rs.ClientID)
		byLoop[l.id] = append(byLoop[l.id], rs)
	}
	var failed atomic.Pointer[error]
	step := func(f func(l *loop) error) error {
		err := b.each(ctx, func(l *loop) {
			if err := f(l); err != nil {
				failed.Store(&err)
			}
		})
		if p := failed.Load(); err == nil && p != nil {
			err = *p
		}
		return err
	}
	settle := func(*loop) error { return nil }
	steps := []func(*loop) error{
		func(l *loop) error { l.adopt(byLoop[l.id]); return nil },
		settle, settle, settle, // a join goes to another loop and back
		func(l *loop) error { return l.adoptGroups(r) },
		func(l *loop) error { l.catchUp(r, byLoop[l.id]); return nil },
		settle,
	}
	for _, f := range steps {
		if err := step(f); err != nil {
			return fmt.Errorf("the stored state cannot be recovered: %w", err)
		}
	}
	if !g.byHand {
		g.due.Store(true) // what is left over is looked for before there is more to look through
		g.poke()
	}
	b.log.Info("recovered", "sessions", len(r.sessions), "queued", r.rows, "retained", r.kept,
		"took", time.Since(began).Round(time.Millisecond))
	return nil
}

// progress logs how far the recovery is, if it takes long.
func (r *recovery) progress(began time.Time) (stop func()) {
	done := make(chan struct{})
	go func() {
		t := time.NewTicker(2 * time.Second)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				r.g.b.log.Info("recovering", "records", r.seen.Load(), "for", time.Since(began).Round(time.Second))
			}
		}
	}()
	return func() { close(done) }
}

// adopt makes the sessions that were stored sessions of l.
func (l *loop) adopt(list []*recovered) {
	for _, rs := range list {
		s := rs.s
		l.sessions[s.id] = s
		l.stats.sessions.Add(1)
		l.stats.queued.Add(int64(s.pending.count))
		slices.SortFunc(rs.subs, func(a, b recoveredSub) int { return cmp.Compare(a.Order, b.Order) })
		for _, o := range rs.subs {
			group, name, shared, err := topic.ParseShare(o.filter)
			if !shared {
				group, name = "", o.filter
			}
			if err != nil || topic.CheckFilter(name) != nil {
				l.b.log.Error("a stored subscription is not valid", "client", s.id, "filter", o.filter)
				continue
			}
			s.stored.order = max(s.stored.order, o.Order)
			s.stored.resume = s.stored.resume || o.Replaying
			s.put(nil, &subscription{
				filter: o.filter, topic: name, ids: o.IDs, qos: o.QoS,
				noLocal: o.NoLocal, retainAsPublished: o.RetainAsPublished, replaying: o.Replaying,
			}, group, func() {})
		}
		rs.subs = nil
	}
}

// adoptGroups gives l's share groups what waited for them. Groups that no
// member's subscription has brought back are gone.
func (l *loop) adoptGroups(r *recovery) error {
	r.mu.Lock()
	for key, g := range l.groups {
		r.homes[key.name+"/"+key.filter] = g
	}
	r.mu.Unlock()
	for _, g := range l.groups {
		of := r.groups[g.owner]
		if of == nil {
			continue
		}
		of.claimed = true
		for from := uint64(0); ; {
			r.g.storeMu.RLock()
			b, err := readRows(r.g.store, g.owner, from)
			r.g.storeMu.RUnlock()
			if err != nil {
				return err
			}
			for i := range b.rows {
				row := &b.rows[i]
				m := row.message(r.clock)
				g.waiting = append(g.waiting, groupItem{m: m, seq: row.row, kept: true})
				g.bytes += m.size()
				bump(&l.stats.queued, 1)
			}
			if b.last == ^uint64(0) {
				break
			}
			from = b.last + 1
		}
	}
	return nil
}

// catchUp lets the time pass that the broker was not there: absences go on since
// the connections were lost, wills that are due are published.
func (l *loop) catchUp(r *recovery, list []*recovered) {
	for _, rs := range list {
		s := rs.s
		for _, d := range rs.shared {
			slot := s.window.slot(d.number)
			slot.group, slot.seq = r.homes[d.group], d.seq
		}
		lost := rs.LostAt
		if lost == 0 {
			lost = r.crash
		}
		var w *will
		if rs.will != nil {
			w = rs.will.will(l.b, r.clock)
		}
		s.leaveSince(min(int64(lost)*1e6-r.clock, l.now()), w) // clocks may have been set back
		if rs.LostAt == 0 {
			s.rewrite()
		}
		s.Expire(nil) // if its time is over, it must not be found any more
	}
	if l.id != 0 {
		return
	}
	for _, w := range r.wills {
		l.fire(nil, w.will(l.b, r.clock))
	}
	for owner, of := range r.groups {
		if of.claimed {
			continue
		}
		for _, row := range of.rows {
			l.notes().add(change{kind: strikeRow, owner: owner, row: row})
		}
	}
}
