//go:build !linux || nopoll

package transport

import (
	"strings"
	"testing"
)

func TestRing_OnFailsWhereThereIsNone(t *testing.T) {
	if _, err := New(Options{IOUring: On}, newScripted()); err == nil || !strings.Contains(err.Error(), "io_uring") {
		t.Errorf("%v", err)
	}
	start(t, Options{IOUring: Auto}, newScripted())
	start(t, Options{IOUring: Off}, newScripted())
}
