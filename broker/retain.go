package broker

import (
	"hashplus/topic"
	"hashplus/transport/link"
)

// retain makes m the retained message of its topic, or removes that if m has
// no payload [MQTT-3.3.1-6]. The tree's copy is never recycled: walks on other
// loops may be reading it.
func (b *Broker) retain(m *message) {
	if len(m.payload) == 0 {
		b.retained.Swap(m.topic, nil)
		return
	}
	kept := m.keep()
	b.retained.Swap(kept.topic, kept)
}

// replay sends the retained messages that match a new subscription. It waits
// while the client's write queue or window is full, and nothing is dropped.
type replay struct {
	sub    *subscription
	cursor *topic.Cursor[message]
}

func (b *Broker) newReplay(sub *subscription) *replay {
	return &replay{sub: sub, cursor: b.retained.Walk(sub.topic)}
}

// begin starts r behind the session's other replays.
func (s *session) begin(r *replay) {
	if s.ended || s.client == nil {
		return
	}
	if r.sub.filter == replySelf {
		s.tellReply(r.sub)
		return
	}
	t := s.busy()
	t.replays = append(t.replays, r)
	s.wantReplay()
}

func (s *session) cancelReplay(sub *subscription) {
	if len(s.replays) == 0 {
		return
	}
	kept := s.replays[:0]
	for _, r := range s.replays {
		if r.sub != sub {
			kept = append(kept, r)
		}
	}
	clear(s.replays[len(kept):])
	s.replays = kept
}

// wantReplay puts s on the loop's list of replays to continue in the next
// tick.
func (s *session) wantReplay() {
	if !s.replayOn {
		s.replayOn = true
		s.loop.replays = append(s.loop.replays, s)
	}
}

// replay continues the replays of all sessions that are on the list, each for
// its budget.
func (l *loop) replay() {
	list := l.replays
	l.replays = nil
	for _, s := range list {
		s.replayOn = false
		if s.continueReplay() {
			s.wantReplay()
		}
	}
	if l.replays == nil {
		clear(list)
		l.replays = list[:0]
	}
}

// continueReplay reports whether to go on in the next tick; otherwise the
// replays are over, or an acknowledgement or Writable goes on.
func (s *session) continueReplay() bool {
	if len(s.replays) == 0 || s.client == nil {
		return false
	}
	r := s.replays[0]
	if !s.roomFor(r) {
		return false
	}
	room := true
	done := r.cursor.Next(replayBudget, func(_ string, m *message) bool {
		s.giveRetained(r.sub, m)
		room = s.roomFor(r)
		return room
	})
	if done {
		s.replays[0] = nil
		if s.replays = s.replays[1:]; len(s.replays) == 0 {
			s.replays = nil
		}
	}
	return len(s.replays) > 0 && (room || done)
}

func (s *session) roomFor(r *replay) bool {
	if r.sub.qos == 0 {
		return s.writable()
	}
	return s.ready()
}

// giveRetained sends the retained message m; there is room for it.
func (s *session) giveRetained(sub *subscription, m *message) {
	l := s.loop
	if m.expired(l.now()) || !s.mayReceive(m.topic) || !sub.accepts(s, m.from) {
		return
	}
	qos := min(sub.qos, m.qos)
	if qos == 0 {
		if !s.client.writePublish(m, 0, true, false, 0, sub.ids) {
			l.drop(s, m, DropTooLarge)
		}
		return
	}
	n := s.busy().window.push(delivery{msg: m.own(), qos: qos, retain: true, subIDs: sub.ids})
	s.window.next = n + 1
	s.transmit(n, s.window.slot(n))
}

// sweep removes retained messages that have expired, a little at a time.
type sweep struct {
	l      *loop
	timer  link.Timer
	cursor *topic.Cursor[message]
}

// sweepEvery is the time between two sweeps.
const sweepEvery = 60 * second

func (l *loop) startSweep() {
	w := &sweep{l: l}
	w.timer.Owner = w
	l.arm(&w.timer, l.now()+sweepEvery)
}

// Expire does the next part of the sweep.
func (w *sweep) Expire(t *link.Timer) {
	l := w.l
	if w.cursor == nil {
		w.cursor = l.b.retained.Walk("#")
	}
	now := l.now()
	var gone [][]byte
	done := w.cursor.Next(replayBudget, func(_ string, m *message) bool {
		if m.expired(now) {
			gone = append(gone, m.topic)
		}
		return true
	})
	for _, name := range gone {
		// A newer message may have come meanwhile: put it back.
		if m := l.b.retained.Swap(name, nil); m != nil && !m.expired(now) {
			if newer := l.b.retained.Swap(name, m); newer != nil {
				l.b.retained.Swap(name, newer)
			}
		}
	}
	if done {
		w.cursor = nil
		l.arm(t, now+sweepEvery)
		return
	}
	l.arm(t, now+second/20)
}
