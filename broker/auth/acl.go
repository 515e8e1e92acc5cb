// Package auth decides who a client is and what it may do: access rules in
// mosquitto's format (ACL), password files in mosquitto's format (Passwords)
// and SCRAM-SHA-256 (Scram). They are adapters of package broker, which knows
// none of them.
package auth

import (
	"strings"
	"unsafe"

	"hashplus/broker"
)

// ACL is a set of access rules, a broker.Authorizer. What no rule allows is
// denied, and a deny wins wherever it stands. It is immutable: all its methods
// may be called from any goroutine. They neither block nor allocate; a call
// costs a step for each level of the topic and for each pattern.
//
// A rule for a wildcard at the first level does not reach names that begin with
// `$`, as in subscriptions [MQTT-4.7.2-1]: `#` grants nothing of `$SYS/…`.
type ACL struct {
	anonymous *ruleNode
	users     map[string]*ruleNode
	patterns  []pattern // for everybody
}

var _ broker.Authorizer = (*ACL)(nil)

// rights are what a rule gives or, with deny, takes.
type rights uint8

const (
	read rights = 1 << iota
	write
	deny
)

// CanPublish implements broker.Authorizer: a rule lets id write topic and none
// denies it.
func (a *ACL) CanPublish(id *broker.Identity, topic []byte) bool {
	return a.rights(id, view(topic))&(write|deny) == write
}

// CanReceive implements broker.Authorizer: a rule lets id read topic and none
// denies it.
func (a *ACL) CanReceive(id *broker.Identity, topic []byte) bool {
	return a.rights(id, view(topic))&(read|deny) == read
}

// CanSubscribe implements broker.Authorizer. One rule has to let id read every
// name that filter matches, and no rule may deny them all. A rule that denies
// some of them is CanReceive's to apply.
func (a *ACL) CanSubscribe(id *broker.Identity, filter string) bool {
	return a.rights(id, filter)&(read|deny) == read
}

// view is b as a string, for as long as b does not change.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// rights are those of all the rules that cover the whole of filter. A topic
// name is a filter that matches itself only, so this answers for names too.
func (a *ACL) rights(id *broker.Identity, filter string) (r rights) {
	rules := a.anonymous
	if id.Username != "" {
		rules = a.users[id.Username]
	}
	if rules != nil {
		r = rules.rights(filter)
	}
	for i := range a.patterns {
		if p := &a.patterns[i]; p.covers(id, filter) {
			r |= p.rights
		}
	}
	return r
}

// ruleNode is one level of a tree of filters; its root stands before the first
// level. A walk meets every node at most once, so its cost is bounded by the
// size of the tree whatever the topic.
type ruleNode struct {
	literal map[string]*ruleNode
	plus    *ruleNode
	exact   rights // of the filter that ends here
	below   rights // of the filter that goes on with `#` only, which matches here too
}

// add gives the rights r to filter, which is valid.
func (n *ruleNode) add(filter string, r rights) {
	if filter == "+/#" {
		filter = "#" // the same names: every name has a first level
	}
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch level {
		case "#":
			n.below |= r
			return
		case "+":
			if n.plus == nil {
				n.plus = &ruleNode{}
			}
			n = n.plus
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
	n.exact |= r
}

// rights are those of the filters below the root n that cover filter.
func (n *ruleNode) rights(filter string) rights {
	if filter[0] != '$' {
		return n.walk(filter, true)
	}
	// Wildcards at the first level do not reach it.
	level, rest, more := strings.Cut(filter, "/")
	if next := n.literal[level]; next != nil {
		return next.walk(rest, more)
	}
	return 0
}

// walk collects the rights of the filters below n that cover rest, which are
// the levels left if there are more.
func (n *ruleNode) walk(rest string, more bool) rights {
	r := n.below
	if !more {
		return r | n.exact
	}
	level, rest, more := strings.Cut(rest, "/")
	if level == "#" {
		return r // nothing but `#` covers n and all below it
	}
	if n.plus != nil {
		r |= n.plus.walk(rest, more)
	}
	if next := n.literal[level]; next != nil {
		r |= next.walk(rest, more) // there is no literal level `+`
	}
	return r
}
