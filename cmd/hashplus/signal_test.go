//go:build unix

package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// serveProcess runs serve in a process of its own and returns it with the URL
// of its listener.
func serveProcess(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"serve", "--ws=127.0.0.1:0"}, args...)...)
	cmd.Env = append(os.Environ(), asMain+"=1")
	cmd.Stderr = new(lockedBuffer)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended, if the test succeeded
		if t.Failed() {
			t.Logf("its log: %s", cmd.Stderr)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(strings.TrimPrefix(line, "listening "))
}

func TestServe_TERMandINTDrainAndExitWithZero(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd, _ := serveProcess(t, "--log-level=error")
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", s, err)
		}
	}
}

func TestServe_SecondSignalExitsAtOnce(t *testing.T) {
	cmd, url := serveProcess(t, "--drain=10m")
	// This client never answers the close handshake, so draining takes its time.
	c, _, err := (&websocket.Dialer{Subprotocols: []string{"mqtt"}}).Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the test is over
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// Two signals that come together are one.
	eventually(t, "the first signal", func() bool { return strings.Contains(cmd.Stderr.(*lockedBuffer).String(), "msg=draining") })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("it ended before the second signal: %v", err)
	}
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit %d (%v)", code, err)
	}
}

func TestServe_HUPReloads(t *testing.T) {
	cmd, _ := serveProcess(t, "--log-level=error", "--acl="+writeFile(t, "acl", ""))
	for range 3 {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it did not live through SIGHUP: %v", err)
	}
}
