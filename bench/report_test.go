package bench

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hashplus/bench/drive"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// sample is a suite with all a report knows: several runs, a peer that lacks a
// case, loss, memory over sessions.
func sample() *Suite {
	result := func(broker string, cpu, p99 float64, lost uint64) Result {
		return Result{
			URL: "ws://127.0.0.1:1/mqtt", Scenario: "fanout", Title: "fan-out 1 → 1000, QoS 0, bursts of 8", Unit: "delivery", Broker: broker,
			CPUPerUnit: cpu, Rate: 1e6 / cpu, Units: 1000, Measured: 5, Waited: cpu / 20,
			Latency: &Latency{Count: 5, P50: p99 / 4, P99: p99, Max: 2 * p99, Quantiles: [][2]float64{{1, p99 / 10}, {50, p99 / 4}, {99, p99}, {100, 2 * p99}}},
			Tally:   drive.Tally{Sent: 100, Expected: 1000, Delivered: 1000 - lost, Lost: lost},
		}
	}
	idle := func(broker string, each uint64) Result {
		return Result{
			URL: "tcp://localhost:1", Scenario: "idle", Title: "idle 18000 sessions", Unit: "connect", Broker: broker, RSSPerUnit: float64(each),
			Connect: &Latency{Count: 1, P50: 900, P99: 4100},
			Points:  []Point{{2000, 10<<20 + 2000*each}, {10000, 10<<20 + 10000*each}, {18000, 10<<20 + 18000*each}},
		}
	}
	broken := result("mochi", 8.1, 121e3, 4)
	broken.Notes = []string{"the generator used 97 % of its core"}
	broken.Errors = map[string]int{"broker closed the connection": 2}
	return &Suite{
		Started: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Machine: "2 cores", Floor: &FloorResult{Single: 5.35, Eight: 0.65},
		Peers: []string{"hashplus", "mosquitto", "mochi"},
		Cases: []Case{
			{Name: "fanout", Title: "fan-out 1 → 1000, QoS 0, bursts of 8", Unit: "delivery", Runs: map[string][]Result{
				"hashplus":  {result("hashplus", 0.9, 20e3, 0), result("hashplus", 1.1, 24e3, 0), result("hashplus", 0.8, 22e3, 0)},
				"mosquitto": {result("mosquitto", 8.8, 90e3, 0), result("mosquitto", 9.2, 80e3, 0)},
				"mochi":     {broken},
			}},
			{Name: "idle", Title: "idle 18000 sessions", Unit: "connect", Runs: map[string][]Result{
				"hashplus": {idle("hashplus", 1945)}, "mosquitto": {idle("mosquitto", 6040)},
			}},
		},
		Elsewhere: &Elsewhere{Note: "Another machine.", Floor: 5, Peers: []string{"FlashMQ", "aedes"}, Cases: map[string][]*float64{
			"fanout": {new(3.2), nil}, "idle": {new(7581.0), new(17151.0)}, "unknown": {nil, nil},
		}},
		Sweeps: []Sweep{{Name: "sweep-subscribers", Title: "Broker CPU per delivery, µs", X: "subscribers", Lines: map[string][]SweepPoint{
			"hashplus":  {{10, []float64{1.2, 1.1, 1.5}}, {1000, []float64{0.9}}, {10000, []float64{1.1}}},
			"mosquitto": {{10, []float64{9}}, {1000, []float64{8.5}}},
			"mochi":     {{10, []float64{8}}},
		}, Bare: []SweepPoint{{10, []float64{0.5}}, {1000, []float64{0.6}}, {10000, []float64{0.9}}}}},
	}
}

func TestReport_IsTheGoldenOne(t *testing.T) {
	dir := t.TempDir()
	if err := sample().report(dir); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 6 {
		t.Errorf("%d files", len(files))
	}
	for _, f := range files {
		got, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", f.Name())
		if *rewrite {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s differs from its golden file; look at it, then run with -rewrite", f.Name())
		}
	}
}

func TestReport_PlotsAreXMLWithBothSchemes(t *testing.T) {
	for name, svg := range sample().plots() {
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if !strings.Contains(svg, "prefers-color-scheme:dark") || strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("%s is not fit to be shown", name)
		}
	}
}

