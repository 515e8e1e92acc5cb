package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// Elsewhere are figures of brokers that were measured on another machine, where
// the same cases ran. What can be compared is their multiples of a bare write.
type Elsewhere struct {
	Note  string                `json:"note"`
	Floor float64               `json:"floor_us"`
	Peers []string              `json:"peers"`
	Cases map[string][]*float64 `json:"cases"` // by name of the case: one per peer, µs per unit or bytes per session; null if there is none
}

// readElsewhere reads the file of --elsewhere.
func readElsewhere(path string) (*Elsewhere, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var e Elsewhere
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if e.Floor <= 0 {
		return nil, fmt.Errorf("%s: floor_us is %v, must be above 0", path, e.Floor)
	}
	for name, values := range e.Cases {
		if len(values) != len(e.Peers) {
			return nil, fmt.Errorf("%s: %s has %d values for %d peers", path, name, len(values), len(e.Peers))
		}
	}
	return &e, nil
}

// elsewhere writes the first peer beside those of the other machine.
func (s *Suite) elsewhere(b *strings.Builder) {
	e := s.Elsewhere
	if e == nil || s.Floor == nil {
		return
	}
	first := s.Peers[0]
	var costs, memory strings.Builder
	for _, c := range s.Cases {
		values, known := e.Cases[c.Name]
		if !known {
			continue
		}
		metric, unit, rows := cpuOf, "µs", &costs
		here, there := s.Floor.Single, e.Floor
		if _, ok := over(c.Runs[first], rssOf); ok {
			metric, unit, rows, here, there = rssOf, "bytes", &memory, 1, 1
		}
		v, ok := over(c.Runs[first], metric)
		if !ok {
			continue
		}
		cell := func(v, floor float64) {
			if floor == 1 {
				fmt.Fprintf(rows, " | %.0f", v)
				return
			}
			fmt.Fprintf(rows, " | %.2f (%.3g %s)", v/floor, v, unit)
		}
		fmt.Fprintf(rows, "| %s", c.Title)
		cell(v.median, here)
		for _, v := range values {
			if v == nil {
				rows.WriteString(" | –")
				continue
			}
			cell(*v, there)
		}
		rows.WriteString(" |\n")
	}
	head := fmt.Sprintf("| case | %s, here | %s |\n|---%s|\n", first, strings.Join(e.Peers, " | "), strings.Repeat("|---:", 1+len(e.Peers)))
	if costs.Len()+memory.Len() > 0 {
		fmt.Fprintf(b, "\n## Beside brokers on another machine\n\n%s\n", e.Note)
	}
	if costs.Len() > 0 {
		fmt.Fprintf(b, "\nBroker CPU in multiples of the bare write of its machine, and in µs:\n\n%s%s", head, costs.String())
	}
	if memory.Len() > 0 {
		fmt.Fprintf(b, "\nBytes of RSS per session:\n\n%s%s", head, memory.String())
	}
}
