package store

import (
	"runtime"
	"strings"
)

// isReader reports whether the goroutine is in pebble for Get, Scan and so on. It
// looks at the stack: what pebble calls is not told. It is slow, and called where
// an error has happened.
func isReader() bool {
	var pcs [128]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for reads := false; ; {
		f, more := frames.Next()
		if name, ours := strings.CutPrefix(f.Function, "hashplus/broker/store.(*Disk)."); ours {
			if strings.HasPrefix(name, "commitLoop") || strings.HasPrefix(name, "close") {
				return false
			}
			reads = true
		}
		if !more {
			return reads
		}
	}
}
