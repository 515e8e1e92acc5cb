package main

import (
	"fmt"

	"hashplus/broker"
	"hashplus/broker/auth"
)

// access reads the files that say who may connect and what clients may do, and
// puts what they say into o.
func (c *configuration) access(o *broker.Options) error {
	if c.ACL != "" {
		acl, err := auth.LoadACL(c.ACL)
		if err != nil {
			return usageError{fmt.Errorf("acl: %w", err)}
		}
		o.Authorizer = acl
	}
	return nil
}
