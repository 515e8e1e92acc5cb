package broker

import (
	"bytes"

	"hashplus/broker/record"
)

// orphans is the search, once after each start, for bodies of messages that no
// delivery refers to. No crash leaves any; what an older or a mended store may
// have would take up space for ever.
type orphans struct {
	next  []byte // where it goes on; nil: at the beginning
	over  bool
	found int
}

// orphanRows is the number of bodies that one step of the search looks at.
const orphanRows = 1000

// removeOrphans does a step of the search, and reports whether the ledger goes on.
// Between two batches the counts of references are those of what is stored.
func (g *ledger) removeOrphans() bool {
	o := &g.orphans
	if o.over || !g.works() {
		return true
	}
	if o.next == nil {
		o.next = []byte{record.KindBody}
	}
	kind := o.next[0]
	g.batch.Reset()
	next, err := g.findOrphans(kind)
	if err != nil {
		g.b.log.Warn("the store cannot be searched for what nobody is to get", "cause", err)
		g.rested(err)
		return true
	}
	if found := g.batch.Len(); found > 0 {
		if !g.commit() {
			return false
		}
		o.found += found
	}
	switch {
	case next != nil:
		o.next = next
	case kind == record.KindBody:
		o.next = []byte{record.KindShared}
	default:
		o.over = true
		if o.found > 0 {
			g.b.log.Warn("messages that nobody was to get were removed from the store", "messages", o.found)
		}
	}
	return true
}

// findOrphans puts the removal of orphans among the next bodies of kind into the
// batch, and returns where to go on; nil is the end.
func (g *ledger) findOrphans(kind byte) (next []byte, err error) {
	var keys [][]byte
	if err := g.store.Scan(g.orphans.next, []byte{kind + 1}, func(key, _ []byte) bool {
		if len(keys) == orphanRows {
			next = bytes.Clone(key)
			return false
		}
		keys = append(keys, bytes.Clone(key))
		return true
	}); err != nil {
		return nil, err
	}
	for _, key := range keys {
		var wanted bool
		if kind == record.KindShared {
			var id record.MessageID
			copy(id[:], key[1:])
			wanted = g.refs[id] > 0
		} else {
			row := append([]byte{record.KindDelivery}, key[1:]...)
			if _, wanted, err = g.store.Get(row); err != nil {
				return nil, err
			}
		}
		if !wanted {
			g.batch.Delete(key)
		}
	}
	return next, nil
}
