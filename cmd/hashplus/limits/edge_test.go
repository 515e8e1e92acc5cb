package limits

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"hashplus/broker/wire"
)

// Limits per address never count for loopback, so these clients come through a
// proxy that names their addresses: the test itself.

// behindProxy are the flags that let the test be a trusted proxy.
func behindProxy(more ...string) []string {
	return append([]string{"--trusted-proxies=127.0.0.1", "--proxy-protocol=optional", "--sys-interval=1s"}, more...)
}

// from opens a TCP connection as the client with an address.
func (s *server) from(address string) *client {
	s.t.Helper()
	conn := open(s.t, s.tcp)
	a := netip.AddrPortFrom(netip.MustParseAddr(address), 4711)
	to := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 250), Port: 1883}
	if a.Addr().Is6() {
		to.IP = net.ParseIP("2001:db8::ff")
	}
	b, err := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(a), to).Format()
	if err != nil {
		s.t.Fatal(err)
	}
	c := newClient(s.t, conn, v5)
	c.send(b)
	return c
}

// tries reports how a client's CONNECT is answered: "closed" if not at all.
func (c *client) tries(opts ...as) string {
	c.t.Helper()
	_ = c.trySend(c.request(opts...)) // it may be closed already
	h, body, err := c.read(patience)
	if err != nil {
		return "closed"
	}
	ack, err := wire.DecodeConnack(h, body, c.v)
	if err != nil {
		c.t.Fatal(err)
	}
	return ack.Reason.String()
}

const success = "Success"

func TestMaxAddressConnections(t *testing.T) {
	t.Parallel()
	s := serve(t, behindProxy("--max-address-connections=3")...)
	var there []*client
	for i := range 3 {
		c := s.from("198.51.100.1")
		if got := c.tries(); got != success {
			t.Fatalf("connection %d: %s", i+1, got)
		}
		there = append(there, c)
	}
	if got := s.from("198.51.100.1").tries(); got != "closed" {
		t.Errorf("one too many: %s", got)
	}
	// Over WebSocket, by the header that an HTTP proxy writes.
	request := handshake(s.ws, "X-Forwarded-For: 198.51.100.1\r\n")
	if status, header, _ := s.exchange(request); status != 429 || header.Get("Retry-After") == "" {
		t.Errorf("one too many, over WebSocket: %d %v", status, header)
	}
	if status, _, _ := s.exchange(handshake(s.ws, "X-Forwarded-For: 198.51.100.2\r\n")); status != 101 {
		t.Errorf("another address: %d", status)
	}
	// All of a network of 64 bits is one client.
	for i := range 3 {
		if got := s.from(fmt.Sprintf("2001:db8:1:1::%d", i)).tries(); got != success {
			t.Errorf("IPv6 connection %d: %s", i+1, got)
		}
	}
	if got := s.from("2001:db8:1:1:ffff::1").tries(); got != "closed" {
		t.Errorf("one too many of an IPv6 network: %s", got)
	}
	if got := s.from("2001:db8:1:2::1").tries(); got != success {
		t.Errorf("the next IPv6 network: %s", got)
	}
	// Loopback does not count, whether a proxy names it or not.
	for range 5 {
		s.dial(v5).join()
		if got := s.from("127.0.0.9").tries(); got != success {
			t.Errorf("loopback: %s", got)
		}
	}
	there[0].drop()
	until(t, "there is room when one has gone", func() bool { return s.from("198.51.100.1").tries() == success })
	s.sys(func(v map[string]int) bool { return v["refused/address-connections"] >= 3 })
	if !strings.Contains(s.Log.String(), "remote=198.51.100.1:4711 ") {
		t.Error("the log does not name the client")
	}
}

func TestMaxAddressRate(t *testing.T) {
	t.Parallel()
	s := serve(t, behindProxy("--max-address-rate=6")...)
	for i := range 6 {
		c := s.from("198.51.100.1")
		if got := c.tries(); got != success {
			t.Errorf("connection %d: %s", i+1, got)
		}
		c.drop()
	}
	if got := s.from("198.51.100.1").tries(); got != "closed" {
		t.Errorf("one too many: %s", got)
	}
	if got := s.from("198.51.100.2").tries(); got != success {
		t.Errorf("another address: %s", got)
	}
	until(t, "after ten seconds one more may come", func() bool { time.Sleep(time.Second); return s.from("198.51.100.1").tries() == success })
	s.sys(func(v map[string]int) bool { return v["refused/address-rate"] >= 1 })
}

