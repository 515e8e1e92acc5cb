package transport

import (
	"time"

	"hashplus/transport/link"
)

// What a loop keeps about its connections: slots, the lists of those that are
// to be served, and memory that they use in turn.

const (
	// scratchKeep is the largest buffer kept for bytes that go nowhere.
	scratchKeep = 64 << 10

	trimInterval = int64(10 * time.Second)
)

// compact moves what is left in list to its front and tells it where it is.
func compact(list []*conn, placed func(*conn, int32)) []*conn {
	n := 0
	for _, c := range list {
		if c != nil {
			list[n] = c
			placed(c, int32(n))
			n++
		}
	}
	clear(list[n:])
	return list[:n]
}

// addSlot gives c a place in the loop and a generation of its own.
func (l *loop) addSlot(c *conn) {
	l.gen++
	c.gen = l.gen
	if n := len(l.freeSlots); n > 0 {
		c.slot = l.freeSlots[n-1]
		l.freeSlots = l.freeSlots[:n-1]
		l.slots[c.slot] = c
		return
	}
	c.slot = uint32(len(l.slots))
	l.slots = append(l.slots, c)
}

// forget takes c out of everything that belongs to the loop.
func (l *loop) forget(c *conn) {
	l.slots[c.slot] = nil
	l.freeSlots = append(l.freeSlots, c.slot)
	if c.readyAt >= 0 {
		l.ready[c.readyAt] = nil
		c.readyAt = -1
	}
	if c.dirtyAt >= 0 {
		l.dirty[c.dirtyAt] = nil
		c.dirtyAt = -1
	}
	l.wheel.Disarm(&c.timer)
}

// makeReady has c served in the next pass over the ready list.
func (l *loop) makeReady(c *conn) {
	if c.readyAt < 0 {
		c.readyAt = int32(len(l.ready))
		l.ready = append(l.ready, c)
	}
}

// makeDirty has c flushed at the end of the tick.
func (l *loop) makeDirty(c *conn) {
	if c.dirtyAt < 0 {
		c.dirtyAt = int32(len(l.dirty))
		l.dirty = append(l.dirty, c)
	}
}

func (l *loop) getQueue() *writeQueue {
	if !l.trim.Armed() {
		l.wheel.Arm(&l.trim.Timer, l.now+trimInterval)
	}
	n := len(l.freeQueues)
	if n == 0 {
		return &writeQueue{segments: make([]segment, 0, 1)}
	}
	q := l.freeQueues[n-1]
	l.freeQueues[n-1] = nil
	l.freeQueues = l.freeQueues[:n-1]
	return q
}

// putQueue takes back q, which is empty.
func (l *loop) putQueue(q *writeQueue) { l.freeQueues = append(l.freeQueues, q) }

// nowhere returns n bytes that nobody will read.
func (l *loop) nowhere(n int) []byte {
	if n > scratchKeep {
		return make([]byte, n)
	}
	if n > len(l.scratch) {
		l.scratch = make([]byte, max(n, 1024))
	}
	return l.scratch[:n:n]
}

// trimmer gives memory back when a burst is over.
type trimmer struct {
	link.Timer
	loop *loop
}

// Expire implements link.Expirer.
func (t *trimmer) Expire(*link.Timer) {
	l := t.loop
	keep := len(l.freeQueues) / 2
	clear(l.freeQueues[keep:])
	l.freeQueues = l.freeQueues[:keep]
	if l.pool.trim() || keep > 0 {
		l.wheel.Arm(&t.Timer, l.now+trimInterval)
	}
}
