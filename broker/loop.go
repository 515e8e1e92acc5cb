package broker

import (
	"hashplus/broker/wire"
	"hashplus/topic"
	"hashplus/transport/link"
)

// Budgets of one tick of a loop, so that no connection and no message holds up
// the others.
const (
	packetBudget = 512  // packets of one connection
	fanoutBudget = 8192 // deliveries to members of filters that cause a write each
	replayBudget = 2048 // steps of walks over retained messages
)

// writeCost is what a delivery that causes a write takes from the budget of
// fan-out; any other takes 1. What joins something that waits to be written
// already costs a fortieth of it, so a burst is best delivered whole: put off,
// each of its messages would be a write of its own.
const writeCost = 8

// loop is the broker's part of an event loop: the sessions of its shards and
// all that happens to them. It is owned by the loop's goroutine, apart from
// inbox and stats.
type loop struct {
	b    *Broker
	id   int
	link link.Loop

	sessions map[string]*session
	groups   map[groupKey]*shareGroup // whose home is here

	nodes   []*topic.Node[filter] // scratch of route
	scratch message               // the borrowed message of the PUBLISH being handled
	in      wire.Publish          // that PUBLISH
	name    []byte                // its topic, if an alias stood for it
	layouts layouts

	budget   int        // of fanoutBudget in units of writeCost, what is left in this tick
	writes   int        // deliveries that caused a write, since the start
	walks    []*walk    // deliveries that ran out of budget
	replays  []*session // with retained messages to send
	rooms    []*session // that have room again for share groups elsewhere
	overflow []*session // to disconnect, see QueueFull
	blocked  []*client  // paused until another loop's inbox drains
	flooding bool       // the PUBLISH being handled went to an inbox past its high water
	stamp    uint64     // of the latest walk
	walkSeq  uint64     // the number of the latest walk that was put off

	idle  traffic // of all sessions that have none; never written to
	inbox inbox
	stats stats
}

func newLoop(b *Broker, id int, l link.Loop) *loop {
	return &loop{
		b: b, id: id, link: l, budget: fanoutBudget * writeCost,
		sessions: make(map[string]*session),
		groups:   make(map[groupKey]*shareGroup),
	}
}

func (l *loop) now() int64 { return l.link.Now() }

// arm schedules t, or cancels it if at is maxTime.
func (l *loop) arm(t *link.Timer, at int64) {
	if at == maxTime {
		l.link.Disarm(t)
		return
	}
	l.link.Arm(t, at)
}

// tick does what was put off: it is the end of a turn of the loop.
func (l *loop) tick() (more bool) {
	for len(l.overflow) > 0 {
		s := l.overflow[len(l.overflow)-1]
		l.overflow = l.overflow[:len(l.overflow)-1]
		l.overrun(s)
	}
	if t := &l.idle; invariants && (t.window.count+t.pending.count+len(t.received)+len(t.replays) > 0 || t.reply != "" || t.dropped > 0) {
		panic("broker: the traffic of idle sessions was written to")
	}
	l.budget = fanoutBudget * writeCost
	l.walk()
	l.replay()
	for i, s := range l.rooms {
		l.rooms[i] = nil
		s.roomOn = false
		s.reportRoom()
	}
	l.rooms = l.rooms[:0]
	return len(l.walks) > 0 || len(l.replays) > 0
}

// call runs f on l's goroutine. It is for what is rare: it allocates.
func (l *loop) call(f func(*loop)) bool {
	return l.link.Post(link.TaskFunc(func(link.Loop) { f(l) }))
}

// send runs f on the goroutine of to, in the order of other sends. Rare, too.
func (l *loop) send(to *loop, f func(*loop)) {
	if to == l {
		f(l)
		return
	}
	l.link.Send(to.id, link.TaskFunc(func(link.Loop) { f(to) }))
}

// overrun disconnects a client whose queue is full, and ends its session: what
// it has lost it must not resume.
func (l *loop) overrun(s *session) {
	if s.ended {
		return
	}
	if s.client != nil {
		s.client.fail(&wire.Error{Reason: wire.QuotaExceeded, Detail: "the session's queue is full"})
	}
	s.end()
}
