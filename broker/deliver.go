package broker

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"

	"hashplus/broker/wire"
	"hashplus/topic"
	"hashplus/transport/link"
)

// maxWalks is the number of unfinished walks from which a loop takes no more
// publishes from its own connections.
const maxWalks = 64

// shareFrom is the payload size from which receivers share one copy of it by
// reference instead of getting a copy each.
const shareFrom = 8 << 10

// route sends m, which may be borrowed, to all that subscribe to its topic,
// and reports whether there was a subscription at all.
func (l *loop) route(m *message) (matched bool) {
	l.nodes = l.b.index.Match(l.nodes[:0], m.topic)
	if len(l.nodes) == 0 {
		return false
	}
	var interest uint64
	for _, n := range l.nodes {
		interest |= n.Value.interest.Load()
	}
	self := uint64(1) << l.id
	for others := interest &^ self; others != 0; others &= others - 1 {
		l.cross(m, l.b.loops[bits.TrailingZeros64(others)])
	}
	if interest&self != 0 {
		l.deliver(m, l.nodes, 0)
	}
	return interest != 0
}

// crossing carries one message to another loop, with the filters that it
// matched there: one post, however many subscribers.
type crossing struct {
	to    *loop
	m     *message
	nodes []*topic.Node[filter]
}

var crossings = sync.Pool{New: func() any { return new(crossing) }}

// cross posts m to another loop.
func (l *loop) cross(m *message, to *loop) {
	x := crossings.Get().(*crossing)
	x.to, x.m = to, m.own()
	bit := uint64(1) << to.id
	for _, n := range l.nodes {
		if n.Value.interest.Load()&bit != 0 {
			x.nodes = append(x.nodes, n)
		}
	}
	if to.inbox.pending.Add(int64(m.size())) > inboxHigh {
		l.flooding = true
	}
	l.link.Send(to.id, x)
}

// Run implements link.Task.
func (x *crossing) Run(link.Loop) {
	l, m := x.to, x.m
	l.deliver(m, x.nodes, m.size())
	m.release()
	clear(x.nodes)
	x.to, x.m, x.nodes = nil, nil, x.nodes[:0]
	crossings.Put(x)
}

// inbox bounds what other loops' publishers may have on the way to a loop. It
// may be used by any goroutine.
type inbox struct {
	_       [64]byte
	pending atomic.Int64  // bytes posted and not yet delivered
	waiting atomic.Uint64 // a bit for each loop with publishers that wait
	_       [64]byte
}

// High and low water of an inbox, in bytes of messages.
const (
	inboxHigh = 8 << 20
	inboxLow  = 2 << 20
)

// congested returns a loop whose inbox is past its high water, or nil. A
// loop's own may be: of what it has handed over for share groups.
func (b *Broker) congested() *loop {
	for _, o := range b.loops {
		if o.inbox.pending.Load() > inboxHigh {
			return o
		}
	}
	return nil
}

// block pauses c, which has just published, while an inbox is full. Messages
// are never dropped for it.
func (l *loop) block(c *client) {
	if !l.flooding {
		return
	}
	l.flooding = false
	o := l.b.congested()
	if o == nil {
		return
	}
	c.hold()
	l.blocked = append(l.blocked, c)
	l.await(o)
}

// await asks o to wake l when its inbox has drained. The second look closes the
// gap between the first one and the bit.
func (l *loop) await(o *loop) {
	o.inbox.waiting.Or(uint64(1) << l.id)
	if o.inbox.pending.Load() <= inboxLow {
		o.inbox.waiting.And(^(uint64(1) << l.id))
		l.call((*loop).unblock)
	}
}

// unblock resumes the publishers that block paused, unless another inbox is
// full now.
func (l *loop) unblock() {
	if o := l.b.congested(); o != nil {
		l.await(o)
		return
	}
	for i, c := range l.blocked {
		l.blocked[i] = nil
		if c.state != closed {
			c.unhold()
		}
	}
	l.blocked = l.blocked[:0]
}

// delivered takes n bytes off l's inbox.
func (l *loop) delivered(n int) {
	if n > 0 {
		l.took(l, n)
	}
}

