package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// unknownVariables finds variables of environ that are named as if they set
// something about the broker, and do not: whoever sets one thinks that it holds.
// Each is a fault, but for what is not meant for the broker; see isForeign.
func unknownVariables(environ []string, flags []*kong.Flag) error {
	var known []string
	for _, f := range flags {
		known = append(known, f.Envs...)
	}
	slices.Sort(known)
	var faults []error
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		rest, ours := strings.CutPrefix(name, "HASHPLUS_")
		if !ours || slices.Contains(known, name) || isForeign(rest, value) {
			continue
		}
		if best := meant(name, known); best != "" {
			faults = append(faults, fmt.Errorf("unknown environment variable %s; did you mean %s?", name, best))
		} else {
			faults = append(faults, fmt.Errorf("unknown environment variable %s; hashplus serve --help names those that there are", name))
		}
	}
	return errors.Join(faults...)
}

// meant is the one of known that was probably meant by name: one that is near, or
// else the longest one that name only adds a word to.
func meant(name string, known []string) (best string) {
	if best = nearest(name, known); best != "" {
		return best
	}
	for _, k := range known {
		if strings.HasPrefix(name, k+"_") && len(k) > len(best) {
			best = k
		}
	}
	return best
}

// otherVariables are those of the command line's clients, of profiles and of this
// project's tests, which have brokers of their own. One that ends with _ stands for
// all that begin with it.
var otherVariables = []string{ //nolint:gochecknoglobals // a table
	"CLIENT_", "CPUPROFILE",
	"VERSION", // which images of containers often say of what is in them
	"TEST_", "CRASH_", "AUTOBAHN", "AUTOBAHN_REPORTS", "PAHO_TESTING", "SKIP_CLIENTS", "RECOVERY_SCALE", "BENCH_PART", "ATTACKS_ROLE",
}

// What Kubernetes sets in every container where a Service is called hashplus, or
// hashplus-something. A port that somebody has made up has no such value.
var (
	serviceName = regexp.MustCompile(`^([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)
	servicePort = regexp.MustCompile(`^([A-Z0-9_]+_)?PORT=(tcp|udp|sctp)://`)
)

// isForeign reports whether HASHPLUS_rest is not meant for the broker.
func isForeign(rest, value string) bool {
	return serviceName.MatchString(rest) || servicePort.MatchString(rest+"="+value) ||
		slices.ContainsFunc(otherVariables, func(o string) bool {
			return rest == o || strings.HasSuffix(o, "_") && strings.HasPrefix(rest, o)
		})
}
