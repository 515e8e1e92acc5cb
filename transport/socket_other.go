//go:build !linux || nopoll

package transport

// No connection is a bare file descriptor on this system: these are never called.

type vector struct{}

func rawRead(int32, []byte) (int, error) { return 0, errNoPoller }

func rawWrite(int32, []byte) (int, error) { return 0, errNoPoller }

func rawWritev(int32, *writeQueue, *vector) (int, error) { return 0, errNoPoller }

func rawUnread(int32) bool { return false }

func rawCloseWrite(int32) {}

func rawClose(int32) {}
