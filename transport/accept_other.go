//go:build !linux || nopoll

package transport

import (
	"net"
	"os"
)

// rawListener is nil: there are no raw accepts here.
func rawListener(net.Listener) (*os.File, error) { return nil, nil }

func (a *acceptor) acceptRaw() error { return errNoPoller }
