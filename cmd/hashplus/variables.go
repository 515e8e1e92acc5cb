package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// unknownVariables looks for variables of environ that are named as if they set
// something about the broker, and do not. likely are faults: those that are nearly
// one that does. strange are the others. What clients and tests have is not looked
// at, nor what Kubernetes sets where a service is called hashplus.
func unknownVariables(environ []string, flags []*kong.Flag) (strange []string, likely error) {
	var known []string
	for _, f := range flags {
		known = append(known, f.Envs...)
	}
	slices.Sort(known)
	known = append(known, "HASHPLUS_CPUPROFILE")
	var faults []error
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		rest, ours := strings.CutPrefix(name, "HASHPLUS_")
		if !ours || slices.Contains(known, name) || isForeign(rest) {
			continue
		}
		if best := nearest(name, known); best != "" {
			faults = append(faults, fmt.Errorf("unknown environment variable %s; did you mean %s?", name, best))
		} else {
			strange = append(strange, name)
		}
	}
	return strange, errors.Join(faults...)
}

// isForeign reports whether HASHPLUS_rest is not meant for the broker.
func isForeign(rest string) bool {
	return rest == "PORT" || slices.ContainsFunc([]string{"CLIENT_", "TEST_", "CRASH_", "SERVICE_", "PORT_"}, func(p string) bool {
		return strings.HasPrefix(rest, p)
	})
}