// took takes n bytes off o's inbox and wakes the loops that wait for it.
func (l *loop) took(o *loop, n int) {
	if o.inbox.pending.Add(-int64(n)) > inboxLow || o.inbox.waiting.Load() == 0 {
		return
	}
	for w := o.inbox.waiting.Swap(0); w != 0; w &= w - 1 {
		// A task even for l itself: no connection resumes amid a delivery.
		to := l.b.loops[bits.TrailingZeros64(w)]
		l.link.Send(to.id, link.TaskFunc(func(link.Loop) { to.unblock() }))
	}
}

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
}

// underway is the number of a walk that has not been put off: it meets no
// subscription that is younger than itself.
const underway = ^uint64(0)

// deliver gives m to l's members of nodes. inbox is what m counts for in l's
// inbox. What the tick's budget does not allow is left to later ticks.
func (l *loop) deliver(m *message, nodes []*topic.Node[filter], inbox int) {
	w := walk{m: m, nodes: nodes, inbox: inbox, seq: underway}
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
	rest := &walk{m: w.m.own(), inbox: w.inbox, node: w.node, pos: w.pos}
	for i, n := range w.nodes {
		// Only filters with a part here: one that gets it later must not be
		// counted down for a walk that it was not counted up for.
		if fl := n.Value.loops[l.id]; fl != nil {
			fl.walks++
			rest.nodes = append(rest.nodes, n)
		} else if i < w.node {
			rest.node--
		}
	}
	l.walkSeq++
	rest.seq = l.walkSeq
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
	slice := max(256, l.budget/len(l.walks))
	l.turn++
	kept := l.walks[:0]
	for _, w := range l.walks {
		waits := false
		for _, n := range w.nodes {
			if fl := n.Value.loops[l.id]; fl != nil {
				waits = waits || fl.turn == l.turn
			}
		}
		if !waits && l.budget > 0 {
			l.layouts.begin(l, w.m)
			left := slice
			if w.run(l, &left) {
				l.budget -= slice - left
				l.finish(w)
				continue
			}
			l.budget -= slice
		}
		for _, n := range w.nodes {
			if fl := n.Value.loops[l.id]; fl != nil {
				fl.turn = l.turn
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
			l.settle(n, fl)
			l.prune(n, fl)
		}
	}
	w.m.release()
	l.delivered(w.inbox)
}

// run goes on until all members have been offered the message or budget is
// used up, and reports which.
func (w *walk) run(l *loop, budget *int) (finished bool) {
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
				l.offer(w, m.s, m.sub)
			}
		}
		w.pos = 0
		for i := range fl.groups {
			fl.groups[i].publish(w.m)
		}
	}
	return true
}

// offer delivers the walk's message to s, which it has found through sub. A
// session with several subscriptions that match gets one copy, at the highest
// QoS and with all their identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-3]: where the
// walk meets it first.
func (l *loop) offer(w *walk, s *session, sub *subscription) {
	m := w.m
	if sub.born >= w.seq || !sub.accepts(s, m.from) {
		return
	}
	qos, asPublished, ids := sub.qos, sub.retainAsPublished, sub.ids
	if len(w.nodes) > 1 && s.subs.len() > 1 {
		for j, n := range w.nodes {
			if j == w.node {
				continue
			}
			o := s.subs.on(n)
			if o == nil || o.born >= w.seq || !o.accepts(s, m.from) {
				continue
			}
			if j < w.node {
				return
			}
			qos = max(qos, o.qos)
			asPublished = asPublished || o.retainAsPublished
			if len(o.ids) > 0 {
				ids = append(ids[:len(ids):len(ids)], o.ids...)
			}
		}
	}
	l.hand(s, m, min(qos, m.qos), m.retain && asPublished, ids)
}

