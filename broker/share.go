package broker

import "hashplus/topic"

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
	seq     uint64
}

type groupItem struct {
	m   *message // owned
	seq uint64
}

// group returns the group of key, whose home is l, made if there is none.
func (l *loop) group(key groupKey) *shareGroup {
	g := l.groups[key]
	if g == nil {
		g = &shareGroup{key: key, home: l}
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
			break
		}
	}
	if len(g.members) == 0 {
		g.dissolve()
		return
	}
	g.drainAll()
}

// dissolve ends a group without members.
func (g *shareGroup) dissolve() {
	for _, it := range g.waiting {
		g.home.drop(nil, it.m, DropSharedNoMember)
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
	g.seq++
	if msg.qos > 0 && len(g.waiting) > 0 {
		g.keep(msg, g.seq)
		return
	}
	if !g.give(msg, g.seq) {
		g.keep(msg, g.seq)
	}
}

// give offers msg to the members in turn.
func (g *shareGroup) give(msg *message, seq uint64) bool {
	for i := range g.members {
		at := (g.next + i) % len(g.members)
		if g.offer(g.members[at], msg, seq) {
			g.next = at + 1
			return true
		}
	}
	return false
}

// offer gives msg to m if it has room. A member on another loop may still
// return it.
func (g *shareGroup) offer(m *groupMember, msg *message, seq uint64) bool {
	if !m.online || !g.allows(m, msg) {
		return false
	}
	if m.s.loop == g.home {
		return m.s.take(m, msg, seq)
	}
	if m.counts(msg) {
		if m.credit <= 0 {
			return false
		}
		m.credit--
	} else if m.slow {
		return false
	}
	g.home.handOver(m, msg, seq)
	return true
}

// allows asks the Authorizer whether m may have msg.
func (g *shareGroup) allows(m *groupMember, msg *message) bool {
	az := g.home.b.opts.Authorizer
	return az == nil || m.who == nil || az.CanReceive(m.who, msg.topic)
}

// keep puts msg into the queue of the group, at its place.
func (g *shareGroup) keep(msg *message, seq uint64) {
	o := &g.home.b.opts
	if !g.mayWait(msg) {
		g.home.drop(nil, msg, DropSharedNoMember)
		return
	}
	if len(g.waiting) >= o.MaxQueuedMessages || g.bytes+msg.size() > o.MaxQueuedBytes {
		if o.QueueFull != DropOldest || len(g.waiting) == 0 {
			g.home.drop(nil, msg, DropQueueFull)
			return
		}
		g.home.drop(nil, g.waiting[0].m, DropQueueFull)
		g.unwait().release()
	}
	at := len(g.waiting)
	for at > 0 && g.waiting[at-1].seq > seq {
		at--
	}
	g.waiting = append(g.waiting, groupItem{})
	copy(g.waiting[at+1:], g.waiting[at:])
	g.waiting[at] = groupItem{msg.own(), seq}
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
		case it.m.expired(g.home.now()):
		case g.offer(m, it.m, it.seq):
			g.unwait().release()
			continue
		case g.mayWait(it.m):
			return
		default: // those that it waited for have left, or lost the right to it
			why = DropSharedNoMember
		}
		g.home.drop(nil, it.m, why)
		g.unwait().release()
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

// giveBack returns a message whose member's session has ended: it is for the
// other members. l is the caller's loop.
func (g *shareGroup) giveBack(l *loop, msg *message, seq uint64) {
	l.send(g.home, func(*loop) { g.returned(msg, seq) })
}

// returned takes a message back and looks for another member. It takes over
// the caller's count of msg.
func (g *shareGroup) returned(msg *message, seq uint64) {
	if len(g.waiting) > 0 && g.waiting[0].seq < seq || !g.give(msg, seq) {
		g.keep(msg, seq)
	}
	msg.release()
}
