package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"hashplus/broker/auth"
)

// freePort is a port of 127.0.0.1 that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // it was only to find the port
	return l.Addr().(*net.TCPAddr).Port
}

// reaches reports whether a message can be published at url.
func reaches(t *testing.T, url string, args ...string) bool {
	t.Helper()
	code, _, _ := command(t, append([]string{"pub", "-u", url, "-t", "a", "-m", "b", "-q", "1", "--no-reconnect"}, args...)...)
	return code == exitOK
}

// What is unwise is told again where a reload brings it.
func TestReload_WarnsOfTrustingEverybody(t *testing.T) {
	file := writeFile(t, "c.yaml", "trusted-proxies: 10.0.0.0/8\n")
	s := serve(t, "--config="+file, "--tcp=127.0.0.1:0")
	if log := s.errout.String(); strings.Contains(log, "everybody") {
		t.Errorf("at the start: %s", log)
	}
	for _, network := range []string{"0.0.0.0/0", "'::/0'"} {
		rewrite(t, file, "trusted-proxies: "+network+"\n")
		if log := s.reload(); !strings.Contains(log, "everybody is taken for a trusted proxy") {
			t.Errorf("%s: %s", network, log)
		}
	}
}

// Listeners that are new in the file are there, those that are gone are not, and
// what was connected by them is told and ends. All others stay.
func TestReload_OpensAndClosesListeners(t *testing.T) {
	one, two := freePort(t), freePort(t)
	socket := filepath.Join(t.TempDir(), "s")
	file := writeFile(t, "c.yaml", fmt.Sprintf("drain: 1s\nlisteners: [{url: 'tcp://127.0.0.1:0'}, {url: 'tcp://127.0.0.1:%d'}]\n", one))
	s := serve(t, "--config="+file)
	stays := start(t, nil, "sub", "-u", s.urls[0], "-t", "#", "--no-reconnect")
	var goes []*process
	for _, version := range []string{"5", "3.1.1"} {
		goes = append(goes, start(t, nil, "sub", "-u", s.urls[1], "-V", version, "-t", "x/"+version, "--no-reconnect"))
		probe(t, s.urls[1], "x/"+version, func() bool { return goes[len(goes)-1].lineCount() > 0 })
	}
	probe(t, s.urls[0], "x", func() bool { return stays.lineCount() > 0 })
	rewrite(t, file, fmt.Sprintf("drain: 1s\nlisteners: [{url: 'ws://127.0.0.1:%d/mqtt'}, {url: 'unix://%s'}, {url: 'tcp://127.0.0.1:0'}]\n", two, socket))
	log := s.reload()
	for _, want := range []string{
		fmt.Sprintf(`msg="a listener is closed; its connections are sent away" listener=tcp://127.0.0.1:%d`, one),
		fmt.Sprintf(`msg="a listener is opened" listener=ws://127.0.0.1:%d/mqtt`, two),
		"msg=reloaded changed=listeners",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s: %s", want, log)
		}
	}
	for i, want := range []string{"administrative action (0x98)", "connection lost"} {
		if code := goes[i].wait(); code != exitLost || !strings.Contains(goes[i].errout.String(), want) {
			t.Errorf("a client of the listener that went: exit %d, %s", code, goes[i].errout.String())
		}
	}
	if reaches(t, s.urls[1]) {
		t.Error("a listener that is gone listens")
	}
	for _, url := range []string{fmt.Sprintf("ws://127.0.0.1:%d/mqtt", two), "unix://" + socket, s.urls[0]} {
		if !reaches(t, url) {
			t.Errorf("nothing listens at %s", url)
		}
		if !strings.Contains(s.out.String(), "listening "+strings.Replace(url, "tcp://", "mqtt://", 1)) {
			t.Errorf("%s was not printed: %s", url, s.out.String())
		}
	}
	select {
	case <-stays.exited:
		t.Errorf("a client of a listener that stays was disconnected: %s", stays.errout.String())
	default:
	}
}

