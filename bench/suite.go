package bench

import (
	"encoding/json"
	"errors"
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
	Sweeps  []Sweep      `json:"sweeps,omitempty"`

	Elsewhere *Elsewhere `json:"elsewhere,omitempty"`
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
	each time.Duration // what a run takes beside its warm-up and duration
}

// durableCases are the cases of brokers that keep everything on disk, synced
// before each acknowledgement.
func durableCases() []suiteCase {
	return []suiteCase{
		{"durable-offline", []string{"durable-offline", "--stall=20s", "--drain=10s"}, 3 * time.Second},
		{"durable-online", []string{"durable-online", "--stall=20s", "--drain=10s"}, 3 * time.Second},
	}
}

// suiteCases are the cases of a full comparison. A broker that loses messages
// waits for them at the end, and a replay may pause for long. Those with a rate
// are there for their latency: in a closed loop the faster broker has more to do.
func suiteCases() []suiteCase {
	const usual = 900 * time.Millisecond
	return []suiteCase{
		{"fanout-bursts", []string{"fanout", "--burst=8"}, usual},
		{"fanout-single", []string{"fanout", "--burst=1"}, usual},
		{"fanout-qos1", []string{"fanout", "--burst=8", "--qos=1"}, usual},
		{"fanout-rate", []string{"fanout", "--burst=1", "--rate=20"}, usual},
		{"fanin", []string{"fanin", "--burst=8"}, 1500 * time.Millisecond},
		{"fanin-qos1", []string{"fanin", "--burst=8", "--qos=1"}, 1500 * time.Millisecond},
		{"fanin-rate", []string{"fanin", "--burst=1", "--rate=20000"}, usual},
		{"pairs-1", []string{"pairs", "--window=1"}, usual},
		{"pairs-16", []string{"pairs", "--window=16"}, usual},
		{"pairs-qos1", []string{"pairs", "--window=8", "--qos=1"}, 1500 * time.Millisecond},
		{"pairs-rate", []string{"pairs", "--rate=10000"}, usual},
		{"request", []string{"request"}, usual},
		{"request-1", []string{"request", "--pairs=1"}, usual},
		{"wildcard", []string{"wildcard"}, 2 * time.Second},
		{"shared", []string{"shared"}, 2 * time.Second},
		{"mixed", []string{"mixed"}, usual},
		{"retained", []string{"retained", "--repeat=1", "--drain=3s"}, 8 * time.Second},
		{"connect", []string{"connect"}, 2 * time.Second},
		{"idle", []string{"idle", "--steps=2000,10000,18000", "--settle=1s"}, 8 * time.Second},
	}
}

// timed tells whether the case is measured for a duration that is given.
func (s *suiteCase) timed() bool {
	switch s.args[0] {
	case "connect", "idle", "retained":
		return false
	}
	return true
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
	return spreadOver(v), true
}

// spreadOver is that of v, which is not empty.
func spreadOver(v []float64) (s spreadOf) {
	v = slices.Sorted(slices.Values(v))
	s.min, s.max = v[0], v[len(v)-1]
	s.median = v[len(v)/2]
	if len(v)%2 == 0 {
		s.median = (v[len(v)/2-1] + v[len(v)/2]) / 2
	}
	return s
}

// The metrics of a report.
func cpuOf(r *Result) float64  { return positive(r.CPUPerUnit) }
func rateOf(r *Result) float64 { return positive(r.Rate) }
func rssOf(r *Result) float64  { return positive(r.RSSPerUnit) }
func waitedOf(r *Result) float64 {
	if r.Waited == 0 || r.Measured == 0 {
		return math.NaN()
	}
	return 100 * r.Waited / r.Measured
}
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
		s, err := decode(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all.join(s)
	}
	if len(all.Peers) == 0 {
		return nil, errors.New("nothing to report: no file has results of a scenario or of peers")
	}
	return all, nil
}

// decode makes a suite of what peers, a scenario or floor has written.
func decode(b []byte) (*Suite, error) {
	var is struct {
		Peers    []string `json:"peers"`
		Scenario string   `json:"scenario"`
		Single   float64  `json:"single_us"`
	}
	if err := json.Unmarshal(b, &is); err != nil {
		return nil, err
	}
	switch {
	case len(is.Peers) > 0:
		s := new(Suite)
		return s, json.Unmarshal(b, s)
	case is.Scenario != "":
		var r Result
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, err
		}
		s := &Suite{Started: r.Started, Machine: r.Machine, Peers: []string{r.Broker}, Cases: []Case{{
			Name: r.Scenario, Title: r.Title, Unit: r.Unit, Runs: map[string][]Result{r.Broker: {r}},
		}}}
		if r.Floor > 0 {
			s.Floor = &FloorResult{Single: r.Floor}
		}
		return s, nil
	case is.Single > 0:
		s := &Suite{Floor: new(FloorResult)}
		return s, json.Unmarshal(b, s.Floor)
	}
	return nil, errors.New("neither the result of a scenario nor of peers nor of floor")
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
	s.Sweeps = append(s.Sweeps, o.Sweeps...)
	if s.Elsewhere == nil {
		s.Elsewhere = o.Elsewhere
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
