//go:build !linux

package bench

import (
	"context"
	"errors"
	"time"
)

func floor(context.Context, int, int, int, time.Duration) (float64, error) {
	return 0, errors.New("the floor is measured on Linux only")
}
