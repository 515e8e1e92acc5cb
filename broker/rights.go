package broker

import "context"

// standing is what the Authorizer says of a subscription as a whole.
type standing uint8

const (
	barred   standing = iota // its filter may not be subscribed to (any more): nothing is delivered
	screened                 // CanReceive is asked for each message
	cleared                  // all that it matches may be delivered
)

// SetAuthorizer puts a in the place of the Authorizer, for the clients that are
// connected too; nil allows everything. When it returns, every loop asks a: a
// subscription that is not allowed any more gets nothing, be it live, retained,
// queued or through its share group, and gets messages again once it is. One
// whose rules have changed inside must be set again. It fails with ctx's end,
// after which some loops may still ask the one before.
//
// A client that connected while there was no Authorizer is known to a by
// client identifier, username, and what its connection says.
func (b *Broker) SetAuthorizer(ctx context.Context, a Authorizer) error {
	return b.each(ctx, func(l *loop) { l.authorize(a) })
}

// authorize makes a the loop's Authorizer.
func (l *loop) authorize(a Authorizer) {
	l.az = nil
	if a != nil {
		l.az = &authorizer{az: a, calls: l.b.calls}
		l.az.whole, _ = a.(FilterAuthorizer)
	}
	l.rules++
	for _, g := range l.groups {
		g.drainAll() // others may be allowed now, or nobody
	}
}

// standing is that of sub, a subscription of s. It is asked for once, and again
// after the rules or the identity have changed.
func (l *loop) standing(s *session, sub *subscription) standing {
	if sub.rules == l.rules {
		return sub.standing
	}
	return l.appraise(s, sub)
}

func (l *loop) appraise(s *session, sub *subscription) standing {
	if s.stranger() {
		return screened
	}
	sub.standing, sub.rules = cleared, l.rules
	if s.sink == nil && l.az != nil {
		sub.standing = l.judge(s.who(), sub.topic)
	}
	return sub.standing
}

// judge asks what standing a subscription of id to filter has.
func (l *loop) judge(id *Identity, filter string) standing {
	switch {
	case l.az == nil, inReply(filter):
		return cleared
	case !l.az.CanSubscribe(id, filter):
		return barred
	case l.az.CanReceiveAll(id, filter):
		return cleared
	}
	return screened
}

// admits reports whether s may have m through sub.
func (s *session) admits(sub *subscription, m *message) bool {
	switch s.loop.standing(s, sub) {
	case cleared:
		return true
	case barred:
		return false
	default:
		return s.mayReceive(m.topic)
	}
}

// mayReceive asks the Authorizer whether the session may have messages of
// topic. Of the reply space it gets none but its own, see ownsReply.
func (s *session) mayReceive(topic []byte) bool {
	az := s.loop.az
	return az == nil || s.sink != nil || hasPrefix(topic, replyRoot) || s.stranger() || az.CanReceive(s.who(), topic)
}

// stranger reports whether s is not connected and nobody remembers more of its
// client than the name. What it may have is found out when it comes: nothing
// leaves before.
func (s *session) stranger() bool { return s.client == nil && s.sink == nil && s.identity == nil }

// who is the identity of s.
func (s *session) who() *Identity {
	if s.identity != nil {
		return s.identity
	}
	id := &Identity{ClientID: s.id, Username: s.username}
	if s.client != nil {
		info := s.client.conn.Info()
		id.Remote, id.Listener = info.Remote, info.Listener
		s.identity = id
	}
	return id
}

// renewed makes id the identity of s: what its subscriptions were found to be
// allowed must be asked for again.
func (s *session) renewed(id *Identity) {
	s.identity = id
	s.subs.each(func(sub *subscription) { sub.rules = 0 })
}

// publisher is what is remembered of who published a retained message: the
// Authorizer is asked about it again under other rules. Nothing is of one with
// claims: what is said of it by name alone would not be what was said of it.
func publisher(id *Identity) *Identity {
	if id.Data != nil {
		return nil
	}
	return id
}

// withdrawn reports whether the retained message m is of a client that may not
// publish it any more.
func (l *loop) withdrawn(m *message) bool {
	return l.az != nil && m.by != nil && m.rules != l.rules && !hasPrefix(m.topic, replyRoot) && !l.az.CanPublish(m.by, m.topic)
}
