package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hashplus/broker"
	format "hashplus/broker/record"
	"hashplus/broker/store"
)

// filled is a directory of a broker, which still runs, with a session that waits
// for messages and a retained message.
func filled(t *testing.T) (s *server, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	s = serve(t, "--tcp=127.0.0.1:0", "--data="+dir)
	sub := start(t, nil, "sub", "-u", s.urls[0], "-i", "absent", "-q", "1", "-t", "q/#", "--session-expiry=1h", "--count=1")
	probe(t, s.urls[0], "q/probe", func() bool { // at QoS 0, which no session keeps
		select {
		case <-sub.exited:
			return true
		default:
			return false
		}
	})
	for _, args := range [][]string{{"-t", "q/1", "-m", "first"}, {"-t", "q/2", "-m", "second"}, {"-t", "r", "-m", "kept", "-r"}} {
		if code, _, stderr := command(t, append([]string{"pub", "-u", s.urls[0], "-q", "1"}, args...)...); code != 0 {
			t.Fatal(stderr)
		}
	}
	return s, dir
}

// storeRun runs hashplus store, which must end with code.
func storeRun(t *testing.T, code int, args ...string) (out string) {
	t.Helper()
	got, stdout, stderr := command(t, append([]string{"store"}, args...)...)
	if got != code {
		t.Fatalf("%q: exit %d, want %d: %s%s", args, got, code, stdout, stderr)
	}
	return stdout + stderr
}

func TestStore_BackupWhileTheBrokerServes(t *testing.T) {
	s, dir := filled(t)
	copied := filepath.Join(t.TempDir(), "copy")
	storeRun(t, exitOK, "backup", "--data="+dir, copied)
	if info, err := os.Stat(copied); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(filepath.Join(copied, "LOCK")); err == nil {
		t.Error("a file has been made in the copy that may belong to another user than the rest")
	}
	if out := storeRun(t, exitUsage, "backup", "--data="+dir, copied); !strings.Contains(out, "exists") {
		t.Error(out)
	}
	if out := storeRun(t, exitFailure, "backup", "--data="+dir, "/proc/no/such"); !strings.Contains(out, "/proc/no") {
		t.Error(out)
	}
	// That a copy fails is not the store's fault.
	if code, _, stderr := command(t, "pub", "-u", s.urls[0], "-q", "1", "-t", "q/3", "-m", "third"); code != 0 {
		t.Fatal(stderr)
	}
	if out := storeRun(t, exitOK, "check", "--data="+copied); !strings.Contains(out, "no damage") {
		t.Error(out)
	}
	out := storeRun(t, exitOK, "export", "--data="+copied)
	for _, want := range []string{
		`{"type":"session","client":"absent","expiry":3600,`, `{"type":"subscription","client":"absent","filter":"q/#","qos":1}`,
		`{"type":"queued","client":"absent","qos":1,"topic":"q/1","payload":"first"}`, `"payload":"second"`,
		`{"type":"retained","qos":1,"retain":true,"topic":"r","payload":"kept"}`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is not in %s", want, out)
		}
	}
	if strings.Contains(out, "third") {
		t.Error("the copy has what came later")
	}
	// A broker goes on from the copy.
	c := serve(t, "--tcp=127.0.0.1:0", "--data="+copied)
	p := start(t, nil, "sub", "-u", c.urls[0], "-i", "absent", "-q", "1", "-t", "q/#", "--session-expiry=1h", "--no-clean-start", "-C", "2")
	if code := p.wait(); code != 0 || !strings.Contains(p.out.String(), "first") || !strings.Contains(p.out.String(), "second") {
		t.Errorf("exit %d: %q %s", code, p.out.String(), p.errout.String())
	}
}

func TestStore_StatsOfARunningBrokerAndWithout(t *testing.T) {
	s, dir := filled(t)
	if info, err := os.Stat(filepath.Join(dir, "control.sock")); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for range 2 {
		var stats storeStats
		if err := json.Unmarshal([]byte(storeRun(t, exitOK, "stats", "--json", "--data="+dir)), &stats); err != nil {
			t.Fatal(err)
		}
		of := map[string]int{}
		for _, c := range stats.Counts {
			of[c.Name] = c.Records
		}
		if stats.Disk.Log == 0 || stats.Disk.Spare > 0 {
			t.Errorf("%d bytes of logs, %d to be used again", stats.Disk.Log, stats.Disk.Spare)
		}
		if of["deliveries"] != 2 || of["sessions"] != 1 || of["retained messages"] != 1 || stats.Disk.Free == 0 {
			t.Errorf("%+v", stats)
		}
		if out := storeRun(t, exitOK, "stats", "--data="+dir); !strings.Contains(out, " deliveries\n") {
			t.Error(out)
		}
		s.signal()
		s.wait()
	}
	if _, err := os.Stat(filepath.Join(dir, "control.sock")); err == nil {
		t.Error("the socket is still there")
	}
	copied := filepath.Join(t.TempDir(), "copy")
	storeRun(t, exitOK, "backup", "--data="+dir, copied)
	storeRun(t, exitOK, "check", "--data="+copied)
}

