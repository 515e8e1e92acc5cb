//go:build !linux

package bench

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// family is not known here.
func family(pid int) []int { return []int{pid} }

// usage cannot be had here; the generator itself needs Linux too.
func usage(int) (time.Duration, uint64, error) {
	return 0, 0, errors.New("process: CPU time is read from /proc, which is Linux only")
}

// ownGroup matters for terminals' signals, which differ here.
func ownGroup(*exec.Cmd) {}

// signalGroup asks the process to end.
func signalGroup(p *os.Process, sig syscall.Signal) error { return p.Signal(sig) }

// columns is not known here.
func columns(*os.File) int { return 0 }

// waited is not known here.
func waited(int) time.Duration { return 0 }
