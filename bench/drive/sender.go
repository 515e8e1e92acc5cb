package drive

import (
	"hashplus/bench/codec"
)

// sender is the running state of a Sender.
type sender struct {
	*Sender
	conn     *conn
	flow     uint32 // the next message's, relative to FlowBase
	out      int64  // deliveries still expected
	owed     int    // open loop: bursts that are due
	bursts   int64  // bursts sent since Drive began
	sent     uint64
	index    int64
	forgiven int   // acknowledgements that nobody waits for any more, though they may come
	progress int64 // when something of it last arrived
	queued   bool

	elsewhere []int64 // per process: deliveries of ours that it had when we last looked
}

// wake has s looked at before the tick ends.
func (l *Loop) wake(s *sender) {
	if !s.queued {
		s.queued = true
		l.awake = append(l.awake, s)
	}
}

// pump sends what s may send now.
func (l *Loop) pump(s *sender) {
	s.queued = false
	c := s.conn
	if !l.sending || l.interval == 0 && l.now >= l.end || c == nil || s.Once && s.sent >= uint64(s.Flows) || c.phase != ready {
		return
	}
	for len(c.out)-c.sent < maxSend {
		if s.QoS > 0 {
			if c.unacked+s.Burst > min(c.quota, 1<<15) || l.interval == 0 && c.unacked-s.forgiven+s.Burst > s.Window {
				return
			}
		}
		at := l.now
		if l.interval > 0 {
			if s.owed == 0 {
				return
			}
			// The time it should have left, not the time it does: a stall of the
			// broker shows in each message that had to wait for it.
			at = l.start + int64(float64(s.bursts*int64(len(l.senders))+s.index)*l.interval)
			s.owed--
		} else if s.out > int64(s.Window-s.Burst)*int64(s.Fan) {
			return
		}
		s.bursts++
		for range s.Burst {
			l.publish(s, at)
			if s.sent++; s.Once && s.sent == uint64(s.Flows) {
				return
			}
		}
	}
}

// publish queues the next message of s, stamped with at.
func (l *Loop) publish(s *sender, at int64) {
	flow := s.FlowBase + s.flow
	if s.flow++; s.flow == s.Flows {
		s.flow = 0
	}
	f := &l.plan.Flows[flow]
	if len(l.payload) > 0 {
		seq := l.shared.Seq[flow].Load()
		putHeader(l.payload, flow, seq, at)
		l.shared.Seq[flow].Store(seq + 1)
	}
	var id uint16
	if s.QoS > 0 {
		id = s.conn.takeID()
	}
	l.scratch = codec.AppendPublish(l.scratch[:0], l.target.Version, f.Topic, s.QoS, l.plan.Retain, id, l.payload)
	l.send(s.conn, l.scratch)
	if s.out == 0 {
		s.progress = l.now
	}
	s.out += int64(s.Fan)
	l.count.sent++
	l.expected += uint64(s.Fan)
	if l.plan.Acks {
		l.expected++
		s.conn.stamps = append(s.conn.stamps, at)
	}
}

// schedule marks the bursts that are due at now, and tells when the next is.
func (l *Loop) schedule(now int64) (next int64) {
	for {
		at := l.start + int64(float64(l.due)*l.interval)
		if at > now {
			return at
		}
		s := &l.senders[l.due%int64(len(l.senders))]
		l.due++
		s.owed++
		l.wake(s)
	}
}

// forgive gives up on what has been out for too long without a sign, so that a
// broker that loses messages still gets new ones. The loss itself shows in the
// streams; a message that comes after all is a delivery, but not one waited for.
// What is not acknowledged stays so: it counts for the broker's Receive Maximum.
func (l *Loop) forgive(now int64) {
	for i := range l.senders {
		s := &l.senders[i]
		if s.conn == nil || now-s.progress < int64(l.plan.Stall) || s.out <= 0 && s.conn.unacked <= s.forgiven {
			continue
		}
		l.count.stalls++
		for f := s.FlowBase; f < s.FlowBase+s.Flows; f++ {
			l.shared.Forgiven[f].Store(l.shared.Seq[f].Load())
		}
		s.out, s.forgiven = 0, s.conn.unacked
		s.progress = now
		l.wake(s)
	}
}

// deliver accounts for a message that came to c.
func (l *Loop) deliver(c *conn, m *codec.Publish) {
	l.count.received++
	cl := c.client
	if len(m.Payload) < HeaderSize {
		l.count.strange++
		return
	}
	flow, low, at := readHeader(m.Payload)
	k := flow - cl.FlowBase
	if k >= cl.Flows || len(m.Payload) != l.plan.Payload || l.plan.Owner != nil && !l.plan.Owner(int(c.token), flow) {
		l.count.strange++
		return
	}
	f := &l.plan.Flows[flow]
	topic := f.Topic
	if f.Reply != "" && !cl.Echo {
		topic = f.Reply
	}
	if string(m.Topic) != topic {
		l.count.strange++
		return
	}
	if cl.Stall {
		return
	}
	st := &l.streams[cl.StreamBase+k]
	seq := st.extend(low)
	switch st.take(seq) {
	case duplicate:
		l.count.duplicates++
		if m.Dup {
			l.count.flagged++
		}
		return
	case late:
		if !cl.Shared {
			l.count.disordered++
		}
	}
	if cl.Shared {
		if next := &l.orders[cl.OrderBase+k]; seq < *next {
			l.count.disordered++
		} else {
			*next = seq + 1
		}
	}
	if cl.Echo {
		l.echo(c, f, m)
		return
	}
	l.count.delivered++
	if l.replay > 0 {
		l.latency.record(l.now - l.replay)
		return
	}
	if at >= l.measure && at < l.end {
		l.latency.record(l.now - at)
	}
	if seq < l.shared.Forgiven[flow].Load() {
		return
	}
	s := &l.senders[f.Sender]
	if s.conn == nil {
		// Its publisher is in another process, which looks here.
		a := &l.shared.Arrived[l.part][f.Sender]
		a.Store(a.Load() + 1)
		return
	}
	l.arrive(s, 1)
}

// arrive takes n deliveries off what s waits for.
func (l *Loop) arrive(s *sender, n int64) {
	s.progress = l.now
	s.out -= n
	if l.interval == 0 && s.out <= int64(s.Window-s.Burst)*int64(s.Fan) {
		l.wake(s)
	}
}

// collect takes over what other processes have received of our senders'.
func (l *Loop) collect() {
	for part := range l.shared.Arrived {
		if part == l.part {
			continue
		}
		for i := range l.senders {
			s := &l.senders[i]
			if s.conn == nil {
				continue
			}
			if n := int64(l.shared.Arrived[part][i].Load()); n != s.elsewhere[part] {
				l.arrive(s, n-s.elsewhere[part])
				s.elsewhere[part] = n
			}
		}
	}
}

// echo answers a request with its own payload, at the QoS it came with.
func (l *Loop) echo(c *conn, f *Flow, m *codec.Publish) {
	var id uint16
	if m.QoS > 0 {
		if c.unacked >= c.quota || c.unacked >= 1<<15 {
			l.count.refused++
			return
		}
		id = c.takeID()
	}
	l.scratch = codec.AppendPublish(l.scratch[:0], l.target.Version, f.Reply, m.QoS, false, id, m.Payload)
	l.send(c, l.scratch)
}
