package crash

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hashplus/cmd/hashplus/launch"
)

// program is the path of the built hashplus.
var program string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	flag.Parse()
	// Nearly all of a test here is waiting, so more of them than cores may run.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	return launch.Main(func(built string) int {
		program = built
		return m.Run()
	})
}

// roomy are the flags that keep the one exception to the promise, a full queue,
// out of a run.
var roomy = []string{"--max-queued-messages=1000000", "--max-queued-bytes=1GiB", "--sys-interval=0s"}

// process is the built binary.
type process struct {
	args   []string
	signal syscall.Signal // that a crash is; 0: connections are cut and nothing else
	b      *launch.Server
}

// durable is the binary with a data directory, and what the signal does to it.
func durable(t testing.TB, signal syscall.Signal, args ...string) *process {
	t.Helper()
	return &process{args: append(append([]string{"--data=" + t.TempDir()}, roomy...), args...), signal: signal}
}

func (p *process) start() (string, error) {
	if p.b != nil && p.signal == 0 {
		return p.b.Address("mqtt"), nil // it never ended
	}
	b, err := launch.Start(program, append([]string{"--tcp=127.0.0.1:0"}, p.args...)...)
	if err != nil {
		return "", err
	}
	p.b = b
	return b.Address("mqtt"), nil
}

func (p *process) crash(cut func()) error {
	if p.signal == 0 {
		cut()
		return nil
	}
	if err := p.b.Signal(p.signal); err != nil {
		return err
	}
	err := p.b.Wait()
	if p.signal != syscall.SIGTERM {
		err = nil // it says that it was killed
	}
	return p.checked(err)
}

func (p *process) stop() error {
	if p.b == nil {
		return nil
	}
	return p.checked(p.b.Stop())
}

func (p *process) checked(err error) error {
	if log := p.b.Faults(); log != "" {
		return errors.Join(err, fmt.Errorf("a panic or a data race:\n%s", log))
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, p.b.Log.Tail(30))
	}
	return nil
}

// mosquitto is the one in the path, with persistence after each change.
type mosquitto struct {
	dir    string
	port   string
	signal syscall.Signal
	cmd    *exec.Cmd
}

func newMosquitto(t testing.TB, signal syscall.Signal) *mosquitto {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	m := &mosquitto{dir: t.TempDir(), port: port, signal: signal}
	conf := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\n"+
		"autosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\nmax_inflight_messages 0\nlog_type error\nuser root\n", port, m.dir)
	if err := os.WriteFile(filepath.Join(m.dir, "conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *mosquitto) start() (string, error) {
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // where Debian has it, out of an ordinary user's path
	}
	m.cmd = exec.Command(path, "-c", filepath.Join(m.dir, "conf"))
	var log strings.Builder
	m.cmd.Stderr = &log
	if err := m.cmd.Start(); err != nil {
		return "", err
	}
	address := "127.0.0.1:" + m.port
	for end := time.Now().Add(launch.Patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return address, c.Close()
		}
		if time.Now().After(end) {
			return "", errors.Join(err, m.stop(), errors.New(log.String()))
		}
	}
}

func (m *mosquitto) crash(func()) error {
	if err := m.cmd.Process.Signal(m.signal); err != nil {
		return err
	}
	_ = m.cmd.Wait() // its status is the signal's
	return nil
}

func (m *mosquitto) stop() error {
	_ = m.cmd.Process.Kill() // it may have ended
	_ = m.cmd.Wait()
	return nil
}
