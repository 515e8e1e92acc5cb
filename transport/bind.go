package transport

import (
	"errors"
	"fmt"
	"net"
	"time"

	"hashplus/transport/link"
)

var errListenerClosed = errors.New("transport: the listener has been closed")

// Bound is a listener whose socket is there and on which nothing is accepted yet:
// clients that come wait. One of Serve and Close is to be called, once.
type Bound struct {
	acceptor *acceptor
	begin    chan struct{} // closed by Serve
}

// Bind is the first half of Listen: after it nothing that can fail is left.
func (s *Server) Bind(l Listener) (*Bound, error) {
	if err := l.Validate(); err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	return s.bind(l.Network, l.Addr, func(at net.Addr) (*endpoint, error) { return s.newEndpoint(l, at) })
}

// bind makes a socket for an endpoint that describe makes, once it is known where.
func (s *Server) bind(network, address string, describe func(net.Addr) (*endpoint, error)) (*Bound, error) {
	if network == "unix" {
		if err := removeStale(address); err != nil {
			return nil, err
		}
	} else {
		network = "tcp"
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	e, err := describe(ln.Addr())
	if err != nil {
		_ = ln.Close() // the first error is the one to report
		return nil, err
	}
	a, err := s.newAcceptor(ln, e)
	if err != nil {
		return nil, err
	}
	b := &Bound{acceptor: a, begin: make(chan struct{})}
	go b.run()
	return b, nil
}

// run accepts as soon as it may.
func (b *Bound) run() {
	a := b.acceptor
	e := a.endpoint.Load()
	select {
	case <-b.begin:
	case <-a.done:
		a.unserved(e.server)
		return
	}
	if err := a.serve(); err != nil {
		e.server.opts.Logger.Error("listener failed", "listener", a.endpoint.Load().name, "cause", err)
	}
}

// unserved does what serve does at its end, in its place.
func (a *acceptor) unserved(s *Server) {
	if a.gate != nil {
		rawClose(a.gate.fd)
	}
	close(a.ended)
	s.routines.Done()
}

// URL is where it listens, as Listen returns it.
func (b *Bound) URL() string { return b.acceptor.address }

// Serve begins to accept, in the background.
func (b *Bound) Serve() { close(b.begin) }

// Close closes the socket again.
func (b *Bound) Close() { b.acceptor.endpoint.Load().server.unlist(b.acceptor) }

// unlist ends an acceptor. One that has ended is left alone.
func (s *Server) unlist(a *acceptor) {
	s.mu.Lock()
	_, there := s.acceptors[a]
	delete(s.acceptors, a)
	s.noteDeflate()
	s.mu.Unlock()
	if there {
		a.close()
	}
}

// Retired is a listener whose socket has been closed, and whose connections are
// still there.
type Retired struct {
	server   *Server
	endpoint *endpoint
	address  string // of the socket
}

// Retire closes the socket of the listener that Listen has returned address for.
// When it returns, another can have its place.
func (s *Server) Retire(address string) (*Retired, error) {
	a := s.acceptorAt(address)
	if a == nil {
		return nil, fmt.Errorf("transport: nothing listens at %s", address)
	}
	s.unlist(a)
	return &Retired{s, a.endpoint.Load(), a.ln.Addr().String()}, nil
}

// Restore listens again, as if nothing had been.
func (r *Retired) Restore() error {
	b, err := r.server.bind(r.endpoint.Network, r.address, func(net.Addr) (*endpoint, error) { return r.endpoint, nil })
	if err == nil {
		b.Serve()
	}
	return err
}

// Dismiss ends the connections, in the background: evenly spread over a time, or
// at once with 0. Those that have no stream yet are refused at once.
func (r *Retired) Dismiss(over time.Duration) {
	s, root := r.server, r.endpoint.root
	root.closed.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped { // else they end anyway
		s.routines.Go(func() { s.dismiss(root, over) })
	}
}

const (
	dismissStep = 10 * time.Millisecond
	dismissGap  = 100 * time.Millisecond // the longest between two, as in the broker's drain
)

// dismiss ends the connections of root. Those that are on the way to a loop
// meanwhile end when they arrive.
func (s *Server) dismiss(root *endpoint, over time.Duration) {
	left := make([][]uint32, len(s.loops)) // each owned by its loop
	counts := make([]int, len(s.loops))
	found := make(chan struct{}, len(s.loops))
	for i, l := range s.loops {
		l.Post(link.TaskFunc(func(link.Loop) {
			left[i] = l.slotsOf(root)
			counts[i] = len(left[i])
			found <- struct{}{}
		}))
	}
	total := 0
	for range s.loops {
		select {
		case <-found:
		case <-s.handshakes.ctx.Done():
			return
		}
	}
	for _, n := range counts {
		total += n
	}
	if total == 0 {
		return
	}
	gap := min(over/time.Duration(total), dismissGap)
	began := time.Now()
	for due := 0; due < total; {
		due = total
		if gap > 0 {
			due = min(total, 1+int(time.Since(began)/gap))
		}
		for i, l := range s.loops {
			until := counts[i] - counts[i]*due/total
			l.Post(link.TaskFunc(func(link.Loop) { left[i] = l.endAllBut(left[i], until, root) }))
		}
		if due < total && !s.handshakes.sleep(dismissStep) {
			return
		}
	}
}

// slotsOf are the places of the connections of root that have a stream; the others
// are ended.
func (l *loop) slotsOf(root *endpoint) (list []uint32) {
	for _, c := range l.slots {
		switch {
		case c == nil || c.endpoint.root != root:
		case c.state == open:
			list = append(list, c.slot)
		default:
			c.endIfUnwanted()
		}
	}
	return list
}

// endAllBut ends the connections at places of list until only n are left, and
// returns those. Whoever else has one by now is left alone.
func (l *loop) endAllBut(list []uint32, n int, root *endpoint) []uint32 {
	for len(list) > n {
		c := l.slots[list[len(list)-1]]
		list = list[:len(list)-1]
		if c != nil && c.endpoint.root == root {
			c.endIfUnwanted()
		}
	}
	return list
}
