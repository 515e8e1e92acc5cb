// Package launch builds hashplus and runs it in a process of its own, for tests
// that know the broker only from outside.
//
// Environment: HASHPLUS_TEST_TAGS are build tags for the binary, as "nopoll";
// HASHPLUS_TEST_RACE=1 builds it with the race detector. HASHPLUS_TEST_PROGRAM
// names a program to take instead: one that takes hashplus's arguments and runs
// another broker shows that tests fail where they should.
package launch

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Patience bounds every wait for something that ought to happen at once. It is
// long because the machine of a CI run is small and busy: only what hangs reaches
// it.
const Patience = time.Minute

// Raced reports whether the binary has the race detector, which multiplies its
// time and memory.
func Raced() bool { return os.Getenv("HASHPLUS_TEST_RACE") == "1" }

// Build builds hashplus into the folder dir and returns the program's path.
func Build(dir string) (string, error) {
	if program := os.Getenv("HASHPLUS_TEST_PROGRAM"); program != "" {
		return program, nil
	}
	program := filepath.Join(dir, "hashplus")
	args := []string{"build", "-o", program}
	if tags := os.Getenv("HASHPLUS_TEST_TAGS"); tags != "" {
		args = append(args, "-tags", tags)
	}
	env := os.Environ()
	if Raced() {
		args = append(args, "-race")
		env = append(env, "CGO_ENABLED=1") // which the detector needs
	}
	build := exec.Command("go", append(args, "hashplus/cmd/hashplus")...)
	build.Env = env
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return program, nil
}

// Main builds hashplus once and has run carry the tests of a package out, which
// its TestMain ends with. It returns the exit code.
func Main(run func(program string) (code int)) (code int) {
	dir, err := os.MkdirTemp("", "hashplus-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	program, err := Build(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run(program)
}

// Command is program with args, in an environment without settings of hashplus.
func Command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "HASHPLUS_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd
}

// Server is a running broker. Its methods may be called from any goroutine.
type Server struct {
	// Immutable after Start.
	URLs []string      // of its listeners, in the order in which it printed them
	PID  int           // of the process
	Log  *Log          // what it writes to standard error
	Took time.Duration // from the start of the process until it listened

	cmd     *exec.Cmd
	waited  atomic.Bool   // somebody knows that it has ended, or had it end
	ended   chan struct{} // closed at the end of the process
	outcome error         // how it ended; may be read once ended is closed
}

// Start runs "hashplus serve" with args and waits until each listener that they
// name, as "--tcp=ADDRESS" or "--tcp", "ADDRESS", listens; without any these are
// the two of the default. Call Stop or Kill after it, or Guard.
func Start(program string, args ...string) (*Server, error) {
	listeners := 0
	for _, a := range args {
		switch flag, _, _ := strings.Cut(a, "="); flag {
		case "--tcp", "--ws", "--tls", "--wss", "--unix":
			listeners++
		}
	}
	if listeners == 0 {
		listeners = 2
	}
	return StartListeners(program, listeners, Patience, args...)
}

// StartListeners is Start where the number of listeners is not to be seen in args,
// or the start may take so long.
func StartListeners(program string, listeners int, within time.Duration, args ...string) (*Server, error) {
	s := &Server{cmd: Command(program, append([]string{"serve"}, args...)...), Log: new(Log), ended: make(chan struct{})}
	s.cmd.Stderr = s.Log
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.PID = s.cmd.Process.Pid
	ready := make(chan []string, 1)
	go func() {
		var urls []string
		for in := bufio.NewScanner(stdout); in.Scan(); {
			if u, ok := strings.CutPrefix(in.Text(), "listening "); ok && len(urls) < listeners {
				if urls = append(urls, u); len(urls) == listeners {
					ready <- urls
				}
			}
		}
		s.outcome = s.cmd.Wait()
		close(s.ended)
	}()
	select {
	case s.URLs = <-ready:
		s.Took = time.Since(began)
		return s, nil
	case <-s.ended:
		return nil, fmt.Errorf("hashplus serve %s ended: %w\n%s", strings.Join(args, " "), s.outcome, s.Log.Tail(20))
	case <-time.After(within):
		s.Kill()
		return nil, fmt.Errorf("hashplus serve %s does not say that it listens\n%s", strings.Join(args, " "), s.Log.Tail(20))
	}
}

