package auth

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hashplus/broker"
	"hashplus/broker/wire"
	"hashplus/transport"
)

// These tests run exchanges through a whole broker, over pipes, with the
// client's packets made by hand.

// patience is how long a packet may take that has to come.
const patience = time.Minute

// serving is a broker that knows alice and bob by SCRAM, with more options.
func serving(t *testing.T, more ...func(*broker.Options)) *transport.Server {
	t.Helper()
	var file []byte
	for user, password := range map[string]string{"alice": "secret", "bob": "bob's"} {
		entry, err := NewScram(user, password, 4096)
		if err != nil {
			t.Fatal(err)
		}
		file = SetEntry(file, entry)
	}
	s, err := ParseScram("scram", file)
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	o := broker.Options{Logger: quiet, SysInterval: -1, EnhancedAuthenticators: []broker.EnhancedAuthenticator{s}}
	for _, f := range more {
		f(&o)
	}
	b, err := broker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server, err := transport.New(transport.Options{Loops: 2, Logger: quiet, CloseTimeout: time.Second, DrainTimeout: 50 * time.Millisecond}, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(b.Shutdown(ctx), server.Shutdown(ctx)); err != nil {
			t.Error(err)
		}
	})
	return server
}

// peer is a client of the broker.
type peer struct {
	t  *testing.T
	nc net.Conn
	in []byte
}

func dial(t *testing.T, s *transport.Server) *peer {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close() }) // it may have been closed
	if err := s.ServeConn(theirs, transport.Listener{Network: "tcp"}); err != nil {
		t.Fatal(err)
	}
	return &peer{t: t, nc: ours}
}

func (p *peer) send(packets ...[]byte) {
	p.t.Helper()
	if err := p.nc.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.nc.Write(bytes.Join(packets, nil)); err != nil {
		p.t.Fatal(err)
	}
}

// next is the next packet; io.EOF if the broker has closed the connection.
func (p *peer) next() (h wire.Header, body []byte, err error) {
	p.t.Helper()
	buf := make([]byte, 4096)
	for {
		h, err := wire.ReadHeader(p.in)
		if err != nil {
			p.t.Fatal(err)
		}
		if size := h.Size + h.Remaining; h.Size > 0 && len(p.in) >= size {
			body := p.in[h.Size:size]
			p.in = p.in[size:]
			return h, body, nil
		}
		if err := p.nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return h, nil, io.EOF // a pipe says it here too that the other end is closed
		}
		n, err := p.nc.Read(buf)
		p.in = append(p.in, buf[:n]...)
		if err != nil {
			return h, nil, err
		}
	}
}

func (p *peer) expect(want wire.Type) (h wire.Header, body []byte) {
	p.t.Helper()
	h, body, err := p.next()
	if err != nil || h.Type != want {
		p.t.Fatalf("%v %x (%v) in place of %v", h.Type, body, err, want)
	}
	return h, body
}

func (p *peer) connack() *wire.Connack {
	p.t.Helper()
	h, body := p.expect(wire.CONNACK)
	ack, err := wire.DecodeConnack(h, body, wire.V5)
	if err != nil {
		p.t.Fatal(err)
	}
	return ack
}

