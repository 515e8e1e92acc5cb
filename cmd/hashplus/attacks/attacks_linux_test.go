package attacks

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"hashplus/bench/codec"
)

// attack is one kind of attack, which processes carry out together.
type attack struct {
	name        string
	budget      string // what the attackers have, for the table
	flood       bool   // it costs the broker processor time
	restart     bool   // the broker is started again under it
	data        bool   // the broker has a folder to store things in
	passwords   bool   // the broker has a password file, and lets anonymous clients in as well
	tls         bool   // the broker has a listener with TLS
	descriptors int    // that the broker may have; 0: as many as it likes
	processes   int
	args        []string // of the broker
	quick       []string // in place of defaults that a short run cannot wait for
	memory      int      // MiB that the broker may have at its worst, clients and all
	why         string   // where memory comes from
	told        []string // what attackers must have been told, each by some
	stay        bool     // some are not cut off, since they do no wrong at the end
	do          func(a *attacker)
}

// base is what the broker has with 500 honest clients and what garbage
// collection leaves lying.
const base = 64

var quickDeadline = []string{"--connect-timeout=3s"} // honest clients on a busy machine keep it

// attacks are all of them.
var attacks = []attack{
	{
		name: "slow HTTP handshakes", budget: "1,000 connections, a byte each every 50 ms", processes: 1, quick: quickDeadline,
		memory: base, why: "a header of at most 16 KiB each, of which 200 bytes come", told: []string{"HTTP 408"}, do: slowHTTP,
	},
	{
		name: "slow CONNECTs", budget: "500 connections over TCP and 500 over WebSocket, a byte each every 50 ms", processes: 1, quick: quickDeadline,
		memory: base, why: "a CONNECT of at most 64 KiB each, of which 200 bytes come", told: []string{"end of the connection", "close 1002"}, do: slowConnect,
	},
	{
		name: "half-open sockets", budget: "10,000 connections: a third each silent, in the middle of an HTTP header, of a CONNECT", processes: 2, quick: quickDeadline,
		memory: base + 64, why: "10,000 × 4 KiB, and as much again for garbage", told: []string{"end of the connection", "HTTP 408"}, do: halfOpen,
	},
	{
		name: "malformed packets", budget: "20 connections, made again when they are closed", flood: true, processes: 1,
		memory: base, why: "nothing of them is kept", told: []string{"DISCONNECT 0x81", "close 1002"}, do: malformed,
	},
	{
		name: "oversize packets", budget: "20 connections with 8 MiB each, made again", flood: true, processes: 1,
		memory: base + 16, why: "64 KiB before CONNECT, then nothing above 1 MiB", told: []string{"DISCONNECT 0x95", "HTTP 431", "close 1009"}, do: oversize,
	},
	{
		name: "compression bombs", budget: "10 connections, 64 MiB in 64 KiB each, made again", flood: true, processes: 1, args: []string{"--ws-deflate"},
		memory: base + 32, why: "inflated as far as a packet may be long", told: []string{"close 1009"}, do: compressionBomb,
	},
	{
		name: "topic bombs", budget: "4,096 overlapping filters, 4 publishers flat out; every other message a new name of 128 levels", flood: true, processes: 1,
		memory: base + 64, why: "4,096 subscriptions", do: topicBomb,
	},
	{
		name: "subscription bombs", budget: "20 sessions that subscribe to 12,000 filters each", flood: true, processes: 1,
		memory: base + 256, why: "200,000 subscriptions × 1 KiB, and garbage", told: []string{"SUBACK 0x97"}, do: subscriptionBomb,
	},
	{
		name: "retained bombs", budget: "100,000 retained messages of 1 KiB, 4 readers of # over and over", flood: true, processes: 1,
		memory: base + 320, why: "100,000 × (1 KiB + 0.5 KiB), and as much again for garbage", do: retainedBomb,
	},
	{
		name: "queue bombs", budget: "60 absent sessions, 4 publishers of 16 KiB at QoS 1 to them, flat out; the broker has --max-memory=192MiB", flood: true, processes: 1,
		args: []string{"--max-memory=192MiB"}, quick: []string{"--max-memory=96MiB"}, memory: 192 + 96, why: "the limit, and what comes until it is noticed",
		told: []string{"PUBACK 0x97"}, do: queueBomb,
	},
	{
		name: "durable queues", budget: "20 absent sessions, 4 publishers of 1 KiB at QoS 1 to them, flat out; the broker stores them (--data)", flood: true, processes: 1, data: true,
		memory: base + 128, why: "what the store holds in memory; queues of the absent are on disk", do: durableQueues,
	},
	{
		name: "more sockets than descriptors", budget: "4,000 connections for a broker with 2,000 descriptors, made again when they are closed", processes: 1, descriptors: 2000,
		quick: quickDeadline, memory: base + 16, why: "2,000 connections", do: descriptorBomb,
	},
	{
		name: "password guessing", budget: "100 connections at a time as a user whose password is hashed with Argon2id", flood: true, processes: 1, passwords: true,
		memory: base + 96, why: "a hash that is computed takes 19 MiB, of which there are as many as the broker allows at a time", told: []string{"CONNACK 0x86"}, do: guess,
	},
	{
		name: "connect storm", budget: "50 connections at a time that log in and leave", flood: true, processes: 1,
		memory: base + 16, why: "nothing of them is kept", do: connectStorm,
	},
	{
		name: "take-over loop", budget: "30 connections at a time with one client identifier", flood: true, processes: 1,
		memory: base + 16, why: "one session", stay: true, told: []string{"DISCONNECT 0x8E"}, do: takeOver,
	},
	{
		name: "readers that never read", budget: "20 sessions at QoS 1 and 30 at QoS 0, a feed of 16 KiB messages for each, flat out", flood: true, processes: 1,
		quick: []string{"--write-stall=1s"}, memory: base + 2*(20*20+30), why: "20 × 20 MiB (a queue of 16, what waits to be written, what sockets hold), 30 × 1 MiB, and as much again for garbage",
		stay: true, do: deafReaders,
	},
	{
		name: "fast publishers", budget: "8 clients flat out with messages of 64 bytes; half of them have readers", flood: true, processes: 1,
		memory: base + 64, why: "1 MiB of write queue for each reader, 8 MiB between loops", do: fastPublishers,
	},
	{
		name: "reconnect storm after a restart", budget: "2,000 clients that come back at once, and again 20 ms after each failure", flood: true, restart: true, processes: 1,
		memory: base + 64, why: "2,000 sessions", do: reconnectStorm,
	},
}