func TestStore_CommandsThatNeedTheDirectoryForThemselvesSaySo(t *testing.T) {
	_, dir := filled(t)
	for _, args := range [][]string{{"check", "--data=" + dir}, {"export", "--data=" + dir}, {"salvage", dir, filepath.Join(t.TempDir(), "x")}} {
		if out := storeRun(t, exitFailure, args...); !strings.Contains(out, "is in use by process") || !strings.Contains(out, "hashplus store backup") {
			t.Errorf("%q: %s", args, out)
		}
	}
	empty := t.TempDir()
	for _, args := range [][]string{{"check"}, {"export"}, {"stats"}, {"backup", filepath.Join(t.TempDir(), "x")}} {
		if out := storeRun(t, exitFailure, append(args, "--data="+empty)...); !strings.Contains(out, "there is no store in") {
			t.Errorf("%q: %s", args, out)
		}
	}
	if names, err := os.ReadDir(empty); len(names) > 0 || err != nil {
		t.Errorf("%v, %v", names, err)
	}
}

// What keeps others out is the lock of a file. If somebody removes it, the socket does.
func TestStore_OthersAreRefusedWithoutTheLockFile(t *testing.T) {
	_, dir := filled(t)
	if err := os.Remove(filepath.Join(dir, "LOCK")); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // one that serves does not end by itself
	defer cancel()
	for _, args := range [][]string{
		{"serve", "--tcp=127.0.0.1:0", "--data=" + dir}, {"store", "check", "--data=" + dir}, {"store", "export", "--data=" + dir},
		{"store", "salvage", dir, filepath.Join(t.TempDir(), "x")},
	} {
		other := exec.CommandContext(ctx, self, args...) // in this process there is more that tells
		other.Env = append(os.Environ(), asMain+"=1")
		out, err := other.CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != exitFailure || !strings.Contains(string(out), dir+" is in use by process") {
			t.Errorf("%q: %v: %s", args, err, out)
		}
	}
}

func TestStore_BackupOfADamagedStoreSaysSo(t *testing.T) {
	s, dir := filled(t)
	s.signal()
	s.wait()
	s = serve(t, "--tcp=127.0.0.1:0", "--data="+dir) // what is in the log comes into a table
	hurtTable(t, dir)
	for _, name := range []string{"running", "stopped"} {
		to := filepath.Join(t.TempDir(), name)
		if out := storeRun(t, exitDamaged, "backup", "--data="+dir, to); !strings.Contains(out, "damaged: ") ||
			!strings.Contains(out, "1 damage in the copy, as in "+dir+"; hashplus store salvage "+to) {
			t.Errorf("%s: %s", name, out)
		}
		s.signal()
		s.wait()
	}
}

func TestStore_CheckOfAnOlderFormatFindsDamage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS("../../broker/store/contents/testdata/format1")); err != nil {
		t.Fatal(err)
	}
	if out := storeRun(t, exitFailure, "check", "--data="+dir); !strings.Contains(out, "has format 1; a broker that is started on it changes it") || strings.Contains(out, "damaged") {
		t.Error(out)
	}
	if err := os.Remove(filepath.Join(dir, "000009.sst")); err != nil {
		t.Fatal(err)
	}
	if out := storeRun(t, exitDamaged, "check", "--data="+dir); !strings.Contains(out, "damaged: 000009.sst") {
		t.Error(out)
	}
}

// A directory in which a first start was interrupted is one for the commands, too.
func TestStore_ThatHasOnlyBeenBegunIsNone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "FORMAT"), fmt.Appendf(nil, "hashplus store\nversion %d\n", store.Version), 0o600); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "x")
	for _, args := range [][]string{{"check", "--data=" + dir}, {"export", "--data=" + dir}, {"stats", "--data=" + dir}, {"backup", "--data=" + dir, to}, {"salvage", dir, to}} {
		if out := storeRun(t, exitFailure, args...); !strings.Contains(out, "there is no store in "+dir+": it has not been more than begun") {
			t.Errorf("%q: %s", args, out)
		}
	}
	s := serve(t, "--tcp=127.0.0.1:0", "--data="+dir)
	s.signal()
	s.wait()
	storeRun(t, exitOK, "check", "--data="+dir)
}

