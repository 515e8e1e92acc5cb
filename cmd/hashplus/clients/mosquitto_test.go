package clients

import (
	"bufio"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"hashplus/cmd/hashplus/launch"
)

// cli is mosquitto_pub, mosquitto_sub and mosquitto_rr speaking one version
// over one transport.
type cli struct {
	version string   // as -V takes it
	server  []string // options that name the server
}

func eachCLI(t *testing.T, f func(t *testing.T, c cli)) {
	t.Parallel()
	u, err := url.Parse(shared.tcp)
	if err != nil {
		t.Fatal(err)
	}
	servers := map[string][]string{"TCP": {"-h", u.Hostname(), "-p", u.Port()}}
	if shared.unix != "" || !foreign() {
		servers["Unix"] = []string{"--unix", shared.unix}
	}
	for transport, server := range servers {
		for _, version := range []string{"31", "311", "5"} {
			t.Run(transport+"/"+version, func(t *testing.T) {
				t.Parallel()
				f(t, cli{version: version, server: server})
			})
		}
	}
}

func (c cli) args(more ...string) []string {
	return append(slices.Concat(c.server, []string{"-V", c.version}), more...)
}

// pub runs mosquitto_pub to its end.
func (c cli) pub(t *testing.T, args ...string) {
	t.Helper()
	if _, err := command(t, patience, "mosquitto_pub", c.args(args...)...); err != nil {
		t.Fatal(err)
	}
}

// sub is a running mosquitto_sub. Its lines are "QoS retained topic payload".
type sub struct {
	process *exec.Cmd
	lines   chan string
	errors  *launch.Log
}

// sub starts mosquitto_sub and returns when it has subscribed, which it shows
// by printing a retained message of the test: it has no other way to tell.
func (c cli) sub(t *testing.T, args ...string) *sub {
	t.Helper()
	ready := room(t) // nobody else listens there
	c.pub(t, "-r", "-q", "1", "-t", ready, "-m", "ready")
	t.Cleanup(func() { command(t, patience, "mosquitto_pub", c.args("-r", "-n", "-t", ready)...) })
	s := c.listen(t, append(args, "-t", ready)...)
	if line := s.next(t); !strings.HasSuffix(line, "ready") {
		t.Fatalf("mosquitto_sub printed %q first", line)
	}
	return s
}

// listen starts mosquitto_sub; what it prints comes by next.
func (c cli) listen(t *testing.T, args ...string) *sub {
	t.Helper()
	s := &sub{lines: make(chan string, 1000), errors: new(launch.Log)}
	s.process = exec.Command(tool(t, "mosquitto_sub"), c.args(append(args, "-F", "%q %r %t %p")...)...)
	s.process.Stderr = s.errors
	out, err := s.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.lines <- lines.Text()
		}
	}()
	t.Cleanup(s.kill)
	return s
}

// kill ends it without a DISCONNECT.
func (s *sub) kill() {
	s.process.Process.Kill() // may have ended
	for range s.lines {
	}
	s.process.Wait()
}

// leave ends it with a DISCONNECT.
func (s *sub) leave(t *testing.T) {
	t.Helper()
	if err := s.process.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for range s.lines {
	}
	s.process.Wait() // the status after a signal is its own affair
}

func (s *sub) next(t *testing.T) string {
	t.Helper()
	select {
	case line, ok := <-s.lines:
		if !ok {
			t.Fatalf("mosquitto_sub ended: %s", s.errors)
		}
		return line
	case <-time.After(patience):
		t.Fatalf("mosquitto_sub printed nothing more: %s", s.errors)
		return ""
	}
}

func (s *sub) want(t *testing.T, lines ...string) {
	t.Helper()
	for _, want := range lines {
		if got := s.next(t); got != want {
			t.Fatalf("mosquitto_sub printed %q, want %q", got, want)
		}
	}
}

func TestMosquitto_EachQoSAndRetained(t *testing.T) { // [MQTT-3.8.4-8], [MQTT-3.3.1-5]
	eachCLI(t, func(t *testing.T, c cli) {
		in := room(t)
		s := c.sub(t, "-t", in+"/+", "-q", "2")
		for qos := range 3 {
			c.pub(t, "-t", in+"/x", "-q", fmt.Sprint(qos), "-m", fmt.Sprint("live", qos))
			s.want(t, fmt.Sprintf("%d 0 %s/x live%d", qos, in, qos))
			c.pub(t, "-t", in+"/x", "-q", fmt.Sprint(qos), "-r", "-m", fmt.Sprint("kept", qos))
			s.want(t, fmt.Sprintf("%d 0 %s/x kept%d", qos, in, qos))
			c.listen(t, "-t", in+"/x", "-q", "2", "-C", "1").want(t, fmt.Sprintf("%d 1 %s/x kept%d", qos, in, qos))
		}
		c.pub(t, "-t", in+"/x", "-r", "-n")
		s.want(t, fmt.Sprintf("0 0 %s/x ", in))
	})
}

