package main

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

func TestReload_EveryKeyIsLiveOrNamedAsWaitingForARestart(t *testing.T) {
	env := &environment{ctx: context.Background(), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	known := map[string]bool{"listeners": true}
	for _, f := range commandNode(newParser(&commands{}, env).Model, "serve").Flags {
		if !notInFile(f.Name) {
			known[f.Name] = true
		}
	}
	for key := range known {
		if what := reloads[key]; what != live && what != restart {
			t.Errorf("reloads does not say what a reload does with %s", key)
		}
	}
	for key := range reloads {
		if !known[key] {
			t.Errorf("reloads has %s, which is no key", key)
		}
	}
}

// rewrite puts text in the place of a file's.
func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReload_PutsInForceWhatCanBeAndNamesTheRest(t *testing.T) {
	file := writeFile(t, "c.yaml", "log-level: info\nlog-format: text\n")
	s := serve(t, "--config="+file, "--tcp=127.0.0.1:0", "--drain=1s")
	if log := s.reload(); !strings.Contains(log, `msg=reloaded changed=nothing`) || strings.Contains(log, "restart") {
		t.Errorf("nothing has changed: %s", log)
	}
	rewrite(t, file, "log-level: debug\nio-uring: off\nloops: 1\ndrain: 9s\n")
	// loops and drain are flags as well, which come before the file.
	for range 2 { // what waits for a restart is named as long as it waits
		log := s.reload()
		if !strings.Contains(log, `keys=io-uring`) {
			t.Errorf("what waits for a restart is not named: %s", log)
		}
	}
	if log := s.errout.String(); !strings.Contains(log, "msg=reloaded changed=log-level") {
		t.Errorf("what has changed is not named: %s", log)
	}
	rewrite(t, file, "log-level: debug\n")
	if log := s.reload(); strings.Contains(log, "restart") {
		t.Errorf("named as waiting after it was changed back: %s", log)
	}
}

// A listener that is still in the file tells new connections what is said of it
// now. Those that are there stay.
func TestReload_ListenersHaveTheirNewSettings(t *testing.T) {
	// Two on port 0 and one of a flag: which is which is a matter of their order.
	file := writeFile(t, "c.yaml", "listeners: [{url: 'ws://127.0.0.1:0/a'}, {url: 'ws://127.0.0.1:0/b'}]\n")
	s := serve(t, "--config="+file, "--tcp=127.0.0.1:0")
	dial := func(at int, path, origin string) *websocket.Conn {
		t.Helper()
		u, err := url.Parse(s.urls[at])
		if err != nil {
			t.Fatal(err)
		}
		u.Path = path
		h := http.Header{}
		if origin != "" {
			h.Set("Origin", origin)
		}
		c, _, err := (&websocket.Dialer{Subprotocols: []string{"mqtt"}, EnableCompression: true}).Dial(u.String(), h)
		if err != nil {
			return nil
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	there := dial(0, "/a", "")
	if there == nil || dial(0, "/new", "") != nil || dial(1, "/b", "https://page.example") != nil {
		t.Fatal("not what the file says")
	}
	rewrite(t, file, "listeners: [{url: 'ws://127.0.0.1:0/new'}, {url: 'ws://127.0.0.1:0/b', origins: ['https://page.example']}]\n")
	log := s.reload()
	if strings.Contains(log, "restart") || strings.Count(log, `msg="a listener has new settings"`) != 2 {
		t.Errorf("the log says %s", log)
	}
	if dial(0, "/a", "") != nil || dial(0, "/new", "") == nil || dial(0, "/new", "https://page.example") != nil || dial(1, "/b", "https://page.example") == nil {
		t.Error("the new settings are not in force")
	}
	if err := there.WriteMessage(websocket.BinaryMessage, []byte("\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x")); err != nil {
		t.Fatal(err)
	}
	if _, p, err := there.ReadMessage(); err != nil || string(p) != "\x20\x02\x00\x00" {
		t.Errorf("the connection that was there: %q, %v", p, err)
	}
}

// Numbers are in force at once, those of the server too.
func TestReload_LimitsAreInForce(t *testing.T) {
	file := writeFile(t, "c.yaml", "")
	s := serve(t, "--config="+file, "--tcp=127.0.0.1:0")
	url := s.urls[0]
	there := start(t, nil, "sub", "-u", url, "-t", "a")
	probe(t, url, "a", func() bool { return there.lineCount() > 0 })
	rewrite(t, file, "max-topic-levels: 2\nmax-connections: 1\nmax-packet-size: 1KiB\n")
	if log := s.reload(); !strings.Contains(log, `changed="max-packet-size max-connections max-topic-levels"`) {
		t.Errorf("the log says %s", log)
	}
	if code, _, _ := command(t, "pub", "-u", url, "-t", "a", "-m", "x", "--no-reconnect"); code == exitOK {
		t.Error("one connection too many is let in")
	}
	rewrite(t, file, "max-topic-levels: 2\nmax-packet-size: 1KiB\n")
	s.reload()
	for _, args := range [][]string{{"-t", "a/b/c", "-m", "x"}, {"-t", "a", "-m", strings.Repeat("x", 2000)}} {
		if code, _, _ := command(t, append([]string{"pub", "-u", url, "-q", "1", "--no-reconnect"}, args...)...); code == exitOK {
			t.Errorf("%.20q is let through", args)
		}
	}
	if code, _, stderr := command(t, "pub", "-u", url, "-t", "a", "-m", "x", "-q", "1"); code != exitOK {
		t.Error(stderr)
	}
}

func TestReload_OfAFaultyConfigurationChangesNothing(t *testing.T) {
	file := writeFile(t, "c.yaml", "")
	s := serve(t, "--config="+file, "--tcp=127.0.0.1:0")
	for text, faults := range map[string][]string{
		"log-level: debug\nmax-infligt: 5\n":                        {"did you mean max-inflight?"},
		"log-level: debug\nmax-inflight: 0\nwrite-queue-bytes: 1\n": {"max-inflight: 0 is not allowed", "write-queue-bytes: 1 is not allowed"},
		"log-level: debug\nacl: /none\n":                            {"acl: "},
	} {
		rewrite(t, file, text)
		log := s.reload()
		if !strings.Contains(log, "not reloaded") {
			t.Errorf("%q: %s", text, log)
		}
		for _, f := range faults {
			if !strings.Contains(log, f) {
				t.Errorf("%q: the log does not name %q: %s", text, f, log)
			}
		}
	}
	rewrite(t, file, "")
	if log := s.reload(); !strings.Contains(log, `msg=reloaded changed=nothing`) {
		t.Errorf("something had changed: %s", log)
	}
}

// Clients that stay connected get what the new rules let them have, live,
// through a share group and retained, and nothing else.
func TestReload_AccessRulesHoldForTheClientsThatAreThere(t *testing.T) {
	acl := writeFile(t, "acl", "topic write #\ntopic read a/#\ntopic read b/#\n")
	s := serve(t, "--tcp=127.0.0.1:0", "--acl="+acl)
	url := s.urls[0]
	plain := start(t, nil, "sub", "-u", url, "-t", "a/#", "-t", "b/#", "--format=%t %p")
	group := start(t, nil, "sub", "-u", url, "-t", "$share/g/a/#", "-t", "$share/g/b/#", "--format=%t %p")
	say := func(topic, text string, more ...string) {
		t.Helper()
		if code, _, stderr := command(t, append([]string{"pub", "-u", url, "-t", topic, "-m", text, "-q", "1"}, more...)...); code != 0 {
			t.Fatal(stderr)
		}
	}
	for _, p := range []*process{plain, group} {
		probe(t, url, "a/probe", func() bool { return p.lineCount() > 0 })
		probe(t, url, "b/probe", func() bool { return strings.Contains(p.out.String(), "b/probe") })
	}
	heard := func(text string) bool {
		return strings.Contains(plain.out.String(), text) && strings.Contains(group.out.String(), text)
	}
	rewrite(t, acl, "topic write #\ntopic read b/#\n")
	if log := s.reload(); !strings.Contains(log, "msg=reloaded") {
		t.Fatal(log)
	}
	say("a/x", "revoked")
	say("a/kept", "revoked", "--retain")
	say("b/x", "after")
	eventually(t, "what is still allowed", func() bool { return heard("b/x after") })
	for _, p := range []*process{plain, group} {
		if strings.Contains(p.out.String(), "revoked") {
			t.Errorf("it got what it may not have: %s", p.out.String())
		}
	}
	if code, _, _ := command(t, "sub", "-u", url, "-t", "a/kept", "--count=1", "--timeout=5s"); code != exitRejected {
		t.Errorf("subscribing to what may not be read: exit %d", code)
	}
	rewrite(t, acl, "topic write #\ntopic reed a\n")
	if log := s.reload(); !strings.Contains(log, acl+":2: unknown access") || !strings.Contains(log, "not reloaded") {
		t.Errorf("a faulty file: %s", log)
	}
	rewrite(t, acl, "topic write #\ntopic read a/#\n")
	s.reload()
	say("a/x", "again")
	eventually(t, "what is allowed again", func() bool { return heard("a/x again") })
}

// What stands in a file has changed though no key has.
func TestReload_NamesTheFilesThatSaySomethingElse(t *testing.T) {
	rules := writeFile(t, "acl", "topic read a\n")
	s := serve(t, "--acl="+rules, "--tcp=127.0.0.1:0")
	rewrite(t, rules, "topic readwrite a\n")
	if log := s.reload(); !strings.Contains(log, "msg=reloaded read-again=acl\n") {
		t.Errorf("the log says %s", log)
	}
	if log := s.reload(); !strings.Contains(log, "msg=reloaded changed=nothing") {
		t.Errorf("the log says %s", log)
	}
}

// Each file has the name of its key, also where a listener names it.
func TestReload_NamesEachKindOfFile(t *testing.T) {
	certs := [][2]string{}
	for range 2 {
		cert, key := certificate(t)
		certs = append(certs, [2]string{cert, key})
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	put := func(n int) {
		t.Helper()
		copyFile(t, certs[n][0], at("cert"))
		copyFile(t, certs[n][1], at("key"))
		copyFile(t, certs[n][0], at("ca"))
		for name, text := range map[string]string{"passwords": "", "secret": strings.Repeat("s", 32), "acl": "topic read a\n"} {
			if err := os.WriteFile(at(name), []byte(text+strings.Repeat("\n", n)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(0)
	file := writeFile(t, "c.yaml", "listeners: [{url: 'wss://127.0.0.1:0', cert: "+at("cert")+", key: "+at("key")+", client-auth: optional, client-ca: "+at("ca")+"}]\n"+
		"password-file: "+at("passwords")+"\njwt-secret: "+at("secret")+"\nacl: "+at("acl")+"\n")
	s := serve(t, "--config="+file)
	put(1)
	if log := s.reload(); !strings.Contains(log, `msg=reloaded read-again="acl jwt-secret password-file tls-cert tls-client-ca tls-key"`) {
		t.Errorf("the log says %s", log)
	}
}

// A listener's own settings have no keys of their own; what it takes from flags is
// named by these.
func TestReload_NamesListenersWithOtherSettings(t *testing.T) {
	file := writeFile(t, "c.yaml", "listeners: [{url: 'ws://127.0.0.1:0', ping: 10s}]\n")
	s := serve(t, "--config="+file)
	for _, step := range []struct{ text, want string }{
		{"listeners: [{url: 'ws://127.0.0.1:0', ping: 20s}]\n", "changed=listeners\n"},
		{"\nlisteners: [{url: 'ws://127.0.0.1:0', ping: 20s}]\n", "changed=nothing\n"}, // on another line
		{"listeners: [{url: 'ws://127.0.0.1:0', ping: 20s}]\nws-path: /p\n", "changed=ws-path\n"},
		{"listeners: [{url: 'ws://127.0.0.1:0', ping: 30s}]\nws-path: /q\n", "changed=\"listeners ws-path\"\n"},
	} {
		rewrite(t, file, step.text)
		if log := s.reload(); !strings.Contains(log, "msg=reloaded "+step.want) {
			t.Errorf("%s: the log says %s", step.text, log)
		}
	}
}

// A setting without use is a fault at a reload, too: what was in force stays so.
func TestReload_RefusesSettingsWithoutUse(t *testing.T) {
	secret := writeFile(t, "secret", strings.Repeat("s", 32))
	file := writeFile(t, "c.yaml", "jwt-secret: "+secret+"\njwt-issuer: us\n")
	s := serve(t, "--config="+file, "--tcp=127.0.0.1:0")
	rewrite(t, file, "jwt-issuer: us\n")
	if log := s.reload(); !strings.Contains(log, "jwt-issuer: is set, but tokens are not taken") || !strings.Contains(log, "not reloaded") {
		t.Errorf("the log says %s", log)
	}
	if code, _, stderr := command(t, "pub", "-u", s.urls[0], "-t", "a", "-m", "b"); code != exitRefused {
		t.Errorf("somebody without a token is let in: exit %d, %s", code, stderr)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
