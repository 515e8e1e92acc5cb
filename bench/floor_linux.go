package bench

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// floor writes batch frames in one write to each of n loopback sockets in turn
// and returns the writing thread's CPU time per frame, in µs. It waits for the
// reader after each round, so that no socket fills up.
func floor(ctx context.Context, n, frame, batch int, d time.Duration) (float64, error) {
	writers, readers, err := loopback(n)
	defer func() {
		for _, fd := range append(writers, readers...) {
			unix.Close(fd)
		}
	}()
	if err != nil {
		return 0, err
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(ep)
	for _, fd := range readers {
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
			return 0, err
		}
	}
	var got atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		drainAll(ep, &got, stop)
	}()
	defer func() { close(stop); <-done }()

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b := make([]byte, frame*batch)
	var cpu time.Duration
	var frames, sent int64
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; {
		before := threadCPU()
		for _, fd := range writers {
			r, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
			if errno != 0 {
				return 0, errno
			}
			if int(r) != len(b) {
				return 0, errors.New("short write")
			}
		}
		cpu += threadCPU() - before
		frames += int64(n * batch)
		sent += int64(n * len(b))
		for got.Load() < sent && ctx.Err() == nil {
			time.Sleep(100 * time.Microsecond)
		}
	}
	if frames == 0 {
		return 0, context.Cause(ctx)
	}
	return float64(cpu.Nanoseconds()) / 1e3 / float64(frames), nil
}

// drainAll reads what comes until stop closes.
func drainAll(ep int, got *atomic.Int64, stop <-chan struct{}) {
	events := make([]unix.EpollEvent, 512)
	b := make([]byte, 64<<10)
	for {
		select {
		case <-stop:
			return
		default:
		}
		// A failed wait or read shows as a round that never ends.
		n, _ := unix.EpollWait(ep, events, 20)
		for i := range max(n, 0) {
			if r, _ := unix.Read(int(events[i].Fd), b); r > 0 {
				got.Add(int64(r))
			}
		}
	}
}

// loopback makes n TCP connections of this process to itself.
func loopback(n int) (writers, readers []int, err error) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(l)
	if err := unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, nil, err
	}
	if err := unix.Listen(l, 128); err != nil {
		return nil, nil, err
	}
	addr, err := unix.Getsockname(l)
	if err != nil {
		return nil, nil, err
	}
	for range n {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return writers, readers, err
		}
		readers = append(readers, c)
		if err := unix.Connect(c, addr); err != nil {
			return writers, readers, err
		}
		s, _, err := unix.Accept4(l, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return writers, readers, err
		}
		writers = append(writers, s)
		for _, fd := range [2]int{c, s} {
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
				return writers, readers, err
			}
		}
		if err := unix.SetNonblock(c, true); err != nil {
			return writers, readers, err
		}
	}
	return writers, readers, nil
}

// threadCPU is the CPU time of the calling thread, to the nanosecond.
func threadCPU() time.Duration {
	var t unix.Timespec
	// It cannot fail for a clock that every Linux has.
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}
