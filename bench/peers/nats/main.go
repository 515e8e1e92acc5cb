// Command nats is nats-server with its MQTT listeners as a peer for `bench
// peers`: anonymous clients, WebSocket and TCP, JetStream in a temporary folder
// (MQTT needs it), never synced to disk unless -durable says where to keep it:
// synced with each message then.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	ws := flag.String("ws", "127.0.0.1:0", "WebSocket `address`; its path is /mqtt")
	tcp := flag.String("tcp", "127.0.0.1:0", "TCP `address`")
	durable := flag.String("durable", "", "`folder` to keep everything in")
	flag.Parse()
	if err := serve(*ws, *tcp, *durable); err != nil {
		fmt.Fprintln(os.Stderr, "nats:", err)
		os.Exit(1)
	}
}

func serve(ws, tcp, dir string) error {
	durable := dir != ""
	var err error
	if !durable {
		if dir, err = os.MkdirTemp("", "bench-nats-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	o := &server.Options{
		ServerName: "bench", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: dir, SyncInterval: time.Hour, SyncAlways: durable, MaxConn: 1 << 20,
		Websocket: server.WebsocketOpts{NoTLS: true},
	}
	if o.Websocket.Host, o.Websocket.Port, err = split(ws); err != nil {
		return err
	}
	if o.MQTT.Host, o.MQTT.Port, err = split(tcp); err != nil {
		return err
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("not ready after 10 s")
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

func split(addr string) (string, int, error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.Atoi(p)
	return host, port, err
}
