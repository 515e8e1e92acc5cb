// Package contents reads what a broker has stored: it counts it, checks that it
// is whole, and writes it out. It needs the store for itself.
package contents

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"iter"

	"hashplus/broker"
	"hashplus/broker/record"
)

// kinds of records, in the order of their keys, and their names.
var kinds = []struct {
	kind byte
	name string
}{
	{record.KindBody, "bodies of messages for one receiver"},
	{record.KindMeta, "of the whole"},
	{record.KindShared, "bodies of messages for several receivers"},
	{record.KindDelivery, "deliveries"},
	{record.KindReceived, "received packet identifiers"},
	{record.KindSession, "sessions"},
	{record.KindRetained, "retained messages"},
	{record.KindSubscription, "subscriptions"},
	{record.KindWill, "wills"},
	{record.KindGone, "sessions that are being removed"},
}

// Count is how much there is of a kind.
type Count struct {
	Name    string
	Records int
	Bytes   int // of keys and values
}

// Counts counts what s holds.
func Counts(s broker.Store) (counts []Count, err error) {
	at := map[byte]int{}
	for _, k := range kinds {
		at[k.kind] = len(counts)
		counts = append(counts, Count{Name: k.name})
	}
	unknown := Count{Name: "unknown"}
	err = s.Scan(nil, nil, func(key, value []byte) bool {
		c := &unknown
		if i, ok := at[kindOf(key)]; ok {
			c = &counts[i]
		}
		c.Records++
		c.Bytes += len(key) + len(value)
		return true
	})
	if unknown.Records > 0 {
		counts = append(counts, unknown)
	}
	return counts, err
}

func kindOf(key []byte) byte {
	if len(key) == 0 {
		return 0
	}
	return key[0]
}

// pair is a record.
type pair struct{ key, value []byte }

// all are the records of a kind; *err says at the end why there are no more. They
// are valid until the next one is taken.
func all(s broker.Store, kind byte, err *error) iter.Seq[pair] {
	return func(yield func(pair) bool) {
		from := []byte{kind}
		*err = s.Scan(from, record.End(from), func(key, value []byte) bool { return yield(pair{key, value}) })
	}
}

// Finding is a record that is not as a broker writes it.
type Finding struct {
	Key    []byte
	Client string // whose it is, if that is known
	What   string
	Idle   bool // nothing refers to it: it only takes up space
}

// Kind is what sort of record it is, in the plural.
func (f Finding) Kind() string {
	for _, k := range kinds {
		if k.kind == kindOf(f.Key) {
			return k.name
		}
	}
	return "records of no kind that is known"
}

func (f Finding) String() string { return fmt.Sprintf("record %q: %s", f.Key, f.What) }

