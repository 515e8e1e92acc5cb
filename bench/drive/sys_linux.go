package drive

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sys is the kernel as a Loop needs it: one epoll instance and raw,
// non-blocking socket calls. Not safe for concurrent use.
type sys struct {
	ep     int
	timer  int
	events [512]unix.EpollEvent
}

// event is one readiness report: the token given to add, and what happened.
type event struct {
	token    int32
	readable bool
	writable bool
	hangup   bool // the peer has closed its side, or an error is pending
}

const timerToken = -1

func newSys() (*sys, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		unix.Close(ep)
		return nil, err
	}
	s := &sys{ep: ep, timer: timer}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: timerToken}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, timer, &ev); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *sys) close() {
	unix.Close(s.timer)
	unix.Close(s.ep)
}

// wait appends what became ready to dst. It blocks for at most d, to the
// microsecond; with d ≤ 0 it only looks.
func (s *sys) wait(dst []event, d time.Duration) ([]event, error) {
	n := s.poll()
	if n == 0 && d > 0 {
		spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
		if err := unix.TimerfdSettime(s.timer, 0, &spec, nil); err != nil {
			return dst, err
		}
		var err error
		if n, err = unix.EpollWait(s.ep, s.events[:], -1); err != nil && err != unix.EINTR {
			return dst, err
		}
	}
	for i := range max(n, 0) {
		e := &s.events[i]
		if e.Fd == timerToken {
			continue
		}
		dst = append(dst, event{
			token:    e.Fd,
			readable: e.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0,
			hangup:   e.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0,
			writable: e.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0,
		})
	}
	return dst, nil
}

// poll looks without blocking, by a raw call: the scheduler need not know.
func (s *sys) poll() int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(s.ep),
		uintptr(unsafe.Pointer(&s.events[0])), uintptr(len(s.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// dial starts a connection from source (invalid: any) and watches it,
// edge-triggered, under token. The connection is complete when it is writable.
// small asks for the smallest receive buffer, so that a client that stops
// reading is felt soon.
func (s *sys) dial(to netip.AddrPort, source netip.Addr, small bool, token int32) (fd int, err error) {
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return -1, err
	}
	if small {
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096); err != nil {
			return -1, err
		}
	}
	if source.IsValid() {
		// The port is chosen at connect, so that one address serves as many
		// connections as there are ports per destination.
		if err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return -1, err
		}
		if err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0))); err != nil {
			return -1, err
		}
	}
	if err = s.watch(fd, token); err != nil {
		return -1, err
	}
	if err = unix.Connect(fd, sockaddr(to)); err == unix.EINPROGRESS {
		err = nil
	}
	return fd, err
}

// watch reports the events of fd under token.
func (s *sys) watch(fd int, token int32) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: token}
	return unix.EpollCtl(s.ep, unix.EPOLL_CTL_ADD, fd, &ev)
}

// descriptor is a copy of c's descriptor that outlives c.
func descriptor(c *net.TCPConn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	var dup error
	err = raw.Control(func(p uintptr) { fd, dup = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, dup)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// connected reports how a dial ended.
func connected(fd int) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = syscall.Errno(code)
	}
	return err
}

// read fills b. again says that there is nothing to read now; n == 0 without
// it is the end of the stream.
func read(fd int, b []byte) (n int, again bool, err error) {
	for {
		r, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			return int(r), false, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, true, nil
		default:
			return 0, false, errno
		}
	}
}

// write sends a part of b; n == 0 without an error means that the socket is full.
func write(fd int, b []byte) (n int, err error) {
	for {
		r, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			return int(r), nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, errno
		}
	}
}

// unwatch stops the events of fd, so that it is neither read nor written.
func (s *sys) unwatch(fd int) error {
	return unix.EpollCtl(s.ep, unix.EPOLL_CTL_DEL, fd, nil)
}

// shut closes fd. With reset the connection ends by RST, which leaves no
// TIME_WAIT behind that would hold its port for a minute.
func shut(fd int, reset bool) {
	if reset {
		// Failure leaves an ordinary close: slower to free the port, no more.
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	unix.Close(fd)
}
