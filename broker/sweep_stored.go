package broker

import (
	"bytes"
	"time"

	"hashplus/broker/record"
)

// searchRows is the number of rows that one step of the search for expired
// deliveries looks at.
const searchRows = 4000

// searchExpired looks through the next rows of the store for messages that have
// expired in the queues of absent clients, and tells the sessions. It searches
// only if there are deadlines at all.
func (g *ledger) searchExpired() {
	if !g.expiring {
		return
	}
	if len(g.search) == 0 {
		g.search, g.doubt = []byte{record.KindDelivery}, false
	}
	now, n := uint64(time.Now().UnixMilli()), 0
	var owners []uint64
	var next []byte
	err := g.store.Scan(g.search, []byte{record.KindDelivery + 1}, func(key, value []byte) bool {
		if n++; n > searchRows {
			next = bytes.Clone(key)
			return false
		}
		owner, _, ok := record.Row(key)
		var d record.Delivery
		if !ok || d.Decode(value) != nil || d.Deadline == 0 {
			return true
		}
		g.doubt = true
		if d.Deadline <= now && !d.Numbered && !record.IsGroup(owner) && (len(owners) == 0 || owners[len(owners)-1] != owner) {
			owners = append(owners, owner)
		}
		return true
	})
	if err != nil {
		g.b.log.Warn("the store cannot be searched for expired messages", "cause", err)
		g.rested(err)
		return
	}
	if g.search = next; next == nil {
		g.expiring = g.doubt
	}
	for _, owner := range owners {
		g.tellExpired(owner)
	}
}

// tellExpired has the session that owner is look through its queue.
func (g *ledger) tellExpired(owner uint64) {
	value, ok, err := g.store.Get(record.AppendOwner(nil, record.KindSession, owner))
	var r record.Session
	if err != nil || !ok || r.Decode(value) != nil {
		return
	}
	g.b.home(r.ClientID).call(func(l *loop) {
		if s := l.sessions[r.ClientID]; s != nil && s.stored != nil && s.stored.owner == owner {
			s.dropExpired(s.pending.cold.from)
		}
	})
}

// dropExpired looks through what is cold of the queue, from row from on, and
// drops what has expired, a bunch of rows at a time.
func (s *session) dropExpired(from uint64) {
	st := s.stored
	if s.client != nil || st.loading || s.pending.cold.count == 0 || s.await(func() { s.searchFrom(from) }) {
		return
	}
	s.searchFrom(from)
}

// searchFrom is dropExpired where all that was taken out before is out of the
// store.
func (s *session) searchFrom(from uint64) {
	st, l := s.stored, s.loop
	if s.client != nil {
		s.pump()
		return
	}
	st.loading = true // nothing else may take rows out meanwhile
	l.b.ledger.read(func(store Store, err error) {
		var rows []loadedRow
		if err == nil {
			rows, _ = readDeliveries(store, st.owner, from) // the rest is for the next search
		}
		l.call(func(*loop) {
			st.loading = false
			if s.ended {
				return
			}
			s.expire(rows) // none after an error
			next := s.pump
			if len(rows) == loadRows {
				next = func() { s.searchFrom(rows[len(rows)-1].row + 1) }
			}
			if !s.await(next) {
				next()
			}
		})
	})
}

// expire drops those of rows that are cold and have expired.
func (s *session) expire(rows []loadedRow) {
	now, c := uint64(time.Now().UnixMilli()), &s.pending.cold
	for i := range rows {
		r := &rows[i]
		if r.Delivery.Deadline == 0 || r.Delivery.Deadline > now || c.count == 0 || r.row < c.from || r.row > c.to {
			continue
		}
		s.loop.notes().add(change{
			kind: strikeRow, owner: s.stored.owner, row: r.row, id: r.Delivery.ID, d: delivery{filed: r.Shared},
		})
		bump(&s.loop.stats.dropped[DropExpired], 1)
		s.stored.blind = true
		s.loop.stats.queued.Add(-1)
		c.count--
		s.pending.drop(int(r.Size))
	}
	s.pending.mend()
}

// readDeliveries reads up to loadRows rows of owner without their messages. Any
// goroutine.
func readDeliveries(store Store, owner, from uint64) (rows []loadedRow, err error) {
	start := record.AppendRow(nil, record.KindDelivery, owner, from)
	err = store.Scan(start, record.End(start[:9]), func(key, value []byte) bool {
		r := loadedRow{}
		var ok bool
		if _, r.row, ok = record.Row(key); ok && r.Delivery.Decode(value) == nil {
			rows = append(rows, r)
		}
		return len(rows) < loadRows
	})
	return rows, err
}
