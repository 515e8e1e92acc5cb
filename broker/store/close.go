package store

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// How long Close waits for what goes on, and then for calls of the file system
// to return.
const (
	closeTimeout = time.Minute
	severTimeout = 5 * time.Second
)

// closePoisonTimeout is how long it waits in a poisoned store, where there is
// nothing left to do. Tests have many of them.
var closePoisonTimeout = 2 * time.Second

// Close implements broker.Store.
func (d *Disk) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	close(d.quit)
	d.guard.release()
	ended := make(chan error, 1)
	go func() {
		for d.users.Load() > 0 { // nobody comes in any more
			time.Sleep(100 * time.Microsecond)
		}
		d.idle.Wait()
		ended <- d.closeFiles()
	}()
	timeout, poisoned := time.After(closeTimeout), d.guard.poisoned
	for {
		select {
		case err := <-ended:
			if err != nil && d.guard.fault() == nil {
				d.opts.Logger.Error("the store did not close cleanly", "cause", err)
			}
			return d.guard.sever(severTimeout) // what it has left open
		case <-poisoned:
			timeout, poisoned = time.After(closePoisonTimeout), nil
		case <-d.guard.stuck:
			return errors.Join(d.guard.sever(severTimeout), abandon(d.db))
		case <-timeout:
			return errors.Join(d.guard.sever(severTimeout), abandon(d.db))
		}
	}
}

func (d *Disk) closeFiles() error {
	err := closePebble(d.db)
	if err == nil && !d.opts.ReadOnly { // the log is durable, too
		d.guard.book.progress(d.guard)
		err = setMark(d.guard, d.dir, unsyncedFile, false)
	}
	return errors.Join(err, d.lock.Close())
}

// abandoned holds the instances that could not be closed, and their memory.
var abandoned struct {
	sync.Mutex
	dbs []*pebble.DB // nil where opening did not come back
}

// maxAbandoned bounds the memory that is lost to them. Tests abandon more.
var maxAbandoned = 8

// ErrStuck is in the error of Open or Close after which this process cannot go
// on: a call of the file system does not return, or the memory of too many
// instances that could not be closed is lost.
var ErrStuck = errors.New("only a new process can open the store")

// abandon notes an instance that does not close and has been severed.
func abandon(db *pebble.DB) error {
	abandoned.Lock()
	defer abandoned.Unlock()
	abandoned.dbs = append(abandoned.dbs, db)
	if n := len(abandoned.dbs); n > maxAbandoned {
		return fmt.Errorf("%d instances could not be closed: %w", n, ErrStuck)
	}
	return nil
}

// closePebble closes db; whatever goes wrong is an error.
func closePebble(db *pebble.DB) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return db.Close()
}
