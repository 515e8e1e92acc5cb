package store

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"hashplus/broker"
	"hashplus/broker/record"
)

// migrations[v] changes a store from version v to v+1. It is given the open
// store, and is run again if it was interrupted. A change of the format adds one,
// and a directory of the version before to contents/testdata, on which it is tested.
var migrations = map[int]func(s broker.Store) error{1: separateWills}

// migrate brings a store of version from to Version.
func migrate(f vfs.FS, dir string, from int, s broker.Store, log *slog.Logger) error {
	for v := from; v < Version; v++ {
		step, ok := migrations[v]
		if !ok {
			return fmt.Errorf("%s has format %d, which this hashplus does not know how to change to %d", dir, v, v+1)
		}
		log.Info("the store's format is being changed", "dir", dir, "from", v, "to", v+1)
		began := time.Now()
		if err := step(s); err != nil {
			return fmt.Errorf("cannot change %s from format %d to %d: %w", dir, v, v+1, err)
		}
		if err := writeVersion(f, dir, v+1); err != nil {
			return err
		}
		log.Info("the store's format has been changed", "to", v+1, "took", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// separateWills gives each will a record of its own, as the will of its session's
// latest connection. A session without one looks the same in both formats, so that
// those of an interrupted run are passed over.
func separateWills(s broker.Store) error {
	const atOnce = 1000 // sessions that are changed in one batch
	end := []byte{record.KindSession + 1}
	b := &broker.Batch{}
	for from := []byte{record.KindSession}; from != nil; {
		b.Reset()
		changed := 0
		var next []byte
		var bad error
		err := s.Scan(from, end, func(key, value []byte) bool {
			if changed == atOnce {
				next = bytes.Clone(key)
				return false
			}
			owner, _, ok := record.Owner(key)
			session, will, err := record.DecodeSession1(value)
			if !ok || err != nil {
				bad = fmt.Errorf("%w: session %d: %w", broker.ErrStoreDamaged, owner, record.ErrCorrupt)
				return false
			}
			if will != nil {
				b.Set(record.AppendWill(nil, owner, session.Epoch), will.Append(nil))
				b.Set(bytes.Clone(key), session.Append(nil))
				changed++
			}
			return true
		})
		if err != nil || bad != nil {
			return cmp.Or(err, bad)
		}
		if b.Len() > 0 {
			wait, err := s.Apply(b)
			if err == nil {
				err = wait()
			}
			if err != nil {
				return err
			}
		}
		from = next
	}
	return nil
}
