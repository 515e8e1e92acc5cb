package auth

import (
	"context"
	"errors"
	"testing"

	"hashplus/broker"
	"hashplus/broker/wire"
	"hashplus/transport/link"
)

// fixed is an Authenticator that always says the same.
type fixed struct {
	grant broker.Grant
	err   error
	asked *int
}

func (f fixed) Authenticate(context.Context, *broker.AuthRequest) (broker.Grant, error) {
	*f.asked++
	return f.grant, f.err
}

func reasonOf(err error) wire.ReasonCode {
	var r *broker.Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return 0
}

func TestChain_TheFirstThatItConcernsDecides(t *testing.T) {
	down := errors.New("down")
	refuses := &broker.Refusal{Reason: wire.Banned}
	passes := notMine{&broker.Refusal{Reason: wire.ServerBusy}}
	for _, tc := range []struct {
		name     string
		errs     []error // of the methods; nil lets in
		username string  // of who is let in
		err      error
		asked    int
	}{
		{"the first", []error{nil, nil}, "0", nil, 1},
		{"the second", []error{passes, nil}, "1", nil, 2},
		{"a refusal is the end", []error{refuses, nil}, "", refuses, 1},
		{"so is a failure", []error{passes, down, nil}, "", down, 2},
	} {
		asked := 0
		var methods []broker.Authenticator
		for i, err := range tc.errs {
			m := fixed{err: err, asked: &asked}
			if err == nil {
				m.grant.Username = string(rune('0' + i))
			}
			methods = append(methods, m)
		}
		// Not even an anonymous client gets past what has failed.
		for _, r := range []*broker.AuthRequest{login("u", "p"), {}} {
			asked = 0
			g, err := NewChain(true, methods...).Authenticate(context.Background(), r)
			if g.Username != tc.username || !errors.Is(err, tc.err) || asked != tc.asked {
				t.Errorf("%s: %v, %v, %d were asked", tc.name, g, err, asked)
			}
		}
	}
}

func TestChain_AnonymousComesLastAndHasNoCredentials(t *testing.T) {
	asked := 0
	passes := fixed{err: notMine{&broker.Refusal{Reason: wire.ServerBusy}}, asked: &asked}
	for _, tc := range []struct {
		name      string
		r         broker.AuthRequest
		anonymous bool
		reason    wire.ReasonCode // 0: let in
	}{
		{"allowed", broker.AuthRequest{}, true, 0},
		{"not allowed", broker.AuthRequest{}, false, wire.NotAuthorized},
		{"a name", broker.AuthRequest{HasUsername: true, Username: "u"}, true, wire.BadUserNameOrPassword},
		{"an empty name", broker.AuthRequest{HasUsername: true}, true, wire.BadUserNameOrPassword},
		{"a password only", broker.AuthRequest{HasPassword: true, Password: []byte("x")}, true, wire.BadUserNameOrPassword},
	} {
		for _, methods := range [][]broker.Authenticator{nil, {passes}} {
			asked = 0
			g, err := NewChain(tc.anonymous, methods...).Authenticate(context.Background(), &tc.r)
			if g.Username != "" || reasonOf(err) != tc.reason || asked != len(methods) {
				t.Errorf("%s: %v, %v, %d were asked", tc.name, g, err, asked)
			}
		}
	}
}

func TestChain_UnknownUserIsHashedBeforeTheNextIsAsked(t *testing.T) {
	p := mustPasswords(t, aliceByMosquitto)
	asked := 0
	c := NewChain(false, p, fixed{grant: broker.Grant{Username: "bob"}, asked: &asked})
	if g, err := c.Authenticate(context.Background(), login("bob", "x")); err != nil || g.Username != "bob" {
		t.Errorf("%v, %v", g, err)
	}
	if _, err := c.Authenticate(context.Background(), login("alice", "wrong")); !refused(err) || asked != 1 {
		t.Errorf("a known user with another password: %v, %d asked", err, asked)
	}
	for range cap(p.slots) { // a hash waits until its deadline
		p.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Authenticate(ctx, login("bob", "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("no hash was computed for an unknown user: %v", err)
	}
}

func TestCertificate_GivesTheNameOfTheListener(t *testing.T) {
	with := func(c *link.Certificate) *broker.AuthRequest {
		r := login("somebody", "else")
		r.Info = &link.Info{TLS: &link.TLS{Certificate: c}}
		return r
	}
	if g, err := (Certificate{}).Authenticate(context.Background(), with(&link.Certificate{Username: "device-1", CommonName: "x"})); err != nil || g.Username != "device-1" {
		t.Errorf("%v, %v", g, err)
	}
	for name, r := range map[string]*broker.AuthRequest{
		"no TLS": {Info: &link.Info{}}, "nothing": {}, "none": with(nil), "no name": with(&link.Certificate{CommonName: "x"}),
	} {
		if g, err := (Certificate{}).Authenticate(context.Background(), r); !errors.Is(err, ErrNotMine) || g.Username != "" {
			t.Errorf("%s: %v, %v", name, g, err)
		}
	}
}
