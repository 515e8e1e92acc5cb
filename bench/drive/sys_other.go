//go:build !linux

package drive

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// sys has no implementation here: see newSys.
type sys struct{}

type event struct {
	token    int32
	readable bool
	writable bool
	hangup   bool
}

var errSystem = errors.New("the load generator needs Linux: it drives its clients with epoll")

func newSys() (*sys, error)                                            { return nil, errSystem }
func (*sys) close()                                                    {}
func (*sys) wait(dst []event, _ time.Duration) ([]event, error)        { return dst, errSystem }
func (*sys) dial(netip.AddrPort, netip.Addr, bool, int32) (int, error) { return -1, errSystem }
func (*sys) watch(int, int32) error                                    { return errSystem }
func descriptor(*net.TCPConn) (int, error)                             { return -1, errSystem }
func (*sys) unwatch(int) error                                         { return errSystem }
func connected(int) error                                              { return errSystem }
func read(int, []byte) (int, bool, error)                              { return 0, false, errSystem }
func write(int, []byte) (int, error)                                   { return 0, errSystem }
func shut(int, bool)                                                   {}
