package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"hashplus/bench/drive"
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
	for _, c := range sweepCases() {
		last := len(c.args) - 1
		parse(t, append(slices.Clone(c.args[:last]), c.args[last]+"7")...)
	}
}

// TestPlans_AddUp holds each scenario's plan against the plainest reading of
// MQTT: who subscribes to a filter that matches a flow's topic is who must
// account for it, and their number is the sender's fan.
func TestPlans_AddUp(t *testing.T) {
	o := func() *Options { return &Options{Load: Load{Duration: time.Second}} }
	for _, s := range []*scenario{
		fanout(o(), 2, 5), fanin(o(), 5, 2), pairs(o(), 4, 0), pairs(o(), 4, 12000), request(o(), 3), wildcard(o(), 400, 20, 7), wildcard(o(), 2000, 7, 3), mixed(o(), "mixed", 60),
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
	after := before // until there is more: the system counts in hundredths of a second
	for end := time.Now().Add(time.Minute); after <= before && time.Now().Before(end); {
		if after, _, err = usage(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if after <= before {
		t.Errorf("%v after %v", after, before)
	}
	if _, _, err := usage(1 << 30); err == nil {
		t.Error("read a process that is not there")
	}
}

// TestUsage_CountsWhatABrokerStarted: a script that starts the broker, and the
// broker, are one.
func TestUsage_CountsWhatABrokerStarted(t *testing.T) {
	c := exec.Command("sh", "-c", "sh -c 'read x; while :; do :; done' <&0; true")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	ownGroup(c)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := signalGroup(c.Process, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		_ = c.Wait() // it was killed
	}()
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	g := &gauge{pid: c.Process.Pid, fleet: &fleet{shared: drive.NewShared(&drive.Plan{}, 1, nil)}}
	for end := time.Now().Add(20 * time.Second); g.read().cpu < 50*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%v of CPU time of processes %v", g.read().cpu, family(c.Process.Pid))
		}
	}
	if alone, _, err := usage(c.Process.Pid); err != nil || alone > 40*time.Millisecond {
		t.Errorf("the script itself: %v, %v", alone, err)
	}
	if all := family(os.Getppid()); slices.Contains(all, os.Getpid()) {
		t.Errorf("%v has the generator in it", all)
	}
}

func TestFloor_EightInOneCostLess(t *testing.T) {
	for tries := 1; ; tries++ { // on a busy machine it may be measured wrongly
		f, err := (&Floor{Sockets: 50, Frame: 90, Duration: 100 * time.Millisecond}).measure(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if f.Single > 0 && f.Eight > 0 && f.Eight < f.Single {
			return
		}
		if tries == 20 {
			t.Fatalf("%+v", f)
		}
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

// patient are flags that let a broker on a busy machine take its time.
var patient = []string{"--stall=20s", "--drain=20s"}

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
				args = append(args, patient...)
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

// hashbench builds the program.
func hashbench(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "hashbench")
	if out, err := exec.Command("go", "build", "-o", bin, "./hashbench").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// TestProcesses_AccountTogether runs the generator as a program with its
// clients in three processes.
func TestProcesses_AccountTogether(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	b := mosquitto(t)
	bin := hashbench(t)
	for _, line := range []string{"fanout --subscribers=30 --burst=2", "fanin --publishers=20 --qos=1", "shared --publishers=5 --groups=3 --members=2"} {
		args := append(strings.Fields(line), "--url="+b.tcp, "--processes=3", "--quiet", "--json=-", "--duration=300ms", "--warmup=50ms")
		args = append(args, patient...)
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
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

// TestProcesses_HandOverWhatTheyHaveWhenInterrupted: Ctrl-C ends the run, not the
// processes that carry it.
func TestProcesses_HandOverWhatTheyHaveWhenInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	b := mosquitto(t)
	bin := hashbench(t)
	for _, processes := range []string{"1", "3"} {
		c := exec.Command(bin, "pairs", "--pairs=20", "--window=4", "--url="+b.tcp, "--processes="+processes, "--json=-", "--duration=1h", "--warmup=10ms")
		lines, err := c.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		c.Stdout = &out
		ownGroup(c)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		progress := bufio.NewScanner(lines)
		for measured := 0; measured < 2 && progress.Scan(); { // a line a second: the first may be early
			if strings.Contains(progress.Text(), "measuring") {
				measured++
			}
		}
		if err := signalGroup(c.Process, syscall.SIGINT); err != nil { // as a terminal does
			t.Fatal(err)
		}
		for progress.Scan() {
		}
		if err := c.Wait(); err != nil {
			t.Fatalf("%s processes: %v", processes, err)
		}
		var r Result
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Fatalf("%s processes: %v\n%s", processes, err, out.Bytes())
		}
		if r.Ended != interrupted || r.Units == 0 || r.Tally.Trouble() != "" || r.Measured <= 0 {
			t.Errorf("%s processes: %q after %v, %d units, %q", processes, r.Ended, r.Measured, r.Units, r.Tally.Trouble())
		}
	}
}

// TestExecute_ABrokerThatDiesEndsTheRun, and what it did until then is told, with
// no CPU time, as the rest of that is not known.
func TestExecute_ABrokerThatDiesEndsTheRun(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a broker")
	}
	b := mosquitto(t)
	time.AfterFunc(5*time.Second, func() { _ = syscall.Kill(b.pid, syscall.SIGKILL) }) // the result tells
	began := time.Now()
	r, err := parse(t, "pairs", "--pairs=5", "--quiet", "--warmup=10ms", "--duration=1h", "--url="+b.tcp, fmt.Sprint("--pid=", b.pid)).measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Ended != brokerGone && r.Ended != nobodyLeft || r.Ended == brokerGone && r.CPU != 0 || r.Units == 0 || time.Since(began) > 3*time.Minute {
		t.Errorf("%q, %v s of CPU, %d units, after %v", r.Ended, r.CPU, r.Units, time.Since(began))
	}
	if o := (&Output{JSON: filepath.Join(t.TempDir(), "r.json")}); o.show(r, nil) == nil {
		t.Error("it counts as well")
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
	for _, bad := range []string{"x", "x=", "x=12a@ws://h", "x=broker {tcp}", "x=broker '{ws}"} {
		if _, err := c.parsePeer(t.Context(), bad, t.TempDir()); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
	p, err = c.parsePeer(t.Context(), `x=sh -c 'a "b c" {ws}' d\e`, t.TempDir())
	if err != nil || !slices.Equal(p.command, []string{"sh", "-c", `a "b c" {ws}`, `d\e`}) || p.mentions("{tcp}") || !p.mentions("{ws}") {
		t.Errorf("%+v %v", p, err)
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
	b := Broker{URL: "ws://127.0.0.1", Header: []string{"Cookie: a=b; c", "X:1"}}
	if got, err := b.target(t.Context()); err != nil || got.Header != "Cookie: a=b; c\r\nX: 1\r\n" {
		t.Errorf("%q %v", got.Header, err)
	}
	for _, bad := range []string{"x", ": x", "X: y\r\nZ: "} {
		if _, err := (&Broker{URL: "ws://127.0.0.1", Header: []string{bad}}).target(t.Context()); err == nil {
			t.Errorf("%q passed", bad)
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

// TestOptions_NothingToMeasureIsAnError names the flag, whatever the scenario.
func TestOptions_NothingToMeasureIsAnError(t *testing.T) {
	for line, flag := range map[string]string{
		"pairs --pairs=0": "--pairs", "fanout --subscribers=-1": "--subscribers", "fanin --publishers=0": "--publishers",
		"request --rate=-5": "--rate", "wildcard --publishers=0": "--publishers", "shared --members=0": "--members",
		"retained --names=0": "--names", "mixed --duration=-1s": "--duration", "soak --for=0s": "--duration", "connect --rate=-1": "--rate", "idle --steps=10,10": "--steps", "slow --readers=0": "--readers",
		"connect --sessions=0": "--sessions", "pairs --json=/nowhere/r.json": "/nowhere/r.json:", "fanout --burst=-3": "--burst", "pairs --window=-1": "--window",
	} {
		_, err := parse(t, append(strings.Fields(line), "--quiet", "--url=tcp://127.0.0.1:1")...).measure(t.Context())
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", line, err)
		}
	}
}
