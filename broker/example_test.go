package broker_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"hashplus/broker"
	"hashplus/broker/wire"
	"hashplus/transport"
)

// A program with a broker in it: MQTT clients connect over WebSocket and TCP,
// and the program takes part without a connection of its own.
func Example() {
	b, err := broker.New(broker.Options{MaxKeepAlive: 60})
	if err != nil {
		log.Fatal(err)
	}
	server, err := transport.New(transport.Options{}, b)
	if err != nil {
		log.Fatal(err)
	}
	for _, network := range []string{"ws", "tcp"} {
		if _, err := server.Listen(transport.Listener{Network: network, Addr: "127.0.0.1:0"}); err != nil {
			log.Fatal(err)
		}
	}

	// Retained messages come to whoever subscribes later.
	if err := b.Publish(broker.Message{Topic: "sensor/attic", Payload: []byte("21.5"), Retain: true}); err != nil {
		log.Fatal(err)
	}
	readings := make(chan string, 10)
	sensors, err := b.Subscribe("sensor/#", 1, func(m broker.Message) {
		readings <- fmt.Sprintf("%s is %s", m.Topic, m.Payload)
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-readings)
	if err := b.Publish(broker.Message{Topic: "sensor/cellar", Payload: []byte("12"), QoS: 1}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-readings)

	// A responder answers to the Response Topic. It may as well be a device.
	responder, err := b.Subscribe("greet", 1, func(m broker.Message) {
		_ = b.Publish(broker.Message{ // a requester without an answer asks again
			Topic:          m.ResponseTopic,
			Payload:        append([]byte("hello "), m.Payload...),
			PassProperties: wire.PassProperties{CorrelationData: m.CorrelationData},
		})
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	reply, err := b.Request(ctx, broker.Message{Topic: "greet", Payload: []byte("world")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(reply.Payload))

	sensors.Close()
	responder.Close()
	server.StopAccepting()
	if err := b.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	if err := server.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// sensor/attic is 21.5
	// sensor/cellar is 12
	// hello world
}
