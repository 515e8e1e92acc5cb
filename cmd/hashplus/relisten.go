package main

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"syscall"
	"time"

	"hashplus/transport"
)

// relistening is what a reload makes of the listeners.
type relistening struct {
	r      *reloader
	server *transport.Server
	next   *configuration

	listeners []listenerConfig   // those of next, with their URLs
	updates   []func()           // of those that stay
	removed   []*retiring        // those that go
	added     []*transport.Bound // those that come
	places    []int              // of added, in listeners
}

// retiring is a listener that goes.
type retiring struct {
	listenerConfig
	retired *transport.Retired // nil as long as it listens
}

// liveListeners has reloads open, close and change listeners. finish, which is to
// be called last of all parts, registers what opens them: whoever comes in by a new
// listener finds all else in force, and by one that goes nobody comes in meanwhile.
func (r *reloader) liveListeners(s *transport.Server) (finish func()) {
	var now *relistening
	r.live(func(next *configuration) (func(), error) {
		now = &relistening{r: r, server: s, next: next, listeners: slices.Clone(next.Listeners)}
		if err := now.prepare(); err != nil {
			return nil, err
		}
		return now.change, nil
	}, liveListenerOptions...)
	return func() {
		r.live(func(*configuration) (func(), error) { return func() { now.open() }, nil }, "listeners", "ws", "tcp", "wss", "tls", "unix")
	}
}

// prepare checks all changes, and binds the sockets of the listeners that come. A
// fault of any part undoes it.
func (l *relistening) prepare() error {
	var faults []error
	is := l.r.running.Listeners
	places := matched(is, l.next.Listeners)
	for i, j := range places {
		if j < 0 {
			l.removed = append(l.removed, &retiring{listenerConfig: is[i]})
			continue
		}
		to := &l.listeners[j]
		to.listens = is[i].listens
		apply, err := l.server.PrepareUpdate(to.listens, to.listener(l.next))
		if err != nil {
			faults = append(faults, err)
			continue
		}
		l.updates = append(l.updates, func() {
			apply()
			if !sameListener(is[i], *to) {
				l.r.log.Info("a listener has new settings", "listener", to.url())
			}
		})
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	for j := range l.listeners {
		if slices.Contains(places, j) {
			continue
		}
		b, err := l.bind(&l.listeners[j])
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: cannot listen on %s: %w", l.listeners[j].key, l.listeners[j].url(), err))
			continue
		}
		l.r.onFault(b.Close)
		l.added, l.places = append(l.added, b), append(l.places, j)
	}
	return errors.Join(faults...)
}

// bind makes the socket of a listener that comes. Where one that goes has its port
// it has to make room, for as long as it takes to see whether that helps.
func (l *relistening) bind(c *listenerConfig) (*transport.Bound, error) {
	b, err := l.server.Bind(c.listener(l.next))
	if !errors.Is(err, syscall.EADDRINUSE) || c.Network == "unix" {
		return b, err
	}
	made := false
	for _, g := range l.removed {
		if g.retired != nil || !samePort(g.Address, c.Address) {
			continue
		}
		retired, err := l.server.Retire(g.listens)
		if err != nil {
			return nil, err
		}
		g.retired, made = retired, true
		l.r.onFault(func() {
			if err := retired.Restore(); err != nil {
				l.r.log.Error("a listener could not be opened again", "listener", g.url(), "cause", err)
			}
		})
	}
	if !made {
		return nil, err
	}
	return l.server.Bind(c.listener(l.next))
}

func samePort(a, b string) bool {
	_, one, err1 := net.SplitHostPort(a)
	_, two, err2 := net.SplitHostPort(b)
	return err1 == nil && err2 == nil && one == two
}

// change puts new settings in force, and closes the listeners that go. Their
// connections are sent away as in a drain.
func (l *relistening) change() {
	l.next.warn(l.r.log)
	for _, update := range l.updates {
		update()
	}
	for _, g := range l.removed {
		if g.retired == nil {
			var err error
			if g.retired, err = l.server.Retire(g.listens); err != nil {
				l.r.log.Warn("a listener had ended before it was closed", "listener", g.url(), "cause", err)
				continue
			}
		}
		g.retired.Dismiss(time.Duration(l.next.Drain) / 4 * 3)
		l.r.log.Info("a listener is closed; its connections are sent away", "listener", g.url(), "within", l.next.Drain)
	}
}

// open has the listeners that come accept.
func (l *relistening) open() {
	for i, b := range l.added {
		c := &l.listeners[l.places[i]]
		c.listens = b.URL()
		b.Serve()
		l.r.log.Info("a listener is opened", "listener", c.listens)
		_, _ = fmt.Fprintln(l.r.env.stdout, "listening", c.clients()) // it serves, whoever reads that
	}
	l.r.running.Listeners = l.listeners
}

// matched finds each listener of is among those of next by its socket: it
// returns their places, -1 for one that is not there.
func matched(is, next []listenerConfig) []int {
	places := make([]int, len(is))
	for i := range is {
		places[i] = -1
		for j := range next {
			// With port 0 there may be several: they keep their order.
			if is[i].Network == next[j].Network && is[i].Address == next[j].Address && !slices.Contains(places[:i], j) {
				places[i] = j
				break
			}
		}
	}
	return places
}

// sameSockets reports whether the listeners of both are on the same sockets.
func sameSockets(a, b []listenerConfig) bool {
	return len(a) == len(b) && !slices.Contains(matched(a, b), -1)
}

// sameListener compares two listeners, not where or how they were written.
func sameListener(a, b listenerConfig) bool {
	for _, l := range []*listenerConfig{&a, &b} {
		l.key, l.URL, l.listens, l.own = "", "", "", nil
	}
	return reflect.DeepEqual(a, b)
}

// sameListeners reports whether two lists of listeners have the same sockets, and
// their listeners the same settings but for what they take from flags.
func sameListeners(a, b []listenerConfig) bool {
	if !sameSockets(a, b) {
		return false
	}
	for i, j := range matched(a, b) {
		if !sameListener(a[i], b[j]) && !sameListener(*a[i].own, *b[j].own) {
			return false
		}
	}
	return true
}
