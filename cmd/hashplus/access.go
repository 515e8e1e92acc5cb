package main

import (
	"context"
	"fmt"
	"log/slog"

	"hashplus/broker"
	"hashplus/broker/auth"
	"hashplus/broker/wire"
)

// access reads the files that say who may connect and what clients may do, and
// puts what they say into o. What is only unwise it tells log.
func (c *configuration) access(o *broker.Options, log *slog.Logger) error {
	for _, path := range []string{c.PasswordFile, c.ScramFile} {
		if path != "" && auth.WorldReadable(path) {
			log.Warn("a file with secrets can be read by every user of this machine", "file", path)
		}
	}
	var passwords broker.Authenticator
	if c.PasswordFile != "" {
		p, err := auth.LoadPasswords(c.PasswordFile)
		if err != nil {
			return usageError{fmt.Errorf("password-file: %w", err)}
		}
		passwords = p
	}
	if c.ScramFile != "" {
		scram, err := auth.LoadScram(c.ScramFile)
		if err != nil {
			return usageError{fmt.Errorf("scram-file: %w", err)}
		}
		o.EnhancedAuthenticators = append(o.EnhancedAuthenticators, scram)
	}
	switch {
	case !*c.AllowAnonymous:
		o.Authenticator = gate{passwords}
	case c.PasswordFile != "" || c.ScramFile != "":
		o.Authenticator = auth.AllowAnonymous(passwords)
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