func TestReport_PutsFilesOfOneTitleTogether(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	save := func(name string, v any) {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, filepath.Join(dir, name))
		if err := os.WriteFile(paths[len(paths)-1], b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := sample()
	save("suite.json", s)
	one := s.Cases[0].Runs["mochi"][0]
	save("run.json", one)
	one.Broker = "other"
	save("other.json", one)
	got, err := load(paths)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Cases) != 2 || len(got.Cases[0].Runs["mochi"]) != 2 || len(got.Cases[0].Runs["other"]) != 1 {
		t.Errorf("%d cases, %d runs of mochi, %d of other", len(got.Cases), len(got.Cases[0].Runs["mochi"]), len(got.Cases[0].Runs["other"]))
	}
	if strings.Join(got.Peers, " ") != "hashplus mosquitto mochi other" || got.Floor.Single != 5.35 {
		t.Errorf("peers %v, floor %+v", got.Peers, got.Floor)
	}
	if err := (&Report{Files: paths, Out: filepath.Join(dir, "out")}).Run(); err != nil {
		t.Error(err)
	}
}

func TestOver_IsMedianAndRange(t *testing.T) {
	runs := []Result{{Rate: 3}, {Rate: 1}, {Rate: 0}, {Rate: 10}}
	if s, ok := over(runs, rateOf); !ok || s != (spreadOf{3, 1, 10}) {
		t.Errorf("odd: %+v %v", s, ok)
	}
	if s, ok := over(append(runs, Result{Rate: 4}), rateOf); !ok || s != (spreadOf{3.5, 1, 10}) {
		t.Errorf("even: %+v %v", s, ok)
	}
	if _, ok := over(runs[2:3], rateOf); ok {
		t.Error("a run without the metric counted")
	}
}

func TestGrowth_IsTheSlope(t *testing.T) {
	var s []Sample
	for i := range 100 {
		s = append(s, Sample{At: float64(i) * 60, RSS: uint64(1<<20 + 100*i)})
	}
	if g := growth(s); g < 5999 || g > 6001 {
		t.Errorf("%v bytes per hour", g)
	}
	if growth(nil) != 0 || growth(s[:1]) != 0 {
		t.Error("a slope of nothing")
	}
}

func TestProgress_KeepsABoundedNumberOfSamplesOfTheWholeRun(t *testing.T) {
	var p progress
	const n = 100000
	for i := range n {
		p.keep(Sample{At: float64(i)})
	}
	if len(p.samples) > maxSamples || len(p.samples) < maxSamples/2 {
		t.Fatalf("%d samples", len(p.samples))
	}
	gap := p.samples[1].At - p.samples[0].At
	for i := 1; i < len(p.samples); i++ {
		if p.samples[i].At-p.samples[i-1].At != gap {
			t.Fatalf("uneven at %d", i)
		}
	}
	if p.samples[len(p.samples)-1].At < n-2*gap || p.samples[0].At > 2*gap {
		t.Errorf("from %v to %v", p.samples[0].At, p.samples[len(p.samples)-1].At)
	}
}

func TestPace_CorrectsItsExpectation(t *testing.T) {
	began := time.Now()
	p := pace{began: began, total: 20 * time.Minute}
	if d := p.remaining(began.Add(time.Minute)); d != 20*time.Minute {
		t.Errorf("before anything is done: %v", d)
	}
	p.done(5 * time.Minute) // which took 10
	if d := p.remaining(began.Add(10 * time.Minute)); d != 30*time.Minute {
		t.Errorf("twice as slow as expected: %v", d)
	}
	for d, want := range map[time.Duration]string{17 * time.Second: "15 s", 90 * time.Second: "2 min", 19*time.Minute + 10*time.Second: "19 min"} {
		if got := minutes(d); got != want {
			t.Errorf("%v is %q", d, got)
		}
	}
}

// TestSuite_TakesNoLongerThanItIsToldTo: the whole comparison, as the make target
// runs it, fits in 20 minutes, so that it does in 25 where brokers lose messages.
func TestSuite_TakesNoLongerThanItIsToldTo(t *testing.T) {
	c := &Peers{Rounds: 3, SweepRounds: 1, Duration: 2 * time.Second, Warmup: 500 * time.Millisecond}
	cases, sweeps, err := c.selected()
	if err != nil {
		t.Fatal(err)
	}
	if d := c.plan(cases, sweeps, 4).total; d > 20*time.Minute {
		t.Errorf("%v", d)
	}
}

