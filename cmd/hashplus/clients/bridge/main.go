//go:build linux

// Command bridge lets an MQTT client that knows only TCP reach a broker over
// WebSocket. It accepts TCP connections and forwards the bytes of each over a
// WebSocket connection of its own, with the sub-protocol mqtt.
//
//	bridge -to ws://127.0.0.1:8083/mqtt [-listen 127.0.0.1:0] [-seed 1]
//
// It prints the address on which it listens. The bytes are cut into binary
// messages, and those into frames, at arbitrary places, with empty frames and
// control frames in between: RFC 6455 gives a frame's boundaries no meaning,
// and neither does MQTT [MQTT-6.0.0-2].
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/gobwas/ws"
)

func main() {
	log.SetFlags(log.Lmicroseconds)
	to := flag.String("to", "", "WebSocket `URL` of the broker")
	listen := flag.String("listen", "127.0.0.1:0", "`address` to accept TCP connections on")
	seed := flag.Uint64("seed", 1, "seed of the choice of boundaries")
	flag.Parse()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(serve(listener, *to, *seed))
}

// serve bridges every connection that listener accepts to the URL to, until
// listener fails, and returns when the last of them has ended. Connection number
// n cuts its bytes by seed and n.
func serve(listener net.Listener, to string, seed uint64) error {
	clients, err := newPump()
	if err != nil {
		return err
	}
	pumping := make(chan error, 1)
	go func() {
		err := clients.run()
		if err != nil {
			listener.Close() // without it nothing works
		}
		pumping <- err
	}()
	var bridges sync.WaitGroup
	for n := uint64(0); ; n++ {
		client, err := listener.Accept()
		if err != nil {
			bridges.Wait()
			clients.close()
			return errors.Join(err, <-pumping)
		}
		bridges.Go(func() {
			if err := bridge(client.(*net.TCPConn), clients, to, rand.New(rand.NewPCG(seed, n))); err != nil {
				log.Printf("connection %d: %v", n, err)
			}
		})
	}
}

// closeTimeout bounds how long a side that is done waits for the other.
const closeTimeout = 5 * time.Second

// bridge forwards between client and a new WebSocket connection until both
// sides have ended. The end of either is passed on: a client that goes away
// ends the WebSocket with a close frame, and a close frame from the broker ends
// the client's connection after all that came before it.
func bridge(client *net.TCPConn, clients *pump, to string, choice *rand.Rand) error {
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	dialer := ws.Dialer{Protocols: []string{"mqtt"}}
	conn, early, handshake, err := dialer.Dial(ctx, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if handshake.Protocol != "mqtt" {
		return fmt.Errorf("the server chose the sub-protocol %q", handshake.Protocol)
	}
	from := io.Reader(conn)
	if early != nil {
		from = io.MultiReader(early, conn)
		defer ws.PutReader(early)
	}
	out := &frames{conn: conn, choice: choice}
	// When nothing more can be sent, bytes are still taken: what is left unread
	// when client is closed would turn the close into a reset, which takes back
	// what the client has not read yet.
	source, err := clients.add(client, func(p []byte) { _ = out.send(p) })
	if err != nil {
		return err
	}
	defer clients.remove(source)
	delivered := make(chan struct{})
	var ends sync.WaitGroup
	ends.Go(func() {
		select {
		case <-source.ended:
			_ = out.close(ws.StatusGoingAway)
			_ = conn.SetReadDeadline(time.Now().Add(closeTimeout)) // for the broker's close frame
		case <-delivered:
		}
	})
	err = deliver(client, from, out)
	close(delivered)
	ends.Wait()
	_ = client.CloseWrite()
	select {
	case <-source.ended:
	case <-time.After(closeTimeout):
	}
	return err
}

// frames writes to a WebSocket as its client. Any goroutine may call close and
// pong, one at a time calls send.
type frames struct {
	mu     sync.Mutex // a frame is written whole
	conn   net.Conn
	closed bool

	choice *rand.Rand // owned by send
}

// write sends all in one system call.
func (f *frames) write(all ...ws.Frame) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return net.ErrClosed
	}
	var out bytes.Buffer
	for _, frame := range all {
		f.closed = frame.Header.OpCode == ws.OpClose
		if err := ws.WriteFrame(&out, ws.MaskFrameInPlace(frame)); err != nil {
			return err
		}
	}
	_, err := f.conn.Write(out.Bytes())
	return err
}

func (f *frames) close(code ws.StatusCode) error {
	return f.write(ws.NewCloseFrame(ws.NewCloseFrameBody(code, "")))
}

func (f *frames) pong(payload []byte) error { return f.write(ws.NewPongFrame(payload)) }

// send writes p as one to three messages of one to three frames each. Short
// frames make up most of them, so that a packet's header is cut too.
func (f *frames) send(p []byte) error {
	var all []ws.Frame
	for _, message := range f.cut(p) {
		op := ws.OpBinary
		parts := f.cut(message)
		for i, part := range parts {
			last := i == len(parts)-1
			all = append(all, ws.NewFrame(op, last, bytes.Clone(part))) // masking changes it
			op = ws.OpContinuation
			if !last && f.choice.IntN(8) == 0 { // allowed between the frames of a message
				all = append(all, ws.NewPingFrame([]byte("bridge")))
			}
		}
	}
	return f.write(all...)
}

// cut divides p into one to three pieces, which may be empty.
func (f *frames) cut(p []byte) [][]byte {
	var pieces [][]byte
	for range f.choice.IntN(3) {
		at := f.choice.IntN(len(p) + 1)
		if f.choice.IntN(2) == 0 {
			at = min(at, f.choice.IntN(4))
		}
		pieces = append(pieces, p[:at])
		p = p[at:]
	}
	return append(pieces, p)
}

// deliver passes what the broker sends on to client until the broker ends the
// connection, and holds the broker to the framing that MQTT asks for.
func deliver(client io.Writer, from io.Reader, out *frames) error {
	for {
		header, err := ws.ReadHeader(from)
		if errors.Is(err, io.EOF) {
			return errors.New("the broker ended the connection without a close frame")
		}
		if err != nil {
			return err
		}
		payload := make([]byte, header.Length)
		if _, err := io.ReadFull(from, payload); err != nil {
			return err
		}
		switch {
		case header.Masked || header.Rsv != 0:
			return fmt.Errorf("the broker sent a frame with mask %t and reserved bits %03b", header.Masked, header.Rsv)
		case header.OpCode == ws.OpPing:
			err = out.pong(payload)
		case header.OpCode == ws.OpPong:
		case header.OpCode == ws.OpClose:
			_ = out.close(ws.StatusNormalClosure) // it may have been sent already
			return nil
		case header.OpCode == ws.OpText:
			return errors.New("the broker sent a text frame")
		default:
			// A client that has gone does not end the loop: the broker is still
			// to send its close frame.
			_, _ = client.Write(payload)
		}
		if err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
}
