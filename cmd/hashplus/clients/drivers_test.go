package clients

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hashplus/cmd/hashplus/launch"
)

// A driver is a process that runs client libraries of another language, many
// clients in one process. It reads requests and writes answers and events, one
// JSON object a line:
//
//	{"id":1,"client":"c1","op":"connect","args":{…}}   a request: setup, subscription or message
//	{"id":1,"result":{…}} or {"id":1,"error":"…"}      its answer
//	{"client":"c1","event":"message","topic":…}         an event: message, up, down, disconnect
type driver struct {
	name    string
	process *exec.Cmd
	log     *launch.Log
	write   sync.Mutex // guards stdin
	stdin   io.WriteCloser

	mu      sync.Mutex // guards what follows
	next    int
	pending map[int]chan answer
	clients map[string]*inbox
	ended   error
}

type answer struct {
	Result json.RawMessage `json:"result"`
	Error  string          `json:"error"`
}

// line is an answer or an event.
type line struct {
	answer
	ID     int    `json:"id"`
	Client string `json:"client"`
	Event  string `json:"event"`
	Reason int    `json:"reason"`
	message
}

// drivers are started when a test first needs them and end with the tests.
var (
	driversMu sync.Mutex
	drivers   = map[string]*driver{}
)

func stopDrivers() {
	driversMu.Lock()
	defer driversMu.Unlock()
	for _, d := range drivers {
		d.stop()
	}
}

// once returns the driver of that name, started by start at the first call.
func once(t *testing.T, name string, start func(t *testing.T) *driver) *driver {
	t.Helper()
	driversMu.Lock()
	defer driversMu.Unlock()
	d := drivers[name]
	if d == nil {
		d = start(t)
		drivers[name] = d
	}
	return d
}

// python is Debian's Python, which is the one that sees Debian's packages.
func python(t *testing.T) *driver {
	return once(t, "python", func(t *testing.T) *driver {
		return startDriver(t, "python", debianPython(t), "drivers/paho_python.py")
	})
}

func debianPython(t *testing.T) string { return tool(t, "/usr/bin/python3") }

func node(t *testing.T) *driver {
	return once(t, "node", func(t *testing.T) *driver {
		modules(t)
		return startDriver(t, "node", tool(t, "node"), "drivers/node.mjs")
	})
}

// browser is Chromium on a page that holds the client libraries, served from
// http://localhost.
func browser(t *testing.T) *driver {
	return once(t, "browser", func(t *testing.T) *driver {
		d := startBrowser(t, os.Getenv("HOME"))
		if err := d.call("", "open", map[string]any{"url": site(t) + "/drivers/page.html"}, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.call("", "wait", map[string]any{"script": "window.ready"}, nil); err != nil {
			t.Fatal(err)
		}
		return d
	})
}

// startBrowser starts Chromium for a user whose home is the folder: there it
// finds the authorities that the user trusts.
func startBrowser(t *testing.T, home string) *driver {
	t.Helper()
	modules(t)
	return startDriver(t, "browser", tool(t, "env"), "HOME="+home, tool(t, "node"), "drivers/browser.mjs", tool(t, "chromium"),
		"MAP evil.test 127.0.0.1,MAP *.evil.test 127.0.0.1")
}

// modules fails the test when the npm modules are not installed.
func modules(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("node_modules/mqtt"); err != nil {
		t.Fatalf("%v (.ci/deps installs it)", err)
	}
}

var (
	siteOnce sync.Once
	siteURL  string
	siteErr  error
)

// site serves the pages for as long as the process runs. It is http://localhost:PORT;
// Chromium finds the same pages under http://evil.test:PORT.
func site(t *testing.T) string {
	t.Helper()
	siteOnce.Do(func() {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			siteErr = err
			return
		}
		go http.Serve(listener, pages()) // ends with the process
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		siteURL = "http://localhost:" + port
	})
	if siteErr != nil {
		t.Fatal(siteErr)
	}
	return siteURL
}

// pages are those of the tests and of docs/examples, and the libraries that they
// load.
func pages() http.Handler {
	mux := http.NewServeMux()
	for path, file := range map[string]string{
		"/mqtt.min.js":  "node_modules/mqtt/dist/mqtt.min.js",
		"/paho-mqtt.js": "node_modules/paho-mqtt/paho-mqtt.js",
		// The example loads it from its own folder.
		"/examples/mqtt.min.js": "node_modules/mqtt/dist/mqtt.min.js",
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	}
	mux.Handle("/drivers/", javascript(http.FileServer(http.Dir("."))))
	mux.Handle("/examples/", http.StripPrefix("/examples/", http.FileServer(http.Dir(examples))))
	// A page logs in: its server answers with a cookie that scripts can't read.
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: r.URL.Query().Get("session"), Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode})
		http.Redirect(w, r, "/drivers/page.html", http.StatusSeeOther)
	})
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "<!doctype html><title>empty</title>")
	})
	return mux
}

// examples is the folder of the examples in the documentation.
var examples = filepath.Join("..", "..", "..", "docs", "examples")

// javascript names the type of .mjs files, which not every system knows.
func javascript(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".mjs") {
			w.Header().Set("Content-Type", "text/javascript")
		}
		next.ServeHTTP(w, r)
	})
}

