package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"hashplus/broker"
	"hashplus/broker/wire"
)

func TestServe_ACLRefuses(t *testing.T) {
	acl := writeFile(t, "acl", "topic readwrite open/#\n")
	s := serve(t, "--tcp=127.0.0.1:0", "--acl="+acl)
	if code, _, stderr := command(t, "sub", "-u", s.urls[0], "-t", "closed/#"); code != exitRejected {
		t.Errorf("subscribe: exit %d: %s", code, stderr)
	}
	if code, _, stderr := command(t, "pub", "-u", s.urls[0], "-t", "closed/x", "-m", "y", "-q", "1"); code != exitRejected {
		t.Errorf("publish: exit %d: %s", code, stderr)
	}
	if code, _, stderr := command(t, "pub", "-u", s.urls[0], "-t", "open/x", "-m", "y", "-q", "1"); code != 0 {
		t.Errorf("allowed publish: exit %d: %s", code, stderr)
	}
	code, stdout, stderr := check(t, "--acl="+writeFile(t, "acl", "nonsense\n"))
	if code != exitUsage || stdout != "" || !strings.Contains(stderr, "acl: ") {
		t.Errorf("bad file: exit %d, %q, %s", code, stdout, stderr)
	}
}

// grants is an Authenticator that lets in everybody it is asked about.
type grants struct{}

func (grants) Authenticate(_ context.Context, r *broker.AuthRequest) (broker.Grant, error) {
	return broker.Grant{Username: r.Username}, nil
}

func TestGate_LetsInOnlyWhoHasAPassword(t *testing.T) {
	for _, c := range []struct {
		name   string
		gate   gate
		r      broker.AuthRequest
		reason wire.ReasonCode // 0: let in
	}{
		{"anonymous", gate{}, broker.AuthRequest{}, wire.NotAuthorized},
		{"anonymous with passwords", gate{grants{}}, broker.AuthRequest{}, wire.NotAuthorized},
		{"password only", gate{grants{}}, broker.AuthRequest{HasPassword: true}, wire.NotAuthorized},
		{"name without passwords", gate{}, broker.AuthRequest{HasUsername: true, Username: "u"}, wire.BadUserNameOrPassword},
		{"name with passwords", gate{grants{}}, broker.AuthRequest{HasUsername: true, Username: "u"}, 0},
	} {
		g, err := c.gate.Authenticate(context.Background(), &c.r)
		var refusal *broker.Refusal
		switch {
		case c.reason == 0 && (err != nil || g.Username != "u"):
			t.Errorf("%s: %v %v", c.name, g, err)
		case c.reason != 0 && (!errors.As(err, &refusal) || refusal.Reason != c.reason):
			t.Errorf("%s: %v, want %v", c.name, err, c.reason)
		}
	}
}
