package attacks

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

// document is where the table stands, between two lines.
const (
	document = "../../../docs/security.md"
	begin    = "<!-- begin: written by make attacks -->\n"
	end      = "<!-- end: attacks -->\n"
)

// writeTable prints the outcomes as Markdown and, if asked to, puts them into
// the document.
func writeTable(t *testing.T, all []outcome) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d processors, shared by broker, honest clients, control and attackers; %v of each attack.\n\n", runtime.NumCPU(), longScale.attack)
	b.WriteString("| attack | attackers have | honest p50 / p99: quiet | under attack | control p99: quiet, under attack | within | broker's processor time | peak RSS / bound, MiB | honest disconnected, messages lost | they did | they were told |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, o := range all {
		within := "yes"
		if o.late != "" {
			within = "**no**: " + o.late
		}
		bad := fmt.Sprintf("%d, %d", o.loaded.Disconnected, o.loaded.Lost)
		if len(o.faults) > 0 {
			bad += "; **" + strings.Join(o.faults, "; ") + "**"
		}
		fmt.Fprintf(&b, "| %s | %s | %v / %v | %v / %v | %v, %v | %s | %.0f %% | %d / %d: %s | %s | %s | %s |\n",
			o.name, o.budget, round(o.quiet.P50), round(o.quiet.P99), round(o.loaded.P50), round(o.loaded.P99),
			round(o.control.P99), round(o.controlLoaded.P99), within, 100*o.cpu, o.peak, o.memory, o.why, bad, sorted(o.did), sorted(o.told))
	}
	b.WriteString("\n")
	fmt.Print(b.String())
	if !*update {
		return
	}
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", document)
	}
	if err := os.WriteFile(document, []byte(before+begin+b.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
