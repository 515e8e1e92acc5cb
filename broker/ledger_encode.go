package broker

import (
	"encoding/binary"

	"hashplus/broker/record"
)

func appendUvarint(dst []byte, v uint64) []byte { return binary.AppendUvarint(dst, v) }

// encode turns pages into operations of the batch. A message that is put for one
// receiver is stored with its row; for several it is filed once under its
// identity, and counted. Counts are kept in memory; recovery makes them again
// from the rows.
func (g *ledger) encode(ps []*page) {
	clear(g.trimmed)
	for _, p := range ps {
		for i := range p.changes {
			if c := &p.changes[i]; c.kind == putRow {
				c.d.msg.puts++
			}
		}
	}
	for _, p := range ps {
		for i := range p.changes {
			c := &p.changes[i]
			switch c.kind {
			case putRow:
				g.put(p, c)
			case markRow:
				g.row(p, c)
			case releaseRow:
				g.dropBody(c.owner, c.row, c.d.filed, c.id)
				g.row(p, c)
			case strikeRow:
				g.strike(c)
			case trimRows:
				g.trim(c)
			case setKey:
				g.batch.Set(c.key, c.value)
			case deleteKey:
				g.batch.Delete(c.key)
			case retain:
				g.retained(p, c.key)
			case forgetAll:
				g.forget(c.owner)
			}
		}
	}
	for _, p := range ps {
		for i := range p.changes {
			if c := &p.changes[i]; c.kind == putRow {
				c.d.msg.puts = 0
			}
		}
	}
	for _, p := range ps {
		for i := range p.changes {
			if c := &p.changes[i]; c.kind == putRow || c.kind == markRow {
				c.d.msg.release()
				c.d.msg = nil
			}
		}
	}
}

// put stores a delivery and, unless it is there already, its message.
func (g *ledger) put(p *page, c *change) {
	m := c.d.msg
	if _, gone := g.gone[c.owner]; gone {
		return
	}
	if record.IsGroup(c.owner) {
		at := rowKey{c.owner, c.row}
		if _, ok := g.early[at]; ok {
			delete(g.early, at)
			return
		}
		if _, ok := g.groups[at]; ok {
			return
		}
		defer func() { g.groups[at] = filing{c.d.filed, m.id} }()
	}
	if m.id == (record.MessageID{}) {
		g.messages++
		copy(m.id[:4], g.node)
		binary.BigEndian.PutUint32(m.id[4:], g.boot)
		binary.BigEndian.PutUint64(m.id[8:], g.messages)
	}
	c.id = m.id
	body := m.record(p.clock)
	if !m.filed && m.puts == 1 {
		g.key = record.AppendRow(g.key[:0], record.KindBody, c.owner, c.row)
		g.val = body.Append(g.val[:0])
		g.batch.Set(g.key, g.val)
	} else {
		m.filed, c.d.filed = true, true
		if g.refs[m.id] == 0 {
			g.key = record.AppendShared(g.key[:0], m.id)
			g.val = body.Append(g.val[:0])
			g.batch.Set(g.key, g.val)
		}
		g.refs[m.id]++
	}
	g.row(p, c)
}

// row stores what a delivery is beside its message.
func (g *ledger) row(p *page, c *change) {
	r := record.Delivery{
		QoS: c.d.qos, Retain: c.d.retain, Released: c.kind == releaseRow,
		Numbered: c.has, Number: c.at, IDs: c.d.subIDs,
	}
	if m := c.d.msg; m != nil && c.kind != releaseRow {
		r.Size, r.Deadline = uint64(m.size()), wallMillis(m.deadline, p.clock)
		if r.Deadline != 0 {
			g.expiring, g.doubt = true, true
		}
		r.Shared = c.d.filed
		if r.Shared {
			r.ID = m.id
		}
	}
	if of := c.d.group; of != nil {
		r.Group, r.GroupSeq = of.key.name+"/"+of.key.filter, c.d.seq
	}
	g.key = record.AppendRow(g.key[:0], record.KindDelivery, c.owner, c.row)
	g.val = r.Append(g.val[:0])
	g.batch.Set(g.key, g.val)
}

