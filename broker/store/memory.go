package store

import (
	"bytes"
	"errors"
	"math"
	"os"
	"sync"

	"github.com/RaduBerinde/btreemap"

	"hashplus/broker"
)

// Memory is a broker.Store for tests: it can fail, hold back what it promises,
// and lose power.
type Memory struct {
	mu       sync.Mutex
	released sync.Cond // of Hold, Fail and Close
	current  *tree
	durable  *tree
	commits  []*broker.Batch // applied and not durable; the first one is number durableSeq+1
	seq      uint64          // of the last commit
	waited   uint64          // of the last durable one
	applies  int
	free     uint64
	held     bool
	poison   error
	onApply  error // what the next Apply fails with
	onWait   error // what the next wait fails with
	closed   bool
}

type tree = btreemap.BTreeMap[[]byte, []byte]

var errClosed = errors.New("the store is closed")

// NewMemory is an empty store.
func NewMemory() *Memory {
	m := &Memory{current: newTree(), durable: newTree(), free: math.MaxInt64}
	m.released.L = &m.mu
	return m
}

func newTree() *tree { return btreemap.New[[]byte, []byte](32, bytes.Compare) }

// Apply implements broker.Store.
func (m *Memory) Apply(b *broker.Batch) (wait func() error, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(); err != nil {
		return nil, err
	}
	if m.onApply != nil {
		m.fail(m.onApply)
		return nil, m.poison
	}
	m.applies++
	m.seq++
	seq := m.seq
	copied := &broker.Batch{}
	copied.Append(b)
	m.commits = append(m.commits, copied)
	apply(m.current, b)
	return func() error { return m.wait(seq) }, nil
}

// apply makes the operations of b take effect in t. It keeps copies.
func apply(t *tree, b *broker.Batch) {
	b.Each(func(op broker.Op, key, value []byte) {
		switch op {
		case broker.OpSet:
			t.ReplaceOrInsert(bytes.Clone(key), append([]byte{}, value...))
		case broker.OpDelete:
			t.Delete(key)
		case broker.OpDeleteRange:
			var keys [][]byte
			for k := range t.Ascend(btreemap.GE(key), btreemap.LT(value)) {
				keys = append(keys, k)
			}
			for _, k := range keys {
				t.Delete(k)
			}
		}
	})
}

func (m *Memory) wait(seq uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.held && m.poison == nil && !m.closed {
		m.released.Wait()
	}
	if err := m.usable(); err != nil {
		return err
	}
	if m.onWait != nil {
		m.fail(m.onWait)
		return m.poison
	}
	for m.waited < seq { // what came before becomes durable, too
		apply(m.durable, m.commits[0])
		m.commits = m.commits[1:]
		m.waited++
	}
	return nil
}

// Get implements broker.Store.
func (m *Memory) Get(key []byte) (value []byte, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(); err != nil {
		return nil, false, err
	}
	_, value, ok = m.current.Get(key)
	return bytes.Clone(value), ok, nil
}

// Scan implements broker.Store.
func (m *Memory) Scan(from, to []byte, f func(key, value []byte) bool) error {
	m.mu.Lock()
	if err := m.usable(); err != nil {
		m.mu.Unlock()
		return err
	}
	snapshot := m.current.Clone()
	m.mu.Unlock()
	end := btreemap.Max[[]byte]()
	if to != nil {
		end = btreemap.LT(to)
	}
	for k, v := range snapshot.Ascend(btreemap.GE(from), end) {
		// Copies: who keeps or changes what it was lent must be found out.
		if !f(bytes.Clone(k), bytes.Clone(v)) {
			return nil
		}
	}
	return nil
}

// Free implements broker.Store. It is what SetFree said, else a lot.
func (m *Memory) Free() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.free, m.usable()
}

// Checkpoint writes a store that Open reads.
func (m *Memory) Checkpoint(dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return &os.PathError{Op: "checkpoint", Path: dir, Err: os.ErrExist}
	}
	d, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	var b broker.Batch
	err = m.Scan(nil, nil, func(key, value []byte) bool {
		b.Set(key, value)
		return true
	})
	if err == nil {
		err = applyAndWait(d, &b)
	}
	return errors.Join(err, d.Close())
}

func applyAndWait(s broker.Store, b *broker.Batch) error {
	wait, err := s.Apply(b)
	if err != nil {
		return err
	}
	return wait()
}

// Close implements broker.Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.released.Broadcast()
	return nil
}

// Crash is the store that the loss of power would leave behind now: all that was
// waited for, and the first of the commits after that, as many as kept says. m
// goes on as before.
func (m *Memory) Crash(kept int) *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	left := NewMemory()
	left.current = m.durable.Clone()
	for _, b := range m.commits[:min(kept, len(m.commits))] {
		apply(left.current, b)
	}
	left.durable = left.current.Clone()
	left.free = m.free
	return left
}

// Reopen is a store that holds what m holds, as after Close and a new start.
func (m *Memory) Reopen() *Memory { return m.Crash(math.MaxInt) }

// FailApply makes the next Apply poison the store with err, FailWait the next
// wait, Fail everything from now on.
func (m *Memory) FailApply(err error) { m.set(func() { m.onApply = err }) }

// FailWait is described at FailApply.
func (m *Memory) FailWait(err error) { m.set(func() { m.onWait = err }) }

// Fail is described at FailApply.
func (m *Memory) Fail(err error) { m.set(func() { m.fail(err) }) }

// Hold keeps every wait from returning until Release, or until the store fails
// or is closed.
func (m *Memory) Hold() { m.set(func() { m.held = true }) }

// Release ends Hold.
func (m *Memory) Release() { m.set(func() { m.held = false }) }

// SetFree is what Free returns from now on.
func (m *Memory) SetFree(n uint64) { m.set(func() { m.free = n }) }

// Applies is how often Apply was called with success, Pending how many of these
// commits are not durable.
func (m *Memory) Applies() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applies
}

// Pending is described at Applies.
func (m *Memory) Pending() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.commits)
}

// Len is the number of keys.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current.Len()
}

func (m *Memory) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	m.released.Broadcast()
}

// fail poisons the store. The caller holds the lock.
func (m *Memory) fail(err error) {
	if m.poison == nil {
		m.poison = err
		m.released.Broadcast()
	}
}

// usable is why nothing can be done. The caller holds the lock.
func (m *Memory) usable() error {
	if m.closed {
		return errClosed
	}
	return m.poison
}