// The figures of the other machine that come with the report name cases that
// there are.
func TestElsewhere_NamesCasesOfTheSuite(t *testing.T) {
	e, err := readElsewhere("../docs/performance/elsewhere.json")
	if err != nil {
		t.Fatal(err)
	}
	for name := range e.Cases {
		if !slices.ContainsFunc(suiteCases(), func(c suiteCase) bool { return c.name == name }) {
			t.Errorf("no case is called %s", name)
		}
	}
	for text, want := range map[string]string{
		`{"floor_us": 0}`: "floor_us", `{"floor_us": 1, "peers": ["a"], "cases": {"x": [1, 2]}}`: "x has 2 values for 1 peers", `[]`: "json",
	} {
		path := filepath.Join(t.TempDir(), "e.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readElsewhere(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestReport_ClaimsNothingThatItDoesNotKnow: a suite that was interrupted before
// its first run has not lost nothing, and not every broker runs here.
func TestReport_ClaimsNothingThatItDoesNotKnow(t *testing.T) {
	s := sample()
	if text := s.markdown(nil); !strings.Contains(text, "share the machine") {
		t.Error("all of it ran here")
	}
	s.Cases[0].Runs["mochi"][0].URL = "ws://broker.example/mqtt"
	if text := s.markdown(nil); strings.Contains(text, "share the machine") {
		t.Error("a broker was elsewhere")
	}
	s.Cases = []Case{{Name: "pairs", Runs: map[string][]Result{}}}
	if text := s.markdown(nil); strings.Contains(text, "arrived once") {
		t.Error(text)
	}
}

func TestReport_RefusesWhatHasNoResults(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "neither", `{"single_us": 5}`: "nothing to report", `[1]`: "json", `{"peers": []}`: "neither",
	} {
		path := filepath.Join(t.TempDir(), "f.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := load([]string{path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestReport_TakesTheFloorOfAScenario or of a file that floor wrote.
func TestReport_TakesTheFloorOfAScenario(t *testing.T) {
	one := sample().Cases[0].Runs["mochi"][0]
	one.Floor = 4.05
	b, err := json.Marshal(one)
	if err != nil {
		t.Fatal(err)
	}
	s, err := decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if text := s.markdown(nil); !strings.Contains(text, "cost 4.05 µs of CPU.") || !strings.Contains(text, "multiples of a bare write") || !strings.Contains(text, "| 2.00 |") {
		t.Error(text)
	}
	if s, err = decode([]byte(`{"single_us": 5, "eight_us": 0.7}`)); err != nil || *s.Floor != (FloorResult{Single: 5, Eight: 0.7}) {
		t.Errorf("%+v %v", s, err)
	}
}

func TestResult_NotesWhatBoundsItsFigures(t *testing.T) {
	for want, r := range map[string]*Result{
		"":                       {Measured: 2, Units: 100, CPU: 1, OwnCPU: 1, Published: 100, Load: &LoadResult{Rate: 50}, Tally: drive.Tally{Sent: 100, Expected: 100}},
		"97 % of its core":       {Measured: 2, Units: 100, CPU: 1, OwnCPU: 1.94},
		"is it the broker's":     {Measured: 2, Units: 100, OwnCPU: 1},
		"50 messages/s were pub": {Measured: 2, Units: 100, CPU: 1, Published: 100, Load: &LoadResult{Rate: 80}},
		"25 deliveries/s of 50":  {Unit: "delivery", Measured: 2, Units: 50, Rate: 25, CPU: 1, Published: 100, Load: &LoadResult{Rate: 50}, Tally: drive.Tally{Sent: 100, Expected: 100}},
		"Maximum, 20, held":      {Measured: 2, Units: 100, CPU: 1, Load: &LoadResult{QoS: 1, Window: 40}},
	} {
		got := strings.Join(r.remarks(1, true, 20), "; ")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q has no %q", got, want)
		}
	}
}

func TestProgress_FitsTheTerminal(t *testing.T) {
	for columns, want := range map[int]string{0: "1 → 1000", 9: "1 → 1000", 8: "1 → 100", 4: "1 →"} {
		if got := fit("1 → 1000", columns); got != want {
			t.Errorf("%d columns: %q", columns, got)
		}
	}
}
