package broker

import (
	"hash/maphash"

	"hashplus/broker/wire"
	"hashplus/topic"
)

// subscribe handles SUBSCRIBE. SUBACK waits until every filter is in place: a
// message published after it reaches the client.
func (c *client) subscribe(h wire.Header, body []byte) error {
	p, err := wire.DecodeSubscribe(h, body, c.version, &c.b.options().wire)
	if err != nil {
		return err
	}
	s := c.session
	reasons := make([]wire.ReasonCode, len(p.Filters))
	var replays []*subscription
	finish := func() {
		a := answer{packet: wire.AppendSuback(nil, c.version, p.PacketID, reasons), then: func() {
			for _, sub := range replays {
				if !sub.due { // it may have gone meanwhile, or left it to the one in its place
					sub = s.subs.find(sub.filter)
				}
				if sub != nil && sub.due {
					sub.due = false
					s.begin(sub)
				}
			}
		}}
		if s.stored == nil {
			c.answer(a)
			return
		}
		c.owe(c.l.notes(), a)
	}
	joining, held := 0, false
	joined := func() {
		if joining--; joining == 0 && held && c.state == open {
			c.unhold()
			finish()
		}
	}
	var ids []uint32
	if p.SubscriptionID != 0 {
		ids = []uint32{p.SubscriptionID}
	}
	for i := range p.Filters {
		f := &p.Filters[i]
		group, name, reason := c.admitFilter(f.Filter)
		if reason != wire.Success {
			reasons[i] = reason
			continue
		}
		sub := &subscription{
			filter: f.Filter, topic: name, ids: ids, qos: min(f.QoS, *c.announced.MaximumQoS),
			noLocal: f.NoLocal, retainAsPublished: f.RetainAsPublished,
		}
		reasons[i] = wire.ReasonCode(sub.qos)
		old := s.subs.find(f.Filter)
		if group != "" {
			joining++
		}
		s.put(old, sub, group, joined)
		switch {
		case group != "":
		case f.RetainHandling == 0 || f.RetainHandling == 1 && old == nil:
			if old != nil {
				s.cancelReplay(old)
			}
			replays = append(replays, sub)
			sub.due, sub.replaying = true, s.stored != nil && c.l.mayReplay(sub)
		case old != nil:
			s.inheritReplay(old, sub)
		}
		s.writeSubscription(sub)
		if o := c.b.opts.Observer; o != nil {
			o.Subscribed(s.who(), f.Filter, sub.qos)
		}
	}
	if joining > 0 {
		held = true
		c.hold()
		return nil
	}
	finish()
	return nil
}

// admitFilter takes a filter of a SUBSCRIBE apart and decides whether the
// client may have it.
func (c *client) admitFilter(f string) (group, name string, reason wire.ReasonCode) {
	group, name, shared, err := topic.ParseShare(f)
	if err != nil {
		return "", "", wire.TopicFilterInvalid
	}
	if !shared {
		group, name = "", f
	}
	o := c.b.options()
	if topic.CheckFilter(name) != nil || len(name) > o.MaxTopicLength || topic.Levels(name) > o.MaxTopicLevels {
		return "", "", wire.TopicFilterInvalid
	}
	if g := c.b.ledger; g != nil && c.session.stored != nil && !g.works() {
		return "", "", wire.QuotaExceeded
	}
	if c.session.subs.len() >= o.MaxSubscriptions && c.session.subs.find(f) == nil {
		return "", "", wire.QuotaExceeded
	}
	if c.b.memory.short.Load() && c.session.subs.find(f) == nil {
		c.b.refused.memory.Add(1)
		return "", "", wire.QuotaExceeded
	}
	if inReply(name) && (shared || !c.session.ownsReply(name)) {
		return "", "", wire.NotAuthorized
	}
	if az := c.l.az; az != nil && !inReply(name) && !az.CanSubscribe(c.session.who(), name) {
		// Not NotAuthorized: clients of version 5 that were written for 3.1.1,
		// the Eclipse suite's among them, read no other refusal than this.
		return "", "", wire.UnspecifiedError
	}
	return group, name, wire.Success
}

// put makes sub one of the session's, in place of old if that is not nil
// [MQTT-3.8.4-3]. For a share group joined is called when it is in effect,
// which may be before put returns.
func (s *session) put(old, sub *subscription, group string, joined func()) {
	l := s.loop
	switch {
	case old != nil && old.member == nil:
		sub.node, sub.pos, sub.born = old.node, old.pos, old.born
		sub.node.Value.loops[l.id].members[sub.pos].sub = sub
		s.subs.replace(old, sub)
	case old != nil:
		s.subs.replace(old, sub)
		old.member.change(sub, joined)
		return
	default:
		s.subs.add(sub)
	}
	switch {
	case group != "":
		bump(&l.stats.subscriptions, 1)
		key := groupKey{group, sub.topic}
		sub.member = &groupMember{s: s, sub: sub, home: l.b.groupHome(key)}
		s.shared++
		sub.member.join(key, s.memberState(), joined)
	case old == nil:
		l.attachSub(s, sub)
	}
}

// groupHome is the loop that a share group lives on.
func (b *Broker) groupHome(k groupKey) *loop {
	var h maphash.Hash
	h.SetSeed(b.seed)
	h.WriteString(k.name)
	h.WriteByte(0)
	h.WriteString(k.filter)
	return b.loops[b.shard[h.Sum64()%shards]]
}

// unsubscribe handles UNSUBSCRIBE.
func (c *client) unsubscribe(h wire.Header, body []byte) error {
	p, err := wire.DecodeUnsubscribe(h, body, c.version, &c.b.options().wire)
	if err != nil {
		return err
	}
	s := c.session
	reasons := make([]wire.ReasonCode, len(p.Filters))
	for i, f := range p.Filters {
		sub := s.subs.find(f)
		if sub == nil {
			reasons[i] = wire.NoSubscriptionExisted
			continue
		}
		s.subs.remove(sub)
		sub.due = false
		s.eraseSubscription(sub)
		c.l.detachSub(s, sub)
		s.cancelReplay(sub)
		if o := c.b.opts.Observer; o != nil {
			o.Unsubscribed(s.who(), f)
		}
	}
	a := answer{packet: wire.AppendUnsuback(nil, c.version, p.PacketID, reasons)}
	if s.stored == nil {
		c.answer(a)
		return nil
	}
	c.owe(c.l.notes(), a)
	return nil
}
