package record

import (
	"encoding/binary"
	"errors"
)

// ErrCorrupt is returned for a value that is not what was written.
var ErrCorrupt = errors.New("record: the value is corrupt")

// Session is what the broker remembers of a client.
type Session struct {
	ClientID string
	Username string // of who made it
	Epoch    uint64 // grows with every connection
	Expiry   uint32 // Session Expiry Interval, seconds
	LostAt   uint64 // Unix milliseconds at which the connection ended; 0: it is connected
	Reply    string // reply prefix, "" if it has none
}

// Will is a will that is still to be published.
type Will struct {
	// The client that left it, for whoever is asked whether it may be published.
	Client, User, Listener string
	Remote                 string // address and port of its connection; "" if it has none
	Claims                 bool   // its authenticator said more of it: Data
	Data                   []byte // nil if that can't be stored

	Delay   uint32 // Will Delay Interval, seconds
	Expiry  uint32 // Message Expiry Interval, which counts from publication
	Message Message
}

// Message is an application message.
type Message struct {
	ID       MessageID
	From     uint64 // stands for the client that published it, see No Local; 0: none
	Deadline uint64 // Unix milliseconds at which it expires; 0: never
	Version  uint64 // of a retained message: later ones are larger
	QoS      byte
	Retain   bool
	ExpiryAt int    // offset in Props of the Message Expiry Interval, or -1
	Topic    []byte // views over the value
	Props    []byte // encoded, as they are passed on
	Payload  []byte

	// Of a retained message that a client published which is to be asked about
	// again: its names.
	Published          bool
	ClientID, Username string
}

// Subscription is one entry of a session.
type Subscription struct {
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	Replaying         bool   // retained messages are still to be sent for it
	Order             uint64 // later subscriptions of a session have larger ones
	IDs               []uint32
}

// Delivery is one QoS 1 or 2 message for one owner.
type Delivery struct {
	QoS      byte
	Retain   bool
	Released bool   // PUBREC came: of the message only Number counts any more
	Numbered bool   // it has a packet identifier
	Number   uint64 // from which that follows
	Shared   bool   // its body is that of ID, which others may refer to
	ID       MessageID
	Size     uint64 // what it counts for in the queue
	Deadline uint64 // as the message's
	IDs      []uint32

	// Of a delivery that came through a share group: the group, as its name, a
	// slash and its filter, and the number of the message there.
	Group    string
	GroupSeq uint64
}

// Flags of values.
const (
	flagQoS       = 3
	flagRetain    = 1 << 2
	flagReleased  = 1 << 3
	flagNumbered  = 1 << 4
	flagShared    = 1 << 5
	flagGroup     = 1 << 6
	flagReplaying = 1 << 4
	flagNoLocal   = 1 << 3
	flagClaims    = 1 << 0
	flagData      = 1 << 1
	flagExpiryAt  = 1 << 3
	flagNames     = 1 << 4
)

func flag(on bool, bit byte) byte {
	if on {
		return bit
	}
	return 0
}

func appendString[T ~string | ~[]byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendIDs(dst []byte, ids []uint32) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(ids)))
	for _, id := range ids {
		dst = binary.AppendUvarint(dst, uint64(id))
	}
	return dst
}

// Append appends the value of s.
func (s *Session) Append(dst []byte) []byte {
	dst = append(dst, 0) // for flags
	dst = appendString(dst, s.ClientID)
	dst = appendString(dst, s.Username)
	dst = binary.AppendUvarint(dst, s.Epoch)
	dst = binary.AppendUvarint(dst, uint64(s.Expiry))
	dst = binary.AppendUvarint(dst, s.LostAt)
	return appendString(dst, s.Reply)
}

// Decode reads a value of Append. It keeps nothing of b.
func (s *Session) Decode(b []byte) error {
	r := reader{b: b}
	flags := r.byte()
	*s = Session{
		ClientID: string(r.field()), Username: string(r.field()),
		Epoch: r.uvarint(), Expiry: r.uint32(), LostAt: r.uvarint(), Reply: string(r.field()),
	}
	r.bad = r.bad || flags != 0
	return r.end()
}

// Append appends the value of w.
func (w *Will) Append(dst []byte) []byte {
	dst = append(dst, flag(w.Claims, flagClaims)|flag(w.Data != nil, flagData))
	for _, s := range []string{w.Client, w.User, w.Listener, w.Remote} {
		dst = appendString(dst, s)
	}
	if w.Data != nil {
		dst = appendString(dst, w.Data)
	}
	dst = binary.AppendUvarint(dst, uint64(w.Delay))
	dst = binary.AppendUvarint(dst, uint64(w.Expiry))
	return w.Message.Append(dst)
}

// Decode reads a value of Append. Its slices are views over b.
func (w *Will) Decode(b []byte) error {
	r := reader{b: b}
	flags := r.byte()
	*w = Will{
		Client: string(r.field()), User: string(r.field()), Listener: string(r.field()), Remote: string(r.field()),
		Claims: flags&flagClaims != 0,
	}
	if flags&flagData != 0 {
		if w.Data = r.field(); w.Data == nil {
			w.Data = []byte{}
		}
	}
	w.Delay, w.Expiry = r.uint32(), r.uint32()
	if r.bad || flags&^(flagClaims|flagData) != 0 {
		return ErrCorrupt
	}
	return w.Message.Decode(r.b)
}

