package broker

import (
	"cmp"
	"slices"

	"hashplus/broker/record"
	"hashplus/topic"
)

// groupKey names a share group: `$share/{name}/{filter}`.
type groupKey struct{ name, filter string }

// shareGroup distributes the messages of one filter over its members. It is
// owned by its home, the loop of its name: all choices are made there, in one
// order.
//
// Invariant: while messages wait, no member that is online and may have the
// first of them has room for it, as far as home knows.
type shareGroup struct {
	key     groupKey
	home    *loop
	node    *topic.Node[filter] // where it hangs, in home's part
	part    *filterLoop
	members []*groupMember
	next    int         // whose turn it is
	waiting []groupItem // QoS 1 and 2 that no member had room for, by seq
	bytes   int         // of waiting
	owner   uint64      // what it is in the store; 0 without one. Immutable
	lasting int         // members whose sessions are stored
}

type groupItem struct {
	m    *message // owned
	seq  uint64
	kept bool // it has a row in the store
	late bool // not yet: until then nobody gets it, see written
}

// group returns the group of key, whose home is l, made if there is none.
func (l *loop) group(key groupKey) *shareGroup {
	g := l.groups[key]
	if g == nil {
		g = &shareGroup{key: key, home: l}
		if l.b.ledger != nil {
			g.owner = record.GroupOwner(l.b.ledger.node, key.name, key.filter)
		}
		g.node, g.part = l.partOf(key.filter)
		g.part.groups = append(g.part.groups, g)
		l.groups[key] = g
	}
	return g
}

// remove takes m out of the group; the last one ends it.
func (g *shareGroup) remove(m *groupMember) {
	for i, o := range g.members {
		if o == m {
			g.members = append(g.members[:i], g.members[i+1:]...)
			if g.next > i {
				g.next--
			}
			if m.lasts {
				g.addLasting(-1)
			}
			break
		}
	}
	if len(g.members) == 0 {
		g.dissolve()
		return
	}
	g.drainAll()
}

// addLasting counts n more members whose sessions are stored: as long as there
// is one, so is what waits for the group.
func (g *shareGroup) addLasting(n int) {
	before := g.lasting
	if g.lasting += n; (before == 0) != (g.lasting == 0) {
		g.home.addLasting(g.node, g.part, n)
	}
}

// dissolve ends a group without members.
func (g *shareGroup) dissolve() {
	for _, it := range g.waiting {
		g.home.drop(nil, it.m, DropSharedNoMember)
		g.strike(it.seq, it.kept)
		it.m.release()
	}
	bump(&g.home.stats.queued, -int64(len(g.waiting)))
	g.waiting, g.bytes = nil, 0
	delete(g.home.groups, g.key)
	for i, o := range g.part.groups {
		if o == g {
			g.part.groups = append(g.part.groups[:i], g.part.groups[i+1:]...)
			break
		}
	}
	g.home.prune(g.node, g.part)
}

// publish gives msg to the next member that can take it. What nobody can take
// now waits, if somebody may later.
func (g *shareGroup) publish(msg *message) {
	g.home.shareSeq++
	seq := g.home.shareSeq
	if msg.qos > 0 && len(g.waiting) > 0 || !g.give(msg, seq, false) {
		g.keep(msg, seq, false)
	}
}

// strike takes a message of the group out of the store, if it is kept there.
func (g *shareGroup) strike(seq uint64, kept bool) {
	if kept {
		g.home.notes().strikeGroup(g, seq)
	}
}

// give offers msg to the members in turn. kept says that the store has it in a
// row of the group's.
func (g *shareGroup) give(msg *message, seq uint64, kept bool) bool {
	for i := range g.members {
		at := (g.next + i) % len(g.members)
		if g.offer(g.members[at], msg, seq, kept) {
			g.next = at + 1
			return true
		}
	}
	return false
}

// offer gives msg to m if it has room. A member on another loop may still
// return it.
func (g *shareGroup) offer(m *groupMember, msg *message, seq uint64, kept bool) bool {
	if !m.online || !g.allows(m, msg) {
		return false
	}
	if m.s.loop == g.home {
		return m.s.take(m, msg, seq, kept, g.lasting > 0)
	}
	if m.counts(msg) {
		if m.credit <= 0 {
			return false
		}
		m.credit--
	} else if m.slow {
		return false
	}
	g.home.handOver(m, msg, seq, kept)
	return true
}

// allows asks the Authorizer whether m may have msg.
func (g *shareGroup) allows(m *groupMember, msg *message) bool {
	if m.who == nil {
		return true
	}
	if m.rules != g.home.rules {
		m.standing, m.rules = g.home.judge(m.who, g.key.filter), g.home.rules
	}
	return m.standing == cleared || m.standing == screened && g.home.az.CanReceive(m.who, msg.topic)
}

