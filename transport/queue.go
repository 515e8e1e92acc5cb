package transport

import "hashplus/transport/link"

const (
	// Up to this size what is queued is kept in one buffer, by copying, so that
	// it leaves with one plain write.
	maxContiguous = 16 << 10

	maxVector = 64 // buffers in one writev
)

// writeQueue is what a connection has queued and the socket has not taken. It
// exists only while there is something; free ones are kept by the loop.
type writeQueue struct {
	segments []segment // the first head of them are empty
	head     int
	off      int // bytes of segments[head] that were written
	size     int // bytes to be written
}

// segment is a pooled buffer, or with shared set a view of somebody's body.
type segment struct {
	b      []byte
	shared link.Shared
}

// reserve extends the queue by n bytes and returns them.
func (q *writeQueue) reserve(n int, pool *bufPool) []byte {
	q.size += n
	if last := len(q.segments) - 1; last >= 0 && q.segments[last].shared == nil {
		s := &q.segments[last]
		used := len(s.b)
		if cap(s.b)-used >= n {
			s.b = s.b[:used+n]
			return s.b[used : used+n : used+n]
		}
		if used+n <= maxContiguous {
			s.b = pool.grow(s.b, n)[:used+n]
			return s.b[used : used+n : used+n]
		}
		b := pool.get(max(n, maxContiguous))[:n]
		q.segments = append(q.segments, segment{b: b})
		return b[:n:n]
	}
	b := pool.get(n)[:n]
	q.segments = append(q.segments, segment{b: b})
	return b[:n:n]
}

// share queues p by reference.
func (q *writeQueue) share(p []byte, s link.Shared) {
	q.size += len(p)
	q.segments = append(q.segments, segment{b: p, shared: s})
}

// front returns the bytes to be written first.
func (q *writeQueue) front() []byte { return q.segments[q.head].b[q.off:] }

// vector appends to dst what is to be written, in order, as far as dst has room.
func (q *writeQueue) vector(dst [][]byte) [][]byte {
	off := q.off
	for _, s := range q.segments[q.head:] {
		if len(dst) == cap(dst) {
			break
		}
		if len(s.b) > off {
			dst = append(dst, s.b[off:])
		}
		off = 0
	}
	return dst
}

// consume takes n bytes off the front, which were written.
func (q *writeQueue) consume(n int, pool *bufPool) {
	q.size -= n
	for q.head < len(q.segments) {
		s := &q.segments[q.head]
		if left := len(s.b) - q.off; n < left {
			q.off += n
			return
		} else {
			n -= left
		}
		s.release(pool)
		q.head++
		q.off = 0
	}
	q.segments, q.head = q.segments[:0], 0
}

// drop empties the queue.
func (q *writeQueue) drop(pool *bufPool) {
	for i := q.head; i < len(q.segments); i++ {
		q.segments[i].release(pool)
	}
	clear(q.segments)
	q.segments, q.head, q.off, q.size = q.segments[:0], 0, 0, 0
}

func (s *segment) release(pool *bufPool) {
	if s.shared != nil {
		s.shared.Release()
	} else {
		pool.put(s.b)
	}
	*s = segment{}
}
