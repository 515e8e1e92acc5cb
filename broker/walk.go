package broker

import "hashplus/topic"

// What publishers may have put off. Whoever is past it is not read until some
// of it is done; others go on, so that a flood of messages for many is its
// publisher's own affair.
const (
	maxWalks    = 64 // of one loop; past it, none for who has one already
	clientWalks = 16 // of one publisher
)

// manyFilters is the number of matching filters from which they are marked, so
// that a session with few subscriptions need not look at each.
const manyFilters = 8

// walk is a delivery in progress: a message, the filters that it matched, and
// how far it has come. While it is unfinished it keeps a later message of the
// same filters waiting, so that order holds, and no other.
type walk struct {
	m     *message
	nodes []*topic.Node[filter]
	node  int    // index in nodes
	pos   int    // index in the members of that node
	inbox int    // bytes to take off the inbox at the end
	seq   uint64 // its number among unfinished walks; subscriptions made after it are no concern of it
	stamp uint64 // of what it has met, see session.met and filterLoop.stamp

	// Only of one that was put off.
	waiting int     // unfinished walks over its filters that come before it
	next    []*walk // those that wait for this one
	from    *client // its publisher, or nil
}

// underway is the number of a walk that has not been put off: it meets no
// subscription that is younger than itself.
const underway = ^uint64(0)

// deliver gives m to l's members of nodes. inbox is what m counts for in l's
// inbox. What the tick's budget does not allow is left to later ticks.
func (l *loop) deliver(m *message, nodes []*topic.Node[filter], inbox int) {
	l.stamp++
	w := walk{m: m, nodes: nodes, inbox: inbox, seq: underway, stamp: l.stamp}
	if !l.mustWait(nodes) {
		l.layouts.begin(l, m)
		if w.run(l, &l.budget) {
			l.delivered(inbox)
			return
		}
	}
	l.putOff(w)
}

// putOff leaves the rest of w to later ticks.
func (l *loop) putOff(w walk) {
	l.walkSeq++
	rest := &walk{m: w.m.own(), inbox: w.inbox, node: w.node, pos: w.pos, seq: l.walkSeq, stamp: w.stamp}
	for i, n := range w.nodes {
		// Only filters with a part here: one that gets it later must not be
		// counted down for a walk that it was not counted up for.
		if fl := n.Value.loops[l.id]; fl != nil {
			fl.walks++
			rest.nodes = append(rest.nodes, n)
			if p := fl.last; p != nil && (len(p.next) == 0 || p.next[len(p.next)-1] != rest) {
				p.next = append(p.next, rest)
				rest.waiting++
			}
			fl.last = rest
		} else if i < w.node {
			rest.node--
		}
	}
	l.walks = append(l.walks, rest)
}

// mustWait reports whether an earlier message is still being delivered to one
// of nodes.
func (l *loop) mustWait(nodes []*topic.Node[filter]) bool {
	if len(l.walks) == 0 {
		return false
	}
	for _, n := range nodes {
		if fl := n.Value.loops[l.id]; fl != nil && fl.walks > 0 {
			return true
		}
	}
	return false
}

// walk continues unfinished walks, each for a slice of the tick's budget. A
// walk waits for earlier ones over the same filters.
func (l *loop) walk() {
	if len(l.walks) == 0 {
		return
	}
	ready := 0
	for _, w := range l.walks {
		if w.waiting == 0 {
			ready++
		}
	}
	slice := max(256*writeCost, l.budget/ready)
	kept := l.walks[:0]
	for _, w := range l.walks {
		if w.waiting == 0 && l.budget > 0 {
			l.layouts.begin(l, w.m)
			left := slice
			finished := w.run(l, &left)
			l.budget -= slice - left
			if finished {
				l.finish(w)
				continue
			}
		}
		kept = append(kept, w)
	}
	clear(l.walks[len(kept):])
	l.walks = kept
}

func (l *loop) finish(w *walk) {
	for _, n := range w.nodes {
		if fl := n.Value.loops[l.id]; fl != nil {
			if fl.walks--; invariants && fl.walks < 0 {
				panic("broker: more walks over a filter have ended than begun")
			}
			if fl.last == w {
				fl.last = nil
			}
			l.settle(n, fl)
			l.prune(n, fl)
		}
	}
	for _, n := range w.next {
		n.waiting--
	}
	if w.from != nil {
		w.from.walks--
	}
	w.m.release()
	l.delivered(w.inbox)
}

// run goes on until all members have been offered the message or budget is
// used up, and reports which.
func (w *walk) run(l *loop, budget *int) (finished bool) {
	if len(w.nodes) > manyFilters {
		// Anew each time: another walk may have been here since.
		for i, n := range w.nodes {
			if fl := n.Value.loops[l.id]; fl != nil {
				fl.stamp, fl.at = w.stamp, int32(i)
			}
		}
	}
	for ; w.node < len(w.nodes); w.node++ {
		fl := w.nodes[w.node].Value.loops[l.id]
		if fl == nil {
			continue
		}
		for w.pos < len(fl.members) {
			if *budget <= 0 {
				return false
			}
			*budget--
			m := &fl.members[w.pos]
			w.pos++
			if m.s != nil {
				before := l.writes
				l.offer(w, m.s, m.sub)
				*budget -= (l.writes - before) * (writeCost - 1)
			}
		}
		w.pos = 0
		for i := range fl.groups {
			fl.groups[i].publish(w.m)
		}
	}
	return true
}

// ahead reports whether c has published so much that had to be put off that it
// must wait.
func (c *client) ahead() bool {
	return c.walks >= clientWalks || c.walks > 0 && len(c.l.walks) > maxWalks
}