// dropBody removes the message of a row, unless others refer to it.
func (g *ledger) dropBody(owner, row uint64, filed bool, id record.MessageID) {
	if !filed {
		g.key = record.AppendRow(g.key[:0], record.KindBody, owner, row)
		g.batch.Delete(g.key)
		return
	}
	if n := g.refs[id]; n > 1 {
		g.refs[id] = n - 1
		return
	}
	delete(g.refs, id)
	g.key = record.AppendShared(g.key[:0], id)
	g.batch.Delete(g.key)
}

func (g *ledger) strike(c *change) {
	if record.IsGroup(c.owner) {
		at := rowKey{c.owner, c.row}
		f, ok := g.groups[at]
		if !ok {
			g.early[at] = struct{}{}
			return
		}
		delete(g.groups, at)
		g.remove(c.owner, c.row, f.filed, f.id)
		return
	}
	if c.d.state == released {
		g.key = record.AppendRow(g.key[:0], record.KindDelivery, c.owner, c.row)
		g.batch.Delete(g.key)
		return
	}
	g.remove(c.owner, c.row, c.d.filed, c.id)
}

// remove takes out a row with its message.
func (g *ledger) remove(owner, row uint64, filed bool, id record.MessageID) {
	g.dropBody(owner, row, filed, id)
	g.key = record.AppendRow(g.key[:0], record.KindDelivery, owner, row)
	g.batch.Delete(g.key)
}

// trim drops the first stored delivery of an owner from a row on, and tells its
// session which that was: the next one must not look through all that were
// dropped before.
func (g *ledger) trim(c *change) {
	s := c.s
	c.s = nil // nobody is told, unless
	if g.store == nil {
		return
	}
	row := max(c.row, g.trimmed[c.owner]+1) // what this batch has dropped is still seen
	from := record.AppendRow(nil, record.KindDelivery, c.owner, row)
	err := g.store.Scan(from, record.End(from[:9]), func(key, value []byte) bool {
		if _, row, ok := record.Row(key); ok {
			var d record.Delivery
			if d.Decode(value) != nil { // damaged: at least it is out of the way
				d = record.Delivery{}
			}
			g.remove(c.owner, row, d.Shared, d.ID)
			g.trimmed[c.owner] = row
			c.s, c.row = s, row
		}
		return false
	})
	if err != nil {
		g.b.log.Warn("a dropped message stays in the store", "cause", err)
	}
}

// retained stores the retained message that topic has now: of two that were set
// at the same time on two loops the later one, whichever page comes first.
func (g *ledger) retained(p *page, topic []byte) {
	g.key = record.AppendRetained(g.key[:0], topic)
	m := g.b.retained.tree.Get(topic)
	switch {
	case m == nil:
		g.batch.Delete(g.key)
	case m.cold: // it has been stored
	default:
		r := m.record(p.clock)
		g.val = r.Append(g.val[:0])
		g.batch.Set(g.key, g.val)
		if len(m.payload) >= coldPayload {
			g.cooling = append(g.cooling, m)
		}
	}
}

// record is what is stored of m; clock is Unix time less that of the loops.
func (m *message) record(clock int64) record.Message {
	r := record.Message{
		ID: m.id, From: m.from, Deadline: wallMillis(m.deadline, clock), Version: m.version, QoS: m.qos, Retain: m.retain,
		ExpiryAt: m.expiryAt, Topic: m.topic, Props: m.props, Payload: m.payload,
	}
	if m.by != nil {
		r.Published, r.ClientID, r.Username = true, m.by.ClientID, m.by.Username
	}
	return r
}

// wallMillis turns a time of the loops into Unix milliseconds; 0 stays 0.
func wallMillis(at, clock int64) uint64 {
	if at == 0 {
		return 0
	}
	return uint64((at + clock) / 1e6)
}

// loopTime is the inverse of wallMillis. A time before the loops began is the
// first instant of theirs.
func loopTime(millis uint64, clock int64) int64 {
	if millis == 0 {
		return 0
	}
	return max(1, int64(millis)*1e6-clock)
}