func TestStore_DamageIsFoundAndSalvaged(t *testing.T) {
	s, dir := filled(t)
	s.signal()
	s.wait()
	// What is on the disk is the log; a start writes it into a table.
	s = serve(t, "--tcp=127.0.0.1:0", "--data="+dir)
	s.signal()
	s.wait()
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("%v, %v", tables, err)
	}
	for _, name := range tables {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		data[10] ^= 0xFF
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, stderr := command(t, "serve", "--tcp=127.0.0.1:0", "--data="+dir); code != exitDamaged || !strings.Contains(stderr, "hashplus store salvage "+dir+" DST") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if out := storeRun(t, exitDamaged, "check", "--data="+dir); !strings.Contains(out, "damaged: "+filepath.Base(tables[0])) {
		t.Error(out)
	}
	saved := filepath.Join(t.TempDir(), "saved")
	if out := storeRun(t, exitDamaged, "salvage", dir, saved); !strings.Contains(out, "lost: "+filepath.Base(tables[0])) {
		t.Error(out)
	}
	storeRun(t, exitOK, "check", "--data="+saved)
	serve(t, "--tcp=127.0.0.1:0", "--data="+saved)
}

// hurtTable changes bytes in the middle of the largest table of dir, among the
// bodies of messages.
func hurtTable(t *testing.T, dir string) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("%v, %v", tables, err)
	}
	size := func(name string) int64 {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	largest := slices.MaxFunc(tables, func(a, b string) int { return cmp.Compare(size(a), size(b)) })
	data, err := os.ReadFile(largest)
	if err != nil {
		t.Fatal(err)
	}
	copy(data[len(data)/4:], "damage damage damage")
	if err := os.WriteFile(largest, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Damage in what a start does not read turns health red as soon as it is met, with
// the command that helps; it is logged once, and in one line. The commands say what
// it means for whom, not for each record.
func TestStore_DamageMetWhileServing(t *testing.T) {
	s, dir := filled(t)
	var lines strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&lines, "%d %s\n", i, strings.Repeat("x", 40))
	}
	p := start(t, strings.NewReader(lines.String()), "pub", "-u", s.urls[0], "-q", "1", "-t", "q/many", "--stdin-lines")
	if code := p.wait(); code != 0 {
		t.Fatal(p.errout.String())
	}
	s.signal()
	s.wait()
	s = serve(t, "--tcp=127.0.0.1:0", "--data="+dir) // what is in the log comes into a table
	s.signal()
	s.wait()
	hurtTable(t, dir)

	s = serve(t, "--tcp=127.0.0.1:0", "--health=127.0.0.1:0", "--sys-interval=1s", "--data="+dir)
	q := start(t, nil, "sub", "-u", s.urls[0], "-i", "absent", "-q", "1", "-t", "q/#", "--session-expiry=1h", "--no-clean-start")
	eventually(t, "red", func() bool {
		status, body := probeOf(t, s, "/readyz")
		return status == 503 && strings.Contains(body, "damaged") && strings.Contains(body, ".sst") || strings.Contains(body, "hashplus store salvage")
	})
	eventually(t, "$SYS", func() bool {
		p := start(t, nil, "sub", "-u", s.urls[0], "-t", "$SYS/broker/store/damaged", "-C", "1")
		return p.wait() == 0 && strings.Contains(p.out.String(), "1")
	})
	if code, _, stderr := command(t, "pub", "-u", s.urls[0], "-q", "1", "-t", "q/more", "-m", "x"); code != 0 {
		t.Errorf("a message is not taken any more: %s", stderr)
	}
	q.signal()
	q.wait()
	s.signal()
	s.wait()
	if log := s.errout.String(); strings.Count(log, `msg="stored data are damaged"`) != 1 || strings.Contains(log, "stack trace") {
		t.Errorf("the log: %s", log)
	}

	if out := storeRun(t, exitDamaged, "check", "--data="+dir); strings.Count(out, "\n") > 5 || !strings.Contains(out, "1 damage in") {
		t.Error(out)
	}
	if out := storeRun(t, exitDamaged, "export", "--data="+dir); strings.Contains(out, "carrier") || !strings.Contains(out, "hashplus store salvage") {
		t.Error(out)
	}
	saved := filepath.Join(t.TempDir(), "saved")
	if out := storeRun(t, exitDamaged, "salvage", dir, saved); strings.Count(out, "\n") > 10 || !strings.Contains(out, `deliveries of client "absent": its message is missing`) {
		t.Error(out)
	}
	if _, err := os.Stat(saved + ".incomplete"); err == nil {
		t.Error("what was unfinished is still there")
	}
	storeRun(t, exitOK, "check", "--data="+saved)
}