// A listener takes the place of another: of another kind, or on more addresses.
func TestReload_ListenerTakesThePortOfAnother(t *testing.T) {
	port := freePort(t)
	file := writeFile(t, "c.yaml", "")
	say := func(url string) {
		rewrite(t, file, fmt.Sprintf("drain: 0s\nallow-anonymous: true\nlisteners: [{url: '%s:%d'}]\n", url, port))
	}
	say("tcp://127.0.0.1")
	s := serve(t, "--config="+file)
	for _, next := range []string{"ws://127.0.0.1", "tcp://0.0.0.0", "tcp://127.0.0.1"} {
		say(next)
		if log := s.reload(); !strings.Contains(log, "msg=reloaded") {
			t.Fatalf("%s: %s", next, log)
		}
		if url := fmt.Sprintf("%s:%d", strings.Replace(next, "0.0.0.0", "127.0.0.1", 1), port); !reaches(t, url) {
			t.Errorf("nothing listens at %s", url)
		}
	}
}

// Where one listener can't be opened nothing is changed at all: those that would
// have been closed listen, also where they had to make room for the attempt.
func TestReload_ThatCannotBindChangesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // the test is over
	port, free := freePort(t), freePort(t)
	file := writeFile(t, "c.yaml", fmt.Sprintf("listeners: [{url: 'tcp://127.0.0.1:%d'}]\n", port))
	s := serve(t, "--config="+file)
	there := start(t, nil, "sub", "-u", s.urls[0], "-t", "#", "--no-reconnect")
	probe(t, s.urls[0], "x", func() bool { return there.lineCount() > 0 })
	rewrite(t, file, fmt.Sprintf("log-level: debug\nlisteners: [{url: 'tcp://127.0.0.1:%d'}, {url: 'ws://127.0.0.1:%d'}, {url: 'tcp://%s'}]\n", free, port, taken.Addr()))
	log := s.reload()
	if !strings.Contains(log, "not reloaded") || !strings.Contains(log, "cannot listen on tcp://"+taken.Addr().String()) || !strings.Contains(log, "c.yaml:2: listeners") {
		t.Errorf("the log says %s", log)
	}
	if !reaches(t, s.urls[0]) || reaches(t, fmt.Sprintf("tcp://127.0.0.1:%d", free)) {
		t.Error("listeners were changed")
	}
	before := there.lineCount()
	probe(t, s.urls[0], "x", func() bool { return there.lineCount() > before })
	rewrite(t, file, fmt.Sprintf("listeners: [{url: 'tcp://127.0.0.1:%d'}, {url: 'tcp://127.0.0.1:%d'}]\n", port, free))
	if log := s.reload(); !strings.Contains(log, "changed=listeners") || !reaches(t, fmt.Sprintf("tcp://127.0.0.1:%d", free)) {
		t.Errorf("the next reload: %s", log)
	}
}

// A fault elsewhere leaves the listeners alone, too.
func TestReload_WithAFaultElsewhereOpensNothing(t *testing.T) {
	free := freePort(t)
	file := writeFile(t, "c.yaml", "")
	s := serve(t, "--config="+file, "--tcp=127.0.0.1:0")
	rewrite(t, file, fmt.Sprintf("acl: %s\nlisteners: [{url: 'tcp://127.0.0.1:%d'}]\n", writeFile(t, "acl", "topic reed a\n"), free))
	if log := s.reload(); !strings.Contains(log, "not reloaded") || reaches(t, fmt.Sprintf("tcp://127.0.0.1:%d", free)) {
		t.Errorf("the log says %s", log)
	}
}

