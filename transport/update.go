package transport

import (
	"fmt"
	"reflect"
)

// SetOptions puts other values of MaxConns, of the times of o, and of what it says
// of TLS in force, with the defaults for what is zero: HandshakeTimeout, WriteStall,
// CloseTimeout and DrainTimeout; TLSHandshakeTimeout, TLSHandshakeRate, TLSHandshakes
// and TLSWatch. All else of o is left as it was given to New; see
// SetLimits and PrepareUpdate. Any goroutine.
func (s *Server) SetOptions(o Options) error {
	next := s.opts
	next.MaxConns, next.WriteStall = o.MaxConns, o.WriteStall
	next.HandshakeTimeout, next.TLSHandshakeTimeout = o.HandshakeTimeout, o.TLSHandshakeTimeout
	next.CloseTimeout, next.DrainTimeout = o.CloseTimeout, o.DrainTimeout
	next.TLSHandshakeRate, next.TLSHandshakes, next.TLSWatch = o.TLSHandshakeRate, o.TLSHandshakes, o.TLSWatch
	next.EnsureDefaults()
	if err := next.Validate(); err != nil {
		return fmt.Errorf("transport: %w", err)
	}
	s.current.Store(&next)
	if s.watching.on.Load() {
		s.watching.loop.Post(&s.watching)
	}
	return nil
}

// options are those in force. Any goroutine.
func (s *Server) options() *Options { return s.current.Load() }

// PrepareUpdate is for a listener that Listen has opened, and returned address
// for. It checks l, which describes the same socket otherwise, and reads the files
// of its TLS. apply puts l in force: connections that come from then on get what
// it says. Those that are there keep what they had, but a revoked certificate ends
// its connections. The network and the address of a listener cannot change.
func (s *Server) PrepareUpdate(address string, l Listener) (apply func(), err error) {
	a := s.acceptorAt(address)
	if a == nil {
		return nil, fmt.Errorf("transport: nothing listens at %s", address)
	}
	old := a.endpoint.Load()
	if l.Network != old.Network || l.Addr != old.Addr {
		return nil, fmt.Errorf("transport: %s cannot become a listener of network %s at %s", address, l.Network, l.Addr)
	}
	e, err := s.describe(l, a.ln.Addr())
	if err != nil {
		return nil, err
	}
	e.root = old.root
	reread := func() {}
	switch {
	case !e.secured():
	case reflect.DeepEqual(e.TLS, old.TLS):
		e.credentials = old.credentials
		if reread, err = e.reload(true); err != nil {
			return nil, err
		}
	default:
		if e.credentials, err = newCredentials(*e.TLS, e.upgrades(), e.name, s.opts.Logger); err != nil {
			return nil, fmt.Errorf("transport: listener %s: %w", e.name, err)
		}
		reread = func() { s.endRevoked(e, e.credentials.current.Load()) }
	}
	return func() {
		a.endpoint.Store(e)
		s.mu.Lock()
		s.noteDeflate()
		s.mu.Unlock()
		if reread != nil {
			reread()
		}
	}, nil
}

func (s *Server) acceptorAt(address string) *acceptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.acceptors {
		if a.address == address {
			return a
		}
	}
	return nil
}
