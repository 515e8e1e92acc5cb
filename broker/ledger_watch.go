package broker

import (
	"errors"
	"time"
)

// lookAround is done now and then: is there space, is something damaged, expired
// or left over?
func (g *ledger) lookAround() {
	if g.store == nil {
		return
	}
	if t, ok := g.store.(Tender); ok && t.Tend() != nil && !g.mark() { // what follows a commit that fails is to follow
		return
	}
	if i, ok := g.store.(Inspected); ok {
		g.noteDamage(i.Damage())
	}
	if !g.resting() {
		g.searchExpired()
		if !g.removeOrphans() {
			return
		}
	}
	if time.Since(g.marked) > clockEvery && g.b.sessionCount() > 0 && g.works() {
		if !g.mark() {
			return
		}
	}
	g.checkSpace()
}

// mark stores the time; it reports false when the ledger has closed.
func (g *ledger) mark() bool {
	g.batch.Reset()
	g.markClock()
	return g.commit()
}

// errSpace is the trouble of a disk that is nearly full.
var errSpace = errors.New("broker: the store's file system is nearly full")

// spaceStep is how many bytes are stored before the disk is looked at again, if
// that is sooner than the next lookAround.
const spaceStep = 4 << 20

// checkSpace takes messages only while the disk has MinFree left.
func (g *ledger) checkSpace() {
	g.unseen = 0
	least := g.b.options().MinFree
	if least <= 0 || g.store == nil {
		return
	}
	free, err := g.store.Free()
	t := g.trouble.Load()
	switch {
	case err != nil:
		g.b.log.Warn("the free space of the store is not known", "cause", err)
	case free < uint64(least) && t == nil:
		g.trouble.Store(&trouble{err: errSpace})
		g.b.log.Error("the store's file system is nearly full: messages that must be stored are refused", "free", free, "min-free", least)
	case free >= uint64(least) && t != nil && !t.broken:
		g.trouble.Store(nil)
		g.b.log.Info("the store has space again", "free", free)
		g.resume()
	}
}

// damage is what the store has found damaged.
type damage struct {
	first error
	files int
}

// noteDamage notes what the store says. It stays until the process ends: to open
// the store again mends nothing.
func (g *ledger) noteDamage(files int, first error) {
	if old := g.damage.Load(); first != nil && (old == nil || files > old.files) {
		g.damage.Store(&damage{first, files})
	}
}

// damagedRest is how long what has come to damaged data waits before it is tried
// again. That mends nothing, but the data may be needed no more.
const damagedRest = time.Minute

// rested lets searches wait if err says that the store is damaged: each would
// come to the same place.
func (g *ledger) rested(err error) {
	if errors.Is(err, ErrStoreDamaged) {
		g.rest = time.Now().Add(damagedRest)
	}
}

func (g *ledger) resting() bool { return time.Now().Before(g.rest) }

// failure is nil while the ledger takes messages, and says why if it doesn't.
func (g *ledger) failure() error {
	if t := g.trouble.Load(); t != nil {
		return t.err
	}
	return nil
}

// health is also not nil when something of what is stored is damaged.
func (g *ledger) health() error {
	if err := g.failure(); err != nil {
		return err
	}
	if d := g.damage.Load(); d != nil {
		return d.first
	}
	return nil
}

// damagedFiles is in how many files the store has found damage.
func (g *ledger) damagedFiles() int {
	if d := g.damage.Load(); d != nil {
		return d.files
	}
	return 0
}