// A publisher that is faster than it may be is read from more slowly; all that it
// sends arrives, in order, and it stays connected although its keep alive is
// shorter than the pause.
func TestMaxPublishRateAndBytes(t *testing.T) {
	t.Parallel()
	const at, body = 20, 1000
	size := len((&client{v: v5}).encode(publish{Topic: []byte("q"), Payload: make([]byte, body)}))
	for name, flag := range map[string]string{"rate": fmt.Sprint("--max-publish-rate=", at), "bytes": fmt.Sprint("--max-publish-bytes=", at*size)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, flag, "--sys-interval=1s")
			sub, pub := s.dial(v5), s.dialWS(v5)
			sub.join()
			sub.subscribe(0, "q")
			pub.join(func(c *wire.Connect) { c.KeepAlive = 1 })
			began := time.Now()
			for i := range 3 * at {
				pub.send(pub.encode(publish{Topic: []byte("q"), Payload: []byte(fmt.Sprintf("%0*d", body, i))}))
			}
			pub.send(ping()) // is read last
			for i := range 3 * at {
				if got := string(sub.message().Payload); got != fmt.Sprintf("%0*d", body, i) {
					t.Fatalf("message %d is %.20q", i, got)
				}
			}
			// What may come at once may, so it is 2 s; a loop that stood still for a
			// while counts that in.
			if took := time.Since(began); took < time.Second {
				t.Errorf("three times what may come at once took %v", took)
			}
			pub.await(wire.PINGRESP)
			s.sys(func(v map[string]int) bool { return v["throttled"] > 0 })
		})
	}
}

