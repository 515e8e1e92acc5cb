// Package auth decides who a client is: password files in mosquitto's format
// (Passwords), SCRAM-SHA-256 (Scram), tokens (JWT), certificates (Certificate), a
// server that is asked (Callback), one after the other (Chain). And what it may do:
// access rules in mosquitto's format (ACL), with what a token or the server allows
// (Claims). They are adapters of package broker, which knows none of them.
package auth

import (
	"unsafe"

	"hashplus/broker"
)

// ACL is a set of access rules, a broker.Authorizer. The rules of a file and the
// Claims of a client's token add up: what neither allows is denied, and a deny
// wins wherever it stands. It is immutable: all its methods may be called from
// any goroutine. They neither block nor, apart from Explain, allocate; a call
// costs a step for each level of the topic.
//
// A rule for a wildcard at the first level does not reach names that begin with
// `$`, as in subscriptions [MQTT-4.7.2-1]: `#` grants nothing of `$SYS/…`.
type ACL struct {
	name      string
	open      bool // there is no file: what claims do not restrict is allowed
	anonymous *ruleNode
	users     map[string]*ruleNode
	patterns  *ruleNode // for everybody
	rules     []rule    // all of them, in the order of the file, for Explain
}

var _ broker.FilterAuthorizer = (*ACL)(nil)

// Open is the ACL without a file: it allows everything to clients whose Claims
// do not say what they may do.
func Open() *ACL { return &ACL{open: true} }

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
	return a.unrestricted(id, write) || a.rights(id, view(topic))&(write|deny) == write
}

// CanReceive implements broker.Authorizer: a rule lets id read topic and none
// denies it.
func (a *ACL) CanReceive(id *broker.Identity, topic []byte) bool {
	return a.unrestricted(id, read) || a.rights(id, view(topic))&(read|deny) == read
}

// CanSubscribe implements broker.Authorizer. One rule has to let id read every
// name that filter matches, and no rule may deny them all. A rule that denies
// some of them is CanReceive's to apply.
func (a *ACL) CanSubscribe(id *broker.Identity, filter string) bool {
	return a.unrestricted(id, read) || a.rights(id, filter)&(read|deny) == read
}

// CanReceiveAll implements broker.FilterAuthorizer: one rule lets id read every
// name that filter matches, and none denies any of them. It may say no where
// that would take long to find out.
func (a *ACL) CanReceiveAll(id *broker.Identity, filter string) bool {
	if a.unrestricted(id, read) {
		return true
	}
	if a.rights(id, filter)&(read|deny) != read {
		return false
	}
	steps := maxSteps
	return !a.own(id).denies(id, filter, &steps) && !a.patterns.denies(id, filter, &steps)
}

// unrestricted reports whether nothing says what id may do.
func (a *ACL) unrestricted(id *broker.Identity, r rights) bool {
	return a.open && !claimsOf(id).restrict(r)
}

// rights are those of all the rules that cover the whole of filter. A topic
// name is a filter that matches itself only, so this answers for names too.
func (a *ACL) rights(id *broker.Identity, filter string) rights {
	return a.own(id).rights(id, filter) | a.patterns.rights(id, filter) | claimsOf(id).rights(id, filter)
}

// own are the rules for id by its username, or nil.
func (a *ACL) own(id *broker.Identity) *ruleNode {
	if id.Username == "" {
		return a.anonymous
	}
	return a.users[id.Username]
}

// view is b as a string, for as long as b does not change.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
