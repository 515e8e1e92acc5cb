package broker

// delivery is one QoS 1 or 2 message for one session: waiting in its queue, or
// in its window of messages that are in flight.
type delivery struct {
	msg    *message // owned; nil once the receiver has it (PUBREC) or the slot is done
	subIDs []uint32
	group  *shareGroup // that it came through, or nil
	seq    uint64      // its place among that group's messages
	qos    byte
	retain bool
	state  deliveryState
	sent   bool // over any connection: the next PUBLISH carries DUP
	quota  bool // holds a unit of the receiver's Receive Maximum on this connection
}

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

// push appends d and returns its number.
func (w *window) push(d delivery) uint64 {
	if w.count == len(w.ring) {
		grown := make([]delivery, max(4, 2*len(w.ring)))
		for n := w.head; n < w.tail(); n++ {
			grown[n&uint64(len(grown)-1)] = *w.slot(n)
		}
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
	off := (uint64(id-1) + 65535 - w.head%65535) % 65535
	if off >= uint64(w.count) {
		return nil
	}
	d := w.slot(w.head + off)
	if d.state == done {
		return nil
	}
	return d
}

// finish marks d done and drops the done slots at the head. The memory of an
// empty window is given up if it is large.
func (w *window) finish(d *delivery) {
	*d = delivery{state: done}
	for w.count > 0 && w.slot(w.head).state == done {
		w.head++
		w.count--
	}
	w.next = max(w.next, w.head)
	if w.count == 0 && len(w.ring) > 64 {
		w.ring = nil
	}
}

// queue is a first-in first-out ring of deliveries. The zero value is empty
// and holds no memory.
type queue struct {
	ring  []delivery
	head  int
	count int
	bytes int
}

func (q *queue) push(d delivery) {
	if q.count == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.count)&(len(q.ring)-1)] = d
	q.count++
	q.bytes += d.msg.size()
}

func (q *queue) grow() {
	grown := make([]delivery, max(4, 2*len(q.ring)))
	for i := range q.count {
		grown[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
	}
	q.ring, q.head = grown, 0
}

func (q *queue) pop() delivery {
	d := q.ring[q.head]
	q.ring[q.head] = delivery{}
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.count--
	q.bytes -= d.msg.size()
	if q.count == 0 {
		q.head = 0
		if len(q.ring) > 64 {
			q.ring = nil
		}
	}
	return d
}
