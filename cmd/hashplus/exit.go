package main

import (
	"context"
	"errors"
	"fmt"

	"hashplus/broker"
	"hashplus/cmd/hashplus/mqttclient"
)

// Exit codes. They are documented in docs/configuration.md.
const (
	exitOK          = 0
	exitFailure     = 1   // input, output, anything not below
	exitUsage       = 2   // a wrong flag, environment variable, file or combination of them
	exitUnreachable = 3   // network, TLS or WebSocket upgrade
	exitRefused     = 4   // CONNECT refused
	exitRejected    = 5   // a subscription or message refused, or nobody to answer a request
	exitLost        = 6   // the connection was lost or ended by the server, for good
	exitTimeout     = 7   // --timeout ran out before the work was done
	exitStuck       = 8   // the store failed and could not be closed: only a new process can open it
	exitDamaged     = 9   // the store is damaged
	exitInterrupted = 130 // ended by a signal before the work was done
)

// usageError is a mistake in how the command was called.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// Unwrap is the mistake.
func (e usageError) Unwrap() error { return e.error }

// errTimeout and errInterrupted end a command whose work is not done.
var (
	errTimeout     = errors.New("timed out")
	errInterrupted = errors.New("interrupted")
)

// rejectedError is a subscription that was refused, or a request that nobody answers.
type rejectedError struct{ text string }

func (e rejectedError) Error() string { return e.text }

// exitCode maps what a command returned.
func exitCode(err error) int {
	var (
		usage    usageError
		stuck    stuckError
		rejected rejectedError
		client   *mqttclient.Error
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &stuck):
		return exitStuck
	case errors.Is(err, broker.ErrStoreDamaged):
		return exitDamaged
	case errors.As(err, &rejected):
		return exitRejected
	case errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &client):
		return exitTimeout
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled) && !errors.As(err, &client):
		return exitInterrupted
	case errors.As(err, &client):
		switch client.Stage {
		case mqttclient.Dialing:
			return exitUnreachable
		case mqttclient.Connecting:
			return exitRefused
		case mqttclient.Publishing, mqttclient.Subscribing:
			return exitRejected
		case mqttclient.Running:
			return exitLost
		}
	}
	return exitFailure
}
