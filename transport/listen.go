package transport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
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
}

func (s *Server) newEndpoint(l Listener, at net.Addr) (*endpoint, error) {
	l.EnsureDefaults()
	if err := l.Validate(); err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	e := &endpoint{Listener: l, server: s, name: l.Name, transport: l.Network}
	if e.name == "" {
		e.name = urlOf(l, at)
	}
	if l.Network == "ws" {
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
	if err := l.Validate(); err != nil {
		return "", fmt.Errorf("transport: %w", err)
	}
	network := "tcp"
	if l.Network == "unix" {
		network = "unix"
		if err := removeStale(l.Addr); err != nil {
			return "", err
		}
	}
	ln, err := net.Listen(network, l.Addr)
	if err != nil {
		return "", err
	}
	a, err := s.newAcceptor(ln, l)
	if err != nil {
		return "", err
	}
	go func() {
		if err := a.serve(); err != nil {
			s.opts.Logger.Error("listener failed", "listener", a.endpoint.name, "error", err)
		}
	}()
	return urlOf(l, ln.Addr()), nil
}

// Serve serves connections of ln, as l describes them, until StopAccepting or
// Shutdown, and returns nil then. ln is the server's from then on: closing it
// elsewhere need not end Serve. Connections of a *net.TCPListener and a
// *net.UnixListener become file descriptors of the loops where the system has a
// poller; those of any other listener are served as by ServeConn.
func (s *Server) Serve(ln net.Listener, l Listener) error {
	a, err := s.newAcceptor(ln, l)
	if err != nil {
		return err
	}
	return a.serve()
}

// acceptor serves one listener.
type acceptor struct {
	endpoint *endpoint
	ln       net.Listener
	gate     *gate         // its socket on a loop; nil where a goroutine accepts
	done     chan struct{} // closed when it is to end
	ended    chan struct{} // closed when it accepts no more
}

// newAcceptor takes over ln. Its serve must be called, once.
func (s *Server) newAcceptor(ln net.Listener, l Listener) (*acceptor, error) {
	e, err := s.newEndpoint(l, ln.Addr())
	if err != nil {
		_ = ln.Close() // the first error is the one to report
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		_ = ln.Close()
		return nil, ErrServerClosed
	}
	a := &acceptor{endpoint: e, ln: ln, done: make(chan struct{}), ended: make(chan struct{})}
	fd, err := rawListener(ln)
	if err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("transport: %w", err)
	}
	if fd != noListener {
		a.gate = newGate(e, fd)
	}
	s.acceptors[a] = struct{}{}
	s.routines.Add(1)
	return a, nil
}

// close ends serve, and returns when the listener accepts no more.
func (a *acceptor) close() {
	close(a.done)
	_ = a.ln.Close() // closing is the purpose; it also removes the file of a Unix socket
	<-a.ended
}

// serve accepts until close, or until the listener fails for good.
func (a *acceptor) serve() error {
	defer a.endpoint.server.routines.Done()
	defer close(a.ended)
	if a.gate != nil {
		defer rawClose(a.gate.fd)
		return a.gate.serve(a.done)
	}
	var pause time.Duration
	for {
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
		a.endpoint.server.opts.Logger.Warn(acceptFailed, "listener", a.endpoint.name, "error", err, "after", pause)
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
	a.endpoint.served(a.endpoint.server.serveStream(a.endpoint, nc, nil))
	return nil
}

// served notes how a connection was handed over. One that was not is closed.
func (e *endpoint) served(err error) {
	if err != nil {
		e.server.opts.Logger.Info("connection refused", "listener", e.name, "detail", err)
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
