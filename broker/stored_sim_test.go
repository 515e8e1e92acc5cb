package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"hashplus/broker/record"
)

// mapStore is a store in memory that can be made to fail. What it has when the
// broker is given up is what a crash leaves.
type mapStore struct {
	mu     sync.RWMutex
	keys   []string // sorted
	values map[string][]byte
	fail   error // of the next Apply and all that follow
	full   bool
	calls  int
	closed bool
}

func newMapStore() *mapStore { return &mapStore{values: make(map[string][]byte)} }

func (m *mapStore) Apply(b *Batch) (func() error, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if m.fail != nil {
		return nil, m.fail
	}
	b.Each(func(op Op, key, value []byte) {
		k := string(key)
		at, found := slices.BinarySearch(m.keys, k)
		switch op {
		case OpSet:
			if !found {
				m.keys = slices.Insert(m.keys, at, k)
			}
			m.values[k] = bytes.Clone(value)
		case OpDelete:
			if found {
				m.keys = slices.Delete(m.keys, at, at+1)
				delete(m.values, k)
			}
		case OpDeleteRange:
			end, _ := slices.BinarySearch(m.keys, string(value))
			for _, k := range m.keys[at:end] {
				delete(m.values, k)
			}
			m.keys = slices.Delete(m.keys, at, end)
		}
	})
	return func() error { return nil }, nil
}

// breakWith makes Apply fail from now on; nil mends it.
func (m *mapStore) breakWith(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *mapStore) Get(key []byte) ([]byte, bool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, ok := m.values[string(key)]
	return bytes.Clone(v), ok, nil
}

func (m *mapStore) Scan(from, to []byte, f func(key, value []byte) bool) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	at, _ := slices.BinarySearch(m.keys, string(from))
	for _, k := range slices.Clone(m.keys[at:]) {
		if k >= string(to) || !f([]byte(k), m.values[k]) {
			break
		}
	}
	return nil
}

func (m *mapStore) Free() (uint64, error) {
	if m.full {
		return 0, nil
	}
	return 1 << 40, nil
}
func (m *mapStore) Checkpoint(string) error { return errors.ErrUnsupported }
func (m *mapStore) Close() error            { m.closed = true; return nil }

// kinds counts the keys by their kind.
func (m *mapStore) kinds() map[byte]int {
	n := make(map[byte]int)
	for _, k := range m.keys {
		n[k[0]]++
	}
	return n
}

// newStoredSim starts a broker whose state is in m. Its ledger works when it is
// told to, see store.
func newStoredSim(t testing.TB, loops int, o Options, m *mapStore) *sim {
	t.Helper()
	o.OpenStore = func() (Store, error) { m.closed = false; return m, nil }
	s := newSim(t, loops, o)
	s.b.ledger.byHand = true
	done := make(chan error, 1)
	go func() { done <- s.b.Recover(context.Background()) }()
	for {
		s.run()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			s.run()
			return s
		case <-time.After(50 * time.Microsecond):
		}
	}
}

// store lets the ledger store what it was given, and the broker come to rest.
func (s *sim) store() {
	s.run()
	for {
		worked, _ := s.b.ledger.turn()
		for s.reading() {
			time.Sleep(20 * time.Microsecond)
		}
		s.run()
		if !worked && !s.reading() {
			return
		}
	}
}

func (s *sim) reading() bool {
	w := &s.b.ledger.reads
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running > 0
}

// failing runs a turn of the ledger in which the store fails, or the end of it.
func (s *storedSim) failing(begin bool) {
	g := s.b.ledger
	if begin {
		s.failed = make(chan struct{})
		go func() { g.turn(); close(s.failed) }()
		for g.works() {
			time.Sleep(time.Millisecond)
		}
		s.run()
		return
	}
	<-s.failed
	s.run()
}

// turnBack makes the store seem to have been left so many seconds ago.
func (m *mapStore) turnBack(seconds uint64) {
	back := func(v uint64) uint64 { return v - min(v, seconds*1000) }
	for k, v := range m.values {
		switch k[0] {
		case record.KindMeta:
			if k[1:] == record.MetaClock {
				n, _ := binary.Uvarint(v)
				m.values[k] = binary.AppendUvarint(nil, back(n))
			}
		case record.KindSession:
			var s record.Session
			if s.Decode(bytes.Clone(v)) == nil {
				s.LostAt = back(s.LostAt)
				m.values[k] = s.Append(nil)
			}
		case record.KindDelivery:
			var d record.Delivery
			if d.Decode(bytes.Clone(v)) == nil {
				d.Deadline = back(d.Deadline)
				m.values[k] = d.Append(nil)
			}
		case record.KindBody, record.KindShared, record.KindRetained:
			var r record.Message
			if r.Decode(bytes.Clone(v)) == nil {
				r.Deadline = back(r.Deadline)
				m.values[k] = r.Append(nil)
			}
		}
	}
}
