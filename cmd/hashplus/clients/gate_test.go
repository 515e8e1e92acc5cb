package clients

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// gate is a TCP relay between one client and the broker that stands for the
// network between them: it can be cut without either end saying goodbye, and
// closed to new connections. Any goroutine.
type gate struct {
	url    string // what the client connects to
	target string // host:port

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]struct{} // both ends of every connection
}

// newGate opens a gate before the broker at target, a URL of scheme mqtt or ws.
func newGate(t *testing.T, target string) *gate {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{target: u.Host, conns: map[net.Conn]struct{}{}}
	u.Host = listener.Addr().String()
	g.url = u.String()
	t.Cleanup(func() {
		listener.Close()
		g.cut()
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go g.relay(conn)
		}
	}()
	return g
}

func (g *gate) relay(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", g.target)
	if err != nil {
		return
	}
	defer server.Close()
	g.mu.Lock()
	if g.shut {
		g.mu.Unlock()
		return
	}
	g.conns[client], g.conns[server] = struct{}{}, struct{}{}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.conns, client)
		delete(g.conns, server)
	}()
	done := make(chan struct{}, 2)
	pipe := func(to, from net.Conn) {
		io.Copy(to, from)              // an error here is the cut
		to.(*net.TCPConn).CloseWrite() // the end of one direction is passed on, not the other's
		done <- struct{}{}
	}
	go pipe(server, client)
	go pipe(client, server)
	<-done
	<-done
}

// close refuses new connections; those that stand stay.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
}

// cut ends every connection and refuses new ones until open.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for conn := range g.conns {
		conn.Close()
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
}
