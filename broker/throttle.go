package broker

import "hashplus/transport/link"

// throttle paces one client's publishing. Each rate is kept as a time: that at
// which all that was published so far would have been, at the rate. It trails
// the clock by a second at the most, which is the burst that is allowed. It
// belongs to the client's loop.
type throttle struct {
	c        *client
	messages int64
	bytes    int64
	paused   bool
	timer    link.Timer
}

// pace counts a PUBLISH of c, of size bytes, and pauses its reads once it has
// published all that it may by now.
func (c *client) pace(size int) {
	live := c.b.live.Load()
	if live.PublishRate == 0 && live.PublishBytes == 0 {
		return
	}
	t := c.throttle
	if t == nil {
		t = &throttle{c: c}
		t.timer.Owner = t
		c.throttle = t
	}
	now := c.l.now()
	resume := int64(0)
	if r := int64(live.PublishRate); r > 0 {
		t.messages = max(t.messages, now-second) + second/r
		if t.messages >= now {
			resume = t.messages + second/r // the next one fits then
		}
	}
	if r := int64(live.PublishBytes); r > 0 {
		t.bytes = max(t.bytes, now-second) + int64(size)*second/r
		if t.bytes >= now {
			resume = max(resume, t.bytes)
		}
	}
	if resume > 0 && !t.paused {
		t.paused = true
		bump(&c.l.stats.throttled, 1)
		c.hold()
		c.l.arm(&t.timer, resume)
	}
}

// Expire implements link.Expirer: the client may publish again.
func (t *throttle) Expire(*link.Timer) {
	if t.paused {
		t.paused = false
		t.c.unhold()
	}
}

// end stops the timer: the connection has gone.
func (t *throttle) end() {
	if t != nil {
		t.paused = false
		t.c.l.link.Disarm(&t.timer)
	}
}
