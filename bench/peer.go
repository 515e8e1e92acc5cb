package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// peer is a broker that can be started, or one that runs already.
type peer struct {
	name    string
	command []string          // with {ws}, {tcp}, {wsport}, {tcpport} and {data}
	temp    string            // where folders for {data} are made
	files   map[string]string // written before each start, with the same replaced
	url     string            // of one that runs already
	pid     int               // of one that runs already, if known
}

// broker is a running peer.
type broker struct {
	ws, tcp string // URLs
	pid     int
	stop    func()
}

// startTime is how long a broker may take until it listens; stopTime how long
// until it has ended after SIGTERM.
const (
	startTime = 15 * time.Second
	stopTime  = 5 * time.Second
)

// parsePeer reads a --peer. What must be built or written goes below temp.
func (c *Peers) parsePeer(ctx context.Context, spec, temp string) (*peer, error) {
	name, what, given := strings.Cut(spec, "=")
	p := &peer{name: name, temp: temp}
	if !given {
		return p, c.known(ctx, p, temp)
	}
	if pid, url, ok := strings.Cut(what, "@"); ok && strings.Contains(url, "://") {
		var err error
		if p.pid, err = strconv.Atoi(pid); err != nil {
			return nil, fmt.Errorf("process id: %w", err)
		}
		what = url
	}
	if strings.Contains(strings.SplitN(what, " ", 2)[0], "://") {
		p.url = what
		return p, nil
	}
	var err error
	if p.command, err = words(what); err != nil {
		return nil, err
	}
	if len(p.command) == 0 {
		return nil, errors.New("no command")
	}
	if address := map[bool]string{false: "{ws}", true: "{tcp}"}[c.TCP]; !p.mentions(address) {
		return nil, fmt.Errorf("its command has no %s to say where the broker is to listen", address)
	}
	return p, nil
}

// words splits a command at blanks, but for those in single or double quotes.
func words(command string) (all []string, err error) {
	var word strings.Builder
	quote, begun := rune(0), false
	for _, r := range command {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, begun = r, true
		case quote == 0 && unicode.IsSpace(r):
			if begun {
				all = append(all, word.String())
				word.Reset()
			}
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("%c is not closed in: %s", quote, command)
	}
	if begun {
		all = append(all, word.String())
	}
	return all, nil
}

// mentions tells whether the command has a place for the address: {ws} or {tcp},
// or its port alone.
func (p *peer) mentions(address string) bool {
	port := strings.TrimSuffix(address, "}") + "port}"
	has := func(text string) bool { return strings.Contains(text, address) || strings.Contains(text, port) }
	return slices.ContainsFunc(p.command, has) || slices.ContainsFunc(slices.Collect(maps.Values(p.files)), has)
}

// known fills in the peers that come with the generator.
func (c *Peers) known(ctx context.Context, p *peer, temp string) error {
	switch p.name {
	case "mosquitto":
		path, err := exec.LookPath("mosquitto")
		if err != nil {
			// Debian keeps it out of an ordinary user's path.
			path = "/usr/sbin/mosquitto"
			if _, err := os.Stat(path); err != nil {
				return fmt.Errorf("not installed: %w", err)
			}
		}
		conf := filepath.Join(temp, "mosquitto.conf")
		p.command = []string{path, "-c", conf}
		p.files = map[string]string{conf: "listener {tcpport} 127.0.0.1\nlistener {wsport} 127.0.0.1\nprotocol websockets\n" +
			"allow_anonymous true\npersistence false\nmax_queued_messages 0\nset_tcp_nodelay true\nlog_type error\n"}
		return nil
	case "mochi", "nats":
		bin := filepath.Join(temp, p.name)
		build := exec.CommandContext(ctx, "go", "build", "-o", bin, ".")
		build.Dir = filepath.Join(c.Source, p.name)
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build in %s: %w\n%s", build.Dir, err, out)
		}
		p.command = []string{bin, "-ws", "{ws}", "-tcp", "{tcp}"}
		if c.Suite == "durable" {
			p.command = append(p.command, "-durable", "{data}")
		}
		return nil
	}
	return errors.New("needs a command or a URL")
}

// start runs the broker on ports of its own and waits until it listens.
func (p *peer) start(ctx context.Context) (*broker, error) {
	if p.url != "" {
		return &broker{ws: p.url, tcp: p.url, pid: p.pid, stop: func() {}}, nil
	}
	ws, err := freePort()
	if err != nil {
		return nil, err
	}
	tcp, err := freePort()
	if err != nil {
		return nil, err
	}
	data, err := os.MkdirTemp(p.temp, p.name+"-data-")
	if err != nil {
		return nil, err
	}
	fill := strings.NewReplacer("{data}", data, "{ws}", "127.0.0.1:"+ws, "{tcp}", "127.0.0.1:"+tcp, "{wsport}", ws, "{tcpport}", tcp)
	for path, text := range p.files {
		if err := os.WriteFile(path, []byte(fill.Replace(text)), 0o644); err != nil {
			return nil, err
		}
	}
	var args []string
	for _, a := range p.command {
		args = append(args, fill.Replace(a))
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(cmd.Environ(), "TMPDIR="+p.temp) // what a peer leaves goes with the run's folder
	var output tail
	cmd.Stdout, cmd.Stderr = &output, &output
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	b := &broker{ws: "ws://127.0.0.1:" + ws + "/mqtt", tcp: "tcp://127.0.0.1:" + tcp, pid: cmd.Process.Pid}
	b.stop = func() {
		// Either may fail only because the process has ended.
		_ = signalGroup(cmd.Process, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(stopTime):
			_ = signalGroup(cmd.Process, syscall.SIGKILL)
			<-ended
		}
		_ = os.RemoveAll(data) // or with the run's folder
	}
	for address, port := range map[string]string{"{ws}": ws, "{tcp}": tcp} {
		if !p.mentions(address) {
			continue
		}
		if err := listening(ctx, port, ended); err != nil {
			b.stop()
			return nil, fmt.Errorf("%w\n%s", err, output.text())
		}
	}
	return b, nil
}

// listening waits until a connection to port is accepted. If the process ends
// first, its end is put back for stop to find.
func listening(ctx context.Context, port string, ended chan error) error {
	for deadline := time.Now().Add(startTime); ; {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not listening on port %s after %v", port, startTime)
		}
		select {
		case err := <-ended:
			ended <- err
			return fmt.Errorf("ended at once: %w", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// freePort is a port that nobody listened on a moment ago, and none that the
// system gives to those who ask for any.
func freePort() (port string, err error) {
	for range 1000 {
		port = strconv.Itoa(10_000 + rand.IntN(20_000))
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			return port, l.Close()
		}
	}
	return "", err
}

// tail keeps the end of what a broker prints, for when it does not start. Only
// the goroutine of exec writes, and it has ended, or the text is cut somewhere.
type tail struct{ b []byte }

const tailSize = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 2*tailSize {
		t.b = append([]byte(nil), t.b[len(t.b)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) text() string { return string(t.b) }
