package broker

import (
	"bytes"

	"hashplus/broker/record"
)

// coldPayload is the size from which the payload of a retained message is left to
// the store, and read for each subscriber that is to get it.
const coldPayload = 8 << 10

// withoutPayload is what the memory keeps of m then.
func (m *message) withoutPayload() *message {
	bare := &message{static: true, cold: true}
	bare.copy(&message{
		topic: m.topic, props: m.props, from: m.from, deadline: m.deadline, expiryAt: m.expiryAt, qos: m.qos, retain: m.retain,
	})
	bare.version, bare.by, bare.rules, bare.id = m.version, m.by, m.rules, m.id
	return bare
}

// cool leaves the payload of m, which has been stored, to the store, unless
// another message has taken m's place. Any goroutine.
func (r *retainedMessages) cool(m *message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tree.Get(m.topic) == m {
		r.swap(m.topic, m.withoutPayload())
	}
}

// fetch reads the payload of m, a cold message that r has come to; the replay
// goes on when it is there.
func (s *session) fetch(r *replay, m *message) {
	l := s.loop
	r.fetching = true
	l.b.ledger.read(func(store Store, err error) {
		var value []byte
		if err == nil {
			value, _, err = store.Get(record.AppendRetained(nil, m.topic))
		}
		if err != nil {
			l.call(func(l *loop) { l.later(againAfter(err), func() { s.fetch(r, m) }) })
			return
		}
		l.call(func(*loop) { s.fetched(r, m, value) })
	})
}

// fetched goes on with r. What the store has may be newer than m, or gone: then
// the subscriber gets that, or has got it, live.
func (s *session) fetched(r *replay, m *message, value []byte) {
	r.fetching = false
	var stored record.Message
	if len(value) > 0 && stored.Decode(bytes.Clone(value)) == nil && stored.Version == m.version {
		whole := &message{static: true}
		whole.copy(&message{
			topic: m.topic, props: m.props, payload: stored.Payload,
			from: m.from, deadline: m.deadline, expiryAt: m.expiryAt, qos: m.qos, retain: m.retain,
		})
		whole.by, whole.rules = m.by, m.rules
		r.held = whole
	}
	s.wantReplay()
}
