package bench

import (
	"fmt"
	"time"
)

// pace tells how long a suite will take, from what its parts were expected to
// take and how long those that are done really took.
type pace struct {
	began        time.Time
	total, spent time.Duration // as expected
}

// done: a part is done that was expected to take d.
func (p *pace) done(d time.Duration) { p.spent += d }

// remaining is corrected by how far off the expectation was until now.
func (p *pace) remaining(now time.Time) time.Duration {
	rest := p.total - p.spent
	if p.spent > 0 {
		rest = time.Duration(float64(rest) * float64(now.Sub(p.began)) / float64(p.spent))
	}
	return max(rest, 0)
}

// left is the end of a line of progress.
func (p *pace) left() string {
	if p.total == 0 {
		return ""
	}
	return fmt.Sprintf("  (%.0f %%, %s left)", 100*float64(p.spent)/float64(p.total), minutes(p.remaining(time.Now())))
}

// minutes rounds d for a reader.
func minutes(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%d s", int(d.Round(5*time.Second).Seconds()))
	}
	return fmt.Sprintf("%d min", int(d.Round(time.Minute).Minutes()))
}
