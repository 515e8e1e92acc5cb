package main

import (
	"errors"
	"fmt"
	"os"

	"hashplus/broker"
	"hashplus/broker/store"
)

// durability is what is kept on disk, and how.
type durability struct {
	Data    string   `placeholder:"DIR" help:"Keep sessions, what they are owed, retained messages and wills in this directory, which is made if it does not exist. Default: all is in memory and ends with the process."`
	Sync    syncMode `default:"always" placeholder:"POLICY" help:"When what is acknowledged is on the disk: always, before it is acknowledged; interval=10ms, at most that much later; never, whenever the system writes it. The death of the broker alone loses nothing in any of them, the loss of power nothing in the first."`
	MinFree Size     `default:"256MiB" help:"Free space of the disk below which messages that must be stored are refused; 128MiB or more. It is kept for what makes room again: acknowledgements of receivers."`
}

// leastMinFree is what is needed for the messages that are on their way into the
// log when they begin to be refused (32 MiB), for the log of what is acknowledged
// then, and for the tables into which all of it is written before logs can go. If
// there were less, a disk that is full of messages could not be opened to deliver
// them.
const leastMinFree = 128 << 20

// syncMode is store.Sync with the text form that flags need.
type syncMode store.Sync

// UnmarshalText reads a policy.
func (s *syncMode) UnmarshalText(b []byte) error { return (*store.Sync)(s).UnmarshalText(b) }

// MarshalText writes a policy.
func (s syncMode) MarshalText() ([]byte, error) { return store.Sync(s).MarshalText() }

func (c *durability) check(fault func(key, format string, args ...any)) {
	if c.Data == "" {
		for _, key := range changed(c) {
			fault(key, "is set, but nothing is kept on disk: data is empty")
		}
		return
	}
	if info, err := os.Stat(c.Data); err == nil && !info.IsDir() {
		fault("data", "%s is not a directory", c.Data)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		fault("data", "%v", err)
	}
	checkSize(fault, "min-free", c.MinFree) // a disk that the store has filled must have room for what makes room again
}

// store makes the broker keep its state; stuck is called if the store fails and
// cannot be opened again by this process. Without a directory there is no keeper.
func (c *durability) store(o *broker.Options, stuck func(error)) *keeper {
	if c.Data == "" {
		return nil
	}
	o.StoreStuck = stuck
	k := &keeper{dir: c.Data, sync: store.Sync(c.Sync), log: o.Logger, stuck: stuck}
	o.OpenStore = k.open
	return k
}

// advise adds to the error what can be done about damage.
func advise(dir string, err error) error {
	if errors.Is(err, broker.ErrStoreDamaged) {
		return fmt.Errorf("%w; `hashplus store check --data %s` lists what is hurt, "+
			"`hashplus store salvage %s DST` copies what can be read to DST", err, dir, dir)
	}
	return err
}

// where is where the state is, for the log.
func (c *durability) where() string {
	if c.Data == "" {
		return "in memory"
	}
	return c.Data + " (sync " + store.Sync(c.Sync).String() + ")"
}

// stuckError is a store that failed and could not be closed.
type stuckError struct{ error }

// Unwrap is why.
func (e stuckError) Unwrap() error { return e.error }
