package broker

import (
	"fmt"

	"hashplus/broker/record"
	"hashplus/broker/wire"
)

// reserved reports whether clients may not publish to name: it is the
// server's own, or would be taken for a shared subscription.
func reserved[T ~string | ~[]byte](name T) bool {
	return len(name) > 0 && name[0] == '$' &&
		(hasPrefix(name, "$SYS/") || hasPrefix(name, "$share/") || string(name) == "$SYS" || string(name) == replySelf)
}

func hasPrefix[T ~string | ~[]byte](s T, prefix string) bool {
	return len(s) >= len(prefix) && string(s[:len(prefix)]) == prefix
}

// publish handles PUBLISH.
func (c *client) publish(h wire.Header, body []byte) error {
	l, s := c.l, c.session
	p := &l.in
	if err := p.Decode(h, body, c.version, &c.b.options().wire); err != nil {
		return err
	}
	bump(&l.stats.publishIn, 1)
	c.pace(h.Size + h.Remaining)
	if err := c.admitPublish(p); err != nil {
		return err
	}
	if p.QoS == 2 {
		if r, again := s.received[p.PacketID]; again { // [MQTT-4.3.3-10]
			c.receivedAgain(r, p.PacketID)
			return nil
		}
	}
	if p.QoS > 0 && c.version == wire.V5 && len(s.received) >= int(c.announced.ReceiveMaximum) {
		return &wire.Error{Reason: wire.ReceiveMaximumExceeded, Clause: "MQTT-3.3.4-7",
			Detail: fmt.Sprintf("more than %d messages that are not completed", c.announced.ReceiveMaximum)}
	}
	if p.QoS > 0 && c.b.memory.short.Load() && c.refusePublish() {
		c.acknowledge(p.QoS, p.PacketID, wire.QuotaExceeded, nil)
		return nil
	}
	switch az := l.az; {
	case reserved(p.Topic), az != nil && !hasPrefix(p.Topic, replyRoot) && !az.CanPublish(s.who(), p.Topic):
		c.acknowledge(p.QoS, p.PacketID, wire.NotAuthorized, nil)
	case l.b.ledger != nil && !l.b.ledger.takes() && l.mustStore(s, p):
		l.refusedStore(c, p)
	default:
		m := &l.scratch
		m.owned = nil // still there if something panicked under the last one
		m.topic, m.payload, m.props, m.expiryAt = p.Topic, p.Payload, p.Props, p.ExpiryAt
		m.qos, m.retain, m.from, m.deadline, m.by, m.rules = p.QoS, p.Retain, s.origin, 0, nil, l.rules
		if p.Retain {
			m.by = publisher(s.who())
		}
		if p.ExpiryAt >= 0 {
			m.deadline = l.now() + int64(p.Expiry)*second
		}
		if m.retain && !l.keep(m) && m.qos > 0 && c.version == wire.V5 {
			c.acknowledge(p.QoS, p.PacketID, wire.QuotaExceeded, nil)
			return nil
		}
		effort := l.effort.left
		interest := l.match(m)
		sheet := l.openSheet(s, m)
		if m.retain {
			l.storeRetained(m.topic)
		}
		// The acknowledgement goes first: a client that subscribes to what it
		// publishes has it by the time that the message comes back.
		reason := wire.Success
		if interest == 0 {
			reason = wire.NoMatchingSubscribers
		}
		c.acknowledge(p.QoS, p.PacketID, reason, sheet)
		before := l.walkSeq
		l.spread(m, interest)
		l.closeSheet()
		l.effort.note(c, effort)
		if l.walkSeq != before { // it was put off, at least a part of it
			l.walks[len(l.walks)-1].from = c
			c.walks++
		}
		m.disown()
		l.block(c)
		if sheet != nil {
			l.press(c)
		}
	}
	return nil
}

// acknowledge answers a PUBLISH, once p is stored if it is not nil. Below version
// 5 there is no reason to send: a message that was refused is acknowledged like
// any other [MQTT3-3.3.5-2].
func (c *client) acknowledge(qos byte, id uint16, reason wire.ReasonCode, p *page) {
	a := answer{t: wire.PUBACK, id: id, reason: reason}
	switch qos {
	case 0:
		return
	case 2:
		a.t = wire.PUBREC
		if reason < 0x80 || c.version != wire.V5 {
			c.session.receive(id, &p, c.l)
		}
	}
	if p == nil {
		c.answer(a)
		return
	}
	c.owe(p, a)
}