func (p *peer) auth() *wire.Auth {
	p.t.Helper()
	h, body := p.expect(wire.AUTH)
	a, err := wire.DecodeAuth(h, body, &wire.Limits{})
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// ended wants the connection closed with nothing more on it.
func (p *peer) ended() {
	p.t.Helper()
	if h, body, err := p.next(); !errors.Is(err, io.EOF) {
		p.t.Fatalf("%v %x (%v) in place of the end", h.Type, body, err)
	}
}

// refused wants a CONNACK with reason and the end.
func (p *peer) refused(reason wire.ReasonCode) {
	p.t.Helper()
	if ack := p.connack(); ack.Reason != reason || ack.AuthData != nil {
		p.t.Errorf("%v %q, want %v", ack.Reason, ack.ReasonString, reason)
	}
	p.ended()
}

// ejected wants a DISCONNECT with reason and the end.
func (p *peer) ejected(reason wire.ReasonCode) {
	p.t.Helper()
	h, body := p.expect(wire.DISCONNECT)
	d, err := wire.DecodeServerDisconnect(h, body, &wire.Limits{})
	if err != nil || d.Reason != reason {
		p.t.Errorf("%v, %v, want %v", d, err, reason)
	}
	p.ended()
}

func ping() []byte { return []byte{byte(wire.PINGREQ) << 4, 0} }

// alive wants the connection to work.
func (p *peer) alive() {
	p.t.Helper()
	p.send(ping())
	p.expect(wire.PINGRESP)
}

func authPacket(reason wire.ReasonCode, method string, data []byte) []byte {
	return (&wire.Auth{Reason: reason, Method: method, Data: data}).Append(nil)
}

// connect is a CONNECT with the client's first message.
func (c *scramClient) connect(more ...func(*wire.Connect)) []byte {
	p := wire.Connect{
		Version: wire.V5, ClientID: c.user + "-1", CleanStart: true, RequestProblem: true,
		HasAuthMethod: true, AuthMethod: ScramMethod, AuthData: c.first(),
	}
	for _, f := range more {
		f(&p)
	}
	return p.Append(nil)
}

// answer is the AUTH with the client's final message.
func (c *scramClient) answer(t *testing.T, challenge []byte) []byte {
	t.Helper()
	final, err := c.final(challenge)
	if err != nil {
		t.Fatal(err)
	}
	return authPacket(wire.ContinueAuthentication, ScramMethod, final)
}

func alice() *scramClient { return &scramClient{user: "alice", password: "secret", nonce: "abc"} }

// enter lets c in.
func (p *peer) enter(c *scramClient, more ...func(*wire.Connect)) *wire.Connack {
	p.t.Helper()
	p.send(c.connect(more...))
	p.send(c.answer(p.t, p.auth().Data))
	ack := p.connack()
	if ack.Reason != wire.Success {
		p.t.Fatalf("%v %q", ack.Reason, ack.ReasonString)
	}
	return ack
}

func TestExchange_LetsIn(t *testing.T) { // [MQTT-4.12.0-2] [MQTT-4.12.0-5]
	t.Parallel()
	p, c := dial(t, serving(t)), alice()
	p.send(c.connect())
	a := p.auth()
	if a.Reason != wire.ContinueAuthentication || a.Method != ScramMethod {
		t.Errorf("%+v", a)
	}
	p.send(c.answer(t, a.Data))
	ack := p.connack()
	if ack.Reason != wire.Success || ack.AuthMethod != ScramMethod || string(ack.AuthData) != c.signature {
		t.Errorf("%+v, want %s", ack, c.signature)
	}
	p.alive()
}

// The broker's answer must not depend on how the bytes come.
func TestExchange_SplitAtEveryByte(t *testing.T) {
	t.Parallel()
	p, c := dial(t, serving(t)), alice()
	drip := func(packet []byte) {
		for _, b := range packet {
			p.send([]byte{b})
		}
	}
	drip(c.connect())
	drip(c.answer(t, p.auth().Data))
	if ack := p.connack(); ack.Reason != wire.Success {
		t.Errorf("%+v", ack)
	}
}

func TestExchange_UnknownMethodIsRefused(t *testing.T) { // [MQTT-4.12.0-1]
	t.Parallel()
	s := serving(t)
	for _, method := range []string{"SCRAM-SHA-1", "scram-sha-256", ""} {
		p := dial(t, s)
		p.send(alice().connect(func(c *wire.Connect) { c.AuthMethod = method }))
		p.refused(wire.BadAuthenticationMethod)
	}
}

func TestExchange_FailureEndsTheConnection(t *testing.T) { // [MQTT-4.12.0-4]
	t.Parallel()
	s := serving(t)
	for _, c := range []*scramClient{
		{user: "alice", password: "wrong", nonce: "abc"},
		{user: "nobody", password: "secret", nonce: "abc"},
		{user: "bob", password: "secret", nonce: "abc"},
	} {
		p := dial(t, s)
		p.send(c.connect())
		p.send(c.answer(t, p.auth().Data))
		p.refused(wire.NotAuthorized)
	}
	for _, first := range [][]byte{nil, {}, []byte("p=tls-unique,,n=alice,r=abc")} {
		p := dial(t, s)
		p.send(alice().connect(func(c *wire.Connect) { c.AuthData = first }))
		p.refused(wire.NotAuthorized)
	}
}

func TestExchange_OnlyContinueContinues(t *testing.T) { // [MQTT-4.12.0-3]
	t.Parallel()
	s := serving(t)
	for _, reason := range []wire.ReasonCode{wire.Success, wire.ReAuthenticate} {
		p, c := dial(t, s), alice()
		p.send(c.connect())
		final, err := c.final(p.auth().Data)
		if err != nil {
			t.Fatal(err)
		}
		p.send(authPacket(reason, ScramMethod, final))
		p.refused(wire.ProtocolError)
	}
}

func TestExchange_MethodStaysTheSame(t *testing.T) { // [MQTT-4.12.0-5]
	t.Parallel()
	s := serving(t)
	p, c := dial(t, s), alice()
	p.send(c.connect())
	final, err := c.final(p.auth().Data)
	if err != nil {
		t.Fatal(err)
	}
	p.send(authPacket(wire.ContinueAuthentication, "OTHER", final))
	p.refused(wire.ProtocolError)

	p, c = dial(t, s), alice()
	p.enter(c)
	p.send(authPacket(wire.ReAuthenticate, ScramMethod, c.first()))
	p.auth()
	p.send(authPacket(wire.ContinueAuthentication, "OTHER", nil))
	p.ejected(wire.ProtocolError)
}

func TestExchange_OtherPacketsEndIt(t *testing.T) { // [MQTT-3.1.2-30]
	t.Parallel()
	s := serving(t)
	for name, packet := range map[string][]byte{
		"PINGREQ":     ping(),
		"CONNECT":     alice().connect(),
		"SUBSCRIBE":   (&wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{{Filter: "a"}}}).Append(nil, wire.V5),
		"PUBLISH":     {0x30, 0x05, 0, 1, 'a', 0, 'x'},
		"PUBACK":      {0x40, 0x02, 0, 1},
		"UNSUBSCRIBE": {0xa2, 0x06, 0, 1, 0, 0, 1, 'a'},
	} {
		p := dial(t, s)
		p.send(alice().connect())
		p.auth()
		p.send(packet)
		if ack := p.connack(); ack.Reason != wire.ProtocolError {
			t.Errorf("%s: %v", name, ack.Reason)
		}
		p.ended()
	}
}

