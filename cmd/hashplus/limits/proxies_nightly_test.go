//go:build nightly

package limits

import (
	"testing"
	"time"
)

// The promise of docs/proxies.md: with the timers and pings that people have, an
// idle client whose keep alive is off stays for ten minutes.
func TestNightly_IdleClientSurvivesProxiesForTenMinutes(t *testing.T) {
	idleBehindProxies(t, "60s", "25s", 10*time.Minute)
}
