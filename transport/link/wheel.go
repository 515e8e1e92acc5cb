package link

import "math/bits"

// Resolution is one tick of a Wheel, in nanoseconds: a timer expires at most
// this much after its time on an idle loop.
const Resolution = 10_000_000

const (
	wheelBits   = 6
	wheelSlots  = 1 << wheelBits // one uint64 tells which slots hold timers
	wheelLevels = 4              // 64^4 ticks are 46 hours; later timers are put again then
	wheelSpan   = 1 << (wheelBits * wheelLevels)
)

// Wheel is a hierarchical timer wheel. Time is an argument, so it can be tested
// without waiting. Arm and Disarm take constant time and allocate nothing. It
// belongs to one goroutine.
//
// A tick's slot on level 0 holds the timers of that tick; a slot on level n
// holds those of a range of 64^n ticks, and is spread over the lower levels
// when that range begins. Invariant: every armed timer's slot lies after
// current, or is the one that Advance is emptying.
type Wheel struct {
	current  int64 // the last tick that was served
	occupied [wheelLevels]uint64
	slots    [wheelLevels][wheelSlots]Timer // ring heads
	expired  Timer                          // ring of what Advance is calling
}

// NewWheel returns an empty wheel whose clock stands at now, in nanoseconds.
func NewWheel(now int64) *Wheel {
	w := &Wheel{current: now / Resolution}
	for level := range w.slots {
		for i := range w.slots[level] {
			w.slots[level][i].selfLink()
		}
	}
	w.expired.selfLink()
	return w
}

// Arm schedules t for the time at, replacing an earlier schedule. A time that
// has passed expires at the next tick of the wheel, never within Arm.
func (w *Wheel) Arm(t *Timer, at int64) {
	if t.next != nil {
		w.Disarm(t)
	}
	t.at = at
	// Rounded up, so that no timer expires early.
	w.put(t, max(tickOf(at), w.current+1))
}

// Disarm cancels t; a timer that is not armed is left alone.
func (w *Wheel) Disarm(t *Timer) {
	if t.next == nil {
		return
	}
	// A slot that becomes empty keeps its occupied bit until it is served:
	// clearing it would need to know the slot. The price is one idle wake-up.
	t.unlink()
}

// Advance calls the owner of every timer whose time has come by now, in the
// order of ticks, and returns how many there were. Owners may arm and disarm
// any timer, also those that are about to expire.
func (w *Wheel) Advance(now int64) (n int) {
	target := now / Resolution
	for {
		next, ok := w.nextTick()
		if !ok || next > target {
			// Nothing happens on the ticks between, so they are skipped.
			w.current = max(w.current, target)
			return n
		}
		w.current = next
		w.cascade(next)
		n += w.expire(int(next & (wheelSlots - 1)))
	}
}

// Next returns a time before which Advance has nothing to do, and false if no
// timer is armed. It may lie before the first expiry, never after it.
func (w *Wheel) Next() (at int64, ok bool) {
	tick, ok := w.nextTick()
	return tick * Resolution, ok
}

// nextTick is the first tick after current at which a slot is to be served.
func (w *Wheel) nextTick() (tick int64, ok bool) {
	for level := range wheelLevels {
		set := w.occupied[level]
		if set == 0 {
			continue
		}
		unit := w.current >> (wheelBits * level)
		// Turn the set so that bit 0 is the slot after the current one: the
		// current slot was served, and comes up again after a whole turn.
		from := int((unit + 1) & (wheelSlots - 1))
		ahead := int64(bits.TrailingZeros64(bits.RotateLeft64(set, -from))) + 1
		at := (unit + ahead) << (wheelBits * level)
		if !ok || at < tick {
			tick, ok = at, true
		}
	}
	return tick, ok
}

// cascade spreads the slots of higher levels whose range begins at tick.
func (w *Wheel) cascade(tick int64) {
	for level := wheelLevels - 1; level > 0; level-- {
		shift := wheelBits * level
		if tick&(1<<shift-1) != 0 {
			continue
		}
		slot := int(tick>>shift) & (wheelSlots - 1)
		if w.occupied[level]&(1<<slot) == 0 {
			continue
		}
		w.occupied[level] &^= 1 << slot
		// Taken off as a whole first: a timer beyond the wheel's span may go
		// back into this very slot.
		var ring Timer
		ring.take(&w.slots[level][slot])
		for t := ring.next; t != &ring; t = ring.next {
			t.unlink()
			w.put(t, max(tickOf(t.at), tick))
		}
	}
}

func (w *Wheel) expire(slot int) (n int) {
	if w.occupied[0]&(1<<slot) == 0 {
		return 0
	}
	w.occupied[0] &^= 1 << slot
	w.expired.take(&w.slots[0][slot])
	for t := w.expired.next; t != &w.expired; t = w.expired.next {
		t.unlink()
		n++
		t.Owner.Expire(t)
	}
	return n
}

// put links t into the slot of tick, which is not before current.
func (w *Wheel) put(t *Timer, tick int64) {
	ahead := tick - w.current
	if ahead >= wheelSpan {
		// As late as the wheel reaches; cascade looks at t.at again.
		ahead = wheelSpan - 1
		tick = w.current + ahead
	}
	level := 0
	if ahead >= wheelSlots {
		level = (bits.Len64(uint64(ahead)) - 1) / wheelBits
	}
	slot := int(tick>>(wheelBits*level)) & (wheelSlots - 1)
	w.occupied[level] |= 1 << slot
	t.linkBefore(&w.slots[level][slot])
}

func tickOf(at int64) int64 {
	if at <= 0 {
		return 0
	}
	return (at-1)/Resolution + 1
}

func (t *Timer) selfLink() { t.next, t.prev = t, t }

func (t *Timer) linkBefore(head *Timer) {
	t.next, t.prev = head, head.prev
	head.prev.next = t
	head.prev = t
}

func (t *Timer) unlink() {
	t.next.prev = t.prev
	t.prev.next = t.next
	t.next, t.prev = nil, nil
}

// take moves the timers of head's ring into t's, which becomes the head.
func (t *Timer) take(head *Timer) {
	if head.next == head {
		t.selfLink()
		return
	}
	t.next, t.prev = head.next, head.prev
	t.next.prev, t.prev.next = t, t
	head.selfLink()
}
