package broker

import (
	"sync/atomic"

	"hashplus/topic"
)

// filter is what hangs on a node of the index: the subscribers of one topic
// filter, by the loop that they live on.
type filter struct {
	// interest has a bit for each loop that has members or the home of a
	// share group here. Written by the loops that the bits belong to, when
	// the first comes or the last goes; read by all that publish.
	interest atomic.Uint64
	// lasting is the same for sessions that are stored, and share groups with
	// such members.
	lasting atomic.Uint64
	// loops[i] is owned by loop i, the element included.
	loops []*filterLoop
}

// filterLoop is one loop's part of a filter.
type filterLoop struct {
	members []member
	groups  []*shareGroup // whose home is this loop
	walks   int           // unfinished deliveries that are, or wait to be, walking over members
	holes   int           // members that left during a walk
	lasting int           // members and groups that are stored
	last    *walk         // the latest of these; nil if there is none
	stamp   uint64        // of the latest walk that marked it, see manyFilters
	at      int32         // its place among the filters of that walk
}

// member is one subscriber of a filter. It stands in an array, so that walking
// over it touches one cache line for a few members.
type member struct {
	s   *session // nil: a hole
	sub *subscription
}

// subscription is one entry of a session. It is owned by the session's loop.
type subscription struct {
	filter            string              // as the client wrote it
	topic             string              // without $share/{group}/
	member            *groupMember        // nil unless shared
	node              *topic.Node[filter] // nil if shared
	born              uint64              // the latest walk that had been put off when it was made
	pos               int32               // among the filter's members
	at                int32               // in the session's list
	ids               []uint32            // its Subscription Identifier, or nil
	qos               byte
	noLocal           bool
	retainAsPublished bool
	replaying         bool // retained messages are still to be sent, and the store knows
	due               bool // their replay begins behind SUBACK
	standing          standing
	rules             uint32 // those that standing is of, see loop.rules
}

// subscriptions are those of one session, in the order they were made. The
// zero value is empty.
type subscriptions struct {
	list  []*subscription
	index map[string]*subscription // by filter; only if there are many
}

// manySubscriptions is the number from which a map is faster than a look at
// each.
const manySubscriptions = 12

func (s *subscriptions) len() int { return len(s.list) }

func (s *subscriptions) find(filter string) *subscription {
	if s.index != nil {
		return s.index[filter]
	}
	for _, sub := range s.list {
		if sub.filter == filter {
			return sub
		}
	}
	return nil
}

// on returns the subscription whose filter is n's, or nil.
func (s *subscriptions) on(n *topic.Node[filter]) *subscription {
	if s.index != nil {
		if sub := s.index[n.Filter]; sub != nil && sub.node == n {
			return sub
		}
		return nil
	}
	for _, sub := range s.list {
		if sub.node == n {
			return sub
		}
	}
	return nil
}

func (s *subscriptions) add(sub *subscription) {
	sub.at = int32(len(s.list))
	s.list = append(s.list, sub)
	if s.index != nil {
		s.index[sub.filter] = sub
		return
	}
	if len(s.list) > manySubscriptions {
		s.index = make(map[string]*subscription, 2*manySubscriptions)
		for _, sub := range s.list {
			s.index[sub.filter] = sub
		}
	}
}

func (s *subscriptions) remove(sub *subscription) {
	last := len(s.list) - 1
	s.list[sub.at] = s.list[last]
	s.list[sub.at].at = sub.at
	s.list[last] = nil
	s.list = s.list[:last]
	if s.index != nil {
		delete(s.index, sub.filter)
	}
}

// replace puts sub in the place of old, which has the same filter.
func (s *subscriptions) replace(old, sub *subscription) {
	sub.at = old.at
	s.list[sub.at] = sub
	if s.index != nil {
		s.index[sub.filter] = sub
	}
}

func (s *subscriptions) each(f func(*subscription)) {
	for _, sub := range s.list {
		f(sub)
	}
}

// attachSub makes sub, which is not shared, a member of its filter, on l.
func (l *loop) attachSub(s *session, sub *subscription) {
	bump(&l.stats.subscriptions, 1)
	n, fl := l.partOf(sub.topic)
	sub.node = n
	sub.filter, sub.topic = n.Filter, n.Filter // one copy for all
	sub.pos, sub.born = int32(len(fl.members)), l.walkSeq
	fl.members = append(fl.members, member{s, sub})
	if s.stored != nil {
		l.addLasting(n, fl, 1)
	}
}

// addLasting counts n more, or fewer, stored subscribers.
func (l *loop) addLasting(n *topic.Node[filter], fl *filterLoop, more int) {
	before := fl.lasting
	fl.lasting += more
	switch bit := uint64(1) << l.id; {
	case before == 0:
		n.Value.lasting.Or(bit)
	case fl.lasting == 0:
		n.Value.lasting.And(^bit)
	}
}

// detachSub is the inverse of attachSub, and leaves the share group.
func (l *loop) detachSub(s *session, sub *subscription) {
	bump(&l.stats.subscriptions, -1)
	if sub.member != nil {
		s.shared--
		sub.member.leave(l)
		return
	}
	fl := sub.node.Value.loops[l.id]
	if s.stored != nil {
		l.addLasting(sub.node, fl, -1)
	}
	if fl.walks > 0 {
		// A walk holds positions: leave a hole.
		fl.members[sub.pos] = member{}
		fl.holes++
	} else {
		last := len(fl.members) - 1
		fl.members[sub.pos] = fl.members[last]
		fl.members[sub.pos].sub.pos = sub.pos
		fl.members[last] = member{}
		fl.members = fl.members[:last]
		if cap(fl.members) > 64 && len(fl.members) < cap(fl.members)/4 {
			fl.members = append([]member(nil), fl.members...)
		}
	}
	l.prune(sub.node, fl)
	sub.node = nil
}

// partOf returns l's part of a filter, made and counted in the index if there
// is none.
func (l *loop) partOf(name string) (*topic.Node[filter], *filterLoop) {
	n := l.b.index.Add(name)
	if fl := n.Value.loops[l.id]; fl != nil {
		l.b.index.Remove(n) // counted once for each loop
		return n, fl
	}
	fl := &filterLoop{}
	n.Value.loops[l.id] = fl
	n.Value.interest.Or(uint64(1) << l.id)
	return n, fl
}

// settle closes the holes that were left during walks, once there are none.
func (l *loop) settle(n *topic.Node[filter], fl *filterLoop) {
	if fl.walks > 0 || fl.holes == 0 {
		return
	}
	kept := fl.members[:0]
	for _, m := range fl.members {
		if m.s != nil {
			m.sub.pos = int32(len(kept))
			kept = append(kept, m)
		}
	}
	clear(fl.members[len(kept):])
	fl.members, fl.holes = kept, 0
	l.prune(n, fl)
}

// prune takes l's part off the filter when nothing is left of it.
func (l *loop) prune(n *topic.Node[filter], fl *filterLoop) {
	if len(fl.members) > 0 || len(fl.groups) > 0 || fl.walks > 0 || n.Value.loops[l.id] != fl {
		return
	}
	n.Value.loops[l.id] = nil
	n.Value.interest.And(^(uint64(1) << l.id))
	l.b.index.Remove(n)
}

// accepts reports whether the filter subscription takes a message from session
// with origin from.
func (sub *subscription) accepts(s *session, from uint64) bool {
	return !(sub.noLocal && from == s.origin) // [MQTT-3.8.3-3]
}
