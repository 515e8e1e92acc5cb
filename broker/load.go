package broker

import (
	"errors"
	"time"

	"hashplus/broker/record"
)

// How much is read from the store at a time.
const (
	loadRows  = 256
	loadBytes = 256 << 10
	loadAgain = 200 * time.Millisecond // after a failure
)

// againAfter is when to try again what has failed with err. What is damaged stays
// so: nothing is left out, as it may be got back from a copy of the directory.
func againAfter(err error) time.Duration {
	if errors.Is(err, ErrStoreDamaged) {
		return damagedRest
	}
	return loadAgain
}

// load has what s is owed from row from on read back into memory; pump goes on
// then.
func (s *session) load(from uint64) {
	st, l := s.stored, s.loop
	if st.loading || s.await(s.pump) {
		return
	}
	st.loading = true
	// What becomes cold from here on may be stored out of order: rows before others
	// that the store has may still be missing when it is read.
	chills, until := st.chills, s.pending.cold.to
	l.b.ledger.read(func(store Store, err error) {
		var b bunch
		if err == nil {
			b, err = readRows(store, st.owner, from)
		}
		l.call(func(l *loop) {
			st.loading = false
			if !s.ended {
				s.loaded(&b, err, until, st.chills == chills)
			}
		})
	})
}

// await reports whether rows that are not the session's any more may still be in the
// store, and has then called when they are not.
func (s *session) await(then func()) bool {
	st := s.stored
	if !st.blind {
		return false
	}
	st.blind, st.loading = false, true
	s.loop.notes().after(func() {
		st.loading = false
		if !s.ended {
			then()
		}
	})
	return true
}

// bunch is some rows of one owner, in order.
type bunch struct {
	rows []loadedRow
	last uint64 // all rows up to here have been read
}

type loadedRow struct {
	row uint64
	record.Delivery
	record.Message // if it has not been released; its slices are its own
}

// readRows reads rows of owner with their messages, up to one that cannot be read: it
// fails if that is the first. Any goroutine.
func readRows(store Store, owner, from uint64) (bunch, error) {
	var b bunch
	bytes := 0
	start := record.AppendRow(nil, record.KindDelivery, owner, from)
	err := store.Scan(start, record.End(start[:9]), func(key, value []byte) bool {
		if len(b.rows) >= loadRows || bytes >= loadBytes {
			b.last = b.rows[len(b.rows)-1].row
			return false
		}
		r := loadedRow{}
		var ok bool
		if _, r.row, ok = record.Row(key); !ok || r.Delivery.Decode(value) != nil {
			return true // damaged after the start: the owner sees that it is missing
		}
		b.rows = append(b.rows, r)
		bytes += int(r.Size)
		return true
	})
	switch {
	case err != nil && len(b.rows) == 0:
		return b, err
	case err != nil:
		b.last = b.rows[len(b.rows)-1].row
	case b.last == 0:
		b.last = ^uint64(0)
	}
	kept := b.rows[:0]
	for _, r := range b.rows {
		if !r.Released {
			key := record.AppendRow(nil, record.KindBody, owner, r.row)
			if r.Shared {
				key = record.AppendShared(nil, r.Delivery.ID)
			}
			value, ok, err := store.Get(key)
			if err != nil && len(kept) == 0 {
				return bunch{}, err
			}
			if err != nil {
				b.last = r.row - 1 // who reads on comes to it again
				break
			}
			if !ok || r.Message.Decode(value) != nil {
				continue // it was struck meanwhile, or is lost: the owner sees that it is missing
			}
		}
		kept = append(kept, r)
	}
	b.rows = kept
	return b, nil
}

// message makes what was read a message of loop l.
func (r *loadedRow) message(clock int64) *message {
	m := newMessage(&r.Message, clock)
	m.filed = r.Shared
	return m
}

// newMessage makes an owned message of r, with one count.
func newMessage(r *record.Message, clock int64) *message {
	o := messages.Get().(*message)
	o.copy(&message{
		topic: r.Topic, props: r.Props, payload: r.Payload, from: r.From, expiryAt: r.ExpiryAt,
		deadline: loopTime(r.Deadline, clock), qos: r.QoS, retain: r.Retain,
	})
	o.id = r.ID
	o.refs.Store(1)
	return o
}

// loaded puts b where it belongs: into the slots of the window that wait for
// their message, and to the front of the queue up to row until. whole says that the
// store had all that waits for it when it was read.
func (s *session) loaded(b *bunch, err error, until uint64, whole bool) {
	l := s.loop
	if err != nil {
		l.b.log.Warn("a session's messages cannot be read from the store now", "client", s.id, "cause", err)
		s.stored.loading = true // nobody tries it meanwhile
		l.later(againAfter(err), func() {
			s.stored.loading = false
			if !s.ended {
				s.pump()
			}
		})
		return
	}
	clock := l.clock()
	for i := range b.rows {
		r := &b.rows[i]
		if r.Released {
			continue
		}
		if c := &s.pending.cold; !r.Numbered && c.count > 0 && r.row >= c.from && r.row <= min(c.to, until) {
			s.pending.warm(delivery{
				msg: r.message(clock), subIDs: r.IDs, row: r.row, qos: r.Delivery.QoS, retain: r.Delivery.Retain,
				stored: true, filed: r.Shared,
			})
			continue
		}
		// By its row: that it has a number may not be stored yet.
		if d := s.window.findRow(r.row); d != nil && d.absent() && d.state == published {
			d.msg, d.filed = r.message(clock), r.Shared
		}
	}
	if whole {
		s.missing(b.last)
	}
	if s.client == nil {
		s.chill()
		return
	}
	s.pump()
	s.wantReplay()
	s.roomChanged()
}

// missing gives up what should have been among the rows up to last and was not:
// the store has lost it, or had it corrupt.
func (s *session) missing(last uint64) {
	lost := 0
	for n := s.window.head; n < s.window.tail(); n++ {
		if d := s.window.slot(n); d.state == published && d.absent() && d.row <= last {
			s.strike(d)
			s.window.finish(d, &s.loop.rings)
			lost++
		}
	}
	if c := &s.pending.cold; c.count > 0 && c.to <= last {
		lost += c.count
		s.loop.stats.queued.Add(-int64(c.count))
		for range c.count {
			s.pending.drop(s.pending.bytes / s.pending.count)
		}
		c.count = 0
		s.pending.mend()
	}
	if lost > 0 {
		s.loop.b.log.Error("the store has lost messages of a session", "client", s.id, "messages", lost)
	}
}