// keep puts msg into the queue of the group, at its place.
func (g *shareGroup) keep(msg *message, seq uint64, kept bool) {
	o := g.home.b.options()
	if !g.mayWait(msg) {
		g.home.drop(nil, msg, DropSharedNoMember)
		g.strike(seq, kept)
		return
	}
	if len(g.waiting) >= o.MaxQueuedMessages || g.bytes+msg.size() > o.MaxQueuedBytes {
		if o.QueueFull != DropOldest || len(g.waiting) == 0 {
			g.home.drop(nil, msg, DropQueueFull)
			g.strike(seq, kept)
			return
		}
		g.home.drop(nil, g.waiting[0].m, DropQueueFull)
		g.strike(g.waiting[0].seq, g.waiting[0].kept)
		g.unwait().release()
	}
	late := g.lasting > 0 && !kept
	if late {
		g.home.sheet().putGroup(g, msg, seq, true)
		kept = true
	}
	at := len(g.waiting)
	for at > 0 && g.waiting[at-1].seq > seq {
		at--
	}
	g.waiting = append(g.waiting, groupItem{})
	copy(g.waiting[at+1:], g.waiting[at:])
	g.waiting[at] = groupItem{msg.own(), seq, kept, late}
	g.bytes += msg.size()
	bump(&g.home.stats.queued, 1)
}

// mayWait reports whether a member may want msg later: one that is online and
// may have it, or, when nobody is online, one that comes back.
func (g *shareGroup) mayWait(msg *message) bool {
	if msg.qos == 0 {
		return false
	}
	wanted, somebody, reachable := false, false, false
	for _, m := range g.members {
		somebody = somebody || m.online
		if !g.allows(m, msg) {
			continue
		}
		reachable = reachable || m.online
		wanted = wanted || m.qos > 0 && (m.online || m.outlives)
	}
	return wanted && (reachable || !somebody)
}

// unwait takes the first message out of the queue; the caller releases it.
func (g *shareGroup) unwait() *message {
	msg := g.waiting[0].m
	g.waiting[0] = groupItem{}
	g.waiting = g.waiting[1:]
	g.bytes -= msg.size()
	bump(&g.home.stats.queued, -1)
	if len(g.waiting) == 0 {
		g.waiting = nil
	}
	return msg
}

// drain gives m what waits, in order, as long as it has room.
func (g *shareGroup) drain(m *groupMember) {
	for len(g.waiting) > 0 {
		it := g.waiting[0]
		why := DropExpired
		switch {
		case it.late:
			return
		case it.m.expired(g.home.now()):
		case g.offer(m, it.m, it.seq, it.kept):
			g.unwait().release()
			continue
		case g.mayWait(it.m):
			return
		default: // those that it waited for have left, or lost the right to it
			why = DropSharedNoMember
		}
		g.home.drop(nil, it.m, why)
		g.strike(it.seq, it.kept)
		g.unwait().release()
	}
}

// written is told, at home, that the store has the row of message seq. Only now may
// a member have it: given away earlier, it could be stored for the member before its
// publisher's packet identifier is, and come twice after a crash.
func (g *shareGroup) written(seq uint64) {
	i, found := slices.BinarySearchFunc(g.waiting, seq, func(it groupItem, seq uint64) int { return cmp.Compare(it.seq, seq) })
	if !found {
		return
	}
	g.waiting[i].late = false
	if i == 0 {
		g.drainAll()
	}
}

// drainAll is for when somebody for whom a message waited has gone.
func (g *shareGroup) drainAll() {
	for _, m := range g.members {
		if len(g.waiting) == 0 {
			return
		}
		if m.online {
			g.drain(m)
		}
	}
}

// giveBack returns the message of d, whose member's session has ended or lost
// the right to it: it is for the other members. l is the session's loop. If the
// session was stored, the message becomes the group's again in the batch that
// takes it from the session.
func (g *shareGroup) giveBack(l *loop, d *delivery) {
	msg, seq, kept := d.msg, d.seq, d.kept
	if d.row != 0 {
		l.notes().putGroup(g, msg, seq, false)
		kept = true
	}
	l.send(g.home, func(*loop) { g.returned(msg, seq, kept) })
}

// returned takes a message back and looks for another member. It takes over
// the caller's count of msg.
func (g *shareGroup) returned(msg *message, seq uint64, kept bool) {
	if len(g.waiting) > 0 && g.waiting[0].seq < seq || !g.give(msg, seq, kept) {
		g.keep(msg, seq, kept)
	}
	msg.release()
}
