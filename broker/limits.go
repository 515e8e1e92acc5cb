package broker

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// Limits are those that can be changed while the broker runs, see
// Broker.SetLimits. The zero value of each field means the default that its
// comment names.
type Limits struct {
	// PublishRate and PublishBytes bound what one client publishes within a
	// second, in PUBLISH packets and their bytes; 0: nothing bounds it. A client
	// that is faster is read from more slowly: nothing is dropped.
	PublishRate, PublishBytes int

	// Retained messages of all topics, without those of $SYS; default 1,000,000,
	// and 256 MiB of topics, payloads and properties, with 64 bytes for each
	// message beside.
	MaxRetainedMessages, MaxRetainedBytes int

	Bans Bans
}

// Bans says who is shut out for a while. Nobody is by default, and never one
// whose link.Info is Exempt.
type Bans struct {
	// AuthFailures is the number of refused authentications within Window that
	// a ban follows, by address and by username; 0: none does.
	AuthFailures int
	// Connects is the number of accepted connections within Window that a ban
	// follows, by address and by client identifier; 0: none does.
	Connects int

	Window time.Duration // begins with the first of them; default 1 min
	Time   time.Duration // that a ban lasts; default 5 min

	// What is banned.
	Address, ClientID, Username bool
}

// EnsureDefaults replaces zero values by their defaults.
func (l *Limits) EnsureDefaults() {
	def(&l.MaxRetainedMessages, 1_000_000)
	def(&l.MaxRetainedBytes, 256<<20)
	def(&l.Bans.Window, time.Minute)
	def(&l.Bans.Time, 5*time.Minute)
}

// Validate reports every fault of l at once.
func (l *Limits) Validate() error {
	var faults []error
	within := func(name string, v, lo, hi int) {
		if v < lo || v > hi {
			faults = append(faults, fmt.Errorf("%s is %d; allowed are %d to %d", name, v, lo, hi))
		}
	}
	within("PublishRate", l.PublishRate, 0, 1e9)
	within("PublishBytes", l.PublishBytes, 0, 1e9)
	within("MaxRetainedMessages", l.MaxRetainedMessages, 1, 1<<30)
	within("MaxRetainedBytes", l.MaxRetainedBytes, 1024, min(1<<40, math.MaxInt))
	within("Bans.AuthFailures", l.Bans.AuthFailures, 0, 1<<30)
	within("Bans.Connects", l.Bans.Connects, 0, 1<<30)
	for name, d := range map[string]time.Duration{"Bans.Window": l.Bans.Window, "Bans.Time": l.Bans.Time} {
		if d <= 0 {
			faults = append(faults, fmt.Errorf("%s is %v; it must be positive", name, d))
		}
	}
	return errors.Join(faults...)
}

// SetLimits puts l in force in place of Options.Limits, with the defaults for
// what is zero. What is there already stays, also where it is more than l
// allows. Any goroutine.
func (b *Broker) SetLimits(l Limits) error {
	l.EnsureDefaults()
	if err := l.Validate(); err != nil {
		return fmt.Errorf("broker limits: %w", err)
	}
	b.live.Store(&l)
	return nil
}

// refusals counts what was refused, by what refused it. Any goroutine.
type refusals struct {
	memory, retained, banned atomic.Int64
}