// bytewise writes b a byte at a time for as long as it is taken, and then from
// the beginning of its last 100 bytes again.
func (v *victim) bytewise(b []byte, put func([]byte) bool) {
	for i := 0; !v.a.over() && put(b[i:i+1]); i++ {
		if i == len(b)-2 {
			i -= 100
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// hearHTTP notes what an HTTP client is told.
func (v *victim) hearHTTP(d time.Duration) {
	_ = v.SetReadDeadline(time.Now().Add(d)) // on a socket that is open
	answer, err := http.ReadResponse(v.in, nil)
	if err != nil {
		v.a.hear(ending(err))
		return
	}
	v.a.hear(fmt.Sprint("HTTP ", answer.StatusCode))
}

func slowHTTP(a *attacker) {
	header := []byte(handshake + "X: " + strings.Repeat("x", 1000))
	a.repeat(1000, func(int) {
		if v := a.dial(a.WS); v != nil {
			v.bytewise(header, v.put)
			v.hearHTTP(a.Patience)
			v.drop()
		}
	})
}

func slowConnect(a *attacker) {
	long := codec.AppendConnect(nil, &codec.Connect{Version: codec.V5, ClientID: "slow", Username: "u", Password: strings.Repeat("p", 1000)})
	a.repeat(1000, func(i int) {
		v := a.either(i)
		if v != nil {
			v.bytewise(long, v.send)
			v.hearOut(a.Patience)
			v.drop()
		}
	})
}

func halfOpen(a *attacker) {
	const connections = 10_000
	starts := []struct {
		address, bytes string
	}{{a.TCP, ""}, {a.WS, handshake}, {a.TCP, "\x10\x80\x02\x00\x04MQTT"}, {a.WS, ""}, {a.WS, "GET /"}, {a.TCP, "\x10"}}
	var mu sync.Mutex
	var all []*victim
	// 50 at a time, in each process its share.
	a.parallel(50, func(i int) {
		for n := i; n < connections && !a.over(); n += 50 {
			start := starts[n%len(starts)]
			v := a.dial(start.address)
			if v == nil {
				continue
			}
			if start.bytes != "" {
				v.put([]byte(start.bytes))
			}
			mu.Lock()
			all = append(all, v)
			mu.Unlock()
		}
	})
	time.Sleep(time.Until(a.end))
	var wg sync.WaitGroup
	for _, v := range all {
		wg.Go(func() {
			_ = v.SetReadDeadline(time.Now().Add(a.Patience)) // on a socket that is open
			got, err := io.ReadAll(io.LimitReader(v.in, 1000))
			switch {
			case strings.HasPrefix(string(got), "HTTP/1.1 "):
				a.hear("HTTP " + string(got[9:12]))
			case err != nil:
				a.hear(ending(err))
			default:
				a.hear(ending(io.EOF))
			}
			v.drop()
		})
	}
	wg.Wait()
}

func malformed(a *attacker) {
	bad := [][]byte{
		{0x30, 0xff, 0xff, 0xff, 0xff, 0x01},
		packet(0x82, []byte{0, 1, 0, 0, 1, 'a'}),
		packet(0x30, []byte{0, 9, 'a'}),
		packet(0x32, text("a")),
		packet(0x30, text("a"), []byte{0x7f, 1, 1}),
		packet(0x36, text("a"), []byte{0, 1, 0}),
		packet(0x30, text("a\xff"), []byte{0}),
		packet(0x20, []byte{0, 0, 0}),
		packet(0x00),
		packet(0xa2, []byte{0, 0, 0}, text("a")),
		packet(0x30, text("a/+"), []byte{0}),
		packet(0x30, text("a"), []byte{3, 0x23, 0, 0}),
		packet(0xe0, []byte{0, 9}),
		packet(0xf0, []byte{0x18, 0}),
	}
	frames := [][]byte{
		{0x82, 2, 0xc0, 0}, {0xc2, 0x80, 0, 0, 0, 0}, {0x83, 0x80, 0, 0, 0, 0}, {0x81, 0x80, 0, 0, 0, 0}, {0x80, 0x80, 0, 0, 0, 0},
		{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}, {0x89, 0xfe, 0, 126, 0, 0, 0, 0},
	}
	a.repeat(20, func(i int) {
		v := a.login(i, fmt.Sprint("malformed-", i))
		if v == nil {
			return
		}
		if n := rand.IntN(len(bad) + len(frames)); n < len(bad) {
			v.send(bad[n])
		} else if v.frames != nil {
			v.put(frames[n-len(bad)])
		} else {
			garbage := make([]byte, 1000)
			for i := range garbage {
				garbage[i] = byte(rand.Uint32())
			}
			v.send(append([]byte{0x0f}, garbage...)) // a type that there is not
		}
		v.hearOut(a.Patience)
		v.drop()
	})
}

func oversize(a *attacker) {
	body := bytes.Repeat([]byte("x"), 8<<20)
	a.repeat(20, func(i int) {
		switch i % 4 {
		case 0: // CONNECT
			if v := a.dial(a.TCP); v != nil {
				go v.put(packet(0x10, text("MQTT"), []byte{5, 2, 0, 0, 0}, text("big"), body))
				v.hearOut(a.Patience)
				v.drop()
			}
		case 1: // PUBLISH
			if v := a.login(i/4, fmt.Sprint("big-", i)); v != nil {
				go v.send(packet(0x30, text("big"), []byte{0}, body))
				v.hearOut(a.Patience)
				v.drop()
			}
		case 2: // a frame that says it is endless, with a CONNECT of 64 KiB that does not come
			if v := a.upgrade(""); v != nil {
				v.put([]byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
				v.put(packet(0x10, text("MQTT"), []byte{5, 2, 0, 0, 0}, text("big"), body[:65<<10]))
				v.hearOut(a.Patience)
				v.drop()
			}
		case 3: // a header
			if v := a.dial(a.WS); v != nil {
				go v.put([]byte(handshake + "X: " + string(body[:1<<20])))
				v.hearHTTP(a.Patience)
				v.drop()
			}
		}
	})
}

func compressionBomb(a *attacker) {
	var z bytes.Buffer
	w, err := flate.NewWriter(&z, flate.BestSpeed)
	if err != nil {
		panic(err) // it is a level
	}
	zeros := make([]byte, 1<<20)
	for range 64 {
		_, _ = w.Write(zeros) // memory can be written to
	}
	_ = w.Flush()
	bomb := codec.AppendFrame(nil, codec.OpBinary, 5, z.Bytes()[:z.Len()-4])
	bomb[0] |= 0x40
	a.repeat(10, func(i int) {
		v := a.upgrade("Sec-WebSocket-Extensions: permessage-deflate\r\n")
		if v == nil {
			return
		}
		if i%2 == 0 {
			v.send(connect(fmt.Sprint("bomb-", i)))
		}
		v.put(bomb)
		a.count("bombs", 1)
		v.hearOut(a.Patience)
		v.drop()
	})
}

// sink reads and forgets until the connection ends.
func (v *victim) sink() {
	_ = v.SetReadDeadline(v.a.end.Add(time.Second)) // on a socket that is open
	_, _ = io.Copy(io.Discard, v.in)                // the end is not its own to judge
}

// subscribe sends filters in packets of 200.
func (v *victim) subscribe(qos byte, filters ...string) (packets int) {
	for ; len(filters) > 0; packets++ {
		n := min(len(filters), 200)
		subs := make([]codec.Subscription, n)
		for i := range subs {
			subs[i] = codec.Subscription{Filter: filters[i], QoS: qos}
		}
		if !v.send(codec.AppendSubscribe(nil, codec.V5, uint16(1+packets), subs)) {
			return packets
		}
		filters = filters[n:]
	}
	return packets
}

func topicBomb(a *attacker) {
	var filters []string
	for i := range 1 << 12 {
		levels := make([]string, 12)
		for bit := range levels {
			levels[bit] = "a"
			if i>>bit&1 == 1 {
				levels[bit] = "+"
			}
		}
		filters = append(filters, strings.Join(levels, "/"))
	}
	for i := range 4 {
		if v := a.login(i, fmt.Sprint("overlap-", i)); v != nil {
			v.subscribe(0, filters[i*1024:(i+1)*1024]...)
			v.subscribe(0, strings.Repeat("+/", 100)+"#")
			go v.sink()
		}
	}
	name := strings.Repeat("a/", 11) + "a"
	a.parallel(4, func(i int) {
		v := a.login(i, fmt.Sprint("names-", i))
		if v == nil {
			return
		}
		go v.sink()
		for n := 0; !a.over(); n++ {
			topic := name
			if n%2 == 1 {
				topic = strings.Repeat(fmt.Sprintf("%x-%x/", i, n), 128)[:len(fmt.Sprintf("%x-%x/", i, n))*128-1]
			}
			if !v.send(codec.AppendPublish(nil, codec.V5, topic, 0, false, 0, []byte("x"))) {
				a.hear("not read for 5 s")
			}
			a.count("messages", 1)
		}
		v.drop()
	})
}

func subscriptionBomb(a *attacker) {
	a.parallel(20, func(i int) {
		v := a.login(i, fmt.Sprint("subs-", i))
		if v == nil {
			return
		}
		filters := make([]string, 12_000)
		for n := range filters {
			filters[n] = fmt.Sprintf("bomb/%d/%x/+/%d/#", n%100, rand.Uint64(), n)
		}
		done := make(chan int)
		go func() { done <- v.subscribe(1, filters...) }()
		left := 1 << 30
		for left > 0 {
			p, err := v.packet(time.Until(a.end.Add(a.Patience)))
			if err != nil {
				a.hear(v.ending(err))
				break
			}
			if p.Type != codec.SUBACK {
				continue
			}
			select {
			case n := <-done:
				left += n - 1<<30
			default:
			}
			left--
			granted, worst := 0, byte(0)
			for _, code := range p.Body[3:] {
				if code < 0x80 {
					granted++
				}
				worst = max(worst, code)
			}
			a.count("subscriptions", granted)
			if worst >= 0x80 {
				a.hear(fmt.Sprintf("SUBACK 0x%02X", worst))
			}
		}
		time.Sleep(time.Until(a.end)) // they stay
		v.drop()
	})
}

func retainedBomb(a *attacker) {
	const messages, writers = 100_000, 4
	for i := range 4 {
		go a.parallel(1, func(int) {
			for !a.over() {
				v := a.login(i, fmt.Sprint("replay-", i))
				if v == nil {
					return
				}
				v.subscribe(0, "#")
				_ = v.SetReadDeadline(time.Now().Add(700 * time.Millisecond)) // on a socket that is open
				n, _ := io.Copy(io.Discard, v.in)                             // it ends by the deadline
				a.count("MiB replayed", int(n>>20))
				v.drop()
			}
		})
	}
	payload := make([]byte, 1024)
	a.parallel(writers, func(i int) {
		v := a.login(i, fmt.Sprint("retain-", i))
		if v == nil {
			return
		}
		go v.sink()
		var batch []byte
		for n := i; n < messages && !a.over(); n += writers {
			batch = codec.AppendPublish(batch, codec.V5, fmt.Sprintf("bomb/%d/%d", n%1000, n), 0, true, 0, payload)
			if len(batch) > 64<<10 || n+writers >= messages {
				if !v.send(batch) {
					a.hear("not read for 5 s")
				}
				batch = batch[:0]
			}
			a.count("messages", 1)
		}
		time.Sleep(time.Until(a.end))
		v.drop()
	})
}

func queueBomb(a *attacker) { a.fillQueues(60, 16<<10) }

func durableQueues(a *attacker) { a.fillQueues(20, 1<<10) }

// fillQueues publishes to sessions of clients that are not there.
func (a *attacker) fillQueues(sessions, size int) {
	for i := range sessions {
		v := a.dial(a.TCP)
		if v == nil {
			continue
		}
		v.send(packet(0x10, text("MQTT"), []byte{5, 0, 0, 0, 5, 0x11, 0, 0, 1, 0}, text(fmt.Sprint("absent-", i))))
		if p, err := v.packet(10 * time.Second); err != nil || p.Body[1] != 0 {
			a.hear("session refused")
		}
		v.subscribe(1, fmt.Sprintf("queue/%d", i))
		_, _ = v.packet(10 * time.Second) // SUBACK
		v.drop()
	}
	payload := make([]byte, size)
	a.parallel(4, func(i int) {
		v := a.login(i, fmt.Sprint("fills-", i))
		if v == nil {
			return
		}
		window := make(chan struct{}, 200)
		go func() {
			for {
				p, err := v.packet(time.Until(a.end.Add(a.Patience)))
				if err != nil {
					return
				}
				if p.Type != codec.PUBACK {
					continue
				}
				if len(p.Body) > 2 && p.Body[2] >= 0x80 {
					a.hear(fmt.Sprintf("PUBACK 0x%02X", p.Body[2]))
				}
				<-window
			}
		}()
		for n := i; !a.done(); n += 4 {
			select {
			case window <- struct{}{}:
			case <-time.After(20 * time.Millisecond):
				n -= 4
				continue
			}
			if !v.send(codec.AppendPublish(nil, codec.V5, fmt.Sprintf("queue/%d", n%sessions), 1, false, uint16(1+n/4%1000), payload)) {
				a.hear("not read for 5 s")
			}
			a.count("messages", 1)
		}
		v.drop()
	})
}

func descriptorBomb(a *attacker) {
	a.repeat(4000, func(i int) {
		v := a.dial(a.TCP)
		if v == nil {
			return
		}
		if i%2 == 0 {
			v.send(connect(fmt.Sprint("crowd-", i)))
		}
		_ = v.SetReadDeadline(a.end)        // on a socket that is open
		_, err := io.Copy(io.Discard, v.in) // up to the end of it
		if err == nil && !a.over() {
			a.hear("end of the connection")
		}
		v.drop()
	})
}

func guess(a *attacker) {
	a.repeat(100, func(i int) {
		v := a.either(i)
		if v == nil {
			return
		}
		v.send(codec.AppendConnect(nil, &codec.Connect{Version: codec.V5, ClientID: fmt.Sprint("guess-", i), Username: "alice", Password: fmt.Sprint(rand.Uint64())}))
		v.hearOut(2 * a.Patience)
		v.drop()
	})
}

func connectStorm(a *attacker) {
	a.repeat(50, func(i int) {
		if v := a.login(i, ""); v != nil {
			a.count("logins", 1)
			v.send([]byte{0xe0, 0})
			v.drop()
		}
	})
}

func takeOver(a *attacker) {
	a.repeat(30, func(i int) {
		v := a.login(i, "one and the same")
		if v == nil {
			return
		}
		a.count("logins", 1)
		v.subscribe(1, "taken/over")
		v.hearOut(500 * time.Millisecond)
		v.drop()
	})
}

func deafReaders(a *attacker) {
	var all []*victim
	for i := range 50 {
		v := a.login(i, fmt.Sprint("deaf-", i))
		if v == nil {
			continue
		}
		_ = v.Conn.(*net.TCPConn).SetReadBuffer(32 << 10) // it is deaf in any case
		qos := byte(1)
		if i >= 20 {
			qos = 0
		}
		v.subscribe(qos, fmt.Sprintf("feed/%d", i))
		all = append(all, v)
	}
	payload := make([]byte, 16<<10)
	a.parallel(2, func(i int) {
		v := a.login(i, fmt.Sprint("feeds-", i))
		if v == nil {
			return
		}
		go v.sink()
		for n := i; !a.over(); n += 2 {
			if !v.send(codec.AppendPublish(nil, codec.V5, fmt.Sprintf("feed/%d", n%50), 1, false, uint16(1+n%1000), payload)) {
				a.hear("publisher: not read for 5 s")
			}
			a.count("messages", 1)
		}
		v.drop()
	})
	var wg sync.WaitGroup
	for _, v := range all {
		wg.Go(func() { v.hearOut(8 * time.Second); v.drop() }) // some are never told anything
	}
	wg.Wait()
}

func fastPublishers(a *attacker) {
	for i := range 4 {
		if v := a.login(i, fmt.Sprint("reads-", i)); v != nil {
			v.subscribe(0, fmt.Sprintf("fast/%d", i))
			go v.sink()
		}
	}
	a.parallel(8, func(i int) {
		v := a.login(i, fmt.Sprint("fast-", i))
		if v == nil {
			return
		}
		one := codec.AppendPublish(nil, codec.V5, fmt.Sprintf("fast/%d", i), 0, false, 0, make([]byte, 64))
		batch := bytes.Repeat(one, 200)
		for !a.over() {
			if !v.send(batch) {
				a.hear("not read for 5 s")
			}
			a.count("messages", 200)
		}
		v.drop()
	})
}

func reconnectStorm(a *attacker) {
	a.parallel(2000, func(i int) {
		for !a.over() {
			v := a.login(i, fmt.Sprint("back-", i))
			if v == nil {
				continue
			}
			a.count("logins", 1)
			v.subscribe(1, fmt.Sprintf("back/%d", i))
			for {
				if _, err := v.packet(time.Until(a.end)); err != nil {
					if !a.over() {
						a.hear(v.ending(err))
					}
					break
				}
			}
			v.drop()
		}
	})
}
