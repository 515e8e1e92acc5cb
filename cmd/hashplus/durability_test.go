package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestServe_StateIsThereAgainAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for _, policy := range []string{"always", "interval=10ms", "never"} {
		s := serve(t, "--tcp=127.0.0.1:0", "--data="+dir, "--sync="+policy)
		if code, _, stderr := command(t, "pub", "-u", s.urls[0], "-t", "kept/"+policy, "-m", "value", "-q", "1", "-r"); code != 0 {
			t.Fatal(stderr)
		}
		if log := s.errout.String(); !strings.Contains(log, "(sync "+policy+")") {
			t.Errorf("the log does not say where the state is: %s", log)
		}
		s.signal()
		if code := s.wait(); code != 0 {
			t.Fatalf("exit %d: %s", code, s.errout.String())
		}
	}
	s := serve(t, "--tcp=127.0.0.1:0", "--data="+dir)
	for _, policy := range []string{"always", "interval=10ms", "never"} {
		p := start(t, nil, "sub", "-u", s.urls[0], "-t", "kept/"+policy, "-C", "1")
		if code := p.wait(); code != 0 || !strings.Contains(p.out.String(), "value") {
			t.Errorf("%s: exit %d: %q %s", policy, code, p.out.String(), p.errout.String())
		}
	}
}

func TestServe_WithoutDataSaysThatAllIsInMemory(t *testing.T) {
	s := serve(t, "--tcp=127.0.0.1:0")
	eventually(t, "the log", func() bool { return strings.Contains(s.errout.String(), `state="in memory"`) })
}

func TestServe_SecondBrokerOfADirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	serve(t, "--tcp=127.0.0.1:0", "--data="+dir)
	if code, _, stderr := command(t, "serve", "--tcp=127.0.0.1:0", "--data="+dir); code != exitFailure || !strings.Contains(stderr, dir+" is in use") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestServe_DirectoriesThatItCannotUse(t *testing.T) {
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, "file", "")
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"--data=" + foreign}, exitFailure, "is not empty (it has precious)"},
		{[]string{"--data=" + file}, exitUsage, "data: " + file + " is not a directory"},
		{[]string{"--data=x", "--sync=sometimes"}, exitUsage, "interval=DURATION"},
		{[]string{"--data=x", "--min-free=5PB"}, exitUsage, "min-free"},
		{[]string{"--data=x", "--min-free=0"}, exitUsage, "min-free: 0 is not allowed; from 128MiB"},
		{[]string{"--data=x", "--min-free=127MiB"}, exitUsage, "min-free: 127MiB is not allowed; from 128MiB"},
	} {
		if code, _, stderr := command(t, append([]string{"serve", "--tcp=127.0.0.1:0"}, c.args...)...); code != c.code || !strings.Contains(stderr, c.text) {
			t.Errorf("%q: exit %d: %s", c.args, code, stderr)
		}
	}
}