func TestExchange_DisconnectEndsItInSilence(t *testing.T) {
	t.Parallel()
	p := dial(t, serving(t))
	p.send(alice().connect())
	p.auth()
	p.send((&wire.Disconnect{}).Append(nil))
	p.ended()
}

func TestExchange_HasTheConnectDeadline(t *testing.T) {
	t.Parallel()
	p := dial(t, serving(t, func(o *broker.Options) { o.ConnectTimeout = 3 * time.Second }))
	p.send(alice().connect())
	p.auth()
	p.refused(wire.ProtocolError)
}

// slow is a method whose server takes until it is let go; then it lets in.
type slow struct {
	entered chan context.Context
	leave   chan struct{}
}

func (*slow) Method() string                                  { return "SLOW" }
func (s *slow) Begin(*broker.AuthRequest) broker.AuthExchange { return s }
func (s *slow) Next(ctx context.Context, _ []byte) ([]byte, bool, broker.Grant, error) {
	s.entered <- ctx
	<-s.leave
	return nil, true, broker.Grant{Username: "slow"}, nil
}

func TestExchange_PacketsWaitWhileTheServerThinks(t *testing.T) {
	t.Parallel()
	m := &slow{make(chan context.Context, 1), make(chan struct{})}
	s := serving(t, func(o *broker.Options) { o.EnhancedAuthenticators = append(o.EnhancedAuthenticators, m) })
	p := dial(t, s)
	go func() {
		<-m.entered
		m.leave <- struct{}{}
	}()
	p.send(alice().connect(func(c *wire.Connect) { c.AuthMethod = "SLOW" }), ping())
	if ack := p.connack(); ack.Reason != wire.Success {
		t.Errorf("%+v", ack)
	}
	p.expect(wire.PINGRESP)
}

