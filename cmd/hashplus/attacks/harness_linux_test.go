package attacks

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hashplus/cmd/hashplus/launch"
)

// outcome is what came of one attack.
type outcome struct {
	attack
	quiet, loaded, control, controlLoaded measurement
	cpu                                   float64 // of the broker under attack, in processors
	peak                                  int     // MiB
	did, told                             map[string]int
	faults                                []string // whatever the machine
	late                                  string   // why the latency is too high, or ""
}

// scale is how long things take.
type scale struct {
	quiet, attack, patience time.Duration
	short                   bool
}

var (
	shortScale = scale{200 * time.Millisecond, 1000 * time.Millisecond, 40 * time.Second, true}
	longScale  = scale{5 * time.Second, 15 * time.Second, 40 * time.Second, false}
)

const (
	pairs = 250
	rate  = 500 // requests per second
)

// run lets an attack loose on a new broker.
func run(t *testing.T, a attack, s scale, control *helper) outcome {
	o := outcome{attack: a, did: map[string]int{}, told: map[string]int{}}
	args := append([]string{"--tcp=127.0.0.1:0", "--ws=127.0.0.1:0", "--drain=100ms", "--log-level=warn"}, a.args...)
	if s.short {
		args = append(args, a.quick...)
	}
	if a.tls {
		args = append(args, certificate(t)...)
	}
	if a.data {
		args = append(args, "--data="+t.TempDir())
	}
	if a.passwords {
		path := filepath.Join(t.TempDir(), "passwords")
		passwd := launch.Command(program, "passwd", path, "alice")
		passwd.Stdin = strings.NewReader("correct horse\n")
		if out, err := passwd.CombinedOutput(); err != nil {
			t.Fatalf("passwd: %v\n%s", err, out)
		}
		args = append(args, "--password-file="+path, "--allow-anonymous")
	}
	run := program
	if a.descriptors > 0 {
		run = filepath.Join(t.TempDir(), "limited")
		script := fmt.Sprintf("#!/bin/sh\nulimit -n %d && exec %s \"$@\"\n", a.descriptors, program)
		if err := os.WriteFile(run, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	broker, err := launch.Start(run, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { broker.Kill() }()
	if a.restart {
		args[0], args[1] = "--tcp="+broker.Address("mqtt"), "--ws="+broker.Address("ws")
	}
	clients, _, err := honest(broker.Address("ws"), pairs, rate)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { clients.close() }()
	o.quiet, o.control = o.measure(t, clients, control, s.quiet)

	attackers := o.loose(t, broker, s)
	defer func() {
		for _, h := range attackers {
			h.close()
		}
	}()
	if a.restart {
		time.Sleep(s.attack / 4)
		clients.close()
		if err := broker.Stop(); err != nil {
			t.Fatal(err)
		}
		if broker, err = launch.Start(program, args...); err != nil {
			t.Fatal(err)
		}
		// The honest come back in the midst of it.
		var back measurement
		if clients, back, err = honest(broker.Address("ws"), pairs, rate); err != nil {
			t.Fatal(err)
		}
		o.did["ms until 500 honest clients were back"] = int(back.Connect.Milliseconds())
	}
	before := cpuTime(broker.PID)
	began := time.Now()
	o.loaded, o.controlLoaded = o.measure(t, clients, control, s.attack)
	o.cpu = (cpuTime(broker.PID) - before).Seconds() / time.Since(began).Seconds()
	for _, h := range attackers {
		var r report
		if err := h.answer(&r); err != nil {
			t.Fatal(err)
		}
		for what, n := range r.Did {
			o.did[what] += n
		}
		for what, n := range r.Told {
			o.told[what] += n
		}
	}
	// What is left of it must hurt nobody either.
	after, _ := o.measure(t, clients, control, s.quiet)
	peak, ok := broker.Status("VmHWM")
	if !ok {
		t.Fatal("the broker is gone")
	}
	o.peak = peak >> 10
	o.judge(after)
	if !broker.Running() {
		o.fault("the broker ended")
	} else if err := broker.Stop(); err != nil {
		o.fault("the broker: %v", err)
	}
	if log := broker.Faults(); log != "" {
		o.fault("a panic or a data race in the broker: %s", log)
	}
	return o
}

// measure has the honest clients and the control measure for d.
func (o *outcome) measure(t *testing.T, clients, control *helper, d time.Duration) (m, c measurement) {
	t.Helper()
	for _, h := range []*helper{clients, control} {
		if err := h.in.Encode(window{d}); err != nil {
			t.Fatal(err)
		}
	}
	for h, m := range map[*helper]*measurement{clients: &m, control: &c} {
		if err := h.answer(m); err != nil {
			t.Fatal(err)
		}
	}
	return m, c
}

// loose starts the attackers.
func (o *outcome) loose(t *testing.T, broker *launch.Server, s scale) (all []*helper) {
	t.Helper()
	for i := range o.processes {
		orders := attackerOrders{
			Attack: o.name, TCP: broker.Address("mqtt"), WS: broker.Address("ws"), TLS: broker.Address("mqtts"),
			For: s.attack, Index: i, Of: o.processes, Patience: s.patience,
		}
		if o.restart {
			orders.For += s.attack / 2
		}
		h, err := start("attacker", orders, true)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
	}
	return all
}

func (o *outcome) fault(format string, args ...any) {
	o.faults = append(o.faults, fmt.Sprintf(format, args...))
}

// judge holds the outcome against what the attack may do. after is what the
// honest clients saw at the end.
func (o *outcome) judge(after measurement) {
	if after.Disconnected > 0 || after.Trouble != "" {
		o.fault("honest clients: %s", after.Trouble)
	}
	if o.loaded.Round == 0 {
		o.fault("honest clients got no answer")
	}
	if o.peak > o.memory {
		o.fault("RSS reached %d MiB, more than %d (%s)", o.peak, o.memory, o.why)
	}
	for _, want := range o.attack.told {
		if o.told[want] == 0 {
			o.fault("no attacker was told %q", want)
		}
	}
	if n := o.told["nothing: still connected"]; n > 0 && !o.stay {
		o.fault("%d attackers were not cut off", n)
	}
	factor, atLeast := 5, 25*time.Millisecond
	if o.flood {
		factor, atLeast = 10, 100*time.Millisecond
	}
	if bound := max(time.Duration(factor)*o.quiet.P99, atLeast); o.loaded.P99 > bound {
		o.late = fmt.Sprintf("p99 %v is above %v", round(o.loaded.P99), round(bound))
	}
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(100 * time.Microsecond)
}

// String is the outcome in one line.
func (o *outcome) String() string {
	return fmt.Sprintf("honest p50 %v, p99 %v quiet; p50 %v, p99 %v, max %v under attack (%d); control p99 %v, %v; broker %.2f processors, peak RSS %d of %d MiB; did %v; told %v",
		round(o.quiet.P50), round(o.quiet.P99), round(o.loaded.P50), round(o.loaded.P99), round(o.loaded.Max), o.loaded.Round,
		round(o.control.P99), round(o.controlLoaded.P99), o.cpu, o.peak, o.memory, sorted(o.did), sorted(o.told))
}

// sorted is a map of counts as text, the larger first.
func sorted(counts map[string]int) string {
	keys := slices.Collect(maps.Keys(counts))
	slices.SortFunc(keys, func(a, b string) int {
		if d := counts[b] - counts[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	var parts []string
	for _, k := range keys {
		parts = append(parts, fmt.Sprintf("%s: %d", k, counts[k]))
	}
	return strings.Join(parts, ", ")
}

// cpuTime is the user and system time of a process.
func cpuTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// TestAttacks_HurtNobodyHonest is what attacks may do and not.
func TestAttacks_HurtNobodyHonest(t *testing.T) {
	s := shortScale
	if *long {
		s = longScale
	}
	control, err := start("control", nil, false)
	if err != nil {
		t.Fatal(err)
	}
	defer control.close()
	var ready measurement
	if err := control.answer(&ready); err != nil {
		t.Fatal(err)
	}
	var all []outcome
	for _, a := range slices.Concat(attacks, tlsAttacks) {
		t.Run(a.name, func(t *testing.T) {
			o := run(t, a, s, control)
			t.Log(o.String())
			for _, f := range o.faults {
				t.Error(f)
			}
			if o.late != "" {
				t.Log(o.late)
			}
			if o.loaded.P99 > 20*time.Second {
				t.Errorf("honest p99 is %v", o.loaded.P99)
			}
			all = append(all, o)
		})
	}
	if *long {
		writeTable(t, all)
	}
}
