package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// clockTick is the unit of the times in /proc/PID/stat: USER_HZ, which Linux
// fixes at 100 for user space on every architecture Go runs on.
const clockTick = 10 * time.Millisecond

// usage reads the user and system CPU time of pid, all threads together, and
// its resident memory in bytes. CPU time comes in steps of 10 ms.
func usage(pid int) (cpu time.Duration, rss uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("broker's process: %w", err)
	}
	// The name in parentheses may hold anything, so count from its end: then
	// field 0 is the state, 11 and 12 are utime and stime, 21 is rss in pages.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 22 {
		return 0, 0, fmt.Errorf("broker's process: stat has %d fields", len(f))
	}
	var n [3]uint64
	for i, at := range [3]int{11, 12, 21} {
		if n[i], err = strconv.ParseUint(string(f[at]), 10, 64); err != nil {
			return 0, 0, fmt.Errorf("broker's process: %w", err)
		}
	}
	return time.Duration(n[0]+n[1]) * clockTick, n[2] * uint64(os.Getpagesize()), nil
}
