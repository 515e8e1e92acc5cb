package mqttclient

import "context"

// driver speaks one family of protocol versions. The client calls connect again
// after the connection was lost or disconnect returned; the other methods only
// while connected.
type driver interface {
	// connect makes one attempt, CONNACK included. first says that no earlier
	// attempt succeeded. Its errors are *Error or those of ctx. lost delivers
	// one error when the connection ends, unless disconnect ends it.
	connect(ctx context.Context, first bool) (info Connected, lost <-chan error, err error)

	// publish returns when the message has been acknowledged as its QoS asks,
	// with the reason code of that (0 below 5.0). An error that wraps errLost
	// means that it may be published again.
	publish(ctx context.Context, m *Message) (reason byte, err error)

	// subscribe returns the reason code for each filter.
	subscribe(ctx context.Context, subs []Subscription) ([]byte, error)

	// disconnect says goodbye and returns once nothing of the connection runs
	// any more, or ctx ends. withWill asks the server to publish the will (5.0).
	disconnect(ctx context.Context, withWill bool)
}
