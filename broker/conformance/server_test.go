package conformance

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// flagSets are the brokers that tests ask for, by name, and their flags beside
// the listeners.
var flagSets = map[string][]string{
	"":          nil,
	"keepalive": {"--max-keepalive=2"},
	"window":    {"--receive-maximum=3", "--topic-alias-maximum=3"},
	"qos":       {"--max-qos=1", "--retain-available=false"},
	"qos0":      {"--max-qos=0"},
	"packet":    {"--max-packet-size=2000", "--max-user-properties=3"},
	"topics":    {"--max-subscriptions=3", "--max-topic-levels=5", "--max-topic-length=60"},
	"long":      {"--max-topic-length=65535"},
	"conns":     {"--max-connections=2"},
	"queue":     {"--max-queued-messages=5", "--max-inflight=2"},
	"noalias":   {"--topic-alias-maximum=0"},
	"acl":       {"--acl=testdata/acl.txt"},
	"scram":     {"--scram-file=testdata/scram.txt"},
}

// server is a broker under test.
type server struct{ tcp, ws string }

// fleet is the set of brokers that this run of the tests has started.
type fleet struct {
	dir string

	build    sync.Once
	binary   string
	buildErr error

	mu      sync.Mutex
	brokers map[string]*process
}

// process is one started broker.
type process struct {
	once sync.Once
	server
	err error
	cmd *exec.Cmd
	log lockedBuffer
}

// lockedBuffer keeps what a broker writes to its log.
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

var brokers = fleet{brokers: map[string]*process{}}

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run gives tests more parallelism than there are cores, as most of them wait,
// and ends every broker that was started.
func run(m *testing.M) int {
	flag.Parse()
	if err := flag.Set("test.parallel", "32"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer os.RemoveAll(dir)
	brokers.dir = dir
	code := m.Run()
	if !brokers.stop() {
		return 1
	}
	return code
}

// startBroker returns the broker with the flags of a set, and starts it if no
// test did so before.
func startBroker(t testing.TB, set string) *server {
	t.Helper()
	args, ok := flagSets[set]
	if !ok {
		t.Fatalf("no flag set %q", set)
	}
	if os.Getenv("HASHPLUS_TEST_TCP") != "" {
		suffix := ""
		if set != "" {
			suffix = "_" + strings.ToUpper(set)
		}
		s := &server{tcp: os.Getenv("HASHPLUS_TEST_TCP" + suffix), ws: os.Getenv("HASHPLUS_TEST_WS" + suffix)}
		if s.tcp == "" {
			t.Skipf("no broker given with the flags of %q", set)
		}
		return s
	}
	brokers.mu.Lock()
	p := brokers.brokers[set]
	if p == nil {
		p = &process{}
		brokers.brokers[set] = p
	}
	brokers.mu.Unlock()
	p.once.Do(func() { p.err = brokers.start(p, args) })
	if p.err != nil {
		t.Fatalf("broker %q: %v\n%s", set, p.err, p.log.String())
	}
	return &p.server
}

// start builds the binary if that is still to do, and runs it.
func (f *fleet) start(p *process, args []string) error {
	f.build.Do(func() {
		f.binary = filepath.Join(f.dir, "hashplus.exe")
		args := []string{"build", "-o", f.binary}
		if raced {
			args = append(args, "-race")
		}
		out, err := exec.Command("go", append(args, "hashplus/cmd/hashplus")...).CombinedOutput()
		if err != nil {
			f.buildErr = fmt.Errorf("build: %w\n%s", err, out)
		}
	})
	if f.buildErr != nil {
		return f.buildErr
	}
	p.cmd = exec.Command(f.binary, append([]string{"serve", "--tcp", "127.0.0.1:0", "--ws", "127.0.0.1:0"}, args...)...)
	p.cmd.Stderr = &p.log
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	found, over := make(chan server, 1), make(chan struct{})
	go func() {
		defer close(over)
		var s server
		for in := bufio.NewScanner(stdout); in.Scan(); {
			fmt.Fprintln(&p.log, in.Text())
			for _, word := range strings.Fields(in.Text()) {
				u, err := url.Parse(word)
				switch {
				case err != nil || u.Host == "":
				case u.Scheme == "ws":
					s.ws = u.Host
				case u.Scheme == "mqtt" || u.Scheme == "tcp":
					s.tcp = u.Host
				}
			}
			if s.ws != "" && s.tcp != "" {
				select {
				case found <- s:
				default:
				}
			}
		}
	}()
	select {
	case p.server = <-found:
		return nil
	case <-over:
		return fmt.Errorf("it ends at once: %v", p.cmd.Args)
	case <-time.After(patience):
		return fmt.Errorf("no listener lines after %v: %v", patience, p.cmd.Args)
	}
}

// stop ends the brokers of this run, and reports whether none of them has told
// of a data race or a panic.
func (f *fleet) stop() (fine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fine = true
	for set, p := range f.brokers {
		if p.cmd == nil || p.cmd.Process == nil {
			continue
		}
		// An error means that it has ended already, which is what we want.
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		if log := p.log.String(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic") {
			fmt.Fprintf(os.Stderr, "broker %q:\n%s", set, log)
			fine = false
		}
	}
	return fine
}
