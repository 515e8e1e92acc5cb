package topic

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// Node is one filter of an Index.
type Node[V any] struct {
	Filter string // immutable
	Value  V      // the caller's; the index touches it only through init

	hash uint64 // immutable; of Filter, unless it has a wildcard
	uses int    // guarded by the lock of the index part that holds the node
}

// Index holds filters, and finds those that match a name.
//
// Most filters of a broker name one topic. They stand in one hash table under
// the whole filter, so that a name costs one search however many levels it
// has. Only filters with a wildcard stand in a trie. Neither part is ever
// locked by Match, and neither grows with unrelated filters in what Match
// touches.
type Index[V any] struct {
	seed  maphash.Seed // immutable
	init  func(*V)     // immutable
	exact table[Node[V]]
	locks [tableShards]sync.Mutex // each guards a shard of exact, and uses there
	wild  trie[V]
	nodes atomic.Int64
}

// NewIndex returns an empty index. init, if not nil, is called for the value
// of each new node before any Match can return it. It runs under a lock of the
// index, must not call it, and may run for two filters at once.
func NewIndex[V any](init func(*V)) *Index[V] {
	x := &Index[V]{seed: maphash.MakeSeed(), init: init}
	x.exact.hash = func(n *Node[V]) uint64 { return n.hash }
	x.wild.seed = x.seed
	x.wild.named.hash = func(l *level[V]) uint64 { return l.hash }
	x.wild.root.hash = maphash.String(x.seed, "")
	return x
}

// Add returns the node of filter, made if there is none, and counts one more
// use of it. filter must be valid; it is copied. Any goroutine; Add and Remove
// of one filter exclude each other, Match does not wait for them.
func (x *Index[V]) Add(filter string) *Node[V] {
	if hasWildcard(filter) {
		return x.addWild(filter)
	}
	h := maphash.String(x.seed, filter)
	lock := &x.locks[shardOf(h)]
	lock.Lock()
	defer lock.Unlock()
	var p probe[Node[V]]
	for n := p.search(&x.exact, h); n != nil; n = p.next() {
		if n.Filter == filter {
			n.uses++
			return n
		}
	}
	n := x.node(filter)
	n.hash = h
	x.exact.insert(n)
	return n
}

// node makes a node with one use, which nobody else can see yet.
func (x *Index[V]) node(filter string) *Node[V] {
	n := &Node[V]{Filter: strings.Clone(filter), uses: 1}
	if x.init != nil {
		x.init(&n.Value)
	}
	x.nodes.Add(1)
	return n
}

// Remove takes back one Add; the last one takes the node out of the index. A
// Match that began before may still return it. Any goroutine. A Remove without
// its Add panics.
func (x *Index[V]) Remove(n *Node[V]) {
	if hasWildcard(n.Filter) {
		x.removeWild(n)
		return
	}
	lock := &x.locks[shardOf(n.hash)]
	lock.Lock()
	defer lock.Unlock()
	if n.release() {
		x.exact.remove(n)
		x.nodes.Add(-1)
	}
}

// release gives up one use and tells whether it was the last.
func (n *Node[V]) release() bool {
	if n.uses == 0 {
		panic("topic: Remove without Add: " + n.Filter)
	}
	n.uses--
	return n.uses == 0
}

// Match appends the nodes whose filters match name to dst, each once, and
// returns it. It sees every node whose Add returned before Match began and
// whose last Remove had not begun. It writes no memory but dst, takes no lock
// and keeps neither argument. name must be valid. Any goroutine.
//
// steps is the number of levels of filters with a wildcard that it entered: what
// it has cost, whether they matched or not. It is bounded by what such filters
// put into the index, not by the name.
func (x *Index[V]) Match(dst []*Node[V], name []byte) (nodes []*Node[V], steps int) {
	var p probe[Node[V]]
	for n := p.search(&x.exact, maphash.Bytes(x.seed, name)); n != nil; n = p.next() {
		if n.Filter == string(name) {
			dst = append(dst, n)
			break
		}
	}
	if x.wild.root.isEmpty() {
		return dst, 0
	}
	return x.wild.match(dst, &x.wild.root, name, 0)
}

// Len is the number of nodes.
func (x *Index[V]) Len() int { return int(x.nodes.Load()) }
