// Command mutate shows that the conformance tests can fail: for each mutation
// in broker/conformance/testdata/mutations.txt it builds the broker with one
// rule switched off and runs the test of that rule, which must then fail. The
// source is not touched; the changed file reaches the compiler by an overlay.
//
//	go run ./broker/conformance/mutate [-only MQTT-x.x.x-n] [-pick N]
//
// It runs at the root of the repository, and exits 1 if a mutation does not
// compile or its test still passes.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"hashplus/broker/conformance"
)

const data = "broker/conformance/testdata"

func main() {
	only := flag.String("only", "", "run the mutations of this statement only")
	pick := flag.Int("pick", 0, "print the first N statements of the random order, and stop")
	flag.Parse()
	if err := run(*only, *pick); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(only string, pick int) error {
	if pick > 0 {
		five, three, err := conformance.ReadStatements(data)
		if err != nil {
			return err
		}
		for _, id := range conformance.Pick(append(five, three...))[:pick] {
			fmt.Println(id)
		}
		return nil
	}
	all, err := conformance.ReadMutations(data)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var failed []string
	for _, m := range all {
		switch {
		case only != "" && m.ID != only:
		case m.None != "":
			fmt.Printf("-      %-16s no rule to switch off: %s\n", m.ID, m.None)
		default:
			began := time.Now()
			verdict := try(&m, dir)
			fmt.Printf("%-6s %-16s %-60s %.1f s\n", word(verdict), m.ID, m.Test, time.Since(began).Seconds())
			if verdict != nil {
				fmt.Println("      ", verdict)
				failed = append(failed, m.ID)
			}
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("not noticed: %s", strings.Join(failed, ", "))
	}
	return nil
}

func word(err error) string {
	if err != nil {
		return "BAD"
	}
	return "fails"
}

// try runs the test of a mutation with and without it. It returns nil if the
// test passes without and fails with it.
func try(m *conformance.Mutation, dir string) error {
	src, err := os.ReadFile(filepath.FromSlash(m.File))
	if err != nil {
		return err
	}
	changed, err := m.Apply(string(src))
	if err != nil {
		return err
	}
	target, err := filepath.Abs(filepath.FromSlash(m.File))
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		return err
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {target: file}})
	if err != nil {
		return err
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		return err
	}
	with := append(os.Environ(), "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
	test := []string{"test", "./broker/conformance", "-count=1", "-run=^" + m.Test + "$"}
	if out, err := command(os.Environ(), test...); err != nil {
		return fmt.Errorf("the test fails without the mutation: %s", out)
	}
	if out, err := command(with, "build", "-o", filepath.Join(dir, "broker.exe"), "./cmd/hashplus"); err != nil {
		return fmt.Errorf("the mutation does not compile: %s", out)
	}
	out, err := command(with, test...)
	if err == nil {
		return fmt.Errorf("%s still passes", m.Test)
	}
	if !strings.Contains(out, "--- FAIL: "+m.Test) || strings.Contains(out, "it ends at once") {
		return fmt.Errorf("the test does not run: %s", out)
	}
	return nil
}

// command runs the go command and returns what it prints, cut short.
func command(env []string, args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Env = env
	b, err := cmd.CombinedOutput()
	return string(b[:min(len(b), 1000)]), err
}
