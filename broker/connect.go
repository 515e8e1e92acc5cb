package broker

import (
	"crypto/rand"
	"time"

	"hashplus/broker/wire"
	"hashplus/topic"
)

// pendingConnect is what a connection needs until its CONNACK.
type pendingConnect struct {
	connect  *wire.Connect
	assigned string // the client identifier, if the server chose it
	identity *Identity
	exchange AuthExchange
	request  *AuthRequest
	asked    *doorkeepers // who decides on it
	authData []byte       // for CONNACK
	cancel   func()       // ends the authenticator's context; nil until there is one
	before   uint32       // the session's expiry until this CONNECT
}

func refusal(r wire.ReasonCode, detail string) error { return &wire.Error{Reason: r, Detail: detail} }

// connect handles CONNECT: it checks the packet and has the client
// authenticated; enter goes on.
func (c *client) connect(h wire.Header, body []byte) error {
	p, err := wire.DecodeConnect(h, body, &c.b.options().wire)
	c.version = p.Version
	if err != nil {
		return err
	}
	c.problems = p.RequestProblem
	c.receiveMaximum = p.ReceiveMaximum
	c.aliasMaximum = min(p.TopicAliasMaximum, uint16(c.announced.TopicAliasMaximum))
	if p.MaximumPacketSize > 0 {
		c.maxPacket = int(min(p.MaximumPacketSize, maxPacketSize))
	}
	c.pending = &pendingConnect{connect: p}
	if c.b.draining.Load() {
		return refusal(wire.ServerShuttingDown, "the server shuts down")
	}
	if c.b.memory.short.Load() {
		c.b.refused.memory.Add(1)
		return refusal(wire.ServerBusy, "the server is short of memory")
	}
	if c.b.ledger != nil && !c.b.ready.Load() {
		return refusal(wire.ServerUnavailable, "the server has not recovered its state yet")
	}
	if err := c.checkClientID(p); err != nil {
		return err
	}
	if err := c.checkBans(p); err != nil {
		return err
	}
	if err := c.checkWill(p.Will); err != nil {
		return err
	}
	c.pending.request = &AuthRequest{
		ClientID: p.ClientID, HasUsername: p.HasUsername, Username: p.Username,
		HasPassword: p.HasPassword, Password: p.Password,
		Info: c.conn.Info(), Handshake: c.conn.Handshake(),
	}
	return c.authenticate(p)
}

// checkClientID lets no client in without an identifier, and chooses one where
// the client left that to the server.
func (c *client) checkClientID(p *wire.Connect) error {
	if p.ClientID != "" {
		if len(p.ClientID) > c.b.options().MaxTopicLength {
			return refusal(wire.ClientIdentifierNotValid, "the client identifier is too long")
		}
		return nil
	}
	if p.Version == wire.V31 || p.Version == wire.V311 && !p.CleanStart { // [MQTT3-3.1.3-8]
		return refusal(wire.ClientIdentifierNotValid, "no client identifier")
	}
	p.ClientID = "auto-" + token()
	c.pending.assigned = p.ClientID
	return nil
}

// token is a random string of 130 bits, safe in a topic level.
func token() string { return rand.Text() }

// checkWill holds a will to what a PUBLISH is held to.
func (c *client) checkWill(w *wire.Will) error {
	if w == nil {
		return nil
	}
	if w.QoS > *c.announced.MaximumQoS { // [MQTT-3.2.2-12]
		return &wire.Error{Reason: wire.QoSNotSupported, Clause: "MQTT-3.2.2-12", Detail: "QoS of the will"}
	}
	if w.Retain && c.announced.RetainUnavailable {
		return &wire.Error{Reason: wire.RetainNotSupported, Clause: "MQTT-3.2.2-13", Detail: "retained will"}
	}
	if err := topic.CheckName(w.Topic); err != nil {
		return refusal(wire.TopicNameInvalid, "will topic: "+err.Error())
	}
	if reserved(w.Topic) {
		return refusal(wire.NotAuthorized, "the topic of the will is the server's own")
	}
	return nil
}

