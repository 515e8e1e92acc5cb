package broker

import "hashplus/broker/wire"

// will is what a client leaves to be published.
type will struct {
	m        *message // static
	identity *Identity
	delay    uint32 // Will Delay Interval, seconds
	expiry   uint32 // Message Expiry Interval, which counts from publication
	due      int64
}

func newWill(w *wire.Will, s *session) *will {
	m := message{
		topic: []byte(w.Topic), payload: w.Payload, props: w.Props, expiryAt: w.ExpiryAt,
		qos: w.QoS, retain: w.Retain, from: s.origin,
	}
	return &will{m: m.keep(), identity: s.identity, delay: w.Delay, expiry: w.Expiry}
}

// fire publishes w, if its client still may [MQTT-3.1.2-8].
func (l *loop) fire(w *will) {
	m := w.m
	if az := l.b.opts.Authorizer; az != nil && w.identity != nil && !az.CanPublish(w.identity, m.topic) {
		l.b.log.Info("will not published: not authorized any more", "client", w.identity.ClientID, "topic", string(m.topic))
		return
	}
	if m.expiryAt >= 0 {
		m.deadline = l.now() + int64(w.expiry)*second
	}
	l.publish(m)
}
