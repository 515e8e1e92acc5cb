package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// Peers is the command `peers`.
type Peers struct {
	Peer     []string      `help:"A broker: name='command with {ws} and {tcp}', each replaced by host:port; or name=ws://… of one that runs, name=PID@ws://… to read its CPU time. mosquitto, mochi and nats need no command. The first one is compared with." sep:"none" placeholder:"PEER" required:""`
	Cases    []string      `help:"Cases to run; all of them if none is given: fanout-bursts, fanout-single, fanout-qos1, fanin, fanin-qos1, pairs-1, pairs-16, pairs-qos1, request, request-1, wildcard, retained, connect, idle." placeholder:"CASE"`
	Rounds   int           `help:"How often each broker runs each case." default:"3"`
	Duration time.Duration `help:"How long to measure in each run." default:"5s"`
	Warmup   time.Duration `help:"How long to run before measuring." default:"2s"`
	TCP      bool          `help:"Plain TCP in place of WebSocket." name:"tcp"`
	Protocol string        `help:"MQTT version: 3.1.1 or 5." enum:"3.1.1,5" default:"3.1.1"`
	Source   string        `help:"Folder of the peers that are Go programs." default:"bench/peers"`
	Out      string        `help:"Folder for results.json, report.md and the plots." default:"bench-results"`
	Quiet    bool          `help:"No progress of the runs."`
}

// Help is the command's page.
func (*Peers) Help() string {
	return `For each case, the brokers run in turn, A B C A B C, each in a process just started, and the report has the median of the rounds with
minimum and maximum. The order keeps the machine's changing load from favouring one of them.

mosquitto is the one in the path, with a configuration that is generated: both listeners, no persistence, no limit on queued messages.
mochi and nats are built from --source with the go command.`
}

// Run runs the suite and writes the report. When it is interrupted it reports
// what it has.
func (c *Peers) Run(ctx context.Context) error {
	temp, err := os.MkdirTemp("", "bench-peers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	var peers []*peer
	for _, spec := range c.Peer {
		p, err := c.parsePeer(ctx, spec, temp)
		if err != nil {
			return fmt.Errorf("peer %s: %w", spec, err)
		}
		peers = append(peers, p)
	}
	cases := suiteCases()
	for _, name := range c.Cases {
		if !slices.ContainsFunc(cases, func(s suiteCase) bool { return s.name == name }) {
			return fmt.Errorf("no case is called %q", name)
		}
	}
	s := &Suite{Started: time.Now(), Machine: machine()}
	for _, p := range peers {
		s.Peers = append(s.Peers, p.name)
	}
	if f, err := (&Floor{Sockets: 1000, Frame: 90, Duration: 2 * time.Second}).measure(ctx); err == nil {
		s.Floor = &f
	}
	for _, sc := range cases {
		if len(c.Cases) > 0 && !slices.Contains(c.Cases, sc.name) {
			continue
		}
		if err := c.compare(ctx, s, sc, peers); err != nil {
			return errors.Join(err, render(s, c.Out))
		}
		// After each case, so that a long suite shows what it has.
		if err := render(s, c.Out); err != nil {
			return err
		}
	}
	return nil
}

// compare runs one case in all rounds and adds it to s. A run that fails is
// told and left out.
func (c *Peers) compare(ctx context.Context, s *Suite, sc suiteCase, peers []*peer) error {
	s.Cases = append(s.Cases, Case{Name: sc.name, Runs: map[string][]Result{}})
	into := &s.Cases[len(s.Cases)-1]
	for round := range c.Rounds {
		for _, p := range peers {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			r, err := c.one(ctx, sc, p)
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s: %s, round %d: %v\n", sc.name, p.name, round+1, err)
				continue
			}
			into.Title, into.Unit = r.Title, r.Unit
			into.Runs[p.name] = append(into.Runs[p.name], *r)
			fmt.Printf("%-14s round %d  %-12s %8.2f µs CPU per %s, %.0f/s, %d lost\n",
				sc.name, round+1, p.name, r.CPUPerUnit, r.Unit, r.Rate, r.Tally.Lost)
		}
	}
	return nil
}

// one starts p and runs one case against it.
func (c *Peers) one(ctx context.Context, sc suiteCase, p *peer) (*Result, error) {
	b, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	defer b.stop()
	args := slices.Clone(sc.args)
	url := b.ws
	if c.TCP {
		url = b.tcp
	}
	args = append(args, "--url="+url, "--protocol="+c.Protocol, "--label="+p.name)
	if b.pid != 0 {
		args = append(args, fmt.Sprintf("--pid=%d", b.pid))
	}
	if c.Quiet {
		args = append(args, "--quiet")
	}
	switch sc.args[0] {
	case "connect", "idle":
	default:
		args = append(args, "--duration="+c.Duration.String(), "--warmup="+c.Warmup.String())
	}
	var all Command
	parser, err := kong.New(&all)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return nil, err
	}
	scenario, ok := parsed.Selected().Target.Addr().Interface().(runner)
	if !ok {
		return nil, fmt.Errorf("%s is not a scenario", sc.args[0])
	}
	// A process started for a part must find its scenario where we found ours.
	at := slices.Index(os.Args, "peers")
	scenario.options().argv = append(slices.Clone(os.Args[1:max(at, 1)]), args...)
	r, err := scenario.measure(ctx)
	if err == nil {
		r.Samples = nil
	}
	return r, err
}

// machine describes where a suite ran.
func machine() string {
	text := fmt.Sprintf("%d cores, %s/%s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				text += ", " + strings.TrimSpace(strings.TrimLeft(name, "\t :"))
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		text += ", Linux " + strings.TrimSpace(string(b))
	}
	return text
}

// render writes s and its report into folder.
func render(s *Suite, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	var b strings.Builder
	if err := s.write(&b); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "results.json"), []byte(b.String()), 0o644); err != nil {
		return err
	}
	return s.report(folder)
}
