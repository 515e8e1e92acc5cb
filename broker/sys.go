package broker

import (
	"strconv"

	"hashplus/transport/link"
)

// sysTopics publishes the broker's state below $SYS/broker/ at an interval.
type sysTopics struct {
	l     *loop
	timer link.Timer
	last  map[string]string
	since int64 // when the broker started
}

func (l *loop) startSys() {
	t := &l.b.sys
	t.l, t.last, t.since = l, make(map[string]string), l.now()
	t.timer.Owner = t
	if l.b.opts.SysInterval > 0 {
		t.Expire(&t.timer)
	}
}

// Expire publishes one round. A value that has not changed is not published
// again: it is retained.
func (t *sysTopics) Expire(timer *link.Timer) {
	l := t.l
	for _, v := range l.b.sysValues(l.now() - t.since) {
		if t.last[v.name] == v.value {
			continue
		}
		t.last[v.name] = v.value
		m := &message{
			topic: []byte("$SYS/broker/" + v.name), payload: []byte(v.value),
			expiryAt: -1, retain: true, static: true,
		}
		l.publish(m)
	}
	l.arm(timer, l.now()+int64(l.b.opts.SysInterval))
}

type sysValue struct{ name, value string }

func (b *Broker) sysValues(uptime int64) []sysValue {
	s := b.Stats()
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	values := []sysValue{
		{"version", b.opts.Version},
		{"uptime", n(uptime / second)},
		{"clients/connected", n(s.Connected)},
		{"clients/disconnected", n(s.Sessions - s.Connected)},
		{"clients/total", n(s.Sessions)},
		{"subscriptions/count", n(s.Subscriptions)},
		{"retained messages/count", n(s.Retained)},
		{"messages/queued", n(s.Queued)},
		{"messages/received", n(s.PacketsReceived)},
		{"messages/sent", n(s.PacketsSent)},
		{"publish/messages/received", n(s.PublishReceived)},
		{"publish/messages/sent", n(s.PublishSent)},
		{"bytes/received", n(s.BytesReceived)},
		{"bytes/sent", n(s.BytesSent)},
	}
	var dropped int64
	for why := range dropReasons {
		count := s.Dropped[why.String()]
		dropped += count
		values = append(values, sysValue{"dropped/" + why.String(), n(count)})
	}
	return append(values, sysValue{"publish/messages/dropped", n(dropped)})
}
