//go:build linux && !nopoll

package transport

import (
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What marks the poller's own descriptors.
const (
	wakeSlot = ^uint32(0) - iota // the eventfd
	bellSlot                     // the timerfd
)

// poller waits for sockets with epoll, edge-triggered, for wake and for an alarm.
type poller struct {
	epfd   int
	wakefd int
	bell   int   // timerfd
	alarm  int64 // when it goes off; 0 if it is not set
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
	bell, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epfd)
		_ = unix.Close(wakefd)
		return os.NewSyscallError("timerfd_create", err)
	}
	p.epfd, p.wakefd, p.bell = epfd, wakefd, bell
	// Edge-triggered: every write, and every alarm, is an event, and nobody has to
	// read.
	return errors.Join(
		p.control(unix.EPOLL_CTL_ADD, wakefd, unix.EPOLLIN|unix.EPOLLET, wakeSlot, 0),
		p.control(unix.EPOLL_CTL_ADD, bell, unix.EPOLLIN|unix.EPOLLET, bellSlot, 0))
}

// close frees the poller. Nobody may call wake any more.
func (p *poller) close() {
	_ = unix.Close(p.bell)
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
		return p.fetch(0)
	}
	// The ordinary wrapper: while this thread sleeps the runtime gives its P to
	// another one.
	n, _, errno := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.epfd),
		uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), milliseconds(timeout), 0, 0)
	return fetched(n, errno)
}

// nap waits for events or the alarm, which must be set, and reports which it was.
// This thread keeps its P while it sleeps; the runtime can stop it with a signal.
func (p *poller) nap() (n int, alarm bool) {
	n = p.fetch(^uintptr(0))
	if n == 1 && uint32(p.events[0].Fd) == bellSlot {
		p.alarm = 0
		return 0, true
	}
	return n, false
}

func (p *poller) fetch(timeout uintptr) int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.epfd),
		uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), timeout, 0, 0)
	return fetched(n, errno)
}

// setAlarm sees that the alarm goes off no later than at. now is the time.
func (p *poller) setAlarm(at, now int64) {
	if p.alarm != 0 && p.alarm <= at {
		return
	}
	p.alarm = at
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(at-now, 1))}
	// It fails for arguments that are not ours.
	_, _, _ = syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, uintptr(p.bell), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
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

// event returns one of the events that wait fetched. ok is false for one of its own.
func (p *poller) event(i int) (slot, gen uint32, what readiness, ok bool) {
	e := &p.events[i]
	switch uint32(e.Fd) {
	case wakeSlot:
		return 0, 0, 0, false
	case bellSlot:
		p.alarm = 0
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
