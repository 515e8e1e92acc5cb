package bench

import (
	"fmt"
	"maps"
	"math"
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
	b.WriteString(". Broker and generator share the machine. Each figure is the median of the runs, with minimum and maximum where there were several.\n")
	if s.Floor != nil {
		fmt.Fprintf(&b, "\nA bare `write` of a message to a loopback socket cost %.2f µs of CPU, %.2f µs with 8 messages in one write.\n", s.Floor.Single, s.Floor.Eight)
	}
	s.table(&b, "Broker CPU, µs per unit", cpuOf, "%.2f", true)
	if s.Floor != nil {
		single := s.Floor.Single
		s.table(&b, "Broker CPU, multiples of a bare write", func(r *Result) float64 { return cpuOf(r) / single }, "%.2f", false)
	}
	image(&b, plots, "cpu.svg", "Broker CPU per unit")
	s.table(&b, "Throughput, units per second", rateOf, "%.0f", true)
	image(&b, plots, "throughput.svg", "Throughput")
	s.table(&b, "Latency p50, ms", milli(p50Of), "%.3g", true)
	s.table(&b, "Latency p99, ms", milli(p99Of), "%.3g", true)
	for i := range s.Cases {
		image(&b, plots, latencyFile(&s.Cases[i]), "Latency: "+s.Cases[i].Title)
	}
	s.table(&b, "Memory, bytes of RSS per session", rssOf, "%.0f", true)
	image(&b, plots, "memory.svg", "RSS against sessions")
	s.table(&b, "Lost, % of expected deliveries", lostOf, "%.3g", false)
	s.troubles(&b)
	return b.String()
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

// troubles lists every run in which not all went well.
func (s *Suite) troubles(b *strings.Builder) {
	var list strings.Builder
	for _, c := range s.Cases {
		for _, p := range s.Peers {
			for i, r := range c.Runs[p] {
				text := r.Tally.Trouble()
				for _, e := range slices.Sorted(maps.Keys(r.Errors)) {
					text += fmt.Sprintf("; %s (%d)", e, r.Errors[e])
				}
				if text != "" {
					fmt.Fprintf(&list, "- %s, %s, run %d: %s\n", c.Title, p, i+1, text)
				}
			}
		}
	}
	if list.Len() > 0 {
		fmt.Fprintf(b, "\n## Loss, duplicates, disorder and other trouble\n\n%s", list.String())
	} else {
		b.WriteString("\nEvery message of every run arrived once and in order.\n")
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