// A client that leaves in the middle takes nothing with it, and comes to
// nothing when its authenticator is done.
func TestExchange_ClientLeavesWhileTheServerThinks(t *testing.T) {
	t.Parallel()
	m := &slow{make(chan context.Context, 1), make(chan struct{})}
	var connected atomic.Int32
	s := serving(t, func(o *broker.Options) {
		o.EnhancedAuthenticators = append(o.EnhancedAuthenticators, m)
		o.Observer = &counter{connected: &connected}
	})
	p := dial(t, s)
	p.send(alice().connect(func(c *wire.Connect) { c.AuthMethod = "SLOW" }))
	if _, ok := (<-m.entered).Deadline(); !ok {
		t.Error("the authenticator has no deadline")
	}
	if err := p.nc.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); s.Conns() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection stays")
		}
	}
	m.leave <- struct{}{}
	dial(t, s).enter(alice())
	if n := connected.Load(); n != 1 {
		t.Errorf("%d clients have connected", n)
	}
}

type counter struct {
	broker.NopObserver
	connected *atomic.Int32
}

func (c *counter) Connected(broker.ClientEvent) { c.connected.Add(1) }

// broken is a method that panics.
type broken struct{}

func (broken) Method() string                                { return "BROKEN" }
func (broken) Begin(*broker.AuthRequest) broker.AuthExchange { return broken{} }
func (broken) Next(context.Context, []byte) ([]byte, bool, broker.Grant, error) {
	panic("at the disco")
}

func TestExchange_PanicIsARefusal(t *testing.T) {
	t.Parallel()
	s := serving(t, func(o *broker.Options) { o.EnhancedAuthenticators = append(o.EnhancedAuthenticators, broken{}) })
	p := dial(t, s)
	p.send(alice().connect(func(c *wire.Connect) { c.AuthMethod = "BROKEN" }))
	p.refused(wire.NotAuthorized)
	dial(t, s).enter(alice())
}

func TestExchange_WithoutMethodNobodyComesIn(t *testing.T) { // [MQTT-4.12.0-6]
	t.Parallel()
	s := serving(t)
	without := func(c *wire.Connect) { c.HasAuthMethod, c.AuthMethod, c.AuthData = false, "", nil }
	p := dial(t, s)
	p.send(alice().connect(without))
	p.refused(wire.NotAuthorized)
	p = dial(t, s)
	p.send(alice().connect(without, func(c *wire.Connect) {
		c.HasUsername, c.Username, c.HasPassword, c.Password = true, "alice", true, []byte("secret")
	}))
	p.refused(wire.NotAuthorized)
	p = dial(t, s)
	p.send(alice().connect(without, func(c *wire.Connect) { c.Version = wire.V311 }))
	if _, body := p.expect(wire.CONNACK); !bytes.Equal(body, []byte{0, 5}) {
		t.Errorf("%x", body)
	}
	p.ended()
}

func TestExchange_AuthWithoutMethodInConnectIsRefused(t *testing.T) { // [MQTT-4.12.0-7]
	t.Parallel()
	s := serving(t, func(o *broker.Options) { o.Authenticator = NewChain(true) })
	p := dial(t, s)
	p.send(alice().connect(func(c *wire.Connect) { c.HasAuthMethod, c.AuthMethod, c.AuthData = false, "", nil }))
	if ack := p.connack(); ack.Reason != wire.Success || ack.AuthMethod != "" || ack.AuthData != nil {
		t.Fatalf("%+v", ack)
	}
	p.alive()
	p.send(authPacket(wire.ReAuthenticate, ScramMethod, alice().first()))
	p.ejected(wire.ProtocolError)
}

func TestExchange_FitsThePacketSizeOrIsRefused(t *testing.T) { // [MQTT-3.1.2-24]
	t.Parallel()
	s := serving(t)
	p := dial(t, s)
	p.send(alice().connect(func(c *wire.Connect) { c.MaximumPacketSize = 60 }))
	p.refused(wire.PacketTooLarge)
}

func TestReauthentication_Succeeds(t *testing.T) { // [MQTT-4.12.1-1]
	t.Parallel()
	p, c := dial(t, serving(t)), alice()
	p.enter(c)
	for range 3 {
		p.send(authPacket(wire.ReAuthenticate, ScramMethod, c.first()))
		a := p.auth()
		if a.Reason != wire.ContinueAuthentication || a.Method != ScramMethod {
			t.Fatalf("%+v", a)
		}
		p.alive() // the old authentication holds meanwhile
		p.send(c.answer(t, a.Data))
		if a = p.auth(); a.Reason != wire.Success || a.Method != ScramMethod || string(a.Data) != c.signature {
			t.Fatalf("%+v, want %s", a, c.signature)
		}
	}
	p.alive()
}

