package transport

import (
	"errors"
	"fmt"
	"sync/atomic"

	"hashplus/transport/link"
)

// Reload reads the files of every listener with TLS again: certificates, keys,
// CAs and revocation lists. New connections get what is read; those that are
// there stay, unless their client's certificate has been revoked. If a file has
// a fault nothing changes.
func (s *Server) Reload() error {
	apply, err := s.PrepareReload()
	if err == nil {
		apply()
	}
	return err
}

// PrepareReload is the first half of Reload: it reads and checks everything.
// apply puts it in force.
func (s *Server) PrepareReload() (apply func(), err error) {
	var all []func()
	var faults []error
	for _, e := range s.withTLS() {
		a, err := e.reload(true)
		if err != nil {
			faults = append(faults, err)
		} else {
			all = append(all, a)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return func() {
		for _, a := range all {
			a()
		}
	}, nil
}

// withTLS are the endpoints of listeners with TLS.
func (s *Server) withTLS() (endpoints []*endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.acceptors {
		if e := a.endpoint.Load(); e.credentials != nil {
			endpoints = append(endpoints, e)
		}
	}
	return endpoints
}

// reload reads e's files, those that have not changed only with force set. apply
// is nil if there is nothing new.
func (e *endpoint) reload(force bool) (apply func(), err error) {
	c := e.credentials
	id, err := c.reread(force)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", e.name, err)
	}
	if id == nil {
		return nil, nil
	}
	return func() {
		c.current.Store(id)
		e.server.opts.Logger.Info("TLS files read again", "listener", e.name)
		e.server.endRevoked(e, id)
	}, nil
}

// endRevoked ends the connections of e whose certificates id does not trust any
// more.
func (s *Server) endRevoked(e *endpoint, id *identity) {
	e.root.trusts.Store(id) // for those that are on the way between loops
	if id.roots == nil {
		return
	}
	for _, l := range s.loops {
		l.Post(link.TaskFunc(func(link.Loop) {
			for _, c := range l.slots {
				if c != nil && c.endpoint.root == e.root {
					c.endIfUnwanted()
				}
			}
		}))
	}
}

// startTLS starts what listeners with TLS need, once. mu is held, and the server
// is not stopped.
func (s *Server) startTLS() {
	h := s.handshakes
	h.once.Do(func() {
		h.waiting = make(chan *handshake, maxWaitingHandshakes)
		s.routines.Go(h.dispatch)
		s.routines.Go(s.watch)
		s.watching.on.Store(true)
		s.watching.loop.Post(&s.watching)
	})
}

// tlsWatch says when files of TLS are to be looked at. Its timer is a loop's: while
// one of the runtime's is pending, every loop that goes to sleep pays for it.
type tlsWatch struct {
	loop  *loop         // immutable after New
	on    atomic.Bool   // there are listeners with TLS
	due   chan struct{} // has an element when it is time
	timer link.Timer    // owned by the loop
}

// Run implements link.Task: it goes by the interval that is in force now.
func (w *tlsWatch) Run(link.Loop) {
	if every := w.loop.server.options().TLSWatch; every > 0 {
		w.loop.Arm(&w.timer, w.loop.now+int64(every))
	} else {
		w.loop.Disarm(&w.timer)
	}
}

// Expire implements link.Expirer.
func (w *tlsWatch) Expire(*link.Timer) {
	select {
	case w.due <- struct{}{}:
	default: // the last look is not over
	}
	w.Run(w.loop)
}

// watch reads files again that have changed. One with a fault is told of once:
// what was read before holds until it changes again.
func (s *Server) watch() {
	for {
		select {
		case <-s.watching.due:
		case <-s.handshakes.ctx.Done():
			return
		}
		for _, e := range s.withTLS() {
			apply, err := e.reload(false)
			switch {
			case err != nil:
				s.opts.Logger.Error("TLS files have changed and cannot be used", "cause", err)
			case apply != nil:
				apply()
			}
		}
	}
}
