package topic

import (
	"syscall"
	"testing"
	"time"
)

// threadTime is the processor time of the calling thread: on a machine that does
// other things as well, the clock on the wall measures those too.
func threadTime(tb testing.TB) time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if err := syscall.Getrusage(thread, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
