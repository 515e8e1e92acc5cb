package main

import (
	"errors"
	"time"

	"hashplus/broker"
	"hashplus/transport"
)

// liveOptions are the keys of broker.Options and of the server's times. A client
// that is connected keeps what it was told at CONNECT.
var liveOptions = []string{ //nolint:gochecknoglobals // a table
	"max-keepalive", "receive-maximum", "topic-alias-maximum", "max-qos", "retain-available", "max-session-expiry",
	"server-reference", "max-sessions", "max-connect-size", "max-inflight", "max-queued-messages", "max-queued-bytes",
	"queue-full", "max-subscriptions", "max-topic-levels", "max-topic-length", "max-user-properties", "write-queue-bytes",
	"sys-interval", "max-connections", "connect-timeout", "write-stall", "max-packet-size", "strict", "min-free",
	"tls-handshake-timeout", "tls-handshake-rate", "tls-handshakes", "tls-watch",
}

// liveListenerOptions are the keys of what a listener says to its new
// connections.
var liveListenerOptions = []string{ //nolint:gochecknoglobals // a table
	"ws-path", "ws-origins", "ws-require-subprotocol", "ws-deflate", "ws-deflate-min-size", "ws-ping", "pong-grace",
	"trusted-proxies", "proxy-protocol", "forwarded-header",
	"tls-cert", "tls-key", "tls-min-version", "tls-client-auth", "tls-client-ca", "tls-crl", "tls-username",
}

// liveLimits puts the numbers of a new configuration in force.
func (r *reloader) liveLimits(b *broker.Broker, s *transport.Server) {
	r.live(func(next *configuration) (func(), error) {
		return func() {
			// finish lets nothing through that these refuse.
			if err := errors.Join(b.SetOptions(next.brokerOptions()), s.SetOptions(next.serverOptions())); err != nil {
				r.log.Error("limits of the new configuration are not in force", "cause", err)
			}
		}, nil
	}, liveOptions...)
}

// serverOptions is the configuration for the server, but for what it needs of
// the broker.
func (c *configuration) serverOptions() transport.Options {
	o := transport.Options{
		Loops:            c.Loops,
		IOUring:          uses[c.IOUring],
		HandshakeTimeout: time.Duration(c.ConnectTimeout),
		WriteStall:       time.Duration(c.WriteStall),
		MaxConns:         c.MaxConnections,
		Limits:           c.transportLimits(),
	}
	c.tlsConfig.options(&o)
	return o
}
