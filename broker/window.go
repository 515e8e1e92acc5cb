package broker

import "math/bits"

// delivery is one QoS 1 or 2 message for one session: waiting in its queue, or
// in its window of messages that are in flight.
type delivery struct {
	msg    *message // owned; nil once the receiver has it (PUBREC), the slot is done, or only the store has it
	subIDs []uint32
	group  *shareGroup // that it came through, or nil
	seq    uint64      // its place among that group's messages
	row    uint64      // its place in the store, in a stored session
	qos    byte
	retain bool
	state  deliveryState
	sent   bool // over any connection: the next PUBLISH carries DUP
	quota  bool // holds a unit of the receiver's Receive Maximum on this connection
	stored bool // the store has its row
	filed  bool // and the message under its own identity, see record.Delivery
	held   bool // may not be sent, nor its PUBREL, before what it now is has been stored
	kept   bool // the store has it in a row of group's
}

// absent reports whether the message of d is in the store only, or there is none
// any more.
func (d *delivery) absent() bool { return d.msg == nil || d.msg.cold }

// deliveryState is where a delivery in the window stands.
//
//	published ──PUBACK──────────────▶ done
//	published ──PUBREC──▶ released ──PUBCOMP──▶ done
type deliveryState uint8

const (
	published deliveryState = iota // PUBLISH sent, or to be sent again
	released                       // PUBREL sent, or to be sent again
	done                           // its slot waits for the ones before it
)

// maxSpan is the most packet identifiers that the window can span: all of them
// but one, so that the first and the one behind the last never meet.
const maxSpan = 65534

// window holds the deliveries of one session that have a packet identifier, in
// the order in which they were first sent, which is the order of re-sending
// [MQTT-4.6.0-1]. Identifiers are handed out in a row, so the slot of one is
// found by counting from the first slot's, and none is given out twice while
// it is in use [MQTT-2.2.1-3]. The zero value is empty and holds no memory.
type window struct {
	ring  []delivery // its length is a power of two
	head  uint64     // number of the first slot; numbers only grow
	next  uint64     // number of the first slot not yet sent on this connection
	count int        // slots from head on, done ones between others included
}

func packetID(number uint64) uint16 { return uint16(number%65535) + 1 }

func (w *window) slot(number uint64) *delivery { return &w.ring[number&uint64(len(w.ring)-1)] }

// tail is the number that the next push gives.
func (w *window) tail() uint64 { return w.head + uint64(w.count) }

// full reports whether no identifier is free.
func (w *window) full() bool { return w.count >= maxSpan }

// push appends d and returns its number. What memory it needs comes from spare.
func (w *window) push(d delivery, spare *rings) uint64 {
	if w.count == len(w.ring) {
		grown := spare.get(max(4, 2*len(w.ring)))
		for n := w.head; n < w.tail(); n++ {
			grown[n&uint64(len(grown)-1)] = *w.slot(n)
		}
		spare.put(w.ring)
		w.ring = grown
	}
	n := w.tail()
	w.count++
	*w.slot(n) = d
	return n
}

// find returns the delivery with packet identifier id, or nil.
func (w *window) find(id uint16) *delivery {
	if id == 0 || w.count == 0 {
		return nil
	}
	n := w.number(id)
	if n >= w.tail() {
		return nil
	}
	d := w.slot(n)
	if d.state == done {
		return nil
	}
	return d
}

// findRow returns the delivery with the given row, or nil.
func (w *window) findRow(row uint64) *delivery {
	for n := w.head; n < w.tail(); n++ {
		if d := w.slot(n); d.row == row && d.state != done {
			return d
		}
	}
	return nil
}

// number is the first number from head on whose packet identifier is id.
func (w *window) number(id uint16) uint64 {
	return w.head + (uint64(id-1)+65535-w.head%65535)%65535
}

// finish marks d done and drops the done slots at the head. The memory of an
// empty window goes to spare if it is large.
func (w *window) finish(d *delivery, spare *rings) {
	*d = delivery{state: done}
	for w.count > 0 && w.slot(w.head).state == done {
		w.head++
		w.count--
	}
	w.next = max(w.next, w.head)
	if w.count == 0 && len(w.ring) > keptRing {
		spare.put(w.ring)
		w.ring = nil
	}
}

const (
	keptRing   = 64      // slots that an empty window keeps
	spareSlots = 1 << 15 // of all that a loop has to spare: some 3 MiB
)

// rings are those that the windows of one loop do not need for now: a
// window that fills and empties over and over takes the same one again. It is
// owned by the loop; nil has none to give and takes none.
type rings struct {
	free  [17][][]delivery // by the logarithm of their length
	slots int              // in all of them
}

// get returns a ring of n slots, a power of two; what stands in them is no
// matter.
func (r *rings) get(n int) []delivery {
	class := bits.Len(uint(n)) - 1
	if r == nil || len(r.free[class]) == 0 {
		return make([]delivery, n)
	}
	last := len(r.free[class]) - 1
	ring := r.free[class][last]
	r.free[class][last] = nil
	r.free[class] = r.free[class][:last]
	r.slots -= n
	return ring
}

// put takes ring back, as far as there is room.
func (r *rings) put(ring []delivery) {
	n := len(ring)
	if r == nil || n == 0 || r.slots+n > spareSlots {
		return
	}
	clear(ring)
	class := bits.Len(uint(n)) - 1
	r.free[class] = append(r.free[class], ring)
	r.slots += n
}
