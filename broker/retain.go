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
}

// set makes m the retained message of its topic, or removes that if m has no
// payload [MQTT-3.3.1-6]. The tree's copy is never recycled: walks on other
// loops may be reading it. Any goroutine.
func (r *retainedMessages) set(m *message) {
	var kept *message
	if len(m.payload) > 0 {
		kept = m.keep()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if kept != nil {
		kept.version = r.version.Add(1)
	}
	r.tree.Swap(m.topic, kept)
}

// expire removes the message of name if its time has passed.
func (r *retainedMessages) expire(name []byte, now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.tree.Get(name); m != nil && m.expired(now) {
		r.tree.Swap(name, nil)
	}
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
		r.expire(name, now)
	}
	if done {
		w.cursor = nil
		l.arm(t, now+sweepEvery)
		return
	}
	l.arm(t, now+second/20)
}
