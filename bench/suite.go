package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"
)

// Suite is several brokers' results for several cases, as `peers` writes them.
type Suite struct {
	Started time.Time    `json:"started"`
	Machine string       `json:"machine"`
	Floor   *FloorResult `json:"floor,omitempty"`
	Peers   []string     `json:"peers"` // the first is what the others are compared with
	Cases   []Case       `json:"cases"`
}

// Case is one scenario with one setting.
type Case struct {
	Name  string              `json:"name"`
	Title string              `json:"title"`
	Unit  string              `json:"unit"`
	Runs  map[string][]Result `json:"runs"` // by peer, in the order they ran
}

// suiteCase is a case to run: arguments of a scenario's command.
type suiteCase struct {
	name string
	args []string
}

// suiteCases are the cases of a full comparison. A replay may pause for long, so
// it is waited for longer than live messages are.
func suiteCases() []suiteCase {
	return []suiteCase{
		{"fanout-bursts", []string{"fanout", "--burst=8"}},
		{"fanout-single", []string{"fanout", "--burst=1"}},
		{"fanout-qos1", []string{"fanout", "--burst=8", "--qos=1"}},
		{"fanin", []string{"fanin", "--burst=8"}},
		{"fanin-qos1", []string{"fanin", "--burst=8", "--qos=1"}},
		{"pairs-1", []string{"pairs", "--window=1"}},
		{"pairs-16", []string{"pairs", "--window=16"}},
		{"pairs-qos1", []string{"pairs", "--window=8", "--qos=1"}},
		{"request", []string{"request"}},
		{"request-1", []string{"request", "--pairs=1"}},
		{"wildcard", []string{"wildcard"}},
		{"retained", []string{"retained", "--drain=10s"}},
		{"connect", []string{"connect"}},
		{"idle", []string{"idle", "--steps=2000,6000,10000,14000,18000"}},
	}
}

// spreadOf is a metric over the runs of one peer.
type spreadOf struct{ median, min, max float64 }

// over computes metric over runs. Runs without the metric (NaN) do not count;
// ok is false if none has it.
func over(runs []Result, metric func(*Result) float64) (s spreadOf, ok bool) {
	var v []float64
	for i := range runs {
		if x := metric(&runs[i]); !math.IsNaN(x) {
			v = append(v, x)
		}
	}
	if len(v) == 0 {
		return s, false
	}
	slices.Sort(v)
	s.min, s.max = v[0], v[len(v)-1]
	s.median = v[len(v)/2]
	if len(v)%2 == 0 {
		s.median = (v[len(v)/2-1] + v[len(v)/2]) / 2
	}
	return s, true
}

// The metrics of a report.
func cpuOf(r *Result) float64  { return positive(r.CPUPerUnit) }
func rateOf(r *Result) float64 { return positive(r.Rate) }
func rssOf(r *Result) float64  { return positive(r.RSSPerUnit) }
func p50Of(r *Result) float64 {
	if l := r.main(); l != nil {
		return l.P50
	}
	return math.NaN()
}
func p99Of(r *Result) float64 {
	if l := r.main(); l != nil {
		return l.P99
	}
	return math.NaN()
}
func lostOf(r *Result) float64 {
	if r.Tally.Expected == 0 {
		return math.NaN()
	}
	return 100 * float64(r.Tally.Lost) / float64(r.Tally.Expected)
}

func positive(x float64) float64 {
	if x <= 0 {
		return math.NaN()
	}
	return x
}

// main is the latency that the scenario is about: of messages, or of connects
// where there are none.
func (r *Result) main() *Latency {
	if r.Latency != nil {
		return r.Latency
	}
	return r.Connect
}

// load reads results and suites from files and makes one suite of them. Results
// of one title are a case, those of one broker in it are runs.
func load(paths []string) (*Suite, error) {
	all := &Suite{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var probe struct {
			Scenario string `json:"scenario"`
		}
		if err := json.Unmarshal(b, &probe); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if probe.Scenario == "" {
			var s Suite
			if err := json.Unmarshal(b, &s); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			all.join(&s)
			continue
		}
		var r Result
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all.join(&Suite{Started: r.Started, Peers: []string{r.Broker}, Cases: []Case{{
			Name: r.Scenario, Title: r.Title, Unit: r.Unit, Runs: map[string][]Result{r.Broker: {r}},
		}}})
	}
	return all, nil
}

// join adds o to s.
func (s *Suite) join(o *Suite) {
	if s.Started.IsZero() {
		s.Started = o.Started
	}
	if s.Machine == "" {
		s.Machine = o.Machine
	}
	if s.Floor == nil {
		s.Floor = o.Floor
	}
	for _, p := range o.Peers {
		if !slices.Contains(s.Peers, p) {
			s.Peers = append(s.Peers, p)
		}
	}
	for _, c := range o.Cases {
		i := slices.IndexFunc(s.Cases, func(d Case) bool { return d.Title == c.Title })
		if i < 0 {
			s.Cases = append(s.Cases, c)
			continue
		}
		for peer, runs := range c.Runs {
			s.Cases[i].Runs[peer] = append(s.Cases[i].Runs[peer], runs...)
		}
	}
}

// write puts s out as indented JSON.
func (s *Suite) write(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(s)
}
