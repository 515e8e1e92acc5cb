//go:build nightly

package crash

import (
	"syscall"
	"testing"
	"time"
)

// The death of the process takes nothing that the operating system has,
// whatever is synced; only the loss of power does.
func TestSIGKILL_WithLazySync(t *testing.T) {
	for _, policy := range []string{"interval=10ms", "never"} {
		t.Run(policy, func(t *testing.T) {
			p := &plan{seed: seed(t), rounds: 10, stay: 900 * time.Millisecond}
			if r := run(t, durable(t, syscall.SIGKILL, "--sync="+policy), p); !r.clean() || r.acked == 0 {
				t.Error(r)
			}
		})
	}
}
