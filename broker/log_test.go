package broker

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"hashplus/broker/wire"
)

// What the log says about the end of a connection it says in words: no value that
// is none, and no end of a sentence without its beginning.
func TestLog_SaysWhyAConnectionEnded(t *testing.T) {
	logged := func(verdict error, end func(c *simConn)) string {
		var log bytes.Buffer
		g := newGate()
		s := newSim(t, 1, Options{Authenticator: g, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		c := s.connect("c")
		<-g.asked
		g.verdict <- verdict
		s.settle(func() bool { return len(c.out) > 0 })
		if end != nil {
			end(c)
			s.run()
		}
		return log.String()
	}
	for want, log := range map[string]string{
		`cause="the client closed it without DISCONNECT"`: logged(nil, func(c *simConn) { c.end(nil) }),
		`msg="connection lost" client=c `:                 logged(nil, func(c *simConn) { c.end(nil) }),
		`cause="reset by peer"`:                           logged(nil, func(c *simConn) { c.end(errors.New("reset by peer")) }),
		`detail="it is down" `:                            logged(&Refusal{Reason: wire.ServerUnavailable, Cause: errors.New("it is down")}, nil),
		`detail="asked: it is down" `:                     logged(&Refusal{Reason: wire.ServerUnavailable, Detail: "asked", Cause: errors.New("it is down")}, nil),
		`reason="Server busy" client=`:                    logged(&Refusal{Reason: wire.ServerBusy}, nil),
	} {
		if !strings.Contains(log, want) || strings.Contains(log, "nil") || strings.Contains(log, `=": `) || strings.Contains(log, `=""`) {
			t.Errorf("%s is not in the log, or what says nothing is: %s", want, log)
		}
	}
	var log bytes.Buffer
	s := newSim(t, 1, Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	s.dial(0).end(nil)
	s.run()
	if !strings.Contains(log.String(), `msg="connection closed before CONNACK"`) || strings.Contains(log.String(), "nil") {
		t.Errorf("before CONNACK: %s", log.String())
	}
}