// admitted goes on with a client that was let in as g.
func (c *client) admitted(g Grant) error {
	p := c.pending
	if err := c.granted(g); err != nil {
		return err
	}
	p.identity = &Identity{
		ClientID: p.connect.ClientID, Username: g.Username, Data: g.Data,
		Remote: c.conn.Info().Remote, Listener: c.conn.Info().Listener,
	}
	if w := p.connect.Will; w != nil {
		if az := c.l.az; az != nil && !az.CanPublish(p.identity, []byte(w.Topic)) {
			return refusal(wire.NotAuthorized, "the client may not publish its will")
		}
	}
	c.conn.Admit()
	p.request, p.exchange = nil, nil
	c.become(moving)
	if home := c.b.home(p.connect.ClientID); home != c.l {
		c.l.arm(&c.timer, maxTime)
		c.conn.Move(home.id)
		return nil
	}
	c.enter()
	return nil
}

// granted notes when g ends, and its grounds. One that has ended already lets nobody in.
func (c *client) granted(g Grant) error {
	c.expires, c.grounds = maxTime, g.Grounds
	if g.ExpiresAt.IsZero() {
		return nil
	}
	left := time.Until(g.ExpiresAt)
	if left <= 0 {
		return refusal(wire.NotAuthorized, "the credentials of the client have expired")
	}
	if now := c.l.now(); int64(left) < maxTime-now {
		c.expires = now + int64(left)
	}
	return nil
}

// enter binds the client to its session, on the session's loop, and answers
// CONNECT. Of two clients with one identifier the one that comes here later
// stays.
func (c *client) enter() {
	l, p := c.l, c.pending
	id := p.connect.ClientID
	if l.b.draining.Load() { // Shutdown may have passed while the client was authenticated
		c.fail(refusal(wire.ServerShuttingDown, "the server shuts down"))
		return
	}
	if err := c.reviewed(p.identity.Username); err != nil {
		c.fail(err)
		return
	}
	s := l.sessions[id]
	if s != nil && s.username != p.identity.Username {
		c.fail(refusal(wire.NotAuthorized, "the session belongs to another user"))
		return
	}
	if s == nil && l.b.sessionCount() >= int64(l.b.options().MaxSessions) {
		c.fail(refusal(wire.QuotaExceeded, "the server has as many sessions as it may have"))
		return
	}
	expiry := l.b.capExpiry(p.connect.SessionExpiry)
	if g := l.b.ledger; g != nil && !g.works() && (expiry > 0 || s != nil && s.stored != nil || l.ending[id] > 0) {
		c.fail(refusal(wire.ServerUnavailable, "the server's store does not work now"))
		return
	}
	if s != nil && s.client != nil { // [MQTT-3.1.4-3]
		old := s.client
		old.sendDisconnect(wire.SessionTakenOver, "another client has connected with this identifier")
		old.close(wire.SessionTakenOver, "session taken over", true)
		s = l.sessions[id] // it may have ended with its connection
	}
	if s != nil && s.arriving != nil {
		s.arriving.fail(refusal(wire.SessionTakenOver, "another client has connected with this identifier"))
		s = l.sessions[id]
	}
	if s != nil && p.connect.CleanStart { // [MQTT-3.1.2-4]
		s.end()
		s = nil
	}
	present := s != nil
	if s == nil {
		s = &session{id: id, origin: l.b.origin(id), username: p.identity.Username, loop: l, traffic: &l.idle}
		l.sessions[id] = s
		l.stats.sessions.Add(1)
		if l.b.ledger != nil && expiry > 0 {
			s.stored = &stored{owner: l.b.ledger.owners.Add(1)}
		}
	}
	c.pending.before, s.expiry = s.expiry, expiry
	c.session = s
	if w := p.connect.Will; w != nil {
		c.will = newWill(w, s, p.identity)
	}
	if s.stored == nil && l.ending[id] == 0 { // else one that the store has might come back
		c.established(present)
		return
	}
	c.arrive(present)
}

// arrive waits with what is left to do until the store has the session, or that
// an earlier one is gone: then CONNACK may say so.
func (c *client) arrive(present bool) {
	l, s := c.l, c.session
	c.hold()
	l.arm(&c.timer, l.now()+int64(l.b.options().ConnectTimeout))
	s.arriving = c
	if st := s.stored; st != nil {
		st.epoch++
		if c.pending.connect.RequestResponse {
			s.replyPrefix()
		}
		s.write(0)
		if s.absence != nil {
			l.eraseWill(s.absence.will)
		}
		if c.will != nil {
			l.keepWill(c.will, st.owner, st.epoch)
		}
	}
	l.notes().after(func() {
		if c.state != moving { // it has gone
			return
		}
		if err := c.reviewed(c.pending.identity.Username); err != nil {
			c.fail(err)
			return
		}
		s.arriving = nil
		c.unhold()
		if s.ended { // meanwhile; CONNECT has to find another
			l.eraseWill(c.will)
			c.session, c.will = nil, nil
			c.enter()
			return
		}
		c.established(present)
	})
}

