package broker

// ring is a first-in first-out list of deliveries. The zero value is empty and
// holds no memory.
type ring struct {
	slots []delivery // its length is a power of two
	head  int
	count int
}

func (r *ring) at(i int) *delivery { return &r.slots[(r.head+i)&(len(r.slots)-1)] }

func (r *ring) push(d delivery) {
	if r.count == len(r.slots) {
		grown := make([]delivery, max(4, 2*len(r.slots)))
		for i := range r.count {
			grown[i] = *r.at(i)
		}
		r.slots, r.head = grown, 0
	}
	r.count++
	*r.at(r.count - 1) = d
}

func (r *ring) pop() delivery {
	first := r.at(0)
	d := *first
	*first = delivery{}
	r.head = (r.head + 1) & (len(r.slots) - 1)
	if r.count--; r.count == 0 {
		r.head = 0
		if len(r.slots) > 64 {
			r.slots = nil
		}
	}
	return d
}

// unpush takes out the last delivery.
func (r *ring) unpush() delivery {
	last := r.at(r.count - 1)
	d := *last
	*last = delivery{}
	if r.count--; r.count == 0 {
		*r = ring{}
	}
	return d
}

// find returns the delivery with the given row, or nil. Rows grow.
func (r *ring) find(row uint64) *delivery {
	lo, hi := 0, r.count
	for lo < hi {
		if mid := (lo + hi) / 2; r.at(mid).row < row {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < r.count && r.at(lo).row == row {
		return r.at(lo)
	}
	return nil
}

// queue is what waits for a session's window, first in, first out. Of a stored
// session a stretch in the middle, or all of it, may be in the store only:
//
//	front, in memory ── cold, in the store ── back, in memory
//
// back is empty unless something is cold. The zero value is empty and holds no
// memory.
type queue struct {
	front, back ring
	cold        cold
	count       int // of all
	bytes       int // of all
}

// cold is the stretch of a queue that only the store has: count deliveries, in
// rows from ≤ row ≤ to.
type cold struct {
	from, to uint64
	count    int
}

func (q *queue) push(d delivery) {
	if q.cold.count == 0 {
		q.front.push(d)
	} else {
		q.back.push(d)
	}
	q.count++
	q.bytes += d.msg.size()
}

// first returns the delivery to send next, or nil if it is cold or there is
// none.
func (q *queue) first() *delivery {
	if q.front.count == 0 {
		return nil
	}
	return q.front.at(0)
}

// pop takes out the first delivery, which is not cold.
func (q *queue) pop() delivery {
	d := q.front.pop()
	q.drop(d.msg.size())
	return d
}

// drop counts one delivery less. Sizes of what is cold are not always known, but
// nothing has none.
func (q *queue) drop(size int) {
	q.count--
	if q.bytes -= size; q.count == 0 {
		q.bytes = 0
	}
}

// find returns the delivery in memory with the given row, or nil.
func (q *queue) find(row uint64) *delivery {
	if d := q.front.find(row); d != nil {
		return d
	}
	return q.back.find(row)
}

// chill leaves to the store what it has, beyond the first keep deliveries.
func (q *queue) chill(keep int) {
	if q.cold.count == 0 {
		if q.front.count <= keep || !q.front.at(q.front.count-1).stored && !q.front.at(keep).stored {
			return
		}
		var kept ring
		for range keep {
			kept.push(q.front.pop())
		}
		q.back, q.front = q.front, kept
	} else if keep == 0 {
		for q.front.count > 0 && q.front.at(q.front.count-1).stored {
			d := q.front.unpush()
			q.cool(&d)
		}
	}
	for q.back.count > 0 && q.back.at(0).stored {
		d := q.back.pop()
		q.cool(&d)
	}
	q.mend()
}

// trim forgets the first of what is cold, whose size is not known: it takes the
// average.
func (q *queue) trim() {
	q.drop(q.bytes / q.count)
	if q.cold.count--; q.cold.count == 0 {
		q.mend()
	}
}

// trimmed says that what was cold up to row has gone from the store.
func (q *queue) trimmed(row uint64) {
	if q.cold.count > 0 {
		q.cold.from = max(q.cold.from, row+1)
	}
}

// clear empties the queue.
func (q *queue) clear() {
	for _, r := range []*ring{&q.front, &q.back} {
		for r.count > 0 {
			r.pop().msg.release()
		}
	}
	*q = queue{}
}

// cool makes d, next to what is cold, a part of that.
func (q *queue) cool(d *delivery) {
	c := &q.cold
	if c.count == 0 {
		c.from, c.to = d.row, d.row
	}
	c.from, c.to = min(c.from, d.row), max(c.to, d.row)
	c.count++
	d.msg.release()
}

// warm takes d, the first of what is cold, back into memory. It reports false if
// d is none of that.
func (q *queue) warm(d delivery) bool {
	c := &q.cold
	if c.count == 0 || d.row < c.from || d.row > c.to {
		return false
	}
	q.front.push(d)
	c.from = d.row + 1
	c.count--
	q.mend()
	return true
}

// mend closes up front and back when nothing is cold between them any more.
func (q *queue) mend() {
	if q.cold.count > 0 {
		return
	}
	q.cold = cold{}
	if q.front.count == 0 {
		q.front, q.back = q.back, ring{}
		return
	}
	for q.back.count > 0 {
		q.front.push(q.back.pop())
	}
}
