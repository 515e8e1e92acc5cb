package broker

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hashplus/broker/wire"
)

// Bounds of the tables below: whoever makes up names or has many addresses
// cannot make them grow beyond it.
const (
	maxSuspects = 1 << 16
	maxBanned   = 1 << 16
)

// banKind says what a suspect is known by.
type banKind byte

const (
	byAddress banKind = iota
	byClientID
	byUsername
)

// Keys of the log.
var banKinds = [...]string{"address", "client", "username"}

// suspect stands for an address, a client identifier or a username.
type suspect uint64

// offence says what a suspect is counted for.
type offence byte

const (
	authFailure offence = iota
	flapping
)

var offences = [...]string{"authentication failed too often", "connected too often"}

// count is the offences of one suspect within a window.
type count struct {
	began int64
	n     int
}

// bans remembers who misbehaved and who is shut out. It is asked at CONNECT, and
// by the transport when a connection comes in. Any goroutine.
type bans struct {
	seed   maphash.Seed // immutable
	active atomic.Int64 // of until, those included that have run out
	total  atomic.Int64

	mu     sync.Mutex
	counts map[suspectOffence]count // guarded by mu
	until  map[suspect]int64        // guarded by mu
	next   int64                    // guarded by mu: no ban ends before, as far as is known
}

type suspectOffence struct {
	suspect
	offence
}

func newBans() bans {
	return bans{seed: maphash.MakeSeed(), counts: make(map[suspectOffence]count), until: make(map[suspect]int64), next: maxTime}
}

// named is the suspect with a client identifier or username.
func (b *bans) named(k banKind, name string) suspect {
	var h maphash.Hash
	h.SetSeed(b.seed)
	h.WriteByte(byte(k))
	h.WriteString(name)
	return suspect(h.Sum64())
}

// at is the suspect with an address; all of an IPv6 network of 64 bits is one.
func (b *bans) at(a netip.Addr) suspect {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits) // it cannot fail
	bytes := p.Addr().As16()
	var h maphash.Hash
	h.SetSeed(b.seed)
	h.WriteByte(byte(byAddress))
	h.Write(bytes[:])
	return suspect(h.Sum64())
}

// banned reports whether s is shut out at the time now.
func (b *bans) banned(s suspect, now int64) bool {
	if b.active.Load() == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	until, ok := b.until[s]
	if ok && now >= until {
		delete(b.until, s)
		b.active.Store(int64(len(b.until)))
		return false
	}
	return ok
}

// note counts an offence of s and bans it with the most-th within a window. It
// reports whether this was the one.
func (b *bans) note(s suspect, o offence, most int, rules *Bans, now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := suspectOffence{s, o}
	c, ok := b.counts[key]
	if !ok {
		b.makeRoom(now, int64(rules.Window))
	}
	if c.n == 0 || now-c.began >= int64(rules.Window) {
		c = count{began: now}
	}
	if c.n++; c.n < most {
		b.counts[key] = c
		return false
	}
	delete(b.counts, key)
	if len(b.until) >= maxBanned && now >= b.next {
		b.forget(now)
	}
	if len(b.until) >= maxBanned {
		return false
	}
	b.until[s] = now + int64(rules.Time)
	b.next = min(b.next, b.until[s])
	b.active.Store(int64(len(b.until)))
	b.total.Add(1)
	return true
}

// makeRoom sees that one more suspect fits: those whose window has passed are
// forgotten and, if that is not enough, any half of them.
func (b *bans) makeRoom(now, window int64) {
	if len(b.counts) < maxSuspects {
		return
	}
	for s, c := range b.counts {
		if now-c.began >= window {
			delete(b.counts, s)
		}
	}
	for s := range b.counts {
		if len(b.counts) <= maxSuspects/2 {
			return
		}
		delete(b.counts, s)
	}
}

// forget drops the bans that have run out. It looks at all of them.
func (b *bans) forget(now int64) {
	b.next = maxTime
	for s, until := range b.until {
		if now >= until {
			delete(b.until, s)
		} else {
			b.next = min(b.next, until)
		}
	}
	b.active.Store(int64(len(b.until)))
}

// sweep is forget for $SYS, which is to say how many there are.
func (b *bans) sweep(now int64) {
	if b.active.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if now >= b.next {
		b.forget(now)
	}
}

// Banned reports whether connections from a are shut out for now. The transport
// asks it before it spends anything on one. Any goroutine.
func (b *Broker) Banned(a netip.Addr) bool {
	return a.IsValid() && b.bans.active.Load() > 0 && b.bans.banned(b.bans.at(a), b.clock())
}

// clock is the time since the broker was made, for what runs on no loop.
func (b *Broker) clock() int64 { return int64(time.Since(b.born)) }

// checkBans refuses a client that is shut out.
func (c *client) checkBans(p *wire.Connect) error {
	b := &c.b.bans
	if b.active.Load() == 0 || c.conn.Info().Exempt {
		return nil
	}
	now := c.b.clock()
	remote := c.conn.Info().Remote.Addr()
	if remote.IsValid() && b.banned(b.at(remote), now) ||
		b.banned(b.named(byClientID, p.ClientID), now) ||
		p.HasUsername && b.banned(b.named(byUsername, p.Username), now) {
		c.b.refused.banned.Add(1)
		return refusal(wire.Banned, "banned for a while")
	}
	return nil
}

// offend counts an offence of the client that c.pending is about.
func (c *client) offend(o offence) {
	rules := &c.b.live.Load().Bans
	most := rules.AuthFailures
	if o == flapping {
		most = rules.Connects
	}
	if most == 0 || c.conn.Info().Exempt {
		return
	}
	now := c.b.clock()
	note := func(k banKind, s suspect, who string) {
		if c.b.bans.note(s, o, most, rules, now) {
			c.b.banLog(now, k, who, o, rules)
		}
	}
	if a := c.conn.Info().Remote.Addr(); rules.Address && a.IsValid() {
		note(byAddress, c.b.bans.at(a), a.String())
	}
	p := c.pending.connect
	switch {
	case o == flapping && rules.ClientID:
		note(byClientID, c.b.bans.named(byClientID, p.ClientID), p.ClientID)
	case o == authFailure && rules.Username && p.HasUsername:
		note(byUsername, c.b.bans.named(byUsername, p.Username), p.Username)
	}
}

// banLog tells of a ban, seldom enough for an attacker not to fill the log.
func (b *Broker) banLog(now int64, k banKind, who string, o offence, rules *Bans) {
	b.seldom.mu.Lock()
	missed, ok := b.seldom.bans.Allow(now)
	b.seldom.mu.Unlock()
	if ok {
		b.log.Warn("banned", banKinds[k], who, "because", offences[o], "for", rules.Time, "others", missed)
	}
}
