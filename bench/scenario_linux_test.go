package bench

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// parse turns a command line into its scenario.
func parse(t *testing.T, args ...string) runner {
	t.Helper()
	var c Command
	p, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	k, err := p.Parse(args)
	if err != nil {
		t.Fatal(err)
	}
	r, ok := k.Selected().Target.Addr().Interface().(runner)
	if !ok {
		t.Fatalf("%v is no scenario", args)
	}
	return r
}

func TestSuite_EveryCaseIsACommandLine(t *testing.T) {
	for _, c := range suiteCases() {
		parse(t, c.args...)
	}
}

// TestPlans_AddUp holds each scenario's plan against the plainest reading of
// MQTT: who subscribes to a filter that matches a flow's topic is who must
// account for it, and their number is the sender's fan.
func TestPlans_AddUp(t *testing.T) {
	o := func() *Options { return &Options{Load: Load{Duration: time.Second}} }
	for _, s := range []*scenario{
		fanout(o(), 2, 5), fanin(o(), 5, 2), pairs(o(), 4), request(o(), 3), wildcard(o(), 400, 20, 7), wildcard(o(), 2000, 7, 3), mixed(o(), "mixed", 60),
	} {
		t.Run(s.title, func(t *testing.T) {
			s.plan.EnsureDefaults()
			if err := s.plan.Validate(); err != nil {
				t.Fatal(err)
			}
			used := map[uint32]bool{}
			for f := range s.plan.Flows {
				flow := &s.plan.Flows[f]
				snd := &s.plan.Senders[flow.Sender]
				if uint32(f) < snd.FlowBase || uint32(f) >= snd.FlowBase+snd.Flows {
					t.Fatalf("flow %d is not among its sender's", f)
				}
				got := 0
				for i := range s.plan.Clients {
					c := &s.plan.Clients[i]
					topic := flow.Topic
					if flow.Reply != "" && !c.Echo {
						topic = flow.Reply
					}
					subscribed := false
					for _, sub := range c.Subs {
						subscribed = subscribed || matches(sub.Filter, topic)
					}
					k := uint32(f) - c.FlowBase
					accounts := k < c.Flows && (s.plan.Owner == nil || s.plan.Owner(i, uint32(f)))
					if subscribed != accounts {
						t.Fatalf("client %d, topic %s: subscribed %v, accounts %v", i, topic, subscribed, accounts)
					}
					if !accounts {
						continue
					}
					if at := c.StreamBase + k; used[at] {
						t.Fatalf("client %d, flow %d: stream %d has two owners", i, f, at)
					} else {
						used[at] = true
					}
					if !c.Echo {
						got++
					}
				}
				if got != snd.Fan {
					t.Fatalf("topic %s reaches %d, fan is %d", flow.Topic, got, snd.Fan)
				}
			}
			if len(used) != s.plan.Streams {
				t.Errorf("%d of %d streams used", len(used), s.plan.Streams)
			}
		})
	}
}

// matches is MQTT's rule, level by level.
func matches(filter, topic string) bool {
	f, n := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i >= len(n) || level != "+" && level != n[i] {
			return false
		}
	}
	return len(f) == len(n)
}

func TestUsage_ReadsOurOwnProcess(t *testing.T) {
	before, rss, err := usage(os.Getpid())
	if err != nil || rss < 1<<20 {
		t.Fatal(rss, err)
	}
	for end := time.Now().Add(60 * time.Millisecond); time.Now().Before(end); {
	}
	after, _, err := usage(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("%v after %v, %v", after, before, err)
	}
	if _, _, err := usage(1 << 30); err == nil {
		t.Error("read a process that is not there")
	}
}

func TestFloor_EightInOneCostLess(t *testing.T) {
	f, err := (&Floor{Sockets: 50, Frame: 90, Duration: 100 * time.Millisecond}).measure(t.Context())
	if err != nil || f.Single <= 0 || f.Eight <= 0 || f.Eight >= f.Single {
		t.Errorf("%+v, %v", f, err)
	}
}

// mosquitto starts one, or skips: it is a real broker, the generator's first
// customer.
func mosquitto(t *testing.T) *broker {
	t.Helper()
	c := &Peers{}
	p, err := c.parsePeer(t.Context(), "mosquitto", t.TempDir())
	if err != nil {
		t.Skip(err)
	}
	b, err := p.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.stop)
	return b
}