func TestMaxRetainedMessagesAndBytes(t *testing.T) {
	t.Parallel()
	s := serve(t, "--max-retained-messages=5", "--max-retained-bytes=10KiB", "--sys-interval=1s")
	c := s.dial(v5)
	c.join()
	retain := func(topic string, bytes int) wire.ReasonCode {
		t.Helper()
		c.send(c.encode(publish{QoS: 1, Retain: true, Topic: []byte(topic), Payload: make([]byte, bytes)}))
		h, b := c.await(wire.PUBACK)
		_, reason, err := wire.ReadAck(h, b, v5, &wire.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return reason
	}
	for i := range 5 {
		if got := retain(fmt.Sprint("r", i), 100); got >= 0x80 {
			t.Errorf("message %d: %v", i+1, got)
		}
	}
	if got := retain("r5", 100); got != wire.QuotaExceeded {
		t.Errorf("one too many: %v", got)
	}
	if got := retain("r4", 0); got >= 0x80 {
		t.Errorf("removing one: %v", got)
	}
	// Four messages of 100 bytes are there; each counts 66 more.
	left := 10<<10 - 4*(100+2+64) - (2 + 64)
	if got := retain("r5", left+1); got != wire.QuotaExceeded {
		t.Errorf("a byte too many: %v", got)
	}
	if got := retain("r5", left); got >= 0x80 {
		t.Errorf("as many bytes as may be: %v", got)
	}
	s.sys(func(v map[string]int) bool { return v["refused/retained"] == 2 })
}

func TestBans(t *testing.T) {
	t.Parallel()
	passwords := filepath.Join(t.TempDir(), "passwords")
	add := command("passwd", passwords, "u")
	add.Stdin = strings.NewReader("right\n")
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	user := func(password string) as {
		return func(c *wire.Connect) {
			c.HasUsername, c.Username, c.HasPassword, c.Password = true, "u", true, []byte(password)
		}
	}
	s := serve(t, behindProxy("--password-file="+passwords, "--allow-anonymous", "--ban-auth-failures=3", "--ban-connects=4", "--ban-time=15s", "--ban-by=address,client-id")...)
	for i := range 2 {
		if got := s.from("198.51.100.1").tries(user("wrong")); got != wire.BadUserNameOrPassword.String() {
			t.Fatalf("failure %d: %s", i+1, got)
		}
	}
	if got := s.from("198.51.100.1").tries(user("right")); got != success {
		t.Errorf("one failure before the ban: %s", got)
	}
	s.from("198.51.100.1").tries(user("wrong"))
	if got := s.from("198.51.100.1").tries(user("right")); got != "closed" {
		t.Errorf("after three failures: %s", got)
	}
	if got := s.from("198.51.100.2").tries(user("right")); got != success {
		t.Errorf("the same user from elsewhere: %s", got)
	}
	if status, _, _ := s.exchange(handshake(s.ws, "X-Forwarded-For: 198.51.100.1\r\n")); status != 403 {
		t.Errorf("a banned address over WebSocket: %d", status)
	}
	until(t, "the ban ends", func() bool {
		time.Sleep(200 * time.Millisecond)
		return s.from("198.51.100.1").tries(user("right")) == success
	})

	// Two that take the session from each other, each from its own address.
	for i := range 4 {
		if got := s.from(fmt.Sprintf("198.51.100.%d", 10+i)).tries(named("twin")); got != success {
			t.Errorf("connection %d: %s", i+1, got)
		}
	}
	if got := s.from("198.51.100.20").tries(named("twin")); got != wire.Banned.String() {
		t.Errorf("one too many: %s", got)
	}
	if got := s.from("198.51.100.20").tries(named("other")); got != success {
		t.Errorf("another client: %s", got)
	}
	// Never of loopback.
	for range 8 {
		if got := s.dial(v5).tries(named("local"), user("wrong")); got != wire.BadUserNameOrPassword.String() {
			t.Errorf("loopback: %s", got)
		}
	}
	s.sys(func(v map[string]int) bool {
		return v["bans/total"] >= 2 && v["refused/banned"] >= 1 && v["refused/address-banned"] >= 2
	})
	if log := s.Log.String(); !strings.Contains(log, `msg=banned address=198.51.100.1 because="authentication failed too often"`) {
		t.Errorf("the log does not tell of the ban")
	}
}

func TestReload_ChangesLimits(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "hashplus.yaml")
	write(t, file, "max-address-connections: 1\n")
	s := serve(t, behindProxy("--config="+file)...)
	first := s.from("198.51.100.1")
	if got := first.tries(); got != success {
		t.Fatal(got)
	}
	if got := s.from("198.51.100.1").tries(); got != "closed" {
		t.Fatalf("one too many: %s", got)
	}
	write(t, file, "max-address-connections: 2\nmax-retained-messages: 1\n")
	s.signal(syscall.SIGHUP)
	until(t, "two are let in", func() bool { return s.from("198.51.100.1").tries() == success })
	if got := s.from("198.51.100.1").tries(); got != "closed" {
		t.Errorf("the third: %s", got)
	}
	for i, want := range []bool{true, false} {
		first.send(first.encode(publish{QoS: 1, Retain: true, Topic: []byte(fmt.Sprint("r", i)), Payload: []byte("x")}))
		h, b := first.await(wire.PUBACK)
		if _, reason, err := wire.ReadAck(h, b, v5, &wire.Limits{}); err != nil || (reason < 0x80) != want {
			t.Errorf("retained message %d: %v %v", i+1, reason, err)
		}
	}
}

