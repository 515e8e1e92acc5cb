//go:build linux && !nopoll

package transport

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wakeSlot marks the poller's own eventfd.
const wakeSlot = ^uint32(0)

// poller waits for sockets with epoll, edge-triggered, and for wake.
type poller struct {
	epfd   int
	wakefd int
	events [256]unix.EpollEvent
}

func (p *poller) init() error {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epfd) // the first error is the one to report
		return os.NewSyscallError("eventfd", err)
	}
	p.epfd, p.wakefd = epfd, wakefd
	// Edge-triggered: every write is an event, and nobody has to read.
	return p.control(unix.EPOLL_CTL_ADD, wakefd, unix.EPOLLIN|unix.EPOLLET, wakeSlot, 0)
}

// close frees the poller. Nobody may call wake any more.
func (p *poller) close() {
	_ = unix.Close(p.wakefd) // nothing was written that could be lost
	_ = unix.Close(p.epfd)
}

// add watches fd for everything, once for its life here.
func (p *poller) add(fd int32, slot, gen uint32) error {
	return p.control(unix.EPOLL_CTL_ADD, int(fd),
		unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET, slot, gen)
}

// listen watches fd, a listening socket. It is not edge-triggered: what the loop
// leaves waiting is told again.
func (p *poller) listen(fd int32, slot uint32) error {
	return p.control(unix.EPOLL_CTL_ADD, int(fd), unix.EPOLLIN, slot, 0)
}

// remove stops watching fd. Events that were fetched already are told apart by
// their generation.
func (p *poller) remove(fd int32) error {
	return p.control(unix.EPOLL_CTL_DEL, int(fd), 0, 0, 0)
}

func (p *poller) control(op, fd int, events, slot, gen uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(slot), Pad: int32(gen)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.epfd, op, fd, &ev))
}

// canNap: see nap.
const canNap = true

// wait fetches events, for at most timeout; 0 does not block, a negative timeout
// has no limit. It returns how many there are, see event.
func (p *poller) wait(timeout time.Duration) int {
	if timeout == 0 {
		return p.nap(0)
	}
	// The ordinary wrapper: while this thread sleeps the runtime gives its P to
	// another one.
	n, _, errno := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.epfd),
		uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), milliseconds(timeout), 0, 0)
	return fetched(n, errno)
}

// nap is wait, but this thread keeps its P while it sleeps. The runtime can still
// stop it with a signal.
func (p *poller) nap(timeout time.Duration) int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.epfd),
		uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), milliseconds(timeout), 0, 0)
	return fetched(n, errno)
}

// milliseconds is timeout, rounded up, in the form that epoll_pwait takes.
func milliseconds(timeout time.Duration) uintptr {
	if timeout < 0 {
		return ^uintptr(0)
	}
	return uintptr((timeout + time.Millisecond - 1) / time.Millisecond)
}

// fetched is the number of events; EINTR is the same as none.
func fetched(n uintptr, errno syscall.Errno) int {
	if errno != 0 {
		return 0
	}
	return int(n)
}

// event returns one of the events that wait fetched. ok is false for a wake-up.
func (p *poller) event(i int) (slot, gen uint32, what readiness, ok bool) {
	e := &p.events[i]
	if uint32(e.Fd) == wakeSlot {
		return 0, 0, 0, false
	}
	if e.Events&unix.EPOLLIN != 0 {
		what |= canRead
	}
	if e.Events&unix.EPOLLOUT != 0 {
		what |= canWrite
	}
	if e.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		what |= canRead | canWrite | peerGone
	}
	return uint32(e.Fd), uint32(e.Pad), what, true
}

// wake ends a wait that blocks. Any goroutine.
func (p *poller) wake() {
	one := uint64(1)
	// It fails only when the counter is full, and then the loop is awake.
	_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, uintptr(p.wakefd), uintptr(unsafe.Pointer(&one)), 8)
}
