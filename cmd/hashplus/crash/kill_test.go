package crash

import (
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

func rounds(t testing.TB, usual int) int {
	v := os.Getenv("HASHPLUS_CRASH_ROUNDS")
	if v == "" {
		return usual
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("HASHPLUS_CRASH_ROUNDS: %v", err)
	}
	return n
}

// The promise: under kill -9, nothing that was acknowledged is lost, nothing at
// QoS 2 comes twice, and each publisher's messages keep their order.
func TestSIGKILL_NothingAcknowledgedIsLost(t *testing.T) {
	p := &plan{seed: seed(t), rounds: rounds(t, 10), stay: 900 * time.Millisecond}
	if r := run(t, durable(t, syscall.SIGKILL), p); !r.clean() || r.acked == 0 {
		t.Error(r)
	}
}

// Clients that the broker waits for in vain, as connections that they have
// forgotten, are part of it.
func TestSIGTERM_NothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	p := &plan{seed: seed(t), rounds: 4, stay: 900 * time.Millisecond}
	if r := run(t, durable(t, syscall.SIGTERM, "--drain=2s"), p); !r.clean() || r.acked == 0 {
		t.Error(r)
	}
}

// Connections end, the broker does not.
func TestCutConnections_NothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	p := &plan{seed: seed(t), rounds: 8, life: 500 * time.Millisecond, stay: 200 * time.Millisecond}
	if r := run(t, durable(t, 0), p); !r.clean() || r.acked == 0 {
		t.Error(r)
	}
}

// The same without a data directory: sessions live in memory.
func TestCutConnectionsInMemory_NothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	p := &plan{seed: seed(t), rounds: 8, life: 500 * time.Millisecond, stay: 200 * time.Millisecond}
	if r := run(t, &process{args: roomy}, p); !r.clean() || r.acked == 0 {
		t.Error(r)
	}
}

// The harness can fail: without a data directory a kill loses what was queued.
func TestHarness_SeesTheLossOfABrokerInMemory(t *testing.T) {
	t.Parallel()
	p := &plan{seed: seed(t), rounds: 2, life: 700 * time.Millisecond, stay: 900 * time.Millisecond}
	r := run(t, &process{args: roomy, signal: syscall.SIGKILL}, p)
	if r.lost == 0 || r.sessions == 0 {
		t.Errorf("the harness sees no loss: %v", r)
	}
}

// TestPeer shows what the harness says of a broker that is known to lose
// messages under kill -9, whatever it is told to save.
func TestPeer(t *testing.T) {
	if os.Getenv("HASHPLUS_CRASH_PEER") != "mosquitto" {
		t.Skip("HASHPLUS_CRASH_PEER is not mosquitto")
	}
	for name, signal := range map[string]syscall.Signal{"SIGKILL": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			p := &plan{seed: seed(t), rounds: rounds(t, 10), stay: 900 * time.Millisecond, foreign: true}
			run(t, newMosquitto(t, signal), p)
		})
	}
}
