// Command echo sends every WebSocket message back to where it came from. It
// shows the transport without a broker, and is what a conformance suite runs
// against.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os/signal"
	"syscall"
	"time"

	"hashplus/transport"
	"hashplus/transport/link"
)

type handler struct{}

func (handler) Start([]link.Loop)            {}
func (handler) Tick(link.Loop) bool          { return false }
func (handler) Open(c link.Conn) link.Stream { return &echo{c} }

// echo is one connection. It is a link.MessageStream.
type echo struct{ link.Conn }

// maxBuffered is how much may wait for a client that does not read its echo.
const maxBuffered = 1 << 20

func (e *echo) Message(text bool, b []byte) {
	e.Conn.(link.Messenger).SendMessage(text, b)
	if e.Buffered() > maxBuffered {
		e.Pause()
		e.NotifyBelow(maxBuffered / 2)
	}
}

func (e *echo) Writable()                    { e.Resume() }
func (e *echo) Data(b []byte) int            { return len(b) }
func (e *echo) Arrived()                     {}
func (e *echo) Dismissed(why link.Dismissal) { e.Close(link.CloseGoingAway, why.String()) }
func (e *echo) Stalled()                     { e.Close(link.ClosePolicy, "the echo is not read") }
func (e *echo) Closed(error)                 {}

func main() {
	addr := flag.String("ws", "127.0.0.1:9001", "address to listen on")
	deflate := flag.Bool("deflate", false, "accept permessage-deflate")
	flag.Parse()
	s, err := transport.New(transport.Options{}, handler{})
	if err != nil {
		log.Fatal(err)
	}
	url, err := s.Listen(transport.Listener{Network: "ws", Addr: *addr, Deflate: *deflate, MaxMessage: 64 << 20})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", url)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}
