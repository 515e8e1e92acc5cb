package broker

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// A stream that ends in order, without DISCONNECT, has no error: the log says what
// happened all the same.
func TestClient_LogSaysThatItHungUp(t *testing.T) {
	var log bytes.Buffer
	s := newSim(t, 1, Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	c := s.connect("one")
	c.end(nil)
	s.run()
	if got := log.String(); !strings.Contains(got, `msg="connection lost" client=one`) || !strings.Contains(got, "without DISCONNECT") {
		t.Errorf("the log says %s", got)
	}
}
