package broker

import (
	"strings"
	"time"

	"hashplus/broker/record"
)

// purge removes what owners that have gone have left, a little at a time. It is
// the ledger's goroutine that does it.
type purge struct {
	fresh []goner // to be removed
	empty []goner // removed; in the order of their time
}

// goner is an owner whose keys are being removed.
type goner struct {
	owner uint64
	since time.Time
}

const (
	purgeKeys   = 1000 // that are removed in one step
	purgeOwners = 64   // that are looked at in one step

	// purgeLinger is how long an owner that has gone is remembered: a message on
	// its way to it may still come in, and must not stay in the store.
	purgeLinger = 30 * time.Second
)

// due reports whether there is something to remove now.
func (u *purge) due() bool {
	return len(u.fresh) > 0 || len(u.empty) > 0 && time.Since(u.empty[0].since) > purgeLinger
}

// forget notes that owner has gone: with the batch that takes its session away
// goes a mark to remove the rest by.
func (g *ledger) forget(owner uint64) {
	g.key = record.AppendOwner(g.key[:0], record.KindSession, owner)
	g.batch.Delete(g.key)
	g.key = record.AppendOwner(g.key[:0], record.KindGone, owner)
	g.batch.Set(g.key, nil)
	g.gone[owner] = struct{}{}
	g.purge.fresh = append(g.purge.fresh, goner{owner, time.Now()})
}

// clean does a step of the removal, and reports whether to go on with it.
func (g *ledger) clean() bool {
	u := &g.purge
	if g.store == nil || !g.works() || !u.due() {
		return false
	}
	g.batch.Reset()
	failed := false
	for keys, owners := 0, 0; keys < purgeKeys && owners < purgeOwners && u.due(); owners++ {
		list := &u.fresh
		if len(*list) == 0 {
			list = &u.empty
		}
		o := (*list)[0]
		n, left, err := g.purgeOwner(o.owner)
		if err != nil {
			g.b.log.Warn("what a session left in the store cannot be removed now", "cause", err)
			g.rested(err)
			failed = true
			break // what was counted so far goes in
		}
		keys += n
		if left { // the next step goes on; what it removes must be applied first
			break
		}
		*list = (*list)[1:]
		if list == &u.fresh {
			u.empty = append(u.empty, o)
			continue
		}
		g.key = record.AppendOwner(g.key[:0], record.KindGone, o.owner)
		g.batch.Delete(g.key)
		delete(g.gone, o.owner)
	}
	if !g.commit() {
		return false
	}
	g.tellGroups(g.handed)
	g.handed = nil
	return !failed && u.due()
}

// purgeOwner puts the removal of owner's keys into the batch, as far as a step
// goes, and reports how many that are and whether there are more.
func (g *ledger) purgeOwner(owner uint64) (n int, left bool, err error) {
	for _, kind := range []byte{record.KindSubscription, record.KindReceived} {
		from := record.AppendOwner(nil, kind, owner)
		some := false
		err := g.store.Scan(from, record.End(from), func(_, _ []byte) bool { some = true; return false })
		if err != nil {
			return 0, false, err
		}
		if some {
			g.batch.DeleteRange(from, record.End(from))
			n++
		}
	}
	from := record.AppendOwner(nil, record.KindDelivery, owner)
	rows := 0
	err = g.store.Scan(from, record.End(from), func(key, value []byte) bool {
		if rows == purgeKeys {
			left = true
			return false
		}
		rows++
		_, row, ok := record.Row(key)
		var d record.Delivery
		switch {
		case !ok || d.Decode(value) != nil || d.Released:
			g.batch.Delete(key)
		case d.Group != "" && d.QoS == 1:
			g.handBack(owner, row, &d)
		default:
			g.remove(owner, row, d.Shared, d.ID)
		}
		return true
	})
	return n + rows, left, err
}

// handBack makes a delivery that owner has gone without acknowledging one of its
// share group's again [MQTT-4.8.2-4]. Those that were in memory the session has
// given back itself.
func (g *ledger) handBack(owner, row uint64, d *record.Delivery) {
	name, filter, _ := strings.Cut(d.Group, "/")
	at := rowKey{record.GroupOwner(g.node, name, filter), d.GroupSeq}
	if _, there := g.groups[at]; there { // the session has given it back itself
		g.remove(owner, row, d.Shared, d.ID)
		return
	}
	if d.Shared {
		g.batch.Delete(record.AppendRow(nil, record.KindDelivery, owner, row))
	} else {
		body, ok, err := g.store.Get(record.AppendRow(nil, record.KindBody, owner, row))
		if err != nil {
			return // the next search finds it again
		}
		g.remove(owner, row, false, record.MessageID{})
		if !ok {
			return
		}
		g.batch.Set(record.AppendRow(nil, record.KindBody, at.owner, at.row), body)
	}
	back := record.Delivery{QoS: 1, Retain: d.Retain, Shared: d.Shared, ID: d.ID, Size: d.Size, Deadline: d.Deadline}
	g.batch.Set(record.AppendRow(nil, record.KindDelivery, at.owner, at.row), back.Append(nil))
	g.groups[at] = filing{d.Shared, d.ID}
	g.handed = append(g.handed, handed{groupKey{name, filter}, at})
}

// handed is a message that handBack has stored, and that its group is to be told
// of.
type handed struct {
	group groupKey
	at    rowKey
}

// tellGroups has the groups read what was handed back, in its order. Any goroutine.
func (g *ledger) tellGroups(list []handed) {
	if len(list) == 0 {
		return
	}
	g.read(func(store Store, err error) {
		for i, h := range list {
			var b bunch
			if err == nil {
				b, err = readRows(store, h.at.owner, h.at.row)
			}
			if err != nil {
				time.AfterFunc(loadAgain, func() { g.tellGroups(list[i:]) })
				return
			}
			if len(b.rows) == 0 || b.rows[0].row != h.at.row {
				g.b.log.Error("a message that goes back to its share group has gone", "group", h.group.name)
				continue
			}
			g.b.groupHome(h.group).call(func(l *loop) { l.handedBack(h, &b.rows[0]) })
		}
	})
}

// handedBack gives a message that was read to its group, if that is still there.
func (l *loop) handedBack(h handed, r *loadedRow) {
	m := r.message(l.clock())
	if of := l.groups[h.group]; of != nil {
		of.returned(m, h.at.row, true)
		return
	}
	l.notes().add(change{kind: strikeRow, owner: h.at.owner, row: h.at.row})
	m.release()
}
