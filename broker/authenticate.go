package broker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"hashplus/broker/wire"
)

// authWorkers is the number of goroutines that run authenticators.
const authWorkers = 64

// workers runs functions on a bounded number of goroutines, first come first
// served. Goroutines exist only while there is work.
type workers struct {
	limit int

	mu      sync.Mutex
	running int
	waiting []func()
}

func (w *workers) run(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == w.limit {
		w.waiting = append(w.waiting, f)
		return
	}
	w.running++
	go func() {
		for f != nil {
			f()
			w.mu.Lock()
			f = nil
			if len(w.waiting) > 0 {
				f = w.waiting[0]
				w.waiting[0] = nil
				w.waiting = w.waiting[1:]
			} else {
				w.running--
			}
			w.mu.Unlock()
		}
	}()
}

// verdict is the outcome of one step of an authentication.
type verdict struct {
	reply []byte
	done  bool
	grant Grant
	err   error
}

// authenticate starts the authentication of a CONNECT.
func (c *client) authenticate(p *wire.Connect) error {
	d := c.b.doorkeepers.Load()
	c.pending.asked = d
	if p.HasAuthMethod {
		method := d.enhanced[p.AuthMethod]
		if method == nil { // [MQTT-4.12.0-1]
			return &wire.Error{Reason: wire.BadAuthenticationMethod, Clause: "MQTT-4.12.0-1",
				Detail: fmt.Sprintf("authentication method %q is not offered here", p.AuthMethod)}
		}
		c.pending.exchange = method.Begin(c.pending.request)
		c.step(p.AuthData)
		return nil
	}
	a := d.plain
	if a == nil {
		if len(d.enhanced) > 0 {
			return refusal(wire.NotAuthorized, "no authentication method, and anonymous clients are not allowed")
		}
		return c.admitted(Grant{})
	}
	request := c.pending.request
	c.work(func(ctx context.Context) verdict {
		g, err := a.Authenticate(ctx, request)
		return verdict{done: true, grant: g, err: err}
	})
	return nil
}

// step feeds the client's Authentication Data to the exchange.
func (c *client) step(data []byte) {
	x := c.pending.exchange
	c.work(func(ctx context.Context) (v verdict) {
		v.reply, v.done, v.grant, v.err = x.Next(ctx, data)
		return v
	})
}

// work runs f away from the loop, with the client's reads paused, and comes
// back with its verdict.
func (c *client) work(f func(context.Context) verdict) {
	if c.state != open {
		c.become(authenticating)
	}
	c.hold()
	ctx, cancel := context.WithTimeout(context.Background(), c.b.options().ConnectTimeout)
	c.pending.cancel = cancel
	l := c.l
	c.b.auth.run(func() {
		v := guarded(ctx, f)
		cancel()
		l.call(func(*loop) { c.judged(v) })
	})
}

// guarded turns a panic of an authenticator into a refusal.
func guarded(ctx context.Context, f func(context.Context) verdict) (v verdict) {
	defer func() {
		if r := recover(); r != nil {
			v = verdict{err: fmt.Errorf("authenticator panicked: %v\n%s", r, debug.Stack())}
		}
	}()
	if ctx.Err() != nil {
		return verdict{err: ctx.Err()}
	}
	return f(ctx)
}

// judged continues the client after work.
func (c *client) judged(v verdict) {
	if c.state == closed || c.pending == nil {
		return
	}
	c.unhold() // first: the client may be on its way to another loop after this
	if v.err != nil {
		err := authError(v.err)
		if wrongCredentials(v.err) {
			c.offend(authFailure)
		}
		if c.state == open { // other reasons have no place in DISCONNECT
			err = &withheld{wire.NotAuthorized, v.err}
		}
		c.fail(err)
		return
	}
	if !v.done {
		if c.state != open {
			c.become(exchanging)
		}
		c.sendAuth(wire.ContinueAuthentication, v.reply)
		return
	}
	if c.state == open {
		c.reauthenticated(v)
		return
	}
	c.pending.authData = v.reply
	if err := c.admitted(v.grant); err != nil {
		c.fail(err)
	}
}

// authError is the refusal that the client is told; what else an authenticator
// says is for the log.
func authError(err error) error {
	var r *Refusal
	switch {
	case errors.As(err, &r) && r.Cause != nil && r.Detail != "":
		return &withheld{r.Reason, fmt.Errorf("%s: %w", r.Detail, r.Cause)}
	case r != nil && r.Cause != nil:
		return &withheld{r.Reason, r.Cause}
	case r != nil:
		return &wire.Error{Reason: r.Reason, Detail: r.Detail}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &wire.Error{Reason: wire.ServerBusy, Detail: "authentication took too long"}
	}
	return &withheld{wire.NotAuthorized, err}
}