// admitPublish checks what depends on the connection, and puts the topic of an
// alias into p.
func (c *client) admitPublish(p *wire.Publish) error {
	o := c.announced
	if p.QoS > *o.MaximumQoS {
		return &wire.Error{Reason: wire.QoSNotSupported, Clause: "MQTT-3.2.2-11", Detail: fmt.Sprintf("QoS %d", p.QoS)}
	}
	if p.Retain && o.RetainUnavailable {
		return &wire.Error{Reason: wire.RetainNotSupported, Clause: "MQTT-3.2.2-14", Detail: "retained message"}
	}
	if p.TopicAlias == 0 {
		return nil
	}
	at := int(p.TopicAlias) - 1
	if at >= o.TopicAliasMaximum {
		return &wire.Error{Reason: wire.TopicAliasInvalid, Clause: "MQTT-3.2.2-17",
			Detail: fmt.Sprintf("topic alias %d; the most is %d", p.TopicAlias, o.TopicAliasMaximum)}
	}
	if len(p.Topic) > 0 {
		for len(c.aliasIn) <= at {
			c.aliasIn = append(c.aliasIn, "")
		}
		c.aliasIn[at] = string(p.Topic)
		return nil
	}
	if at >= len(c.aliasIn) || c.aliasIn[at] == "" {
		return &wire.Error{Reason: wire.ProtocolError, Clause: "MQTT-3.3.2-7",
			Detail: fmt.Sprintf("topic alias %d has no topic", p.TopicAlias)}
	}
	p.Topic = append(c.l.name[:0], c.aliasIn[at]...)
	c.l.name = p.Topic
	return nil
}

// publish makes m, which may be borrowed, the retained message of its topic if
// it is to be, and sends it to all subscribers. It reports whether there were
// any. The retained value is set before the index is asked: a subscription
// that the index does not have yet finds the value on its walk.
func (l *loop) publish(m *message) (matched bool) {
	if m.retain && l.keep(m) { // where there is no room it is delivered all the same
		l.storeRetained(m.topic)
	}
	interest := l.match(m)
	l.spread(m, interest)
	return interest != 0
}

// keep makes m the retained message of its topic and reports whether there is
// room for it.
func (l *loop) keep(m *message) bool {
	b := l.b
	if m.qos == 0 && len(m.payload) > 0 && b.memory.short.Load() && !m.static {
		b.refused.memory.Add(1)
		return false
	}
	if !b.retained.set(m, b.live.Load()) {
		b.refused.retained.Add(1)
		return false
	}
	return true
}

// ack handles PUBACK, PUBREC, PUBREL and PUBCOMP.
func (c *client) ack(h wire.Header, body []byte) error {
	id, reason, err := wire.ReadAck(h, body, c.version, &c.b.options().wire)
	if err != nil {
		return err
	}
	l, s := c.l, c.session
	if h.Type == wire.PUBREL {
		a := answer{t: wire.PUBCOMP, id: id}
		if _, ok := s.received[id]; !ok {
			a.reason = wire.PacketIdentifierNotFound
		}
		delete(s.received, id)
		if s.stored == nil {
			c.answer(a)
			return nil
		}
		// Even if it is not known any more: its removal, for a PUBREL that came
		// over an earlier connection, may not be stored yet.
		p := l.notes()
		p.delete(record.AppendReceived(nil, s.stored.owner, id))
		c.owe(p, a)
		return nil
	}
	d := s.window.find(id)
	if d != nil && !d.sent { // it can't have been received
		d = nil
	}
	if d != nil && (h.Type == wire.PUBACK) != (d.qos == 1) {
		return &wire.Error{Reason: wire.ProtocolError,
			Detail: fmt.Sprintf("%s for a message of QoS %d", h.Type, d.qos)}
	}
	switch {
	case h.Type == wire.PUBREC && d == nil:
		if reason < 0x80 {
			c.writeAck(wire.PUBREL, id, wire.PacketIdentifierNotFound)
		}
		return nil
	case d == nil:
		return nil
	case h.Type == wire.PUBREC && reason < 0x80:
		if d.state == published {
			d.state = released
			if s.stored != nil {
				s.release(d, s.window.number(id))
			} else if d.kept {
				s.strike(d)
			}
			if d.msg != nil {
				d.msg.release() // [MQTT-4.3.3-3]: from here on the identifier is all that counts
				d.msg = nil
			}
		}
		if !d.held { // written sends it otherwise
			c.writeAck(wire.PUBREL, id, wire.Success)
		}
		return nil
	case h.Type == wire.PUBCOMP && d.state == published && reason < 0x80:
		return &wire.Error{Reason: wire.ProtocolError, Detail: "PUBCOMP before PUBREC"}
	}
	s.complete(d)
	s.pump()
	s.wantReplay()
	s.roomChanged()
	return nil
}
