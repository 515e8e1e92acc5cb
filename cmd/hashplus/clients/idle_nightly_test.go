//go:build nightly

package clients

import (
	"testing"
	"time"
)

// idleTime is longer than any idle timer on the way that tests meet.
const idleTime = 5*time.Minute + 30*time.Second

func TestNightly_IdleClientStaysConnected(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		idle, _ := k.dial(t, setup{KeepAlive: 60})
		mustSubscribe(t, idle, subscription{Filter: in, QoS: 1})
		time.Sleep(idleTime)
		other, _ := k.dial(t, setup{})
		mustPublish(t, other, text(in, 1, "still there"))
		idle.inbox().take(t, 1)
		if idle.inbox().downs > 0 {
			t.Errorf("the connection was lost %d times", idle.inbox().downs)
		}
	})
}
