//go:build profile

package main

import (
	"os"
	"runtime/pprof"
)

// profiled writes a CPU profile to the file that HASHPLUS_CPUPROFILE names, until
// stop. Only pgo.sh builds with this.
func profiled() (stop func() error, err error) {
	f, err := os.Create(os.Getenv("HASHPLUS_CPUPROFILE"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
