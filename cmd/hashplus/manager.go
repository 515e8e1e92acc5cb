package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// manager is the service manager that started the process, if it wants to hear
// how it goes: systemd, or what speaks its protocol (sd_notify). The methods of
// nil do nothing. Any goroutine.
type manager struct {
	conn   net.Conn
	period time.Duration // within which it wants to hear that all is well; 0: never
	log    *slog.Logger
}

// newManager finds the manager in the environment. A socket that cannot be
// reached is logged: the manager will say so, too.
func newManager(getenv func(string) string, log *slog.Logger) *manager {
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:] // of the abstract name space
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		log.Warn("the service manager cannot be told", "cause", err)
		return nil
	}
	m := &manager{conn: conn, log: log}
	// WATCHDOG_PID says whose turn it is where several processes share the
	// environment.
	if pid := getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		if us, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && us > 0 {
			m.period = time.Duration(us) * time.Microsecond
		}
	}
	return m
}

func (m *manager) say(state string) {
	if m == nil {
		return
	}
	if _, err := m.conn.Write([]byte(state)); err != nil {
		m.log.Warn("the service manager cannot be told", "cause", err)
	}
}

// ready says that the broker serves, at the start or after a reload.
func (m *manager) ready() { m.say("READY=1") }

// reloading says that a reload begins; ready ends it.
func (m *manager) reloading() {
	state := "RELOADING=1"
	if us := monotonicMicros(); us > 0 {
		state += "\nMONOTONIC_USEC=" + strconv.FormatInt(us, 10)
	}
	m.say(state)
}

// stopping says that the end has begun.
func (m *manager) stopping() { m.say("STOPPING=1") }

// dozePart is the longest doze of the watchdog.
const dozePart = time.Second

// watchdog says that all is well, twice in a period and as long as probe says so,
// until ctx ends: a manager that does not hear it starts the process anew.
func (m *manager) watchdog(ctx context.Context, probe func(context.Context) error) {
	if m == nil || m.period == 0 {
		return
	}
	for ctx.Err() == nil {
		within, cancel := context.WithTimeout(ctx, m.period/2)
		err := probe(within)
		cancel()
		if err == nil {
			m.say("WATCHDOG=1")
		} else if ctx.Err() == nil {
			m.log.Error("an event loop does not answer", "cause", err)
		}
		// In parts, so that it notices the end of ctx.
		for left := m.period / 2; left > 0 && ctx.Err() == nil; left -= dozePart {
			doze(min(left, dozePart))
		}
	}
}
