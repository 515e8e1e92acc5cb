package broker

import (
	"encoding/binary"
	"math/bits"

	"hashplus/broker/wire"
)

// shareFrom is the payload size from which receivers share one copy of it by
// reference instead of getting a copy each.
const shareFrom = 8 << 10

// match finds the filters that m's topic matches, for spread, and returns the
// loops that have subscribers to them, a bit for each. l.lasting are those of
// them that have stored sessions.
func (l *loop) match(m *message) (interest uint64) {
	var steps int
	l.nodes, steps = l.b.index.Match(l.nodes[:0], m.topic)
	l.effort.left -= steps + filterEffort*len(l.nodes)
	l.lasting = 0
	for _, n := range l.nodes {
		interest |= n.Value.interest.Load()
		l.lasting |= n.Value.lasting.Load()
	}
	return interest
}

// spread sends m, which may be borrowed, to the loops of interest: what match
// has just found.
func (l *loop) spread(m *message, interest uint64) {
	self := uint64(1) << l.id
	for others := interest &^ self; others != 0; others &= others - 1 {
		l.cross(m, l.b.loops[bits.TrailingZeros64(others)])
	}
	if interest&self != 0 {
		l.deliver(m, l.nodes, 0)
	}
}

// offer delivers the walk's message to s, which it has found through sub. A
// session with several subscriptions that match gets one copy, at the highest
// QoS and with all their identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-3]: where the
// walk meets it first.
func (l *loop) offer(w *walk, s *session, sub *subscription) {
	m := w.m
	if s.met == w.stamp || sub.born >= w.seq || !sub.accepts(s, m.from) {
		return
	}
	right := l.standing(s, sub)
	if right == barred {
		return
	}
	d := overlap{qos: sub.qos, asPublished: sub.retainAsPublished, cleared: right == cleared, ids: sub.ids}
	switch {
	case len(w.nodes) == 1 || s.subs.len() == 1:
	case len(w.nodes) > manyFilters && s.subs.len() < len(w.nodes):
		l.merges(s.subs.len())
		for _, o := range s.subs.list {
			if o.node == nil || o == sub {
				continue
			}
			if fl := o.node.Value.loops[l.id]; fl.stamp == w.stamp && !d.add(w, s, o, int(fl.at)) {
				return
			}
		}
	default:
		l.merges(len(w.nodes))
		for j, n := range w.nodes {
			if j == w.node {
				continue
			}
			if o := s.subs.on(n); o != nil && !d.add(w, s, o, j) {
				return
			}
		}
	}
	s.met = w.stamp
	if !d.cleared && !s.mayReceive(m.topic) {
		return
	}
	l.hand(s, m, min(d.qos, m.qos), m.retain && d.asPublished, d.ids)
}

// merges counts n comparisons that offer makes.
func (l *loop) merges(n int) {
	l.spent += n / mergeShare
	l.effort.left -= n * mergeEffort
}

// overlap is what the subscriptions of one session that match a message come
// to.
type overlap struct {
	qos         byte
	asPublished bool
	cleared     bool
	ids         []uint32
}

// add takes o of s in, whose filter is w's node j. It reports false if w has met
// s there already.
func (d *overlap) add(w *walk, s *session, o *subscription, j int) bool {
	if o.born >= w.seq || !o.accepts(s, w.m.from) {
		return true
	}
	right := s.loop.standing(s, o)
	if right == barred {
		return true
	}
	if j < w.node {
		s.met = w.stamp
		return false
	}
	d.qos = max(d.qos, o.qos)
	d.asPublished = d.asPublished || o.retainAsPublished
	d.cleared = d.cleared || right == cleared
	if len(o.ids) > 0 {
		d.ids = append(d.ids[:len(d.ids):len(d.ids)], o.ids...)
	}
	return true
}

// hand gives m, which s may have, to s: to its client at once if that is
// possible, to its queue if it must not be lost. layouts must have begun with m.
func (l *loop) hand(s *session, m *message, qos byte, retain bool, ids []uint32) {
	c := s.client
	if c == nil {
		l.handElsewhere(s, m, qos, retain, ids)
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
		if c.conn.Buffered() >= l.b.options().WriteQueueBytes {
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
	n := s.busy().window.push(delivery{msg: m.own(), qos: qos, retain: retain, subIDs: ids}, &l.rings)
	d := s.window.slot(n)
	if s.stored != nil {
		if s.writeRow(d, n, true); d.held {
			return
		}
	}
	d.sent, d.quota = true, true
	s.window.next = n + 1
	s.quota--
	c.put(f, m, packetID(n))
}

// handAlone is hand for a packet whose bytes no other client could share.
func (l *loop) handAlone(s *session, m *message, qos byte, retain bool, ids []uint32) {
	if qos > 0 {
		d := delivery{msg: m.own(), qos: qos, retain: retain, subIDs: ids}
		if s.ready() {
			s.launch(d)
		} else {
			s.enqueue(d)
		}
		return
	}
	if s.client.conn.Buffered() >= l.b.options().WriteQueueBytes {
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
	if c.conn.Buffered() == 0 {
		c.l.spent += writeCost - 1
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
		if c.conn.Buffered() == 0 {
			c.l.spent += writeCost - 1
		}
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
