package broker

import (
	"sync/atomic"
)

// stats are a loop's counters. The loop writes them, any goroutine may read
// them; each loop has its own, so that no cache line is shared.
type stats struct {
	_ [64]byte

	connected, sessions, subscriptions, queued atomic.Int64
	packetsIn, packetsOut, bytesIn, bytesOut   atomic.Int64
	publishIn, publishOut                      atomic.Int64
	throttled                                  atomic.Int64 // pauses of publishers
	dropped                                    [dropReasons]atomic.Int64

	_ [64]byte
}

// bump adds to a counter that only the calling goroutine writes: cheaper than
// an atomic addition.
func bump(c *atomic.Int64, n int64) { c.Store(c.Load() + n) }

func (s *stats) sent(bytes int) {
	bump(&s.packetsOut, 1)
	bump(&s.bytesOut, int64(bytes))
}

func (s *stats) got(bytes int) {
	bump(&s.packetsIn, 1)
	bump(&s.bytesIn, int64(bytes))
}

// DropReason says why a message did not reach a session.
type DropReason uint8

// Reasons for which messages are dropped.
const (
	DropSlowReader         DropReason = iota // QoS 0, and the write queue is past its high water
	DropQueueFull                            // the session's queue is full
	DropExpired                              // its Message Expiry Interval passed
	DropTooLarge                             // larger than the client's Maximum Packet Size
	DropSharedNoMember                       // no member of a share group could take it
	DropSharedSessionEnded                   // QoS 2, sent to a member whose session ended
	DropOverloaded                           // an in-process subscriber has no room
	DropNotStored                            // it would have to be stored, and can't be now; its publisher was told
	dropReasons
)

var dropNames = [dropReasons]string{
	"slow-reader", "queue-full", "expired", "too-large", "shared-no-member", "shared-session-ended", "overloaded", "not-stored",
}

func (d DropReason) String() string { return dropNames[d] }

// drop counts a message that does not reach s, which may be nil.
func (l *loop) drop(s *session, m *message, why DropReason) {
	bump(&l.stats.dropped[why], 1)
	if o := l.b.opts.Observer; o != nil {
		id := ""
		if s != nil {
			id = s.id
		}
		o.Dropped(id, m.topic, why)
	}
}

// Stats are the broker's counters since it started.
type Stats struct {
	Connected, Sessions, Subscriptions, Retained, Queued int64
	PacketsReceived, PacketsSent                         int64
	BytesReceived, BytesSent                             int64 // of MQTT packets
	PublishReceived, PublishSent                         int64
	Dropped                                              map[string]int64 // by DropReason

	Throttled       int64 // times that a publisher was read from more slowly, for Limits
	RefusedMemory   int64 // because memory is short
	RefusedRetained int64 // because there are as many retained messages as may be
	RefusedBanned   int64 // clients that are banned
	BansActive      int64
	Bans            int64
	MemoryUsed      int64 // bytes, as SetMemory was told
	MemoryShort     bool
}

// Stats adds up the counters of all loops. Any goroutine.
func (b *Broker) Stats() Stats {
	s := Stats{Retained: int64(b.retained.tree.Len()), Dropped: make(map[string]int64, dropReasons)}
	b.bans.sweep(b.clock())
	s.RefusedMemory, s.RefusedRetained, s.RefusedBanned = b.refused.memory.Load(), b.refused.retained.Load(), b.refused.banned.Load()
	s.BansActive, s.Bans = b.bans.active.Load(), b.bans.total.Load()
	s.MemoryUsed, s.MemoryShort = b.memory.used.Load(), b.memory.short.Load()
	for _, l := range b.loops {
		s.Throttled += l.stats.throttled.Load()
		s.Connected += l.stats.connected.Load()
		s.Sessions += l.stats.sessions.Load()
		s.Subscriptions += l.stats.subscriptions.Load()
		s.Queued += l.stats.queued.Load()
		s.PacketsReceived += l.stats.packetsIn.Load()
		s.PacketsSent += l.stats.packetsOut.Load()
		s.BytesReceived += l.stats.bytesIn.Load()
		s.BytesSent += l.stats.bytesOut.Load()
		s.PublishReceived += l.stats.publishIn.Load()
		s.PublishSent += l.stats.publishOut.Load()
		for why := range l.stats.dropped {
			s.Dropped[DropReason(why).String()] += l.stats.dropped[why].Load()
		}
	}
	return s
}
