package broker

import (
	"encoding"
	"net/netip"

	"hashplus/broker/record"
)

// maxData bounds what of an Identity's Data is stored with a will.
const maxData = 64 << 10

// keepWill stores w, as the will of the n-th connection of owner. It has a record
// of its own, whatever becomes of the session: that is taken out in the batch that
// has the message for its receivers. One whose owner has another connection, or is
// no session any more, is due.
func (l *loop) keepWill(w *will, owner, n uint64) {
	w.kept, w.owner, w.n = true, owner, n
	p := l.notes()
	p.set(record.AppendWill(nil, owner, n), w.record(p.clock))
}

// eraseWill is the inverse of keepWill. w may be nil.
func (l *loop) eraseWill(w *will) {
	if w != nil && w.kept {
		w.kept = false
		l.sheet().delete(record.AppendWill(nil, w.owner, w.n))
	}
}

// writeWill stores the will of a client whose session is not stored: after a crash
// it is still published.
func (c *client) writeWill() {
	if g := c.b.ledger; g != nil && c.will != nil && !c.will.kept && g.takes() {
		c.l.keepWill(c.will, g.owners.Add(1), 0)
	}
}

func (w *will) record(clock int64) []byte {
	id := w.identity
	r := record.Will{
		Client: id.ClientID, User: id.Username, Listener: id.Listener, Claims: id.Data != nil || w.stranger,
		Delay: w.delay, Expiry: w.expiry, Message: w.m.record(clock),
	}
	if id.Remote.IsValid() {
		r.Remote = id.Remote.String()
	}
	if d, ok := id.Data.(encoding.BinaryMarshaler); ok {
		if b, err := d.MarshalBinary(); err == nil && len(b) <= maxData {
			r.Data = append([]byte{}, b...)
		}
	}
	return r.Append(nil)
}

// recoveredWill is a will of a process before.
type recoveredWill struct {
	owner, n uint64
	record.Will
}

// will makes r one of ours again. What its client's authenticator had said of it
// counts on; where that can't be had back the client's name does not stand for it.
func (r *recoveredWill) will(b *Broker, clock int64) *will {
	id := &Identity{ClientID: r.Client, Username: r.User, Listener: r.Listener}
	id.Remote, _ = netip.ParseAddrPort(r.Remote)
	m := newMessage(&r.Message, clock)
	w := &will{
		m: m.keep(), identity: id, delay: r.Delay, expiry: r.Expiry,
		stranger: r.Claims, kept: true, owner: r.owner, n: r.n,
	}
	m.release()
	if f := b.opts.ReadData; r.Claims && r.Data != nil && f != nil {
		data, err := f(r.Data)
		if err != nil || data == nil {
			b.log.Warn("what was known of a will's client cannot be read", "client", r.Client, "cause", err)
			return w
		}
		id.Data, w.stranger = data, false
	}
	return w
}