func TestScenarios_ARealBrokerLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a broker")
	}
	b := mosquitto(t)
	for _, line := range []string{
		"fanout --subscribers=20", "fanout --subscribers=20 --qos=2 --protocol=5", "fanin --publishers=20 --qos=1", "pairs --pairs=20 --window=4",
		"request --pairs=5 --rate=500", "wildcard --filters=400 --subscribers=20 --publishers=5", "shared --publishers=5 --groups=3 --members=3 --qos=1",
		"retained --names=500 --repeat=2", "mixed --clients=50 --rate=500", "slow --readers=5 --stalled=2 --rate=200", "soak --clients=50 --for=200ms --rate=500",
		"connect --sessions=50", "idle --steps=10,20 --settle=10ms",
	} {
		for _, url := range []string{b.ws, b.tcp} {
			args := append(strings.Fields(line), "--url="+url, "--quiet")
			if !strings.Contains(line, "--steps") && !strings.Contains(line, "--sessions") {
				args = append(args, "--duration=400ms", "--warmup=50ms")
			}
			r, err := parse(t, args...).measure(t.Context())
			if err != nil {
				t.Fatalf("%v: %v", args, err)
			}
			if text := r.Tally.Trouble(); text != "" || r.Units+r.Tally.Delivered == 0 || r.main() == nil {
				t.Errorf("%v: %q, %d units", args, text, r.Units)
			}
		}
	}
}

// TestProcesses_AccountTogether runs the generator as a program with its
// clients in three processes.
func TestProcesses_AccountTogether(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	b := mosquitto(t)
	bin := filepath.Join(t.TempDir(), "hashbench")
	if out, err := exec.Command("go", "build", "-o", bin, "./hashbench").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, line := range []string{"fanout --subscribers=30 --burst=2", "fanin --publishers=20 --qos=1", "shared --publishers=5 --groups=3 --members=2"} {
		args := append(strings.Fields(line), "--url="+b.tcp, "--processes=3", "--quiet", "--json=-", "--duration=300ms", "--warmup=50ms")
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		out, err := exec.CommandContext(ctx, bin, args...).Output()
		stop()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		var r Result
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		if r.Tally.Sent == 0 || r.Tally.Delivered != r.Tally.Expected || r.Tally.Trouble() != "" {
			t.Errorf("%s: %+v %v", line, r.Tally, r.Errors)
		}
	}
}

func TestPeer_ThatDoesNotListenIsTold(t *testing.T) {
	c := &Peers{}
	p, err := c.parsePeer(t.Context(), "x=false {ws} {tcp}", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.start(t.Context()); err == nil || !strings.Contains(err.Error(), "ended at once") {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"x", "x=", "x=12a@ws://h"} {
		if _, err := c.parsePeer(t.Context(), bad, t.TempDir()); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
	p, err = c.parsePeer(t.Context(), "x=12@ws://h:1/mqtt", t.TempDir())
	if err != nil || p.pid != 12 || p.url != "ws://h:1/mqtt" {
		t.Errorf("%+v %v", p, err)
	}
}

func TestTarget_ReadsURLs(t *testing.T) {
	for url, want := range map[string]string{
		"ws://127.0.0.1:8083": "127.0.0.1:8083/mqtt", "ws://127.0.0.1/a?b": "127.0.0.1:80/a?b", "tcp://127.0.0.1": "127.0.0.1:1883/mqtt", "mqtt://[::1]:5": "[::1]:5/mqtt",
	} {
		b := Broker{URL: url}
		got, err := b.target(t.Context())
		if err != nil || got.Addr.String()+got.Path != want {
			t.Errorf("%s: %s%s, %v", url, got.Addr, got.Path, err)
		}
	}
	for _, bad := range []string{"http://127.0.0.1", "127.0.0.1:1883", "ws://127.0.0.1:99999"} {
		b := Broker{URL: bad}
		if _, err := b.target(t.Context()); err == nil {
			t.Errorf("%s passed", bad)
		}
	}
}

func TestExecute_ABrokerThatIsNotThereIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "tcp://" + l.Addr().String()
	l.Close()
	if _, err := parse(t, "pairs", "--pairs=2", "--quiet", "--url="+url).measure(t.Context()); err == nil {
		t.Error("no error")
	}
}
