package limits

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"hashplus/cmd/hashplus/launch"
)

const patience = launch.Patience

// program is the path of the built hashplus.
var program string

func TestMain(m *testing.M) {
	os.Exit(launch.Main(func(built string) int {
		program = built
		return m.Run()
	}))
}

// server is a broker in a process of its own.
type server struct {
	*launch.Server
	t       testing.TB
	tcp, ws string // host:port of its listeners
}

// command is "hashplus" with args.
func command(args ...string) *exec.Cmd { return launch.Command(program, args...) }

// serve starts a broker on a TCP and a WebSocket listener that lives as long as
// the test. At its end it must go on a signal, in order.
func serve(t testing.TB, args ...string) *server {
	t.Helper()
	s := boot(t, append([]string{"--tcp=127.0.0.1:0", "--ws=127.0.0.1:0"}, args...)...)
	s.stopAtTheEnd()
	return s
}

// stopAtTheEnd has the broker go in order at the end of the test.
func (s *server) stopAtTheEnd() {
	s.t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			s.t.Errorf("broker: %v", err)
		}
	})
}

// boot is serve with the listeners that args name, and without an end.
func boot(t testing.TB, args ...string) *server {
	t.Helper()
	s, err := launch.Start(program, args...)
	return watch(t, s, err)
}

// watch is the server for the test that has started it.
func watch(t testing.TB, s *launch.Server, err error) *server {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	s.Guard(t)
	return &server{s, t, s.Address("mqtt"), s.Address("ws")}
}

// signal sends the process a signal.
func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// status is a value of /proc/PID/status in KiB.
func (s *server) status(key string) int {
	s.t.Helper()
	n, ok := s.Status(key)
	if !ok {
		s.t.Skip("there is no /proc here")
	}
	return n
}

// rss is the resident memory of the broker in MiB, peak the most it ever was.
func (s *server) rss() int  { s.t.Helper(); return s.status("VmRSS") >> 10 }
func (s *server) peak() int { s.t.Helper(); return s.status("VmHWM") >> 10 }

// garbage is what a busy machine may collect late, in MiB.
const garbage = 32

// memory fails the test if the broker ever had more than limit MiB.
func (s *server) memory(limit int) {
	s.t.Helper()
	peak := s.peak()
	s.t.Logf("peak RSS %d MiB", peak)
	if peak > limit+garbage && !launch.Raced() {
		s.t.Errorf("the broker's RSS reached %d MiB, more than %d", peak, limit)
	}
}

// fds is the number of open descriptors of the broker.
func (s *server) fds() int {
	s.t.Helper()
	n, ok := s.Descriptors()
	if !ok {
		s.t.Skip("there is no /proc here")
	}
	return n
}

// sys waits until the values of $SYS/broker/ are as ok wants them. The server
// must have been started with a short --sys-interval.
func (s *server) sys(ok func(values map[string]int) bool) {
	s.t.Helper()
	c := s.dial(v5)
	defer c.drop()
	c.join()
	c.subscribe(0, "$SYS/broker/#")
	values := map[string]int{}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		p := c.message()
		if n, err := strconv.Atoi(string(p.Payload)); err == nil {
			values[strings.TrimPrefix(string(p.Topic), "$SYS/broker/")] = n
		}
		if ok(values) {
			return
		}
	}
	s.t.Errorf("$SYS does not become what it should be: %v", values)
}

// until waits for something that has no event to wait for.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not so within %v: %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// open opens a bare connection that lasts as long as the test.
func open(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test is over
	return conn
}
