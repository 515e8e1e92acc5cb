package limits

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"hashplus/broker/wire"
)

// unitCalls are the system calls that the SystemCallFilter lines of the unit in
// deploy/ allow.
func unitCalls(t *testing.T, analyze string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../../../deploy/hashplus.service")
	if err != nil {
		t.Fatal(err)
	}
	var expand func(name string) []string
	expand = func(name string) (calls []string) {
		if !strings.HasPrefix(name, "@") {
			return []string{name}
		}
		out, err := exec.Command(analyze, "syscall-filter", name).Output()
		if err != nil {
			t.Fatalf("syscall-filter %s: %v", name, err)
		}
		for _, line := range strings.Split(string(out), "\n")[1:] {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				calls = append(calls, expand(line)...)
			}
		}
		return calls
	}
	allowed := map[string]bool{}
	for _, line := range strings.Split(string(text), "\n") {
		sets, ok := strings.CutPrefix(line, "SystemCallFilter=")
		if !ok {
			continue
		}
		sets, refused := strings.CutPrefix(sets, "~")
		for _, set := range strings.Fields(sets) {
			for _, call := range expand(set) {
				if refused {
					delete(allowed, call)
				} else {
					allowed[call] = true
				}
			}
		}
	}
	return allowed
}

// From its start to its end, with clients on every kind of listener, a store and
// a reload, the broker makes no system call that its unit refuses.
func TestCalls_AreThoseOfTheUnit(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("there is no strace here; .ci/deps installs it")
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze here; .ci/deps installs it")
	}
	allowed := unitCalls(t, analyze)
	if !allowed["epoll_ctl"] || allowed["mount"] {
		t.Fatalf("the unit's filter was not understood: %d calls", len(allowed))
	}
	if out, err := exec.Command(strace, "-f", "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %s", out)
	}
	dir := t.TempDir()
	trace, traced := filepath.Join(dir, "trace"), filepath.Join(dir, "traced")
	// With -D it is the broker that has the process's number.
	script := fmt.Sprintf("#!/bin/sh\nexec %s -D -f -o %s %s \"$@\"\n", strace, trace, program)
	if err := os.WriteFile(traced, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	plain := program
	program = traced
	defer func() { program = plain }()
	s := boot(t, "--tcp=127.0.0.1:0", "--ws=127.0.0.1:0", "--unix="+filepath.Join(dir, "socket"), "--data="+filepath.Join(dir, "data"), "--drain=100ms")

	for i := range 40 { // enough for their writes to go together
		reader := s.dialWS(wire.V5)
		reader.join(named(fmt.Sprint("reader", i)))
		reader.subscribe(0, "a/#")
	}
	keeper := s.dial(wire.V5)
	keeper.join(lasting("keeper"))
	keeper.subscribe(1, "#")
	writer := s.dial(wire.V5)
	writer.join(named("writer"))
	for i := range 10 {
		writer.post(1, fmt.Sprint("a/", i), make([]byte, 20_000))
		keeper.take()
	}
	s.signal(syscall.SIGHUP)
	until(t, "the reload", func() bool { return strings.Contains(s.Log.String(), "reload") })
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}

	ended := regexp.MustCompile(fmt.Sprintf(`(?m)^%d\s+\+\+\+ exited`, s.PID))
	var text []byte
	until(t, "the end of the trace", func() bool {
		text, _ = os.ReadFile(trace) // what counts is its content
		return ended.Match(text)
	})
	made := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\d+\s+([a-z_0-9]+)\(`).FindAllSubmatch(text, -1) {
		made[string(m[1])] = true
	}
	for _, call := range slices.Sorted(maps.Keys(made)) {
		if !allowed[call] {
			t.Errorf("%s is refused by the unit", call)
		}
	}
	for _, call := range []string{"epoll_pwait", "accept4", "fdatasync"} {
		if !made[call] {
			t.Errorf("no %s among %d calls: this proves less than it says", call, len(made))
		}
	}
}
