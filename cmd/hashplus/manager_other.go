//go:build !linux

package main

// monotonicMicros is 0: there is no systemd here.
func monotonicMicros() int64 { return 0 }
