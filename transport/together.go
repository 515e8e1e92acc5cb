package transport

const (
	// minTogether is how many connections must be dirty to be flushed together, or
	// have an event to be read together. For fewer the longer way through io_uring
	// is not worth it.
	minTogether = 8

	// What one connection can have read. The buffers are not a power of two apart,
	// which would have all of their beginnings meet in few lines of the cache.
	maxTogether    = 2 << 10
	togetherStride = maxTogether + 64
)

// together is what a loop needs to read from many connections, or to flush them,
// in one system call.
type together struct {
	ring    ring
	conns   [ringSize]*conn
	events  [ringSize]int // of those that are read, their numbers
	results [ringSize]int32
	input   [ringSize * togetherStride]byte // untouched where there is no ring
}

// openRing opens the loop's ring as far as the options want it.
func (l *loop) openRing() error {
	if l.opts.IOUring == Off {
		return nil
	}
	err := l.together.ring.open()
	switch {
	case err == nil:
		l.log.Debug("flushing with io_uring", "loop", l.id)
	case l.opts.IOUring == On:
		return err
	default:
		l.log.Debug("flushing without io_uring", "loop", l.id, "cause", err)
		err = nil
	}
	return err
}

// flushTogether flushes the dirty connections that need one plain send, all at
// once. It leaves the others.
func (l *loop) flushTogether() {
	t := &l.together
	n := 0
	for i := range len(l.dirty) {
		c := l.dirty[i]
		if c == nil || !t.ring.isOpen() {
			continue
		}
		b := c.oneSend()
		if b == nil {
			continue
		}
		l.dirty[i] = nil
		c.dirtyAt = -1
		t.conns[n] = c
		t.ring.add(c.sock.fd, b)
		if n++; n == ringSize {
			l.sendTogether(n)
			n = 0
		}
	}
	if n > 0 {
		l.sendTogether(n)
	}
}

// sendTogether sends to the n connections in conns. Nothing that it calls comes
// near another connection than its own: all of them stay as they are until
// their turn.
func (l *loop) sendTogether(n int) {
	t := &l.together
	done, err := t.ring.flush(t.results[:n])
	if err != nil {
		l.breakRing(err)
	}
	for i, c := range t.conns[:n] {
		t.conns[i] = nil
		if i < done {
			c.sent(t.results[i])
		} else {
			c.flush()
		}
	}
}

// readTogether serves events from number i to n, in their order, and returns up to
// where: for those that ask for one plain read all are read at once before. Nothing
// else happens until then, or a socket could be closed whose number is in the ring,
// and another one get that.
func (l *loop) readTogether(i, n int) (next int) {
	t := &l.together
	k := 0
	for next = i; next < n && k < ringSize; next++ {
		slot, gen, what, ok := l.poller.event(next)
		if !ok || uint(slot) >= uint(len(l.slots)) || what&peerGone != 0 || what&canRead == 0 {
			continue
		}
		c := l.slots[slot]
		if c == nil || c.gen != gen || !c.plainRead() {
			continue
		}
		c.set(readable)
		t.conns[k], t.events[k] = c, next
		t.ring.addRead(c.sock.fd, t.piece(k))
		k++
	}
	done := 0
	if k > 0 {
		var err error
		if done, err = t.ring.flush(t.results[:k]); err != nil {
			l.breakRing(err)
		}
	}
	read := 0 // of the k
	for ; i < next; i++ {
		if read < k && t.events[read] == i {
			l.handleRead(read, read < done)
			read++
		} else if slot, gen, what, ok := l.poller.event(i); ok {
			l.event(slot, gen, what)
		}
	}
	return next
}

func (t *together) piece(i int) []byte {
	at := i * togetherStride
	return t.input[at : at+maxTogether : at+maxTogether]
}

// handleRead handles what came for connection k, if it was read. What another one
// caused may have closed, paused or moved it since: the bytes go to where its state
// would have them.
func (l *loop) handleRead(k int, read bool) {
	t := &l.together
	c := t.conns[k]
	t.conns[k] = nil
	if read && c.state != closed {
		c.received(t.results[k], t.piece(k))
	}
	if !c.has(moving) && c.state != closed {
		c.receive() // what is left
	}
}

func (l *loop) breakRing(err error) {
	// For those that are left, and from now on, there is the plain way.
	l.log.Warn("io_uring failed, going on without", "loop", l.id, "cause", err)
	l.together.ring.close()
}
