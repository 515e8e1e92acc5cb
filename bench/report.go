package bench

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Report is the command `report`.
type Report struct {
	Files []string `arg:"" help:"JSON files of scenarios or of peers." type:"existingfile"`
	Out   string   `help:"Folder for report.md and the plots." default:"bench-results"`
}

// Help is the command's page.
func (*Report) Help() string {
	return `Puts all files into one report: results with the same title become one case, and those of one broker (--label) in it become its runs.
The plots are SVG and follow the reader's light or dark scheme.`
}

// Run writes the report.
func (c *Report) Run() error {
	s, err := load(c.Files)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return err
	}
	return s.report(c.Out)
}

// report writes report.md and its plots into folder.
func (s *Suite) report(folder string) error {
	plots := s.plots()
	for name, svg := range plots {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(folder, "report.md"), []byte(s.markdown(plots)), 0o644)
}

// markdown is the text of the report; plots tells which plots there are.
func (s *Suite) markdown(plots map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Broker benchmark\n\n%s", s.Started.UTC().Format(time.DateOnly))
	if s.Machine != "" {
		fmt.Fprintf(&b, ", %s", s.Machine)
	}
	if s.local() {
		b.WriteString(". Broker and generator share the machine")
	}
	b.WriteString(". Each figure is the median of the runs, with minimum and maximum where there were several.\n")
	if s.Floor != nil {
		fmt.Fprintf(&b, "\nA bare `write` of a message to a loopback socket cost %.2f µs of CPU", s.Floor.Single)
		if s.Floor.Eight > 0 {
			fmt.Fprintf(&b, ", %.2f µs with 8 messages in one write", s.Floor.Eight)
		}
		b.WriteString(".\n")
	}
	s.table(&b, "Broker CPU, µs per unit", cpuOf, "%.2f", true)
	if s.Floor != nil {
		single := s.Floor.Single
		s.table(&b, "Broker CPU, multiples of a bare write", func(r *Result) float64 { return cpuOf(r) / single }, "%.2f", false)
	}
	image(&b, plots, "cpu.svg", "Broker CPU per unit")
	s.elsewhere(&b)
	s.table(&b, "Throughput, units per second", rateOf, "%.0f", true)
	image(&b, plots, "throughput.svg", "Throughput")
	s.table(&b, "Latency p50, ms", milli(p50Of), "%.3g", true)
	s.table(&b, "Latency p99, ms", milli(p99Of), "%.3g", true)
	if s.idlers() {
		b.WriteString("\n† Messages were lost, and publishers in a closed loop waited for them until they gave up: fewer were on their way than with the other brokers.\n")
	}
	s.table(&b, "Waiting for a processor, % of the time", waitedOf, "%.0f", false)
	if strings.Contains(b.String(), "## Waiting") {
		b.WriteString("\nThe threads of the broker were ready to run, and others had the cores, the generator among them. Where that is much, latency tells of the machine.\n")
	}
	for i := range s.Cases {
		image(&b, plots, latencyFile(&s.Cases[i]), "Latency: "+s.Cases[i].Title)
	}
	s.table(&b, "Memory, bytes of RSS per session", rssOf, "%.0f", true)
	image(&b, plots, "memory.svg", "RSS against sessions")
	s.sweeps(&b, plots)
	s.table(&b, "Lost, % of expected deliveries", lostOf, "%.3g", false)
	s.troubles(&b)
	s.notes(&b)
	return b.String()
}

// local tells whether all brokers were reached by a loopback address.
func (s *Suite) local() bool {
	for _, c := range s.Cases {
		for _, runs := range c.Runs {
			for _, r := range runs {
				u, err := url.Parse(r.URL)
				if err != nil || u.Hostname() == "localhost" {
					continue
				}
				if a, err := netip.ParseAddr(u.Hostname()); err != nil || !a.IsLoopback() {
					return false
				}
			}
		}
	}
	return true
}

func milli(metric func(*Result) float64) func(*Result) float64 {
	return func(r *Result) float64 { return metric(r) / 1e3 }
}

func image(b *strings.Builder, plots map[string]string, file, alt string) {
	if _, ok := plots[file]; ok {
		fmt.Fprintf(b, "\n![%s](%s)\n", alt, file)
	}
}

// table writes one metric, cases down and peers across, or nothing if no run
// has it. With ratio, each peer but the first gets its multiple of the first.
func (s *Suite) table(b *strings.Builder, title string, metric func(*Result) float64, format string, ratio bool) {
	var rows strings.Builder
	for _, c := range s.Cases {
		row, any := "| "+c.Title, false
		if c.Unit != "" {
			row += " (" + c.Unit + ")"
		}
		base, hasBase := over(c.Runs[s.Peers[0]], metric)
		for i, p := range s.Peers {
			v, ok := over(c.Runs[p], metric)
			if !ok {
				row += " | –"
				continue
			}
			any = true
			row += " | " + fmt.Sprintf(format, v.median)
			if strings.HasPrefix(title, "Latency") && idle(c.Runs[p]) {
				row += "†"
			}
			if len(c.Runs[p]) > 1 {
				row += fmt.Sprintf(" ("+format+"–"+format+")", v.min, v.max)
			}
			if ratio && i > 0 && hasBase && base.median > 0 {
				row += fmt.Sprintf(", ×%.2f", v.median/base.median)
			}
		}
		if any {
			rows.WriteString(row + " |\n")
		}
	}
	if rows.Len() == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n| case | %s |\n|---%s|\n%s", title, strings.Join(s.Peers, " | "), strings.Repeat("|---:", len(s.Peers)), rows.String())
}

