package auth

import (
	"testing"
	"time"

	"hashplus/broker"
	"hashplus/broker/wire"
)

// byToken serves clients with tokens, which are of the real time here.
func byToken(t *testing.T) func(o *broker.Options) {
	j := newTestJWT(t, func(o *JWTOptions) {
		o.Skew, o.now = 0, nil
		o.Sources = []TokenSource{mustSource(t, "password")}
	})
	return func(o *broker.Options) {
		o.Authenticator = NewChain(false, j)
		o.EnhancedAuthenticators = append(o.EnhancedAuthenticators, j)
		o.Authorizer = Open()
	}
}

func tokenFor(t *testing.T, lasts time.Duration, more m) []byte {
	t.Helper()
	claims := m{"exp": time.Now().Add(lasts).Unix()} // whole seconds, as the library counts
	return []byte(signers()["EdDSA"].sign(t, valid(claims, more), nil))
}

// tokenConnect is a CONNECT with a token and the method that renews it.
func tokenConnect(token []byte) []byte {
	return (&wire.Connect{
		Version: wire.V5, ClientID: "c", CleanStart: true, RequestProblem: true, ReceiveMaximum: 10,
		HasAuthMethod: true, AuthMethod: JWTMethod, AuthData: token,
	}).Append(nil)
}

func (p *peer) letIn(packet []byte) {
	p.t.Helper()
	p.send(packet)
	if ack := p.connack(); ack.Reason != wire.Success {
		p.t.Fatalf("%v %q", ack.Reason, ack.ReasonString)
	}
}

func TestJWTExchange_EndsAndRenewsTheConnection(t *testing.T) {
	t.Parallel()
	s := serving(t, byToken(t))
	left, renewed := dial(t, s), dial(t, s)
	short := tokenFor(t, 6*time.Second, nil) // in which both must be let in
	left.letIn((&wire.Connect{Version: wire.V5, ClientID: "left", ReceiveMaximum: 10, RequestProblem: true,
		HasUsername: true, Username: "whatever", HasPassword: true, Password: short}).Append(nil))
	renewed.letIn(tokenConnect(short))
	renewed.send(authPacket(wire.ReAuthenticate, JWTMethod, tokenFor(t, time.Hour, nil)))
	if a := renewed.auth(); a.Reason != wire.Success || a.Method != JWTMethod || len(a.Data) != 0 {
		t.Errorf("%+v", a)
	}
	left.ejected(wire.NotAuthorized)
	time.Sleep(100 * time.Millisecond)
	renewed.alive()
}

func TestJWTExchange_ATokenThatIsRefusedEndsTheConnection(t *testing.T) {
	t.Parallel()
	s := serving(t, byToken(t))
	for name, token := range map[string][]byte{
		"expired": tokenFor(t, -time.Second, nil), "nonsense": []byte("x"), "nothing": nil,
		"another user's": tokenFor(t, time.Hour, m{"sub": "mallory"}), "another client's": tokenFor(t, time.Hour, m{"clientid": "d"}),
	} {
		p := dial(t, s)
		p.letIn(tokenConnect(tokenFor(t, time.Hour, nil)))
		p.send(authPacket(wire.ReAuthenticate, JWTMethod, token))
		p.ejected(wire.NotAuthorized)
		if name == "another user's" { // who may connect, elsewhere
			continue
		}
		p = dial(t, s)
		p.send(tokenConnect(token))
		p.refused(wire.NotAuthorized)
	}
}

// The permissions are those of the latest token.
func TestJWTExchange_ANewTokenBringsItsPermissions(t *testing.T) {
	t.Parallel()
	p := dial(t, serving(t, byToken(t)))
	p.letIn(tokenConnect(tokenFor(t, time.Hour, m{"publish": []string{"a"}})))
	may := func(topic string) bool {
		p.send(append([]byte{0x32, byte(2 + len(topic) + 2 + 1), 0, byte(len(topic))}, append([]byte(topic), 0, 1, 0)...))
		_, body := p.expect(wire.PUBACK)
		return len(body) < 3 || body[2] < 0x80
	}
	if !may("a") || may("b") {
		t.Error("the first token's permissions do not count")
	}
	p.send(authPacket(wire.ReAuthenticate, JWTMethod, tokenFor(t, time.Hour, m{"publish": []string{"b"}})))
	p.auth()
	if may("a") || !may("b") {
		t.Error("the second token's permissions do not count")
	}
}
