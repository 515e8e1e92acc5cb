package vulnerabilities

import (
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hashplus/bench/codec"
)

var random = flag.Duration("random", 2*time.Second, "how long TestRandom goes on")

// What no list has: clients of a few sessions that send packets in any order,
// some of them changed, over TCP and in frames cut anywhere, and go away at any
// moment, to a broker with every feature that packets reach.
func TestRandom_PacketsInAnyOrderAndChanged(t *testing.T) {
	b := open(t, "--data="+t.TempDir(), "--loops=2", "--ws-deflate", "--acl="+file(t, "topic readwrite #\npattern readwrite x/%c/#\n"), "--log-level=error")
	whole := who{id: "one", resume: true, expiry: 100, window: 2, aliases: 3, will: &will{topic: "w", payload: "p", qos: 1}}
	connects := [][]byte{
		whole.connect(),
		who{id: "two", resume: true, expiry: 1000}.connect(),
		who{v3: true, id: "three", resume: true, will: &will{topic: "w", payload: "x", retain: true}}.connect(),
	}
	packets := [][]byte{
		packet(0x34, "a", uint16(1), props(0x01, 1, 0x02, uint32(9), 0x08, "r", 0x09, "c", 0x03, "t", 0x23, uint16(1), 0x26, "k", "v"), []byte("p")),
		packet(0x33, "a/b", uint16(2), props(0x02, uint32(1)), []byte("retained")),
		packet(0x31, "a/b", props()),
		packet(0x32, "a/x", uint16(7), []byte("3.1.1")),
		packet(0x40, uint16(1), 0, props(0x1f, "why", 0x26, "k", "v")),
		packet(0x50, uint16(1), 0, props(0x1f, "why")),
		packet(0x50, uint16(2)),
		packet(0x62, uint16(1), 0, props()),
		packet(0x70, uint16(1)),
		packet(0x82, uint16(1), props(0x0b, 5, 0x26, "k", "v"), "a/+/b", 1, "$share/g/a", 2, "#", 2, "+/#", 1, "$SYS/#", 0, "$reply/self", 0),
		packet(0x82, uint16(3), "a/#", 2),
		packet(0xa2, uint16(1), props(0x26, "k", "v"), "a/+/b", "b", "$share/g/a"),
		packet(0xe0, 4, props(0x11, uint32(1), 0x1f, "why")),
		packet(0xf0, 0x19, props(0x15, "SCRAM-SHA-256", 0x16, "data")),
		{0xc0, 0},
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	end := time.Now().Add(*random)
	var connections atomic.Int64
	var wg sync.WaitGroup
	for g := range uint64(16) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, g))
			for time.Now().Before(end) {
				stream := append([]byte(nil), connects[r.IntN(len(connects))]...)
				if r.IntN(4) == 0 {
					stream = changed(r, stream)
				}
				for range r.IntN(20) {
					p := append([]byte(nil), packets[r.IntN(len(packets))]...)
					if r.IntN(3) == 0 {
						p = changed(r, p)
					}
					stream = append(stream, p...)
				}
				address := b.tcp
				if r.IntN(2) == 0 {
					address, stream = b.ws, framed(r, stream)
				}
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(30 * time.Millisecond)) // on a socket that is open
				_, _ = c.Write(stream)                                   // it need not be taken
				_, _ = io.Copy(io.Discard, io.LimitReader(c, 64<<10))    // the end, or the deadline
				if r.IntN(2) == 0 {
					_ = c.(*net.TCPConn).SetLinger(0) // a reset
				}
				_ = c.Close()
				connections.Add(1)
			}
		})
	}
	wg.Wait()
	t.Logf("%d connections, peak RSS %d MiB", connections.Load(), b.peak())
}

// changed is p with up to three bytes changed, left out or put in.
func changed(r *rand.Rand, p []byte) []byte {
	for range 1 + r.IntN(3) {
		i := r.IntN(len(p))
		switch r.IntN(4) {
		case 0:
			p[i] = byte(r.Uint32())
		case 1:
			p[i] ^= 1 << r.IntN(8)
		case 2:
			p = append(p[:i:i], append([]byte{byte(r.Uint32())}, p[i:]...)...)
		case 3:
			if len(p) > 1 {
				p = append(p[:i:i], p[i+1:]...)
			}
		}
	}
	return p
}

// framed is a WebSocket's bytes: the upgrade, and stream in frames, one or the
// other of them changed.
func framed(r *rand.Rand, stream []byte) []byte {
	b := []byte(handshake + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
	for len(stream) > 0 {
		n := 1 + r.IntN(len(stream))
		f := codec.AppendFrame(nil, codec.OpBinary, r.Uint32(), stream[:n])
		if r.IntN(30) == 0 {
			f[r.IntN(min(8, len(f)))] ^= 1 << r.IntN(8)
		}
		b, stream = append(b, f...), stream[n:]
	}
	if r.IntN(20) == 0 {
		b[r.IntN(len(b))] = byte(r.Uint32())
	}
	return b
}