// Check reads all records, and calls found for each that cannot be decoded, is of
// no kind, refers to another that is missing, or is one that nothing refers to.
// err says that s cannot be read.
func Check(s broker.Store, found func(f Finding)) error {
	c := &checker{s: s, found: found, sessions: map[uint64]bool{}, names: map[uint64]string{}, gone: map[uint64]bool{}, shared: map[record.MessageID]bool{}}
	for _, step := range []func() error{
		c.strangers, c.goners, c.eachSession, c.subscriptions, c.received, c.retained, c.wills, c.sharedBodies, c.deliveries, c.unwanted,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Mend removes from s what Check finds, so that a broker starts on what is left
// of a store of which parts are lost. It calls lost for each, and returns how many
// there were.
func Mend(s broker.Store, lost func(Finding)) (removed int, err error) {
	var b broker.Batch
	if err := Check(s, func(f Finding) {
		b.Delete(f.Key)
		removed++
		lost(f)
	}); err != nil || removed == 0 {
		return 0, err
	}
	wait, err := s.Apply(&b)
	if err == nil {
		err = wait()
	}
	return removed, err
}

type checker struct {
	s        broker.Store
	found    func(f Finding)
	sessions map[uint64]bool
	names    map[uint64]string         // of the clients
	gone     map[uint64]bool           // whose records are being removed
	shared   map[record.MessageID]bool // bodies, and whether a delivery refers to them
}

// each calls check for the records of a kind.
func (c *checker) each(kind byte, check func(p pair) error) (err error) {
	for p := range all(c.s, kind, &err) {
		if fault := check(p); fault != nil {
			c.report(p.key, fault, false)
		}
	}
	return err
}

func (c *checker) report(key []byte, fault error, idle bool) {
	f := Finding{Key: bytes.Clone(key), What: fault.Error(), Idle: idle}
	switch kindOf(f.Key) {
	case record.KindBody, record.KindDelivery, record.KindReceived, record.KindSubscription, record.KindSession:
		if owner, _, ok := record.Owner(key); ok {
			f.Client = c.names[owner]
		}
	}
	c.found(f)
}

var (
	errStrange   = errors.New("it is of no kind that this hashplus knows")
	errNoMessage = errors.New("its message is missing")
	errUnwanted  = errors.New("nobody is to get this message")
)

// strangers are keys of no kind.
func (c *checker) strangers() error {
	known := map[byte]bool{}
	for _, k := range kinds {
		known[k.kind] = true
	}
	for kind := range 256 {
		if known[byte(kind)] {
			continue
		}
		var to []byte
		if kind < 255 {
			to = []byte{byte(kind + 1)}
		}
		if err := c.s.Scan([]byte{byte(kind)}, to, func(key, _ []byte) bool {
			c.report(key, errStrange, false)
			return true
		}); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) goners() error {
	return c.each(record.KindGone, func(p pair) error {
		owner, _, ok := record.Owner(p.key)
		if !ok {
			return record.ErrCorrupt
		}
		c.gone[owner] = true
		return nil
	})
}

func (c *checker) eachSession() error {
	return c.each(record.KindSession, func(p pair) error {
		var s record.Session
		owner, rest, ok := record.Owner(p.key)
		if !ok || len(rest) > 0 {
			return record.ErrCorrupt
		}
		err := s.Decode(p.value)
		c.sessions[owner], c.names[owner] = err == nil, s.ClientID
		return err
	})
}

// owned checks that the session of a record is there.
func (c *checker) owned(key []byte) error {
	owner, _, ok := record.Owner(key)
	switch {
	case !ok:
		return record.ErrCorrupt
	case !record.IsGroup(owner) && !c.sessions[owner] && !c.gone[owner]:
		return fmt.Errorf("session %d is missing", owner)
	}
	return nil
}

func (c *checker) subscriptions() error {
	return c.each(record.KindSubscription, func(p pair) error {
		var s record.Subscription
		return cmp.Or(s.Decode(p.value), c.owned(p.key))
	})
}

func (c *checker) received() error {
	return c.each(record.KindReceived, func(p pair) error {
		if len(p.key) != 11 {
			return record.ErrCorrupt
		}
		return c.owned(p.key)
	})
}

func (c *checker) retained() error {
	return c.each(record.KindRetained, func(p pair) error {
		var m record.Message
		if err := m.Decode(p.value); err != nil {
			return err
		}
		if !bytes.Equal(m.Topic, p.key[1:]) {
			return record.ErrCorrupt
		}
		return nil
	})
}

// wills may have outlived their sessions.
func (c *checker) wills() error {
	return c.each(record.KindWill, func(p pair) error {
		var w record.Will
		if _, _, ok := record.Row(p.key); !ok {
			return record.ErrCorrupt
		}
		return w.Decode(p.value)
	})
}

func (c *checker) sharedBodies() error {
	return c.each(record.KindShared, func(p pair) error {
		var id record.MessageID
		if len(p.key) != 1+len(id) {
			return record.ErrCorrupt
		}
		copy(id[:], p.key[1:])
		err := decodeMessage(p.value)
		if err == nil {
			c.shared[id] = false
		}
		return err
	})
}

// unwanted are shared bodies to which no delivery refers.
func (c *checker) unwanted() error {
	for id, wanted := range c.shared {
		if !wanted {
			c.report(record.AppendShared(nil, id), errUnwanted, true)
		}
	}
	return nil
}

// deliveries goes through them and their bodies side by side: their keys differ
// in the kind only.
func (c *checker) deliveries() error {
	var bodyErr error
	next, stop := iter.Pull(all(c.s, record.KindBody, &bodyErr))
	defer stop()
	body, more := next()
	// before reports the bodies before that of row.
	before := func(row []byte) {
		for ; more && (row == nil || bytes.Compare(body.key[1:], row) < 0); body, more = next() {
			if owner, _, _ := record.Owner(body.key); !c.gone[owner] {
				c.report(body.key, errUnwanted, true)
			}
		}
	}
	err := c.each(record.KindDelivery, func(p pair) error {
		row := p.key[1:]
		before(row)
		fault := errNoMessage
		if more && bytes.Equal(body.key[1:], row) {
			if fault = decodeMessage(body.value); fault != nil {
				c.report(body.key, fault, false)
			}
			body, more = next()
		}
		var d record.Delivery
		owner, _, ok := record.Row(p.key)
		if !ok {
			return record.ErrCorrupt
		}
		if err := cmp.Or(d.Decode(p.value), c.owned(p.key)); err != nil {
			return err
		}
		if d.Shared {
			if fault = nil; !isKey(c.shared, d.ID) {
				fault = errNoMessage
			} else {
				c.shared[d.ID] = true
			}
		}
		if fault != nil && !d.Released && !c.gone[owner] {
			return errNoMessage
		}
		return nil
	})
	before(nil)
	return cmp.Or(err, bodyErr)
}

func isKey(m map[record.MessageID]bool, id record.MessageID) bool {
	_, ok := m[id]
	return ok
}

func decodeMessage(value []byte) error {
	var m record.Message
	return m.Decode(value)
}
