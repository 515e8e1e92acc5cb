package broker

import (
	"fmt"

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
	if err := p.Decode(h, body, c.version, &c.b.limits); err != nil {
		return err
	}
	bump(&l.stats.publishIn, 1)
	if err := c.admitPublish(p); err != nil {
		return err
	}
	if p.QoS == 2 {
		if _, again := s.received[p.PacketID]; again { // [MQTT-4.3.3-10]
			c.writeAck(wire.PUBREC, p.PacketID, wire.Success)
			return nil
		}
	}
	if p.QoS > 0 && c.version == wire.V5 && len(s.received) >= int(c.b.opts.ReceiveMaximum) {
		return &wire.Error{Reason: wire.ReceiveMaximumExceeded, Clause: "MQTT-3.3.4-7",
			Detail: fmt.Sprintf("more than %d messages that are not completed", c.b.opts.ReceiveMaximum)}
	}
	switch az := c.b.opts.Authorizer; {
	case reserved(p.Topic), az != nil && !hasPrefix(p.Topic, replyRoot) && !az.CanPublish(s.who(), p.Topic):
		c.acknowledge(p.QoS, p.PacketID, wire.NotAuthorized)
	default:
		m := &l.scratch
		m.owned = nil // still there if an Authorizer panicked under the last one
		m.topic, m.payload, m.props, m.expiryAt = p.Topic, p.Payload, p.Props, p.ExpiryAt
		m.qos, m.retain, m.from, m.deadline = p.QoS, p.Retain, s.origin, 0
		if p.ExpiryAt >= 0 {
			m.deadline = l.now() + int64(p.Expiry)*second
		}
		interest := l.admit(m)
		// The acknowledgement goes first: a client that subscribes to what it
		// publishes has it by the time that the message comes back.
		reason := wire.Success
		if interest == 0 {
			reason = wire.NoMatchingSubscribers
		}
		c.acknowledge(p.QoS, p.PacketID, reason)
		before := l.walkSeq
		l.spread(m, interest)
		if l.walkSeq != before { // it was put off, at least a part of it
			l.walks[len(l.walks)-1].from = c
			c.walks++
		}
		m.disown()
		l.block(c)
	}
	return nil
}

// acknowledge answers a PUBLISH. Below version 5 there is no reason to send: a
// message that was refused is acknowledged like any other [MQTT3-3.3.5-2].
func (c *client) acknowledge(qos byte, id uint16, reason wire.ReasonCode) {
	switch qos {
	case 1:
		c.writeAck(wire.PUBACK, id, reason)
	case 2:
		if reason < 0x80 || c.version != wire.V5 {
			t := c.session.busy()
			if t.received == nil {
				t.received = make(map[uint16]struct{})
			}
			t.received[id] = struct{}{}
		}
		c.writeAck(wire.PUBREC, id, reason)
	}
}

// admitPublish checks what depends on the connection, and puts the topic of an
// alias into p.
func (c *client) admitPublish(p *wire.Publish) error {
	o := &c.b.opts
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
	interest := l.admit(m)
	l.spread(m, interest)
	return interest != 0
}

// admit is the first half of publish, up to who is to have m.
func (l *loop) admit(m *message) (interest uint64) {
	if m.retain {
		l.b.retained.set(m)
	}
	return l.match(m)
}

// ack handles PUBACK, PUBREC, PUBREL and PUBCOMP.
func (c *client) ack(h wire.Header, body []byte) error {
	id, reason, err := wire.ReadAck(h, body, c.version, &c.b.limits)
	if err != nil {
		return err
	}
	s := c.session
	if h.Type == wire.PUBREL {
		answer := wire.Success
		if _, ok := s.received[id]; !ok {
			answer = wire.PacketIdentifierNotFound
		}
		delete(s.received, id)
		c.writeAck(wire.PUBCOMP, id, answer)
		return nil
	}
	d := s.window.find(id)
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
			d.msg.release() // [MQTT-4.3.3-3]: from here on the identifier is all that counts
			d.msg = nil
		}
		c.writeAck(wire.PUBREL, id, wire.Success)
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
