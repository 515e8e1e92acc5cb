package main

import (
	"fmt"
	"log/slog"

	"hashplus/broker"
	"hashplus/broker/auth"
)

// permissions is what decides what clients may do; nil allows everything. What is
// only unwise it tells log.
func (c *configuration) permissions(log *slog.Logger) (broker.Authorizer, error) {
	switch {
	case c.ACL == "" && c.givesClaims():
		return auth.Open(), nil
	case c.ACL == "":
		return nil, nil
	}
	if auth.WorldWritable(c.ACL) {
		log.Warn("a file with access rules can be changed by every user of this machine", "file", c.ACL)
	}
	acl, err := auth.LoadACL(c.ACL)
	if err != nil {
		return nil, usageError{fmt.Errorf("acl: %w", err)}
	}
	return acl, nil
}

// livePermissions puts the rules of a new configuration in force, for the
// clients that are connected too.
func (r *reloader) livePermissions(b *broker.Broker) {
	r.live(func(next *configuration) (func(), error) {
		rules, err := next.permissions(r.log)
		if err != nil {
			return nil, err
		}
		return func() {
			if err := b.SetAuthorizer(r.env.ctx, rules); err != nil {
				r.log.Warn("the access rules are not in force yet: the broker is ending", "cause", err)
			}
		}, nil
	}, "acl")
}
