package mqttclient

import (
	"context"
	"errors"
	"time"
)

// run watches the connection that Dial made and those after it, until the
// client is closed or the connection is lost for good.
func (c *Client) run(ctx context.Context) {
	defer close(c.done)
	defer c.stop()
	short := 0 // connections in a row that did not last
	for {
		began := time.Now()
		select {
		case <-ctx.Done():
			c.mu.Lock()
			withWill := c.withWill
			c.mu.Unlock()
			// The goodbye has a deadline of its own: ctx has ended.
			bye, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			c.drv.disconnect(bye, withWill)
			cancel()
			c.end(nil)
			return
		case cause := <-c.lost:
			var e *Error
			fatal := errors.As(cause, &e) && e.Fatal
			if !c.opts.Reconnect || fatal {
				c.end(cause)
				return
			}
			c.setDown()
			c.opts.Log.Warn("connection lost, connecting again", "cause", cause)
		}
		if short++; time.Since(began) > lasting {
			short = 1
		}
		info, err := c.connect(ctx, false, short)
		if err != nil {
			if ctx.Err() != nil {
				err = nil // closed meanwhile
			}
			c.end(err)
			return
		}
		c.opts.Log.Info("connected again", "session_present", info.SessionPresent)
		c.setUp(info)
	}
}

// lasting is how long a connection must have been up for the waits to begin at
// the shortest again. A server that accepts and then closes is not hammered.
const lasting = 10 * time.Second

// connect makes attempts until one succeeds, one fails for good, or ctx ends.
// It waits as after that many failures before the first one, which is 1 after a
// loss: all clients of a server that went away notice it at the same moment. It
// subscribes again if the server did not keep the session.
func (c *Client) connect(ctx context.Context, first bool, failures int) (Connected, error) {
	for {
		if failures > 0 {
			wait := c.opts.Backoff.Wait(failures)
			if failures > 1 {
				c.opts.Log.Info("waiting to connect", "attempt", failures+1, "wait", wait.Round(time.Millisecond))
			}
			if !sleep(ctx, wait) {
				return Connected{}, ctx.Err()
			}
		}
		try, cancel := context.WithTimeout(ctx, c.opts.ConnectTimeout)
		info, lost, err := c.drv.connect(try, first)
		if err == nil && !first && !info.SessionPresent {
			if err = c.subscribeAgain(try); err != nil {
				c.drv.disconnect(try, false)
			}
		}
		timedOut := try.Err() != nil
		cancel()
		if err == nil {
			c.lost = lost
			return info, nil
		}
		if ctx.Err() != nil {
			return Connected{}, ctx.Err()
		}
		var e *Error
		if !errors.As(err, &e) {
			text := "cannot connect to " + shown(c.opts.URL)
			if timedOut {
				text += " within " + c.opts.ConnectTimeout.String()
			}
			e = &Error{Stage: Dialing, Text: text, Err: err}
		}
		if e.Fatal || first && !c.opts.RetryFirst {
			return Connected{}, e
		}
		failures++
		c.opts.Log.Warn("cannot connect", "attempt", failures, "cause", e)
	}
}

// subscribeAgain repeats the subscriptions of a session that is gone.
func (c *Client) subscribeAgain(ctx context.Context) error {
	c.mu.Lock()
	subs := c.subs[:len(c.subs):len(c.subs)]
	c.mu.Unlock()
	if len(subs) == 0 {
		return nil
	}
	reasons, err := c.drv.subscribe(ctx, subs)
	if err != nil {
		return err
	}
	for i, r := range reasons {
		if r >= 0x80 {
			return &Error{
				Stage: Subscribing, Reason: r, Fatal: true,
				Text: describe("the server no longer grants the subscription to "+subs[i].Filter, r, ""),
			}
		}
	}
	return nil
}

// setUp announces a connection.
func (c *Client) setUp(info Connected) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != nil && !info.SessionPresent {
		c.session.cancel()
		c.session = nil
	}
	if c.session == nil {
		c.session = &span{}
		c.session.ctx, c.session.cancel = context.WithCancel(context.Background())
	}
	c.info = info
	c.set(true)
}

// setDown announces that there is no connection at present.
func (c *Client) setDown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(false)
}

// end announces that there will be none any more, and why.
func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	c.session.cancel()
	c.set(false)
}

// set changes up; mu is held.
func (c *Client) set(up bool) {
	c.up = up
	c.turn++
	close(c.change)
	c.change = make(chan struct{})
}
