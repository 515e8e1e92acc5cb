package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// passwd runs hashplus passwd with stdin.
func passwd(t *testing.T, stdin string, args ...string) (code int, stderr string) {
	t.Helper()
	p := start(t, strings.NewReader(stdin), append([]string{"passwd"}, args...)...)
	code = p.wait()
	if out := p.out.String(); out != "" {
		t.Errorf("stdout %q", out)
	}
	return code, p.errout.String()
}

func TestPasswd_UsersCanLogIn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwords")
	for _, c := range []struct{ user, stdin string }{
		{"alice", "old\n"}, {"bob", "bob's, with a : and spaces \r\n"}, {"alice", "new"}, {"carol", "c\n"},
	} {
		if code, stderr := passwd(t, c.stdin, file, c.user); code != 0 || stderr != "" {
			t.Fatalf("%s: exit %d: %s", c.user, code, stderr)
		}
	}
	if code, stderr := passwd(t, "", "-D", file, "carol"); code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	for _, c := range []struct {
		user, stdin string
		code        int
	}{{"alice", "new\n", 0}, {"alice", "old\n", exitFailure}, {"carol", "c\n", exitFailure}} {
		if code, stderr := passwd(t, c.stdin, "--verify", file, c.user); code != c.code || (stderr == "") != (code == 0) {
			t.Errorf("--verify %s: exit %d: %s", c.user, code, stderr)
		}
	}
	s := serve(t, "--tcp=127.0.0.1:0", "--password-file="+file)
	for _, c := range []struct {
		user, password string
		code           int
	}{
		{"alice", "new", 0}, {"bob", "bob's, with a : and spaces ", 0},
		{"alice", "old", exitRefused}, {"carol", "c", exitRefused}, {"bob", "new", exitRefused},
	} {
		code, _, stderr := command(t, "pub", "-u", s.urls[0], "--username="+c.user, "--password="+c.password, "-t", "a", "-m", "x")
		if code != c.code {
			t.Errorf("%s with %q: exit %d: %s", c.user, c.password, code, stderr)
		}
	}
}

func TestPasswd_WritesTheSchemeThatIsAskedFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwords")
	for _, c := range []struct {
		args   []string
		prefix string
	}{
		{[]string{file, "a"}, "a:$argon2id$v=19$m=19456,t=2,p=1$"},
		{[]string{"--pbkdf2", file, "a"}, "a:$7$100000$"},
		{[]string{"--pbkdf2", "--iterations=7", file, "a"}, "a:$7$7$"},
	} {
		code, stderr := passwd(t, "secret\n", c.args...)
		text, err := os.ReadFile(file)
		if code != 0 || err != nil || !strings.HasPrefix(string(text), c.prefix) {
			t.Errorf("%q: exit %d %s, %q, %v", c.args, code, stderr, text, err)
		}
	}
}

func TestPasswd_WritesVerifiers(t *testing.T) {
	file := writeFile(t, "scram", "# kept\n")
	for range 2 {
		if code, stderr := passwd(t, "secret\n", "--scram", file, "alice"); code != 0 {
			t.Fatalf("exit %d: %s", code, stderr)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(text), "# kept\nalice:SCRAM-SHA-256$4096:") || strings.Count(string(text), "\n") != 2 {
		t.Errorf("%q, %v", text, err)
	}
	if code, _, stderr := check(t, "--scram-file="+file, "--ws=127.0.0.1:0"); code != 0 {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestPasswd_LeavesTheFileAloneWhenItFails(t *testing.T) {
	file := writeFile(t, "passwords", "# nothing\n")
	if code, stderr := passwd(t, "x\n", file, "alice"); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		stdin string
		args  []string
		code  int
		text  string
	}{
		{"x\n", []string{"--scram", file, "alice"}, exitFailure, "passwords:2: the entry is not USER:SCRAM-SHA-256$"}, // a file of the other kind
		{"", []string{"-D", file, "bob"}, exitFailure, `has no user "bob"`},
		{"\n", []string{file, "alice"}, exitUsage, "the password is empty"},
		{"", []string{file, "alice"}, exitUsage, "the password is empty"},
		{"x\n", []string{file, "a:b"}, exitUsage, "colon"},
		{"x\n", []string{"--pbkdf2", "--iterations=-1", file, "alice"}, exitUsage, "iterations"},
		{"x\n", []string{"--iterations=1000", file, "alice"}, exitUsage, "Argon2id has none"},
		{"x\n", []string{"--pbkdf2", "--scram", file, "alice"}, exitUsage, "pbkdf2"},
		{"x\n", []string{"--verify", "-D", file, "alice"}, exitUsage, "verify"},
		{"x\n", []string{"--verify", "--scram", file, "alice"}, exitUsage, "--scram"},
		{"x\n", []string{file}, exitUsage, "user"},
		{"", []string{"-D", file + "-not-there", "bob"}, exitFailure, "not-there"},
	} {
		if code, stderr := passwd(t, c.stdin, c.args...); code != c.code || !strings.Contains(stderr, c.text) {
			t.Errorf("%q: exit %d: %s", c.args, code, stderr)
		}
	}
	if after, err := os.ReadFile(file); string(after) != string(before) {
		t.Errorf("%q, %v", after, err)
	}
	if files, err := os.ReadDir(filepath.Dir(file)); len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

func TestPasswd_KeepsModeAndLink(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such mode")
	}
	file := writeFile(t, "passwords", "")
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if code, stderr := passwd(t, "x\n", "--pbkdf2", "--iterations=1", link, "alice"); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	info, err := os.Lstat(file)
	if err != nil || info.Mode() != 0o640 || info.Size() == 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestServe_TellsOfFilesThatEverybodyCanRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such mode")
	}
	file := writeFile(t, "passwords", "")
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o644: true} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := check(t, "--password-file="+file); code != 0 || strings.Contains(stderr, "can be read by every user") != want {
			t.Errorf("%o: exit %d: %s", mode, code, stderr)
		}
	}
}
