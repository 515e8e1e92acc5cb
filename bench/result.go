package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hashplus/bench/drive"
)

// Result is what a scenario found. All times are in µs unless a name says
// otherwise; memory is in bytes.
type Result struct {
	Scenario string         `json:"scenario"`
	Title    string         `json:"title"`
	Broker   string         `json:"broker"`
	URL      string         `json:"url"`
	Protocol string         `json:"protocol"`
	Unit     string         `json:"unit"`
	Params   map[string]any `json:"params"`
	Load     *LoadResult    `json:"load,omitempty"`
	Started  time.Time      `json:"started"`
	Machine  string         `json:"machine,omitempty"` // the generator's; a suite tells it once

	Measured  float64 `json:"measured_seconds"` // how long the figures below were taken
	Units     uint64  `json:"units"`            // deliveries, round trips, connects in that time
	Rate      float64 `json:"units_per_second"`
	Published uint64  `json:"published"` // in that time

	CPU        float64 `json:"broker_cpu_seconds,omitempty"`
	CPUPerUnit float64 `json:"broker_cpu_us_per_unit,omitempty"` // the headline
	Waited     float64 `json:"broker_waited_seconds,omitempty"`  // its threads, ready to run, for a processor
	OwnCPU     float64 `json:"generator_cpu_seconds"`
	RSSBefore  uint64  `json:"broker_rss_before,omitempty"` // before the first connection
	RSSPeak    uint64  `json:"broker_rss_peak,omitempty"`
	RSSPerUnit float64 `json:"broker_rss_per_session,omitempty"` // idle only
	Floor      float64 `json:"floor_us,omitempty"`               // one bare write, if it was measured

	Latency *Latency    `json:"latency,omitempty"`
	Calm    *Latency    `json:"latency_calm,omitempty"`               // slow only: before some readers stalled
	Growth  float64     `json:"broker_rss_growth_per_hour,omitempty"` // soak only
	Connect *Latency    `json:"connect,omitempty"`                    // dial to CONNACK
	Tally   drive.Tally `json:"tally"`

	Ended string   `json:"ended_early,omitempty"` // why, if it did
	Notes []string `json:"notes,omitempty"`       // what a reader must know to judge the figures

	Samples []Sample       `json:"samples,omitempty"`
	Points  []Point        `json:"points,omitempty"`
	Errors  map[string]int `json:"errors,omitempty"`
}

// LoadResult repeats the load's settings.
type LoadResult struct {
	QoS     byte    `json:"qos"`
	Payload int     `json:"payload"`
	Burst   int     `json:"burst"`
	Window  int     `json:"window,omitempty"`
	Rate    float64 `json:"rate,omitempty"`
}

// Latency is the summary of a histogram, in µs.
type Latency struct {
	Count     int64        `json:"count"`
	Mean      float64      `json:"mean"`
	P50       float64      `json:"p50"`
	P90       float64      `json:"p90"`
	P99       float64      `json:"p99"`
	P999      float64      `json:"p99_9"`
	Max       float64      `json:"max"`
	Quantiles [][2]float64 `json:"quantiles,omitempty"` // percentile and µs, for plots
}

// Sample is the state of a run at one moment.
type Sample struct {
	At        float64 `json:"t"` // seconds since the run began
	Sent      uint64  `json:"sent"`
	Delivered uint64  `json:"delivered"`
	Ready     uint64  `json:"ready"`
	CPU       float64 `json:"cpu,omitempty"` // broker, seconds
	RSS       uint64  `json:"rss,omitempty"`
}

// Point is one step of the idle scenario.
type Point struct {
	Sessions int    `json:"sessions"`
	RSS      uint64 `json:"rss"`
}

// plotted are the percentiles that go into Latency.Quantiles.
var plotted = []float64{1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 97, 98, 99, 99.5, 99.9, 99.95, 99.99, 100}

// summarize returns nil for an empty histogram.
func summarize(h *hdrhistogram.Histogram) *Latency {
	if h.TotalCount() == 0 {
		return nil
	}
	at := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e3 }
	l := &Latency{
		Count: h.TotalCount(), Mean: h.Mean() / 1e3,
		P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: float64(h.Max()) / 1e3,
	}
	for _, q := range plotted {
		l.Quantiles = append(l.Quantiles, [2]float64{q, at(q)})
	}
	return l
}

