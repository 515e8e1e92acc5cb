package broker

import (
	"os"
	"strings"
	"testing"
)

// Every topic below $SYS/broker/ is explained in docs/sys.md.
func TestSys_TopicsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/sys.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range newSim(t, 1, Options{}).b.sysValues(0) {
		if !strings.Contains(string(page), "`"+v.name+"`") {
			t.Errorf("docs/sys.md says nothing of %s", v.name)
		}
	}
}
