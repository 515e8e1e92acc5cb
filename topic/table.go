package topic

import (
	"math/bits"
	"sync/atomic"
)

// A table is a hash set of pointers that readers search without a lock and
// without writing memory. It knows hashes only: the caller compares keys.
//
// It is cut into shards, so that growing one copies 1/256 of the entries: some
// thousands of a million, well under a millisecond, while readers use the old
// array. Each shard is one array of buckets of one cache line: seven entries,
// and a word with a byte (tag) of each one's hash, so that a search for what is
// not there reads one line, and one for what is there reads that line and the
// entry.
//
// An entry that finds its bucket full goes to the next one, and is counted in
// each bucket it passed. A search goes on only past a bucket with a count, so
// removal needs no tombstones and leaves nothing behind. An entry never moves
// within an array; that is why a reader cannot miss one that stays.
//
// Hashes must be uniform and unpredictable from outside (seeded): then chains
// cannot be forced.
type table[E any] struct {
	// Any goroutine; atomic. Written only when a shard is resized.
	arrays [tableShards]atomic.Pointer[array[E]]
	hash   func(*E) uint64 // immutable

	_ [64]byte // keeps what writers write off the lines that readers read

	// Guarded by whatever excludes writers of the shard from each other.
	counts [tableShards]int
}

const (
	tableShards   = 256
	bucketEntries = 7
	overflowOne   = 1 << 56 // one more entry that passed the bucket
	overflowMax   = 255     // from here on the count is not believed, nor lowered
	tagLow        = 0x01010101010101
	tagHigh       = 0x80808080808080
)

type array[E any] struct {
	mask    uint64 // number of buckets, a power of two, less one
	buckets []bucket[E]
}

// bucket.meta holds the tag of entry i in byte i, 0 if there is none, and in
// byte 7 how many entries passed.
type bucket[E any] struct {
	meta    atomic.Uint64
	entries [bucketEntries]atomic.Pointer[E]
}

// shardOf, tagOf and the bucket (the low bits) use different bits of a hash.
func shardOf(hash uint64) uint64 { return hash >> 56 }

func tagOf(hash uint64) uint64 {
	if t := hash >> 48 & 0xff; t != 0 {
		return t
	}
	return 1
}

// mixHash is the hash of what stands in parent under a key: two uniform values
// that nobody outside knows give a third.
func mixHash(parent, key uint64) uint64 {
	hi, lo := bits.Mul64(parent, key)
	return hi ^ lo
}

// capacity is how many entries n buckets may hold: three quarters.
func capacity(n int) int { return n * bucketEntries * 3 / 4 }

// probe is a search under way, owned by its goroutine. A node found through it
// may be one that left or came meanwhile.
type probe[E any] struct {
	array  *array[E]
	bucket *bucket[E]
	at     uint64 // index of bucket
	left   int    // buckets not looked at yet: counts at overflowMax could make a ring
	tags   uint64 // the tag sought, in each of the seven bytes
	meta   uint64 // of bucket, as it was when the search came to it
	hits   uint64 // high bit of each byte whose tag equals, not yet returned
}

// search begins a search for the entries of a hash and returns the first, like
// next. (It fills p in place: returning a probe costs a copy that is slower
// than the search.)
func (p *probe[E]) search(t *table[E], hash uint64) *E {
	a := t.arrays[shardOf(hash)].Load()
	if a == nil {
		return nil
	}
	p.array = a
	p.at = hash & a.mask
	p.left = len(a.buckets)
	p.tags = tagOf(hash) * tagLow
	p.enter()
	return p.next()
}

func (p *probe[E]) enter() {
	p.left--
	p.bucket = &p.array.buckets[p.at]
	p.meta = p.bucket.meta.Load()
	// The classic zero-byte test. It may mark a byte above a true one in error,
	// which costs a comparison and no more.
	x := p.meta&(overflowOne-1) ^ p.tags
	p.hits = (x - tagLow) &^ x & tagHigh
}

// next returns another entry that may have the hash, nil at the end.
func (p *probe[E]) next() *E {
	for {
		for p.hits != 0 {
			i := bits.TrailingZeros64(p.hits) >> 3
			p.hits &= p.hits - 1
			if e := p.bucket.entries[i].Load(); e != nil {
				return e
			}
		}
		if p.meta < overflowOne || p.left == 0 {
			return nil
		}
		p.at = (p.at + 1) & p.array.mask
		p.enter()
	}
}

// insert adds e, which must not be in the table. Searches that begin after it
// returned find e.
func (t *table[E]) insert(e *E) {
	h := t.hash(e)
	s := shardOf(h)
	t.counts[s]++
	a := t.arrays[s].Load()
	if a == nil || t.counts[s] > capacity(len(a.buckets)) {
		a = t.resize(s, t.counts[s])
	}
	a.put(h, e)
}

// remove takes out e, which must be in the table.
func (t *table[E]) remove(e *E) {
	h := t.hash(e)
	s := shardOf(h)
	a := t.arrays[s].Load()
	a.drop(h, e)
	t.counts[s]--
	if n := t.counts[s]; n == 0 {
		t.arrays[s].Store(nil)
	} else if len(a.buckets) > 1 && n < capacity(len(a.buckets))/8 {
		t.resize(s, 2*n)
	}
}

// resize publishes an array of shard s that has room for n entries. Readers in
// the old one see the shard as it was, and that is when they began.
func (t *table[E]) resize(s uint64, n int) *array[E] {
	size := 1
	for capacity(size) < n {
		size *= 2
	}
	a := &array[E]{mask: uint64(size - 1), buckets: make([]bucket[E], size)}
	if old := t.arrays[s].Load(); old != nil {
		for i := range old.buckets {
			b := &old.buckets[i]
			for j := range b.entries {
				if e := b.entries[j].Load(); e != nil {
					a.put(t.hash(e), e)
				}
			}
		}
	}
	t.arrays[s].Store(a)
	return a
}

func (a *array[E]) put(hash uint64, e *E) {
	for at := hash & a.mask; ; at = (at + 1) & a.mask {
		b := &a.buckets[at]
		meta := b.meta.Load()
		for i := range b.entries {
			if meta>>(8*i)&0xff == 0 {
				// The entry before its tag: who sees the tag finds the entry.
				b.entries[i].Store(e)
				b.meta.Store(meta | tagOf(hash)<<(8*i))
				return
			}
		}
		if meta>>56 < overflowMax {
			b.meta.Store(meta + overflowOne)
		}
	}
}

func (a *array[E]) drop(hash uint64, e *E) {
	for at := hash & a.mask; ; at = (at + 1) & a.mask {
		b := &a.buckets[at]
		meta := b.meta.Load()
		for i := range b.entries {
			if b.entries[i].Load() == e {
				b.meta.Store(meta &^ (0xff << (8 * i)))
				b.entries[i].Store(nil)
				return
			}
		}
		if meta>>56 < overflowMax {
			b.meta.Store(meta - overflowOne)
		}
	}
}
