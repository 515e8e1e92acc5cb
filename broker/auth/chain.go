package auth

import (
	"context"
	"errors"

	"hashplus/broker"
	"hashplus/broker/wire"
)

// ErrNotMine is what an Authenticator of a Chain answers, as errors.Is tells,
// to a client whose credentials are not of its kind, or name somebody that it
// does not know: the next one is asked.
var ErrNotMine = errors.New("the credentials are not of this method's kind")

// notMine is ErrNotMine with what to tell the client if there is no other
// method.
type notMine struct{ *broker.Refusal }

func (n notMine) Is(target error) bool { return target == ErrNotMine }
func (n notMine) Unwrap() error        { return n.Refusal }

// Voucher is a method that can tell whether it still stands by a consent that it, or
// one like it with other settings, has given. It must not block, nor hash slowly.
type Voucher interface {
	// Holds reports whether the grounds are of its kind, and then whether it would
	// let a client in as username on them now.
	Holds(username string, grounds any) (mine, holds bool)
}

// Chain asks several methods who a client is, in order. The first that does not
// answer ErrNotMine decides, so a method that is down refuses and nothing that
// follows it can let the client in.
//
// With anonymous set a client that gives no credentials at all, and that no
// method knows, is let in without a name. One that gives a username or a
// password and is known to nobody is refused.
//
// It is a broker.Reviewer: a consent holds as long as one of its methods that is a
// Voucher stands by it. That of a method which is not asked any more does not, nor
// does that of none, for an anonymous client, unless anonymous is set.
type Chain struct {
	methods   []broker.Authenticator
	vouchers  []Voucher
	anonymous bool
	silent    bool // one of methods is no Voucher
}

var _ broker.Reviewer = (*Chain)(nil)

// NewChain makes a Chain of methods, which may be none.
func NewChain(anonymous bool, methods ...broker.Authenticator) *Chain {
	c := &Chain{methods: methods, anonymous: anonymous}
	for _, m := range methods {
		if v, ok := m.(Voucher); ok {
			c.vouchers = append(c.vouchers, v)
		} else {
			c.silent = true
		}
	}
	return c
}

// Vouch adds a method that is not asked here but in AUTH exchanges. It is called
// before the Chain is used.
func (c *Chain) Vouch(v Voucher) { c.vouchers = append(c.vouchers, v) }

// Holds implements broker.Reviewer.
func (c *Chain) Holds(username string, grounds any) bool {
	if grounds == nil { // of nobody, or of a method that is no Voucher
		return c.silent || c.anonymous && username == ""
	}
	for _, v := range c.vouchers {
		if mine, holds := v.Holds(username, grounds); mine {
			return holds
		}
	}
	return false
}

// Authenticate implements broker.Authenticator.
func (c *Chain) Authenticate(ctx context.Context, r *broker.AuthRequest) (broker.Grant, error) {
	for _, m := range c.methods {
		if g, err := m.Authenticate(ctx, r); !errors.Is(err, ErrNotMine) {
			return g, err
		}
	}
	switch {
	case r.HasUsername || r.HasPassword:
		return broker.Grant{}, &broker.Refusal{Reason: wire.BadUserNameOrPassword, Detail: "wrong username or password"}
	case !c.anonymous:
		return broker.Grant{}, &broker.Refusal{Reason: wire.NotAuthorized, Detail: "anonymous clients are not let in"}
	}
	return broker.Grant{}, nil
}

// Certificate lets a client in as the name that its listener has read from its
// verified certificate. A username in CONNECT is ignored.
type Certificate struct{}

var _ broker.Authenticator = Certificate{}

// Authenticate implements broker.Authenticator. A client without such a name is
// not its concern.
func (Certificate) Authenticate(_ context.Context, r *broker.AuthRequest) (broker.Grant, error) {
	if r.Info == nil || r.Info.TLS == nil || r.Info.TLS.Certificate == nil || r.Info.TLS.Certificate.Username == "" {
		return broker.Grant{}, notMine{&broker.Refusal{Reason: wire.NotAuthorized, Detail: "no client certificate that gives a name"}}
	}
	return broker.Grant{Username: r.Info.TLS.Certificate.Username, Grounds: Certificate{}}, nil
}

// Holds implements Voucher. Whether the certificate itself still counts is its
// listener's to say, which has the revocation lists.
func (Certificate) Holds(_ string, grounds any) (mine, holds bool) {
	_, mine = grounds.(Certificate)
	return mine, mine
}
