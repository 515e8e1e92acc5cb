//go:build !linux

package topic

import (
	"testing"
	"time"
)

// threadTime is not known here.
func threadTime(testing.TB) time.Duration { return 0 }
