package broker

import "math"

// A PUBLISH costs what its bytes do not show: the filters that it is looked up
// among, those that it matches, and the subscriptions of one session that are
// merged. A few bytes can cost a million times as much as a few others. So the
// work of a tick is counted, in steps of about ten nanoseconds, and whoever is
// known to cause much of it waits for the next tick when it is used up. Others
// are not looked at: a message is dear only if its publisher's last ones were,
// or if it is the first such one.
const (
	effortBudget = 32 << 10 // steps of one tick
	dearFrom     = 512      // steps from which on a packet's sender is remembered

	filterEffort = 4  // of a filter that matches
	mergeEffort  = 4  // of a subscription that is compared when those of a session are merged
	groupEffort  = 16 // of a share group that a message is chosen a member for

	// A byte of SUBSCRIBE and UNSUBSCRIBE. A filter costs microseconds, so that
	// packets full of them would hold up everybody else. One that begins within
	// the budget is handled whole.
	subscribeEffort = 4
)

// effort is what a loop has left of the tick's work, and who has waited longest
// for some. It is owned by the loop.
type effort struct {
	left int
	turn uint64 // the number of this tick

	// Of the clients that had to wait, the least turn that any had last. In
	// the tick behind, nobody goes before them.
	waiting uint64 // in this tick
	first   uint64 // in the one before
}

func newEffort() effort {
	return effort{left: effortBudget, turn: 1, waiting: math.MaxUint64, first: math.MaxUint64}
}

// renew begins the next tick.
func (e *effort) renew() {
	e.left = effortBudget
	e.turn++
	e.waiting, e.first = math.MaxUint64, e.waiting
}

// admits reports whether c may cause more work in this tick. If not it must come
// again in the next one.
func (e *effort) admits(c *client) bool {
	if e.left > 0 && (c.dear <= e.first || c.dear == e.turn) {
		return true
	}
	e.waiting = min(e.waiting, c.dear)
	return false
}

// note remembers c if its packet, before which left was before, was dear.
func (e *effort) note(c *client, before int) {
	if before-e.left >= dearFrom {
		c.dear = e.turn
	}
}
