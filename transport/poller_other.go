//go:build !linux || nopoll

package transport

import (
	"errors"
	"time"
)

var errNoPoller = errors.New("transport: no poller on this system") // goroutines serve every connection, see pipe

// poller waits for wake only.
type poller struct {
	woken chan struct{}
	timer *time.Timer
}

func (p *poller) init() error {
	p.woken = make(chan struct{}, 1)
	p.timer = time.NewTimer(time.Hour)
	return nil
}

func (p *poller) close() { p.timer.Stop() }

func (p *poller) add(int32, uint32, uint32) error { return errNoPoller }

func (p *poller) listen(int32, uint32) error { return errNoPoller }

func (p *poller) remove(int32) error { return errNoPoller }

// canNap: goroutines sleep here, and tell the scheduler.
const canNap = false

func (p *poller) nap() (n int, alarm bool) { return 0, false }

func (p *poller) setAlarm(at, now int64) {}

// wait returns when woken, or after timeout; 0 does not block, a negative
// timeout has no limit. There are never events.
func (p *poller) wait(timeout time.Duration) int {
	switch {
	case timeout == 0:
	case timeout < 0:
		<-p.woken
	default:
		p.timer.Reset(timeout)
		select {
		case <-p.woken:
		case <-p.timer.C:
		}
	}
	return 0
}

func (p *poller) event(int) (slot, gen uint32, what readiness, ok bool) { return 0, 0, 0, false }

// wake ends a wait that blocks. Any goroutine.
func (p *poller) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}
