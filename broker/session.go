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
	absence  *absence  // nil while connected
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
	received map[uint16]struct{} // QoS 2 publishes that came in and were not released
	replays  []*replay           // retained messages on their way, in the order of SUBSCRIBE
	reply    string              // its reply prefix, "" until asked for
	dropped  uint64              // messages lost to a full queue
}

// absence is what a session waits for while it is not connected.
type absence struct {
	timer link.Timer
	will  *will // nil, or waiting for its delay
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
	s.quota = int32(min(int(c.receiveMaximum), s.loop.b.opts.MaxInflight))
	if s.window.count > 0 {
		s.window.next = s.window.head
	}
	for n := s.window.head; n < s.window.tail(); n++ {
		s.window.slot(n).quota = false
	}
	s.pump()
	s.wantReplay() // of what the last connection was too short for
	s.groupsChanged()
}

// detach ends the binding of s to its client, whose will w (or nil) fires now
// or after its delay. A session without an expiry ends.
func (s *session) detach(w *will) {
	l := s.loop
	s.client = nil
	if w != nil && (w.delay == 0 || s.expiry == 0) {
		l.fire(w)
		w = nil
	}
	if s.expiry == 0 {
		s.end()
		return
	}
	s.groupsChanged()
	now := l.now()
	a := &absence{endAt: maxTime, will: w}
	if s.expiry != neverExpires {
		a.endAt = now + int64(s.expiry)*second
	}
	if w != nil {
		w.due = now + int64(w.delay)*second
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
		s.loop.fire(w)
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
		l.fire(w)
	}
	// The groups are left first, so that they don't offer s what it gives back.
	s.subs.each(func(sub *subscription) { l.detachSub(s, sub) })
	s.subs = subscriptions{}
	for n := s.window.head; n < s.window.tail(); n++ {
		d := s.window.slot(n)
		if d.msg == nil {
			continue
		}
		if d.group != nil && d.qos == 1 {
			d.group.giveBack(l, d.msg, d.seq)
			continue
		}
		if d.group != nil {
			l.drop(s, d.msg, DropSharedSessionEnded) // [MQTT-4.8.2-5]
		}
		d.msg.release()
	}
	l.stats.queued.Add(-int64(s.pending.count))
	for s.pending.count > 0 {
		s.pending.pop().msg.release()
	}
	s.traffic = &l.idle
}

// writable reports whether the client's write queue is below high water; if
// not, the client is told when it has drained.
func (s *session) writable() bool {
	c := s.client
	if c.conn.Buffered() < c.b.opts.WriteQueueBytes {
		return true
	}
	c.conn.NotifyBelow(c.b.opts.WriteQueueBytes / 2)
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
	for s.pending.count > 0 && s.quota > 0 && !s.window.full() && s.writable() {
		d := s.pending.pop()
		s.loop.stats.queued.Add(-1)
		if d.msg.expired(s.loop.now()) {
			s.loop.drop(s, d.msg, DropExpired) // [MQTT-3.3.2-5]
			d.msg.release()
			continue
		}
		if !s.mayReceive(d.msg.topic) {
			d.msg.release()
			continue
		}
		s.launch(d)
	}
}

// forgo ends a delivery whose receiver has lost the right to it since it was
// first sent. Other members of a share group may have it.
func (s *session) forgo(d *delivery) {
	if d.group != nil && d.qos == 1 {
		d.group.giveBack(s.loop, d.msg, d.seq)
	} else {
		d.msg.release()
	}
	s.window.finish(d)
}

// launch gives d, for which there is room, a packet identifier and sends it, as
// transmit does.
func (s *session) launch(d delivery) bool {
	n := s.busy().window.push(d)
	s.window.next = n + 1
	return s.transmit(n, s.window.slot(n))
}

// transmit writes the PUBLISH of slot n. A message that the client's Maximum
// Packet Size forbids is done without being sent [MQTT-3.1.2-25].
func (s *session) transmit(n uint64, d *delivery) (sent bool) {
	ok := s.client.writePublish(d.msg, d.qos, d.retain, d.sent, packetID(n), d.subIDs)
	if !ok {
		s.loop.drop(s, d.msg, DropTooLarge)
		d.msg.release()
		s.window.finish(d)
		return false
	}
	d.sent, d.quota = true, true
	s.quota--
	return true
}

// complete ends the delivery d: the receiver has it, or refused it.
func (s *session) complete(d *delivery) {
	if d.msg != nil {
		d.msg.release()
	}
	if d.quota {
		s.quota++
	}
	s.window.finish(d)
}

// enqueue keeps a message that can't leave now. It takes over d.msg.
func (s *session) enqueue(d delivery) {
	l := s.loop
	o := &l.b.opts
	if d.msg.size() > o.MaxQueuedBytes { // no use in making room for it
		l.drop(s, d.msg, DropQueueFull)
		d.msg.release()
		return
	}
	for s.pending.count >= o.MaxQueuedMessages || s.pending.bytes+d.msg.size() > o.MaxQueuedBytes {
		s.overflowed()
		switch {
		case o.QueueFull == DropOldest && s.pending.count > 0:
			old := s.pending.pop()
			l.stats.queued.Add(-1)
			l.drop(s, old.msg, DropQueueFull)
			old.msg.release()
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
	s.busy().pending.push(d)
	l.stats.queued.Add(1)
}

// overflowed logs the first loss of a session.
func (s *session) overflowed() {
	t := s.busy()
	if t.dropped++; t.dropped == 1 {
		s.loop.b.log.Warn("session queue is full", "client", s.id, "messages", s.pending.count,
			"bytes", s.pending.bytes, "policy", s.loop.b.opts.QueueFull.String())
	}
}

// mayReceive asks the Authorizer whether the session may have messages of
// topic. Of the reply space it gets none but its own, see ownsReply.
func (s *session) mayReceive(topic []byte) bool {
	az := s.loop.b.opts.Authorizer
	return az == nil || s.sink != nil || hasPrefix(topic, replyRoot) || az.CanReceive(s.who(), topic)
}

// who is the identity of s.
func (s *session) who() *Identity {
	if s.identity == nil {
		s.identity = &Identity{ClientID: s.id, Username: s.username}
	}
	return s.identity
}
