package broker

import (
	"testing"

	"hashplus/broker/wire"
)

// An inbox that drains between the look at it and the request to be woken
// leaves no publisher paused.
func TestInbox_NoWakeUpIsLost(t *testing.T) {
	s := newSim(t, 2, Options{})
	p := s.join(0, s.idOn(0, "p"), wire.V311, 0)
	l, o := s.b.loops[0], s.b.loops[1]
	c := s.sessionOf(s.idOn(0, "p")).client
	o.inbox.pending.Store(inboxHigh + 1)
	l.flooding = true
	l.block(c)
	if !p.paused {
		t.Fatal("it goes on")
	}
	// As if it had drained just before the bit was set: nobody sees the bit.
	o.inbox.waiting.Store(0)
	o.inbox.pending.Store(0)
	l.await(o)
	s.run()
	if p.paused || len(l.blocked) != 0 || o.inbox.waiting.Load() != 0 {
		t.Errorf("paused %v, %d blocked", p.paused, len(l.blocked))
	}
}

// A publisher that is woken because one inbox has drained waits on for another
// that is full, and one that has left meanwhile is forgotten.
func TestInbox_WakesWhenAllHaveDrained(t *testing.T) {
	s := newSim(t, 3, Options{})
	p, gone := s.join(0, s.idOn(0, "p"), wire.V311, 0), s.join(0, s.idOn(0, "gone"), wire.V311, 0)
	l := s.b.loops[0]
	for _, o := range s.b.loops[1:] {
		o.inbox.pending.Store(inboxHigh + 1)
	}
	for _, id := range []string{"p", "gone"} {
		l.flooding = true
		l.block(s.sessionOf(s.idOn(0, id)).client)
	}
	gone.cut()
	s.b.loops[1].took(s.b.loops[1], inboxHigh+1)
	s.run()
	if !p.paused {
		t.Fatal("it goes on while an inbox is full")
	}
	s.b.loops[2].took(s.b.loops[2], inboxHigh+1)
	s.run()
	if p.paused || len(l.blocked) != 0 {
		t.Errorf("paused %v, %d blocked", p.paused, len(l.blocked))
	}
}
