package broker

import (
	"sync"

	"hashplus/transport/link"
)

// groupMember is a subscription in a share group.
type groupMember struct {
	// Immutable.
	s    *session
	home *loop

	// Owned by the session's loop.
	sub  *subscription
	left bool

	// Owned by home.
	group    *shareGroup
	qos      byte      // of the subscription
	who      *Identity // for the Authorizer; nil: not asked
	standing standing  // of the subscription, under rules; see loop.rules
	rules    uint32
	online   bool
	outlives bool // the session outlives its connection
	lasts    bool // and is stored
	slow     bool // returned a message that does not count; see counts
	credit   int  // messages it can take, as it last said, less what was sent since
}

// memberState is what a session says of itself to its groups.
type memberState struct {
	who              *Identity
	online, outlives bool
	free             int
}

func (s *session) memberState() memberState {
	st := memberState{online: s.online(), outlives: s.expiry != 0, free: s.free()}
	if s.sink == nil && !s.stranger() {
		st.who = s.who()
	}
	return st
}

// join makes m a member, on its home; done is called on the session's loop
// when the group's messages reach it.
func (m *groupMember) join(key groupKey, st memberState, done func()) {
	from, qos := m.s.loop, m.sub.qos
	from.send(m.home, func(h *loop) {
		g := h.group(key)
		m.group, m.qos = g, qos
		g.members = append(g.members, m)
		if m.lasts = m.s.stored != nil; m.lasts {
			g.addLasting(1)
		}
		m.update(st)
		h.send(from, func(*loop) { done() })
	})
}

// change puts sub in the place of m's subscription. The group is not left: what
// waits in it stays [MQTT-3.8.4-4].
func (m *groupMember) change(sub *subscription, done func()) {
	from, qos := m.s.loop, sub.qos
	m.sub, sub.member = sub, m
	from.send(m.home, func(h *loop) {
		m.qos = qos
		h.send(from, func(*loop) { done() })
	})
}

// leave takes m out of its group. What is on the way to it comes back.
func (m *groupMember) leave(l *loop) {
	m.left = true
	l.send(m.home, func(*loop) {
		m.online = false
		m.group.remove(m)
	})
}

// update notes, at home, what m's session says of itself.
func (m *groupMember) update(st memberState) {
	m.who, m.online, m.outlives, m.credit, m.slow = st.who, st.online, st.outlives, st.free, false
	m.rules = 0
	if m.online {
		m.group.drain(m)
	} else {
		m.group.drainAll()
	}
}

// counts reports whether msg takes one of m's credits. At QoS 0 nothing tells
// when a message is through, and an in-process subscriber only says when it
// has no room.
func (m *groupMember) counts(msg *message) bool {
	return min(m.qos, msg.qos) > 0 && m.s.sink == nil
}

// groupsChanged tells the session's groups that it came or went.
func (s *session) groupsChanged() {
	if s.shared == 0 {
		return
	}
	st := s.memberState()
	s.subs.each(func(sub *subscription) {
		if m := sub.member; m != nil {
			s.loop.send(m.home, func(*loop) { m.update(st) })
		}
	})
}

// roomChanged lets groups that live here hand over what waits, and notes that
// the others are to be told.
func (s *session) roomChanged() {
	if s.shared == 0 || s.ended {
		return
	}
	for _, sub := range s.subs.list {
		if m := sub.member; m != nil && m.home == s.loop && len(m.group.waiting) > 0 {
			m.group.drain(m)
		}
	}
	s.wantReport()
}

// wantReport puts s on the loop's list of sessions that report their room at
// the end of the tick: acknowledgements of one tick make one report.
func (s *session) wantReport() {
	if len(s.loop.b.loops) > 1 && !s.roomOn {
		s.roomOn = true
		s.loop.rooms = append(s.loop.rooms, s)
	}
}

