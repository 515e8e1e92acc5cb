package main

import (
	"strings"
	"testing"

	"hashplus/broker/auth"
)

func TestServe_ACLRefuses(t *testing.T) {
	acl := writeFile(t, "acl", "topic readwrite open/#\n")
	s := serve(t, "--tcp=127.0.0.1:0", "--acl="+acl)
	if code, _, stderr := command(t, "sub", "-u", s.urls[0], "-t", "closed/#"); code != exitRejected {
		t.Errorf("subscribe: exit %d: %s", code, stderr)
	}
	if code, _, stderr := command(t, "pub", "-u", s.urls[0], "-t", "closed/x", "-m", "y", "-q", "1"); code != exitRejected {
		t.Errorf("publish: exit %d: %s", code, stderr)
	}
	if code, _, stderr := command(t, "pub", "-u", s.urls[0], "-t", "open/x", "-m", "y", "-q", "1"); code != 0 {
		t.Errorf("allowed publish: exit %d: %s", code, stderr)
	}
	code, stdout, stderr := check(t, "--acl="+writeFile(t, "acl", "nonsense\n"))
	if code != exitUsage || stdout != "" || !strings.Contains(stderr, "acl: ") {
		t.Errorf("bad file: exit %d, %q, %s", code, stdout, stderr)
	}
}

func TestServe_PasswordFileDecidesWhoMayConnect(t *testing.T) {
	entry, err := auth.NewPassword("alice", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	file := "--password-file=" + writeFile(t, "passwords", entry+"\n")
	closed := serve(t, "--ws=127.0.0.1:0", file).urls[0]
	open := serve(t, "--ws=127.0.0.1:0", file, "--allow-anonymous").urls[0]
	secret := writeFile(t, "secret", "correct horse\n")
	for _, version := range []string{"3.1", "3.1.1", "5"} {
		for _, c := range []struct {
			url  string
			args []string
			code int
		}{
			{closed, nil, exitRefused},
			{open, nil, exitOK},
			{closed, []string{"--username=alice", "--password=correct horse"}, exitOK},
			{closed, []string{"--username=alice", "--password-file=" + secret}, exitOK},
			{strings.Replace(closed, "ws://", "ws://alice:correct%20horse@", 1), nil, exitOK},
			{closed, []string{"--username=alice", "--password=wrong"}, exitRefused},
			{open, []string{"--username=alice", "--password=wrong"}, exitRefused},
			{closed, []string{"--username=bob", "--password=correct horse"}, exitRefused},
			{closed, []string{"--username=alice"}, exitRefused},
		} {
			args := append([]string{"pub", "-u", c.url, "-V", version, "-t", "a", "-m", "b", "-q", "1"}, c.args...)
			if code, _, stderr := command(t, args...); code != c.code {
				t.Errorf("%q: exit %d, want %d: %s", args[2:], code, c.code, stderr)
			}
		}
	}
}
