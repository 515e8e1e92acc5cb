//go:build nightly

package clients

import (
	"bufio"
	"encoding/json"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hashplus/cmd/hashplus/launch"
)

// suites are the files of the Eclipse interoperability suite and how many tests
// each holds, so that a run that ends early does not pass.
var suites = []struct {
	name, file string
	tests      int
}{
	{"3.1.1", "client_test.py", 10},
	{"5.0", "client_test5.py", 27},
}

// suiteLimit bounds one file; the longer one takes about two minutes.
const suiteLimit = 6 * time.Minute

// suiteACL is what the suite asks of the broker beyond its defaults.
const suiteACL = "topic readwrite #\ntopic deny test/nosubscribe\n"

// TestNightly_EclipseInteroperability runs the suite that HASHPLUS_PAHO_TESTING
// names, unchanged, over TCP and through the bridge over WebSocket.
func TestNightly_EclipseInteroperability(t *testing.T) {
	t.Parallel()
	checkout := os.Getenv("HASHPLUS_PAHO_TESTING")
	if checkout == "" {
		t.Fatal("HASHPLUS_PAHO_TESTING names no checkout of eclipse/paho.mqtt.testing")
	}
	checkout, err := filepath.Abs(checkout)
	if err != nil {
		t.Fatal(err)
	}
	for _, transport := range []string{"TCP", "WebSocket"} {
		for _, suite := range suites {
			t.Run(transport+"/"+suite.name, func(t *testing.T) {
				if !foreign() {
					t.Parallel()
				}
				b := suiteBroker(t) // its own: the suite counts retained messages and has fixed client ids
				server := b.tcp
				if transport == "WebSocket" {
					server = startBridge(t, b.ws)
				}
				u, err := url.Parse(server)
				if err != nil {
					t.Fatal(err)
				}
				runSuite(t, filepath.Join(checkout, "interoperability", suite.file), u.Port(), suite.tests)
			})
		}
	}
}

func suiteBroker(t *testing.T) *broker {
	t.Helper()
	if foreign() {
		return shared
	}
	acl := filepath.Join(t.TempDir(), "acl")
	if err := os.WriteFile(acl, []byte(suiteACL), 0o600); err != nil {
		t.Fatal(err)
	}
	return startFor(t, "--tcp", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--acl", acl, "--max-keepalive", "60")
}

// startBridge runs the program in bridge/ before the WebSocket URL and returns
// the URL that it listens on.
func startBridge(t *testing.T, to string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "bridge")
	if out, err := exec.Command("go", "build", "-o", program, "./bridge").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	bridge := exec.Command(program, "-to", to)
	log := new(launch.Log)
	bridge.Stderr = log
	out, err := bridge.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bridge.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		bridge.Process.Kill()
		bridge.Wait() // killed
		if log := log.String(); log != "" {
			t.Logf("bridge log:\n%s", log)
		}
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the bridge printed no address: %v\n%s", err, log)
	}
	if _, _, err := net.SplitHostPort(strings.TrimSpace(address)); err != nil {
		t.Fatal(err)
	}
	return "mqtt://" + strings.TrimSpace(address)
}

// runSuite runs one file and reports each of its tests as a subtest.
func runSuite(t *testing.T, file, port string, tests int) {
	t.Helper()
	run := exec.Command(debianPython(t), "drivers/eclipse.py", file, port)
	log := new(launch.Log)
	run.Stderr = log
	out, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(suiteLimit, func() { run.Process.Kill() })
	defer limit.Stop()
	running, passed := "", 0
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		text, isResult := strings.CutPrefix(lines.Text(), "RESULT ")
		if !isResult {
			continue
		}
		var result struct {
			Test, Outcome, Why string
			Seconds            float64
		}
		if err := json.Unmarshal([]byte(text), &result); err != nil {
			t.Fatal(err)
		}
		if result.Outcome == "start" {
			running = result.Test
			continue
		}
		running = ""
		t.Run(result.Test, func(t *testing.T) {
			if result.Outcome != "ok" {
				t.Fatalf("%s after %.1f s: %s", result.Outcome, result.Seconds, result.Why)
			}
			passed++
		})
	}
	err = run.Wait()
	if running != "" {
		t.Errorf("%s had not ended after %v", running, suiteLimit)
	}
	if err != nil || passed != tests {
		t.Errorf("%d of %d tests passed (%v)\n%s", passed, tests, err, log.Tail(60))
	}
	t.Logf("%d of %d tests passed", passed, tests)
}
