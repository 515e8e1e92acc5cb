//go:build linux && !nopoll

package transport

import (
	"fmt"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"hashplus/transport/link"
)

func TestListen_ConnectionsInheritSocketOptions(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	connectListener(t, s, Listener{Network: "tcp"})
	st := next(t, h)
	do(t, st.conn.Loop(), func() {
		fd := int(st.conn.(*conn).sock.fd)
		for _, o := range []struct{ level, name, want int }{
			{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepIdle},
		} {
			if v, err := unix.GetsockoptInt(fd, o.level, o.name); err != nil || v != o.want {
				t.Errorf("option %d/%d is %d, %v", o.level, o.name, v, err)
			}
		}
	})
}

// quietHandler forgets handshakes, as a protocol does.
type quietHandler struct{ silent }

func (quietHandler) Start([]link.Loop)   {}
func (quietHandler) Tick(link.Loop) bool { return false }
func (quietHandler) Open(c link.Conn) link.Stream {
	c.Admit()
	return silent{}
}

func TestConn_IdleWebSocketHoldsLittleMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("memory is not measured under the race detector")
	}
	s := start(t, Options{Loops: 2}, quietHandler{})
	address, err := s.Listen(Listener{Network: "ws", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	var port int
	if _, err := fmt.Sscanf(address, "ws://127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	const warm, n = 100, 700
	fds := make([]int, 0, n)
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	request := []byte("GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	answer := make([]byte, 1024)
	connect := func(upTo int) uint64 {
		for len(fds) < upTo {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			fds = append(fds, fd)
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Write(fd, request); err != nil {
				t.Fatal(err)
			}
			if k, err := unix.Read(fd, answer); err != nil || k < 12 || string(answer[:12]) != "HTTP/1.1 101" {
				t.Fatalf("%q, %v", answer[:k], err)
			}
		}
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := connect(warm)
	per := int64(connect(n)-before) / (n - warm)
	t.Logf("%d bytes of heap for each connection", per)
	if per > 600 {
		t.Errorf("an idle connection holds %d bytes", per)
	}
}
