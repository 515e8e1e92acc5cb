package broker

import "hashplus/topic"

// replay sends the retained messages that match a new subscription. It waits
// while the receiver has no room, and nothing is dropped.
//
// Beside it the subscription gets what is published live, and a message may be
// on its way here since before the SUBSCRIBE, in the mailbox of this loop or in
// a walk. So that no older message of a name follows a newer one, and every
// value comes,
//
//  1. the replay leaves out what was set after the subscription was in the
//     index: whoever set it found the subscription there, and sends it live;
//  2. it begins when all that was set before has arrived: each other loop was
//     asked and has answered behind the messages that it had sent, and the
//     walks that were under way then are over.
//
// What it meets is then the value of before, not yet replaced, of which no
// older one is on its way.
type replay struct {
	sub    *subscription
	cursor *topic.Cursor[message]
	until  uint64 // the latest version to send
	asked  int    // loops that have not answered
	after  uint64 // the walk to wait for

	fetching bool     // the payload of a cold message is being read
	held     *message // that message, to be sent next
	over     bool     // the walk is
}

// peekBudget is the number of steps in which to find out that there is nothing
// to replay.
const peekBudget = 64

// begin starts the replay for sub, which is in the index, behind the session's
// others.
func (s *session) begin(sub *subscription) {
	if s.ended || !s.online() {
		return
	}
	if sub.filter == replySelf {
		s.tellReply(sub)
		return
	}
	l := s.loop
	kept := &l.b.retained
	if !l.mayReplay(sub) {
		s.replayed(sub)
		return // most subscriptions have nothing, and ask nobody
	}
	r := &replay{sub: sub, until: kept.version.Load()}
	r.cursor = kept.tree.Walk(sub.topic)
	t := s.busy()
	t.replays = append(t.replays, r)
	r.asked = len(l.b.loops)
	for _, o := range l.b.loops {
		l.send(o, func(o *loop) { o.send(l, func(*loop) { s.answered(r) }) })
	}
}

// mayReplay reports whether there are retained messages for sub, as far as a
// short look tells.
func (l *loop) mayReplay(sub *subscription) bool {
	found := false
	done := l.b.retained.tree.Walk(sub.topic).Next(peekBudget, func(string, *message) bool {
		found = true
		return false
	})
	return found || !done
}

// replayed notes that the replay for sub is over. If another has taken sub's place
// since SUBSCRIBE, before the replay began, the store has that one.
func (s *session) replayed(sub *subscription) {
	if sub.replaying {
		sub.replaying = false
		if s.subs.find(sub.filter) == sub {
			s.writeSubscription(sub)
		}
	}
}

// answered notes that one more loop has nothing on the way that is older than r.
func (s *session) answered(r *replay) {
	if r.asked--; r.asked == 0 {
		r.after = s.loop.walkSeq
		s.wantReplay()
	}
}

// settled reports whether all that is older than r has been delivered.
func (r *replay) settled(l *loop) bool {
	return len(l.walks) == 0 || l.walks[0].seq > r.after
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
	s.wantReplay()
}

// inheritReplay has sub, which took old's place and asks for no retained messages of
// its own, get what is left of those that old asked for [MQTT-3.3.1-9].
func (s *session) inheritReplay(old, sub *subscription) {
	sub.due, sub.replaying = old.due, old.replaying
	old.due = false
	for _, r := range s.replays {
		if r.sub == old {
			r.sub = sub
		}
	}
}

// wantReplay puts s on the loop's list of replays to continue in the next
// tick, if it has any.
func (s *session) wantReplay() {
	if len(s.replays) > 0 && !s.replayOn {
		s.replayOn = true
		s.loop.replays = append(s.loop.replays, s)
	}
}

// replay continues the replays of the sessions on the list, in turn, within
// the budget of a tick.
func (l *loop) replay() {
	list := l.replays
	if len(list) == 0 {
		return
	}
	l.replays = nil
	slice := max(peekBudget, replayBudget/len(list))
	served := 0
	for left := replayBudget; left > 0 && served < len(list); left -= slice {
		s := list[served]
		served++
		s.replayOn = false
		if s.continueReplay(slice) {
			s.wantReplay()
		}
	}
	if rest := list[served:]; len(rest) > 0 {
		l.replays = append(append([]*session(nil), rest...), l.replays...)
	}
}

// continueReplay reports whether to go on in the next tick; otherwise the
// replays are over, or an answer, an acknowledgement, Writable or the next
// connection goes on.
func (s *session) continueReplay(budget int) bool {
	if len(s.replays) == 0 || !s.online() {
		return false
	}
	r := s.replays[0]
	if r.asked > 0 {
		return false
	}
	if !r.settled(s.loop) {
		return true
	}
	room := s.roomFor(r)
	if !room || r.fetching {
		return false
	}
	if m := r.held; m != nil {
		r.held = nil
		s.giveRetained(r.sub, m)
		room = s.roomFor(r)
	}
	if room && !r.over {
		r.over = r.cursor.Next(budget, func(_ string, m *message) bool {
			switch {
			case m.version > r.until:
			case m.cold:
				s.fetch(r, m)
			default:
				s.giveRetained(r.sub, m)
				room = s.roomFor(r)
			}
			return room && !r.fetching
		})
	}
	if r.fetching {
		return false
	}
	done := r.over
	if done {
		s.replayed(r.sub)
		s.replays[0] = nil
		if s.replays = s.replays[1:]; len(s.replays) == 0 {
			s.replays = nil
		}
	}
	return len(s.replays) > 0 && (room || done)
}

func (s *session) roomFor(r *replay) bool {
	switch {
	case s.sink != nil:
		return s.sink.room() > 0
	case r.sub.qos == 0:
		return s.writable()
	}
	return s.ready()
}

// giveRetained sends the retained message m; there is room for it.
func (s *session) giveRetained(sub *subscription, m *message) {
	l := s.loop
	if m.expired(l.now()) || !s.admits(sub, m) || !sub.accepts(s, m.from) || l.withdrawn(m) {
		return
	}
	qos := min(sub.qos, m.qos)
	switch {
	case s.sink != nil:
		if !s.sink.accept(m, qos, true) {
			l.drop(s, m, DropOverloaded)
		}
	case qos == 0:
		if !s.client.writePublish(m, 0, true, false, 0, sub.ids) {
			l.drop(s, m, DropTooLarge)
		}
	default:
		s.launch(delivery{msg: m.own(), qos: qos, retain: true, subIDs: sub.ids})
	}
}
