package drive

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"hashplus/bench/codec"
)

// crooked is a broker that is wrong on purpose: forward decides what becomes of
// each delivery. It speaks 3.1.1 over TCP and WebSocket.
type crooked struct {
	t       *testing.T
	l       net.Listener
	forward func(to *seat, m codec.Publish, send func())
	delay   func(m codec.Publish) // called before anything is done with a message

	tls     *tls.Config
	pinged  func()
	greeted func() // called before a CONNECT is answered

	mu    sync.Mutex
	seats []*seat
	wg    sync.WaitGroup
	rooms []net.Conn
}

// seat is one client at the broker.
type seat struct {
	id      string
	filters []codec.Subscription
	w       io.Writer
	ws      bool
	next    uint16
	held    []func() // for a forward that holds deliveries back
	count   int      // deliveries offered, for a forward to count by
	wmu     sync.Mutex
}

// newCrooked starts a broker; set, if not nil, may change how it behaves.
func newCrooked(t *testing.T, set func(*crooked)) *crooked {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &crooked{t: t, l: l, forward: func(_ *seat, _ codec.Publish, send func()) { send() }, delay: func(codec.Publish) {}}
	if set != nil {
		set(b)
	}
	b.wg.Add(1)
	go func() {
		defer b.wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if b.tls != nil {
				c = tls.Server(c, b.tls)
			}
			b.mu.Lock()
			b.rooms = append(b.rooms, c)
			b.mu.Unlock()
			b.wg.Add(1)
			go func() {
				defer b.wg.Done()
				b.serve(c)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		b.hangUp()
		b.wg.Wait()
	})
	return b
}

// hangUp breaks every connection.
func (b *crooked) hangUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.rooms {
		c.Close()
	}
}

func (b *crooked) target(ws bool) Target {
	return Target{Addr: netip.MustParseAddrPort(b.l.Addr().String()), WebSocket: ws, Host: "x", Path: "/mqtt", Version: codec.V311}
}

// serve handles one connection: packets until it ends.
func (b *crooked) serve(c net.Conn) {
	defer c.Close()
	br := bufio.NewReader(c)
	s := &seat{w: c}
	var r io.Reader = br
	if first, err := br.Peek(3); err != nil {
		return
	} else if string(first) == "GET" {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
		s.ws = true
		pr, pw := io.Pipe()
		defer pr.Close()
		b.wg.Add(1)
		go func() {
			defer b.wg.Done()
			pw.CloseWithError(unframe(br, pw))
		}()
		r = pr
	}
	var buf []byte
	chunk := make([]byte, 4096)
	for {
		n, err := r.Read(chunk)
		if err != nil {
			return
		}
		buf = append(buf, chunk[:n]...)
		for {
			p, n, err := codec.Split(buf)
			if err != nil {
				b.t.Error(err)
				return
			}
			if n == 0 {
				break
			}
			b.packet(s, p)
			buf = buf[n:]
		}
	}
}

// unframe copies the payload of masked frames.
func unframe(r io.Reader, w io.Writer) error {
	for {
		var h [2]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return err
		}
		n := uint64(h[1] & 0x7f)
		if h[1]&0x80 == 0 || h[0] != 0x82 {
			return fmt.Errorf("frame %x", h)
		}
		switch n {
		case 126:
			var b [2]byte
			if _, err := io.ReadFull(r, b[:]); err != nil {
				return err
			}
			n = uint64(binary.BigEndian.Uint16(b[:]))
		case 127:
			var b [8]byte
			if _, err := io.ReadFull(r, b[:]); err != nil {
				return err
			}
			n = binary.BigEndian.Uint64(b[:])
		}
		b := make([]byte, 4+n)
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		for i := range b[4:] {
			b[4+i] ^= b[i%4]
		}
		if _, err := w.Write(b[4:]); err != nil {
			return err
		}
	}
}

