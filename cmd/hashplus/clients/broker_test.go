package clients

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hashplus/cmd/hashplus/launch"
)

const patience = launch.Patience

// broker is a broker under test.
type broker struct {
	*launch.Server        // nil for a foreign broker
	tcp, ws, unix  string // URLs; empty where there is no such listener
	tls, wss       string
}

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
	if foreign() {
		os.Exit(run(m))
	}
	os.Exit(launch.Main(func(program string) int {
		binary = program
		return run(m)
	}))
}

func run(m *testing.M) int {
	if foreign() {
		shared = &broker{tcp: os.Getenv("HASHPLUS_TEST_TCP"), ws: os.Getenv("HASHPLUS_TEST_WS"), unix: os.Getenv("HASHPLUS_TEST_UNIX")}
	} else {
		socket := filepath.Join(filepath.Dir(binary), "mqtt.sock")
		var err error
		if shared, err = start("--tcp", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--unix", socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		shared.unix = socket
	}
	code := m.Run()
	stopDrivers()
	if shared.Server == nil {
		return code
	}
	if err := shared.Stop(); err != nil || shared.Faults() != "" {
		fmt.Fprintln(os.Stderr, "the shared broker:", err)
		code = 1
	}
	if code != 0 {
		fmt.Fprintf(os.Stderr, "--- broker log\n%s", shared.Log.Tail(200))
	}
	return code
}

// binary is the path of the built hashplus.
var binary string

// start starts a broker.
func start(args ...string) (*broker, error) {
	s, err := launch.Start(binary, args...)
	if err != nil {
		return nil, err
	}
	return &broker{Server: s, tcp: s.URL("mqtt"), ws: s.URL("ws"), tls: s.URL("mqtts"), wss: s.URL("wss")}, nil
}

// startFor starts a broker that lives as long as the test, and ends in order.
func startFor(t *testing.T, args ...string) *broker {
	t.Helper()
	needHashplus(t)
	b, err := start(args...)
	if err != nil {
		t.Fatal(err)
	}
	b.Guard(t)
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Errorf("broker: %v", err)
		}
	})
	return b
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
