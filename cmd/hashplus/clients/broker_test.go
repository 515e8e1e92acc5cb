package clients

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that ought to happen at once. It is
// long because the machine of a CI run is small and busy.
const patience = 20 * time.Second

// broker is a broker under test.
type broker struct {
	tcp, ws, unix string // URLs; empty where there is no such listener
	process       *exec.Cmd
	exited        chan error // one value, then closed; nil for a foreign broker
	log           *syncBuffer
}

var urlInLine = regexp.MustCompile(`\b(mqtt|ws)://\S*[^\s"',;.]`)

// foreign reports whether the tests run against a broker that they did not
// build, which may not do what only hashplus does.
func foreign() bool { return os.Getenv("HASHPLUS_TEST_TCP") != "" }

// needHashplus skips a test of what is hashplus's own when another broker is
// under test.
func needHashplus(t *testing.T) {
	t.Helper()
	if foreign() {
		t.Skip("the broker under test is not ours")
	}
}

// shared is the broker that most tests use, started before the first of them.
var shared *broker

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv("HASHPLUS_SKIP_CLIENTS") == "1" {
		fmt.Println("clients: skipped, HASHPLUS_SKIP_CLIENTS=1")
		os.Exit(0)
	}
	// Nearly all of a test here is waiting, so more of them than cores may run.
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "hashplus-clients-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if foreign() {
		shared = &broker{tcp: os.Getenv("HASHPLUS_TEST_TCP"), ws: os.Getenv("HASHPLUS_TEST_WS"), unix: os.Getenv("HASHPLUS_TEST_UNIX")}
	} else {
		binary = filepath.Join(dir, "hashplus")
		if err := build(binary); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		socket := filepath.Join(dir, "mqtt.sock")
		shared, err = start("--tcp", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--unix", socket)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		shared.unix = socket
	}
	code := m.Run()
	stopDrivers()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "the shared broker:", err)
		code = 1
	}
	if code != 0 && shared.log != nil {
		fmt.Fprintf(os.Stderr, "--- broker log\n%s", shared.log.tail(200))
	}
	return code
}

// binary is the path of the built hashplus.
var binary string

func build(path string) error {
	args := []string{"build", "-o", path}
	if tags := os.Getenv("HASHPLUS_TEST_TAGS"); tags != "" {
		args = append(args, "-tags", tags)
	}
	env := os.Environ()
	if os.Getenv("HASHPLUS_TEST_RACE") == "1" {
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

// start runs "hashplus serve" with args and returns when it has printed the URL
// of each TCP and WebSocket listener that args name.
func start(args ...string) (*broker, error) {
	b := &broker{process: exec.Command(binary, append([]string{"serve"}, args...)...), exited: make(chan error, 1), log: new(syncBuffer)}
	want := 0
	for _, arg := range args {
		if arg == "--tcp" || arg == "--ws" {
			want++
		}
	}
	b.process.Stderr = b.log
	stdout, err := b.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.process.Start(); err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			line := lines.Text()
			fmt.Fprintln(b.log, line)
			for _, url := range urlInLine.FindAllString(line, -1) {
				if strings.HasPrefix(url, "ws:") {
					b.ws = url
				} else {
					b.tcp = url
				}
				if want--; want == 0 {
					close(ready)
				}
			}
		}
		b.exited <- b.process.Wait()
		close(b.exited)
	}()
	select {
	case <-ready:
		return b, nil
	case err := <-b.exited:
		return nil, fmt.Errorf("hashplus serve %s ended: %v\n%s", strings.Join(args, " "), err, b.log.tail(50))
	case <-time.After(patience):
		return nil, errors.Join(fmt.Errorf("hashplus serve %s printed no URL for %d of its listeners\n%s", strings.Join(args, " "), want, b.log.tail(50)), b.kill())
	}
}

// startFor starts a broker that lives as long as the test.
func startFor(t *testing.T, args ...string) *broker {
	t.Helper()
	needHashplus(t)
	b, err := start(args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Errorf("broker: %v", err)
		}
		if t.Failed() {
			t.Logf("broker log:\n%s", b.log.tail(100))
		}
	})
	return b
}

// stop asks the broker to end, as an init system does, and reports an exit
// status that is not 0, or a data race that its detector wrote to the log.
func (b *broker) stop() error {
	if b.process == nil {
		return nil
	}
	select {
	case <-b.exited: // ended before, by the test or by a crash
	default:
		if err := b.process.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
	}
	if err := b.wait(); err != nil {
		return err
	}
	if strings.Contains(b.log.String(), "WARNING: DATA RACE") {
		return errors.New("the race detector found a data race, see the log")
	}
	return nil
}

func (b *broker) wait() error {
	select {
	case err := <-b.exited:
		return err
	case <-time.After(patience):
		return errors.Join(errors.New("did not end"), b.kill())
	}
}

func (b *broker) kill() error { return b.process.Process.Kill() }

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

// command runs a program to its end and returns what it wrote. It fails the
// test when the program is missing or runs for longer than the limit.
func command(t *testing.T, limit time.Duration, name string, args ...string) (stdout string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit) // it also runs in clean-ups
	defer cancel()
	cmd := exec.CommandContext(ctx, tool(t, name), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s %s: still running after %v\n%s", name, strings.Join(args, " "), limit, errs.String())
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.String(), err
}

// tool finds a program, or fails the test: a client that is not installed is
// not a reason to pass.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v (.ci/deps installs it)", err)
	}
	return path
}
