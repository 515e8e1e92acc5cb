// Package broker is the MQTT broker: sessions, subscriptions, delivery. It has
// no sockets: bytes come and go through hashplus/transport/link, so it runs as
// well over epoll as over a test's function calls.
//
// Every session lives on one loop, which runs all that happens to it; loops
// reach each other by their mailboxes only. See ARCHITECTURE.md.
package broker

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hashplus/broker/record"
	"hashplus/topic"
	"hashplus/transport/link"
)

// maxLoops is the most loops a broker can run on: a filter keeps a bit for each.
const maxLoops = 64

// shards is the number of parts that sessions are spread over.
const shards = 1024

// ErrClosed is returned by calls on a broker that is shutting down or that no
// transport was started with.
var ErrClosed = errors.New("broker: not running")

// Broker is an MQTT broker. It is a link.Handler: give it to a transport to
// serve connections. Its exported methods may be called from any goroutine,
// except those of link.Handler, which are the transport's to call.
type Broker struct {
	// Immutable after New.
	opts     Options // as they were given; see options for what is in force
	log      *slog.Logger
	seed     maphash.Seed
	ledger   *ledger // nil: nothing is stored
	index    *topic.Index[filter]
	retained retainedMessages
	born     time.Time
	calls    *foreign // of the Authorizer and the Observer

	// Immutable after Start.
	loops []*loop
	shard [shards]uint16 // the loop of each shard

	// Any goroutine.

	running  atomic.Bool
	ready    atomic.Bool // what was stored has been recovered
	draining atomic.Bool
	credit   atomic.Int64 // in-process publishes that wait for a loop
	auth     workers
	reviews  sync.Mutex // held by Review

	doorkeepers atomic.Pointer[doorkeepers]

	live     atomic.Pointer[Limits]
	settings atomic.Pointer[settings]
	memory   memory
	bans     bans
	refused  refusals
	seldom   struct {
		mu   sync.Mutex
		bans link.Lines // guarded by mu
	}

	requests requester
	sys      sysTopics
	start    sync.Once
}

// New returns a broker with the given options, which it checks. The error
// names every option that is out of range.
func New(o Options) (*Broker, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("broker options: %w", err)
	}
	b := &Broker{
		opts:     o,
		log:      o.Logger,
		seed:     maphash.MakeSeed(),
		retained: retainedMessages{tree: topic.NewRetained[message]()},
		born:     time.Now(),
		bans:     newBans(),
		calls:    newForeign(o.Logger),
	}
	if o.Observer != nil {
		b.opts.Observer = &observer{o.Observer, b.calls}
	}
	b.live.Store(&o.Limits)
	b.settings.Store(newSettings(o))
	b.auth.limit = authWorkers
	if err := b.SetAuthenticators(o.Authenticator, o.EnhancedAuthenticators...); err != nil {
		return nil, err
	}
	if o.OpenStore != nil {
		g, err := openLedger(b)
		if err != nil {
			return nil, err
		}
		b.ledger = g
	}

	return b, nil
}

// Start implements link.Handler.
func (b *Broker) Start(loops []link.Loop) {
	if len(loops) == 0 || len(loops) > maxLoops {
		panic(fmt.Sprintf("broker: %d loops; 1 to %d are possible", len(loops), maxLoops))
	}
	b.start.Do(func() {
		b.index = topic.NewIndex(func(f *filter) { f.loops = make([]*filterLoop, len(loops)) })
		for i, l := range loops {
			b.loops = append(b.loops, newLoop(b, i, l))
		}
		for i := range b.shard {
			b.shard[i] = uint16(i % len(loops))
		}
		b.running.Store(true)
		b.loops[0].call((*loop).startSys)
		b.loops[0].call((*loop).startSweep)
	})
}

// Open implements link.Handler.
func (b *Broker) Open(c link.Conn) link.Stream { return newClient(b.loops[c.Loop().ID()], c) }

// Tick implements link.Handler.
func (b *Broker) Tick(l link.Loop) (more bool) { return b.loops[l.ID()].tick() }

// home is the loop that the sessions of a client identifier live on.
func (b *Broker) home(clientID string) *loop {
	return b.loops[b.shard[maphash.String(b.seed, clientID)%shards]]
}

// origin stands for a client identifier in messages, so that No Local knows a
// client again in whatever session it comes. It is never 0.
func (b *Broker) origin(clientID string) uint64 {
	if g := b.ledger; g != nil { // it is stored with retained messages
		return record.Origin(g.node, clientID)
	}
	return maphash.String(b.seed, clientID) | 1
}

// each runs f on every loop and waits until all are through, or ctx is.
func (b *Broker) each(ctx context.Context, f func(*loop)) error {
	if !b.running.Load() {
		return ErrClosed
	}
	done := make(chan struct{}, len(b.loops))
	for _, l := range b.loops {
		if !l.call(func(l *loop) { f(l); done <- struct{}{} }) {
			return ErrClosed
		}
	}
	for range b.loops {
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Shutdown disconnects all clients, a version 5 client with 0x8B, and waits
// until their connections are being closed or ctx ends. The transport should
// have stopped accepting. Wills are not sent: the clients did not fail.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.draining.Store(true)
	err := b.each(ctx, func(l *loop) {
		for _, s := range l.sessions {
			if s.client != nil {
				s.client.shutdown()
			}
		}
	})
	b.requests.close()
	if g := b.ledger; g != nil {
		// What the loops have noted of that leaves with the end of their turn.
		err = errors.Join(err, b.each(ctx, func(*loop) {}), g.close())
	}
	return err
}

// Recover reads what is stored back into memory. It is to be called once, after
// the transport was made and before it listens: until it returns no client is let
// in. With ctx it gives up. Without Options.OpenStore it has nothing to do.
func (b *Broker) Recover(ctx context.Context) error {
	if b.ledger != nil {
		if !b.running.Load() {
			return ErrClosed
		}
		if err := b.ledger.recover(ctx); err != nil {
			return err
		}
	}
	b.ready.Store(true)
	return nil
}

// Health is nil if the broker does all that it promises, and otherwise says what
// it can't do now: its state is still being recovered, the store fails or has no
// space, or some of what it holds is damaged (ErrStoreDamaged).
func (b *Broker) Health() error {
	if g := b.ledger; g != nil {
		if !b.ready.Load() {
			return errRecovering
		}
		return g.health()
	}
	return nil
}