// The process is told how much memory it may use, is filled by messages that wait
// for a client that acknowledges none, says so, serves the others, and takes new
// work again when the memory is free.
func TestMaxMemory(t *testing.T) {
	s := serve(t, "--max-memory=96MiB", "--max-queued-bytes=1GiB", "--max-queued-messages=1000000", "--sys-interval=1s")
	stuck := s.dial(v5)
	stuck.join(func(c *wire.Connect) { c.ReceiveMaximum = 1 })
	stuck.subscribe(1, "fill")
	other, pub, old := s.dial(v5), s.dial(v5), s.dial(v311)
	other.join()
	other.subscribe(0, "live")
	old.join()
	pub.join()
	payload := make([]byte, 32<<10)
	refused := func(topic string) bool {
		t.Helper()
		pub.send(pub.encode(publish{QoS: 1, Topic: []byte(topic), Payload: payload}))
		h, b := pub.await(wire.PUBACK)
		_, reason, err := wire.ReadAck(h, b, v5, &wire.Limits{})
		if err != nil || reason >= 0x80 && reason != wire.QuotaExceeded {
			t.Fatalf("PUBACK %v %v", reason, err)
		}
		return reason == wire.QuotaExceeded
	}
	n := 0
	for ; !refused("fill"); n++ {
		if n > 10_000 {
			t.Fatal("300 MiB were taken, with a limit of 96")
		}
	}
	t.Logf("refused after %d messages of 32 KiB, at %d MiB", n, s.rss())
	if got := s.dial(v5).tries(); got != wire.ServerBusy.String() {
		t.Errorf("a new connection: %s", got)
	}
	late := s.dial(v311)
	late.send(late.request())
	if _, body := late.expect(wire.CONNACK); body[1] != 3 {
		t.Errorf("a new connection of version 3.1.1: %d", body[1])
	}
	if got := other.trySubscribe(0, "more")[0]; got != wire.QuotaExceeded {
		t.Errorf("a new subscription: %v", got)
	}
	pub.post(0, "live", []byte("still"))
	if got := string(other.message().Payload); got != "still" {
		t.Errorf("got %q", got)
	}
	// Below version 5 one message is taken, the next one waits.
	old.send(old.encode(publish{QoS: 1, Topic: []byte("live"), Payload: []byte("old")}))
	old.await(wire.PUBACK)
	old.send(old.encode(publish{QoS: 1, Topic: []byte("live"), Payload: []byte("waits")}))
	if h, _, err := old.read(300 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v %v while memory is short", h.Type, err)
	}
	s.memory(96 + 40)
	if !strings.Contains(s.Log.String(), "memory is short") {
		t.Error("the log does not say that memory is short")
	}
	// The session ends with its connection, and its messages with it.
	stuck.drop()
	until(t, "new work is taken again", func() bool { return !refused("nobody") })
	old.await(wire.PUBACK)
	if got := s.dial(v5).tries(); got != success {
		t.Errorf("a new connection: %s", got)
	}
	t.Logf("taken again at %d MiB", s.rss())
	s.sys(func(v map[string]int) bool { return v["refused/memory"] >= 4 && v["memory/used"] > 0 })
}

func TestDrain_SpreadsTheEnd(t *testing.T) {
	t.Parallel()
	s := boot(t, "--tcp=127.0.0.1:0", "--ws=127.0.0.1:0", "--drain=8s", "--server-reference=other.example:1883")
	const n = 80
	ended := make(chan time.Duration, n)
	var clients []*client
	for i := range n {
		c := s.dial(v5)
		if i%2 == 0 {
			c = s.dialWS(v5)
		}
		c.join()
		clients = append(clients, c)
	}
	began := time.Now()
	s.signal(syscall.SIGTERM)
	for _, c := range clients {
		go func() {
			reason, how := c.end()
			ended <- time.Since(began)
			if reason != wire.UseAnotherServer || c.last.ServerReference != "other.example:1883" {
				t.Errorf("DISCONNECT %v %+v (%v)", reason, c.last, how)
			}
			c.closedWith(how, 1001)
			c.drop()
		}()
	}
	until(t, "nobody listens", func() bool {
		conn, err := net.Dial("tcp", s.tcp)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	early := 0
	var last time.Duration
	for range n {
		at := <-ended
		if at < 3*time.Second {
			early++
		}
		last = max(last, at)
	}
	if err := s.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	// Eighty within six seconds, no more than half of them in the first half: a
	// busy machine can only make it later.
	if early > n/2+5 || last < 5400*time.Millisecond {
		t.Errorf("%d of %d ended within 3 s, the last after %v", early, n, last)
	}
}

func TestNotify_TheServiceManagerHearsHowItGoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hear := func(want string) {
		t.Helper()
		b := make([]byte, 1000)
		for {
			if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			n, err := conn.Read(b)
			if err != nil {
				t.Fatalf("%s is not said: %v", want, err)
			}
			if got := string(b[:n]); strings.HasPrefix(got, want) {
				return
			} else if got != "WATCHDOG=1" {
				t.Fatalf("%q instead of %q", got, want)
			}
		}
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "400000")
	s := boot(t, "--tcp=127.0.0.1:0")
	hear("READY=1")
	hear("WATCHDOG=1")
	hear("WATCHDOG=1")
	s.signal(syscall.SIGHUP)
	hear("RELOADING=1\nMONOTONIC_USEC=")
	hear("READY=1")
	s.signal(syscall.SIGTERM)
	hear("STOPPING=1")
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}
