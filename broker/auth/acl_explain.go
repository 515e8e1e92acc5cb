package auth

import (
	"fmt"
	"strings"

	"hashplus/broker"
	"hashplus/topic"
)

// rule is one rule of a file, as it stands there.
type rule struct {
	line    int
	text    string
	user    string // "" for anonymous clients; of no meaning for a pattern
	pattern bool
	rights  rights
	filter  string
}

// add puts r in force.
func (a *ACL) add(r rule) {
	a.rules = append(a.rules, r)
	tree := a.patterns
	if !r.pattern {
		tree = a.anonymous
		if r.user != "" {
			if tree = a.users[r.user]; tree == nil {
				tree = &ruleNode{}
				a.users[r.user] = tree
			}
		}
	}
	tree.add(r.filter, r.pattern, r.rights)
}

// Rules is the number of rules in the file.
func (a *ACL) Rules() int { return len(a.rules) }

// Explanation is an answer with its reason.
type Explanation struct {
	Allowed bool
	// Rule is the rule that decides, as FILE:LINE: TEXT, or the filter of the
	// Claims that does; "" if no rule covers what was asked for.
	Rule string
	// Partly are further rules that matter: for a subscription that is allowed,
	// the denies that keep some of its messages from it; for one that nothing
	// covers, the rules that allow a part of it.
	Partly []string
}

// ExplainPublish gives the answer of CanPublish, and why.
func (a *ACL) ExplainPublish(id *broker.Identity, name string) Explanation {
	return a.explain(id, write, name)
}

// ExplainSubscribe gives the answer of CanSubscribe, and why.
func (a *ACL) ExplainSubscribe(id *broker.Identity, filter string) Explanation {
	return a.explain(id, read, filter)
}

// explain looks at every rule in turn. It is no part of any decision: what
// decides is the tree, which a test holds it to.
func (a *ACL) explain(id *broker.Identity, want rights, filter string) (e Explanation) {
	claims := claimsOf(id)
	if a.unrestricted(id, want) {
		return Explanation{Allowed: true}
	}
	var denied, allowed string
	var partlyDenied, partlyAllowed []string
	weigh := func(r rights, ruled, text string) {
		covers := topic.Covers(ruled, filter)
		switch {
		case !covers && !topic.Overlap(ruled, filter):
		case r&deny != 0 && covers:
			first(&denied, text)
		case r&deny != 0:
			partlyDenied = append(partlyDenied, text)
		case r&want == 0:
		case covers:
			first(&allowed, text)
		default:
			partlyAllowed = append(partlyAllowed, text)
		}
	}
	for i := range a.rules {
		r := &a.rules[i]
		if !r.pattern && r.user != id.Username {
			continue
		}
		if f, ok := r.resolved(id); ok {
			weigh(r.rights, f, fmt.Sprintf("%s:%d: %s", a.name, r.line, r.text))
		}
	}
	for _, f := range claims.filters(want) {
		weigh(want, f, "claim: "+f)
	}
	switch {
	case denied != "":
		return Explanation{Rule: denied}
	case allowed != "":
		return Explanation{Allowed: true, Rule: allowed, Partly: partlyDenied}
	}
	return Explanation{Partly: partlyAllowed}
}

func first(s *string, text string) {
	if *s == "" {
		*s = text
	}
}

// resolved is the rule's filter for id; ok is false if a name of id cannot
// stand in it.
func (r *rule) resolved(id *broker.Identity) (filter string, ok bool) {
	if !r.pattern || !namesClient(r.filter) {
		return r.filter, true
	}
	levels := strings.Split(r.filter, "/")
	for i, level := range levels {
		var text strings.Builder
		for j, p := range newPatternLevel(level) {
			switch v := p.literal; p.value {
			case 'c', 'u':
				if v = id.ClientID; p.value == 'u' {
					v = id.Username
				}
				if v == "" || strings.ContainsAny(v, "+#/") || i == 0 && j == 0 && v[0] == '$' {
					return "", false
				}
				text.WriteString(v)
			default:
				text.WriteString(v)
			}
		}
		levels[i] = text.String()
	}
	return strings.Join(levels, "/"), true
}
