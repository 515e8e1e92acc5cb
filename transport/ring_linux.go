//go:build linux && !nopoll

package transport

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ringSize is how many sends or reads go into one io_uring_enter. The runtime
// cannot stop a thread that is in there, and a send to loopback takes some 4 µs.
const ringSize = 128

// ring sends to many sockets, or reads from many, in one system call, with
// io_uring. Neither waits nor goes on behind our back: it is told not to block, so
// the kernel completes it, with bytes or EAGAIN, before the call that submits it
// returns. Buffers are the kernel's until then and no longer.
//
// The zero value is a ring that is not open. It belongs to its loop.
type ring struct {
	fd      int32 // 0 if not open; a ring never is descriptor 0, see mapRings
	mapping []byte
	entries []byte

	// In memory shared with the kernel: who writes them stands beside.
	sqHead, sqTail *uint32 // the kernel, we
	cqHead, cqTail *uint32 // we, the kernel
	sqMask, cqMask uint32
	sqes           *[ringSize]submission
	cqes           unsafe.Pointer // *completion

	n     int     // what waits for flush
	probe [1]byte // see try
}

// What linux/io_uring.h defines and is used here.
const (
	setupClamp     = 1 << 4 // IORING_SETUP_CLAMP
	setupSubmitAll = 1 << 7 // IORING_SETUP_SUBMIT_ALL: one that fails does not hold up the others
	featSingleMmap = 1 << 0 // IORING_FEAT_SINGLE_MMAP
	offSqes        = 0x10000000
	enterGetEvents = 1  // IORING_ENTER_GETEVENTS
	opSend         = 26 // IORING_OP_SEND
	opRecv         = 27 // IORING_OP_RECV
)

type ringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

type submission struct {
	op       uint8
	_        [3]byte // flags, priority
	fd       int32
	_        uint64 // offset
	addr     uint64
	length   uint32
	msgFlags uint32
	user     uint64
	_        [3]uint64
}

type completion struct {
	user   uint64
	result int32
	flags  uint32
}

var errRingTooOld = errors.New("io_uring of this kernel is too old")

// open sets the ring up, and sends and reads a byte through it. It fails where the kernel
// has no io_uring or none to our liking, or keeps it from this process.
func (r *ring) open() error {
	p := ringParams{flags: setupClamp | setupSubmitAll}
	fd, _, errno := syscall.RawSyscall(unix.SYS_IO_URING_SETUP, ringSize, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return os.NewSyscallError("io_uring_setup", errno)
	}
	r.fd = int32(fd)
	err := r.mapRings(&p)
	if err == nil {
		err = r.try()
	}
	if err != nil {
		r.close()
	}
	return err
}

func (r *ring) mapRings(p *ringParams) error {
	if p.features&featSingleMmap == 0 || p.sqEntries != ringSize || r.fd == 0 {
		return errRingTooOld
	}
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(completion{})))
	var err error
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.mapping, err = unix.Mmap(int(r.fd), 0, int(size), prot, flags); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	if r.entries, err = unix.Mmap(int(r.fd), offSqes, ringSize*int(unsafe.Sizeof(submission{})), prot, flags); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	word := func(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.mapping[at])) }
	r.sqHead, r.sqTail, r.sqMask = word(p.sq.head), word(p.sq.tail), *word(p.sq.mask)
	r.cqHead, r.cqTail, r.cqMask = word(p.cq.head), word(p.cq.tail), *word(p.cq.mask)
	r.sqes = (*[ringSize]submission)(unsafe.Pointer(&r.entries[0]))
	r.cqes = unsafe.Pointer(&r.mapping[p.cq.cqes])
	for i := range p.sqEntries {
		*word(p.sq.array + 4*i) = i
	}
	return nil
}

// try sends a byte and a refusal through the ring, and reads the byte.
func (r *ring) try() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	defer rawClose(int32(pair[0]))
	defer rawClose(int32(pair[1]))
	var results [2]int32
	r.probe[0] = 42
	r.add(int32(pair[0]), r.probe[:])
	r.add(-1, r.probe[:])
	if n, err := r.flush(results[:]); n != 2 {
		return err
	}
	if results[0] != 1 || results[1] != -int32(unix.EBADF) {
		return errRingTooOld
	}
	r.probe[0] = 0
	r.addRead(int32(pair[1]), r.probe[:])
	if n, err := r.flush(results[:]); n != 1 {
		return err
	}
	if results[0] != 1 || r.probe[0] != 42 {
		return errRingTooOld
	}
	return nil
}

func (r *ring) isOpen() bool { return r.fd > 0 }

// close frees the ring, when nothing waits for flush.
func (r *ring) close() {
	for _, m := range [][]byte{r.mapping, r.entries} {
		if m != nil {
			_ = unix.Munmap(m) // it was mapped
		}
	}
	if r.fd > 0 {
		rawClose(r.fd)
	}
	*r = ring{}
}

// add queues b to be sent to fd. At most ringSize may wait for flush. b stays
// as it is until then, and is not on a stack: stacks move, and only the kernel
// knows of the pointer.
func (r *ring) add(fd int32, b []byte) {
	r.submit(opSend, fd, b, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

// addRead queues a read from fd into b, for which the same holds.
func (r *ring) addRead(fd int32, b []byte) { r.submit(opRecv, fd, b, syscall.MSG_DONTWAIT) }

func (r *ring) submit(op uint8, fd int32, b []byte, flags uint32) {
	// The tail is ours alone, and the kernel looks at it in flush only.
	e := &r.sqes[(*r.sqTail+uint32(r.n))&r.sqMask]
	*e = submission{
		op: op, fd: fd, addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), length: uint32(len(b)),
		msgFlags: flags, user: uint64(r.n),
	}
	r.n++
}

// flush does what was added and fills results, in the order of adding, with the
// bytes that a socket took or gave, or a negative error number. If the ring breaks,
// it returns why and how many were done; the others were not, and the ring is of no
// more use.
func (r *ring) flush(results []int32) (done int, err error) {
	n := uint32(r.n)
	r.n = 0
	first := *r.sqTail
	atomic.StoreUint32(r.sqTail, first+n)
	for done < int(n) {
		taken := atomic.LoadUint32(r.sqHead) - first
		_, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd),
			uintptr(n-taken), uintptr(n-uint32(done)), enterGetEvents, 0, 0)
		head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
		for ; head != tail; head++ {
			c := (*completion)(unsafe.Add(r.cqes, uintptr(head&r.cqMask)*unsafe.Sizeof(completion{})))
			results[c.user] = c.result
			done++
		}
		atomic.StoreUint32(r.cqHead, head)
		if errno != 0 && errno != syscall.EINTR {
			// What the kernel has not taken is taken back. It takes, and
			// completes, in order.
			return done, os.NewSyscallError("io_uring_enter", errno)
		}
	}
	return done, nil
}

// sendError is the error of a negative result, as rawWrite returns it; nil for
// one that says to try again.
func sendError(result int32) error { return writeError("send", syscall.Errno(-result)) }

// readError is the error of a result of a read, as rawRead returns it; nil for one
// that brought bytes or says to try again.
func readError(result int32) error {
	if result == 0 {
		return io.EOF
	}
	if result > 0 {
		return nil
	}
	return writeError("recv", syscall.Errno(-result))
}
