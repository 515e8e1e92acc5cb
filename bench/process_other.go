//go:build !linux

package bench

import (
	"errors"
	"time"
)

// usage cannot be had here; the generator itself needs Linux too.
func usage(int) (time.Duration, uint64, error) {
	return 0, 0, errors.New("broker's process: CPU time is read from /proc, which is Linux only")
}
