package auth

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"hashplus/broker"
	"hashplus/topic"
)

// Bounds of Claims: what comes from outside is kept for as long as its client
// is connected.
const (
	maxClaimFilters = 256
	maxClaimBytes   = 16 << 10 // of all filters together
)

// Claims are the permissions that a token, or the answer of a callback, gives
// to its client. An Authenticator puts a *Claims into Grant.Data, from where it
// reaches the Authorizer as Identity.Data. It is immutable once NewClaims has made
// it.
type Claims struct {
	// Publish are the filters of the topics that the client may publish to,
	// Subscribe of those that it may subscribe to and receive. Each is valid and
	// names no share group. They add to what the access rules allow, whose denies
	// hold for them too. nil means that the token does not say: the access rules
	// alone decide. An empty one that is not nil adds nothing; without access
	// rules it allows nothing.
	//
	// They are literal: %u and %c mean nothing in them.
	Publish   []string
	Subscribe []string

	rules *ruleNode // of both
}

// NewClaims makes Claims of two lists of filters. The error names the filter
// that cannot be one.
func NewClaims(publish, subscribe []string) (*Claims, error) {
	if err := checkClaimFilters("publish", publish); err != nil {
		return nil, err
	}
	if err := checkClaimFilters("subscribe", subscribe); err != nil {
		return nil, err
	}
	c := &Claims{Publish: publish, Subscribe: subscribe, rules: &ruleNode{}}
	for _, f := range publish {
		c.rules.add(f, false, write)
	}
	for _, f := range subscribe {
		c.rules.add(f, false, read)
	}
	return c, nil
}

// claimsOf are the Claims of id, or nil.
func claimsOf(id *broker.Identity) *Claims {
	c, _ := id.Data.(*Claims)
	return c
}

// restrict reports whether c says what its client may do of r.
func (c *Claims) restrict(r rights) bool { return c != nil && c.filters(r) != nil }

// filters are those for r.
func (c *Claims) filters(r rights) []string {
	switch {
	case c == nil:
		return nil
	case r == write:
		return c.Publish
	}
	return c.Subscribe
}

// rights are those that c gives for the whole of filter.
func (c *Claims) rights(id *broker.Identity, filter string) rights {
	if c == nil {
		return 0
	}
	return c.rules.rights(id, filter)
}

func checkClaimFilters(name string, filters []string) error {
	if len(filters) > maxClaimFilters {
		return fmt.Errorf("%s has %d filters; %d are allowed", name, len(filters), maxClaimFilters)
	}
	size := 0
	for _, f := range filters {
		size += len(f)
		if !utf8.ValidString(f) {
			return fmt.Errorf("%s has a filter that is not UTF-8", name)
		}
		if _, _, shared, _ := topic.ParseShare(f); shared {
			return fmt.Errorf("%s names a share group in %.100q: the filter alone holds for every group", name, f)
		}
		if err := topic.CheckFilter(f); err != nil {
			return fmt.Errorf("%s has the filter %.100q, which is not valid: %w", name, f, err)
		}
	}
	if size > maxClaimBytes {
		return errors.New(name + " is too long")
	}
	return nil
}