func startDriver(t *testing.T, name, program string, args ...string) *driver {
	t.Helper()
	d := &driver{
		name: name, process: exec.Command(program, args...), log: new(launch.Log),
		pending: map[int]chan answer{}, clients: map[string]*inbox{},
	}
	d.process.Stderr = d.log
	stdin, err := d.process.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.stdin = stdin
	stdout, err := d.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.process.Start(); err != nil {
		t.Fatal(err)
	}
	go d.read(stdout)
	return d
}

// stop ends the driver by ending its input, or by force if that does not help.
func (d *driver) stop() {
	d.stdin.Close()
	timer := time.AfterFunc(5*time.Second, func() { d.process.Process.Kill() })
	defer timer.Stop()
	d.process.Wait() // its status tells nothing that the tests did not
}

func (d *driver) read(stdout io.Reader) {
	lines := bufio.NewReaderSize(stdout, 1<<20)
	var err error
	for {
		var text []byte
		if text, err = lines.ReadBytes('\n'); err != nil {
			break
		}
		var l line
		if err = json.Unmarshal(text, &l); err != nil {
			err = fmt.Errorf("%w in %.200s", err, text)
			break
		}
		d.mu.Lock()
		if l.Event == "" {
			if wanted := d.pending[l.ID]; wanted != nil {
				delete(d.pending, l.ID)
				wanted <- l.answer
			}
			d.mu.Unlock()
			continue
		}
		in := d.clients[l.Client]
		d.mu.Unlock()
		if in == nil {
			continue
		}
		switch l.Event {
		case "message":
			in.add(l.message)
		case "up":
			in.up()
		case "down":
			in.down()
		case "disconnect":
			in.told(l.Reason)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = fmt.Errorf("driver %s ended: %w", d.name, err)
	for id, wanted := range d.pending {
		delete(d.pending, id)
		wanted <- answer{Error: d.ended.Error()}
	}
}

// answerLimit bounds one request. It is more than the drivers' own limits, whose
// errors say more; the longest is to start a page in Chromium.
const answerLimit = 90 * time.Second

// call sends a request and decodes the answer into result, if it is not nil.
// An error ends with what the driver wrote to standard error. Any goroutine.
func (d *driver) call(client, op string, args, result any) error {
	answered := make(chan answer, 1)
	d.mu.Lock()
	if d.ended != nil {
		d.mu.Unlock()
		return fmt.Errorf("%w\n%s", d.ended, d.log.Tail(20))
	}
	d.next++
	id := d.next
	d.pending[id] = answered
	d.mu.Unlock()
	request, err := json.Marshal(map[string]any{"id": id, "client": client, "op": op, "args": args})
	if err != nil {
		return err
	}
	d.write.Lock()
	_, err = d.stdin.Write(append(request, '\n'))
	d.write.Unlock()
	if err != nil {
		return fmt.Errorf("driver %s: %w\n%s", d.name, err, d.log.Tail(20))
	}
	var a answer
	select {
	case a = <-answered:
	case <-time.After(answerLimit):
		a.Error = "no answer"
	}
	if a.Error != "" {
		return fmt.Errorf("driver %s: %s: %s\n%s", d.name, op, a.Error, d.log.Tail(20))
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(a.Result, result)
}

// foreignConn is a client in a driver.
type foreignConn struct {
	driver  *driver
	library string // for a driver with more than one
	page    string // in a browser, the page that it lives on; empty is the common one
	setup   setup
	name    string
	in      *inbox
}

func foreignClient(start func(*testing.T) *driver, lib string) func(*testing.T, setup) client {
	return func(t *testing.T, s setup) client {
		return &foreignConn{driver: start(t), library: lib, setup: s, in: newInbox(), name: room(t)}
	}
}

func (c *foreignConn) request(op string, args, result any) error {
	// The arguments of any request are an object; the library's name is one more.
	text, err := json.Marshal(args)
	if err != nil {
		return err
	}
	object := map[string]any{}
	if err := json.Unmarshal(text, &object); err != nil {
		return err
	}
	object["library"] = c.library
	if c.page != "" {
		object["page"] = c.page
	}
	return c.driver.call(c.name, op, object, result)
}

// listen has the events of a client kept in its inbox.
func (d *driver) listen(client string, in *inbox) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clients[client] = in
}

func (c *foreignConn) connect() (up connected, err error) {
	c.driver.listen(c.name, c.in)
	err = c.request("connect", c.setup, &up)
	return up, err
}

func (c *foreignConn) subscribe(s subscription) (byte, error) {
	var ack struct {
		Granted *byte `json:"granted"`
	}
	if err := c.request("subscribe", s, &ack); err != nil {
		return 0, err
	}
	if ack.Granted == nil {
		return 0, errors.New("the library told no code of SUBACK")
	}
	return *ack.Granted, nil
}

func (c *foreignConn) unsubscribe(filter string) error {
	return c.request("unsubscribe", map[string]string{"filter": filter}, nil)
}

// renew re-authenticates with a new token.
func (c *foreignConn) renew(token string) error {
	return c.request("renew", map[string]string{"token": token}, nil)
}

func (c *foreignConn) publish(m message) error { return c.request("publish", m, nil) }
func (c *foreignConn) disconnect() error       { return c.request("disconnect", struct{}{}, nil) }
func (c *foreignConn) inbox() *inbox           { return c.in }