// Append appends the value of m.
func (m *Message) Append(dst []byte) []byte {
	dst = append(dst, m.QoS&flagQoS|flag(m.Retain, flagRetain)|flag(m.ExpiryAt >= 0, flagExpiryAt)|flag(m.Published, flagNames))
	dst = append(dst, m.ID[:]...)
	dst = binary.BigEndian.AppendUint64(dst, m.From)
	dst = binary.AppendUvarint(dst, m.Deadline)
	dst = binary.AppendUvarint(dst, m.Version)
	if m.ExpiryAt >= 0 {
		dst = binary.AppendUvarint(dst, uint64(m.ExpiryAt))
	}
	if m.Published {
		dst = appendString(appendString(dst, m.ClientID), m.Username)
	}
	dst = appendString(dst, m.Topic)
	dst = appendString(dst, m.Props)
	return append(dst, m.Payload...)
}

// Decode reads a value of Append. m's slices are views over b.
func (m *Message) Decode(b []byte) error {
	r := reader{b: b}
	flags := r.byte()
	*m = Message{QoS: flags & flagQoS, Retain: flags&flagRetain != 0, ExpiryAt: -1}
	copy(m.ID[:], r.take(len(m.ID)))
	if from := r.take(8); from != nil {
		m.From = binary.BigEndian.Uint64(from)
	}
	m.Deadline, m.Version = r.uvarint(), r.uvarint()
	if flags&flagExpiryAt != 0 {
		m.ExpiryAt = int(r.uint32())
	}
	if flags&flagNames != 0 {
		m.Published, m.ClientID, m.Username = true, string(r.field()), string(r.field())
	}
	m.Topic, m.Props = r.field(), r.field()
	m.Payload = r.b
	if r.bad || m.QoS > 2 || len(m.Topic) == 0 || m.ExpiryAt >= 0 && m.ExpiryAt > len(m.Props)-4 {
		return ErrCorrupt
	}
	return nil
}

// Append appends the value of s.
func (s *Subscription) Append(dst []byte) []byte {
	dst = append(dst, s.QoS&flagQoS|flag(s.RetainAsPublished, flagRetain)|flag(s.NoLocal, flagNoLocal)|flag(s.Replaying, flagReplaying))
	dst = binary.AppendUvarint(dst, s.Order)
	return appendIDs(dst, s.IDs)
}

// Decode reads a value of Append.
func (s *Subscription) Decode(b []byte) error {
	r := reader{b: b}
	flags := r.byte()
	*s = Subscription{
		QoS: flags & flagQoS, RetainAsPublished: flags&flagRetain != 0, NoLocal: flags&flagNoLocal != 0,
		Replaying: flags&flagReplaying != 0,
		Order:     r.uvarint(), IDs: r.ids(),
	}
	if s.QoS > 2 {
		return ErrCorrupt
	}
	return r.end()
}

// Append appends the value of d.
func (d *Delivery) Append(dst []byte) []byte {
	dst = append(dst, d.QoS&flagQoS|flag(d.Retain, flagRetain)|flag(d.Released, flagReleased)|
		flag(d.Numbered, flagNumbered)|flag(d.Shared, flagShared)|flag(d.Group != "", flagGroup))
	if d.Numbered {
		dst = binary.AppendUvarint(dst, d.Number)
	}
	if d.Shared {
		dst = append(dst, d.ID[:]...)
	}
	if d.Group != "" {
		dst = appendString(dst, d.Group)
		dst = binary.AppendUvarint(dst, d.GroupSeq)
	}
	dst = binary.AppendUvarint(dst, d.Size)
	dst = binary.AppendUvarint(dst, d.Deadline)
	return appendIDs(dst, d.IDs)
}

// Decode reads a value of Append.
func (d *Delivery) Decode(b []byte) error {
	r := reader{b: b}
	flags := r.byte()
	*d = Delivery{
		QoS: flags & flagQoS, Retain: flags&flagRetain != 0, Released: flags&flagReleased != 0,
		Numbered: flags&flagNumbered != 0, Shared: flags&flagShared != 0,
	}
	if d.Numbered {
		d.Number = r.uvarint()
	}
	if d.Shared {
		copy(d.ID[:], r.take(len(d.ID)))
	}
	if flags&flagGroup != 0 {
		if d.Group, d.GroupSeq = string(r.field()), r.uvarint(); d.Group == "" {
			return ErrCorrupt
		}
	}
	d.Size, d.Deadline, d.IDs = r.uvarint(), r.uvarint(), r.ids()
	if d.QoS < 1 || d.QoS > 2 || d.Released && !d.Numbered {
		return ErrCorrupt
	}
	return r.end()
}

// reader takes values apart. After a fault bad is set and all it returns is
// zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) uint32() uint32 {
	v := r.uvarint()
	if v > 0xFFFFFFFF {
		r.bad = true
		return 0
	}
	return uint32(v)
}

func (r *reader) field() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	return r.take(int(n))
}

func (r *reader) ids() []uint32 {
	n := r.uvarint()
	if n > uint64(len(r.b)) { // each takes a byte at least
		r.bad = true
	}
	if r.bad || n == 0 {
		return nil
	}
	ids := make([]uint32, n)
	for i := range ids {
		ids[i] = r.uint32()
	}
	return ids
}

func (r *reader) end() error {
	if r.bad || len(r.b) > 0 {
		return ErrCorrupt
	}
	return nil
}
