package link

// Timer is embedded in what it belongs to, so arming allocates nothing. The
// zero value with Owner set is ready. A Timer must not be copied while armed,
// and is armed on one loop at a time.
type Timer struct {
	// Owner is told of the expiry.
	Owner Expirer

	next, prev *Timer
	at         int64
}

// Expirer receives timers that expired, on the loop they were armed on. It may
// arm the timer again.
type Expirer interface{ Expire(t *Timer) }

// Armed reports whether t is scheduled.
func (t *Timer) Armed() bool { return t.next != nil }

// At is the time for which t was last armed.
func (t *Timer) At() int64 { return t.at }
