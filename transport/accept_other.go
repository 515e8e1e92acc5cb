//go:build !linux || nopoll

package transport

import (
	"net"
	"net/netip"
)

// noListener is the descriptor of a listener that a goroutine serves.
const noListener = int32(-1)

// rawListener is noListener: there are no raw accepts here.
func rawListener(net.Listener) (int32, error) { return noListener, nil }

func rawAccept(int32) (fd int32, remote netip.AddrPort, err error) {
	return 0, netip.AddrPort{}, errNoPoller
}
