//go:build nightly

package clients

import (
	"testing"
	"time"
)

// idleTime is longer than any idle timer on the way that tests meet.
const idleTime = 5*time.Minute + 30*time.Second

func TestNightly_IdleClientStaysConnected(t *testing.T) {
	t.Parallel()
	type idler struct {
		kind
		client
		topic string
	}
	var all []idler
	for _, l := range libraries() {
		for _, scheme := range l.schemes {
			for _, version := range l.versions {
				i := idler{kind: kind{l, version, scheme}, topic: room(t)}
				i.client, _ = i.dial(t, setup{KeepAlive: 60})
				mustSubscribe(t, i, subscription{Filter: i.topic, QoS: 1})
				all = append(all, i)
			}
		}
	}
	time.Sleep(idleTime) // once for all of them
	other, _ := all[0].dial(t, setup{})
	for _, i := range all {
		t.Run(i.String(), func(t *testing.T) {
			mustPublish(t, other, text(i.topic, 1, "still there"))
			i.inbox().take(t, 1)
			if i.inbox().downs > 0 {
				t.Errorf("the connection was lost %d times", i.inbox().downs)
			}
		})
	}
}
