package broker

import "hashplus/broker/wire"

// will is what a client leaves to be published.
type will struct {
	m        *message // static
	identity *Identity
	delay    uint32 // Will Delay Interval, seconds
	expiry   uint32 // Message Expiry Interval, which counts from publication
	due      int64
	stranger bool // there was more to its client than identity says, see recoveredWill

	kept     bool // the store has it, see keepWill
	owner, n uint64
}

func newWill(w *wire.Will, s *session, id *Identity) *will {
	m := message{
		topic: []byte(w.Topic), payload: w.Payload, props: w.Props, expiryAt: w.ExpiryAt,
		qos: w.QoS, retain: w.Retain, from: s.origin,
	}
	return &will{m: m.keep(), identity: id, delay: w.Delay, expiry: w.Expiry}
}

// fire publishes w, if its client still may [MQTT-3.1.2-8]. s is the session that
// it is of, or nil if that has ended.
func (l *loop) fire(s *session, w *will) {
	m := w.m
	if l.az != nil && (w.stranger || !l.az.CanPublish(w.identity, m.topic)) {
		l.eraseWill(w)
		l.b.log.Info("will not published: not authorized any more", "client", w.identity.ClientID, "topic", string(m.topic))
		return
	}
	m.by, m.rules = nil, l.rules
	if !w.stranger {
		m.by = publisher(w.identity)
	}
	if m.expiryAt >= 0 {
		m.deadline = l.now() + int64(w.expiry)*second
	}
	retained := m.retain && l.keep(m) // where there is no room it is delivered all the same
	interest := l.match(m)
	l.openPosting(s, m)
	l.eraseWill(w)
	if retained {
		l.storeRetained(m.topic)
	}
	l.spread(m, interest)
	l.closeSheet()
}
