package limits

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that ought to happen at once. It is
// long because the machine of a CI run is small and busy.
const patience = 20 * time.Second

// program is the path of the built hashplus.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hashplus-limits-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program = filepath.Join(dir, "hashplus")
	code := 1
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir) // a temporary folder
	os.Exit(code)
}

// instrumented reports whether the binary has the race detector, which
// multiplies its memory.
func instrumented() bool { return os.Getenv("HASHPLUS_TEST_RACE") == "1" }

func build() error {
	args := []string{"build", "-o", program}
	if tags := os.Getenv("HASHPLUS_TEST_TAGS"); tags != "" {
		args = append(args, "-tags", tags)
	}
	env := os.Environ()
	if instrumented() {
		args = append(args, "-race")
		env = append(env, "CGO_ENABLED=1") // which the detector needs
	}
	build := exec.Command("go", append(args, "hashplus/cmd/hashplus")...)
	build.Env = env
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// server is a broker in a process of its own.
type server struct {
	t       testing.TB
	tcp, ws string // host:port of its listeners
	process *exec.Cmd
	lines   []string   // what it printed on stdout before it was ready
	exited  chan error // closed after one value
	log     *syncBuffer
}

// command is "hashplus" with args, in an environment without settings of it.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "HASHPLUS_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd
}

// serve starts a broker on a TCP and a WebSocket listener that lives as long as
// the test. At its end it must go on a signal, in order.
func serve(t testing.TB, args ...string) *server {
	t.Helper()
	s := launch(t, append([]string{"--tcp=127.0.0.1:0", "--ws=127.0.0.1:0"}, args...)...)
	t.Cleanup(func() {
		began := time.Now()
		if err := s.stop(); err != nil {
			t.Errorf("broker: %v", err)
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("the broker took %v to end\n%s", took, s.log.tail(20))
		}
	})
	return s
}

// launch is serve with the listeners that args name, and without an end.
func launch(t testing.TB, args ...string) *server {
	t.Helper()
	s := &server{t: t, process: command(append([]string{"serve"}, args...)...), exited: make(chan error, 1), log: new(syncBuffer)}
	s.process.Stderr = s.log
	stdout, err := s.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.process.Process.Kill() // it has ended, if the test succeeded
		<-s.exited
		if t.Failed() {
			t.Logf("broker log:\n%s", s.log.tail(60))
		}
		if log := s.log.String(); strings.Contains(log, "panic") || strings.Contains(log, "WARNING: DATA RACE") {
			t.Errorf("a panic or a data race in the broker:\n%s", log)
		}
	})
	want := 0
	for _, a := range args {
		if strings.HasPrefix(a, "--tcp=") || strings.HasPrefix(a, "--ws=") || strings.HasPrefix(a, "--unix=") {
			want++
		}
	}
	if want == 0 {
		want = 2 // the listeners of "serve" without any
	}
	ready := make(chan struct{})
	go func() {
		in := bufio.NewScanner(stdout)
		for in.Scan() {
			if len(s.lines) < want {
				if s.lines = append(s.lines, in.Text()); len(s.lines) == want {
					close(ready)
				}
			}
		}
		s.exited <- s.process.Wait()
		close(s.exited)
	}()
	select {
	case <-ready:
	case err := <-s.exited:
		t.Fatalf("hashplus serve %s ended: %v\n%s", strings.Join(args, " "), err, s.log.tail(20))
	case <-time.After(patience):
		t.Fatalf("hashplus serve %s does not say that it listens\n%s", strings.Join(args, " "), s.log.tail(20))
	}
	for _, line := range s.lines {
		u, err := url.Parse(strings.TrimPrefix(line, "listening "))
		switch {
		case err != nil || !strings.HasPrefix(line, "listening "):
			t.Fatalf("unexpected line %q", line)
		case u.Scheme == "mqtt":
			s.tcp = u.Host
		case u.Scheme == "ws":
			s.ws = u.Host
		}
	}
	return s
}

// signal sends the process a signal.
func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// stop asks the broker to end and reports an exit status that is not 0.
func (s *server) stop() error {
	select {
	case err, first := <-s.exited:
		if first {
			return fmt.Errorf("it had ended before: %w", err)
		}
		return nil // somebody has waited for it
	default:
	}
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.wait()
}

// wait waits for the end of the process.
func (s *server) wait() error {
	select {
	case err := <-s.exited:
		return err
	case <-time.After(patience):
		return errors.Join(errors.New("it does not end"), s.process.Process.Kill())
	}
}

// status is a value of /proc/PID/status in KiB.
func (s *server) status(key string) int {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))
	if errors.Is(err, os.ErrNotExist) {
		s.t.Skip("there is no /proc here")
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	s.t.Fatalf("no %s in the status of the process: %v", key, err)
	return 0
}

// rss is the resident memory of the broker in MiB, peak the most it ever was.
func (s *server) rss() int  { s.t.Helper(); return s.status("VmRSS") >> 10 }
func (s *server) peak() int { s.t.Helper(); return s.status("VmHWM") >> 10 }

// memory fails the test if the broker ever had more than limit MiB.
func (s *server) memory(limit int) {
	s.t.Helper()
	peak := s.peak()
	s.t.Logf("peak RSS %d MiB", peak)
	if peak > limit && !instrumented() {
		s.t.Errorf("the broker's RSS reached %d MiB, more than %d", peak, limit)
	}
}

// fds is the number of open descriptors of the broker.
func (s *server) fds() int {
	s.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.process.Process.Pid))
	if err != nil {
		s.t.Skip("there is no /proc here")
	}
	return len(entries)
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

// syncBuffer is a bytes.Buffer for one writer and readers on other goroutines.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// tail is the last n lines.
func (s *syncBuffer) tail(n int) string {
	lines := strings.SplitAfter(s.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-n-1):], "")
}
