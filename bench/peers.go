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
	Peer        []string      `help:"A broker: name='command with {ws} and {tcp}', each replaced by host:port, {wsport} and {tcpport} by the port, {data} by an empty folder; or name=ws://… of one that runs, name=PID@ws://… to read its CPU time. mosquitto, mochi and nats need no command. The others are compared with the first." sep:"none" placeholder:"PEER" required:""`
	Suite       string        `help:"Cases to choose from. In suite durable, mochi and nats keep everything on disk and sync it before they acknowledge." enum:"full,durable" default:"full"`
	Cases       []string      `help:"Cases and sweeps to run, in place of all of the suite: fanout-bursts, fanout-single, fanout-qos1, fanout-rate, fanin, fanin-qos1, fanin-rate, pairs-1, pairs-16, pairs-qos1, pairs-rate, request, request-1, wildcard, shared, mixed, retained, connect, idle; sweep-subscribers, sweep-single, sweep-filters; of suite durable, durable-offline, durable-online." placeholder:"CASE"`
	Rounds      int           `help:"How often each broker runs each case." default:"3"`
	SweepRounds int           `help:"The same for each size of a sweep; 0 leaves the sweeps out." default:"1"`
	Duration    time.Duration `help:"How long to measure in each run." default:"5s"`
	Warmup      time.Duration `help:"How long to run before measuring." default:"2s"`
	TCP         bool          `help:"Plain TCP in place of WebSocket." name:"tcp"`
	Protocol    string        `help:"MQTT version: 3.1.1 or 5." enum:"3.1.1,5" default:"3.1.1"`
	Source      string        `help:"Folder of the peers that are Go programs." default:"bench/peers"`
	Out         string        `help:"Folder for results.json, report.md and the plots." default:"bench-results"`
	Elsewhere   string        `help:"JSON file with figures of brokers that were measured on another machine, for the report." type:"existingfile" placeholder:"FILE"`
	Quiet       bool          `help:"No progress of the runs."`
}

