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
	l.rearmSys()
}

// rearmSys publishes a round now, and goes on at the interval that is in force,
// or at none.
func (l *loop) rearmSys() {
	t := &l.b.sys
	if l.b.options().SysInterval > 0 {
		t.Expire(&t.timer)
		return
	}
	l.arm(&t.timer, maxTime)
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
	l.arm(timer, l.now()+int64(l.b.options().SysInterval))
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
		{"throttled", n(s.Throttled)},
		{"refused/memory", n(s.RefusedMemory)},
		{"refused/retained", n(s.RefusedRetained)},
		{"refused/banned", n(s.RefusedBanned)},
		{"bans/active", n(s.BansActive)},
		{"bans/total", n(s.Bans)},
		{"memory/used", n(s.MemoryUsed)},
		{"memory/short", map[bool]string{false: "0", true: "1"}[s.MemoryShort]},
	}
	if g := b.ledger; g != nil {
		sound := int64(0)
		if g.health() == nil {
			sound = 1
		}
		values = append(values, sysValue{"store/healthy", n(sound)},
			sysValue{"store/commits", n(g.commits.Load())}, sysValue{"store/backlog", n(g.backlog.Load())},
			sysValue{"store/damaged", n(int64(g.damagedFiles()))})
	}
	if b.opts.Sys != nil {
		b.opts.Sys(func(name string, value int64) { values = append(values, sysValue{name, n(value)}) })
	}
	var dropped int64
	for why := range dropReasons {
		count := s.Dropped[why.String()]
		dropped += count
		values = append(values, sysValue{"dropped/" + why.String(), n(count)})
	}
	return append(values, sysValue{"publish/messages/dropped", n(dropped)})
}
