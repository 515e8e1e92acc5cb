package transport

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hashplus/transport/link"
	"hashplus/transport/ws"
)

// Limits are those that can be changed while the server runs, see
// Server.SetLimits. Those of an address count for the client's own, as a trusted
// proxy names it, and of IPv6 for a network of 64 bits. They never count for
// loopback addresses, Unix sockets, and the addresses of trusted proxies.
type Limits struct {
	// AddressConns bounds the connections of one address; 0: nothing does.
	AddressConns int
	// AddressRate bounds the new connections of one address within a minute,
	// which may come all at once; 0: nothing does.
	AddressRate int
	// LoopLag is the length of a loop's turn from which on it counts as lagging.
	// While one does, and for a second after, each listener lets in ten
	// connections a second; default 500 ms, negative: as many as come.
	LoopLag time.Duration
}

// EnsureDefaults fills in the defaults.
func (l *Limits) EnsureDefaults() { setDefault(&l.LoopLag, 500*time.Millisecond) }

// Validate reports every fault at once.
func (l *Limits) Validate() error {
	var faults []error
	if l.AddressConns < 0 {
		faults = append(faults, fmt.Errorf("AddressConns is %d, must not be negative", l.AddressConns))
	}
	if l.AddressRate < 0 {
		faults = append(faults, fmt.Errorf("AddressRate is %d, must not be negative", l.AddressRate))
	}
	return errors.Join(faults...)
}

// SetLimits puts l in force in place of Options.Limits. Connections that are
// there stay; those that came while no limit of an address was set do not count.
func (s *Server) SetLimits(l Limits) error {
	l.EnsureDefaults()
	if err := l.Validate(); err != nil {
		return fmt.Errorf("transport: %w", err)
	}
	s.live.Store(&l)
	return nil
}

// Stats are the server's counters since it started.
type Stats struct {
	Conns int64 // that are there, in any state

	// Connections that were refused.
	RefusedFull    int64 // there were MaxConns
	RefusedAddress int64 // for AddressConns
	RefusedRate    int64 // for AddressRate
	RefusedBanned  int64 // for Options.Banned
	RefusedProxy   int64 // for their PROXY header or the lack of one
	RefusedTLS     int64 // because their TLS handshake failed

	Handshakes int64 // TLS handshakes that were made

	AcceptPauses int64         // times that a listener waited because loops lag
	Lag          time.Duration // the longest turn of a loop in the last seconds
}

// counters are what Stats is made of. Any goroutine; atomic.
type counters struct {
	full, address, rate, banned, proxy, pauses, tls, handshakes atomic.Int64
}

// Stats returns the counters. Any goroutine.
func (s *Server) Stats() Stats {
	return Stats{
		Conns: s.conns.Load(), RefusedFull: s.counts.full.Load(), RefusedAddress: s.counts.address.Load(),
		RefusedRate: s.counts.rate.Load(), RefusedBanned: s.counts.banned.Load(), RefusedProxy: s.counts.proxy.Load(),
		RefusedTLS: s.counts.tls.Load(), Handshakes: s.counts.handshakes.Load(),
		AcceptPauses: s.counts.pauses.Load(), Lag: s.lag(monotonic()),
	}
}

// exempt reports whether limits per address do not apply to a.
func (e *endpoint) exempt(a netip.Addr) bool {
	return !a.IsValid() || a.IsLoopback() || e.Trusted.Contains(a)
}

// checkAddress asks whether a connection from a, which is not exempt, is let in.
// counted says that it must be released with addresses.leave.
func (s *Server) checkAddress(a netip.Addr) (refusal *ws.Refusal, counted bool, err error) {
	if s.opts.Banned != nil && s.opts.Banned(a) {
		s.counts.banned.Add(1)
		return ws.ErrBanned, false, errBanned
	}
	l := s.live.Load()
	if l.AddressConns == 0 && l.AddressRate == 0 {
		return nil, false, nil
	}
	if err = s.addresses.enter(a, l, monotonic()); err == nil {
		return nil, true, nil
	}
	if err == errAddressConns {
		s.counts.address.Add(1)
	} else {
		s.counts.rate.Add(1)
	}
	return ws.ErrTooManyRequests, false, err
}

// identified takes a, which a trusted proxy has named, for the client's address,
// and says why that is not let in.
func (c *conn) identified(a netip.AddrPort) (refusal *ws.Refusal, err error) {
	c.info.Remote = a
	c.info.Exempt = c.endpoint.exempt(a.Addr())
	if c.info.Exempt || c.has(inCount) {
		return nil, nil
	}
	refusal, in, err := c.loop.server.checkAddress(a.Addr())
	if in {
		c.set(inCount)
	}
	return refusal, err
}

// leave takes the connection out of the count of its address.
func (c *conn) leave(s *Server) {
	if c.has(inCount) {
		c.unset(inCount)
		s.addresses.leave(c.info.Remote.Addr(), monotonic())
	}
}

// lines keeps refusals, which an attacker can have as many of as it likes, from
// filling the log.
type lines struct {
	mu    sync.Mutex
	lines link.Lines // guarded by mu
}

// refusalLines is how many refusals are logged in a second.
const refusalLines = 20

// logRefused logs that a connection was refused, if that was not said too often.
func (s *Server) logRefused(e *endpoint, remote netip.AddrPort, why error) {
	s.seldom.mu.Lock()
	missed, ok := s.seldom.lines.Allow(monotonic())
	s.seldom.mu.Unlock()
	if !ok {
		return
	}
	args := []any{"listener", e.name, "remote", remote, "detail", why}
	if missed > 0 {
		args = append(args, "others", missed)
	}
	s.opts.Logger.Info("connection refused", args...)
}

// What a lagging loop does to accepting.
const (
	lagMemory = int64(time.Second) // a loop counts as lagging for so long
	lagPause  = int64(100 * time.Millisecond)
)

// noteTurn is told how long a turn of the loop took.
func (l *loop) noteTurn(took int64) {
	if limit := int64(l.server.live.Load().LoopLag); limit > 0 && took >= limit {
		l.lagged.Store(l.now + took)
		l.longest.Store(took)
	}
}

// lagging reports whether a loop has lagged within the last second.
func (s *Server) lagging(now int64) bool {
	for _, l := range s.loops {
		if at := l.lagged.Load(); at != 0 && now-at < lagMemory {
			return true
		}
	}
	return false
}

// lag is the longest turn of the loops that lag.
func (s *Server) lag(now int64) (most time.Duration) {
	for _, l := range s.loops {
		if at := l.lagged.Load(); at != 0 && now-at < 10*lagMemory {
			most = max(most, time.Duration(l.longest.Load()))
		}
	}
	return most
}

// slowed counts a pause of a listener, and logs it now and then.
func (s *Server) slowed(e *endpoint, now int64) {
	s.counts.pauses.Add(1)
	s.lagSeldom.mu.Lock()
	missed, ok := s.lagSeldom.lines.Allow(now)
	s.lagSeldom.mu.Unlock()
	if ok {
		s.opts.Logger.Warn("loops lag, accepting more slowly", "listener", e.name, "lag", s.lag(now), "others", missed)
	}
}

// Probe waits until every loop has answered, and returns ctx's error if that
// ends before: a loop that hangs does not answer.
func (s *Server) Probe(ctx context.Context) error {
	answers := make(chan struct{}, len(s.loops))
	for _, l := range s.loops {
		if !l.Post(link.TaskFunc(func(link.Loop) { answers <- struct{}{} })) {
			return ErrServerClosed
		}
	}
	for range s.loops {
		select {
		case <-answers:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
