package topic

import (
	"bytes"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// trie holds the filters with a wildcard, by level.
//
// A level does not hold its named children: all edges of the trie stand in one
// table under (parent, name of the level). So a level with a million children
// grows like any table, a shard at a time, and a level with few costs no map.
type trie[V any] struct {
	seed  maphash.Seed // immutable
	named table[level[V]]
	root  level[V]
	mu    sync.Mutex // excludes writers from each other
}

// level is a path that some filter with a wildcard begins with. It is one
// cache line. Once it leaves the trie it is never used again, so that a reader
// inside it sees filters that go, and none that came in a new level of the
// same path.
type level[V any] struct {
	// Immutable.
	hash   uint64 // of the path
	parent *level[V]
	text   string // of the level alone, and its own copy: a filter is not kept alive by it

	// Any goroutine; atomic. Written under trie.mu.
	children atomic.Int64             // named ones
	plus     atomic.Pointer[level[V]] // the child `+`
	multi    atomic.Pointer[Node[V]]  // the filter `path/#`
	end      atomic.Pointer[Node[V]]  // the filter `path`
}

func (l *level[V]) isEmpty() bool {
	return l.children.Load() == 0 && l.multi.Load() == nil && l.plus.Load() == nil && l.end.Load() == nil
}

// branch is a `+` level that match has yet to enter, and where in the name.
type branch[V any] struct {
	at  *level[V]
	pos int
}

// match appends the filters below at that match name from pos on; pos is past
// the end of name if all its levels are used. steps counts the levels entered.
//
// The way down a name forks where a level has both a fitting named child and a
// `+`. Each level of the trie has one path, so it is entered at most once: the
// work is bounded by the number of levels that filters put into the trie, and
// by 2^(levels of the name) if that is less. So `+/+/+/…` costs its own length,
// and a session's limit on subscriptions and levels bounds what it can cause.
//
// Forks wait in an array on the stack. When it is full the fork is taken at
// once, by recursion: its depth is at most levels/16, and nothing allocates.
func (t *trie[V]) match(dst []*Node[V], at *level[V], name []byte, pos int) (nodes []*Node[V], steps int) {
	var later [16]branch[V]
	forks := 0
	for {
		steps++
		hidden := pos == 0 && isSystem(name) // [MQTT-4.7.2-1]
		if !hidden {
			if n := at.multi.Load(); n != nil {
				dst = append(dst, n)
			}
		}
		var next *level[V]
		if pos > len(name) {
			if n := at.end.Load(); n != nil {
				dst = append(dst, n)
			}
		} else {
			text := name[pos:]
			if i := bytes.IndexByte(text, '/'); i >= 0 {
				text = text[:i]
			}
			pos += len(text) + 1
			if at.children.Load() != 0 {
				next = t.child(at, text)
			}
			if !hidden {
				if plus := at.plus.Load(); plus == nil {
					// no fork
				} else if next == nil {
					next = plus
				} else if forks < len(later) {
					later[forks] = branch[V]{plus, pos}
					forks++
				} else {
					var more int
					dst, more = t.match(dst, plus, name, pos)
					steps += more
				}
			}
		}
		if next == nil {
			if forks == 0 {
				return dst, steps
			}
			forks--
			next, pos = later[forks].at, later[forks].pos
		}
		at = next
	}
}

// child returns the named child of l, or nil.
func (t *trie[V]) child(l *level[V], text []byte) *level[V] {
	var p probe[level[V]]
	for c := p.search(&t.named, mixHash(l.hash, maphash.Bytes(t.seed, text))); c != nil; c = p.next() {
		if c.parent == l && c.text == string(text) {
			return c
		}
	}
	return nil
}

// descend returns the level below l for one level of a filter, which is not
// `#`; made, if create is set, or nil if there is none. The caller holds mu.
func (t *trie[V]) descend(l *level[V], text string, create bool) *level[V] {
	var c *level[V]
	if text == "+" {
		c = l.plus.Load()
	} else {
		c = t.child(l, []byte(text))
	}
	if c != nil || !create {
		return c
	}
	c = &level[V]{
		hash:   mixHash(l.hash, maphash.String(t.seed, text)),
		parent: l,
		text:   strings.Clone(text),
	}
	if text == "+" {
		l.plus.Store(c)
	} else {
		t.named.insert(c)
		l.children.Add(1)
	}
	return c
}

// locate returns the level of a filter and where in it the filter's node
// stands. Missing levels are made if create is set, and must not be missing
// otherwise. The caller holds mu.
func (t *trie[V]) locate(filter string, create bool) (*level[V], *atomic.Pointer[Node[V]]) {
	l := &t.root
	for more := true; more; {
		var text string
		text, filter, more = strings.Cut(filter, "/")
		if text == "#" {
			return l, &l.multi
		}
		l = t.descend(l, text, create)
	}
	return l, &l.end
}

// prune takes out the levels that no filter needs any more, from l upwards.
// The caller holds mu.
func (t *trie[V]) prune(l *level[V]) {
	for l != &t.root && l.isEmpty() {
		if l.text == "+" {
			l.parent.plus.Store(nil)
		} else {
			l.parent.children.Add(-1)
			t.named.remove(l)
		}
		l = l.parent
	}
}

// addWild is Add for a filter with a wildcard.
func (x *Index[V]) addWild(filter string) *Node[V] {
	t := &x.wild
	t.mu.Lock()
	defer t.mu.Unlock()
	_, at := t.locate(filter, true)
	n := at.Load()
	if n != nil {
		n.uses++
		return n
	}
	n = x.node(filter)
	at.Store(n)
	return n
}

// removeWild is Remove for a filter with a wildcard.
func (x *Index[V]) removeWild(n *Node[V]) {
	t := &x.wild
	t.mu.Lock()
	defer t.mu.Unlock()
	if !n.release() {
		return
	}
	l, at := t.locate(n.Filter, false)
	at.Store(nil)
	t.prune(l)
	x.nodes.Add(-1)
}