// remarks are what the figures alone do not tell. The load came from that many
// processes; the broker's process was known or not; the smallest Receive Maximum
// was quota, 0 if there were no publishers.
func (r *Result) remarks(processes int, known bool, quota int) (notes []string) {
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if r.Measured <= 0 {
		return nil
	}
	if used := r.OwnCPU / r.Measured / float64(processes); used > 0.9 {
		note("the generator used %.0f %% of its core: throughput and latency are bounded by it as well", 100*used)
	}
	if known && r.Units > 0 && r.CPU == 0 && r.Ended != brokerGone {
		note("the process of --pid used no CPU time: is it the broker's?")
	}
	l := r.Load
	if l == nil {
		return notes
	}
	if got := float64(r.Published) / r.Measured; l.Rate > 0 && got < 0.98*l.Rate {
		note("%.0f messages/s were published of the %.0f that --rate asks for", got, l.Rate)
	}
	if due := float64(r.Published) * perMessage(&r.Tally); l.Rate > 0 && float64(r.Units) < 0.9*due {
		note("%.0f %s/s of %.0f came in time: latency grows as long as this lasts", r.Rate, plural(r.Unit), due/r.Measured)
	}
	if l.QoS > 0 && l.Rate == 0 && quota > 0 && quota < l.Window {
		note("the broker's Receive Maximum, %d, held the window of %d back", quota, l.Window)
	}
	return notes
}

// perMessage is how many deliveries a message caused, on average.
func perMessage(t *drive.Tally) float64 {
	if t.Sent == 0 {
		return 0
	}
	return float64(t.Expected) / float64(t.Sent)
}

// write puts r out as indented JSON.
func (r *Result) write(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// print puts r out for a person.
func (r *Result) print(w io.Writer) {
	fmt.Fprintf(w, "%s  [%s %s MQTT %s]\n", r.Title, r.Broker, r.URL, r.Protocol)
	if r.CPUPerUnit > 0 {
		fmt.Fprintf(w, "  broker CPU   %.2f µs per %s (%.2f s in %.1f s), generator %.2f s\n", r.CPUPerUnit, r.Unit, r.CPU, r.Measured, r.OwnCPU)
	}
	if r.Waited > 0 && r.Measured > 0 {
		fmt.Fprintf(w, "  waited       %.1f %% of the time for a processor\n", 100*r.Waited/r.Measured)
	}
	if r.Floor > 0 && r.CPUPerUnit > 0 {
		fmt.Fprintf(w, "  floor        %.2f µs of CPU per bare write; %.2f times that per %s\n", r.Floor, r.CPUPerUnit/r.Floor, r.Unit)
	}
	if r.Units > 0 {
		fmt.Fprintf(w, "  throughput   %.0f %s/s (%d)\n", r.Rate, plural(r.Unit), r.Units)
	}
	printLatency(w, "calm", r.Calm)
	printLatency(w, "latency", r.Latency)
	printLatency(w, "connect", r.Connect)
	if r.RSSPeak > 0 {
		fmt.Fprintf(w, "  broker RSS   %.1f MiB before, %.1f MiB at most\n", float64(r.RSSBefore)/(1<<20), float64(r.RSSPeak)/(1<<20))
	}
	if r.Growth != 0 {
		fmt.Fprintf(w, "  growth       %.0f bytes of RSS per hour\n", r.Growth)
	}
	for _, p := range r.Points {
		fmt.Fprintf(w, "  %8d sessions  RSS %.1f MiB\n", p.Sessions, float64(p.RSS)/(1<<20))
	}
	if r.RSSPerUnit > 0 {
		fmt.Fprintf(w, "  memory       %.0f bytes of RSS per session\n", r.RSSPerUnit)
	}
	t := &r.Tally
	if t.Sent > 0 {
		fmt.Fprintf(w, "  accounting   %d sent, %d of %d delivered: %d lost, %d duplicates (%d flagged), %d out of order\n",
			t.Sent, t.Delivered, t.Expected, t.Lost, t.Duplicates, t.Flagged, t.Disordered)
	}
	if text := t.Trouble(); text != "" {
		fmt.Fprintf(w, "  trouble      %s\n", text)
	}
	if r.Ended != "" {
		fmt.Fprintf(w, "  ended early  %s, after %.1f s of measuring\n", r.Ended, r.Measured)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  note         %s\n", n)
	}
	var errs []string
	for e, n := range r.Errors {
		errs = append(errs, fmt.Sprintf("%s (%d)", e, n))
	}
	slices.Sort(errs)
	for _, e := range errs {
		fmt.Fprintf(w, "  error        %s\n", e)
	}
}

func printLatency(w io.Writer, name string, l *Latency) {
	if l != nil {
		fmt.Fprintf(w, "  %-12s p50 %s  p90 %s  p99 %s  p99.9 %s  max %s\n", name, human(l.P50), human(l.P90), human(l.P99), human(l.P999), human(l.Max))
	}
}

// plural is the unit's plural.
func plural(unit string) string {
	if stem, ok := strings.CutSuffix(unit, "y"); ok {
		return stem + "ies"
	}
	return unit + "s"
}

// human writes µs with three digits and a fitting unit.
func human(us float64) string {
	switch {
	case us < 1000:
		return fmt.Sprintf("%.3g µs", us)
	case us < 999.5e3:
		return fmt.Sprintf("%.3g ms", us/1e3)
	}
	return fmt.Sprintf("%.3g s", us/1e6)
}
