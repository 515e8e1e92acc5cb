package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestServe_PrintsOneLineForEachListenerWithThePortChosen(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	s := serve(t, "--ws=127.0.0.1:0", "--tcp=127.0.0.1:0", "--tcp=[::1]:0", "--unix="+socket,
		"--config="+writeFile(t, "c.yaml", "listeners: [{url: 'ws://127.0.0.1:0/only/here'}]"))
	for i, want := range []struct{ prefix, suffix string }{
		{"ws://127.0.0.1:", "/only/here"}, {"ws://127.0.0.1:", "/mqtt"},
		{"mqtt://127.0.0.1:", ""}, {"mqtt://[::1]:", ""}, {"unix://" + socket, ""},
	} {
		if i >= len(s.urls) || !strings.HasPrefix(s.urls[i], want.prefix) || !strings.HasSuffix(s.urls[i], want.suffix) || strings.Contains(s.urls[i], ":0") {
			t.Fatalf("listeners are %q, want %v at %d", s.urls, want, i)
		}
		if code, _, stderr := command(t, "pub", "-u", s.urls[i], "-t", "a", "-m", "b", "-q", "1"); code != 0 {
			t.Errorf("%s: %s", s.urls[i], stderr)
		}
	}
}

func TestServe_ListenerThatCannotListenEndsIt(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // the test is over
	address := taken.Addr().String()
	code, stdout, stderr := command(t, "serve", "--tcp=127.0.0.1:0", "--ws="+address)
	if code != exitFailure || stdout != "" || !strings.Contains(stderr, "cannot listen on ws://"+address) {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestServe_SignalTellsClientsAndEndsWithZero(t *testing.T) {
	s := serve(t, "--ws=127.0.0.1:0", "--tcp=127.0.0.1:0", "--drain=5s")
	ws, _, err := (&websocket.Dialer{Subprotocols: []string{"mqtt"}}).Dial(s.urls[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close() //nolint:errcheck // the test is over
	var clients []*process
	for _, version := range []string{"5", "3.1.1"} {
		c := start(t, nil, "sub", "-u", s.urls[1], "-V", version, "-t", "x/"+version, "--no-reconnect")
		probe(t, s.urls[1], "x/"+version, func() bool { return c.lineCount() > 0 })
		clients = append(clients, c)
	}
	s.signal()
	if code := s.wait(); code != exitOK {
		t.Errorf("exit %d: %s", code, s.errout.String())
	}
	for i, want := range []string{"server shutting down (0x8B)", "connection lost"} {
		if code := clients[i].wait(); code != exitLost || !strings.Contains(clients[i].errout.String(), want) {
			t.Errorf("client %d: exit %d, %s", i, code, clients[i].errout.String())
		}
	}
	_ = ws.SetReadDeadline(time.Now().Add(time.Minute)) // the read tells
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("the WebSocket ended with %v, want close code 1001", err)
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(s.urls[1], "mqtt://")); err == nil {
		t.Error("it still listens")
	}
}

func TestServe_ListenerOptionsAreItsOwn(t *testing.T) {
	s := serve(t, "--config="+writeFile(t, "c.yaml", `
ws-path: /global
listeners:
  - {url: "ws://127.0.0.1:0/own", origins: ["https://good.example"], require-subprotocol: true}
  - {url: "ws://127.0.0.1:0"}
`))
	dial := func(url, origin string, protocols ...string) int {
		h := http.Header{}
		if origin != "" {
			h.Set("Origin", origin)
		}
		c, resp, err := (&websocket.Dialer{Subprotocols: protocols}).Dial(url, h)
		if err == nil {
			_ = c.Close()
			return http.StatusSwitchingProtocols
		}
		if resp == nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	own, global := s.urls[0], s.urls[1]
	if !strings.HasSuffix(global, "/global") {
		t.Errorf("the second listener is %s", global)
	}
	for _, c := range []struct {
		url, origin string
		protocols   []string
		open        bool
	}{
		{own, "", []string{"mqtt"}, true},
		{own, "https://good.example", []string{"mqtt"}, true},
		{own, "https://bad.example", []string{"mqtt"}, false},
		{own, "", nil, false},
		{own + "/more", "", []string{"mqtt"}, false},
		{global, "", nil, true},
		{global, "https://good.example", []string{"mqtt"}, false},
	} {
		if got := dial(c.url, c.origin, c.protocols...); (got == http.StatusSwitchingProtocols) != c.open {
			t.Errorf("%s with origin %q and protocols %q: status %d", c.url, c.origin, c.protocols, got)
		}
	}
}

func TestServe_LogsInTheFormAskedFor(t *testing.T) {
	s := serve(t, "--tcp=127.0.0.1:0", "--log-format=json", "--log-level=info")
	s.signal()
	s.wait()
	for line := range strings.Lines(s.errout.String()) {
		if !strings.HasPrefix(line, `{"time":`) {
			t.Errorf("not JSON: %s", line)
		}
	}
	s = serve(t, "--tcp=127.0.0.1:0", "--log-level=error")
	s.signal()
	s.wait()
	if s.errout.String() != "" {
		t.Errorf("at level error it logs %s", s.errout.String())
	}
}

func TestServe_ReplacesTheSocketFileOfADeadProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	s := serve(t, "--unix="+path)
	if code, _, stderr := command(t, "pub", "-u", s.urls[0], "-t", "a", "-m", "b", "-q", "1"); code != 0 {
		t.Error(stderr)
	}
}
