package auth

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	keysTimeout = patience // a busy machine takes its time for TLS
	goleak.VerifyTestMain(m)
}