// reportRoom tells the groups that live elsewhere how much the session can
// take.
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
	if m.online {
		m.credit, m.slow = free, false
		m.group.drain(m)
	}
}

// handover carries a message to a member on another loop. Until it is there it
// counts in the inbox of the group's home: so whoever publishes to the group
// faster than its members' loops can follow is paused.
type handover struct {
	m       *groupMember
	msg     *message
	seq     uint64
	size    int
	kept    bool     // the store has it in a row of the group's
	lasting bool     // the group is one that is stored
	posting *posting // of the message, or nil
}

var handovers = sync.Pool{New: func() any { return new(handover) }}

// handOver sends msg to m; l is the group's home.
func (l *loop) handOver(m *groupMember, msg *message, seq uint64, kept bool) {
	h := handovers.Get().(*handover)
	h.m, h.msg, h.seq, h.size = m, msg.own(), seq, msg.size()
	h.kept, h.lasting, h.posting = kept, m.group.lasting > 0, l.posting.enter()
	if l.inbox.pending.Add(int64(h.size)) > inboxHigh {
		l.flooding = true
	}
	l.link.Send(m.s.loop.id, h)
}

// Run implements link.Task.
func (h *handover) Run(link.Loop) {
	m, msg, seq, kept, lasting := h.m, h.msg, h.seq, h.kept, h.lasting
	l := m.s.loop
	l.took(m.home, h.size)
	l.goOn(h.posting)
	h.m, h.msg, h.posting = nil, nil, nil
	handovers.Put(h)
	taken := !m.left && !m.s.ended && m.s.take(m, msg, seq, kept, lasting)
	t := l.posting
	l.posting = nil
	if taken {
		msg.release()
		t.leave()
		return
	}
	l.link.Send(m.home.id, &refusedHandover{m, msg, seq, kept, t})
}

// refusedHandover takes back a message that the member had no room for.
type refusedHandover struct {
	m       *groupMember
	msg     *message
	seq     uint64
	kept    bool
	posting *posting
}

// Run implements link.Task.
func (r *refusedHandover) Run(link.Loop) {
	if r.m.counts(r.msg) {
		r.m.credit = 0
	} else {
		r.m.slow = true
	}
	l := r.m.home
	l.goOn(r.posting)
	r.m.group.returned(r.msg, r.seq, r.kept)
	l.closeSheet()
}

// take gives a share group's message to s, if it can be on its way at once. If
// not, the group is told when there is room again. kept says that the store has
// the message in a row of the group's, lasting that it has to have it somewhere.
func (s *session) take(m *groupMember, msg *message, seq uint64, kept, lasting bool) bool {
	qos, retain := min(m.sub.qos, msg.qos), msg.retain && m.sub.retainAsPublished
	through := func() {
		if kept {
			s.loop.notes().strikeGroup(m.group, seq)
		}
	}
	if s.sink != nil {
		if s.sink.room() <= 0 || !s.sink.accept(msg, qos, retain) {
			return false
		}
		through()
		return true
	}
	if s.client == nil {
		return false
	}
	if !s.admits(m.sub, msg) { // home does not know it yet, and asks again when it does
		s.wantReport()
		return false
	}
	if qos == 0 {
		if !s.writable() {
			return false
		}
		if !s.client.writePublish(msg, 0, retain, false, 0, m.sub.ids) {
			s.loop.drop(s, msg, DropTooLarge)
		}
		through()
		return true
	}
	if !s.ready() {
		return false
	}
	d := delivery{msg: msg.own(), qos: qos, retain: retain, subIDs: m.sub.ids, group: m.group, seq: seq}
	switch {
	case s.stored != nil: // it gets a row of the session's, see launch
		through()
	case kept:
		d.kept = true
	case lasting:
		s.loop.sheet().putGroup(m.group, msg, seq, false)
		d.kept = true
	}
	if !s.launch(d) && m.home != s.loop {
		s.wantReport() // no acknowledgement will say that the room is still there
	}
	return true
}
