//go:build nightly && linux

package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A parked WebSocket session with one subscription costs less than 2 KiB of
// RSS all told, measured between 2,000 and 18,000 sessions of the built binary.
func TestIdleSession_CostsLessThan2KiB(t *testing.T) {
	idleSession(t, 2048, "--ws", "127.0.0.1:0")
}

// With TLS it is less than 9 KiB: two key schedules and a tls.Conn more, and half
// as much again that the garbage collector keeps free.
func TestIdleSession_WithTLSCostsLessThan9KiB(t *testing.T) {
	cert, key := certificate(t)
	idleSession(t, 9<<10, "--wss", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)
}

// idleSession measures sessions of a broker that serves with args.
func idleSession(t *testing.T, limit float64, args ...string) {
	bin := filepath.Join(t.TempDir(), "hashplus")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	broker := exec.Command(bin, append([]string{"serve", "--log-level", "warn"}, args...)...)
	broker.Stderr = os.Stderr
	stdout, err := broker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = broker.Process.Signal(os.Interrupt) // it may have ended on its own
		_ = broker.Wait()                       // its status is not what is tested
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url := strings.Fields(line)[1]
	out, err := exec.Command(bin, "bench", "idle", "--url", url, "--insecure", "--pid", strconv.Itoa(broker.Process.Pid),
		"--steps", "2000,18000", "--quiet", "--json", "-").Output()
	if err != nil {
		t.Fatal(err)
	}
	var result struct {
		PerSession float64 `json:"broker_rss_per_session"`
	}
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f bytes of RSS per session", result.PerSession)
	if result.PerSession <= 0 || result.PerSession >= limit {
		t.Errorf("%.0f bytes of RSS per session, want less than %.0f", result.PerSession, limit)
	}
}
