package transport

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"unsafe"

	"hashplus/transport/link"
)

func TestBufPool_GivesRoomAndTakesBack(t *testing.T) {
	var p bufPool
	for _, n := range []int{0, 1, 256, 257, 1024, 1025, 4096, 4097, 16 << 10, 16<<10 + 1, 64 << 10} {
		b := p.get(n)
		if len(b) != 0 || cap(b) < n || n > 256 && cap(b) >= 4*n {
			t.Errorf("get(%d) has length %d, capacity %d", n, len(b), cap(b))
		}
		b = append(b, 1)
		p.put(b)
		if again := p.get(n); unsafe.SliceData(again) != unsafe.SliceData(b) || len(again) != 0 {
			t.Errorf("get(%d) does not give the buffer that was put", n)
		}
	}
	p = bufPool{}
	p.put(make([]byte, 0, 300)) // not one of its sizes
	p.put(p.get(100 << 10))     // too large
	p.put(nil)
	if p.bytes != 0 {
		t.Errorf("%d bytes are kept", p.bytes)
	}
}

func TestBufPool_GrowKeepsTheContent(t *testing.T) {
	var p bufPool
	var b, want []byte
	for i := range 3000 {
		b = append(p.grow(b, 100), noise(100)...)
		want = append(want, noise(100)...)
		if i%500 == 0 && !bytes.Equal(b, want) {
			t.Fatal("content differs")
		}
	}
	if !bytes.Equal(b, want) {
		t.Fatal("content differs")
	}
}

func TestBufPool_TrimGivesBackWhatIsNotNeeded(t *testing.T) {
	var p bufPool
	var bufs [][]byte
	for range 1000 {
		bufs = append(bufs, p.get(1000))
	}
	for _, b := range bufs {
		p.put(b)
	}
	p.trim() // all were needed until now
	for p.trim() {
		if p.bytes > 1000<<10 {
			t.Fatalf("%d bytes", p.bytes)
		}
	}
	if p.bytes != 0 || p.free[1] != nil {
		t.Errorf("%d bytes are left", p.bytes)
	}
}

type counted struct{ n *int }

func (c counted) Release() { *c.n++ }

// Whatever is queued comes out in order, however it is consumed; what was
// shared is released once.
func TestWriteQueue_AgreesWithAPlainBuffer(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		var pool bufPool
		q := &writeQueue{}
		var want, got []byte
		shared, released := 0, 0
		for range 200 {
			switch p := noise(1 + rng.IntN(1<<rng.IntN(16))); rng.IntN(4) {
			case 0:
				shared++
				q.share(p, counted{&released})
				want = append(want, p...)
			case 1, 2:
				b := q.reserve(len(p), &pool)
				if len(b) != len(p) || cap(b) != len(p) {
					t.Fatalf("reserve(%d): %d, %d", len(p), len(b), cap(b))
				}
				copy(b, p)
				want = append(want, p...)
			case 3:
				if q.size == 0 {
					continue
				}
				var all []byte
				for _, b := range q.vector(make([][]byte, 0, 1+rng.IntN(5))) {
					all = append(all, b...)
				}
				if !bytes.HasPrefix(all, q.front()) {
					t.Fatal("front and vector differ")
				}
				n := rng.IntN(len(all) + 1)
				got = append(got, all[:n]...)
				q.consume(n, &pool)
			}
			if q.size != len(want)-len(got) {
				t.Fatalf("size %d, want %d", q.size, len(want)-len(got))
			}
		}
		if !bytes.HasPrefix(want, got) {
			t.Fatal("what came out differs")
		}
		q.drop(&pool)
		if released != shared || q.size != 0 || len(q.segments) != 0 {
			t.Fatalf("%d of %d released, size %d", released, shared, q.size)
		}
	}
}

func TestConn_WritingAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are not counted under the race detector")
	}
	h := newScripted()
	s := start(t, Options{Loops: 1}, h)
	nc := connectListener(t, s, Listener{Network: "tcp"})
	st := next(t, h)
	b := make([]byte, 800)
	var allocs float64
	do(t, st.conn.Loop(), func() {
		c := st.conn.(*conn)
		if c.sock.pipe != nil {
			return // goroutines do
		}
		allocs = testing.AllocsPerRun(100, func() {
			for range 8 {
				copy(c.Reserve(100), b)
			}
			c.loop.flushDirty()
		})
	})
	if allocs != 0 {
		t.Errorf("%v allocations for a burst and its write", allocs)
	}
	nc.Close()
}

func TestLoop_PostAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are not counted under the race detector")
	}
	var m mailbox
	var spare []link.Task
	task := link.Task((*pipeFilled)(nil))
	if n := testing.AllocsPerRun(100, func() {
		for range 10 {
			m.post(task)
		}
		spare = m.take(spare[:0])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
