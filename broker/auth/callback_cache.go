package auth

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

// answerKey is a keyed hash of a request: what the cache holds tells nobody a
// password.
type answerKey [sha256.Size]byte

// answerCache remembers answers until they expire, and at most size of them:
// the one that was asked for longest ago goes first. Any goroutine may use it.
type answerCache struct {
	size int

	mu      sync.Mutex
	entries map[answerKey]*list.Element // of *cachedAnswer
	recent  list.List                   // the latest first
}

type cachedAnswer struct {
	key    answerKey
	answer answer
	until  time.Time
}

func newAnswerCache(size int) *answerCache {
	return &answerCache{size: size, entries: map[answerKey]*list.Element{}}
}

func (c *answerCache) get(key answerKey, now time.Time) (answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return answer{}, false
	}
	v := e.Value.(*cachedAnswer)
	if !now.Before(v.until) {
		c.remove(e)
		return answer{}, false
	}
	c.recent.MoveToFront(e)
	return v.answer, true
}

// put remembers a until the time until, which may have passed.
func (c *answerCache) put(key answerKey, a answer, until, now time.Time) {
	if !now.Before(until) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		c.remove(e)
	}
	c.entries[key] = c.recent.PushFront(&cachedAnswer{key, a, until})
	if c.recent.Len() > c.size {
		c.remove(c.recent.Back())
	}
}

// remove is called with mu held.
func (c *answerCache) remove(e *list.Element) {
	delete(c.entries, e.Value.(*cachedAnswer).key)
	c.recent.Remove(e)
}