// Authentication where there was none, and the other way round.
func TestReload_SwitchesAuthenticationOnAndOff(t *testing.T) {
	entry, err := auth.NewPBKDF2Password("alice", "x", 1)
	if err != nil {
		t.Fatal(err)
	}
	passwords := writeFile(t, "passwords", entry+"\n")
	file := writeFile(t, "c.yaml", "")
	s := serve(t, "--config="+file, "--tcp=127.0.0.1:0")
	url := s.urls[0]
	alice := []string{"--username=alice", "--password=x"}
	anonymous := start(t, nil, "sub", "-u", url, "-t", "#", "--no-reconnect")
	probe(t, url, "x", func() bool { return anonymous.lineCount() > 0 })

	rewrite(t, file, "password-file: "+passwords+"\n")
	if log := s.reload(); !strings.Contains(log, `changed="allow-anonymous password-file"`) || strings.Contains(log, "restart") {
		t.Fatal(log)
	}
	if code := anonymous.wait(); code != exitLost || !strings.Contains(anonymous.errout.String(), "not authorized (0x87)") {
		t.Errorf("an anonymous client: exit %d, %s", code, anonymous.errout.String())
	}
	if reaches(t, url) || !reaches(t, url, alice...) || reaches(t, url, "--username=alice", "--password=y") {
		t.Error("the password file is not in force")
	}
	known := start(t, nil, append([]string{"sub", "-u", url, "-t", "#", "--no-reconnect"}, alice...)...)
	eventually(t, "alice", func() bool { return reaches(t, url, alice...) && known.lineCount() > 0 })

	// Beside it anonymous ones, and without them again.
	rewrite(t, file, "password-file: "+passwords+"\nallow-anonymous: true\n")
	s.reload()
	anonymous = start(t, nil, "sub", "-u", url, "-t", "#", "--no-reconnect")
	eventually(t, "the anonymous client", func() bool { return reaches(t, url, alice...) && anonymous.lineCount() > 0 })
	rewrite(t, file, "password-file: "+passwords+"\n")
	s.reload()
	if code := anonymous.wait(); code != exitLost {
		t.Errorf("an anonymous client: exit %d", code)
	}
	rewrite(t, file, "")
	if log := s.reload(); !strings.Contains(log, "msg=reloaded") || !reaches(t, url) {
		t.Errorf("without authentication again: %s", log)
	}
	select {
	case <-known.exited:
		t.Errorf("alice was disconnected: %s", known.errout.String())
	default:
	}
}

// Who is not in the password file any more, or has another password there, is
// disconnected; the others are not.
func TestReload_DisconnectsWhoseCredentialsAreGone(t *testing.T) {
	entry := func(user, password string) string {
		e, err := auth.NewPassword(user, password)
		if err != nil {
			t.Fatal(err)
		}
		return e + "\n"
	}
	alice := entry("alice", "x")
	passwords := writeFile(t, "passwords", alice+entry("bob", "x")+entry("carol", "x"))
	s := serve(t, "--ws=127.0.0.1:0", "--password-file="+passwords)
	clients := map[string]*process{}
	for _, user := range []string{"alice", "bob", "carol"} {
		for _, version := range []string{"5", "3.1.1"} {
			p := start(t, nil, "sub", "-u", s.urls[0], "-V", version, "--username="+user, "--password=x", "-t", "#", "--no-reconnect")
			clients[user+version] = p
			eventually(t, user, func() bool {
				return reaches(t, s.urls[0], "--username=alice", "--password=x") && p.lineCount() > 0
			})
		}
	}
	rewrite(t, passwords, alice+entry("bob", "y"))
	if log := s.reload(); !strings.Contains(log, "msg=reloaded") {
		t.Fatal(log)
	}
	for name, p := range clients {
		if strings.HasPrefix(name, "alice") {
			continue
		}
		want := "not authorized (0x87)"
		if strings.HasSuffix(name, "3.1.1") {
			want = "1008"
		}
		if code := p.wait(); code != exitLost || !strings.Contains(p.errout.String(), want) {
			t.Errorf("%s: exit %d, %s", name, code, p.errout.String())
		}
	}
	eventually(t, "the log", func() bool {
		return strings.Contains(s.errout.String(), `msg="disconnected clients whose credentials are not valid any more" clients=4`)
	})
	for _, version := range []string{"5", "3.1.1"} {
		before := clients["alice"+version].lineCount()
		eventually(t, "a message for alice", func() bool {
			return reaches(t, s.urls[0], "--username=alice", "--password=x") && clients["alice"+version].lineCount() > before
		})
	}
}
