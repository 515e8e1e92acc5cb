package main

import (
	"context"
	"fmt"

	"hashplus/broker"
	"hashplus/broker/auth"
	"hashplus/broker/wire"
)

// access reads the files that say who may connect and what clients may do, and
// puts what they say into o.
func (c *configuration) access(o *broker.Options) error {
	// A file that nothing reads must not count as authentication.
	for key, path := range map[string]string{"password-file": c.PasswordFile, "scram-file": c.ScramFile} {
		if path != "" {
			return usagef("%s: this build cannot read such files", key)
		}
	}
	if !*c.AllowAnonymous {
		o.Authenticator = gate{}
	}
	if c.ACL != "" {
		acl, err := auth.LoadACL(c.ACL)
		if err != nil {
			return usageError{fmt.Errorf("acl: %w", err)}
		}
		o.Authorizer = acl
	}
	return nil
}

// gate is the Authenticator of clients that do not use extended authentication,
// where anonymous ones are not let in: without passwords to check, nobody is.
type gate struct {
	passwords broker.Authenticator // nil: there are none
}

// Authenticate refuses clients without a name and leaves the others to the
// passwords.
func (g gate) Authenticate(ctx context.Context, r *broker.AuthRequest) (broker.Grant, error) {
	switch {
	case !r.HasUsername:
		return broker.Grant{}, &broker.Refusal{Reason: wire.NotAuthorized, Detail: "anonymous clients are not let in"}
	case g.passwords == nil:
		return broker.Grant{}, &broker.Refusal{Reason: wire.BadUserNameOrPassword, Detail: "no passwords are configured"}
	}
	return g.passwords.Authenticate(ctx, r)
}
