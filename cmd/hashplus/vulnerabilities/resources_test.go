package vulnerabilities

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hashplus/bench/codec"
	"hashplus/cmd/hashplus/launch"
)

// mochi, comqtt: five bytes made the broker allocate 256 MiB.
func TestMochi_FiveBytesAllocate256MiB(t *testing.T) {
	b := open(t)
	b.join(who{}).drop()
	before := b.peak()
	for range 100 {
		b.dial().write([]byte{0x10, 0xff, 0xff, 0xff, 0x7f})
		b.dialWS("").send([]byte{0x10, 0xff, 0xff, 0xff, 0x7f})
	}
	b.join(who{}).alive()
	b.grewLess(before, 30)
	// A client that was let in may announce a packet of 1 MiB. Memory comes
	// with its bytes.
	for range 100 {
		b.join(who{}).send(append(varint([]byte{0x30}, 1<<20-4), 0, 1, 'a', 0))
	}
	b.join(who{}).alive()
	b.grewLess(before, 40)
}

// mosquitto: a CONNECT that is large, or says so, before anybody knows who sends
// it.
func TestCVE_2017_7651_LargeConnect(t *testing.T) {
	b := open(t)
	b.join(who{}).drop()
	before := b.peak()
	big := packet(0x10, "MQTT", 5, 0xc2, uint16(0), props(), "big", "u", strings.Repeat("p", 65535), bytes.Repeat([]byte("x"), 8<<20))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			conn, err := net.Dial("tcp", b.tcp)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Error(err)
				return
			}
			go conn.Write(big) //nolint:errcheck // the broker need not take it
			got, err := io.ReadAll(conn)
			if errors.Is(err, os.ErrDeadlineExceeded) || len(got) > 0 && got[0] == 0x20 && got[3] == 0 {
				t.Errorf("a CONNECT of 8 MiB got % x, %v", got, err)
			}
		})
	}
	wg.Wait()
	b.grewLess(before, 30)
}

// mosquitto: a large first packet that is no CONNECT.
func TestCVE_2023_0809_FirstPacketIsNotConnect(t *testing.T) {
	b := open(t, "--connect-timeout=10m") // that is not what ends them
	b.join(who{}).drop()
	before := b.peak()
	for _, first := range []byte{0x00, 0x20, 0x30, 0x32, 0x34, 0x40, 0x62, 0x82, 0xa2, 0xc0, 0xe0, 0xf0} {
		for range 10 {
			c := b.dial()
			c.write(append([]byte{first, 0xff, 0xff, 0xff, 0x7f}, make([]byte, 64<<10)...))
			c.ended()
			c.drop()
		}
	}
	b.grewLess(before, 30)
}

// mochi, comqtt, and with a byte or a ping now and then mosquitto and FlashMQ:
// a client without CONNECT stayed connected for ever.
func TestMochi_NoDeadlineBeforeConnect(t *testing.T) {
	t.Parallel()
	const deadline = 2 * time.Second // within which the upgrades must be through
	b := open(t, "--connect-timeout="+deadline.String())
	slow := func(c *client, piece func() []byte) {
		go func() {
			for {
				time.Sleep(50 * time.Millisecond)
				if _, err := c.conn.Write(piece()); err != nil {
					return
				}
			}
		}()
	}
	frame := func(op byte, payload []byte) func() []byte {
		return func() []byte { return codec.AppendFrame(nil, op, 7, payload) }
	}
	connect := packet(0x10, "MQTT", 5, 0xc2, uint16(0), props(), "id", "u", strings.Repeat("p", 1000))
	// bytewise is what follows the first two bytes of connect, a byte at a time.
	bytewise := func() func() []byte {
		at := 1
		return func() []byte { at++; return connect[at : at+1] }
	}
	for name, start := range map[string]func() *client{
		"silence":                      b.dial,
		"silence on the HTTP port":     func() *client { return b.over(b.ws) },
		"silence behind the handshake": func() *client { return b.dialWS("") },
		"a byte now and then":          func() *client { c := b.dial(); c.write(connect[:2]); slow(c, bytewise()); return c },
		"WebSocket pings":              func() *client { c := b.dialWS(""); slow(c, frame(codec.OpPing, nil)); return c },
		"WebSocket pongs":              func() *client { c := b.dialWS(""); slow(c, frame(codec.OpPong, nil)); return c },
		"empty frames":                 func() *client { c := b.dialWS(""); slow(c, frame(codec.OpBinary, nil)); return c },
		"a byte in a frame": func() *client {
			c := b.dialWS("")
			c.send(connect[:2])
			one := bytewise()
			slow(c, func() []byte { return codec.AppendFrame(nil, codec.OpBinary, 7, one()) })
			return c
		},
	} {
		began := time.Now()
		c := start()
		c.ended()
		if took := time.Since(began); took < deadline {
			t.Errorf("%s: the connection lasted %v with a deadline of %v", name, took, deadline)
		}
	}
}

