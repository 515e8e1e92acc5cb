package broker

import (
	"hashplus/broker/wire"
	"hashplus/transport/link"
)

// neverExpires is the Session Expiry Interval that means no expiry (MQTT 5.0
// section 3.1.2.11.2).
const neverExpires = 0xFFFFFFFF

// maxTime is a time that does not come.
const maxTime = int64(1<<63 - 1)

// session is what the broker remembers of a client, connected or not. It
// belongs to the loop of its shard for as long as it lives.
type session struct {
	// Immutable.
	id       string
	origin   uint64 // stands for id in messages, see Broker.origin
	username string // of who made it; nobody else may resume it
	loop     *loop
	sink     sink // of an in-process subscriber, which has no client

	// Owned by the loop.
	client   *client   // nil while not connected
	arriving *client   // whose CONNACK waits for the store
	absence  *absence  // nil while connected
	stored   *stored   // nil unless it is in the store
	identity *Identity // of the latest client; nil until asked for
	subs     subscriptions
	*traffic        // &loop.idle until busy
	expiry   uint32 // Session Expiry Interval, seconds
	quota    int32  // units of the client's Receive Maximum that are free
	shared   int32  // subscriptions that are members of share groups
	met      uint64 // stamp of a walk that has been here: it has nothing more to give
	replayOn bool   // is on the loop's list of replays
	roomOn   bool   // is on the loop's list of rooms
	ended    bool
}

// traffic is what a session has beyond its subscriptions. Most sessions are
// idle, or take part at QoS 0 only, and are spared it.
type traffic struct {
	window   window
	pending  queue
	received map[uint16]*receipt // QoS 2 publishes that came in and were not released
	replays  []*replay           // retained messages on their way, in the order of SUBSCRIBE
	reply    string              // its reply prefix, "" until asked for
	dropped  uint64              // messages lost to a full queue
	posting  *posting            // of its latest publish that went to several loops
}

// absence is what a session waits for while it is not connected.
type absence struct {
	timer link.Timer
	will  *will // nil, or waiting for its delay
	since int64 // when it began
	endAt int64 // when the session ends
}

// busy returns the session's traffic to write to. What s.traffic gives without
// it may be every idle session's, and is for reading.
func (s *session) busy() *traffic {
	if s.traffic == &s.loop.idle {
		s.traffic = new(traffic)
	}
	return s.traffic
}

// sink takes messages for an in-process subscriber. It must not block.
type sink interface {
	// room is how many messages accept will take now. After it said 0 the
	// sink calls roomChanged and wantReplay when there is room again.
	room() int
	// accept reports whether there was room. m is valid during the call.
	accept(m *message, qos byte, retain bool) bool
}

func (s *session) online() bool { return s.client != nil || s.sink != nil }

// attach binds c, which has got its CONNACK, to s, and sends again what was
// not acknowledged [MQTT-4.4.0-1].
func (s *session) attach(c *client) {
	s.client = c
	s.present()
	s.quota = int32(min(int(c.receiveMaximum), s.loop.b.options().MaxInflight))
	if s.window.count > 0 {
		s.window.next = s.window.head
	}
	for n := s.window.head; n < s.window.tail(); n++ {
		s.window.slot(n).quota = false
	}
	s.pump()
	if st := s.stored; st != nil && st.resume {
		st.resume = false
		s.subs.each(func(sub *subscription) {
			if sub.replaying {
				s.begin(sub)
			}
		})
	}
	s.wantReplay() // of what the last connection was too short for
	s.groupsChanged()
}

// detach ends the binding of s to its client, whose will w (or nil) fires now
// or after its delay. A session without an expiry ends.
func (s *session) detach(w *will) {
	l := s.loop
	s.client = nil
	if w != nil && (w.delay == 0 || s.expiry == 0) {
		l.fire(s, w)
		w = nil
	}
	if s.expiry == 0 {
		s.end()
		return
	}
	s.groupsChanged()
	s.leaveSince(l.now(), w)
	s.rewrite()
	s.chill()
}

// leaveSince begins the session's absence, as of the time at. w is the will that
// waits for it to last, or nil.
func (s *session) leaveSince(at int64, w *will) {
	a := &absence{endAt: maxTime, since: at, will: w}
	if s.expiry != neverExpires {
		a.endAt = at + int64(s.expiry)*second
	}
	if w != nil {
		w.due = at + int64(w.delay)*second
	}
	a.timer.Owner = s
	s.absence = a
	s.rearm()
}

