package broker

import (
	"errors"

	"hashplus/broker/wire"
	"hashplus/transport/link"
)

// fail ends the connection for err, telling the client why where its version
// can be told, and logs it: once, here.
func (c *client) fail(err error) {
	if c.state == closed {
		return
	}
	reason := wire.UnspecifiedError
	clause, detail := "", err.Error()
	told := detail
	var we *wire.Error
	var secret *withheld
	switch {
	case errors.As(err, &secret):
		reason, detail, told = secret.reason, secret.err.Error(), ""
	case errors.As(err, &we):
		reason, clause, detail = we.Reason, we.Clause, we.Detail
		told = detail
	}
	args := []any{"remote", c.remote(), "reason", reason.String()}
	if detail != "" {
		args = append(args, "detail", detail)
	}
	if id := c.clientID(); id != "" {
		args = append(args, "client", id)
	}
	if clause != "" {
		args = append(args, "clause", clause)
	}
	c.b.log.Info("connection ended", args...)
	switch {
	case c.state == open:
		c.sendDisconnect(reason, told)
	case c.version != 0:
		c.refuse(reason, told)
	}
	c.close(reason, told, true)
}

// clientID is the client's identifier, or "" before CONNECT was read.
func (c *client) clientID() string {
	switch {
	case c.session != nil:
		return c.session.id
	case c.pending != nil:
		return c.pending.connect.ClientID
	}
	return ""
}

// sendDisconnect tells a version 5 client why the server ends the connection
// [MQTT-4.13.1-1]; older ones can't be told.
func (c *client) sendDisconnect(reason wire.ReasonCode, detail string) {
	if c.version != wire.V5 || c.state != open {
		return
	}
	d := wire.Disconnect{Reason: reason}
	if c.problems {
		d.ReasonString = detail
	}
	if reason == wire.ServerShuttingDown {
		d.ServerReference = c.b.options().ServerReference
		if d.ServerReference != "" {
			d.Reason = wire.UseAnotherServer
		}
	}
	b := d.Append(nil)
	if len(b) > c.maxPacket { // [MQTT-3.14.2-3]
		d.ReasonString = ""
		b = d.Append(nil)
	}
	c.write(b)
}

// close ends the connection in order; see leave for the session.
func (c *client) close(reason wire.ReasonCode, detail string, publishWill bool) {
	if c.state == closed {
		return
	}
	c.leave(reason, publishWill)
	c.conn.Close(closeCode(reason), detail)
}

// leave takes the client off its loop and its session. After it the client is
// closed: no callback of its connection does anything any more.
func (c *client) leave(reason wire.ReasonCode, publishWill bool) {
	was := c.state
	c.become(closed)
	c.l.arm(&c.timer, maxTime)
	c.aliasIn, c.aliasOut = nil, nil
	c.throttle.end()
	if p := c.pending; p != nil && p.cancel != nil {
		p.cancel()
	}
	if was != open {
		c.depart()
		c.pending = nil
		return
	}
	c.pending = nil
	c.l.stats.connected.Add(-1)
	s := c.session
	w := c.will
	c.will = nil
	if !publishWill {
		c.l.eraseWill(w)
		w = nil
	}
	if o := c.b.opts.Observer; o != nil {
		o.Disconnected(ClientEvent{Identity: *s.who(), Version: c.version, Reason: reason})
	}
	s.detach(w)
}

// shutdown ends the connection because the broker stops.
func (c *client) shutdown() {
	c.sendDisconnect(wire.ServerShuttingDown, "the server shuts down")
	c.close(wire.ServerShuttingDown, "the server shuts down", false)
}

// disconnect handles DISCONNECT.
func (c *client) disconnect(h wire.Header, body []byte) error {
	d, err := wire.DecodeDisconnect(h, body, c.version, &c.b.options().wire)
	if err != nil {
		return err
	}
	if c.state == open && d.HasSessionExpiry {
		// [MQTT-3.1.2-23] A session that was to end with its connection can't
		// be kept after all.
		if c.session.expiry == 0 && d.SessionExpiry != 0 {
			return &wire.Error{Reason: wire.ProtocolError,
				Detail: "DISCONNECT sets a Session Expiry Interval where CONNECT had set none"}
		}
		c.session.expiry = c.b.capExpiry(d.SessionExpiry)
	}
	// [MQTT-3.14.4-3] The will goes only at a normal disconnection.
	c.close(wire.NormalDisconnection, "", d.Reason != wire.NormalDisconnection)
	return nil
}

// closeCode maps a reason code to the WebSocket close code that goes with it.
func closeCode(r wire.ReasonCode) link.CloseCode {
	switch r {
	case wire.Success:
		return link.CloseNormal
	case wire.ServerShuttingDown, wire.UseAnotherServer, wire.ServerMoved, wire.AdministrativeAction:
		return link.CloseGoingAway
	case wire.MalformedPacket, wire.ProtocolError, wire.UnsupportedProtocolVersion:
		return link.CloseProtocolError
	case wire.PacketTooLarge:
		return link.CloseTooBig
	case wire.PayloadFormatInvalid:
		return link.CloseInvalidData
	case wire.ServerBusy, wire.ServerUnavailable, wire.ConnectionRateExceeded:
		return link.CloseTryLater
	case wire.UnspecifiedError, wire.ImplementationSpecificError:
		return link.CloseInternal
	default:
		return link.ClosePolicy
	}
}
