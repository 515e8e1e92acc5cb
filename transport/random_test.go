package transport

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"hashplus/transport/link"
)

// mischief is an echo that does everything a Stream may do, at random: moves,
// pauses, partial use, yields, both kinds of write, closes. It checks what it
// is promised.
type mischief struct {
	t      *testing.T
	loops  []link.Loop
	conn   link.Conn
	rng    *rand.Rand
	paused bool
	moving bool
	ended  bool // Close or Abort was called
	closed chan struct{}
	told   bool
}

// at checks that a callback is due.
func (m *mischief) at(what string) {
	if m.told {
		m.t.Errorf("%s after Closed", what)
	}
	if m.moving {
		m.t.Errorf("%s after Move", what)
	}
}

func (m *mischief) Data(b []byte) int {
	m.at("Data")
	if m.paused || m.ended {
		m.t.Errorf("Data while paused (%v) or ended (%v)", m.paused, m.ended)
	}
	if len(b) == 0 {
		m.t.Error("Data without data")
	}
	n := len(b)
	if m.rng.IntN(3) == 0 {
		n = 1 + m.rng.IntN(n)
	}
	if m.rng.IntN(2) == 0 {
		send(m.conn, b[:n])
	} else {
		f := m.conn.Framing()
		if f.Compressed() {
			f = link.WebSocket
		}
		head := m.conn.Reserve(f.HeaderLen(n))
		f.PutHeader(head, n)
		m.conn.WriteShared(bytes.Clone(b[:n]), counted{new(int)})
	}
	m.act(n < len(b))
	return n
}

// act does something at random. left: bytes are left over, so they must be asked for.
func (m *mischief) act(left bool) {
	switch r := m.rng.IntN(1000); {
	case r < 2:
		m.ended = true
		m.conn.Abort()
	case r < 4:
		m.ended = true
		m.conn.Close(link.CloseNormal, "enough")
	case r < 100:
		m.moving = true
		m.conn.Move(m.rng.IntN(len(m.loops)))
	case r < 200:
		m.paused = true
		m.conn.Pause()
		m.later(m.conn.Loop())
		if r < 120 {
			m.moving = true
			m.conn.Move(m.rng.IntN(len(m.loops)))
		}
	case r < 250:
		m.conn.NotifyBelow(m.rng.IntN(5000))
		fallthrough
	default:
		if left {
			m.conn.Yield()
		}
	}
}

// later resumes from a task, wherever the connection is then.
func (m *mischief) later(l link.Loop) {
	l.Send(m.rng.IntN(len(m.loops)), link.TaskFunc(func(l link.Loop) { resumer{m}.Run(l) }))
}

// resumer runs until it finds its connection at rest on its loop. The loop of a
// connection may be read only there, so it visits them in turn.
type resumer struct{ m *mischief }

func (r resumer) Run(l link.Loop) {
	for _, c := range l.(*loop).slots {
		if c == nil || c.stream != link.Stream(r.m) {
			continue
		}
		m := r.m
		if m.moving {
			break // it is still here, but not for us to touch
		}
		if m.paused && !m.told {
			m.paused = false
			m.conn.Resume()
		}
		return
	}
	select {
	case <-r.m.closed:
	default:
		l.Send((l.ID()+1)%len(r.m.loops), r)
	}
}

func (m *mischief) Arrived() {
	if m.told || !m.moving {
		m.t.Errorf("Arrived after Closed (%v), without Move (%v)", m.told, !m.moving)
	}
	m.moving = false
	if m.rng.IntN(4) == 0 {
		m.moving = true
		m.conn.Move(m.rng.IntN(len(m.loops)))
	}
}

func (m *mischief) Writable()                { m.at("Writable"); m.act(true) }
func (m *mischief) Stalled()                 { m.at("Stalled") }
func (m *mischief) Dismissed(link.Dismissal) { m.at("Dismissed") }

func (m *mischief) Closed(error) {
	if m.told {
		m.t.Error("Closed twice")
	}
	m.told = true
	close(m.closed)
}

type mischievous struct {
	t    *testing.T
	seed uint64

	mu      sync.Mutex
	loops   []link.Loop
	streams []*mischief
}

func (h *mischievous) Start(loops []link.Loop) { h.loops = loops }
func (h *mischievous) Tick(link.Loop) bool     { return false }

func (h *mischievous) Open(c link.Conn) link.Stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := &mischief{t: h.t, loops: h.loops, conn: c, closed: make(chan struct{}),
		rng: rand.New(rand.NewPCG(h.seed, uint64(len(h.streams))))}
	h.streams = append(h.streams, m)
	return m
}

// Whatever a stream does, callbacks come when they are due, each connection ends
// once, and what is echoed is a prefix of what was sent; all of it, unless the
// stream ended the connection.
func TestConn_KeepsItsPromisesUnderRandomUse(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	overAll(t, func(t *testing.T, k kind) {
		h := &mischievous{t: t, seed: seed}
		s := start(t, Options{Loops: 3, ReadBudget: 10_000, DrainTimeout: 30 * time.Millisecond, CloseTimeout: time.Second}, h)
		var clients sync.WaitGroup
		for i := range 12 {
			nc := k.dial(t, s, Listener{})
			clients.Go(func() {
				sent := noise(20_000 * (1 + i%5))
				go func() {
					writeParts(nc, sent, 3000)
				}()
				nc.SetReadDeadline(time.Now().Add(time.Minute))
				got := make([]byte, len(sent))
				n, err := io.ReadFull(nc, got)
				if !bytes.HasPrefix(sent, got[:n]) {
					t.Error("the echo differs")
				}
				if ne, ok := err.(interface{ Timeout() bool }); ok && ne.Timeout() {
					t.Errorf("%d of %d bytes, then silence", n, len(sent))
				}
				nc.Close()
			})
		}
		clients.Wait()
		waitFor(t, "every connection goes", func() bool { return s.Conns() == 0 })
		h.mu.Lock()
		defer h.mu.Unlock()
		for i, m := range h.streams {
			select {
			case <-m.closed:
			case <-time.After(time.Minute):
				t.Errorf("stream %d was not told of its end", i)
			}
		}
	})
}