// idle tells whether publishers waited for messages that never came, in any run:
// its latency is that of a lighter load.
func idle(runs []Result) bool {
	return slices.ContainsFunc(runs, func(r Result) bool { return r.Latency != nil && r.Tally.Lost > 0 })
}

func (s *Suite) idlers() bool {
	for _, c := range s.Cases {
		for _, runs := range c.Runs {
			if idle(runs) {
				return true
			}
		}
	}
	return false
}

// troubles lists every run in which not all went well.
func (s *Suite) troubles(b *strings.Builder) {
	var list strings.Builder
	runs := 0
	for _, c := range s.Cases {
		for _, p := range s.Peers {
			for i, r := range c.Runs[p] {
				runs++
				text := r.Tally.Trouble()
				if r.Ended != "" {
					text += fmt.Sprintf("; %s after %.1f s", r.Ended, r.Measured)
				}
				for _, e := range slices.Sorted(maps.Keys(r.Errors)) {
					text += fmt.Sprintf("; %s (%d)", e, r.Errors[e])
				}
				if text != "" {
					fmt.Fprintf(&list, "- %s, %s, run %d: %s\n", c.Title, p, i+1, text)
				}
			}
		}
	}
	switch {
	case list.Len() > 0:
		fmt.Fprintf(b, "\n## Loss, duplicates, disorder and other trouble\n\n%s", list.String())
	case runs > 0:
		b.WriteString("\nEvery message of every run arrived once and in order.\n")
	}
}

// notes lists what bounds the figures, a line per case and broker.
func (s *Suite) notes(b *strings.Builder) {
	var list strings.Builder
	for _, c := range s.Cases {
		for _, p := range s.Peers {
			i := slices.IndexFunc(c.Runs[p], func(r Result) bool { return len(r.Notes) > 0 })
			if i >= 0 {
				fmt.Fprintf(&list, "- %s, %s, run %d: %s\n", c.Title, p, i+1, strings.Join(c.Runs[p][i].Notes, "; "))
			}
		}
	}
	if list.Len() > 0 {
		fmt.Fprintf(b, "\n## What bounds the figures\n\n%s", list.String())
	}
}

// plots draws what there is to draw; the keys are file names.
func (s *Suite) plots() map[string]string {
	all := map[string]string{}
	bars := func(file, title string, metric func(*Result) float64) {
		chart := barChart{title: title, series: s.Peers}
		for _, c := range s.Cases {
			g := barGroup{label: c.Title}
			some := false
			for _, p := range s.Peers {
				v, ok := over(c.Runs[p], metric)
				if !ok {
					v.median = math.NaN()
				}
				some = some || ok
				g.values = append(g.values, v)
			}
			if some {
				chart.groups = append(chart.groups, g)
			}
		}
		if len(chart.groups) > 0 {
			all[file] = chart.svg()
		}
	}
	bars("cpu.svg", "Broker CPU, µs per unit (shorter is better)", cpuOf)
	bars("throughput.svg", "Throughput, units per second (longer is better)", rateOf)
	for i := range s.Cases {
		c := &s.Cases[i]
		if chart := s.latencyChart(c); len(chart.lines) > 0 {
			all[latencyFile(c)] = chart.svg()
		}
	}
	for i := range s.Sweeps {
		w := &s.Sweeps[i]
		if chart := w.chart(s.Peers); len(chart.lines) > 0 {
			all[w.Name+".svg"] = chart.svg()
		}
	}
	if chart := s.memoryChart(); len(chart.lines) > 0 {
		all["memory.svg"] = chart.svg()
	}
	return all
}

func latencyFile(c *Case) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(c.Title))
	for strings.Contains(clean, "--") {
		clean = strings.ReplaceAll(clean, "--", "-")
	}
	return "latency-" + strings.Trim(clean, "-") + ".svg"
}

// latencyChart shows each peer's run with the median p99.
func (s *Suite) latencyChart(c *Case) lineChart {
	chart := lineChart{title: "Latency in ms: " + c.Title, x: "percentile", logY: true, percentiles: true}
	for i, p := range s.Peers {
		v, ok := over(c.Runs[p], p99Of)
		if !ok {
			continue
		}
		var best *Latency
		for k := range c.Runs[p] {
			l := c.Runs[p][k].main()
			if l != nil && (best == nil || math.Abs(l.P99-v.median) < math.Abs(best.P99-v.median)) {
				best = l
			}
		}
		line := chartLine{name: p, color: i}
		for _, q := range best.Quantiles {
			line.points = append(line.points, [2]float64{q[0], math.Max(q[1]/1e3, 1e-3)})
		}
		if len(line.points) > 1 {
			chart.lines = append(chart.lines, line)
		}
	}
	return chart
}

// memoryChart shows RSS against sessions, the last run of each peer.
func (s *Suite) memoryChart() lineChart {
	chart := lineChart{title: "Broker memory in MiB", x: "sessions"}
	for _, c := range s.Cases {
		for i, p := range s.Peers {
			line := chartLine{name: p, color: i}
			for _, r := range c.Runs[p] {
				if len(r.Points) < 2 {
					continue
				}
				line.points = line.points[:0]
				for _, pt := range r.Points {
					line.points = append(line.points, [2]float64{float64(pt.Sessions), float64(pt.RSS) / (1 << 20)})
				}
			}
			if len(line.points) > 0 {
				chart.lines = append(chart.lines, line)
			}
		}
	}
	return chart
}
