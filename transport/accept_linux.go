//go:build linux && !nopoll

package transport

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// noListener is the descriptor of a listener that a goroutine serves.
const noListener = int32(-1)

// rawListener returns a second descriptor for ln where its connections can be
// served as file descriptors, else noListener. The caller closes it. Options that connections inherit are set
// here, once, in place of two system calls for each of them.
func rawListener(ln net.Listener) (int32, error) {
	var sc syscall.Conn
	tcp := false
	switch ln := ln.(type) {
	case *net.TCPListener:
		sc, tcp = ln, true
	case *net.UnixListener:
		sc = ln
	default:
		return noListener, nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return noListener, err
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
		return noListener, err
	}
	return int32(fd), nil
}

// TCP keep-alive notices peers that vanished where the protocol has no keep
// alive of its own, in seconds.
const (
	keepIdle     = 60
	keepInterval = 15
)

// rawAccept accepts a connection of the listening socket listener. It returns
// errAgain where none waits.
func rawAccept(listener int32) (fd int32, remote netip.AddrPort, err error) {
	for {
		// Room for the longest address that is of interest; that of a Unix
		// socket's peer is cut off.
		var sa unix.RawSockaddrInet6
		size := uint32(unsafe.Sizeof(sa))
		n, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&sa)),
			uintptr(unsafe.Pointer(&size)), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			return int32(n), remoteOf(&sa), nil
		case syscall.EAGAIN:
			return 0, netip.AddrPort{}, errAgain
		case syscall.EINTR:
		default:
			return 0, netip.AddrPort{}, os.NewSyscallError("accept4", errno)
		}
	}
}

// remoteOf is the address in sa, in the form that link.Info has.
func remoteOf(sa *unix.RawSockaddrInet6) netip.AddrPort {
	switch sa.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), bigEndian(&v4.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), bigEndian(&sa.Port))
	default:
		return netip.AddrPort{}
	}
}

func bigEndian(port *uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(port))[:])
}
