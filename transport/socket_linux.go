//go:build linux && !nopoll

package transport

import (
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls here do not block, so they are raw: telling the scheduler that the
// thread may sleep costs about a fifth of a small write. recvfrom and sendto in
// place of read and write save the layer of the file system, 3 % of both.

// vector is room for the buffers of one writev.
type vector struct {
	bufs [maxVector][]byte
	iovs [maxVector]unix.Iovec
}

func rawRead(fd int32, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0 && n == 0:
			return 0, io.EOF
		case errno == 0:
			return int(n), nil
		case errno == syscall.EAGAIN:
			return 0, errAgain
		case errno != syscall.EINTR:
			return 0, os.NewSyscallError("recvfrom", errno)
		}
	}
}

func rawWrite(fd int32, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if err := writeError("sendto", errno); err != nil {
			return 0, err
		}
	}
}

func rawWritev(fd int32, q *writeQueue, v *vector) (int, error) {
	bufs := q.vector(v.bufs[:0])
	for i, b := range bufs {
		v.iovs[i].Base = unsafe.SliceData(b)
		v.iovs[i].SetLen(len(b))
	}
	defer func() {
		clear(v.bufs[:len(bufs)])
		clear(v.iovs[:len(bufs)])
	}()
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, uintptr(fd),
			uintptr(unsafe.Pointer(&v.iovs[0])), uintptr(len(bufs)))
		if errno == 0 {
			return int(n), nil
		}
		if err := writeError("writev", errno); err != nil {
			return 0, err
		}
	}
}

// writeError is nil for a call that is to be made again.
func writeError(call string, errno syscall.Errno) error {
	switch errno {
	case syscall.EINTR:
		return nil
	case syscall.EAGAIN:
		return errAgain
	default:
		return os.NewSyscallError(call, errno)
	}
}

func rawUnread(fd int32) bool {
	var b [1]byte
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd),
		uintptr(unsafe.Pointer(&b[0])), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return errno == 0 && n > 0
}

func rawCloseWrite(fd int32) {
	// A socket that the peer has reset cannot be shut down, and need not be.
	_, _, _ = syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), syscall.SHUT_WR, 0)
}

func rawClose(fd int32) {
	_ = syscall.Close(int(fd)) // the socket is gone whatever it says
}