func TestStore_CopiesAreNotMadeWhereTheyDoHarm(t *testing.T) {
	s, dir := filled(t)
	for _, args := range [][]string{{"backup", "--data=" + dir, filepath.Join(dir, "x")}, {"salvage", dir, filepath.Join(dir, "x")}} {
		if out := storeRun(t, exitUsage, args...); !strings.Contains(out, "is in "+dir) {
			t.Errorf("%q: %s", args, out)
		}
	}
	s.signal()
	s.wait()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if out := storeRun(t, exitUsage, "backup", "--data="+link, filepath.Join(dir, "x")); !strings.Contains(out, "is in "+link) {
		t.Error(out)
	}
	if out := storeRun(t, exitFailure, "backup", "--data="+dir, filepath.Join(dir, "FORMAT", "x")); !strings.Contains(out, "not a directory") {
		t.Error(out)
	}
}

// The name under which a salvage works may be anybody's, the source's above all.
func TestStore_SalvageRemovesNothingThatItHasNotMade(t *testing.T) {
	s, dir := filled(t)
	s.signal()
	s.wait()
	saved := filepath.Join(t.TempDir(), "saved")
	unfinished := saved + ".incomplete"
	if err := os.CopyFS(unfinished, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for _, src := range []string{unfinished, dir} {
		if out := storeRun(t, exitUsage, "salvage", src, saved); !strings.Contains(out, unfinished+" exists; if a salvage that was interrupted has left it, remove it") {
			t.Error(out)
		}
	}
	storeRun(t, exitOK, "check", "--data="+unfinished)
	if err := os.RemoveAll(unfinished); err != nil {
		t.Fatal(err)
	}
	storeRun(t, exitOK, "salvage", dir, saved)
	storeRun(t, exitOK, "check", "--data="+saved)
}

// A broker whose directory is gone keeps what it is given from being acknowledged: it
// would be written to files that nobody can find. It goes on when it is back.
func TestStore_DirectoryThatIsGoneIsNoticed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := serve(t, "--tcp=127.0.0.1:0", "--health=127.0.0.1:0", "--data="+dir)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "red", func() bool {
		status, body := probeOf(t, s, "/readyz")
		return status == 503 && strings.Contains(body, "FORMAT is not there any more")
	})
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "green", func() bool {
		status, _ := probeOf(t, s, "/readyz")
		return status == 200
	})
}

// What may not be read says nothing of damage.
func TestStore_WhatMayNotBeReadIsNotDamaged(t *testing.T) {
	if os.Getuid() == 0 || runtime.GOOS == "windows" {
		t.Skip("everything may be read")
	}
	s, dir := filled(t)
	s.signal()
	s.wait()
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("%v, %v", logs, err)
	}
	if err := os.Chmod(logs[0], 0); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "--data=" + dir}, {"salvage", dir, filepath.Join(t.TempDir(), "x")}} {
		if out := storeRun(t, exitFailure, args...); !strings.Contains(out, "permission denied") || strings.Contains(out, "damaged") {
			t.Errorf("%q: %s", args, out)
		}
	}
}

func TestStore_OrphansAreReportedAndRemoved(t *testing.T) {
	s, dir := filled(t)
	s.signal()
	s.wait()
	d, err := store.Open(dir, quietly())
	if err != nil {
		t.Fatal(err)
	}
	var b broker.Batch
	for i := range 3 {
		b.Set(format.AppendShared(nil, format.MessageID{9, byte(i)}), (&format.Message{ExpiryAt: -1, Topic: []byte("t")}).Append(nil))
	}
	wait, err := d.Apply(&b)
	if err == nil {
		err = wait()
	}
	if err := errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	if out := storeRun(t, exitOK, "check", "--data="+dir); !strings.Contains(out, "not needed: 3 bodies of messages for several receivers: nobody is to get this message") {
		t.Error(out)
	}
	s = serve(t, "--tcp=127.0.0.1:0", "--data="+dir)
	eventually(t, "they are removed", func() bool {
		return strings.Contains(s.errout.String(), "messages that nobody was to get were removed from the store\" messages=3")
	})
	s.signal()
	s.wait()
	if out := storeRun(t, exitOK, "check", "--data="+dir); strings.Contains(out, "not needed") {
		t.Error(out)
	}
}

// A command ends with the first signal, whatever it is at.
func TestStore_SignalsEndCommands(t *testing.T) {
	_, dir := filled(t)
	copied := filepath.Join(t.TempDir(), "copy")
	storeRun(t, exitOK, "backup", "--data="+dir, copied)
	ctx, cancel := context.WithCancel(context.Background())
	stuck := make(chan struct{})
	defer close(stuck)
	began := make(chan struct{})
	go func() {
		<-began
		cancel()
	}()
	var once sync.Once
	env := &environment{ctx: ctx, stdout: blocking{func() { once.Do(func() { close(began) }); <-stuck }}, stderr: io.Discard}
	if code := run(env, []string{"store", "export", "--data=" + copied}); code != exitInterrupted {
		t.Errorf("exit %d", code)
	}
}

// blocking is a reader of output that does not read.
type blocking struct{ wait func() }

func (b blocking) Write(p []byte) (int, error) { b.wait(); return len(p), nil }
