package broker

import (
	"time"

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
// each of its messages would be a write of its own. Of the subscriptions that
// are compared to merge those of a session, mergeShare count as one delivery.
const (
	writeCost  = 8
	mergeShare = 8
)

// loop is the broker's part of an event loop: the sessions of its shards and
// all that happens to them. It is owned by the loop's goroutine, apart from
// inbox and stats.
type loop struct {
	b    *Broker
	id   int
	link link.Loop

	sessions map[string]*session
	ending   map[string]int           // ends of stored sessions that the store has not heard of yet, by client identifier
	groups   map[groupKey]*shareGroup // whose home is here

	az    *authorizer // nil: all is allowed
	rules uint32      // grows with every new az; never 0

	nodes   []*topic.Node[filter] // what match has found
	scratch message               // the borrowed message of the PUBLISH being handled
	in      wire.Publish          // that PUBLISH
	name    []byte                // its topic, if an alias stood for it
	layouts layouts

	perTick  int        // fanoutBudget in units of writeCost. Immutable, but for tests
	budget   int        // of fanoutBudget in units of writeCost, what is left in this tick
	effort   effort     // of effortBudget, what is left in this tick
	spent    int        // of budget, beyond one for each member, since the start
	walks    []*walk    // deliveries that ran out of budget
	trainOf  []*walk    // scratch of train
	replays  []*session // with retained messages to send
	rooms    []*session // that have room again for share groups elsewhere
	overflow []*session // to disconnect, see QueueFull
	blocked  []*client  // paused until another loop's inbox drains
	starved  []*client  // paused until there is memory again
	leaving  []*client  // to be sent away by Drain
	reviewed []*client  // that Review has yet to ask about
	unproven []*client  // to be sent away by Review
	flooding bool       // the PUBLISH being handled went to an inbox past its high water
	stamp    uint64     // of the latest walk
	walkSeq  uint64     // the number of the latest walk that was put off

	lasting uint64              // loops with stored sessions that match was given, see match
	posting *posting            // of the message being delivered; nil: its rows go into notes
	ticked  *page               // what this tick has to store, see notes
	pressed []*client           // paused until the ledger's backlog is low
	unsaved map[string]struct{} // topics whose retained messages the store has not taken

	shareSeq uint64 // of the latest message of a share group, never given twice

	rings rings   // that windows take and give back
	idle  traffic // of all sessions that have none; never written to
	inbox inbox
	stats stats
}

func newLoop(b *Broker, id int, l link.Loop) *loop {
	made := &loop{
		b: b, id: id, link: l, perTick: fanoutBudget * writeCost, budget: fanoutBudget * writeCost, effort: newEffort(),
		sessions: make(map[string]*session),
		ending:   make(map[string]int),
		groups:   make(map[groupKey]*shareGroup),
	}
	if b.ledger != nil {
		made.shareSeq = uint64(b.ledger.boot) << 40
	}
	made.authorize(b.opts.Authorizer)
	return made
}

func (l *loop) now() int64 { return l.link.Now() }

// later calls f on l after d.
func (l *loop) later(d time.Duration, f func()) {
	r := &delayed{f: f}
	r.timer.Owner = r
	l.arm(&r.timer, l.now()+int64(d))
}

type delayed struct {
	timer link.Timer
	f     func()
}

// Expire implements link.Expirer.
func (r *delayed) Expire(*link.Timer) { r.f() }

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
	defer l.submitNotes()
	l.closeSheet() // still there if something has panicked under it
	for len(l.overflow) > 0 {
		s := l.overflow[len(l.overflow)-1]
		l.overflow = l.overflow[:len(l.overflow)-1]
		l.overrun(s)
	}
	if t := &l.idle; invariants && (t.window.count+t.pending.count+len(t.received)+len(t.replays) > 0 || t.reply != "" || t.dropped > 0) {
		panic("broker: the traffic of idle sessions was written to")
	}
	l.budget = l.perTick
	l.effort.renew()
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
