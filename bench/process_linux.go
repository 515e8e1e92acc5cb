package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// family is pid and all processes that descend from it, but for this one and its
// own: a broker may be started by a script, or be several processes.
func family(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		tasks := fmt.Sprintf("/proc/%d/task", all[i])
		threads, err := os.ReadDir(tasks)
		if err != nil {
			continue // it has ended; usage tells
		}
		for _, t := range threads {
			b, err := os.ReadFile(tasks + "/" + t.Name() + "/children")
			if err != nil {
				continue // this thread has just ended, or the kernel does not say
			}
			for _, f := range bytes.Fields(b) {
				child, err := strconv.Atoi(string(f))
				if err == nil && child != os.Getpid() && !slices.Contains(all, child) {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// usage reads the user and system CPU time of pid, all threads together with
// those that have ended, and its resident memory in bytes.
func usage(pid int) (cpu time.Duration, rss uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("process: %w", err)
	}
	// The name in parentheses may hold anything, so count from its end: then
	// field 0 is the state, 11 and 12 are utime and stime, 21 is rss in pages.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 22 {
		return 0, 0, fmt.Errorf("process %d: stat has %d fields", pid, len(f))
	}
	if state := f[0][0]; state == 'Z' || state == 'X' {
		return 0, 0, fmt.Errorf("process %d has ended", pid)
	}
	var n [3]uint64
	for i, at := range [3]int{11, 12, 21} {
		if n[i], err = strconv.ParseUint(string(f[at]), 10, 64); err != nil {
			return 0, 0, fmt.Errorf("process %d: %w", pid, err)
		}
	}
	rss = n[2] * uint64(os.Getpagesize())
	var t unix.Timespec
	if unix.ClockGettime(cpuClock(pid), &t) == nil {
		return time.Duration(t.Nano()), rss, nil
	}
	return time.Duration(n[0]+n[1]) * clockTick, rss, nil
}

// clockTick is the unit of the times in /proc/PID/stat: USER_HZ, which Linux
// fixes at 100 for user space on every architecture Go runs on.
const clockTick = 10 * time.Millisecond

// cpuClock is the clock of the CPU time of a process, as clock_getcpuclockid(3)
// makes it: the sum that stat has in steps of 10 ms, to the nanosecond.
func cpuClock(pid int) int32 {
	const scheduler = 2 // CPUCLOCK_SCHED; a thread's clock would have bit 2 set too
	return int32(^pid<<3 | scheduler)
}

// waited is how long the threads of pid were ready to run while others had the
// processor: what the machine's other load took from it. 0 if the kernel does not
// say.
func waited(pid int) time.Duration {
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return 0 // gone; usage tells
	}
	var sum time.Duration
	for _, t := range threads {
		b, err := os.ReadFile(tasks + "/" + t.Name() + "/schedstat")
		if err != nil {
			continue // this thread has just ended
		}
		// Time on the processor, time ready but not on it, number of turns.
		if f := bytes.Fields(b); len(f) == 3 {
			ns, _ := strconv.ParseInt(string(f[1]), 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}

// ownGroup keeps a terminal's signals from a process that is to be started: they
// are for the one that starts it.
func ownGroup(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// signalGroup sends sig to p, which ownGroup has set apart, and to what it started.
func signalGroup(p *os.Process, sig syscall.Signal) error { return syscall.Kill(-p.Pid, sig) }

// columns is the width of the terminal f, 0 if it has none to tell.
func columns(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