func TestReauthentication_FailureEndsTheConnection(t *testing.T) { // [MQTT-4.12.1-2]
	t.Parallel()
	s := serving(t)
	for name, c := range map[string]*scramClient{
		"wrong password": {user: "alice", password: "wrong", nonce: "abc"},
		"other user":     {user: "bob", password: "bob's", nonce: "abc"},
	} {
		p := dial(t, s)
		p.enter(alice())
		p.send(authPacket(wire.ReAuthenticate, ScramMethod, c.first()))
		p.send(c.answer(t, p.auth().Data))
		t.Log(name)
		p.ejected(wire.NotAuthorized)
	}
	p := dial(t, s)
	p.enter(alice())
	p.send(authPacket(wire.ReAuthenticate, ScramMethod, []byte("nonsense")))
	p.ejected(wire.NotAuthorized)
}

func TestReauthentication_NeedsTheMethodOfConnect(t *testing.T) { // [MQTT-4.12.1-1]
	t.Parallel()
	s := serving(t, func(o *broker.Options) { o.EnhancedAuthenticators = append(o.EnhancedAuthenticators, broken{}) })
	for _, method := range []string{"BROKEN", "OTHER"} {
		p := dial(t, s)
		p.enter(alice())
		p.send(authPacket(wire.ReAuthenticate, method, nil))
		p.ejected(wire.ProtocolError)
	}
}

func TestReauthentication_StartsWithItsReason(t *testing.T) {
	t.Parallel()
	s := serving(t)
	for _, packet := range [][]byte{
		authPacket(wire.ContinueAuthentication, ScramMethod, nil), authPacket(wire.Success, ScramMethod, nil), {0xf0, 0},
	} {
		p := dial(t, s)
		p.enter(alice())
		p.send(packet)
		p.ejected(wire.ProtocolError)
	}
}

// The session is its owner's: who else proves to be somebody gets none of it.
func TestExchange_SessionBelongsToItsUser(t *testing.T) {
	t.Parallel()
	s := serving(t)
	same := func(c *wire.Connect) { c.ClientID, c.CleanStart, c.SessionExpiry = "same", false, 100 }
	p := dial(t, s)
	p.enter(alice(), same)
	q, bob := dial(t, s), &scramClient{user: "bob", password: "bob's", nonce: "abc"}
	q.send(bob.connect(same))
	q.send(bob.answer(t, q.auth().Data))
	q.refused(wire.NotAuthorized)
	p.alive()
	r := dial(t, s)
	if ack := r.enter(alice(), same); !ack.SessionPresent {
		t.Error("the session is gone")
	}
	p.ejected(wire.SessionTakenOver)
}

func TestACL_RepliesComeBackUnderRules(t *testing.T) {
	t.Parallel()
	s := serving(t, func(o *broker.Options) {
		o.Authorizer = mustACL(t, "user alice\ntopic readwrite a\nuser bob\ntopic readwrite a")
	})
	p := dial(t, s)
	ack := p.enter(alice(), func(c *wire.Connect) { c.RequestResponse = true })
	prefix := ack.ResponseInformation
	if !strings.HasPrefix(prefix, "$reply/") {
		t.Fatalf("%+v", ack)
	}
	p.send((&wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{{Filter: prefix + "#"}}}).Append(nil, wire.V5))
	if _, body := p.expect(wire.SUBACK); body[len(body)-1] != 0 {
		t.Fatalf("%x", body)
	}
	q := dial(t, s)
	q.enter(&scramClient{user: "bob", password: "bob's", nonce: "abc"})
	name := prefix + "1"
	publish := append([]byte{0x30, byte(2 + len(name) + 1 + 1), 0, byte(len(name))}, name+"\x00x"...)
	q.send(publish)
	if _, body := p.expect(wire.PUBLISH); !bytes.Contains(body, []byte(name)) {
		t.Errorf("%q", body)
	}
	q.send([]byte{0x30, 0x05, 0, 1, 'b', 0, 'x'}) // no rule
	q.alive()
}