// hand gives m to s: to its client at once if that is possible, to its queue
// if it must not be lost. layouts must have begun with m.
func (l *loop) hand(s *session, m *message, qos byte, retain bool, ids []uint32) {
	c := s.client
	if c == nil {
		l.handElsewhere(s, m, qos, retain, ids)
		return
	}
	if !s.mayReceive(m.topic) {
		return
	}
	f := l.layouts.frame(c, qos, retain, ids)
	if f == nil {
		l.handAlone(s, m, qos, retain, ids)
		return
	}
	if f.packet > c.maxPacket { // [MQTT-3.1.2-24]
		l.drop(s, m, DropTooLarge)
		return
	}
	if qos == 0 {
		if c.conn.Buffered() >= l.b.opts.WriteQueueBytes {
			l.drop(s, m, DropSlowReader)
			return
		}
		c.put(f, m, 0)
		return
	}
	if !s.ready() {
		s.enqueue(delivery{msg: m.own(), qos: qos, retain: retain, subIDs: ids})
		return
	}
	n := s.busy().window.push(delivery{msg: m.own(), qos: qos, retain: retain, subIDs: ids, sent: true, quota: true})
	s.window.next = n + 1
	s.quota--
	c.put(f, m, packetID(n))
}

// handAlone is hand for a packet whose bytes no other client could share.
func (l *loop) handAlone(s *session, m *message, qos byte, retain bool, ids []uint32) {
	if qos > 0 {
		s.enqueue(delivery{msg: m.own(), qos: qos, retain: retain, subIDs: ids})
		s.pump()
		return
	}
	if s.client.conn.Buffered() >= l.b.opts.WriteQueueBytes {
		l.drop(s, m, DropSlowReader)
		return
	}
	if !s.client.writePublish(m, 0, retain, false, 0, ids) {
		l.drop(s, m, DropTooLarge)
	}
}

// handElsewhere is hand for a session without a client.
func (l *loop) handElsewhere(s *session, m *message, qos byte, retain bool, ids []uint32) {
	switch {
	case s.sink != nil:
		if !s.sink.accept(m, qos, retain) {
			l.drop(s, m, DropOverloaded)
		}
	case qos > 0 && !s.ended:
		s.enqueue(delivery{msg: m.own(), qos: qos, retain: retain, subIDs: ids})
	}
}

// put queues an encoded PUBLISH of m.
func (c *client) put(f *frame, m *message, id uint16) {
	bytes := f.bytes
	shared := len(m.payload) >= shareFrom && !c.framing.Compressed()
	if shared {
		bytes = bytes[:len(bytes)-len(m.payload)]
	}
	b := c.conn.Reserve(len(bytes))
	copy(b, bytes)
	if id != 0 {
		binary.BigEndian.PutUint16(b[f.idAt:], id)
	}
	if shared {
		o := m.own()
		c.conn.WriteShared(o.payload, o)
	}
	bump(&c.l.stats.publishOut, 1)
	c.l.stats.sent(f.packet)
}

// writePublish encodes and queues a PUBLISH for this client alone. It reports
// false, and writes nothing, if the packet is larger than the client takes.
func (c *client) writePublish(m *message, qos byte, retain, dup bool, id uint16, ids []uint32) bool {
	var o wire.Outgoing
	m.outgoing(&o, c.l.now())
	o.Version, o.QoS, o.Retain, o.Dup, o.PacketID, o.SubIDs = c.version, qos, retain, dup, id, ids
	alias, known := c.alias(m.topic)
	o.Alias = alias
	if known {
		o.Topic = nil
	}
	size := o.Size()
	if size > c.maxPacket {
		return false
	}
	if alias != 0 && !known {
		c.aliasOut[string(m.topic)] = alias
	}
	if len(m.payload) < shareFrom && !c.framing.Compressed() {
		o.Put(c.reserve(size))
		bump(&c.l.stats.publishOut, 1)
		return true
	}
	c.put(c.l.layouts.alone(c.l, &o, c.framing), m, id)
	return true
}

// alias returns the topic alias to send name with, or 0, and whether the
// client knows it already. Aliases are given to the first names and kept: a
// name's alias must not change under packets that are queued.
func (c *client) alias(name []byte) (alias uint16, known bool) {
	if c.aliasMaximum == 0 {
		return 0, false
	}
	if a := c.aliasOut[string(name)]; a != 0 {
		return a, true
	}
	if len(c.aliasOut) >= int(c.aliasMaximum) {
		return 0, false
	}
	if c.aliasOut == nil {
		c.aliasOut = make(map[string]uint16, 4)
	}
	return uint16(len(c.aliasOut) + 1), false
}
