package transport

import (
	"errors"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Why a connection is not served for its address.
var (
	errAddressConns = errors.New("too many connections from this address")
	errAddressRate  = errors.New("connections from this address come too fast")
	errBanned       = errors.New("this address is banned for a while")
)

// addresses counts the connections of each address. It is touched when one comes
// and when one goes, never by a message. Any goroutine.
type addresses struct {
	seed   maphash.Seed // immutable
	shards [64]addressShard
}

// addressShard is a part of the addresses.
type addressShard struct {
	mu    sync.Mutex
	uses  map[netip.Addr]addressUse // guarded by mu
	sweep int                       // guarded by mu: size at which those that count for nothing are dropped
}

// addressUse is what one address has. The rate is kept as a time: that at which
// all its connections would have come, at the rate. It trails the clock by a
// minute at the most.
type addressUse struct {
	conns int
	came  int64
}

const (
	addressSpan = int64(time.Minute)

	// maxIdleAddresses bounds, for each shard, the addresses that are remembered
	// for their rate only: whoever has many can not make the table grow. Past it
	// they are forgotten, and may come again sooner.
	maxIdleAddresses = 2048
)

// addressKey is what counts as one address: of IPv6, which customers get by the
// network, the first 64 bits.
func addressKey(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, _ := a.Prefix(64) // it cannot fail
	return p.Addr()
}

func newAddresses() *addresses { return &addresses{seed: maphash.MakeSeed()} }

func (t *addresses) shard(key netip.Addr) *addressShard {
	return &t.shards[maphash.Comparable(t.seed, key)%uint64(len(t.shards))]
}

// enter counts a connection from a, or says why l does not allow it. Each enter
// that does is followed by a leave.
func (t *addresses) enter(a netip.Addr, l *Limits, now int64) error {
	key := addressKey(a)
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.uses[key]
	if l.AddressConns > 0 && u.conns >= l.AddressConns {
		return errAddressConns
	}
	if l.AddressRate > 0 {
		came := addressSpan/int64(l.AddressRate) + now - addressSpan
		if ok {
			came = max(came, u.came+addressSpan/int64(l.AddressRate))
		}
		if came > now {
			return errAddressRate
		}
		u.came = came
	}
	u.conns++
	if !ok {
		s.makeRoom(now)
	}
	s.uses[key] = u
	return nil
}

// leave takes back one enter.
func (t *addresses) leave(a netip.Addr, now int64) {
	key := addressKey(a)
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uses[key]
	u.conns--
	if u.idle(now) {
		delete(s.uses, key)
		return
	}
	s.uses[key] = u
}

// idle reports whether there is nothing to remember.
func (u addressUse) idle(now int64) bool { return u.conns <= 0 && u.came <= now-addressSpan }

// makeRoom is called before an address is added. The caller holds mu.
func (s *addressShard) makeRoom(now int64) {
	if s.uses == nil {
		s.uses = make(map[netip.Addr]addressUse)
	}
	if len(s.uses) < max(s.sweep, maxIdleAddresses/2) {
		return
	}
	resting := 0
	for key, u := range s.uses {
		if u.idle(now) {
			delete(s.uses, key)
		} else if u.conns <= 0 {
			resting++
		}
	}
	for key, u := range s.uses {
		if resting <= maxIdleAddresses/2 {
			break
		}
		if u.conns <= 0 {
			delete(s.uses, key)
			resting--
		}
	}
	s.sweep = len(s.uses) + maxIdleAddresses/2
}