// Guard has the end of t's test kill the broker, if it is there still, and fail the
// test if it has told of a panic or of a data race. It shows the log of a test that
// failed.
func (s *Server) Guard(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		s.Kill()
		if log := s.Faults(); log != "" {
			t.Errorf("a panic or a data race in the broker:\n%s", log)
		} else if t.Failed() {
			t.Logf("log of the broker:\n%s", s.Log.Tail(100))
		}
	})
}

// URL is that of the first listener with a scheme: mqtt, mqtts, ws, wss or unix. It
// is empty if there is none.
func (s *Server) URL(scheme string) string {
	for _, text := range s.URLs {
		if strings.HasPrefix(text, scheme+"://") {
			return text
		}
	}
	return ""
}

// Address is host:port of URL.
func (s *Server) Address(scheme string) string {
	u, err := url.Parse(s.URL(scheme))
	if err != nil {
		return ""
	}
	return u.Host
}

// Faults returns the log if it tells of a panic or of a data race, else "".
func (s *Server) Faults() string {
	log := s.Log.String()
	for _, sign := range []string{"panic", "goroutine ", "WARNING: DATA RACE"} {
		if strings.Contains(log, sign) {
			return log
		}
	}
	return ""
}

// Signal sends the process a signal.
func (s *Server) Signal(sig os.Signal) error { return s.cmd.Process.Signal(sig) }

// Running reports whether the process has not ended.
func (s *Server) Running() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Stop asks the broker to end, as an init system does. It reports an exit status
// that is not 0, or that it had ended before and nobody had waited for that.
func (s *Server) Stop() error {
	if !s.Running() {
		if s.waited.Load() {
			return nil
		}
		return fmt.Errorf("it had ended before: %w", s.outcome)
	}
	if err := s.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.Wait()
}

// Wait waits for the end of the process and returns how it ended. One that does
// not end is killed.
func (s *Server) Wait() error {
	s.waited.Store(true)
	select {
	case <-s.ended:
		return s.outcome
	case <-time.After(Patience):
		s.Kill()
		return errors.New("it does not end")
	}
}

// Kill ends the process, if it runs, and waits for its end.
func (s *Server) Kill() {
	s.waited.Store(true)
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.ended
}

// ExitCode is that of a process that has ended.
func (s *Server) ExitCode() int { return s.cmd.ProcessState.ExitCode() }

// Status is a value of /proc/PID/status: KiB for sizes, as "VmRSS" and "VmHWM". ok
// is false where there is no such value, or no /proc.
func (s *Server) Status(key string) (value int, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, key+":"); found {
			value, err = strconv.Atoi(strings.Fields(rest)[0])
			return value, err == nil
		}
	}
	return 0, false
}

// Descriptors is how many the process has open. ok is false where there is no
// /proc.
func (s *Server) Descriptors() (n int, ok bool) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID))
	return len(entries), err == nil
}

// FreeAddresses returns addresses of 127.0.0.1 that nobody listens on, for what
// cannot be told to take any port. Their ports are none that the system gives to
// those who ask for any, so they stay free.
func FreeAddresses(n int) (addresses []string, err error) {
	for tries := 0; len(addresses) < n; tries++ {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.IntN(20_000)))
		switch {
		case err == nil:
			defer l.Close() //nolint:errcheck // not before there are n; nothing was sent
			addresses = append(addresses, l.Addr().String())
		case tries > 1000:
			return nil, err
		}
	}
	return addresses, nil
}