func (s *seat) write(p []byte) {
	if s.ws {
		h := []byte{0x82, byte(len(p))}
		switch {
		case len(p) >= 1<<16:
			h = binary.BigEndian.AppendUint64([]byte{0x82, 127}, uint64(len(p)))
		case len(p) >= 126:
			h = []byte{0x82, 126, byte(len(p) >> 8), byte(len(p))}
		}
		p = append(h, p...)
	}
	s.wmu.Lock()
	defer s.wmu.Unlock()
	// A client that has gone is none of the test's business.
	_, _ = s.w.Write(p)
}

func (b *crooked) packet(s *seat, p codec.Packet) {
	switch p.Type {
	case codec.CONNECT:
		n := int(binary.BigEndian.Uint16(p.Body[10:]))
		s.id = string(p.Body[12 : 12+n])
		if b.greeted != nil {
			b.greeted()
		}
		s.write([]byte{0x20, 2, 0, 0})
	case codec.SUBSCRIBE:
		body := p.Body[2:]
		ack := []byte{0x90, 2, p.Body[0], p.Body[1]}
		b.mu.Lock()
		for len(body) > 0 {
			n := int(binary.BigEndian.Uint16(body))
			s.filters = append(s.filters, codec.Subscription{Filter: string(body[2 : 2+n]), QoS: body[2+n]})
			ack = append(ack, body[2+n])
			ack[1]++
			body = body[3+n:]
		}
		b.seats = append(b.seats, s)
		b.mu.Unlock()
		s.write(ack)
	case codec.PUBLISH:
		m, err := p.Publish(codec.V311)
		if err != nil {
			b.t.Error(err)
			return
		}
		m.Topic, m.Payload = []byte(string(m.Topic)), []byte(string(m.Payload))
		b.delay(m)
		b.publish(m)
		switch m.QoS {
		case 1:
			s.write(codec.AppendAck(nil, codec.PUBACK, m.ID))
		case 2:
			s.write(codec.AppendAck(nil, codec.PUBREC, m.ID))
		}
	case codec.PINGREQ:
		if b.pinged != nil {
			b.pinged()
		}
		s.write(codec.AppendEmpty(nil, codec.PINGRESP))
	case codec.PUBREL:
		id, _, _ := p.Ack()
		s.write(codec.AppendAck(nil, codec.PUBCOMP, id))
	case codec.PUBREC:
		id, _, _ := p.Ack()
		s.write(codec.AppendAck(nil, codec.PUBREL, id))
	}
}

func (b *crooked) publish(m codec.Publish) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.seats {
		for _, f := range s.filters {
			if f.Filter != string(m.Topic) && !strings.HasSuffix(f.Filter, "/#") {
				continue
			}
			b.forward(s, m, func() {
				qos := min(m.QoS, f.QoS)
				if s.next++; s.next == 0 {
					s.next++
				}
				s.write(codec.AppendPublish(nil, codec.V311, string(m.Topic), qos, false, s.next, m.Payload))
			})
			break
		}
	}
}

// runPlan runs plan against its target for d.
func runPlan(t *testing.T, plan *Plan, d time.Duration) (*Outcome, Latency) {
	t.Helper()
	return runPlanUntil(t.Context(), t, plan, d)
}

// runPlanUntil is that, or until ctx ends.
func runPlanUntil(ctx context.Context, t *testing.T, plan *Plan, d time.Duration) (*Outcome, Latency) {
	t.Helper()
	l := connectPlan(t, plan)
	now := l.clock.Now()
	if err := l.Drive(ctx, Schedule{Start: now, Measure: now, End: now + int64(d)}); err != nil {
		t.Fatal(err)
	}
	o, err := l.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return o, Latency{l.latency.TotalCount(), l.latency.ValueAtQuantile(50), l.latency.ValueAtQuantile(99), l.latency.Max()}
}

// Latency is a histogram's summary in ns.
type Latency struct{ count, p50, p99, max int64 }

// connectPlan is a loop whose clients are connected.
func connectPlan(t *testing.T, plan *Plan) *Loop {
	t.Helper()
	plan.EnsureDefaults()
	if err := plan.Validate(); err != nil {
		t.Fatal(err)
	}
	l, err := New(plan, NewClock(), NewShared(plan, 1, nil), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	if err := l.Connect(t.Context(), 0, len(plan.Clients)); err != nil {
		t.Fatal(err)
	}
	return l
}
