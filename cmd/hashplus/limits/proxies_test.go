package limits

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hashplus/broker/wire"
	"hashplus/cmd/hashplus/launch"
)

// The configurations are those of docs/proxies.md, with free ports.

// block returns the code block of docs/proxies.md that begins with first, with
// replacements made, each of which must occur.
func block(t testing.TB, first string, replacements ...string) string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/proxies.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(page), "```"+first+"\n")
	text, _, end := strings.Cut(text, "```\n")
	if !ok || !end {
		t.Fatalf("docs/proxies.md has no block %q", first)
	}
	for i := 0; i < len(replacements); i += 2 {
		if !strings.Contains(text, replacements[i]) {
			t.Fatalf("the block %q has no %q", first, replacements[i])
		}
		text = strings.ReplaceAll(text, replacements[i], replacements[i+1])
	}
	return text
}

// freePorts returns ports that nobody listens on.
func freePorts(t testing.TB, n int) (ports []string) {
	t.Helper()
	addresses, err := launch.FreeAddresses(n)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		_, port, _ := net.SplitHostPort(a)
		ports = append(ports, port)
	}
	return ports
}

// run starts a proxy that lives as long as the test, and waits until it listens.
func run(t testing.TB, port string, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path = "/usr/sbin/" + name; exec.Command(path, "-v").Run() != nil {
			t.Skipf("there is no %s here; .ci/deps installs it", name)
		}
	}
	cmd := exec.Command(path, args...)
	out := new(launch.Log)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended, which Wait tells
		_ = cmd.Wait()                          // by a signal
		if t.Failed() {
			t.Logf("%s: %s", name, out.Tail(20))
		}
	})
	until(t, name+" listens", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// nginx runs the page's nginx with its timers set to idle, and hashplus behind it
// with pings at an interval. It returns the broker and where nginx listens.
func nginx(t testing.TB, idle, ping string) (*server, string) {
	t.Helper()
	dir, ports := t.TempDir(), freePorts(t, 2)
	s := serveFile(t, block(t, "yaml\n# for nginx", "127.0.0.1:8083", "127.0.0.1:"+ports[0])+"ws-ping: "+ping+"\n")
	conf := filepath.Join(dir, "nginx.conf")
	text := "daemon off; master_process off; error_log stderr; pid " + dir + "/pid;\nevents {}\nhttp {\naccess_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		text += kind + "_temp_path " + dir + "/" + kind + ";\n"
	}
	text += block(t, "nginx", "listen 80;", "listen 127.0.0.1:"+ports[1]+";", "127.0.0.1:8083", "127.0.0.1:"+ports[0], "60s", idle) + "}\n"
	write(t, conf, text)
	run(t, ports[1], "nginx", "-p", dir, "-e", "stderr", "-c", conf)
	return s, "127.0.0.1:" + ports[1]
}

// haproxy is the same for HAProxy, which has a port for WebSocket and one for TCP.
func haproxy(t testing.TB, idle, ping string) (s *server, web, tcp string) {
	t.Helper()
	dir, ports := t.TempDir(), freePorts(t, 4)
	// The keep alive of the page is for MQTT over TCP; idle clients here have none.
	s = serveFile(t, block(t, "yaml\n# for HAProxy", "max-keepalive: 45 ", "max-keepalive: 0 ", "127.0.0.1:8083", "127.0.0.1:"+ports[0], "127.0.0.1:1883", "127.0.0.1:"+ports[1])+"ws-ping: "+ping+"\n")
	conf := filepath.Join(dir, "haproxy.cfg")
	write(t, conf, block(t, "haproxy", "bind :80 ", "bind 127.0.0.1:"+ports[2]+" ", "bind :1883 ", "bind 127.0.0.1:"+ports[3]+" ",
		"127.0.0.1:8083", "127.0.0.1:"+ports[0], "127.0.0.1:1883", "127.0.0.1:"+ports[1], "60s", idle))
	run(t, ports[2], "haproxy", "-db", "-f", conf)
	return s, "127.0.0.1:" + ports[2], "127.0.0.1:" + ports[3]
}

