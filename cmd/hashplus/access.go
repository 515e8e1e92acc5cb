package main

import (
	"context"
	"log/slog"
	"reflect"
	"sync"

	"hashplus/broker"
	"hashplus/broker/auth"
)

// access reads the files that say who may connect and what clients may do, and
// puts what they say into o. What is only unwise it tells log. Nothing runs yet;
// see liveAuthentication.
func (c *configuration) access(o *broker.Options, log *slog.Logger) (*authentication, error) {
	c.warn(log)
	a, err := c.newAuthentication(nil, log)
	if err != nil {
		return nil, err
	}
	o.Authenticator, o.EnhancedAuthenticators = a.authenticator(), a.enhanced
	o.ReadData = auth.ReadClaims
	o.Authorizer, err = c.permissions(log)
	return a, err
}

// warnOfFiles tells log what is unwise about the files of TLS. A broker that serves
// is told by the listeners.
func (c *configuration) warnOfFiles(log *slog.Logger) {
	for i := range c.Listeners {
		if l := &c.Listeners[i]; l.withTLS() {
			if spec, err := l.spec(); err == nil {
				_ = spec.Check(l.url(), log) // finish has looked at it
			}
		}
	}
}

// warn tells log what of the listeners is allowed, and unwise.
func (c *configuration) warn(log *slog.Logger) {
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if n := everybody(l.TrustedProxies); n != "" {
			log.Warn("everybody is taken for a trusted proxy, and can give any address for its own", "listener", l.url(), "network", n)
		}
	}
}

// liveAuthentication starts the work of what access has made, and registers it for
// reloads: others decide from then on who may connect, and clients who are there by
// credentials that are not valid any more are sent away. The permissions are
// registered before it: by the time that clients get in with claims, these have to
// count.
func (r *reloader) liveAuthentication(b *broker.Broker, now *authentication) (stop func()) {
	reviews := newReviews(b, r.log)
	now.start(nil, reviews.ask)
	keys := append(flagNames(reflect.TypeFor[authConfig]()), "allow-anonymous", "password-file", "scram-file")
	r.live(func(next *configuration) (func(), error) {
		old := now
		a, err := next.newAuthentication(old, r.log)
		if err != nil {
			return nil, err
		}
		return func() {
			if err := b.SetAuthenticators(a.authenticator(), a.enhanced...); err != nil {
				r.log.Error("the authentication of the new configuration is not in force", "cause", err) // each method is its own
				return
			}
			now = a
			a.start(old, reviews.ask)
			old.stop(a)
			reviews.ask()
		}, nil
	}, keys...)
	return func() {
		reviews.stop()
		now.stop(nil)
	}
}

// reviews have the broker look who is connected by credentials that are not valid
// any more, one review after the other and beside all else: if they are many it
// takes seconds.
type reviews struct {
	asked  chan struct{} // has an element if one is to be made
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

func newReviews(b *broker.Broker, log *slog.Logger) *reviews {
	ctx, cancel := context.WithCancel(context.Background())
	v := &reviews{asked: make(chan struct{}, 1), cancel: cancel}
	v.ended.Go(func() {
		for {
			select {
			case <-v.asked:
			case <-ctx.Done():
				return
			}
			n, err := b.Review(ctx)
			if n > 0 {
				log.Info("disconnected clients whose credentials are not valid any more", "clients", n)
			}
			if err != nil {
				return // the broker ends
			}
		}
	})
	return v
}

// ask asks for a review. Any goroutine.
func (v *reviews) ask() {
	select {
	case v.asked <- struct{}{}:
	default:
	}
}

// stop ends them.
func (v *reviews) stop() {
	v.cancel()
	v.ended.Wait()
}
