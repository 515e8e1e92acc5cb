// Command mochi is mochi-mqtt/server as a peer for `bench peers`: anonymous
// clients, WebSocket and TCP, nothing on disk unless -durable says where: its
// pebble hook then, synced with each change.
package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/hooks/storage/pebble"
	"github.com/mochi-mqtt/server/v2/listeners"
)

func main() {
	ws := flag.String("ws", "127.0.0.1:0", "WebSocket `address`")
	tcp := flag.String("tcp", "127.0.0.1:0", "TCP `address`")
	pending := flag.Int("pending", 128, "messages queued per client; the default of the library is 8192, at 64 KiB per client")
	durable := flag.String("durable", "", "`folder` to keep everything in")
	flag.Parse()
	if err := serve(*ws, *tcp, *durable, int32(*pending)); err != nil {
		fmt.Fprintln(os.Stderr, "mochi:", err)
		os.Exit(1)
	}
}

func serve(ws, tcp, durable string, pending int32) error {
	caps := mqtt.NewDefaultServerCapabilities()
	caps.MaximumClientWritesPending = pending
	s := mqtt.New(&mqtt.Options{Capabilities: caps, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err := s.AddHook(new(auth.AllowHook), nil); err != nil {
		return err
	}
	if durable != "" {
		if err := s.AddHook(new(pebble.Hook), &pebble.Options{Path: durable, Mode: pebble.Sync}); err != nil {
			return err
		}
	}
	if err := s.AddListener(listeners.NewWebsocket(listeners.Config{ID: "ws", Address: ws})); err != nil {
		return err
	}
	if err := s.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: tcp})); err != nil {
		return err
	}
	if err := s.Serve(); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	return s.Close()
}