// RMQTT, VerneMQ: limits for the handshake came late. The HTTP header has one of
// its own, and the time for it does not begin anew with each byte.
func TestVerneMQ_HandshakeHasADeadline(t *testing.T) {
	t.Parallel()
	b := open(t, "--connect-timeout=1s")
	c := b.over(b.ws)
	c.write([]byte("GET /mqtt HTTP/1.1\r\nHost: localhost\r\n"))
	go func() {
		for {
			if _, err := c.conn.Write([]byte("X-A: b\r\n")); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	c.deadline(patience)
	got, _ := io.ReadAll(c.conn) // how it ends is not the point
	if !strings.Contains(string(got), " 408 ") {
		t.Errorf("a header that goes on and on was answered %q", got)
	}
}

// The same for an exchange of extended authentication that the client lets hang.
func TestRMQTT_ExchangeHasADeadline(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "scram")
	cmd := launch.Command(program, "passwd", "--scram", path, "alice")
	cmd.Stdin = strings.NewReader("alice\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("passwd: %v\n%s", err, out)
	}
	b := serve(t, "--connect-timeout=3s", "--scram-file="+path)
	hello := packet(0x10, "MQTT", 5, 2, uint16(0), props(0x15, "SCRAM-SHA-256", 0x16, "n,,n=alice,r=rOprNGfwEbeRWgbNEkqO"), "slow")
	// In place of an answer: silence, a ping, half a packet.
	for _, more := range [][]byte{nil, {0xc0, 0}, {0xf0, 0x20, 0x18}} {
		c := b.dial()
		c.send(hello)
		c.expect(codec.AUTH)
		c.send(more)
		c.ended()
	}
}

// NATS: the top bit of a 64 bit frame length made a negative slice.
func TestNATS2026_FrameLengthWithItsTopBit(t *testing.T) {
	t.Parallel()
	b := open(t)
	for name, head := range map[string][]byte{
		"top bit":        {0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4},
		"all bits":       {0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4},
		"of a ping":      {0x89, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4},
		"of a fragment":  {0x02, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4},
		"not minimal 64": {0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 0},
		"not minimal 16": {0x82, 0xfe, 0, 1, 1, 2, 3, 4, 0},
	} {
		for _, in := range []bool{false, true} {
			c := b.dialWS("")
			if in {
				c.join(who{})
			}
			c.write(append(head, make([]byte, 100)...))
			if c.ended(); c.closed != 1002 {
				t.Errorf("%s: the WebSocket closed with %d", name, c.closed)
			}
		}
	}
	// The largest length that there is needs no memory either.
	before := b.peak()
	for range 50 {
		c := b.dialWS("")
		c.write([]byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
		c.write(who{id: unique("big")}.connect())
		c.expect(codec.CONNACK)
	}
	b.grewLess(before, 20)
}

// FlashMQ: frames that are not masked were taken.
func TestFlashMQ172_FrameIsNotMasked(t *testing.T) {
	t.Parallel()
	b := open(t)
	c := b.dialWS("")
	connect := who{id: "bare"}.connect()
	c.write(append([]byte{0x82, byte(len(connect))}, connect...))
	if reason := c.ended(); reason != 0 || c.closed != 1002 {
		t.Errorf("an unmasked CONNECT: CONNACK %#02x, close frame %d", reason, c.closed)
	}
	c = b.dialWS("")
	c.join(who{})
	c.write([]byte{0x82, 2, 0xc0, 0})
	if c.ended(); c.closed != 1002 {
		t.Errorf("an unmasked PINGREQ: close frame %d", c.closed)
	}
}

// The rules of RFC 6455 that Autobahn looks at and brokers broke.
func TestAutobahn_ControlFramesAndReservedBits(t *testing.T) {
	t.Parallel()
	b := open(t)
	mask := []byte{0, 0, 0, 0}
	for name, f := range map[string][]byte{
		"ping of 126 bytes":       append([]byte{0x89, 0xfe, 0, 126, 0, 0, 0, 0}, make([]byte, 126)...),
		"fragmented ping":         append([]byte{0x09, 0x80}, mask...),
		"RSV1":                    append([]byte{0xc2, 0x80}, mask...),
		"RSV2":                    append([]byte{0xa2, 0x80}, mask...),
		"RSV3":                    append([]byte{0x92, 0x80}, mask...),
		"opcode 3":                append([]byte{0x83, 0x80}, mask...),
		"opcode 15":               append([]byte{0x8f, 0x80}, mask...),
		"continuation of nothing": append([]byte{0x80, 0x80}, mask...),
		"a message in a message":  append(append([]byte{0x02, 0x80}, mask...), append([]byte{0x82, 0x80}, mask...)...),
		"close of one byte":       append([]byte{0x88, 0x81}, append(mask, 3)...),
	} {
		c := b.dialWS("")
		c.join(who{})
		c.write(f)
		if c.ended(); c.closed != 1002 {
			t.Errorf("%s: close frame %d", name, c.closed)
		}
	}
}

// EMQX: a text frame crashed the connection's process.
func TestEMQX2619_TextFrame(t *testing.T) {
	t.Parallel()
	b := open(t)
	for _, in := range []bool{false, true} {
		c := b.dialWS("")
		if in {
			c.join(who{})
		}
		c.write(codec.AppendFrame(nil, codec.OpText, 9, []byte{0xc0, 0}))
		if c.ended(); c.closed != 1003 {
			t.Errorf("a text frame: close frame %d", c.closed)
		}
	}
}

// mosquitto, FlashMQ: the header of an upgrade had no limit, or a buffer that
// was too small.
func TestMosquitto_UpgradeHeaderIsBounded(t *testing.T) {
	b := open(t)
	b.dialWS("").join(who{})
	before := b.peak()
	long := strings.Repeat("x", 1<<20)
	for name, request := range map[string]string{
		"one line of a MiB":     handshake + "X: " + long,
		"a name of a MiB":       handshake + long,
		"a path of a MiB":       "GET /" + long,
		"a method of a MiB":     long,
		"lines without end":     handshake + strings.Repeat("X: y\r\n", 200_000),
		"folded lines":          handshake + "X: y\r\n" + strings.Repeat(" z\r\n", 200_000),
		"lines without a colon": handshake + strings.Repeat("x\r\n", 100_000),
		"cookies":               handshake + strings.Repeat("Cookie: "+strings.Repeat("c", 4000)+"\r\n", 200),
	} {
		for range 5 {
			c := b.over(b.ws)
			go c.conn.Write([]byte(request)) //nolint:errcheck // the broker need not take it
			c.deadline(patience)
			answer, err := http.ReadResponse(c.in, nil)
			if err != nil || answer.StatusCode < 400 || answer.StatusCode > 499 {
				t.Errorf("%s: %v, %v", name, answer, err)
			}
			c.drop()
		}
	}
	b.grewLess(before, 20)
}

// NATS: a compressed frame was inflated without a limit before anybody logged
// in. FlashMQ, EMQX and others have had the like.
func TestCVE_2026_27571_CompressionBomb(t *testing.T) {
	b := open(t, "--ws-deflate")
	b.join(who{}).drop()
	before := b.peak()
	var z bytes.Buffer
	w, err := flate.NewWriter(&z, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	bomb := codec.AppendFrame(nil, codec.OpBinary, 5, z.Bytes()[:z.Len()-4])
	bomb[0] |= 0x40 // compressed
	t.Logf("64 MiB in %d KiB", len(bomb)>>10)
	for _, in := range []bool{false, true} {
		for range 10 {
			c := b.dialWS("Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n")
			if in {
				c.join(who{})
			}
			c.write(bomb)
			if c.ended(); c.closed != 1009 {
				t.Errorf("let in %v: the bomb closed the WebSocket with %d", in, c.closed)
			}
		}
	}
	b.grewLess(before, 40)
}

// mosquitto: the CPU time of a message grew with the square of its user
// properties.
func TestCVE_2021_41039_ManyUserProperties(t *testing.T) {
	b := open(t)
	one := []byte{0x26, 0, 1, 'k', 0, 1, 'v'}
	before := b.peak()
	honest := b.join(who{})
	began := time.Now()
	for range 20 {
		c := b.join(who{})
		c.send(packet(0x30, "t", props(bytes.Repeat(one, 140_000)))) // nearly 1 MiB
		c.refused(0x97)
		d := b.dial()
		d.send(packet(0x10, "MQTT", 5, 2, uint16(0), props(bytes.Repeat(one, 9000)), unique("many")))
		if reason := d.ended(); reason != 0x97 {
			t.Errorf("CONNECT with 9,000 user properties: %#02x", reason)
		}
		d = b.dial()
		d.send(packet(0x10, "MQTT", 5, 6, uint16(0), props(), unique("will"), props(bytes.Repeat(one, 9000)), "w", "p"))
		if reason := d.ended(); reason != 0x97 {
			t.Errorf("a will with 9,000 user properties: %#02x", reason)
		}
		e := b.join(who{})
		e.send(packet(0x82, uint16(1), props(bytes.Repeat(one, 9000)), "a", 0))
		e.refused(0x97)
		honest.alive()
	}
	if took := time.Since(began); took > 2*time.Minute {
		t.Errorf("it took %v", took)
	}
	b.grewLess(before, 30)
}

// mosquitto: a crafted CONNECT of 5.0 that was refused leaked its fields.
func TestCVE_2021_34431_RefusedConnectLeaksNothing(t *testing.T) {
	b := open(t)
	payload := strings.Repeat("p", 20_000)
	refused := func(n int) {
		for range n {
			for _, connect := range [][]byte{
				packet(0x10, "MQTT", 5, 6, uint16(0), props(0x26, "k", "v", 0x21, uint16(0)), "id", props(), "w", payload),
				packet(0x10, "MQTT", 5, 6, uint16(0), props(), "id", props(0x03, "t", 0x26, "k", "v"), "w/#", payload),
				packet(0x10, "MQTT", 5, 6, uint16(0), props(0x15, "no such method", 0x16, "x"), "id", props(), "w", payload),
				packet(0x10, "MQTT", 9, 6, uint16(0), props(), "id", props(), "w", payload),
			} {
				c := b.dial()
				c.write(connect)
				c.ended()
				c.drop()
			}
		}
	}
	refused(250)
	before := b.peak()
	refused(1000) // 80 MB of payload
	b.grewLess(before, 12)
}

// mochi: the time to match a topic grew with the square of its levels.
func TestMochi_TopicOfManyLevels(t *testing.T) {
	t.Parallel()
	b := open(t, "--max-topic-levels=65535", "--max-topic-length=65535")
	c := b.join(who{})
	deep := strings.Repeat("/", 60_000)
	c.subscribe("#", 0)
	c.subscribe(strings.Repeat("+/", 30_000)+"#", 0)
	began := time.Now()
	for range 50 {
		if reason := c.publish(deep, "x", 1, 0); reason >= 0x80 {
			t.Fatalf("PUBACK %#02x", reason)
		}
	}
	if took := time.Since(began); took > patience {
		t.Errorf("50 messages with 60,000 levels took %v", took)
	}
	// By default a topic of so many levels is refused.
	d := open(t).join(who{})
	d.send(d.publication(deep, "x", 1, 1, 0))
	d.refused(0x90)
	e := open(t).join(who{})
	if code := e.ask(strings.Repeat("+/", 200)+"#", 0); code != 0x8f {
		t.Errorf("a filter of 201 levels: %#02x", code)
	}
}

// mochi: a subscriber that does not read blocked the publisher, for ever if its
// keep alive was 0.
func TestMochi_SlowSubscriberBlocksNoPublisher(t *testing.T) {
	b := open(t, "--write-stall=10m") // that would help the publisher on
	before := b.peak()
	for range 3 {
		deaf := b.join(who{})
		deaf.subscribe("feed", 1) // and reads nothing more
	}
	pub := b.join(who{})
	payload := strings.Repeat("x", 16<<10)
	began := time.Now()
	for range 2000 { // 32 MiB for each
		pub.publish("feed", payload, 1, 0)
	}
	t.Logf("2,000 messages beside three deaf subscribers took %v", time.Since(began))
	b.grewLess(before, 120) // 16 MiB of queue and 1 MiB to be written for each
}

// NanoMQ: clients that came again and again with the same identifier cost
// descriptors and memory.
func TestNanoMQ2350_ReconnectsLeakNothing(t *testing.T) {
	b := open(t)
	round := func(n int) {
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				for range n {
					conn, err := net.Dial("tcp", b.tcp)
					if err != nil {
						t.Error(err)
						return
					}
					w := who{id: []string{"one", "two", "three", "four"}[i%4], resume: true, expiry: 60}
					if _, err := conn.Write(w.connect()); err == nil && conn.SetReadDeadline(time.Now().Add(patience)) == nil {
						_, _ = conn.Read(make([]byte, 64)) // the CONNACK, or the end by another one
					}
					_ = conn.Close() // without DISCONNECT
				}
			})
		}
		wg.Wait()
	}
	round(20)
	before, fds := b.peak(), b.descriptors(0)
	round(150)
	b.grewLess(before, 12)
	b.descriptors(fds + 5)
}

// descriptors waits until the broker has at most limit open, if that is not 0,
// and returns how many it has.
func (b *broker) descriptors(limit int) int {
	b.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		n, ok := b.Descriptors()
		if !ok {
			b.t.Skip("there is no /proc here")
		}
		if limit == 0 || n <= limit {
			return n
		}
		if time.Now().After(end) {
			b.t.Errorf("%d descriptors are open, more than %d", n, limit)
			return n
		}
	}
}
