package broker

import (
	"sync"
	"sync/atomic"

	"hashplus/topic"
	"hashplus/transport/link"
)

// retainedMessages are the retained messages of all topics. Each has a version,
// which grows with every one that is set; see replay for what it is for.
type retainedMessages struct {
	tree    *topic.Retained[message]
	version atomic.Uint64 // of the latest; written under mu
	mu      sync.Mutex    // excludes writers, so that versions reach the tree in order
	count   int           // guarded by mu: messages but those of $SYS
	bytes   int           // guarded by mu: their sizes
}

// set makes m the retained message of its topic, or removes that if m has no
// payload [MQTT-3.3.1-6]. It reports false, and changes nothing, where that
// would be more than most allows. The tree's copy is never recycled: walks on
// other loops may be reading it. Any goroutine.
func (r *retainedMessages) set(m *message, most *Limits) bool {
	var kept *message
	if len(m.payload) > 0 {
		kept = m.keep()
		kept.by, kept.rules = m.by, m.rules
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if kept != nil {
		if !r.fits(kept, most) {
			return false
		}
		kept.version = r.version.Add(1)
	}
	r.swap(m.topic, kept)
	return true
}

// restore makes m, which was stored, the retained message of name again.
func (r *retainedMessages) restore(name []byte, m *message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.swap(name, m)
	if m.version > r.version.Load() {
		r.version.Store(m.version)
	}
}

// fits reports whether most allows m. The caller holds mu.
func (r *retainedMessages) fits(m *message, most *Limits) bool {
	if r.count < most.MaxRetainedMessages && r.bytes+m.size() <= most.MaxRetainedBytes || hasPrefix(m.topic, "$SYS/") {
		return true
	}
	old := r.tree.Get(m.topic)
	if old == nil {
		return false
	}
	// In place of another: it must not take more room than there is.
	return m.size() <= old.size() || r.bytes-old.size()+m.size() <= most.MaxRetainedBytes
}

// swap sets or removes a value. The caller holds mu.
func (r *retainedMessages) swap(name []byte, m *message) {
	old := r.tree.Swap(name, m)
	if hasPrefix(name, "$SYS/") {
		return
	}
	if old != nil {
		r.count--
		r.bytes -= old.size()
	}
	if m != nil {
		r.count++
		r.bytes += m.size()
	}
}

// expire removes the message of name if its time has passed, and reports whether
// it has.
func (r *retainedMessages) expire(name []byte, now int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.tree.Get(name)
	if m == nil || !m.expired(now) {
		return false
	}
	r.swap(name, nil)
	return true
}

// sweep removes retained messages that have expired, a little at a time.
type sweep struct {
	l      *loop
	timer  link.Timer
	cursor *topic.Cursor[message]
}

// sweepEvery is the time between two sweeps.
const sweepEvery = 60 * second

func (l *loop) startSweep() {
	w := &sweep{l: l}
	w.timer.Owner = w
	l.arm(&w.timer, l.now()+sweepEvery)
}

// Expire does the next part of the sweep.
func (w *sweep) Expire(t *link.Timer) {
	l := w.l
	r := &l.b.retained
	if w.cursor == nil {
		w.cursor = r.tree.Walk("#")
	}
	now := l.now()
	var gone [][]byte
	done := w.cursor.Next(replayBudget, func(_ string, m *message) bool {
		if m.expired(now) {
			gone = append(gone, m.topic)
		}
		return true
	})
	for _, name := range gone {
		if r.expire(name, now) {
			l.storeRetained(name)
		}
	}
	if done {
		w.cursor = nil
		l.arm(t, now+sweepEvery)
		return
	}
	l.arm(t, now+second/20)
}
