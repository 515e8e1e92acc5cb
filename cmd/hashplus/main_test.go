package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asMain in the environment makes the test binary be the command.
const asMain = "HASHPLUS_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// lockedBuffer is a buffer that a command writes while the test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// process is a command that runs in the background.
type process struct {
	t           *testing.T
	out, errout lockedBuffer
	signal      context.CancelFunc // what the first SIGTERM does
	hangup      chan os.Signal     // what SIGHUP does
	exited      chan struct{}
	code        int
}

// start runs a command until it ends or the test does.
func start(t *testing.T, stdin io.Reader, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{t: t, signal: cancel, hangup: make(chan os.Signal), exited: make(chan struct{})}
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	go func() {
		defer close(p.exited)
		p.code = run(&environment{ctx: ctx, stdin: stdin, stdout: &p.out, stderr: &p.errout, hangup: p.hangup}, args)
	}()
	t.Cleanup(func() {
		cancel()
		p.wait()
	})
	return p
}

// wait returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.code
	case <-time.After(time.Minute):
		p.t.Fatalf("the command did not end; stdout %q, stderr %q", p.out.String(), p.errout.String())
		return -1
	}
}

// command runs a command to its end.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	p := start(t, nil, args...)
	code = p.wait()
	return code, p.out.String(), p.errout.String()
}

// eventually waits for what another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// reload does what SIGHUP does, and returns what was logged about it.
func (s *server) reload() (log string) {
	s.t.Helper()
	before := len(s.errout.String())
	s.hangup <- syscall.SIGHUP
	eventually(s.t, "the reload", func() bool {
		log = s.errout.String()[before:]
		return strings.Contains(log, "reloaded")
	})
	return log
}

// lineCount is the number of lines a process has printed.
func (p *process) lineCount() int { return strings.Count(p.out.String(), "\n") }

// server is a running serve.
type server struct {
	*process
	urls []string
}

// serve runs the broker with args, which name its listeners, and returns once
// it listens.
func serve(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{process: start(t, nil, append([]string{"serve", "--loops=2", "--sys-interval=0"}, args...)...)}
	eventually(t, "the listeners", func() bool {
		select {
		case <-s.exited:
			t.Fatalf("serve ended with %d: %s", s.code, s.errout.String())
		default:
		}
		return strings.Contains(s.out.String(), "listening ")
	})
	sc := bufio.NewScanner(strings.NewReader(s.out.String()))
	for sc.Scan() {
		s.urls = append(s.urls, strings.TrimPrefix(sc.Text(), "listening "))
	}
	return s
}

// probe waits until a client of the broker is there to receive: it
// publishes until something arrives, as commands say nothing when they are ready.
func probe(t *testing.T, url, topic string, arrived func() bool) {
	t.Helper()
	eventually(t, "a subscriber of "+topic, func() bool {
		if code, _, stderr := command(t, "pub", "-u", url, "-t", topic, "-m", "probe"); code != 0 {
			t.Fatalf("pub: %s", stderr)
		}
		time.Sleep(10 * time.Millisecond)
		return arrived()
	})
}
