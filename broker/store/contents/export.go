package contents

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"hashplus/broker"
	"hashplus/broker/record"
)

// line is one line of Export. What does not apply is left out.
type line struct {
	Type string `json:"type"` // session, subscription, queued, inflight, received, retained, will

	Client   string `json:"client,omitempty"`
	Group    string `json:"group,omitempty"` // in place of a client: a share group, by its number
	Username string `json:"username,omitempty"`
	Expiry   *int64 `json:"expiry,omitempty"` // Session Expiry Interval, seconds; -1: never
	Lost     string `json:"lost,omitempty"`   // when the connection ended

	Filter            string   `json:"filter,omitempty"`
	NoLocal           bool     `json:"no-local,omitempty"`
	RetainAsPublished bool     `json:"retain-as-published,omitempty"`
	IDs               []uint32 `json:"subscription-identifiers,omitempty"`

	QoS      *byte  `json:"qos,omitempty"`
	Retain   bool   `json:"retain,omitempty"`
	Released bool   `json:"released,omitempty"`  // PUBREC came: the message has been delivered
	PacketID uint16 `json:"packet-id,omitempty"` // of a received QoS 2 message
	Delay    uint32 `json:"delay,omitempty"`     // of a will, seconds

	*message
}

type message struct {
	Topic   string         `json:"topic"`
	Payload *string        `json:"payload,omitempty"` // if it is text
	Base64  string         `json:"payload-base64,omitempty"`
	Expires string         `json:"expires,omitempty"`
	Props   map[string]any `json:"properties,omitempty"`
}

