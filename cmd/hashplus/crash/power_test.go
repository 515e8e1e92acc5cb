package crash

import (
	"testing"
	"time"

	"hashplus/broker/store"
)

// Power goes: what was not synced is lost. Nothing of that was acknowledged.
func TestPowerLoss_NothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	for name, kept := range map[string]int{"nothing unsynced survives": 0, "half of it": 50} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &plan{seed: seed(t), rounds: 6, life: 400 * time.Millisecond, stay: 500 * time.Millisecond}
			if r := run(t, newPowerCut(t, p.seed, store.SyncAlways, kept), p); !r.clean() || r.acked == 0 {
				t.Error(r)
			}
		})
	}
}

// The harness can fail: with --sync never the loss of power takes what was
// acknowledged.
func TestHarness_SeesWhatSyncNeverLoses(t *testing.T) {
	t.Parallel()
	p := &plan{seed: seed(t), rounds: 3, life: 500 * time.Millisecond, stay: 500 * time.Millisecond}
	if r := run(t, newPowerCut(t, p.seed, store.SyncNever, 0), p); r.lost == 0 {
		t.Errorf("the harness sees no loss: %v", r)
	}
}

// Commits that nobody waited for may survive a crash or not.
func TestSlowStore_NothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	p := &plan{seed: seed(t), rounds: rounds(t, 12), life: 200 * time.Millisecond, stay: 300 * time.Millisecond}
	if r := run(t, newSlow(p.seed), p); !r.clean() || r.acked == 0 {
		t.Error(r)
	}
}