// wrongCredentials reports whether err is about the client, not about an
// authenticator that does not work.
func wrongCredentials(err error) bool {
	var r *Refusal
	return errors.As(err, &r) && (r.Reason == wire.BadUserNameOrPassword || r.Reason == wire.NotAuthorized)
}

// withheld is an error of which the client is told the reason only: the rest
// may hold what is none of its business.
type withheld struct {
	reason wire.ReasonCode
	err    error
}

func (w *withheld) Error() string { return w.reason.String() + ": " + w.err.Error() }
func (w *withheld) Unwrap() error { return w.err }

// sendAuth sends AUTH. A client that is too small for it is refused: without it
// there is no exchange.
func (c *client) sendAuth(reason wire.ReasonCode, data []byte) {
	a := wire.Auth{Reason: reason, Method: c.pending.connect.AuthMethod, Data: data}
	b := a.Append(nil)
	if len(b) > c.maxPacket { // [MQTT-3.1.2-24]
		c.fail(&wire.Error{Reason: wire.PacketTooLarge, Clause: "MQTT-3.1.2-24",
			Detail: fmt.Sprintf("AUTH of %d bytes, the client takes %d", len(b), c.maxPacket)})
		return
	}
	c.write(b)
}

// authPacket handles AUTH: the next step of an exchange, or the start of a
// re-authentication.
func (c *client) authPacket(h wire.Header, body []byte) error {
	if c.version != wire.V5 {
		return &wire.Error{Reason: wire.ProtocolError, Detail: "AUTH is not a packet of this version"}
	}
	a, err := wire.DecodeAuth(h, body, &c.b.options().wire)
	if err != nil {
		return err
	}
	if c.state == open && !c.reauth {
		return c.beginReauth(a)
	}
	if a.Reason != wire.ContinueAuthentication {
		return &wire.Error{Reason: wire.ProtocolError, Detail: "AUTH within an exchange must continue it"}
	}
	if a.Method != c.pending.connect.AuthMethod { // [MQTT-4.12.0-5]
		return &wire.Error{Reason: wire.ProtocolError, Clause: "MQTT-4.12.0-5", Detail: "the authentication method changed"}
	}
	c.step(a.Data)
	return nil
}

// beginReauth starts a re-authentication (MQTT 5.0 section 4.12.1).
func (c *client) beginReauth(a *wire.Auth) error {
	if a.Reason != wire.ReAuthenticate {
		return &wire.Error{Reason: wire.ProtocolError, Detail: "AUTH outside an exchange must start one"}
	}
	if c.authMethod == "" || a.Method != c.authMethod { // [MQTT-4.12.1-1]
		return &wire.Error{Reason: wire.ProtocolError, Clause: "MQTT-4.12.1-1",
			Detail: "re-authentication with another method than CONNECT's"}
	}
	d := c.b.doorkeepers.Load()
	method := d.enhanced[a.Method]
	if method == nil { // since CONNECT it has been switched off
		return refusal(wire.NotAuthorized, fmt.Sprintf("authentication method %q is not offered any more", a.Method))
	}
	request := &AuthRequest{ClientID: c.session.id, Info: c.conn.Info()}
	c.reauth = true
	c.pending = &pendingConnect{
		connect:  &wire.Connect{ClientID: c.session.id, AuthMethod: a.Method, HasAuthMethod: true},
		request:  request,
		exchange: method.Begin(request),
		asked:    d,
	}
	c.step(a.Data)
	return nil
}

// reauthenticated ends a re-authentication that succeeded. The session stays
// its owner's.
func (c *client) reauthenticated(v verdict) {
	if v.grant.Username != c.session.username {
		c.fail(refusal(wire.NotAuthorized, "re-authenticated as another user"))
		return
	}
	err := c.granted(v.grant)
	if err == nil {
		err = c.reviewed(v.grant.Username)
	}
	if err != nil {
		c.fail(err)
		return
	}
	c.l.arm(&c.timer, c.deadline())
	c.sendAuth(wire.Success, v.reply)
	if c.state == closed {
		return
	}
	id := *c.session.who()
	id.Data = v.grant.Data
	c.session.renewed(&id)
	c.session.groupsChanged()
	if w := c.will; w != nil {
		if w.identity = &id; w.kept {
			c.l.keepWill(w, w.owner, w.n)
		}
	}
	c.reauth = false
	c.pending = nil
}
