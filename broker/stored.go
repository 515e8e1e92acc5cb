package broker

import (
	"time"

	"hashplus/broker/record"
	"hashplus/broker/wire"
)

// stored is what ties a session to the store. Sessions that end with their
// connection have none. It is owned by the session's loop.
//
// What is said of the session is stored before it is said to anybody; what is
// owed to it is stored as rows, in the order in which it is to be sent. Of these
// the memory holds what is on its way; see queue for the rest.
type stored struct {
	owner   uint64 // its number in the store
	row     uint64 // the latest that was given
	epoch   uint64 // how many connections it has had
	order   uint64 // of the latest subscription
	loading bool   // rows are being read
	blind   bool   // rows that are its no more may still be in the store
	chills  int    // how often something was left to the store only
	marks   *page  // where its latest mark stands; it may be stored by now
	resume  bool   // of a recovered session: replays that were under way begin anew
}

// write stores what s is itself. lost is the time, on the loop's clock, at which
// its connection ended, or 0 if it is connected.
func (s *session) write(lost int64) {
	st := s.stored
	if st == nil {
		return
	}
	p := s.loop.notes()
	r := record.Session{
		ClientID: s.id, Username: s.username, Epoch: st.epoch, Expiry: s.expiry,
		LostAt: wallMillis(lost, p.clock), Reply: s.reply,
	}
	p.set(record.AppendOwner(nil, record.KindSession, st.owner), r.Append(nil))
}

// forget takes owner, the ended session of a client, out of the store.
func (l *loop) forget(client string, owner uint64) {
	l.ending[client]++
	p := l.notes()
	p.add(change{kind: forgetAll, owner: owner})
	p.after(func() {
		if l.ending[client]--; l.ending[client] == 0 {
			delete(l.ending, client)
		}
	})
}

// rewrite stores s anew because something of it has changed.
func (s *session) rewrite() {
	switch {
	case s.stored == nil:
	case s.arriving != nil, s.client != nil:
		s.write(0)
	case s.absence != nil:
		s.write(s.absence.since)
	}
}

// writeSubscription stores sub.
func (s *session) writeSubscription(sub *subscription) {
	st := s.stored
	if st == nil {
		return
	}
	st.order++
	r := record.Subscription{
		QoS: sub.qos, NoLocal: sub.noLocal, RetainAsPublished: sub.retainAsPublished, Replaying: sub.replaying, Order: st.order, IDs: sub.ids,
	}
	s.loop.notes().set(record.AppendSubscription(nil, st.owner, sub.filter), r.Append(nil))
}

// eraseSubscription is its inverse.
func (s *session) eraseSubscription(sub *subscription) {
	if st := s.stored; st != nil {
		s.loop.notes().delete(record.AppendSubscription(nil, st.owner, sub.filter))
	}
}

// writeRow stores d, which has just come to the session, as its latest row. numbered
// says that it has number n in the window. It is with the message's other
// receivers that the store gets it.
func (s *session) writeRow(d *delivery, n uint64, numbered bool) {
	st := s.stored
	st.row++
	d.row = st.row
	d.held = numbered && d.qos == 2 // [MQTT-4.3.3-2]: its identifier must be known after a crash
	if numbered && s.loop.posting != nil && st.marks != nil && st.marks == s.loop.ticked {
		// Numbers are in the order of rows: those that were given in this tick must
		// not be stored behind this one.
		s.loop.submitNotes()
	}
	c := change{kind: putRow, s: s, owner: st.owner, row: d.row, d: *d, at: n, has: numbered}
	c.d.msg = d.msg.own()
	p := s.loop.sheet()
	if k := len(p.changes); k == 0 || p.changes[k-1].d.msg != c.d.msg {
		p.size += d.msg.size()
	}
	p.add(c)
}

