// Package transport carries bytes between sockets and a protocol: listeners,
// event loops, connections with bounded effort, WebSocket. It knows nothing of
// what the bytes mean; see package link for the contract with the code that does.
//
// A Server has a fixed number of loops. Each is one goroutine with its own epoll,
// timer wheel and read buffer, and owns its connections. Connections are file
// descriptors there; a net.Conn that is no plain socket, and every connection on
// systems without epoll, is served by goroutines that stand in for the
// descriptor (see pipe). Build tag nopoll makes that the only kind.
package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hashplus/transport/link"
	"hashplus/transport/ws"
)

// Server runs loops and what connects to them. Its methods may be called from
// any goroutine, those that wait not from a loop.
type Server struct {
	// Immutable after New.
	opts    Options // as they were given
	handler link.Handler
	loops   []*loop

	handshakes *handshakes
	watching   tlsWatch

	// Any goroutine.
	routines sync.WaitGroup // loops, acceptors, and goroutines of connections
	conns    atomic.Int64   // connections of any state
	turned   atomic.Int64   // those of them that are told that there are too many
	next     atomic.Uint32  // loop of the next connection, modulo their number
	empty    chan struct{}  // has an element after conns has become 0

	deflateMin atomic.Int64 // see noteDeflate

	live      atomic.Pointer[Limits]
	current   atomic.Pointer[Options] // what is in force, see SetOptions
	addresses *addresses
	counts    counters
	seldom    lines
	lagSeldom lines

	mu        sync.Mutex
	acceptors map[*acceptor]struct{} // guarded by mu
	stopped   bool                   // guarded by mu: no more acceptors
	loopsDone chan struct{}          // closed when every goroutine has ended
	shutOnce  sync.Once
	stopOnce  sync.Once
}

// New starts the loops of a server for h, which is told of them by h.Start. It
// accepts no connections yet.
func New(o Options, h link.Handler) (*Server, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	s := &Server{opts: o, handler: h, acceptors: map[*acceptor]struct{}{},
		empty: make(chan struct{}, 1), loopsDone: make(chan struct{}), addresses: newAddresses()}
	s.live.Store(&o.Limits)
	s.current.Store(&o)
	s.seldom.lines = link.Lines{Most: refusalLines, Span: int64(time.Second)}
	s.handshakes = newHandshakes(s)
	contract := make([]link.Loop, 0, o.Loops)
	for id := range o.Loops {
		l, err := newLoop(id, s)
		if err != nil {
			for _, l := range s.loops {
				l.stop()
			}
			return nil, fmt.Errorf("transport: %w", err)
		}
		s.loops = append(s.loops, l)
		contract = append(contract, l)
	}
	s.watching.loop, s.watching.due = s.loops[0], make(chan struct{}, 1)
	s.watching.timer.Owner = &s.watching
	h.Start(contract)
	for _, l := range s.loops {
		s.routines.Go(l.run)
	}
	return s, nil
}

// Conns is the number of connections, those included whose handshake or close
// is under way.
func (s *Server) Conns() int { return int(s.conns.Load()) }

// ServeConn hands nc to a loop, as if it had been accepted by a listener like
// l. Goroutines serve it, so it can be any net.Conn: a net.Pipe, a connection
// with TLS, one end of a tunnel. nc is the server's from then on.
func (s *Server) ServeConn(nc net.Conn, l Listener) error {
	if l.secured() {
		_ = nc.Close()
		return errors.New("transport: ServeConn makes no TLS: wrap the connection, and say ws or tcp")
	}
	e, err := s.newEndpoint(l, nc.LocalAddr())
	if err != nil {
		_ = nc.Close() // the first error is the one to report
		return err
	}
	return s.serveStream(e, nc, nil)
}

func (s *Server) serveStream(e *endpoint, nc net.Conn, early []byte) error {
	remote := remoteAddr(nc)
	refusal, counted, err := s.admit(e, remote.Addr())
	if err != nil && refusal == nil {
		_ = nc.Close()
		return err
	}
	l := s.pick()
	return s.open(l, newOpening(newStreamConn(e, nc, remote, l), early, refusal, counted))
}

// serveRaw is serveStream for a file descriptor that was accepted on the loop at.
func (s *Server) serveRaw(e *endpoint, at *loop, fd int32, remote netip.AddrPort) error {
	refusal, counted, err := s.admit(e, remote.Addr())
	if err != nil && refusal == nil {
		rawClose(fd)
		return err
	}
	o := newOpening(newRawConn(e, fd, remote), nil, refusal, counted)
	if to := s.pick(); to != at {
		at.Send(to.id, o)
	} else {
		at.runTask(o)
	}
	return nil
}

func (s *Server) open(l *loop, o *opening) error {
	if !l.Post(o) {
		o.discard()
		return ErrServerClosed
	}
	return nil
}

// maxTurned bounds the connections that are told that there are too many: those
// above it are just closed.
const maxTurned = 256

// admit counts a new connection from the address a. err says why it is not let
// in: it is to get refusal then, where the listener speaks HTTP, or is not to be
// served at all. Those that are being refused take nobody's place. counted says
// that its address was counted.
func (s *Server) admit(e *endpoint, a netip.Addr) (refusal *ws.Refusal, counted bool, err error) {
	n := s.conns.Add(1)
	if limit := s.options().MaxConns; limit > 0 && n-s.turned.Load() > int64(limit) {
		s.counts.full.Add(1)
		refusal, err = ws.ErrUnavailable, errTooMany
	} else if !e.exempt(a) {
		refusal, counted, err = s.checkAddress(a)
	}
	if err == nil {
		return nil, counted, nil
	}
	if s.turned.Add(1) <= maxTurned && e.upgrader != nil && e.credentials == nil {
		return refusal, false, err
	}
	s.released(true)
	return nil, false, err
}

// released counts a connection that has gone.
func (s *Server) released(turned bool) {
	if turned {
		s.turned.Add(-1)
	}
	if s.conns.Add(-1) == 0 {
		select {
		case s.empty <- struct{}{}:
		default:
		}
	}
}

// pick is the loop of a new connection: each in turn.
func (s *Server) pick() *loop {
	return s.loops[s.next.Add(1)%uint32(len(s.loops))]
}

// StopAccepting closes the listeners, and waits until they are. Connections stay.
func (s *Server) StopAccepting() {
	s.mu.Lock()
	acceptors := s.acceptors
	s.acceptors = map[*acceptor]struct{}{}
	s.stopped = true
	s.mu.Unlock()
	for a := range acceptors {
		a.close()
	}
}

// Shutdown stops the server in order: it closes the listeners, then every
// connection with 1001 (their streams have had their say before), waits until
// they have gone, and stops the loops. When ctx ends first, connections that
// are left are closed at once, and its error is returned. Later calls wait for
// the first.
func (s *Server) Shutdown(ctx context.Context) error {
	s.StopAccepting()
	s.shutOnce.Do(func() {
		s.handshakes.cancel()
		for _, l := range s.loops {
			l.Post(link.TaskFunc(func(link.Loop) { l.shutdown(link.CloseGoingAway, "server shutting down") }))
		}
	})
	var err error
	for s.conns.Load() > 0 && err == nil {
		select {
		case <-s.empty:
		case <-ctx.Done():
			err = ctx.Err()
		case <-s.loopsDone:
			return nil
		}
	}
	s.stopOnce.Do(func() {
		for _, l := range s.loops {
			l.Post(link.TaskFunc(func(link.Loop) { l.stopping = true }))
		}
		go func() {
			s.routines.Wait()
			close(s.loopsDone)
		}()
	})
	<-s.loopsDone
	return err
}
