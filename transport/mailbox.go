package transport

import (
	"sync"
	"sync/atomic"

	"hashplus/transport/link"
)

// mailbox is how other goroutines reach a loop. A post never blocks; the loop
// takes everything at once. One wake-up is sent for a burst, and none to a loop
// that is awake.
type mailbox struct {
	mu     sync.Mutex
	tasks  []link.Task // guarded by mu
	closed bool        // guarded by mu

	// Any goroutine; atomic.
	filled atomic.Bool // tasks is not empty; may be ahead of it, never behind
	asleep atomic.Bool // the loop blocks, or is about to: whoever clears it wakes it
}

// post appends tasks. It reports whether the box is open, and whether the
// caller must wake the loop.
func (m *mailbox) post(tasks ...link.Task) (open, wake bool) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return false, false
	}
	m.tasks = append(m.tasks, tasks...)
	m.filled.Store(true)
	m.mu.Unlock()
	// After filled was set: a loop that did not see it in trySleep has set
	// asleep before, so it is seen here.
	return true, m.asleep.Load() && m.asleep.CompareAndSwap(true, false)
}

// take exchanges the posted tasks for the empty slice spare.
func (m *mailbox) take(spare []link.Task) []link.Task {
	if !m.filled.Load() {
		return spare
	}
	m.mu.Lock()
	tasks := m.tasks
	m.tasks = spare
	m.filled.Store(false)
	m.mu.Unlock()
	return tasks
}

// trySleep announces that the loop is going to block. It reports false where
// there is a reason not to.
func (m *mailbox) trySleep() bool {
	m.asleep.Store(true)
	if m.filled.Load() {
		m.asleep.Store(false)
		return false
	}
	return true
}

// awake ends what trySleep announced.
func (m *mailbox) awake() { m.asleep.Store(false) }

// close refuses further posts and returns what nobody has run.
func (m *mailbox) close() []link.Task {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	tasks := m.tasks
	m.tasks = nil
	return tasks
}
