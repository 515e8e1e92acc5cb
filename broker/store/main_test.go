package store

import (
	"fmt"
	"log/slog"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// quiet is for tests in which things go wrong.
var quiet = slog.New(slog.DiscardHandler)

// A store that could not be closed leaves goroutines behind; without one, there
// must be none.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && abandonedCount() == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
