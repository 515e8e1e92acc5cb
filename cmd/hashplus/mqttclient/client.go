package mqttclient

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Client is one client of a server, over as many connections as it takes. All
// methods are safe from any goroutine.
type Client struct {
	opts Options
	drv  driver
	stop context.CancelFunc
	done chan struct{} // closed when the client has ended

	subscribing sync.Mutex // one SUBSCRIBE at a time, so that subs is in order

	lost <-chan error // of the latest connection; owned by Dial, then by run

	mu       sync.Mutex    // guards the rest
	up       bool          // whether a connection is up
	turn     uint64        // counts the times that up was set
	change   chan struct{} // closed and replaced when up is set
	session  *span         // of the latest connection; nil before the first
	info     Connected
	subs     []Subscription
	err      error // why the client ended; nil after Close
	withWill bool
}

// span is a length of time in which the server kept our session state: its
// context ends when a connection begins without it, which is when requests that
// wait for an acknowledgement will not get one.
type span struct {
	ctx    context.Context
	cancel context.CancelFunc
}

// Dial connects and returns once the first connection is up, or with the
// reason why not: at once, or with o.RetryFirst after trying until ctx ends or
// an attempt shows that more of them cannot help. ctx is for Dial only; Close
// ends the client. Errors are *Error, the context's, or about o itself.
func Dial(ctx context.Context, o Options) (*Client, error) {
	if o.URL == nil {
		return nil, errors.New("no URL to connect to")
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnMessage == nil {
		o.OnMessage = func(Message) bool { return true }
	}
	run, stop := context.WithCancel(context.Background())
	c := &Client{opts: o, stop: stop, done: make(chan struct{}), change: make(chan struct{})}
	if o.Version == V5 {
		c.drv = newV5(&c.opts, o.OnMessage)
	} else {
		c.drv = newV3(&c.opts, o.OnMessage)
	}
	first, cancel := context.WithCancel(run)
	defer cancel()
	detach := context.AfterFunc(ctx, cancel)
	defer detach()
	info, err := c.connect(first, true, 0)
	if err != nil {
		stop()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	c.setUp(info)
	go c.run(run)
	return c, nil
}

// Info is what the server said when it accepted the latest connection.
func (c *Client) Info() Connected {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.info
}

// Done is closed when the client has ended: by Close, or because the connection
// was lost and will not be made again. Err then says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the client ended, nil after Close.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close disconnects and waits until nothing of the client runs any more.
func (c *Client) Close() { c.close(false) }

// CloseWithWill disconnects so that the server publishes the will: with reason
// 0x04, or in 3.x without DISCONNECT.
func (c *Client) CloseWithWill() { c.close(true) }

func (c *Client) close(withWill bool) {
	c.mu.Lock()
	c.withWill = withWill
	c.mu.Unlock()
	c.stop()
	<-c.done
}

// Publish returns when the message has been acknowledged as its QoS asks (at
// once for QoS 0), however many connections that takes, with the reason code of
// that: 0, or 0x10 if nobody subscribes (5.0).
func (c *Client) Publish(ctx context.Context, m Message) (reason byte, err error) {
	err = c.attempt(ctx, func(ctx context.Context) error {
		reason, err = c.drv.publish(ctx, &m)
		return err
	})
	return reason, err
}

// Subscribe subscribes and returns the reason code for each filter, granted QoS
// or failure. Filters that were granted are subscribed to again when a later
// connection begins without the session. A refusal is not an error here.
func (c *Client) Subscribe(ctx context.Context, subs ...Subscription) (reasons []byte, err error) {
	c.subscribing.Lock()
	defer c.subscribing.Unlock()
	err = c.attempt(ctx, func(ctx context.Context) error {
		reasons, err = c.drv.subscribe(ctx, subs)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range reasons {
		if r < 0x80 {
			c.subs = append(c.subs, subs[i])
		}
	}
	return reasons, nil
}

// maxAttempts is how many connections in a row may be lost under one request. A
// 3.x server answers what it does not like by closing the connection, and would
// do so for ever.
const maxAttempts = 4

// attempt makes a request on the connection that is up, and again on the next
// one if the connection or the session was lost under it.
func (c *Client) attempt(ctx context.Context, request func(context.Context) error) error {
	for n := 1; ; n++ {
		s, turn, err := c.awaitUp(ctx)
		if err != nil {
			return err
		}
		both, cancel := context.WithCancel(ctx)
		detach := context.AfterFunc(s.ctx, cancel)
		err = request(both)
		detach()
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case s.ctx.Err() == nil && !errors.Is(err, errLost):
			return err
		case n == maxAttempts:
			return &Error{Stage: Running, Text: "the connection was lost under each attempt to make the request", Fatal: true, Err: err}
		case s.ctx.Err() != nil:
		default:
			// The library may know of a loss before its hook told us. Waiting
			// keeps this from spinning on a connection that looks up.
			if !c.awaitTurn(ctx, turn) {
				return &Error{Stage: Running, Text: "the request failed", Err: err}
			}
		}
	}
}

// awaitUp waits for a connection.
func (c *Client) awaitUp(ctx context.Context) (*span, uint64, error) {
	for {
		c.mu.Lock()
		up, s, turn, change := c.up, c.session, c.turn, c.change
		c.mu.Unlock()
		if up {
			return s, turn, nil
		}
		select {
		case <-change:
		case <-c.done:
			if err := c.Err(); err != nil {
				return nil, 0, err
			}
			return nil, 0, &Error{Stage: Running, Text: "the client is closed", Fatal: true}
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

// awaitTurn waits until the connection of that turn is no longer up, or reports
// false after 5 s.
func (c *Client) awaitTurn(ctx context.Context, turn uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		c.mu.Lock()
		same, change := c.turn == turn, c.change
		c.mu.Unlock()
		if !same {
			return true
		}
		select {
		case <-change:
		case <-ctx.Done():
			return false
		}
	}
}
