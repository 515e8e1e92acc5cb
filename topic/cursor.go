package topic

import (
	"hash/maphash"
	"strings"
)

// Cursor is a walk in progress, owned by one goroutine at a time. It holds no
// list of what is to come: the tree's own pointers lead it down, across and up.
type Cursor[V any] struct {
	tree   *Retained[V]
	levels []filterLevel
	multi  bool      // the last level is `#`
	base   *place[V] // of the literal levels that the filter begins with

	at    *place[V] // where the walk stands
	depth int       // index of the level that at is matched by, below 0 at the root
	move  move      // what to do next there
}

type filterLevel struct {
	text string
	hash uint64 // seeded, of text
	wild bool   // `+` or `#`
}

// move is the next step of a walk.
type move byte

const (
	look   move = iota // at is new: yield it if it is a match
	down               // at was looked at: go to its first child that fits
	across             // at and all below it are done: go to its next sibling, or up
	over               // the walk is over
)

// Walk starts a walk over the names that match filter, which must be valid.
// Its literal beginning is gone to at once, at no cost in the size of the
// tree. It keeps filter. Any goroutine.
func (r *Retained[V]) Walk(filter string) *Cursor[V] {
	c := &Cursor[V]{tree: r, depth: -1, base: &r.root}
	c.levels = make([]filterLevel, 0, Levels(filter))
	for text := range strings.SplitSeq(filter, "/") {
		c.levels = append(c.levels, filterLevel{
			text: text,
			hash: maphash.String(r.seed, text),
			wild: text == "+" || text == "#",
		})
	}
	c.multi = c.levels[len(c.levels)-1].text == "#"
	for _, l := range c.levels {
		if l.wild {
			break
		}
		if c.base = r.child(c.base, l.text, l.hash); c.base == nil {
			c.move = over
			break
		}
		c.depth++
	}
	c.at = c.base
	return c
}

// Next goes on with the walk until yield returns false, the walk is over
// (done), or about budget steps were made, a step being a level looked at,
// matching or not; at least one is made. A name that stays in the tree during
// the whole walk is yielded exactly once, one that comes or goes meanwhile at
// most once; the value is the current one. Order is unspecified. The tree may
// change between calls of Next and during them, also by yield.
func (c *Cursor[V]) Next(budget int, yield func(name string, v *V) bool) (done bool) {
	for c.move != over {
		stop := false
		switch c.move {
		case look:
			stop = c.look(yield)
			budget--
		case down:
			c.down()
		case across:
			if c.across() {
				budget-- // the long way up from the depths has its price too
			}
		}
		if stop || budget <= 0 {
			break
		}
	}
	if c.move == over {
		c.at, c.base = nil, nil // a cursor that is kept keeps no tree alive
	}
	return c.move == over
}

// level is the filter's level for a depth of the tree: `#` is for all from its
// own on.
func (c *Cursor[V]) level(depth int) *filterLevel {
	return &c.levels[min(depth, len(c.levels)-1)]
}

// look yields the place the walk stands on, if it is a match, and reports
// whether yield wants to stop.
func (c *Cursor[V]) look(yield func(string, *V) bool) (stop bool) {
	c.move = down
	if c.depth == 0 && c.at != c.base && isSystem(c.at.level) {
		c.move = across // [MQTT-4.7.2-1]: a wildcard led here
		return false
	}
	last := len(c.levels) - 1
	if c.depth < last && !(c.multi && c.depth == last-1) { // `a/#` has `a`
		return false
	}
	e := c.at.entry.Load()
	if e == nil {
		return false
	}
	v := e.value.Load()
	return !yield(e.name, v)
}

// down goes to the first child that fits the next level of the filter.
func (c *Cursor[V]) down() {
	c.move = across
	if c.depth+1 >= len(c.levels) && !c.multi {
		return
	}
	l := c.level(c.depth + 1)
	var child *place[V]
	if l.wild {
		child = c.at.first.Load()
	} else {
		child = c.tree.child(c.at, l.text, l.hash)
	}
	if child != nil {
		c.at, c.depth, c.move = child, c.depth+1, look
	}
}

// across goes to the next sibling if the filter's level fits it, or else up.
func (c *Cursor[V]) across() (up bool) {
	if c.at == c.base {
		c.move = over
		return false
	}
	if c.level(c.depth).wild {
		if next := c.at.next.Load(); next != nil {
			c.at, c.move = next, look
			return false
		}
	}
	c.at = c.at.parent
	c.depth--
	return true
}
