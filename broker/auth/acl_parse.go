package auth

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"hashplus/topic"
)

// maxFaults is the number of faulty lines that one error names.
const maxFaults = 20

// LoadACL reads a file with access rules; see ParseACL.
func LoadACL(path string) (*ACL, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseACL(path, text)
}

// ParseACL reads access rules in mosquitto's format, one on a line:
//
//	topic   [read|write|readwrite|deny] FILTER
//	user    NAME
//	pattern [read|write|readwrite|deny] FILTER
//
// Without an access word a rule is readwrite; a filter with a space in it needs
// the word. A topic rule holds for the user named last before it and, above the
// first user line, for clients without a username only. A pattern holds for all
// clients wherever it stands, with %c for the client identifier and %u for the
// username. Empty lines and lines that begin with # are left out. A name may
// come again: its rules add up.
//
// What mosquitto would read as something that was hardly meant is an error
// here: an access word without a filter, %u or %c in a topic rule, $share in a
// filter (rules hold for shared subscriptions without saying so).
//
// The error names each faulty line as NAME:LINE, what is wrong with it and what
// is allowed.
func ParseACL(name string, text []byte) (*ACL, error) {
	p := aclParser{acl: &ACL{name: name, anonymous: &ruleNode{}, patterns: &ruleNode{}, users: make(map[string]*ruleNode)}}
	var faults []error
	number := 0
	for line := range strings.SplitSeq(strings.TrimPrefix(string(text), "\ufeff"), "\n") {
		number++
		if err := p.line(number, strings.Trim(line, " \t\r")); err != nil {
			if len(faults) == maxFaults {
				faults = append(faults, fmt.Errorf("%s: there are more", name))
				break
			}
			faults = append(faults, fmt.Errorf("%s:%d: %w", name, number, err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return p.acl, nil
}

// aclParser is where a parse stands.
type aclParser struct {
	acl  *ACL
	user string // of whom the next topic line is for
}

func (p *aclParser) line(number int, line string) error {
	if line == "" || line[0] == '#' {
		return nil
	}
	if !utf8.ValidString(line) {
		return errors.New("the line is not UTF-8")
	}
	keyword, rest := cutWord(line)
	switch keyword {
	case "user":
		if rest == "" {
			return errors.New("user without a name: it is user NAME")
		}
		p.user = rest
		return nil
	case "topic", "pattern":
		r, filter, err := parseRule(keyword, rest)
		if err != nil {
			return err
		}
		if keyword == "topic" && namesClient(filter) {
			return fmt.Errorf("%%u or %%c in the topic rule %q: only a pattern rule replaces them", filter)
		}
		p.acl.add(rule{line: number, text: line, user: p.user, pattern: keyword == "pattern", rights: r, filter: filter})
		return nil
	}
	// The word is not shown: of a file of passwords or a key, named here by mistake, it
	// is the secret.
	return errors.New("unknown keyword: a line begins with user, topic, pattern or, for a comment, #")
}

// parseRule reads what follows topic or pattern.
func parseRule(keyword, text string) (r rights, filter string, err error) {
	access, filter := cutWord(text)
	r, known := accessRights(access)
	switch {
	case known && filter == "" || text == "":
		return 0, "", fmt.Errorf("no filter: it is %s [read|write|readwrite|deny] FILTER", keyword)
	case filter == "":
		r, filter = read|write, text
	case !known:
		return 0, "", fmt.Errorf("unknown access %q: it is read, write, readwrite or deny "+
			"(a filter with a space in it needs one of them before it)", access)
	}
	if _, _, shared, _ := topic.ParseShare(filter); shared {
		return 0, "", fmt.Errorf("the filter %q names a share group: give its filter alone, it holds for every group", filter)
	}
	if err := topic.CheckFilter(filter); err != nil {
		return 0, "", fmt.Errorf("the filter %q is not valid: %w; + or # fill a level, # only the last", filter, err)
	}
	return r, filter, nil
}

func accessRights(word string) (r rights, known bool) {
	switch word {
	case "read":
		return read, true
	case "write":
		return write, true
	case "readwrite":
		return read | write, true
	case "deny":
		return deny, true
	}
	return 0, false
}

// cutWord splits off the first word.
func cutWord(s string) (word, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}
