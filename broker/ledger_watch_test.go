package broker

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"hashplus/broker/record"
	"hashplus/broker/wire"
)

// hurtStore is a store that has found damage.
type hurtStore struct {
	*mapStore
	first error
	files int
}

func (h *hurtStore) Damage() (int, error) { return h.files, h.first }

// unreadableStore is a store in which some values cannot be read.
type unreadableStore struct {
	*mapStore
	key string
}

func (u *unreadableStore) Get(key []byte) ([]byte, bool, error) {
	if string(key) == u.key {
		return nil, false, fmt.Errorf("%w: block 7", ErrStoreDamaged)
	}
	return u.mapStore.Get(key)
}

// A client whose messages cannot be read gets those before the damage, and none after
// it, until it can be read.
func TestStored_WhatIsBeforeDamageIsDelivered(t *testing.T) {
	s := newStored(t, 1, Options{})
	s.owed()
	s.crash()
	u := &unreadableStore{mapStore: s.m}
	s.b.ledger.store = u
	n := 0
	for _, k := range s.m.keys {
		if k[0] == record.KindBody {
			if n++; n == 4 {
				u.key = k
			}
		}
	}
	c := s.join(0, "c", wire.V5, 600)
	s.store()
	list := c.publishes(wire.V5)
	if got := payloads(list); got != "0 1 2" {
		t.Errorf("got %q", got)
	}
	c.ack(wire.V5, list)
	s.store()
	u.key = ""
	s.advance(damagedRest.Seconds())
	s.store()
	if got := payloads(c.publishes(wire.V5)); got != "3 4 5" {
		t.Errorf("then got %q", got)
	}
}

// Whether there is space is known before the broker says that it is ready.
func TestStored_FullDiskIsKnownFromTheStart(t *testing.T) {
	s := newStored(t, 1, Options{})
	s.m.full = true
	s.crash()
	if err := s.b.Health(); !errors.Is(err, errSpace) {
		t.Errorf("health: %v", err)
	}
}

// Bodies of messages that no delivery refers to go, a little at a time; all others
// stay.
func TestStored_BodiesThatNobodyIsToGetAreRemoved(t *testing.T) {
	s := newStored(t, 1, Options{})
	for _, name := range []string{"c", "d"} {
		c := s.join(0, name, wire.V5, 600)
		s.sub(c, wire.V5, wire.Subscription{Filter: "a/#", QoS: 1}, wire.Subscription{Filter: name, QoS: 1})
		c.cut()
	}
	x := s.join(0, "x", wire.V5, 0)
	x.send(pub(wire.V5, "a/1", "both", 1, 1))
	x.send(pub(wire.V5, "c", "c's", 1, 2))
	s.store()
	wanted := slices.Clone(s.m.keys)

	// What nobody is to get: more than a step looks at.
	m := record.Message{ExpiryAt: -1, Topic: []byte("t"), Payload: []byte("orphan")}
	b := &Batch{}
	for i := range 2*orphanRows + 1 {
		var id record.MessageID
		copy(id[:], fmt.Sprintf("orphan %06d", i))
		b.Set(record.AppendShared(nil, id), m.Append(nil))
		b.Set(record.AppendRow(nil, record.KindBody, 1, uint64(1000+i)), m.Append(nil))
	}
	if err := apply(s.m, b); err != nil {
		t.Fatal(err)
	}
	s.crash()
	g := s.b.ledger
	steps := 0
	for ; !g.orphans.over; steps++ {
		before := len(s.m.keys)
		g.lookAround()
		if n := before - len(s.m.keys); n > orphanRows {
			t.Fatalf("%d in one step", n)
		}
		if steps == 3 { // what is published meanwhile stays
			x = s.join(0, "x", wire.V5, 0)
			x.send(pub(wire.V5, "a/2", "later", 1, 1))
			s.store()
		}
	}
	if steps < 4 {
		t.Errorf("%d steps", steps)
	}
	for _, k := range wanted {
		if _, ok := s.m.values[k]; !ok {
			t.Errorf("%q was removed", k)
		}
	}
	if n := s.m.kinds(); n[record.KindShared] != 2 || n[record.KindBody] != 1 {
		t.Errorf("%d bodies for several receivers and %d for one are there", n[record.KindShared], n[record.KindBody])
	}
	s.crash()
	for _, name := range []string{"c", "d"} {
		c := s.join(0, name, wire.V5, 600)
		want := map[string]string{"c": "both c's later", "d": "both later"}[name]
		got := payloads(c.publishes(wire.V5))
		if got != want {
			t.Errorf("%s gets %q, want %q", name, got, want)
		}
	}
}

// Damage that the store comes to turns health red, says what it is, and is counted;
// it does not stop messages from being stored.
func TestStored_DamageIsTold(t *testing.T) {
	h := &hurtStore{mapStore: newMapStore()}
	s := newStoredSim(t, 1, Options{}, h.mapStore)
	g := s.b.ledger
	g.store = h
	if g.lookAround(); s.b.Health() != nil {
		t.Fatal(s.b.Health())
	}
	h.first, h.files = fmt.Errorf("%w: file 7", ErrStoreDamaged), 2
	g.lookAround()
	if err := s.b.Health(); !errors.Is(err, ErrStoreDamaged) || err.Error() != h.first.Error() {
		t.Errorf("health: %v", err)
	}
	values := map[string]string{}
	for _, v := range s.b.sysValues(0) {
		values[v.name] = v.value
	}
	if values["store/damaged"] != "2" || values["store/healthy"] != "0" {
		t.Errorf("damaged %s, healthy %s", values["store/damaged"], values["store/healthy"])
	}
	if !g.takes() {
		t.Error("messages are refused")
	}
	h.first, h.files = nil, 0 // opened again
	if g.lookAround(); s.b.Health() == nil {
		t.Error("it is forgotten")
	}
}

// The disk is looked at while much is written, not only once a second.
func TestStored_SpaceIsLookedAtWhileMuchIsWritten(t *testing.T) {
	s := newStored(t, 1, Options{MaximumPacketSize: 8 << 20})
	c := s.join(0, "c", wire.V5, 600)
	s.sub(c, wire.V5, wire.Subscription{Filter: "a", QoS: 1})
	c.cut()
	s.m.full = true
	x := s.join(0, "x", wire.V5, 0)
	x.send(pub(wire.V5, "a", "small", 1, 1))
	s.store()
	if err := s.b.Health(); err != nil {
		t.Fatal(err)
	}
	x.send(pub(wire.V5, "a", string(make([]byte, spaceStep)), 1, 2))
	s.store()
	if err := s.b.Health(); !errors.Is(err, errSpace) {
		t.Errorf("health: %v", err)
	}
}

// What is opened again must be the same store: that of another, or an empty one,
// has nothing of what is in memory.
func TestStored_AnotherStoreIsNotTakenInItsPlace(t *testing.T) {
	s := newStored(t, 1, Options{})
	g := s.b.ledger
	g.store = nil
	node := record.AppendMeta(nil, record.MetaNode)
	own := s.m.values[string(node)]
	s.m.values[string(node)] = make([]byte, 16)
	if err := g.reopen(); err == nil || g.store != nil || !s.m.closed {
		t.Errorf("%v", err)
	}
	s.m.values[string(node)] = own
	if err := g.reopen(); err != nil || g.store == nil {
		t.Errorf("%v", err)
	}
}
