package broker

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"hashplus/broker/wire"
)

const (
	// Clients whom Review sends away come back, if only to be refused: they go a
	// thousand a second, and all of them within ten seconds.
	reviewGap  = time.Millisecond
	reviewSpan = 10 * time.Second

	reviewBudget = 4096 // clients that a loop asks about in one go
)

// doorkeepers say who a client is. They are immutable: SetAuthenticators puts
// others in their place.
type doorkeepers struct {
	plain    Authenticator
	enhanced map[string]EnhancedAuthenticator
	reviewer Reviewer // plain, if it is one
	calls    *foreign
}

// holds reports whether a consent from before holds now.
func (d *doorkeepers) holds(username string, grounds any) (yes bool) {
	if d.reviewer == nil {
		return true
	}
	defer d.calls.caught("Reviewer.Holds", username)
	return d.reviewer.Holds(username, grounds)
}

// SetAuthenticators puts a and enhanced in the place of Options.Authenticator and
// Options.EnhancedAuthenticators, for clients that connect or authenticate anew
// from now on. nil and none let everybody in, as they do there. Those that are
// connected stay; see Review. One that is on its way in meanwhile, let in by an
// Authenticator of before, gets in only if a, where it is a Reviewer, agrees. Any
// goroutine.
func (b *Broker) SetAuthenticators(a Authenticator, enhanced ...EnhancedAuthenticator) error {
	d := &doorkeepers{plain: a, enhanced: make(map[string]EnhancedAuthenticator, len(enhanced)), calls: b.calls}
	d.reviewer, _ = a.(Reviewer)
	for _, e := range enhanced {
		if d.enhanced[e.Method()] != nil {
			return fmt.Errorf("broker options: two enhanced authenticators for method %q", e.Method())
		}
		d.enhanced[e.Method()] = e
	}
	b.doorkeepers.Store(d)
	return nil
}

// Review asks the Authenticator in force about every client that is connected, and
// sends those away (NotAuthorized) whose grounds do not hold any more, one after
// the other if they are many. Others are not touched. It returns how many went;
// without a Reviewer nobody does. With ctx's end it gives up. Any goroutine but a
// loop's; one call waits for the other.
func (b *Broker) Review(ctx context.Context) (ended int, err error) {
	b.reviews.Lock()
	defer b.reviews.Unlock()
	if b.doorkeepers.Load().reviewer == nil {
		return 0, nil
	}
	if err := b.each(ctx, (*loop).beginReview); err != nil {
		return 0, err
	}
	counts := make([]int, len(b.loops))
	for more := true; more; {
		left := make([]int, len(b.loops))
		if err := b.each(ctx, func(l *loop) {
			left[l.id] = l.review()
			counts[l.id] = len(l.unproven)
		}); err != nil {
			return 0, err
		}
		more = false
		for _, n := range left {
			more = more || n > 0
		}
	}
	var gone atomic.Int64
	b.oneByOne(ctx, counts, func(total int) time.Duration { return min(reviewSpan/time.Duration(total), reviewGap) },
		func(l *loop, left int) { gone.Add(int64(l.endUnproven(left))) })
	err = b.each(ctx, func(*loop) {}) // those that were sent away last
	return int(gone.Load()), err
}

// beginReview notes the clients that are connected.
func (l *loop) beginReview() {
	l.reviewed, l.unproven = nil, nil
	for _, s := range l.sessions {
		if s.client != nil {
			l.reviewed = append(l.reviewed, s.client)
		}
	}
}

// review asks about some of them, and returns how many are left.
func (l *loop) review() (left int) {
	n := max(len(l.reviewed)-reviewBudget, 0)
	for _, c := range l.reviewed[n:] {
		if !c.proven() {
			l.unproven = append(l.unproven, c)
		}
	}
	clear(l.reviewed[n:])
	l.reviewed = l.reviewed[:n]
	if n == 0 {
		l.reviewed = nil
	}
	return n
}

// proven reports whether c may stay.
func (c *client) proven() bool {
	return c.state != open || c.b.doorkeepers.Load().holds(c.session.username, c.grounds)
}

// endUnproven sends clients away until only left of those that Review found are
// there. Who has been proven meanwhile stays.
func (l *loop) endUnproven(left int) (ended int) {
	for n := len(l.unproven); n > left; n-- {
		c := l.unproven[n-1]
		l.unproven[n-1] = nil
		l.unproven = l.unproven[:n-1]
		if !c.proven() {
			c.fail(errUnproven)
			ended++
		}
	}
	return ended
}

var errUnproven = refusal(wire.NotAuthorized, "the credentials of the client are not valid any more")

// reviewed refuses a client that is to get in as username, or stay, by the word of
// those who do not decide any more.
func (c *client) reviewed(username string) error {
	if d := c.b.doorkeepers.Load(); d != c.pending.asked && !d.holds(username, c.grounds) {
		return errUnproven
	}
	return nil
}
