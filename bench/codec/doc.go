// Package codec is the client's side of MQTT 3.1.1 and 5.0 and of WebSocket
// framing, as small as a load generator needs it.
//
// It is written apart from the broker's own codec on purpose: a generator that
// shared code with the broker it measures would share its mistakes too. All
// encoders append to a slice and allocate nothing beyond it; all decoders take
// bytes, return views into them, and report "more input needed" as n == 0.
package codec
