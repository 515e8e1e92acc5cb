package broker

import (
	"sync"

	"hashplus/topic"
	"hashplus/transport/link"
)

// groupKey names a share group: `$share/{name}/{filter}`.
type groupKey struct{ name, filter string }

// shareGroup distributes the messages of one filter over its members. It is
// owned by its home, the loop of its name: all choices are made there, in one
// order.
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

// groupMember is a subscription in a share group.
type groupMember struct {
	// Immutable.
	s    *session
	sub  *subscription
	home *loop

	// Owned by the session's loop.
	left bool

	// Owned by home.
	group    *shareGroup
	online   bool
	outlives bool // the session outlives its connection
	credit   int  // messages it can take, as it last said, less what was sent since
}

// memberState is what a session says of itself to its groups.
type memberState struct {
	online, outlives bool
	free             int
}

func (s *session) memberState() memberState {
	return memberState{online: s.online(), outlives: s.expiry != 0, free: s.free()}
}

// join makes m a member, on its home; done is called on the session's loop
// when the group's messages reach it.
func (m *groupMember) join(key groupKey, st memberState, done func()) {
	from := m.s.loop
	from.send(m.home, func(h *loop) {
		g := h.groups[key]
		if g == nil {
			g = &shareGroup{key: key, home: h}
			g.node, g.part = h.partOf(key.filter)
			g.part.groups = append(g.part.groups, g)
			h.groups[key] = g
		}
		m.group = g
		g.members = append(g.members, m)
		g.update(m, st)
		h.send(from, func(*loop) { done() })
	})
}

// leave takes m out of its group. What is on the way to it comes back.
func (m *groupMember) leave(l *loop) {
	m.left = true
	l.send(m.home, func(h *loop) {
		g := m.group
		m.online = false
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
		}
	})
}

// dissolve ends a group without members.
func (g *shareGroup) dissolve() {
	for _, it := range g.waiting {
		g.home.drop(nil, it.m, DropSharedNoMember)
		it.m.release()
	}
	g.home.stats.queued.Add(-int64(len(g.waiting)))
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

// groupsChanged tells the session's groups that it came or went.
func (s *session) groupsChanged() {
	if s.shared == 0 {
		return
	}
	st := s.memberState()
	s.subs.each(func(sub *subscription) {
		if m := sub.member; m != nil {
			s.loop.send(m.home, func(*loop) { m.group.update(m, st) })
		}
	})
}

// roomChanged lets groups that live here hand over what waits, and notes that
// the others are to be told.
func (s *session) roomChanged() {
	if s.shared == 0 || s.ended {
		return
	}
	elsewhere := false
	for _, sub := range s.subs.list {
		m := sub.member
		switch {
		case m == nil:
		case m.home != s.loop:
			elsewhere = true
		case m.group != nil && len(m.group.waiting) > 0:
			m.group.drain(m)
		}
	}
	if elsewhere && !s.roomOn {
		s.roomOn = true
		s.loop.rooms = append(s.loop.rooms, s)
	}
}

// reportRoom tells the groups that live elsewhere how much the session can
// take. Acknowledgements of one tick make one report.
func (s *session) reportRoom() {
	if s.ended || !s.online() {
		return
	}
	free := s.free()
	for _, sub := range s.subs.list {
		if m := sub.member; m != nil && m.home != s.loop {
			r := roomReports.Get().(*roomReport)
			r.m, r.free = m, free
			s.loop.link.Send(m.home.id, r)
		}
	}
}

type roomReport struct {
	m    *groupMember
	free int
}

var roomReports = sync.Pool{New: func() any { return new(roomReport) }}

// Run implements link.Task.
func (r *roomReport) Run(link.Loop) {
	m, free := r.m, r.free
	r.m = nil
	roomReports.Put(r)
	if m.online && m.group != nil {
		m.credit = free
		m.group.drain(m)
	}
}

func (g *shareGroup) update(m *groupMember, st memberState) {
	m.online, m.outlives, m.credit = st.online, st.outlives, st.free
	if m.online {
		g.drain(m)
	}
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
	if !m.online {
		return false
	}
	if m.s.loop == g.home {
		return m.s.take(m, msg, seq)
	}
	if min(m.sub.qos, msg.qos) > 0 && m.s.sink == nil {
		if m.credit <= 0 {
			return false
		}
		m.credit--
	}
	h := handovers.Get().(*handover)
	h.m, h.msg, h.seq = m, msg.own(), seq
	g.home.link.Send(m.s.loop.id, h)
	return true
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
	g.home.stats.queued.Add(1)
}

// mayWait reports whether a member may want msg later.
func (g *shareGroup) mayWait(msg *message) bool {
	if msg.qos == 0 {
		return false
	}
	for _, m := range g.members {
		if m.sub.qos > 0 && (m.online || m.outlives) {
			return true
		}
	}
	return false
}

// unwait takes the first message out of the queue; the caller releases it.
func (g *shareGroup) unwait() *message {
	msg := g.waiting[0].m
	g.waiting[0] = groupItem{}
	g.waiting = g.waiting[1:]
	g.bytes -= msg.size()
	g.home.stats.queued.Add(-1)
	if len(g.waiting) == 0 {
		g.waiting = nil
	}
	return msg
}

// drain gives m what waits, in order, as long as it has room.
func (g *shareGroup) drain(m *groupMember) {
	for len(g.waiting) > 0 {
		it := g.waiting[0]
		if it.m.expired(g.home.now()) {
			g.home.drop(nil, it.m, DropExpired)
			g.unwait().release()
			continue
		}
		if !g.offer(m, it.m, it.seq) {
			return
		}
		g.unwait().release()
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

// handover carries a message to a member on another loop.
type handover struct {
	m   *groupMember
	msg *message
	seq uint64
}

var handovers = sync.Pool{New: func() any { return new(handover) }}

// Run implements link.Task.
func (h *handover) Run(link.Loop) {
	m, msg, seq := h.m, h.msg, h.seq
	h.m, h.msg = nil, nil
	handovers.Put(h)
	if !m.left && !m.s.ended && m.s.take(m, msg, seq) {
		msg.release()
		return
	}
	m.s.loop.link.Send(m.home.id, &refusedHandover{m, msg, seq})
}

// refusedHandover takes back a message that the member had no room for.
type refusedHandover struct {
	m   *groupMember
	msg *message
	seq uint64
}

// Run implements link.Task.
func (r *refusedHandover) Run(link.Loop) {
	r.m.credit = 0
	r.m.group.returned(r.msg, r.seq)
}

// take gives a share group's message to s, if it can be on its way at once.
func (s *session) take(m *groupMember, msg *message, seq uint64) bool {
	l := s.loop
	qos, retain := min(m.sub.qos, msg.qos), msg.retain && m.sub.retainAsPublished
	if s.sink != nil {
		return s.sink.accept(msg, qos, retain)
	}
	if s.client == nil || !s.mayReceive(msg.topic) {
		return false
	}
	if qos == 0 {
		if s.client.conn.Buffered() >= l.b.opts.WriteQueueBytes {
			return false
		}
		if !s.client.writePublish(msg, 0, retain, false, 0, m.sub.ids) {
			l.drop(s, msg, DropTooLarge)
		}
		return true
	}
	if !s.ready() {
		return false
	}
	n := s.busy().window.push(delivery{msg: msg.own(), qos: qos, retain: retain, subIDs: m.sub.ids, group: m.group, seq: seq})
	s.window.next = n + 1
	s.transmit(n, s.window.slot(n))
	return true
}