// mark stores that d, which has a row, has got number n in the window.
func (s *session) mark(d *delivery, n uint64) {
	d.held = d.qos == 2
	c := change{kind: markRow, owner: s.stored.owner, row: d.row, d: *d, at: n, has: true}
	if d.held {
		c.s = s
	}
	c.d.msg = d.msg.own()
	s.stored.marks = s.loop.notes()
	s.stored.marks.add(c)
}

// release stores that the receiver has the message of d, number n. PUBREL may
// leave when that is done.
func (s *session) release(d *delivery, n uint64) {
	d.held = true
	c := change{
		kind: releaseRow, s: s, owner: s.stored.owner, row: d.row, at: n, has: true,
		d: delivery{qos: d.qos, retain: d.retain, subIDs: d.subIDs, filed: d.filed},
	}
	if d.msg != nil {
		c.id = d.msg.id
	}
	s.loop.notes().add(c)
}

// strike takes d, which is over, out of the store. One that the store has not
// got yet is struck when it has, see written.
func (s *session) strike(d *delivery) {
	if d.kept {
		s.loop.notes().strikeGroup(d.group, d.seq)
		d.kept = false
	}
	if d.stored {
		c := change{kind: strikeRow, owner: s.stored.owner, row: d.row, d: delivery{state: d.state, filed: d.filed}}
		if d.msg != nil {
			c.id = d.msg.id
		}
		s.loop.notes().add(c)
		d.stored = false
	}
}

// written is told that the store has c.
func (s *session) written(c *change) {
	if s.ended {
		return
	}
	if c.kind == trimRows {
		s.pending.trimmed(c.row)
		return
	}
	d := s.find(c)
	switch {
	case d == nil:
		if c.kind == putRow { // over before it was stored
			s.loop.notes().add(change{
				kind: strikeRow, owner: c.owner, row: c.row, id: c.id, d: delivery{filed: c.d.filed},
			})
		}
		return
	case c.kind == putRow:
		d.stored, d.filed = true, c.d.filed
	}
	was := d.held
	d.held = false
	switch cl := s.client; {
	case cl == nil:
		s.chill()
	case cl.state != open:
	case was && c.kind == releaseRow && c.at < s.window.next:
		cl.writeAck(wire.PUBREL, packetID(c.at), wire.Success)
	case was || s.pending.count > 0:
		s.pump()
		s.wantReplay()
		s.roomChanged()
		if s.pending.front.count+s.pending.back.count > queueInMemory {
			s.pending.chill(queueInMemory / 4)
			s.stored.chills++
		}
	}
}

// queueInMemory is the number of waiting deliveries of a connected client that
// are kept in memory, those apart that the store has not got yet.
const queueInMemory = 1024

// find returns the delivery that c is about, or nil if it is over.
func (s *session) find(c *change) *delivery {
	if !c.has {
		return s.pending.find(c.row)
	}
	w := &s.window
	if c.at < w.head || c.at >= w.tail() {
		return nil
	}
	if d := w.slot(c.at); d.state != done && d.row == c.row {
		return d
	}
	return nil
}

// chill leaves what an absent client is owed to the store.
func (s *session) chill() {
	if s.stored == nil {
		return
	}
	for n := s.window.head; n < s.window.tail(); n++ {
		// What came through a group may have to go back to it.
		if d := s.window.slot(n); d.stored && !d.absent() && d.group == nil {
			id := d.msg.id
			d.msg.release()
			d.msg = absentMessage(d.filed, id)
		}
	}
	s.pending.chill(0)
	s.stored.chills++
}

// absentMessage stands for a message that is in the store only. An acknowledgement
// may come before it was read back: of one that is filed its identity must be known.
func absentMessage(filed bool, id record.MessageID) *message {
	if !filed {
		return nil
	}
	return &message{static: true, cold: true, id: id}
}

// clock is Unix time less the time of the loop, in nanoseconds.
func (l *loop) clock() int64 { return time.Now().UnixNano() - l.now() }
