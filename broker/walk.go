package broker

import (
	"slices"

	"hashplus/topic"
)

// What publishers may have put off. Whoever is past it is not read until some
// of it is done; others go on, so that a flood of messages for many is its
// publisher's own affair.
const (
	maxWalks    = 64 // of one loop; past it, none for who has one already
	clientWalks = 16 // of one publisher
)

// stride is how many members one walk of a train has ahead of the next.
const stride = 256

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
	posting *posting
	done    bool
}

// underway is the number of a walk that has not been put off: it meets no
// subscription that is younger than itself.
const underway = ^uint64(0)

// deliver gives m to l's members of nodes. inbox is what m counts for in l's
// inbox. What the tick's budget does not allow is left to later ticks.
func (l *loop) deliver(m *message, nodes []*topic.Node[filter], inbox int) {
	l.stamp++
	w := walk{m: m, nodes: nodes, inbox: inbox, seq: underway, stamp: l.stamp}
	// More members than a tick has budget for are not begun with here: the rest
	// of a burst may follow, and all of it is to go in step.
	if !l.mustWait(nodes) && l.members(nodes) <= fanoutBudget {
		l.layouts.begin(l, m)
		if w.run(l, &l.budget, nil) {
			l.delivered(inbox)
			return
		}
	}
	l.putOff(w)
}

// putOff leaves the rest of w to later ticks.
func (l *loop) putOff(w walk) {
	l.walkSeq++
	rest := &walk{
		m: w.m.own(), inbox: w.inbox, node: w.node, pos: w.pos, seq: l.walkSeq, stamp: w.stamp,
		posting: l.posting.enter(),
	}
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

// mayPutOff reports whether a message to l's members of nodes may be left to later
// ticks, in part.
func (l *loop) mayPutOff(nodes []*topic.Node[filter]) bool {
	n := l.members(nodes)
	return n > fanoutBudget || n*writeCost > l.budget || l.mustWait(nodes)
}

// members is how many l has on nodes.
func (l *loop) members(nodes []*topic.Node[filter]) (n int) {
	for _, node := range nodes {
		if fl := node.Value.loops[l.id]; fl != nil {
			n += len(fl.members)
		}
	}
	return n
}

// walk continues unfinished walks, each for a slice of the tick's budget. A
// walk waits for earlier ones over the same filters, or goes behind in a train.
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
	slice := max(min(stride*writeCost, l.perTick), l.budget/ready)
	for _, w := range l.walks {
		if w.waiting == 0 && !w.done && l.budget > 0 {
			l.budget -= slice - l.train(w, slice)
		}
	}
	l.walks = slices.DeleteFunc(l.walks, func(w *walk) bool { return w.done })
}

// train continues w, and with it those behind it that have come as far over the
// very same filters: the messages of a burst go in step, so that a member has
// all of them in one write. It returns what is left of budget; that may be less
// than nothing, as what has been begun is done for all of them.
func (l *loop) train(w *walk, budget int) (left int) {
	t := append(l.trainOf[:0], w)
	longest := budget / (stride * writeCost) // so that one step of all of it is within budget
	for f := w.behind(); f != nil && len(t) < longest && f.node == w.node && f.pos == w.pos; f = f.behind() {
		t = append(t, f)
	}
	for ended := false; !ended && budget > 0; {
		part := budget
		if len(t) > 1 {
			part = min(part, stride*writeCost)
		}
		ended = l.advance(w, &part, &budget, nil)
		for i, f := range t[1:] {
			all := stride * writeCost
			l.advance(f, &all, &budget, t[i])
		}
	}
	for _, w := range t {
		if w.node < len(w.nodes) {
			break
		}
		l.finish(w)
	}
	clear(t)
	l.trainOf = t[:0]
	return budget
}

// behind is the walk that waits for nothing but w and goes over the same
// filters, or nil.
func (w *walk) behind() *walk {
	if len(w.next) == 0 {
		return nil
	}
	f := w.next[0]
	if f.waiting != 1 || !slices.Equal(f.nodes, w.nodes) {
		return nil
	}
	return f
}

// advance is run, with what belongs to w in place. What it uses up of part is
// taken off budget too.
func (l *loop) advance(w *walk, part, budget *int, ahead *walk) (finished bool) {
	before := *part
	l.layouts.begin(l, w.m)
	l.posting = w.posting // left by finish
	defer func() { l.posting = nil }()
	finished = w.run(l, part, ahead)
	*budget -= before - *part
	return finished
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
	w.done = true
	w.m.release()
	w.posting.leave()
	l.delivered(w.inbox)
}

// run goes on until all members have been offered the message, which it
// reports, or budget is used up, or it has come as far as ahead, if that is not
// nil: a walk over the same filters.
func (w *walk) run(l *loop, budget *int, ahead *walk) (finished bool) {
	if len(w.nodes) > manyFilters {
		// Anew each time: another walk may have been here since.
		for i, n := range w.nodes {
			if fl := n.Value.loops[l.id]; fl != nil {
				fl.stamp, fl.at = w.stamp, int32(i)
			}
		}
		// Some is left, so that each turn comes further.
		*budget -= min(len(w.nodes)/mergeShare, *budget/2)
	}
	for w.node < len(w.nodes) {
		fl := w.nodes[w.node].Value.loops[l.id]
		if fl == nil {
			w.node++
			continue
		}
		for w.pos < len(fl.members) {
			if *budget <= 0 || ahead != nil && w.node == ahead.node && w.pos >= ahead.pos {
				return false
			}
			*budget--
			m := &fl.members[w.pos]
			w.pos++
			if m.s != nil {
				before := l.spent
				l.offer(w, m.s, m.sub)
				*budget -= l.spent - before
			}
		}
		w.node, w.pos = w.node+1, 0
		l.effort.left -= groupEffort * len(fl.groups)
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