func TestMosquitto_LinesOfABurstComeInOrder(t *testing.T) { // [MQTT-4.6.0-5]
	const n = 200
	eachCLI(t, func(t *testing.T, c cli) {
		in := room(t)
		s := c.sub(t, "-t", in+"/+", "-q", "2")
		var burst strings.Builder
		for i := range n {
			fmt.Fprintln(&burst, i)
		}
		publish := exec.Command(tool(t, "mosquitto_pub"), c.args("-t", in+"/x", "-q", "1", "-l")...)
		publish.Stdin = strings.NewReader(burst.String())
		if out, err := publish.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for i := range n {
			s.want(t, fmt.Sprintf("1 0 %s/x %d", in, i))
		}
	})
}

func TestMosquitto_WillComesWhenTheProcessIsKilled(t *testing.T) { // [MQTT-3.1.2-8], [MQTT-3.14.4-3]
	eachCLI(t, func(t *testing.T, c cli) {
		in := room(t)
		watcher := c.sub(t, "-t", in+"/will", "-q", "2")
		mortal := func() *sub {
			return c.sub(t, "--will-topic", in+"/will", "--will-payload", "gone", "--will-qos", "1", "-t", in+"/x")
		}
		mortal().leave(t)
		if c.version == "5" { // it leaves with the reason code 0x04, disconnect with will message
			watcher.want(t, fmt.Sprintf("1 0 %s/will gone", in))
		}
		mortal().kill()
		watcher.want(t, fmt.Sprintf("1 0 %s/will gone", in))
		c.pub(t, "-t", in+"/will", "-m", "end")
		watcher.want(t, fmt.Sprintf("0 0 %s/will end", in)) // so there was no will more
	})
}

func TestMosquitto_QueueWaitsForAnAbsentSubscriber(t *testing.T) { // [MQTT-3.1.2-4], [MQTT-4.4.0-1]
	eachCLI(t, func(t *testing.T, c cli) {
		in := room(t)
		keep := []string{"-c", "-i", in, "-t", in + "/+", "-q", "1"}
		if c.version == "5" {
			keep = append(keep, "-x", "300")
		}
		c.sub(t, keep...).leave(t)
		for i := range 20 {
			c.pub(t, "-t", in+"/x", "-q", "1", "-m", fmt.Sprint(i))
		}
		back := c.listen(t, append(keep, "-C", "20")...)
		for i := range 20 {
			back.want(t, fmt.Sprintf("1 0 %s/x %d", in, i))
		}
	})
}

func TestMosquitto_ShareGroupGetsEachMessageOnce(t *testing.T) { // [MQTT-4.8.2-4]
	eachCLI(t, func(t *testing.T, c cli) {
		in := room(t)
		filter := "$share/g" + in + "/" + in + "/+"
		a, b := c.sub(t, "-t", filter, "-q", "1"), c.sub(t, "-t", filter, "-q", "1")
		for i := range 10 {
			c.pub(t, "-t", in+"/x", "-q", "1", "-m", fmt.Sprint(i))
		}
		seen := map[string]int{}
		deadline := time.After(patience)
		for n := 0; n < 10; n++ {
			select {
			case line := <-a.lines:
				seen[line]++
			case line := <-b.lines:
				seen[line]++
			case <-deadline:
				t.Fatalf("the group got %d of 10 messages", n)
			}
		}
		if len(seen) != 10 {
			t.Errorf("of 10 messages came %v", seen)
		}
	})
}

func TestMosquitto_RequestIsAnswered(t *testing.T) { // [MQTT-4.10]
	eachCLI(t, func(t *testing.T, c cli) {
		in := room(t)
		k := kind{library: libraries()[0], version: v311, scheme: "mqtt"}
		if c.version == "5" {
			k = kind{library: libraries()[1], version: v5, scheme: "mqtt"}
		}
		service, _ := k.dial(t, setup{})
		mustSubscribe(t, service, subscription{Filter: in + "/request", QoS: 1})
		answered := make(chan error, 1)
		go func() {
			err := service.inbox().wait(func() bool { return len(service.inbox().messages) > 0 })
			if err == nil {
				err = service.publish(reply(k, service.inbox().all()[0]))
			}
			answered <- err
		}()
		request := "ping"
		if k.version != v5 {
			request = in + "/reply|ping"
		}
		got, err := command(t, patience, "mosquitto_rr", c.args("-t", in+"/request", "-e", in+"/reply", "-q", "1", "-m", request)...)
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(got) != "re ping" {
			t.Errorf("mosquitto_rr printed %q", got)
		}
		if err := <-answered; err != nil {
			t.Errorf("the service: %v", err)
		}
	})
}
