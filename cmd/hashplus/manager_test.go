package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// service is a service manager that listens.
type service struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func newService(t *testing.T, path string) *service {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "notify")
	}
	name := path
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:]
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &service{t: t, path: path, conn: conn}
}

// hear returns the next datagram.
func (s *service) hear() string {
	s.t.Helper()
	b := make([]byte, 4096)
	s.conn.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := s.conn.Read(b)
	if err != nil {
		s.t.Fatalf("nothing is said: %v", err)
	}
	return string(b[:n])
}

func silent() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func (s *service) getenv(more ...string) func(string) string {
	return func(key string) string {
		if key == "NOTIFY_SOCKET" {
			return s.path
		}
		for i := 0; i < len(more); i += 2 {
			if more[i] == key {
				return more[i+1]
			}
		}
		return ""
	}
}

func TestManager_HearsHowItGoes(t *testing.T) {
	for _, path := range []string{"", "@hashplus-test-" + strconv.Itoa(os.Getpid())} {
		s := newService(t, path)
		m := newManager(s.getenv(), silent())
		m.ready()
		if got := s.hear(); got != "READY=1" {
			t.Errorf("%q", got)
		}
		m.reloading()
		if got := s.hear(); !regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*$`).MatchString(got) {
			t.Errorf("%q", got)
		}
		m.stopping()
		if got := s.hear(); got != "STOPPING=1" {
			t.Errorf("%q", got)
		}
	}
}

func TestManager_NeedNotBeThere(t *testing.T) {
	none := newManager(func(string) string { return "" }, silent())
	none.ready()
	none.reloading()
	none.stopping()
	none.watchdog(context.Background(), nil)
	if m := newManager(func(string) string { return filepath.Join(t.TempDir(), "nobody") }, silent()); m != nil {
		t.Error("a socket that is not there was reached")
	}
}

func TestManager_WatchdogHearsOnlyThatAllIsWell(t *testing.T) {
	s := newService(t, "")
	for _, others := range []func(string) string{s.getenv("WATCHDOG_USEC", "100000", "WATCHDOG_PID", "1"), s.getenv("WATCHDOG_USEC", "x"), s.getenv()} {
		if m := newManager(others, silent()); m.period != 0 {
			t.Errorf("period %v", m.period)
		}
	}
	m := newManager(s.getenv("WATCHDOG_USEC", "20000", "WATCHDOG_PID", strconv.Itoa(os.Getpid())), silent())
	ctx, cancel := context.WithCancel(context.Background())
	probes := make(chan struct{}, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.watchdog(ctx, func(context.Context) error {
			probes <- struct{}{}
			if len(probes) > 3 {
				return errors.New("hangs")
			}
			return nil
		})
	}()
	for range 3 {
		if got := s.hear(); got != "WATCHDOG=1" {
			t.Errorf("%q", got)
		}
	}
	for len(probes) < 6 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	s.conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := s.conn.Read(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes were said although a loop hangs", n)
	}
}
