//go:build !linux

package bench

import (
	"context"
	"errors"

	"hashplus/bench/drive"
)

var errServed = errors.New("part carried")

type part struct{ run string }

func (o *Options) part() *part { return nil }

func (p *part) serve(context.Context, *drive.Plan) error { return errServed }

// descriptors does not matter where the generator does not run.
func descriptors() int { return 1 << 20 }

func (o *Options) startProcesses(context.Context, *scenario, int) (*fleet, error) {
	return nil, errors.New("several processes: Linux only")
}
