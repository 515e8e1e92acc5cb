//go:build linux

package main

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// pump reads what the clients of all connections send, on one goroutine, in the
// order in which it came, and hands it to their sinks.
//
// The suite that the bridge serves subscribes on one connection and publishes on
// another some 100 µs later, and fails if the second arrives first. Goroutines
// that each wait for their own connection wake in any order, so here one waits
// for all: epoll lists connections in the order in which they became readable.
type pump struct {
	epoll int
	buf   []byte

	mu    sync.Mutex // held while a sink takes bytes
	sinks map[int]*sink
	last  *sink     // the last one that took bytes,
	at    time.Time // and when
}

// sink is where one connection's bytes go.
type sink struct {
	conn  *net.TCPConn // kept, so that its descriptor stays open
	fd    int
	take  func(p []byte) // p is valid until it returns
	ended chan struct{}  // closed when the client has ended, or at remove
}

// gap is the least time between the bytes of one connection and those of
// another. It stands for the time that the suite takes between its two sends:
// waiting in a queue here must not shorten that to nothing.
const gap = 2 * time.Millisecond

func newPump() (*pump, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &pump{epoll: fd, buf: make([]byte, 64<<10), sinks: map[int]*sink{}}, nil
}

// add starts handing conn's bytes to take. The caller must not read conn, and
// calls remove before it closes it. Any goroutine.
func (p *pump) add(conn *net.TCPConn, take func([]byte)) (*sink, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &sink{conn: conn, take: take, ended: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	err = raw.Control(func(fd uintptr) { s.fd = int(fd) })
	if err != nil {
		return nil, err
	}
	p.sinks[s.fd] = s
	return s, syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, s.fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(s.fd)})
}

// remove stops handing bytes over; when it returns, take is not running. It may
// be called after the client has ended. Any goroutine.
func (p *pump) remove(s *sink) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(s)
}

// drop is remove with mu held.
func (p *pump) drop(s *sink) {
	if p.sinks[s.fd] != s {
		return
	}
	delete(p.sinks, s.fd)
	// The descriptor is open, so there is nothing that could fail.
	_ = syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_DEL, s.fd, nil)
	close(s.ended)
}

// run serves connections until close, and returns nil then.
func (p *pump) run() error {
	defer syscall.Close(p.epoll)
	events := make([]syscall.EpollEvent, 64)
	for {
		// The time-out is for close, which has no descriptor to wake this with.
		n, err := syscall.EpollWait(p.epoll, events, 100)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
		for i := range max(n, 0) {
			p.serve(int(events[i].Fd))
		}
		p.mu.Lock()
		closed := p.sinks == nil
		p.mu.Unlock()
		if closed {
			return nil
		}
	}
}

// close ends run once every connection has been removed.
func (p *pump) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sinks = nil
}

func (p *pump) serve(fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sinks[fd]
	if s == nil {
		return // removed since
	}
	n, err := syscall.Read(fd, p.buf)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return
	}
	if n <= 0 {
		p.drop(s)
		return
	}
	if p.last != s {
		time.Sleep(gap - time.Since(p.at))
	}
	s.take(p.buf[:n])
	p.last, p.at = s, time.Now()
}
