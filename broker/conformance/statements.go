package conformance

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Statement is one normative statement of a specification.
type Statement struct {
	ID    string // such as MQTT-3.1.0-1 (5.0) or MQTT3-3.1.0-1 (3.1.1)
	Binds string // server, client or both
	Text  string // what it asks, in our own words
	Note  string // why it has no test, or in what it is kept differently; often ""
}

// Server reports whether the statement binds a server.
func (s *Statement) Server() bool { return s.Binds != "client" }

var statementID = regexp.MustCompile(`^MQTT3?-\d+\.\d+\.\d+-\d+$`)

// ReadStatements reads the lists of MQTT 5.0 and of 3.1.1 from a testdata
// folder, in the order of the specifications. A line is "id | whom it binds |
// what it asks | note".
func ReadStatements(dir string) (five, three []Statement, err error) {
	if five, err = readStatements(filepath.Join(dir, "mqtt5.txt")); err != nil {
		return nil, nil, err
	}
	three, err = readStatements(filepath.Join(dir, "mqtt311.txt"))
	return five, three, err
}

func readStatements(file string) ([]Statement, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []Statement
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line+" ", " | ")
		if len(f) != 4 || !statementID.MatchString(f[0]) || !slices.Contains([]string{"server", "client", "both"}, f[1]) {
			return nil, fmt.Errorf("%s: not a statement: %q", file, line)
		}
		all = append(all, Statement{ID: f[0], Binds: f[1], Text: f[2], Note: strings.TrimSpace(f[3])})
	}
	return all, nil
}

// Pick returns the statements that bind a server in an order that looks random
// and is always the same: that of their hashes, so that a change of the lists
// moves none of the others.
func Pick(all []Statement) []string {
	var ids []string
	for _, s := range all {
		if s.Server() {
			ids = append(ids, s.ID)
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		x, y := sha256.Sum256([]byte("30 of "+a)), sha256.Sum256([]byte("30 of "+b))
		return bytes.Compare(x[:], y[:])
	})
	return ids
}

// Mutation switches one rule off: a change of one line of the source, after
// which a test must fail.
type Mutation struct {
	ID   string // of the statement
	None string // why there is no rule to switch off; the rest is empty then
	File string // from the root of the repository, with slashes
	Old  string // the line, without the white space around it; occurs once in the file
	New  string // what stands in its place; may be empty
	Test string // the test that must fail
}

// ReadMutations reads mutations.txt of a testdata folder: blocks of "key:
// value" lines, each begun by "id".
func ReadMutations(dir string) ([]Mutation, error) {
	b, err := os.ReadFile(filepath.Join(dir, "mutations.txt"))
	if err != nil {
		return nil, err
	}
	var all []Mutation
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if key == "id" {
			all = append(all, Mutation{ID: value})
			continue
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("mutations.txt: %q before an id", line)
		}
		m := &all[len(all)-1]
		field := map[string]*string{"none": &m.None, "file": &m.File, "old": &m.Old, "new": &m.New, "test": &m.Test}[key]
		if field == nil {
			return nil, fmt.Errorf("mutations.txt: %q", line)
		}
		*field = value
	}
	return all, nil
}

// Apply returns the source with the rule switched off.
func (m *Mutation) Apply(src string) (string, error) {
	var out strings.Builder
	found := 0
	for line := range strings.Lines(src) {
		if strings.TrimSpace(line) == m.Old {
			found++
			line = strings.Replace(line, m.Old, m.New, 1)
		}
		out.WriteString(line)
	}
	if found != 1 {
		return "", fmt.Errorf("%s: the line occurs %d times in %s: %s", m.ID, found, m.File, m.Old)
	}
	return out.String(), nil
}
