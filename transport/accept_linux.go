//go:build linux && !nopoll

package transport

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawListener returns a second descriptor for ln where its connections can be
// served as file descriptors, else nil. Options that connections inherit are set
// here, once, in place of two system calls for each of them.
func rawListener(ln net.Listener) (*os.File, error) {
	var sc syscall.Conn
	tcp := false
	switch ln := ln.(type) {
	case *net.TCPListener:
		sc, tcp = ln, true
	case *net.UnixListener:
		sc = ln
	default:
		return nil, nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var failed error
	err = rc.Control(func(s uintptr) {
		if tcp {
			failed = errors.Join(
				unix.SetsockoptInt(int(s), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
				unix.SetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
				unix.SetsockoptInt(int(s), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepIdle),
				unix.SetsockoptInt(int(s), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepInterval),
			)
		}
		if failed == nil {
			fd, failed = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	// The socket does not block, so the runtime's own poller waits for it.
	return os.NewFile(uintptr(fd), "listener"), nil
}

// TCP keep-alive notices peers that vanished where the protocol has no keep
// alive of its own, in seconds.
const (
	keepIdle     = 60
	keepInterval = 15
)

// acceptRaw waits for connections and accepts one.
func (a *acceptor) acceptRaw() error {
	rc, err := a.raw.SyscallConn()
	if err != nil {
		return err
	}
	var (
		fd     int
		sa     syscall.Sockaddr
		failed error
	)
	err = rc.Read(func(s uintptr) bool {
		fd, sa, failed = syscall.Accept4(int(s), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		return !errors.Is(failed, syscall.EAGAIN)
	})
	if err != nil {
		return err
	}
	if failed != nil {
		return os.NewSyscallError("accept4", failed)
	}
	a.served(a.endpoint.server.serveRaw(a.endpoint, int32(fd), remoteOf(sa)))
	return nil
}

// remoteOf is the address in sa, in the form that link.Info has.
func remoteOf(sa syscall.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	default:
		return netip.AddrPort{}
	}
}
