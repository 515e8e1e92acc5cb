package transport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"hashplus/transport/ws"
)

var errTooMany = errors.New("transport: too many connections")

// probeTimeout is how long it may take to see whether a socket file is in use.
const probeTimeout = time.Second

// endpoint is a Listener in use: what its connections need to know of it.
type endpoint struct {
	// Immutable after newEndpoint.
	Listener
	server    *Server
	name      string
	transport string
	upgrader  *ws.Upgrader // nil where no HTTP is spoken

	credentials *credentials // nil without TLS
	root        *endpoint    // the first that its listener had, see PrepareUpdate

	// Any goroutine; of root only.
	trusts atomic.Pointer[identity] // what the listener's TLS was last told to; nil: it has not been
	closed atomic.Bool              // its connections are to go, see Retired.Dismiss
}

func (s *Server) newEndpoint(l Listener, at net.Addr) (*endpoint, error) {
	e, err := s.describe(l, at)
	if err == nil && e.secured() {
		if e.credentials, err = newCredentials(*l.TLS, l.upgrades(), e.name, s.opts.Logger); err != nil {
			return nil, fmt.Errorf("transport: listener %s: %w", e.name, err)
		}
	}
	return e, err
}

// describe is newEndpoint without the credentials.
func (s *Server) describe(l Listener, at net.Addr) (*endpoint, error) {
	l.EnsureDefaults()
	if err := l.Validate(); err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	e := &endpoint{Listener: l, server: s, name: l.Name, transport: l.Network}
	if e.name == "" {
		e.name = urlOf(l, at)
	}
	e.root = e
	if l.upgrades() {
		e.upgrader = &ws.Upgrader{
			Path: l.Path, Protocols: l.Subprotocols, RequireProtocol: l.RequireSubprotocol,
			Origins: l.Origins, Loopback: isLoopback(at), Deflate: l.Deflate,
		}
	}
	return e, nil
}

func isLoopback(at net.Addr) bool {
	a, ok := at.(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// urlOf is how a client reaches l, which listens at.
func urlOf(l Listener, at net.Addr) string {
	if at == nil {
		return l.Network + "://" + l.Addr + l.Path
	}
	if at.Network() == "unix" {
		return l.Network + "://" + at.String()
	}
	return l.Network + "://" + at.String() + l.Path
}

// Listen opens a listener and serves it in the background. It returns its URL,
// with the port that the system chose where l.Addr has port 0. The file of a
// Unix socket that nobody listens on any more is replaced.
func (s *Server) Listen(l Listener) (address string, err error) {
	b, err := s.Bind(l)
	if err != nil {
		return "", err
	}
	b.Serve()
	return b.URL(), nil
}

// Serve serves connections of ln, as l describes them, until StopAccepting or
// Shutdown, and returns nil then. ln is the server's from then on: closing it
// elsewhere need not end Serve. Connections of a *net.TCPListener and a
// *net.UnixListener become file descriptors of the loops where the system has a
// poller; those of any other listener are served as by ServeConn.
func (s *Server) Serve(ln net.Listener, l Listener) error {
	e, err := s.newEndpoint(l, ln.Addr())
	if err != nil {
		_ = ln.Close() // the first error is the one to report
		return err
	}
	a, err := s.newAcceptor(ln, e)
	if err != nil {
		return err
	}
	return a.serve()
}

// acceptor serves one listener.
type acceptor struct {
	address  string                   // its URL, as Listen returns it
	endpoint atomic.Pointer[endpoint] // of new connections; see PrepareUpdate
	ln       net.Listener
	gate     *gate         // its socket on a loop; nil where a goroutine accepts
	done     chan struct{} // closed when it is to end
	ended    chan struct{} // closed when it accepts no more
}

// newAcceptor takes over ln, for e. Its serve must be called, once.
func (s *Server) newAcceptor(ln net.Listener, e *endpoint) (*acceptor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		_ = ln.Close()
		return nil, ErrServerClosed
	}
	a := &acceptor{address: urlOf(e.Listener, ln.Addr()), ln: ln, done: make(chan struct{}), ended: make(chan struct{})}
	a.endpoint.Store(e)
	fd, err := rawListener(ln)
	if err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("transport: %w", err)
	}
	if fd != noListener {
		a.gate = newGate(a, fd)
	}
	if e.credentials != nil {
		s.startTLS()
	}
	s.acceptors[a] = struct{}{}
	s.noteDeflate()
	s.routines.Add(1)
	return a, nil
}

// noteDeflate finds the smallest DeflateMinSize of the listeners that compress. It
// holds for all of them: a packet is encoded once for every connection with the
// same framing. mu is held.
func (s *Server) noteDeflate() {
	least := 0
	for a := range s.acceptors {
		if e := a.endpoint.Load(); e.upgrades() && e.Deflate && (least == 0 || e.DeflateMinSize < least) {
			least = e.DeflateMinSize
		}
	}
	s.deflateMin.Store(int64(least))
}

// close ends serve, and returns when the listener accepts no more.
func (a *acceptor) close() {
	close(a.done)
	_ = a.ln.Close() // closing is the purpose; it also removes the file of a Unix socket
	<-a.ended
}

// serve accepts until close, or until the listener fails for good.
func (a *acceptor) serve() error {
	s := a.endpoint.Load().server
	defer s.routines.Done()
	defer close(a.ended)
	if a.gate != nil {
		defer rawClose(a.gate.fd)
		return a.gate.serve(a.done)
	}
	var pause time.Duration
	for {
		if now := monotonic(); s.lagging(now) { // as in gate.accept
			s.slowed(a.endpoint.Load(), now)
			select {
			case <-a.done:
				return nil
			case <-time.After(time.Duration(lagPause)):
			}
		}
		err := a.acceptStream()
		if err == nil {
			pause = 0
			continue
		}
		select {
		case <-a.done:
			return nil
		default:
		}
		if !temporary(err) {
			return err
		}
		// As in gate.rest.
		pause = nextPause(pause)
		s.opts.Logger.Warn(acceptFailed, "listener", a.endpoint.Load().name, "cause", err, "after", pause)
		select {
		case <-a.done:
			return nil
		case <-time.After(pause):
		}
	}
}

// acceptStream accepts one connection to be served by goroutines.
func (a *acceptor) acceptStream() error {
	nc, err := a.ln.Accept()
	if err != nil {
		return err
	}
	e := a.endpoint.Load()
	if e.credentials != nil {
		e.served(remoteAddr(nc), e.server.serveSecure(e, nc))
	} else {
		e.served(remoteAddr(nc), e.server.serveStream(e, nc, nil))
	}
	return nil
}

// served notes how a connection from remote was handed over. One that was not is
// closed.
func (e *endpoint) served(remote netip.AddrPort, err error) {
	if err != nil {
		e.server.logRefused(e, remote, err)
	}
}

// temporary reports whether accepting may work again.
func temporary(err error) bool {
	for _, errno := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// removeStale removes a Unix socket that a process left behind. It leaves alone
// what is no socket, and a socket that somebody answers on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("transport: %s exists and is not a socket", path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = nc.Close()
		return fmt.Errorf("transport: %s is in use", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
