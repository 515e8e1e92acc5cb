//go:build nightly

package crash

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hashplus/broker/wire"
	"hashplus/cmd/hashplus/launch"
)

// The size of the state, and what is promised of it. HASHPLUS_RECOVERY_SCALE
// divides the numbers, to try the test.
const (
	largeSessions = 100_000 // each with a subscription
	largeRetained = 100_000
	largeQueued   = 1_000_000
	queuedSize    = 1024 // bytes

	startWithin = 3 * time.Second
	rssWithin   = 512 << 20 // bytes, with all of it
)

// large builds the state, through the front door.
type large struct {
	t                          testing.TB
	net                        network
	sessions, retained, queued int
}

// each does something for every i below n, on some connections' worth of
// goroutines.
func each(t testing.TB, workers, n int, do func(worker, i int) error) {
	t.Helper()
	var next atomic.Int64
	var group sync.WaitGroup
	failed := make(chan error, workers)
	for w := range workers {
		group.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(w, i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	group.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
}

func (l *large) connect(id string, clean bool) (*conn, error) {
	c, err := l.net.dial(v5)
	if err != nil {
		return nil, err
	}
	hello := &wire.Connect{Version: v5, ClientID: id, RequestProblem: true, CleanStart: clean}
	if !clean {
		hello.SessionExpiry = 1 << 30
	}
	if err := c.write(hello.Append(nil)); err != nil {
		return nil, err
	}
	_, err = l.expect(c, wire.CONNACK)
	return c, err
}

func (l *large) expect(c *conn, typ wire.Type) (*packet, error) {
	p, err := c.next(time.Now().Add(time.Minute))
	if err == nil && (p.typ != typ || p.reason.Failed()) {
		err = fmt.Errorf("%v in place of %v", p, typ)
	}
	return p, err
}

func (l *large) session(_, i int) error {
	c, err := l.connect(fmt.Sprint("session", i), false)
	if err != nil {
		return err
	}
	defer c.close()
	ask := wire.Subscribe{PacketID: 1, Filters: []wire.Subscription{filter(fmt.Sprint("to/", i%1000, "/", i), 1)}}
	if err := c.write(ask.Append(nil, v5)); err != nil {
		return err
	}
	if _, err := l.expect(c, wire.SUBACK); err != nil {
		return err
	}
	return c.write([]byte{byte(wire.DISCONNECT) << 4, 0})
}

// publish sends n messages at QoS 1 over some connections.
func (l *large) publish(name string, n int, message func(i int) wire.Outgoing) {
	const workers, burst = 40, 50
	conns := make([]*conn, workers)
	for w := range conns {
		c, err := l.connect(fmt.Sprint(name, w), true)
		if err != nil {
			l.t.Fatal(err)
		}
		defer c.close()
		conns[w] = c
	}
	each(l.t, workers, n/burst, func(w, k int) error {
		var out []byte
		for i := k * burst; i < (k+1)*burst; i++ {
			o := message(i)
			o.Version, o.QoS, o.PacketID = v5, 1, uint16(i%burst+1)
			out = appendPublish(out, &o)
		}
		if err := conns[w].write(out); err != nil {
			return err
		}
		for range burst {
			if _, err := l.expect(conns[w], wire.PUBACK); err != nil {
				return err
			}
		}
		return nil
	})
}

// noise is what a store can't compress.
var noise = func() []byte {
	b := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(b) // it never fails
	return b
}()

// payload is message n of session i.
func (l *large) payload(i, n int) []byte {
	at := (i*7919 + n*104_729) % (len(noise) - queuedSize) // neighbours have nothing in common
	b := slices.Clone(noise[at : at+queuedSize])
	copy(b, fmt.Sprintf("message %d for session %d", n, i))
	return b
}

// check has some sessions come back and take what they are owed, in order.
func (l *large) check() {
	l.t.Helper()
	each(l.t, 20, 500, func(_, k int) error {
		i := k * (l.sessions / 500)
		c, err := l.connect(fmt.Sprint("session", i), false)
		if err != nil {
			return err
		}
		defer c.close()
		for n := range l.queued / l.sessions {
			p, err := l.expect(c, wire.PUBLISH)
			if err != nil {
				return fmt.Errorf("session %d, message %d: %w", i, n, err)
			}
			if string(p.publish.Payload) != string(l.payload(i, n)) {
				return fmt.Errorf("session %d: %v in place of message %d", i, p, n)
			}
		}
		return nil // nothing is acknowledged: it comes again after the next start
	})
}

// A broker with 100,000 sessions, 100,000 subscriptions, 100,000 retained and
// 1,000,000 queued messages is ready in 3 s, and its memory does not grow with
// what is queued.
func TestLargeState_RecoversInTimeAndStaysOnDisk(t *testing.T) {
	scale := 1
	if v := os.Getenv("HASHPLUS_RECOVERY_SCALE"); v != "" {
		scale, _ = strconv.Atoi(v)
	}
	dir := t.TempDir()
	args := []string{"--tcp=127.0.0.1:0", "--data=" + dir, "--sys-interval=0s"}
	start := func() *launch.Server {
		b, err := launch.StartListeners(program, 1, 5*time.Minute, args...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	rss := func(b *launch.Server) int {
		n, ok := b.Status("VmRSS")
		if !ok {
			t.Fatal("no RSS")
		}
		return n << 10
	}
	b := start()
	l := &large{t: t, sessions: largeSessions / scale, retained: largeRetained / scale, queued: largeQueued / scale}
	l.net.up(b.Address("mqtt"))
	step := func(what string, do func()) {
		began := time.Now()
		do()
		took := time.Since(began)
		peak, _ := b.Status("VmHWM")
		t.Logf("%s: %.1f s, RSS %d MiB, at most %d MiB", what, took.Seconds(), rss(b)>>20, peak>>10)
	}
	step(fmt.Sprintf("%d sessions with a subscription each", l.sessions), func() { each(t, 64, l.sessions, l.session) })
	step(fmt.Sprintf("%d retained messages", l.retained), func() {
		l.publish("retain", l.retained, func(i int) wire.Outgoing {
			return wire.Outgoing{Retain: true, Topic: fmt.Appendf(nil, "r/%d/%d", i%1000, i), Payload: fmt.Appendf(nil, "retained %d", i)}
		})
	})
	empty := rss(b)
	step(fmt.Sprintf("%d messages of %d bytes queued", l.queued, queuedSize), func() {
		for n := range l.queued / l.sessions { // so that the order of a session's messages is known
			l.publish("queue", l.sessions, func(i int) wire.Outgoing {
				return wire.Outgoing{Topic: fmt.Appendf(nil, "to/%d/%d", i%1000, i), Payload: l.payload(i, n)}
			})
		}
	})
	full := rss(b)
	t.Logf("RSS grew by %.1f bytes per queued message", float64(full-empty)/float64(l.queued))
	if scale == 1 && full > rssWithin {
		t.Errorf("RSS is %d MiB with everything queued, more than %d", full>>20, rssWithin>>20)
	}
	best := time.Hour
	for _, end := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
		if err := b.Signal(end); err != nil {
			t.Fatal(err)
		}
		if err := b.Wait(); err != nil && end == syscall.SIGTERM {
			t.Fatal(err)
		}
		b = start()
		l.net.up(b.Address("mqtt"))
		t.Logf("after %v: ready in %.2f s (%.2f s of CPU), RSS %d MiB, %d MiB on disk", end, b.Took.Seconds(), cpu(t, b.PID), rss(b)>>20, size(dir)>>20)
		best = min(best, b.Took)
		step("500 sessions come back and take their messages", l.check)
	}
	if scale == 1 && best > startWithin { // the machine may have had something else to do, but not each time
		t.Errorf("ready in %v, more than %v", best, startWithin)
	}
	if err := b.Stop(); err != nil {
		t.Error(err)
	}
	if log := b.Faults(); log != "" {
		t.Error(log)
	}
}

// cpu is the processor time that a process has used, in seconds.
func cpu(t testing.TB, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// After the name, which is in brackets: state is field 3, utime 14, stime 15.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return float64(user+system) / 100 // ticks of 10 ms
}

// size is what the files below dir take, in bytes.
func size(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil // a file that goes away meanwhile
	})
	return n
}
