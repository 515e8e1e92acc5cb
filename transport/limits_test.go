package transport

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hashplus/transport/link"
)

func TestAddresses_Connections(t *testing.T) {
	table, l := newAddresses(), &Limits{AddressConns: 3}
	a := netip.MustParseAddr("192.0.2.1")
	for i := range 3 {
		if err := table.enter(a, l, 0); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if err := table.enter(a, l, 0); err != errAddressConns {
		t.Errorf("the fourth: %v", err)
	}
	if err := table.enter(netip.MustParseAddr("192.0.2.2"), l, 0); err != nil {
		t.Errorf("another address: %v", err)
	}
	table.leave(a, 0)
	if err := table.enter(a, l, 0); err != nil {
		t.Errorf("when one has gone: %v", err)
	}
}

func TestAddresses_IPv6CountsByNetwork(t *testing.T) {
	table, l := newAddresses(), &Limits{AddressConns: 2}
	for i := range 2 {
		if err := table.enter(netip.MustParseAddr(fmt.Sprintf("2001:db8:0:1:%d::1", i)), l, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.enter(netip.MustParseAddr("2001:db8:0:1:ffff::"), l, 0); err != errAddressConns {
		t.Errorf("the third of a network: %v", err)
	}
	if err := table.enter(netip.MustParseAddr("2001:db8:0:2::"), l, 0); err != nil {
		t.Errorf("the next network: %v", err)
	}
}

func TestAddresses_Rate(t *testing.T) {
	table, l := newAddresses(), &Limits{AddressRate: 6} // one every ten seconds
	a := netip.MustParseAddr("192.0.2.1")
	const second = int64(time.Second)
	now := 1000 * second
	come := func(after int64, want error) {
		t.Helper()
		now += after * second
		err := table.enter(a, l, now)
		if err == nil {
			table.leave(a, now)
		}
		if err != want {
			t.Errorf("at %d s: %v, want %v", now/second, err, want)
		}
	}
	for range 6 {
		come(0, nil)
	}
	come(0, errAddressRate)
	come(9, errAddressRate)
	come(1, nil)
	come(0, errAddressRate)
	come(20, nil)
	come(0, nil)
	come(0, errAddressRate)
	come(3600, nil)
	for range 5 {
		come(0, nil)
	}
	come(0, errAddressRate)
}

func TestAddresses_AreForgotten(t *testing.T) {
	table, l := newAddresses(), &Limits{AddressConns: 10, AddressRate: 1000}
	size := func() (n int) {
		for i := range table.shards {
			n += len(table.shards[i].uses)
		}
		return n
	}
	// Each of very many addresses comes once and goes: a rate is remembered of
	// a bounded number of them.
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	most := maxIdleAddresses * len(table.shards)
	for i := range 3 * most {
		if err := table.enter(addr(i), l, 0); err != nil {
			t.Fatal(err)
		}
		table.leave(addr(i), 0)
	}
	if n := size(); n > most {
		t.Errorf("%d addresses are remembered, want at most %d", n, most)
	}
	// Those that have connections are never forgotten.
	const there = 5000
	for i := range there {
		table.enter(addr(i), l, 0)
	}
	for i := range 2 * most {
		table.enter(addr(there+i), l, int64(time.Hour))
		table.leave(addr(there+i), int64(time.Hour))
	}
	for i := range there {
		table.leave(addr(i), 3*int64(time.Hour))
	}
	// Nothing is left of those whose bucket is full again.
	table = newAddresses()
	table.enter(addr(1), l, 0)
	table.leave(addr(1), 2*addressSpan)
	if n := size(); n != 0 {
		t.Errorf("%d addresses are left", n)
	}
}

// stranger opens a WebSocket as the client with an address, behind a proxy, and
// returns the status of the answer.
func stranger(t testing.TB, address, client string) (net.Conn, string) {
	t.Helper()
	nc := dialFrom(t, "127.0.0.1", address)
	fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nX-Forwarded-For: %s\r\n\r\n", client)
	return nc, string(readFull(t, nc, 12)[9:])
}

func TestLimits_PerAddressCountTheRealClient(t *testing.T) {
	h := newScripted()
	log := new(quiet)
	var banned atomic.Value
	banned.Store(netip.MustParseAddr("203.0.113.66"))
	s := start(t, Options{Limits: Limits{AddressConns: 2}, Logger: testLogger(log),
		Banned: func(a netip.Addr) bool { return a == banned.Load() }}, h)
	l := Listener{Network: "ws", Addr: "127.0.0.1:0", ForwardedHeader: XForwardedFor, Trusted: networks(t, "127.0.0.1", "10.0.0.0/8")}
	web, err := s.Listen(l)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := s.Listen(proxied(t, ProxyOptional))
	if err != nil {
		t.Fatal(err)
	}
	first, status := stranger(t, web, "198.51.100.1")
	if status != "101" {
		t.Fatal(status)
	}
	// The count is of the address, whichever listener it comes by.
	raw := dialFrom(t, "127.0.0.1", plain)
	write(t, raw, append(proxyFrom(t, 2, "198.51.100.1:7"), '!'))
	readFull(t, raw, 1)
	if _, status = stranger(t, web, "198.51.100.1"); status != "429" {
		t.Errorf("the third connection: %s", status)
	}
	over := dialFrom(t, "127.0.0.1", plain)
	write(t, over, append(proxyFrom(t, 2, "198.51.100.1:8"), '!'))
	if b := readAnyEnd(over); len(b) > 0 {
		t.Errorf("the third connection, over TCP: %q", b)
	}
	if _, status = stranger(t, web, "198.51.100.2"); status != "101" {
		t.Errorf("another address: %s", status)
	}
	if _, status = stranger(t, web, "203.0.113.66"); status != "403" {
		t.Errorf("a banned address: %s", status)
	}
	// Loopback and the proxies themselves do not count.
	for range 5 {
		for _, exempt := range []string{"127.0.0.1", "10.1.2.3", "127.0.0.9", "::1"} {
			if _, status := stranger(t, web, exempt); status != "101" {
				t.Errorf("%s: %s", exempt, status)
			}
		}
	}
	first.Close()
	untilTrue(t, func() bool {
		nc, status := stranger(t, web, "198.51.100.1")
		nc.Close()
		return status == "101"
	})
	st := s.Stats()
	if st.RefusedAddress < 2 || st.RefusedBanned != 1 || st.RefusedRate != 0 {
		t.Errorf("%+v", st)
	}
	if !strings.Contains(log.String(), "remote=198.51.100.1:7 ") && !strings.Contains(log.String(), "remote=198.51.100.1:") {
		t.Errorf("the log does not name the client:\n%s", log)
	}
	// The rate, live.
	if err := s.SetLimits(Limits{AddressRate: 2}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"101", "101", "429"} {
		nc, status := stranger(t, web, "2001:db8::"+fmt.Sprint(i+1))
		nc.Close()
		if status != want {
			t.Errorf("connection %d in a minute: %s, want %s", i+1, status, want)
		}
	}
	if s.SetLimits(Limits{AddressConns: -1}) == nil {
		t.Error("limits that are none are accepted")
	}
}

func readAnyEnd(nc net.Conn) []byte {
	nc.SetReadDeadline(time.Now().Add(time.Minute))
	b, _ := io.ReadAll(nc) // a reset is an end, too
	return b
}

func untilTrue(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not become true")
		}
	}
}

func TestLimits_AcceptingIsSlowWhileALoopLags(t *testing.T) {
	h := newScripted()
	var slow atomic.Bool
	opens, most := 0, 0 // in a tick; of the loop's goroutine
	h.open = func(c link.Conn) link.Stream {
		if opens++; slow.Load() {
			most = max(most, opens)
		}
		return h.newStream(c)
	}
	h.tick = func(link.Loop) bool {
		opens = 0
		if slow.Load() {
			time.Sleep(60 * time.Millisecond)
		}
		return false
	}
	log := new(quiet)
	s := start(t, Options{Loops: 1, Limits: Limits{LoopLag: 50 * time.Millisecond}, Logger: testLogger(log)}, h)
	address, err := s.Listen(Listener{Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	dialURL(t, address)
	next(t, h)
	slow.Store(true)
	do(t, h.loops[0], func() {})
	untilTrue(t, func() bool { return s.Stats().Lag > 0 })
	for range 20 {
		dialURL(t, address) // the system takes them
	}
	for range 3 { // and one by one they are let in
		next(t, h)
	}
	if st := s.Stats(); st.AcceptPauses == 0 || st.Lag < 50*time.Millisecond {
		t.Errorf("%+v", st)
	}
	do(t, h.loops[0], func() {
		if most > 5 {
			t.Errorf("%d came in at once", most)
		}
	})
	slow.Store(false)
	for range 17 {
		next(t, h)
	}
	if n := strings.Count(log.String(), "loops lag"); n < 1 || n > 5 { // another if it takes long
		t.Errorf("%d lines in the log:\n%s", n, log)
	}
}

func TestLimits_RefusalsDoNotFillTheLog(t *testing.T) {
	log := new(quiet)
	s := start(t, Options{MaxConns: 1, Logger: testLogger(log)}, newScripted())
	address, err := s.Listen(Listener{Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	dialURL(t, address)
	untilTrue(t, func() bool { return s.Conns() == 1 })
	begin := time.Now()
	for range 200 {
		readAnyEnd(dialURL(t, address))
	}
	most := refusalLines * (2 + int(time.Since(begin)/time.Second))
	untilTrue(t, func() bool { return s.Stats().RefusedFull == 200 })
	if n := bytes.Count([]byte(log.String()), []byte("too many")); n < refusalLines || n > most {
		t.Errorf("%d lines for 200 refusals", n)
	}
}