// Help is the command's page.
func (*Peers) Help() string {
	return `For each case, the brokers run in turn, A B C A B C, each in a process just started, and the report has the median of the rounds with
minimum and maximum. The order keeps the machine's changing load from favouring one of them. Sweeps come last: the same scenario at sizes
that grow, beside the bare write to as many sockets. How long it will take is printed at the beginning and with each run.

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
	cases, sweeps, err := c.selected()
	if err != nil {
		return err
	}
	p := c.plan(cases, sweeps, len(peers))
	fmt.Printf("%d cases and %d sweeps with %d brokers will take about %s\n", len(cases), len(sweeps), len(peers), minutes(p.total))
	s := &Suite{Started: time.Now(), Machine: machine()}
	if c.Elsewhere != "" {
		if s.Elsewhere, err = readElsewhere(c.Elsewhere); err != nil {
			return err
		}
	}
	for _, p := range peers {
		s.Peers = append(s.Peers, p.name)
	}
	if f, err := (&Floor{Sockets: usualSockets, Frame: usualFrame, Duration: 2 * time.Second}).measure(ctx); err == nil {
		s.Floor = &f
	}
	// The report is written after each case, so that a long suite shows what it has.
	for _, sc := range cases {
		if err := errors.Join(c.compare(ctx, s, sc, peers, p), render(s, c.Out)); err != nil {
			return err
		}
	}
	for _, sc := range sweeps {
		if err := errors.Join(c.sweep(ctx, s, sc, peers, p), render(s, c.Out)); err != nil {
			return err
		}
	}
	fmt.Printf("took %s; the report is in %s\n", minutes(time.Since(p.began)), c.Out)
	return nil
}

// selected are the cases and sweeps to run.
func (c *Peers) selected() (cases []suiteCase, sweeps []sweepCase, err error) {
	if cases = suiteCases(); c.Suite == "durable" {
		cases = durableCases()
	} else if c.SweepRounds > 0 {
		sweeps = sweepCases()
	}
	if len(c.Cases) == 0 {
		return cases, sweeps, nil
	}
	for _, name := range c.Cases {
		if !slices.ContainsFunc(cases, func(s suiteCase) bool { return s.name == name }) &&
			!slices.ContainsFunc(sweeps, func(s sweepCase) bool { return s.name == name }) {
			return nil, nil, fmt.Errorf("no case is called %q", name)
		}
	}
	return slices.DeleteFunc(cases, func(s suiteCase) bool { return !slices.Contains(c.Cases, s.name) }),
		slices.DeleteFunc(sweeps, func(s sweepCase) bool { return !slices.Contains(c.Cases, s.name) }), nil
}

// plan expects how long everything takes.
func (c *Peers) plan(cases []suiteCase, sweeps []sweepCase, peers int) *pace {
	p := &pace{began: time.Now()}
	for _, sc := range cases {
		p.total += time.Duration(c.Rounds) * c.expected(&sc)
	}
	for _, sc := range sweeps {
		p.total += time.Duration(len(sc.sizes)*c.SweepRounds) * (sc.each + sweepWarmup + sweepDuration)
	}
	p.total *= time.Duration(peers)
	for _, sc := range sweeps {
		if sc.bare > 0 {
			p.total += time.Duration(len(sc.sizes)) * sweepBare
		}
	}
	return p
}

// expected is what one run of a case takes.
func (c *Peers) expected(sc *suiteCase) time.Duration {
	if !sc.timed() {
		return sc.each
	}
	return sc.each + c.Warmup + c.Duration
}

// compare runs one case in all rounds and adds it to s. A run that fails is
// told and left out.
func (c *Peers) compare(ctx context.Context, s *Suite, sc suiteCase, peers []*peer, p *pace) error {
	s.Cases = append(s.Cases, Case{Name: sc.name, Runs: map[string][]Result{}})
	into := &s.Cases[len(s.Cases)-1]
	args := sc.args
	if sc.timed() {
		args = append(slices.Clone(args), "--duration="+c.Duration.String(), "--warmup="+c.Warmup.String())
	}
	for round := range c.Rounds {
		for _, peer := range peers {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			r, err := c.one(ctx, args, peer)
			p.done(c.expected(&sc))
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s: %s, round %d: %v\n", sc.name, peer.name, round+1, err)
				continue
			}
			into.Title, into.Unit = r.Title, r.Unit
			into.Runs[peer.name] = append(into.Runs[peer.name], *r)
			fmt.Printf("%-14s round %d  %-12s %8.2f µs CPU per %s, %.0f/s, %d lost%s\n",
				sc.name, round+1, peer.name, r.CPUPerUnit, r.Unit, r.Rate, r.Tally.Lost, p.left())
		}
	}
	into.printPaired(os.Stdout, peers)
	return nil
}

// one starts p and runs the scenario of args against it.
func (c *Peers) one(ctx context.Context, args []string, p *peer) (*Result, error) {
	b, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	defer b.stop()
	url := b.ws
	if c.TCP {
		url = b.tcp
	}
	args = append(slices.Clone(args), "--url="+url, "--protocol="+c.Protocol, "--label="+p.name)
	if b.pid != 0 {
		args = append(args, fmt.Sprintf("--pid=%d", b.pid))
	}
	if c.Quiet {
		args = append(args, "--quiet")
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
		return nil, fmt.Errorf("%s is not a scenario", args[0])
	}
	// A process started for a part must find its scenario where we found ours.
	at := slices.Index(os.Args, "peers")
	scenario.options().argv = append(slices.Clone(os.Args[1:max(at, 1)]), args...)
	r, err := scenario.measure(ctx)
	if err != nil {
		return nil, err
	}
	if r.Ended == interrupted {
		return nil, context.Cause(ctx) // a part of a run is not to be compared with whole ones
	}
	r.Samples, r.Machine = nil, ""
	return r, nil
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
