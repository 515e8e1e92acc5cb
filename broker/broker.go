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

	"hashplus/broker/wire"
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
	opts     Options
	log      *slog.Logger
	limits   wire.Limits
	enhanced map[string]EnhancedAuthenticator
	seed     maphash.Seed
	index    *topic.Index[filter]
	retained retainedMessages

	// Immutable after Start.
	loops []*loop
	shard [shards]uint16 // the loop of each shard

	// Any goroutine.

	running  atomic.Bool
	draining atomic.Bool
	credit   atomic.Int64 // in-process publishes that wait for a loop
	auth     workers

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
		opts: o,
		log:  o.Logger,
		limits: wire.Limits{
			UserProperties: o.MaxUserProperties,
			TopicLength:    o.MaxTopicLength,
			TopicLevels:    o.MaxTopicLevels,
		},
		enhanced: make(map[string]EnhancedAuthenticator),
		seed:     maphash.MakeSeed(),
		retained: retainedMessages{tree: topic.NewRetained[message]()},
	}
	b.auth.limit = authWorkers
	for _, a := range o.EnhancedAuthenticators {
		if b.enhanced[a.Method()] != nil {
			return nil, fmt.Errorf("broker options: two enhanced authenticators for method %q", a.Method())
		}
		b.enhanced[a.Method()] = a
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
func (b *Broker) origin(clientID string) uint64 { return maphash.String(b.seed, clientID) | 1 }

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
	return err
}