func (s *session) rearm() {
	at := s.absence.endAt
	if w := s.absence.will; w != nil {
		at = min(at, w.due)
	}
	s.loop.arm(&s.absence.timer, at)
}

// present ends the session's absence, and returns the will that waited for it
// to last longer.
func (s *session) present() (w *will) {
	if a := s.absence; a != nil {
		s.absence = nil
		w = a.will
		s.loop.arm(&a.timer, maxTime)
	}
	return w
}

// Expire fires the will whose delay is over and ends the session whose expiry
// is, whichever is due.
func (s *session) Expire(*link.Timer) {
	a, now := s.absence, s.loop.now()
	if a == nil {
		return
	}
	if now >= a.endAt {
		s.end()
		return
	}
	if w := a.will; w != nil && now >= w.due {
		a.will = nil
		s.loop.fire(s, w)
	}
	s.rearm()
}

// end forgets s: its will fires if it still waits [MQTT-3.1.2-8], its
// subscriptions go, and what it owed from share groups goes to the groups'
// other members. The client, if any, was detached before.
func (s *session) end() {
	if s.ended {
		return
	}
	s.ended = true
	l := s.loop
	w := s.present()
	if l.sessions[s.id] == s {
		delete(l.sessions, s.id)
		l.stats.sessions.Add(-1)
	}
	if w != nil {
		l.fire(s, w)
	}
	// The groups are left first, so that they don't offer s what it gives back.
	s.subs.each(func(sub *subscription) { l.detachSub(s, sub) })
	s.subs = subscriptions{}
	for n := s.window.head; n < s.window.tail(); n++ {
		d := s.window.slot(n)
		if d.absent() { // the ledger gives it back where that is due
			continue
		}
		if d.group != nil && d.qos == 1 {
			if d.stored {
				s.strike(d)
			}
			d.group.giveBack(l, d)
			continue
		}
		if d.group != nil {
			l.drop(s, d.msg, DropSharedSessionEnded) // [MQTT-4.8.2-5]
		}
		if d.kept {
			l.notes().strikeGroup(d.group, d.seq)
		}
		d.msg.release()
	}
	l.stats.queued.Add(-int64(s.pending.count))
	s.pending.clear()
	s.traffic = &l.idle
	if st := s.stored; st != nil {
		l.forget(s.id, st.owner)
	}
}

// writable reports whether the client's write queue is below high water; if
// not, the client is told when it has drained.
func (s *session) writable() bool {
	c := s.client
	if c.conn.Buffered() < c.b.options().WriteQueueBytes {
		return true
	}
	c.conn.NotifyBelow(c.b.options().WriteQueueBytes / 2)
	return false
}

// ready reports whether a QoS 1 or 2 message can leave at once, before no
// other that waits.
func (s *session) ready() bool {
	if s.client == nil {
		return false
	}
	return s.quota > 0 && s.pending.count == 0 && s.window.next == s.window.tail() &&
		!s.window.full() && s.writable()
}

// free is how many messages of share groups the session can take now.
func (s *session) free() int {
	if s.sink != nil {
		return s.sink.room()
	}
	if !s.ready() {
		return 0
	}
	return int(s.quota)
}

// pump sends what the window and the write queue have room for, in order:
// first what was sent on an earlier connection, then what waits.
func (s *session) pump() {
	c := s.client
	if c == nil || c.state != open {
		return
	}
	for s.window.next < s.window.tail() {
		n := s.window.next
		d := s.window.slot(n)
		if d.state == done {
			s.window.next++
			continue
		}
		if d.held { // written goes on
			return
		}
		if d.state == published && d.absent() {
			s.load(d.row)
			return
		}
		if d.state == published && !s.mayReceive(d.msg.topic) {
			s.forgo(d)
			continue
		}
		if !s.writable() {
			return
		}
		if d.state == released {
			c.writeAck(wire.PUBREL, packetID(n), wire.Success)
			s.window.next++
			continue
		}
		if s.quota == 0 {
			return
		}
		s.window.next++
		s.transmit(n, d)
	}
	for s.pending.count > 0 && int(s.quota) > s.unsent() && !s.window.full() && s.writable() {
		next := s.pending.first()
		if next == nil {
			s.load(s.pending.cold.from)
			return
		}
		if s.stored != nil && !next.stored { // written goes on
			return
		}
		d := s.pending.pop()
		s.loop.stats.queued.Add(-1)
		switch {
		case d.msg.expired(s.loop.now()): // [MQTT-3.3.2-5]
			s.loop.drop(s, d.msg, DropExpired)
		case s.mayReceive(d.msg.topic):
			s.launch(d)
			continue
		}
		s.strike(&d)
		d.msg.release()
	}
}

