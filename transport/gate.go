package transport

import (
	"slices"
	"time"

	"hashplus/transport/link"
)

// A loop accepts the connections of plain listeners itself: the listening socket
// is one of the descriptors that it watches. A goroutine that waits in accept
// would be woken for each connection, and would have to wake the loop.

const (
	// gateSlots is where the numbers of gates begin in events, far above those
	// of connections and below wakeSlot.
	gateSlots = uint32(1) << 31

	// acceptBudget is how many connections one listener may bring in within a
	// tick. The rest stays with the system, which tells of it again.
	acceptBudget = 64

	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// gate is a listening socket on the loop that accepts its connections.
type gate struct {
	// Immutable after newAcceptor.
	acceptor *acceptor
	server   *Server
	fd       int32
	failed   chan error    // has what ended it, if it ended by itself
	shut     chan struct{} // closed when the loop has let go of fd

	// Owned by the loop.
	loop  *loop
	slot  uint32
	pause time.Duration // after the last failure; 0 while accepting works
	timer link.Timer    // armed while pausing
}

func newGate(a *acceptor, fd int32) *gate {
	g := &gate{acceptor: a, server: a.endpoint.Load().server, fd: fd, failed: make(chan error, 1), shut: make(chan struct{})}
	g.timer.Owner = g
	return g
}

// serve accepts until done is closed, or until accepting fails for good. Nobody
// may use fd any more when it returns.
func (g *gate) serve(done <-chan struct{}) (err error) {
	l := g.server.pick()
	if !l.Post((*gateOpening)(g)) {
		return nil
	}
	select {
	case <-done:
	case err = <-g.failed:
	}
	if !l.Post((*gateClosing)(g)) {
		return nil // the loop has stopped
	}
	<-g.shut
	return err
}

// gateOpening begins to accept.
type gateOpening gate

func (o *gateOpening) Run(l link.Loop) {
	g := (*gate)(o)
	g.loop = l.(*loop)
	at := slices.Index(g.loop.gates, nil)
	if at < 0 {
		at = len(g.loop.gates)
		g.loop.gates = append(g.loop.gates, nil)
	}
	g.loop.gates[at] = g
	g.slot = gateSlots + uint32(at)
	g.watch()
}

// gateClosing ends accepting.
type gateClosing gate

func (o *gateClosing) Run(link.Loop) {
	g := (*gate)(o)
	g.loop.gates[g.slot-gateSlots] = nil
	g.loop.wheel.Disarm(&g.timer)
	g.ignore()
	close(g.shut)
}

func (o *gateClosing) discard() { close(o.shut) }

func (g *gate) watch() {
	if err := g.loop.poller.listen(g.fd, g.slot); err != nil {
		g.fail(err)
	}
}

func (g *gate) ignore() {
	// It fails where the descriptor is not watched, and that is as well.
	_ = g.loop.poller.remove(g.fd)
}

func (g *gate) fail(err error) {
	g.ignore()
	select {
	case g.failed <- err:
	default: // has failed before
	}
}

// accept takes the connections that wait, within the budget of a tick.
func (g *gate) accept() {
	budget := acceptBudget
	if g.server.lagging(g.loop.now) {
		// Those who are here need the loops more than those who want in.
		budget = 1
		g.server.slowed(g.acceptor.endpoint.Load(), g.loop.now)
		defer g.pauseFor(lagPause)
	}
	e := g.acceptor.endpoint.Load()
	for range budget {
		fd, remote, err := rawAccept(g.fd)
		switch {
		case err == nil:
			g.pause = 0
			e.served(remote, g.server.serveRaw(e, g.loop, fd, remote))
		case err == errAgain:
			return
		case temporary(err):
			g.rest(err)
			return
		default:
			g.fail(err)
			return
		}
	}
}

// rest leaves the listener alone for a while: trying at once would only burn the
// processor that could free what is short, descriptors most of all.
func (g *gate) rest(err error) {
	g.pause = nextPause(g.pause)
	g.loop.log.Warn(acceptFailed, "listener", g.acceptor.endpoint.Load().name, "cause", err, "after", g.pause)
	g.pauseFor(int64(g.pause))
}

// pauseFor accepts nothing for a time.
func (g *gate) pauseFor(d int64) {
	g.ignore()
	g.loop.wheel.Arm(&g.timer, g.loop.now+d)
}

// Expire implements link.Expirer: the rest is over.
func (g *gate) Expire(*link.Timer) { g.watch() }

const acceptFailed = "accept failed, trying again"

func nextPause(last time.Duration) time.Duration {
	return min(max(2*last, minAcceptPause), maxAcceptPause)
}
