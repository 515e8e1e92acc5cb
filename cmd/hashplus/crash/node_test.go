package crash

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"hashplus/broker"
	"hashplus/broker/store"
	"hashplus/cmd/hashplus/launch"
	"hashplus/transport"
)

// node is a broker in this process, on a loopback port.
type node struct {
	broker  *broker.Broker
	server  *transport.Server
	address string
}

// newNode starts a broker on what open opens.
func newNode(o broker.Options, open func() (broker.Store, error)) (*node, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	o.SysInterval = -1
	o.MaxQueuedMessages, o.MaxQueuedBytes = 1_000_000, 1<<30
	o.OpenStore = open
	b, err := broker.New(o)
	if err != nil {
		return nil, err
	}
	s, err := transport.New(transport.Options{Loops: 2, Logger: o.Logger}, b)
	if err != nil {
		return nil, err
	}
	n := &node{broker: b, server: s}
	if err := b.Recover(context.Background()); err != nil {
		n.abandon()
		return nil, err
	}
	url, err := s.Listen(transport.Listener{Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		n.abandon()
		return nil, err
	}
	n.address = url[len("tcp://"):]
	return n, nil
}

// abandon ends the broker and waits for nothing but its goroutines.
func (n *node) abandon() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n.server.StopAccepting()
	_ = n.broker.Shutdown(ctx) // that it had no time is what is wanted
	_ = n.server.Shutdown(ctx)
}

// powerCut is a broker in this process on a file system in memory. A crash is
// the loss of power: what was not synced is gone, or most of it.
type powerCut struct {
	t    testing.TB
	sync store.Sync
	kept int // percent of the blocks not synced that survive
	rand *rand.Rand

	fs   *vfs.MemFS
	node *node

	mu     sync.Mutex
	opened []*store.Disk // since the last start
}

func newPowerCut(t testing.TB, seed uint64, s store.Sync, kept int) *powerCut {
	return &powerCut{t: t, sync: s, kept: kept, rand: rand.New(rand.NewPCG(seed, 2)), fs: vfs.NewCrashableMem()}
}

func (p *powerCut) start() (string, error) {
	fs := p.fs
	n, err := newNode(broker.Options{}, func() (broker.Store, error) {
		d, err := store.Open("data", store.Options{
			FS: fs, Sync: p.sync, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
			Free: func() (uint64, error) { return 1 << 40, nil },
		})
		if err != nil {
			return nil, err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.opened = append(p.opened, d)
		return d, nil
	})
	if err != nil {
		return "", err
	}
	p.node = n
	return n.address, nil
}

func (p *powerCut) crash(cut func()) error {
	// What clients have read by now was sent before the power went.
	cut()
	left := p.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: p.kept, RNG: p.rand})
	p.end()
	p.fs = left
	return nil
}

// end ends what is left of a broker, on the file system that nobody will open.
func (p *powerCut) end() {
	p.node.abandon()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.opened {
		_ = d.Close() // the broker may have closed it
	}
	p.opened = nil
}

func (p *powerCut) stop() error {
	if p.node != nil {
		p.end()
	}
	return nil
}

// slow is a broker in this process on a store in memory that holds its commits
// back now and then. A crash takes a random suffix of those that nobody may have
// relied on.
type slow struct {
	rand  *rand.Rand
	store *store.Memory
	node  *node
	quit  chan struct{}
	idle  sync.WaitGroup
}

func newSlow(seed uint64) *slow {
	return &slow{rand: rand.New(rand.NewPCG(seed, 3)), store: store.NewMemory()}
}

func (s *slow) start() (string, error) {
	m := s.store
	n, err := newNode(broker.Options{}, func() (broker.Store, error) { return m, nil })
	if err != nil {
		return "", err
	}
	s.node, s.quit = n, make(chan struct{})
	random := rand.New(rand.NewPCG(s.rand.Uint64(), 4))
	s.idle.Go(func() {
		for {
			for _, f := range []func(){m.Hold, m.Release} {
				f()
				select {
				case <-s.quit:
					return
				case <-time.After(time.Duration(random.IntN(6)) * time.Millisecond):
				}
			}
		}
	})
	return n.address, nil
}

func (s *slow) crash(cut func()) error {
	s.store.Hold()
	cut()
	pending := s.store.Pending()
	left := s.store.Crash(s.rand.IntN(pending + 1))
	s.end()
	s.store = left
	return nil
}

func (s *slow) end() {
	close(s.quit)
	s.idle.Wait()
	s.store.Release()
	s.node.abandon()
	_ = s.store.Close() // it can't fail
	s.node = nil
}

func (s *slow) stop() error {
	if s.node != nil {
		s.end()
	}
	return nil
}

// lab is a broker in this process whose store a test controls.
type lab struct {
	t   testing.TB
	net network

	node *node

	mu     sync.Mutex
	store  *store.Memory // open, or to be opened next
	broken error         // what opening it fails with
	opens  int
}

func newLab(t testing.TB) *lab { return newLabWith(t, broker.Options{}) }

func newLabWith(t testing.TB, o broker.Options) *lab {
	t.Helper()
	l := &lab{t: t, store: store.NewMemory()}
	log := new(launch.Log)
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	n, err := newNode(o, l.open)
	if err != nil {
		t.Fatal(err)
	}
	l.node = n
	l.net.up(n.address)
	t.Cleanup(func() {
		l.memory().Release() // or a broker would wait for ever
		l.net.down()
		n.abandon()
		if t.Failed() {
			t.Logf("broker log:\n%s", log)
		}
	})
	return l
}

func (l *lab) open() (broker.Store, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opens++
	if l.broken != nil {
		return nil, l.broken
	}
	return l.store, nil
}

func (l *lab) memory() *store.Memory {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.store
}

var errDisk = errors.New("input/output error (made by a test)")

// fail makes opening fail, until mend.
func (l *lab) fail() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = errDisk
}

// mend makes what a loss of power would have left the store that is opened next.
func (l *lab) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = nil
	l.store = l.store.Crash(0)
}
