//go:build linux

package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial connects to a bridge before a WebSocket server that behave plays.
func dial(t *testing.T, behave func(*websocket.Conn)) *net.TCPConn {
	t.Helper()
	upgrader := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		behave(conn)
	}))
	t.Cleanup(server.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		serve(listener, "ws"+strings.TrimPrefix(server.URL, "http"), 1) // until listener closes
	}()
	t.Cleanup(func() {
		listener.Close()
		<-served
	})
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

func TestBridge_BytesComeBackInOrder(t *testing.T) {
	conn := dial(t, func(server *websocket.Conn) {
		for {
			kind, p, err := server.ReadMessage()
			if err != nil {
				return
			}
			if kind != websocket.BinaryMessage {
				t.Errorf("a message of type %d", kind)
			}
			if err := server.WriteMessage(kind, p); err != nil {
				return
			}
		}
	})
	want := make([]byte, 200_000)
	rand.NewChaCha8([32]byte{}).Read(want)
	go func() {
		for p := want; len(p) > 0; {
			n := min(len(p), 1+len(p)%7000)
			conn.Write(p[:n])
			p = p[n:]
		}
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes came back")
	}
}

func TestBridge_LastBytesReachAClientThatStillSends(t *testing.T) {
	conn := dial(t, func(server *websocket.Conn) {
		server.ReadMessage()
		server.WriteMessage(websocket.BinaryMessage, bytes.Repeat([]byte("bye"), 100_000))
		server.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Minute))
		for { // until the bridge has closed too
			if _, _, err := server.ReadMessage(); err != nil {
				return
			}
		}
	})
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range 300 {
			if _, err := conn.Write([]byte("still here")); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
		conn.CloseWrite()
	}()
	<-sent
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 300_000 {
		t.Errorf("%d of 300000 bytes came", len(got))
	}
}

func TestBridge_ClientThatGoesAwayEndsTheWebSocket(t *testing.T) {
	ended := make(chan error, 1)
	conn := dial(t, func(server *websocket.Conn) {
		for {
			if _, _, err := server.ReadMessage(); err != nil {
				ended <- err
				return
			}
		}
	})
	conn.Write([]byte("x"))
	conn.Close()
	select {
	case err := <-ended:
		if !websocket.IsCloseError(err, websocket.CloseGoingAway) {
			t.Errorf("the WebSocket ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the WebSocket did not end")
	}
}
