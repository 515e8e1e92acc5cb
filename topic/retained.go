package topic

import (
	"bytes"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// Retained maps names to values, and walks those that match a filter.
//
// It is a tree of levels. All places of the tree also stand in one table under
// a hash made level by level, so that a whole name, a literal prefix of a
// filter and a child are each one search away. The children of a place form a
// list, newest first, for walks.
//
// The list is what makes a walk exact under change. A new place goes to the
// head only, and one that leaves keeps its pointer to the next older one. So
// whoever stands on a place, gone or not, reaches every older sibling that is
// still there, each once, and none that came later: neither a new name nor one
// that left and came back can show up again.
type Retained[V any] struct {
	seed   maphash.Seed // immutable
	places table[place[V]]
	root   place[V]
	mu     sync.Mutex // excludes writers from each other
	names  atomic.Int64
}

// place is a path that some name begins with, or is. It is one cache line.
// Once it leaves the tree it is never used again.
type place[V any] struct {
	// Immutable.
	hash   uint64 // of the path
	parent *place[V]
	level  string // the last level of the path, its own copy

	// Any goroutine; atomic. Written under Retained.mu.
	entry atomic.Pointer[entry[V]] // if the path is a name
	first atomic.Pointer[place[V]] // newest child
	next  atomic.Pointer[place[V]] // next older sibling; kept when the place leaves

	prev *place[V] // next newer sibling; guarded by Retained.mu
}

// entry is a name and its value. It is apart from its place, which may outlive
// the name as the parent of others and must not keep it in memory.
type entry[V any] struct {
	name  string // immutable
	value atomic.Pointer[V]
}

// NewRetained returns an empty tree.
func NewRetained[V any]() *Retained[V] {
	r := &Retained[V]{seed: maphash.MakeSeed()}
	r.root.hash = maphash.String(r.seed, "")
	r.places.hash = func(p *place[V]) uint64 { return p.hash }
	return r
}

// Len is the number of names.
func (r *Retained[V]) Len() int { return int(r.names.Load()) }

// Get returns the value of name, or nil. Any goroutine, without a lock that it
// contends on. It keeps no part of name.
func (r *Retained[V]) Get(name []byte) *V {
	if _, e := r.find(name); e != nil {
		return e.value.Load()
	}
	return nil
}

// find returns the entry of a name and its place, or nil.
func (r *Retained[V]) find(name []byte) (*place[V], *entry[V]) {
	h := r.root.hash
	for rest, more := name, true; more; {
		var level []byte
		level, rest, more = cutLevel(rest)
		h = mixHash(h, maphash.Bytes(r.seed, level))
	}
	var p probe[place[V]]
	for at := p.search(&r.places, h); at != nil; at = p.next() {
		if e := at.entry.Load(); e != nil && e.name == string(name) {
			return at, e
		}
	}
	return nil, nil
}

// child returns the child of p with a level whose seeded hash is h, or nil.
func (r *Retained[V]) child(p *place[V], level string, h uint64) *place[V] {
	var s probe[place[V]]
	for c := s.search(&r.places, mixHash(p.hash, h)); c != nil; c = s.next() {
		if c.parent == p && c.level == level {
			return c
		}
	}
	return nil
}

// Swap sets the value of name, or takes name out if v is nil, and returns what
// was there. name must be valid. Swaps exclude each other; readers do not wait
// for them. name is copied. Any goroutine.
func (r *Retained[V]) Swap(name []byte, v *V) (old *V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, e := r.find(name)
	switch {
	case e == nil && v == nil:
		return nil
	case e == nil:
		e = &entry[V]{name: string(name)}
		e.value.Store(v)
		r.grow(e.name).entry.Store(e)
		r.names.Add(1)
		return nil
	case v == nil:
		at.entry.Store(nil)
		r.prune(at)
		r.names.Add(-1)
		return e.value.Load()
	default:
		return e.value.Swap(v)
	}
}

// grow returns the place of name, made with all above it as far as they are
// missing. The caller holds mu.
func (r *Retained[V]) grow(name string) *place[V] {
	p := &r.root
	for more := true; more; {
		var level string
		level, name, more = strings.Cut(name, "/")
		h := maphash.String(r.seed, level)
		c := r.child(p, level, h)
		if c == nil {
			c = &place[V]{hash: mixHash(p.hash, h), parent: p, level: strings.Clone(level)}
			if next := p.first.Load(); next != nil {
				c.next.Store(next)
				next.prev = c
			}
			p.first.Store(c)
			r.places.insert(c)
		}
		p = c
	}
	return p
}

// prune takes out the places that no name needs any more, from p upwards. The
// caller holds mu.
func (r *Retained[V]) prune(p *place[V]) {
	for p != &r.root && p.entry.Load() == nil && p.first.Load() == nil {
		next := p.next.Load() // and p.next stays, for walks that stand on p
		if p.prev == nil {
			p.parent.first.Store(next)
		} else {
			p.prev.next.Store(next)
		}
		if next != nil {
			next.prev = p.prev
		}
		p.prev = nil
		r.places.remove(p)
		p = p.parent
	}
}

// cutLevel splits the first level off a name. more is false if it was the last.
func cutLevel(name []byte) (level, rest []byte, more bool) {
	if i := bytes.IndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:], true
	}
	return name, nil, false
}
