//go:build linux && !nopoll

package transport

import (
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hashplus/transport/link"
)

// BenchmarkEcho is one client that sends and waits: two system calls of each
// side, and the way into the kernel and back.
func BenchmarkEcho(b *testing.B) {
	for _, k := range kinds() {
		if k.name == "tcp/pipe" || k.name == "ws/pipe" {
			continue
		}
		b.Run(k.name, func(b *testing.B) {
			nc := k.dial(b, start(b, Options{Loops: 1}, newScripted()), Listener{})
			p := make([]byte, 100)
			for b.Loop() {
				if _, err := nc.Write(p); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(nc, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// fanout is a handler whose streams only listen.
type fanout struct {
	loops []link.Loop
	conns []link.Conn
	ready chan struct{}
	want  int
}

func (f *fanout) Start(loops []link.Loop) { f.loops = loops }
func (f *fanout) Tick(link.Loop) bool     { return false }
func (f *fanout) Open(c link.Conn) link.Stream {
	f.conns = append(f.conns, c)
	if len(f.conns) == f.want {
		close(f.ready)
	}
	return silent{}
}

type silent struct{}

func (silent) Data(b []byte) int        { return len(b) }
func (silent) Arrived()                 {}
func (silent) Writable()                {}
func (silent) Stalled()                 {}
func (silent) Dismissed(link.Dismissal) {}
func (silent) Closed(error)             {}

// fanoutOver connects n clients over loopback TCP and returns their descriptors.
func fanoutOver(b *testing.B, n int) (*fanout, []int) {
	f := &fanout{ready: make(chan struct{}), want: n}
	s := start(b, Options{Loops: 1}, f)
	address, err := s.Listen(Listener{Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	fds := make([]int, n)
	for i := range fds {
		nc := dialURL(b, address).(*net.TCPConn)
		rc, _ := nc.SyscallConn()
		rc.Control(func(fd uintptr) { fds[i] = int(fd) })
	}
	<-f.ready
	return f, fds
}

// BenchmarkFanout queues bursts for 1000 connections and flushes them. The time
// is that of the loop's thread per message; emptying the receivers is not
// counted.
func BenchmarkFanout(b *testing.B) {
	for _, burst := range []int{1, 8} {
		b.Run(map[int]string{1: "single", 8: "burst8"}[burst], func(b *testing.B) {
			const n, size = 1000, 100
			f, fds := fanoutOver(b, n)
			buf := make([]byte, 64<<10)
			var busy, bare time.Duration
			done := make(chan time.Duration, 1)
			round := link.TaskFunc(func(l link.Loop) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				begin := threadTime()
				for range burst {
					for _, c := range f.conns {
						p := c.Reserve(size)
						p[0], p[size-1] = 1, 2
					}
				}
				l.(*loop).flushDirty()
				done <- threadTime() - begin
			})
			// The same bytes by bare system calls, on the same machine at the same time.
			payload := make([]byte, burst*size)
			floor := link.TaskFunc(func(l link.Loop) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				begin := threadTime()
				for _, c := range f.conns {
					if _, err := rawWrite(c.(*conn).sock.fd, payload); err != nil {
						b.Error(err)
					}
				}
				done <- threadTime() - begin
			})
			empty := func() {
				for _, fd := range fds {
					for got := 0; got < burst*size; {
						k, err := syscall.Read(fd, buf)
						if err == syscall.EAGAIN {
							runtime.Gosched()
							continue
						}
						if err != nil {
							b.Fatal(err)
						}
						got += k
					}
				}
			}
			for b.Loop() {
				f.loops[0].Post(round)
				busy += <-done
				empty()
				f.loops[0].Post(floor)
				bare += <-done
				empty()
			}
			b.ReportMetric(float64(busy.Nanoseconds())/float64(b.N*burst*n), "ns/message")
			b.ReportMetric(float64(bare.Nanoseconds())/float64(b.N*n), "ns/bare-write")
			b.ReportMetric(float64(busy.Nanoseconds())/float64(b.N*n), "ns/write")
		})
	}
}

// threadTime is the processor time of this thread.
func threadTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkQueue is the part of a delivery that is not the system call.
func BenchmarkQueue(b *testing.B) {
	f, _ := fanoutOver(b, 1)
	done := make(chan struct{})
	f.loops[0].Post(link.TaskFunc(func(l link.Loop) {
		defer close(done)
		c := f.conns[0].(*conn)
		for b.Loop() {
			for range 8 {
				p := c.Reserve(100)
				p[0] = 1
			}
			c.dropOut()
			l.(*loop).flushDirty()
		}
	}))
	<-done
}

type nothing struct{}

func (*nothing) Run(link.Loop) {}

// BenchmarkPost is a post to a loop that is busy, so no wake-up.
func BenchmarkPost(b *testing.B) {
	var m mailbox
	t := new(nothing)
	var spare []link.Task
	for i := 0; b.Loop(); i++ {
		m.post(t)
		if i%64 == 0 {
			spare = m.take(spare[:0])
		}
	}
}

// BenchmarkPostWakes is the way from one goroutine to a sleeping loop and back.
func BenchmarkPostWakes(b *testing.B) {
	h := newScripted()
	start(b, Options{Loops: 1}, h)
	done := make(chan struct{}, 1)
	t := link.TaskFunc(func(link.Loop) { done <- struct{}{} })
	for b.Loop() {
		h.loops[0].Post(t)
		<-done
	}
}

// BenchmarkHop is a volley between two loops.
func BenchmarkHop(b *testing.B) {
	h := newScripted()
	start(b, Options{Loops: 2}, h)
	done := make(chan struct{})
	v := &volley{left: b.N, done: done}
	b.ResetTimer()
	h.loops[0].Post(v)
	<-done
}

type volley struct {
	left int
	done chan struct{}
}

func (v *volley) Run(l link.Loop) {
	if v.left--; v.left <= 0 {
		close(v.done)
		return
	}
	l.Send(1-l.ID(), v)
}
