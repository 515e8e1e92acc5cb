package broker

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"hashplus/broker/record"
)

// scan calls f for each key of a kind.
func (r *recovery) scan(kind byte, f func(key, value []byte) error) error {
	var failed error
	from := []byte{kind}
	n := 0
	err := r.g.store.Scan(from, record.End(from), func(key, value []byte) bool {
		if n++; n%1024 == 0 {
			r.seen.Add(1024)
			if failed = r.ctx.Err(); failed != nil {
				return false
			}
		}
		if err := f(key, value); err != nil {
			failed = fmt.Errorf("%w: record %q: %w", ErrStoreDamaged, key, err)
			return false
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return err
}

func (r *recovery) read() error {
	g := r.g
	if v, ok, err := g.store.Get(record.AppendMeta(nil, record.MetaClock)); err != nil {
		return err
	} else if ok {
		r.crash, _ = binary.Uvarint(v)
	}
	// Rather too late than too early: nobody who was connected loses time. A clock
	// that was set back must not make the pause negative.
	r.crash = min(r.crash+uint64(clockEvery/time.Millisecond), uint64(time.Now().UnixMilli()))
	for _, step := range []struct {
		kind byte
		f    func(key, value []byte) error
	}{
		{record.KindGone, r.readGone},
		{record.KindSession, r.readSession},
		{record.KindWill, r.readWill},
		{record.KindSubscription, r.readSubscription},
		{record.KindReceived, r.readReceived},
		{record.KindDelivery, r.readDelivery},
		{record.KindRetained, r.readRetained},
	} {
		if err := r.scan(step.kind, step.f); err != nil {
			return err
		}
	}
	return nil
}

// owner returns the session that a key belongs to, or nil: then it has gone, or
// was never whole.
func (r *recovery) owner(key []byte) (rs *recovered, rest []byte, err error) {
	owner, rest, ok := record.Owner(key)
	if !ok {
		return nil, nil, record.ErrCorrupt
	}
	r.last = max(r.last, owner)
	if rs = r.sessions[owner]; rs == nil {
		r.orphan(owner)
	}
	return rs, rest, nil
}

// orphan has what an owner that does not exist has left removed.
func (r *recovery) orphan(owner uint64) {
	g := r.g
	if _, known := g.gone[owner]; !known {
		g.gone[owner] = struct{}{}
		g.purge.fresh = append(g.purge.fresh, goner{owner: owner})
	}
}

func (r *recovery) readGone(key, _ []byte) error {
	owner, _, ok := record.Owner(key)
	if !ok {
		return record.ErrCorrupt
	}
	if !record.IsGroup(owner) {
		r.last = max(r.last, owner)
	}
	r.orphan(owner)
	return nil
}

func (r *recovery) readSession(key, value []byte) error {
	owner, _, ok := record.Owner(key)
	rs := &recovered{owner: owner}
	if !ok || rs.Decode(append([]byte(nil), value...)) != nil {
		return record.ErrCorrupt
	}
	r.last = max(r.last, owner)
	b := r.g.b
	l := b.home(rs.ClientID)
	rs.s = &session{
		id: rs.ClientID, origin: b.origin(rs.ClientID), username: rs.Username, loop: l, traffic: &l.idle,
		expiry: rs.Expiry, stored: &stored{owner: owner, epoch: rs.Epoch},
	}
	if rs.Reply != "" {
		rs.s.busy().reply = rs.Reply
	}
	r.sessions[owner] = rs
	return nil
}

// readWill finds out whose a will is: that of the latest connection of a session
// waits for its delay; any other was about to be published.
func (r *recovery) readWill(key, value []byte) error {
	owner, n, ok := record.Row(key)
	w := &recoveredWill{owner: owner, n: n}
	if !ok || w.Decode(append([]byte(nil), value...)) != nil {
		return record.ErrCorrupt
	}
	r.last = max(r.last, owner)
	if rs := r.sessions[owner]; rs != nil && rs.Epoch == n {
		rs.will = w
		return nil
	}
	r.wills = append(r.wills, w)
	return nil
}

func (r *recovery) readSubscription(key, value []byte) error {
	rs, filter, err := r.owner(key)
	if rs == nil {
		return err
	}
	sub := recoveredSub{filter: string(filter)}
	if err := sub.Decode(value); err != nil {
		return err
	}
	rs.subs = append(rs.subs, sub)
	return nil
}

func (r *recovery) readReceived(key, _ []byte) error {
	rs, rest, err := r.owner(key)
	switch {
	case rs == nil:
		return err
	case len(rest) != 2:
		return record.ErrCorrupt
	}
	t := rs.s.busy()
	if t.received == nil {
		t.received = make(map[uint16]*receipt)
	}
	t.received[binary.BigEndian.Uint16(rest)] = nil
	return nil
}

func (r *recovery) readDelivery(key, value []byte) error {
	owner, row, ok := record.Row(key)
	var d record.Delivery
	if !ok || d.Decode(value) != nil {
		return record.ErrCorrupt
	}
	g := r.g
	if d.Shared {
		g.refs[d.ID]++
	}
	g.expiring = g.expiring || d.Deadline != 0
	if record.IsGroup(owner) {
		g.groups[rowKey{owner, row}] = filing{d.Shared, d.ID}
		of := r.groups[owner]
		if of == nil {
			of = new(groupRows)
			r.groups[owner] = of
		}
		of.rows = append(of.rows, row)
		return nil
	}
	rs, _, err := r.owner(key)
	if rs == nil {
		return err
	}
	r.rows++
	s := rs.s
	s.stored.row = row // rows come in order
	t := s.busy()
	if !d.Numbered {
		q := &t.pending
		if q.cold.count == 0 {
			q.cold.from = row
		}
		q.cold.to = row
		q.cold.count++
		q.count++
		q.bytes += int(d.Size)
		return nil
	}
	if d.Group != "" {
		rs.shared = append(rs.shared, sharedDelivery{d.Number, d.Group, d.GroupSeq})
	}
	return t.window.restore(d.Number, delivery{
		msg: absentMessage(d.Shared, d.ID), subIDs: slices.Clone(d.IDs), row: row, qos: d.QoS, retain: d.Retain, state: stateOf(&d),
		sent: true, stored: true, filed: d.Shared,
	})
}

func stateOf(d *record.Delivery) deliveryState {
	if d.Released {
		return released
	}
	return published
}

// restore puts d into slot n, which comes behind all that are there.
func (w *window) restore(n uint64, d delivery) error {
	if w.count > 0 && n < w.tail() {
		return record.ErrCorrupt
	}
	for w.count > 0 && n-w.head >= maxSpan { // identifiers have gone round: it was acknowledged long ago
		w.head++
		w.count--
	}
	if w.count == 0 {
		w.head = n
	}
	w.next = w.head
	for w.tail() < n {
		w.push(delivery{state: done}, nil)
	}
	w.push(d, nil)
	return nil
}

func (r *recovery) readRetained(key, value []byte) error {
	var m record.Message
	if err := m.Decode(value); err != nil {
		return err
	}
	kept := &message{static: true}
	kept.copy(&message{
		topic: m.Topic, props: m.Props, payload: m.Payload, from: m.From, expiryAt: m.ExpiryAt,
		deadline: loopTime(m.Deadline, r.clock), qos: m.QoS, retain: true,
	})
	kept.version, kept.id = m.Version, m.ID
	if m.Published {
		kept.by = r.publisher(m.ClientID, m.Username)
	}
	if len(m.Payload) >= coldPayload {
		kept = kept.withoutPayload()
	}
	all := &r.g.b.retained
	all.restore(key[1:], kept)
	r.kept++
	return nil
}

// publisher is one Identity for all that a client has published.
func (r *recovery) publisher(client, user string) *Identity {
	names := [2]string{client, user}
	id := r.publishers[names]
	if id == nil {
		id = &Identity{ClientID: client, Username: user}
		r.publishers[names] = id
	}
	return id
}
