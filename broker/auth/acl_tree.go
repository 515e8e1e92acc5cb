package auth

import (
	"strings"

	"hashplus/broker"
)

// ruleNode is one level of a tree of filters; its root stands before the first
// level. A walk meets every node at most once, so its cost is bounded by the
// size of the tree whatever the topic. A nil root is an empty tree.
type ruleNode struct {
	literal map[string]*ruleNode
	named   []namedNode // levels with %c or %u in them
	plus    *ruleNode
	exact   rights // of the filter that ends here
	below   rights // of the filter that goes on with `#` only, which matches here too
	under   rights // of all filters that end here or further down
}

// namedNode is the node behind a level that names the client.
type namedNode struct {
	level patternLevel
	text  string // of the level
	next  *ruleNode
}

// add gives the rights r to filter, which is valid. If pattern is set, %c and %u
// in it stand for the client's names.
func (n *ruleNode) add(filter string, pattern bool, r rights) {
	switch filter { // the same names: each has a first level, and is not empty
	case "+/#":
		filter = "#"
	case "/+/#":
		filter = "/#"
	}
	for rest, more := filter, true; more; {
		n.under |= r
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case level == "#":
			n.below |= r
			return
		case level == "+":
			if n.plus == nil {
				n.plus = &ruleNode{}
			}
			n = n.plus
		case pattern && namesClient(level):
			n = n.namedLevel(level)
		default:
			next := n.literal[level]
			if next == nil {
				if n.literal == nil {
					n.literal = make(map[string]*ruleNode)
				}
				next = &ruleNode{}
				n.literal[level] = next
			}
			n = next
		}
	}
	n.under |= r
	n.exact |= r
}

// namedLevel returns the node behind level, made if there is none.
func (n *ruleNode) namedLevel(level string) *ruleNode {
	for i := range n.named {
		if n.named[i].text == level {
			return n.named[i].next
		}
	}
	next := &ruleNode{}
	n.named = append(n.named, namedNode{newPatternLevel(level), level, next})
	return next
}

// rights are those of the filters below the root n that, for id, cover filter.
func (n *ruleNode) rights(id *broker.Identity, filter string) rights {
	switch {
	case n == nil:
		return 0
	case filter[0] != '$':
		return n.walk(id, filter, true)
	}
	// Wildcards at the first level do not reach it, nor do names of clients.
	level, rest, more := strings.Cut(filter, "/")
	r := rights(0)
	if next := n.literal[level]; next != nil {
		r = next.walk(id, rest, more)
	}
	for i := range n.named {
		if l := &n.named[i]; l.level.beginsLiterally() && l.level.is(id, level) {
			r |= l.next.walk(id, rest, more)
		}
	}
	return r
}

// walk collects the rights of the filters below n that cover rest, which are
// the levels left if there are more.
func (n *ruleNode) walk(id *broker.Identity, rest string, more bool) rights {
	r := n.below
	if !more {
		return r | n.exact
	}
	level, rest, more := strings.Cut(rest, "/")
	if level == "#" {
		return r // nothing but `#` covers n and all below it
	}
	if n.plus != nil {
		r |= n.plus.walk(id, rest, more)
	}
	if next := n.literal[level]; next != nil {
		r |= next.walk(id, rest, more) // there is no literal level `+`
	}
	for i := range n.named {
		if l := &n.named[i]; l.level.is(id, level) {
			r |= l.next.walk(id, rest, more)
		}
	}
	return r
}

// maxSteps is the number of nodes that denies looks at before it gives up.
const maxSteps = 1024

// denies reports whether a filter with deny below the root n, for id, matches
// any of the names that filter matches. It says yes when *steps are used up, and
// may do so for a name of id that can stand in no topic: whoever is told yes
// has to ask for each name.
func (n *ruleNode) denies(id *broker.Identity, filter string, steps *int) bool {
	if n == nil || n.under&deny == 0 {
		return false
	}
	level, rest, more := strings.Cut(filter, "/")
	if filter[0] != '$' {
		if n.below&deny != 0 || n.plus.overlap(id, rest, more || level == "#", level == "#", steps) {
			return true
		}
	}
	wild := level == "+" || level == "#"
	for text, next := range n.literal {
		if text == level || wild && !strings.HasPrefix(text, "$") {
			if next.overlap(id, rest, more || level == "#", level == "#", steps) {
				return true
			}
		}
	}
	for i := range n.named {
		l := &n.named[i]
		if (wild || l.level.is(id, level) && (filter[0] != '$' || l.level.beginsLiterally())) &&
			l.next.overlap(id, rest, more || level == "#", level == "#", steps) {
			return true
		}
	}
	return false
}

// overlap is denies for what is below n and the levels that are left; with all
// set these are any.
func (n *ruleNode) overlap(id *broker.Identity, rest string, more, all bool, steps *int) bool {
	if n == nil {
		return false
	}
	*steps--
	switch {
	case *steps < 0:
		return true
	case n.under&deny == 0:
		return false
	case all || n.below&deny != 0:
		return true
	case !more:
		return n.exact&deny != 0
	}
	level, rest, more := strings.Cut(rest, "/")
	switch level {
	case "#":
		return true
	case "+":
		for _, next := range n.literal {
			if next.overlap(id, rest, more, false, steps) {
				return true
			}
		}
	default:
		if next := n.literal[level]; next.overlap(id, rest, more, false, steps) {
			return true
		}
	}
	for i := range n.named {
		if l := &n.named[i]; (level == "+" || l.level.is(id, level)) && l.next.overlap(id, rest, more, false, steps) {
			return true
		}
	}
	return n.plus.overlap(id, rest, more, false, steps)
}