// Export writes what s holds as JSON, a line for each session, subscription,
// message that waits or is on its way, received packet identifier, retained
// message and will.
func Export(s broker.Store, w io.Writer) error {
	e := &exporter{s: s, out: json.NewEncoder(w), clients: map[uint64]string{}, gone: map[uint64]bool{}}
	e.out.SetEscapeHTML(false)
	for _, step := range []struct {
		kind byte
		f    func(p pair) error
	}{
		{record.KindGone, e.goner}, {record.KindSession, e.session}, {record.KindSubscription, e.subscription}, {record.KindDelivery, e.delivery},
		{record.KindReceived, e.received}, {record.KindRetained, e.retained}, {record.KindWill, e.will},
	} {
		var err error
		for p := range all(s, step.kind, &err) {
			if fault := step.f(p); fault != nil {
				if errors.Is(fault, record.ErrCorrupt) {
					fault = fmt.Errorf("%w: record %q: %w", broker.ErrStoreDamaged, p.key, fault)
				}
				return fault
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type exporter struct {
	s       broker.Store
	out     *json.Encoder
	clients map[uint64]string
	gone    map[uint64]bool // whose records are being removed
}

func (e *exporter) goner(p pair) error {
	owner, _, ok := record.Owner(p.key)
	if !ok {
		return record.ErrCorrupt
	}
	e.gone[owner] = true
	return nil
}

func (e *exporter) session(p pair) error {
	var s record.Session
	owner, _, ok := record.Owner(p.key)
	if !ok {
		return record.ErrCorrupt
	}
	if err := s.Decode(p.value); err != nil {
		return err
	}
	expiry := int64(s.Expiry)
	if s.Expiry == 1<<32-1 {
		expiry = -1
	}
	e.clients[owner] = s.ClientID
	return e.out.Encode(line{Type: "session", Client: s.ClientID, Username: s.Username, Expiry: &expiry, Lost: moment(s.LostAt)})
}

func (e *exporter) will(p pair) error {
	var w record.Will
	if err := w.Decode(p.value); err != nil {
		return err
	}
	m := &w.Message
	return e.out.Encode(line{Type: "will", Client: w.Client, Delay: w.Delay, QoS: &m.QoS, Retain: m.Retain, message: newMessage(m)})
}

func (e *exporter) subscription(p pair) error {
	var s record.Subscription
	owner, filter, ok := record.Owner(p.key)
	if !ok {
		return record.ErrCorrupt
	}
	if err := s.Decode(p.value); err != nil || e.gone[owner] {
		return err
	}
	return e.out.Encode(line{Type: "subscription", Client: e.clients[owner], Filter: string(filter),
		QoS: &s.QoS, NoLocal: s.NoLocal, RetainAsPublished: s.RetainAsPublished, IDs: s.IDs})
}

func (e *exporter) delivery(p pair) error {
	var d record.Delivery
	owner, row, ok := record.Row(p.key)
	if !ok {
		return record.ErrCorrupt
	}
	if err := d.Decode(p.value); err != nil || e.gone[owner] {
		return err
	}
	l := line{Type: "queued", Client: e.clients[owner], QoS: &d.QoS, Retain: d.Retain, Released: d.Released, IDs: d.IDs}
	if d.Numbered {
		l.Type = "inflight"
	}
	if record.IsGroup(owner) {
		l.Group = fmt.Sprintf("%016x", owner)
	}
	if !d.Released {
		key := record.AppendRow(nil, record.KindBody, owner, row)
		if d.Shared {
			key = record.AppendShared(nil, d.ID)
		}
		body, found, err := e.s.Get(key)
		if err != nil {
			return err
		}
		var m record.Message
		if !found {
			return fmt.Errorf("its message is missing")
		}
		if err := m.Decode(body); err != nil {
			return err
		}
		l.message = newMessage(&m)
	}
	return e.out.Encode(l)
}

func (e *exporter) received(p pair) error {
	owner, id, ok := record.Owner(p.key)
	if !ok || len(id) != 2 {
		return record.ErrCorrupt
	}
	if e.gone[owner] {
		return nil
	}
	return e.out.Encode(line{Type: "received", Client: e.clients[owner], PacketID: binary.BigEndian.Uint16(id)})
}

func (e *exporter) retained(p pair) error {
	var m record.Message
	if err := m.Decode(p.value); err != nil {
		return err
	}
	return e.out.Encode(line{Type: "retained", QoS: &m.QoS, Retain: true, message: newMessage(&m)})
}

func newMessage(m *record.Message) *message {
	out := &message{Topic: string(m.Topic), Expires: moment(m.Deadline), Props: properties(m.Props)}
	if utf8.Valid(m.Payload) {
		text := string(m.Payload)
		out.Payload = &text
	} else {
		out.Base64 = base64.StdEncoding.EncodeToString(m.Payload)
	}
	return out
}

// moment is a time in the form of RFC 3339.
func moment(millis uint64) string {
	if millis == 0 {
		return ""
	}
	return time.UnixMilli(int64(millis)).UTC().Format("2006-01-02T15:04:05.000Z")
}

// properties are the MQTT 5.0 properties of a message by name; what cannot be
// read is given as it is.
func properties(p []byte) map[string]any {
	if len(p) == 0 {
		return nil
	}
	props := map[string]any{}
	raw := base64.StdEncoding.EncodeToString(p)
	field := func() (s []byte, ok bool) {
		if len(p) < 2 || len(p) < 2+int(binary.BigEndian.Uint16(p)) {
			return nil, false
		}
		n := 2 + int(binary.BigEndian.Uint16(p))
		s, p = p[2:n], p[n:]
		return s, true
	}
	var user [][2]string
	for len(p) > 0 {
		id := p[0]
		p = p[1:]
		var ok bool
		switch id {
		case 0x01:
			if ok = len(p) > 0; ok {
				props["payload-format-indicator"], p = p[0], p[1:]
			}
		case 0x02:
			if ok = len(p) >= 4; ok {
				props["message-expiry-interval"], p = binary.BigEndian.Uint32(p), p[4:]
			}
		case 0x03, 0x08:
			var s []byte
			name := map[byte]string{0x03: "content-type", 0x08: "response-topic"}[id]
			if s, ok = field(); ok {
				props[name] = string(s)
			}
		case 0x09:
			var s []byte
			if s, ok = field(); ok {
				props["correlation-data-base64"] = base64.StdEncoding.EncodeToString(s)
			}
		case 0x26:
			var k, v []byte
			if k, ok = field(); ok {
				if v, ok = field(); ok {
					user = append(user, [2]string{string(k), string(v)})
				}
			}
		}
		if !ok {
			return map[string]any{"base64": raw}
		}
	}
	if user != nil {
		props["user-properties"] = user
	}
	return props
}