// depart is the inverse of arrive, for a client that has gone before its CONNACK:
// its session is left as it would be without it.
func (c *client) depart() {
	s := c.session
	c.l.eraseWill(c.will)
	if s == nil || s.ended || s.arriving != c {
		return
	}
	s.arriving = nil
	if s.absence == nil {
		s.detach(nil)
		return
	}
	s.expiry = c.pending.before
	s.rewrite()
	if w := s.absence.will; w != nil && s.stored != nil {
		c.l.keepWill(w, s.stored.owner, s.stored.epoch)
	}
}

// established answers CONNECT, and goes on with the session.
func (c *client) established(present bool) {
	l, p, s := c.l, c.pending, c.session
	var remembered *Identity // not if nobody asks for it; who makes one for whoever comes to
	if l.az != nil || l.b.opts.Observer != nil || p.identity.Data != nil {
		remembered = p.identity
	}
	s.renewed(remembered)
	c.writeWill()
	c.accept(present)
	c.offend(flapping)
	c.pending = nil
	c.become(open)
	l.stats.connected.Add(1)
	if o := l.b.opts.Observer; o != nil {
		o.Connected(ClientEvent{Identity: *s.who(), Version: c.version, CleanStart: p.connect.CleanStart, Resumed: present})
	}
	s.attach(c)
}

// accept sends the CONNACK of success and starts the keep alive clock.
func (c *client) accept(present bool) {
	o, p := c.announced, c.pending
	ack := wire.Connack{
		SessionPresent:    present,
		ReceiveMaximum:    o.ReceiveMaximum,
		MaximumPacketSize: uint32(o.MaximumPacketSize),
		TopicAliasMaximum: uint16(o.TopicAliasMaximum),
		LimitQoS:          *o.MaximumQoS < 2,
		MaximumQoS:        *o.MaximumQoS,
		RetainUnavailable: o.RetainUnavailable,
		AssignedClientID:  p.assigned,
		AuthData:          p.authData,
	}
	if p.connect.HasAuthMethod {
		c.authMethod = p.connect.AuthMethod
		ack.AuthMethod = c.authMethod
	}
	if c.session.expiry != p.connect.SessionExpiry {
		ack.HasSessionExpiry, ack.SessionExpiry = true, c.session.expiry
	}
	keepAlive := p.connect.KeepAlive
	if limit := o.MaxKeepAlive; limit > 0 && c.version == wire.V5 && (keepAlive == 0 || keepAlive > limit) {
		keepAlive = limit
		ack.HasServerKeepAlive, ack.ServerKeepAlive = true, limit
	}
	if p.connect.RequestResponse {
		ack.ResponseInformation = c.session.replyPrefix()
	}
	c.writeConnack(&ack)
	c.keepAlive = int64(keepAlive) * second
	c.lastPacket = c.l.now()
	c.l.arm(&c.timer, c.deadline())
}

// refuse sends the CONNACK of a refusal, if the client's version has one for
// reason.
func (c *client) refuse(reason wire.ReasonCode, detail string) {
	if c.version != wire.V5 && wire.ConnectReturnCode(reason) == 0 {
		return
	}
	ack := wire.Connack{Reason: reason}
	if ref := c.b.options().ServerReference; reason == wire.ServerShuttingDown && ref != "" {
		ack.Reason, ack.ServerReference = wire.UseAnotherServer, ref
	}
	if c.problems {
		ack.ReasonString = detail
	}
	c.writeConnack(&ack)
}

func (c *client) writeConnack(ack *wire.Connack) {
	b := ack.Append(nil, c.version)
	if len(b) > c.maxPacket { // [MQTT-3.2.2-19]
		ack.ReasonString = ""
		b = ack.Append(nil, c.version)
	}
	c.write(b)
}

// capExpiry limits a Session Expiry Interval to the server's.
func (b *Broker) capExpiry(seconds uint32) uint32 {
	if limit := b.options().MaxSessionExpiry; limit > 0 {
		return min(seconds, limit)
	}
	return seconds
}

func (b *Broker) sessionCount() (n int64) {
	for _, l := range b.loops {
		n += l.stats.sessions.Load()
	}
	return n
}