// serveFile is serve with a configuration file in place of flags.
func serveFile(t testing.TB, text string) *server {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hashplus.yaml")
	write(t, path, text)
	started, err := launch.StartListeners(program, strings.Count(text, "- url:"), patience, "--config="+path, "--log-level=debug", "--sys-interval=1s")
	s := watch(t, started, err)
	s.stopAtTheEnd()
	return s
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reach connects to a proxy from an address of this machine that is the client's.
func reach(t testing.TB, s *server, from, to string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test is over
	return conn
}

// reachWeb does the same and opens a WebSocket; extra are header lines.
func reachWeb(t testing.TB, s *server, from, to, extra string) *client {
	t.Helper()
	w := &webSocket{Conn: reach(t, s, from, to), pongs: true}
	if _, err := io.WriteString(w.Conn, handshake("mqtt.example.com", extra)); err != nil {
		t.Fatal(err)
	}
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	return newClient(t, w, v5)
}

// seenFrom waits until the broker's log names the address a client came from. The
// client breaks the protocol for that.
func (c *client) seenFrom(s *server, address string) {
	c.t.Helper()
	c.send([]byte{0xF0 | 1, 0}) // AUTH with a flag set
	want := "remote=" + address + ":"
	until(c.t, "the log has "+want, func() bool {
		for line := range strings.Lines(s.Log.String()) {
			if strings.Contains(line, "connection ended") && strings.Contains(line, want) {
				return true
			}
		}
		return false
	})
}

func TestProxies_NginxPassesTheClientsAddressOn(t *testing.T) {
	t.Parallel()
	s, at := nginx(t, "60s", "25s")
	a, b := reachWeb(t, s, "127.0.0.7", at, ""), reachWeb(t, s, "127.0.0.8", at, "Origin: https://mqtt.example.com\r\n")
	talk(a, b)
	// What the client says of itself changes nothing.
	liar := reachWeb(t, s, "127.0.0.9", at, "X-Forwarded-For: 192.0.2.1, 127.0.0.1\r\nForwarded: for=192.0.2.2\r\nX-Real-IP: 192.0.2.3\r\n")
	liar.join()
	liar.seenFrom(s, "127.0.0.9")
	a.seenFrom(s, "127.0.0.7")
	if strings.Contains(s.Log.String(), "192.0.2.") {
		t.Error("somebody believed what the client wrote")
	}
}

func TestProxies_HAProxyPassesTheClientsAddressOn(t *testing.T) {
	t.Parallel()
	s, web, tcp := haproxy(t, "60s", "25s")
	a := reachWeb(t, s, "127.0.0.7", web, "X-Forwarded-For: 192.0.2.1\r\n")
	b := newClient(t, reach(t, s, "127.0.0.8", tcp), v5)
	talk(a, b)
	a.seenFrom(s, "127.0.0.7")
	b.seenFrom(s, "127.0.0.8")
	if strings.Contains(s.Log.String(), "192.0.2.") {
		t.Error("somebody believed what the client wrote")
	}
	// Who comes by the proxy's way without being the proxy is refused.
	direct := reach(t, s, "127.0.0.66", s.tcp)
	_, _ = direct.Write([]byte("PROXY TCP4 192.0.2.66 127.0.0.1 1 2\r\n")) // it may be closed by now
	if b, err := io.ReadAll(direct); len(b) > 0 {
		t.Errorf("%q %v", b, err)
	}
	until(t, "the log tells of the stranger", func() bool {
		return strings.Contains(s.Log.String(), "remote=127.0.0.66:") && strings.Contains(s.Log.String(), "not a trusted proxy")
	})
}

// talk has each of two clients receive from the other, small and large.
func talk(a, b *client) {
	for _, c := range []*client{a, b} {
		c.join()
		c.subscribe(1, fmt.Sprintf("to/%p", c))
	}
	for _, pair := range [][2]*client{{a, b}, {b, a}} {
		for _, size := range []int{1, 200_000} {
			payload := bytes.Repeat([]byte("x"), size)
			pair[0].post(1, fmt.Sprintf("to/%p", pair[1]), payload)
			if got := pair[1].take().Payload; !bytes.Equal(got, payload) {
				a.t.Errorf("%d of %d bytes came", len(got), size)
			}
		}
	}
}

// Behind timers of six seconds, pings each second keep a client whose keep alive
// is off; the client takes part again after it was idle.
func TestProxies_IdleClientSurvivesTheirTimers(t *testing.T) {
	t.Parallel()
	idleBehindProxies(t, "6s", "1s", 10*time.Second)
}

// Without pings they do not survive: it is the timers that the test is about.
func TestProxies_TimersEndWhoIsNotPinged(t *testing.T) {
	t.Parallel()
	s, at := nginx(t, "3s", "0")
	c := reachWeb(t, s, "127.0.0.7", at, "")
	c.join()
	if _, _, err := c.read(patience); err == nil || os.IsTimeout(err) {
		t.Errorf("after %v of silence: %v", patience, err)
	}
}

func idleBehindProxies(t *testing.T, idle, ping string, silence time.Duration) {
	viaNginx, at := nginx(t, idle, ping)
	viaHAProxy, web, _ := haproxy(t, idle, ping)
	for _, p := range []struct {
		name string
		s    *server
		at   string
	}{{"nginx", viaNginx, at}, {"haproxy", viaHAProxy, web}} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			there := *p.s
			there.t = t
			// One browser, which answers pings, and one that does not.
			var idle []*client
			for _, pongs := range []bool{true, false} {
				c := reachWeb(t, &there, "127.0.0.7", p.at, "")
				c.conn.(*webSocket).pongs = pongs
				c.join(func(p *wire.Connect) { p.KeepAlive = 0 })
				c.subscribe(1, "wake")
				idle = append(idle, c)
			}
			awake := make(chan error, len(idle))
			for _, c := range idle {
				if err := c.conn.SetDeadline(time.Now().Add(silence + patience)); err != nil {
					t.Fatal(err)
				}
				go func() { // reads, and answers pings, until the message comes
					_, err := c.in.Peek(1)
					awake <- err
				}()
			}
			time.Sleep(silence)
			other := reachWeb(t, &there, "127.0.0.8", p.at, "")
			other.join()
			other.post(1, "wake", []byte("up"))
			for range idle {
				if err := <-awake; err != nil {
					t.Fatal(err)
				}
			}
			for i, c := range idle {
				if got := c.take(); string(got.Payload) != "up" {
					t.Errorf("client %d got %q", i, got.Payload)
				}
				c.alive()
			}
		})
	}
}