// unsent is how many deliveries of the window wait for one that is held.
func (s *session) unsent() int { return int(s.window.tail() - s.window.next) }

// forgo ends a delivery whose receiver has lost the right to it since it was
// first sent. Other members of a share group may have it.
func (s *session) forgo(d *delivery) {
	if d.group != nil && d.qos == 1 {
		if s.stored != nil {
			s.strike(d)
		}
		d.group.giveBack(s.loop, d)
	} else {
		s.strike(d)
		d.msg.release()
	}
	s.window.finish(d, &s.loop.rings)
}

// launch gives d, for which there is room, a packet identifier and sends it, as
// transmit does. Where the store must know of that before, pump sends it.
func (s *session) launch(d delivery) bool {
	n := s.busy().window.push(d, &s.loop.rings)
	slot := s.window.slot(n)
	switch {
	case s.stored == nil:
	case slot.row == 0:
		s.writeRow(slot, n, true)
	default:
		s.mark(slot, n)
	}
	if slot.held || s.window.next != n {
		return true
	}
	s.window.next = n + 1
	return s.transmit(n, slot)
}

// transmit writes the PUBLISH of slot n. A message that the client's Maximum
// Packet Size forbids is done without being sent [MQTT-3.1.2-25].
func (s *session) transmit(n uint64, d *delivery) (sent bool) {
	ok := s.client.writePublish(d.msg, d.qos, d.retain, d.sent, packetID(n), d.subIDs)
	if !ok {
		s.loop.drop(s, d.msg, DropTooLarge)
		s.strike(d)
		d.msg.release()
		s.window.finish(d, &s.loop.rings)
		return false
	}
	d.sent, d.quota = true, true
	s.quota--
	return true
}

// complete ends the delivery d: the receiver has it, or refused it.
func (s *session) complete(d *delivery) {
	s.strike(d)
	if d.msg != nil {
		d.msg.release()
	}
	if d.quota {
		s.quota++
	}
	s.window.finish(d, &s.loop.rings)
}

// enqueue keeps a message that can't leave now. It takes over d.msg.
func (s *session) enqueue(d delivery) {
	l := s.loop
	o := l.b.options()
	if d.msg.size() > o.MaxQueuedBytes { // no use in making room for it
		l.drop(s, d.msg, DropQueueFull)
		d.msg.release()
		return
	}
	for s.pending.count >= o.MaxQueuedMessages || s.pending.bytes+d.msg.size() > o.MaxQueuedBytes {
		s.overflowed()
		switch {
		case o.QueueFull == DropOldest && s.pending.count > 0:
			if !s.dropOldest() {
				break
			}
			continue
		case o.QueueFull == Disconnect:
			l.drop(s, d.msg, DropQueueFull)
			d.msg.release()
			// The client's buffers may be in use further up the stack: the
			// end comes with the tick.
			l.overflow = append(l.overflow, s)
			return
		}
		l.drop(s, d.msg, DropQueueFull)
		d.msg.release()
		return
	}
	if s.stored != nil {
		s.writeRow(&d, 0, false)
	}
	s.busy().pending.push(d)
	l.stats.queued.Add(1)
}

// dropOldest makes room in the queue, which is not empty. It reports false if
// what waits longest is being read from the store just now.
func (s *session) dropOldest() bool {
	l := s.loop
	if s.pending.first() != nil {
		old := s.pending.pop()
		l.drop(s, old.msg, DropQueueFull)
		s.strike(&old)
		old.msg.release()
	} else {
		st := s.stored
		if st.loading {
			return false
		}
		l.notes().add(change{kind: trimRows, s: s, owner: st.owner, row: s.pending.cold.from})
		st.blind = true
		bump(&l.stats.dropped[DropQueueFull], 1)
		s.pending.trim()
	}
	l.stats.queued.Add(-1)
	return true
}

// overflowed logs the first loss of a session.
func (s *session) overflowed() {
	t := s.busy()
	if t.dropped++; t.dropped == 1 {
		policy, what := s.loop.b.options().QueueFull, "session queue is full"
		if policy == Disconnect {
			what = "session queue is full, the session ends with all that is in it"
		}
		s.loop.b.log.Warn(what, "client", s.id, "messages", s.pending.count, "bytes", s.pending.bytes, "policy", policy.String())
	}
}
