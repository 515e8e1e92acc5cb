package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/alecthomas/kong"
)

// reloads says for each key of the configuration what SIGHUP does with a change
// of it: live keys are applied by the part of the broker that registered for
// them with reloader.live, any other is named in the log and waits for a
// restart. docs/configuration.md shows it, and a test holds it to the flags.
var reloads = map[string]reloading{ //nolint:gochecknoglobals // a table
	"listeners": live, "ws": live, "tcp": live, "wss": live, "tls": live, "unix": live,

	"tls-cert": live, "tls-key": live, "tls-min-version": live, "tls-client-auth": live, "tls-client-ca": live,
	"tls-crl": live, "tls-username": live, "tls-handshake-timeout": live, "tls-handshake-rate": live,
	"tls-workers": restart, "tls-handshakes": live, "tls-watch": live,

	"ws-path": live, "ws-origins": live, "ws-require-subprotocol": live, "ws-deflate": live,
	"ws-deflate-min-size": live, "ws-ping": live, "pong-grace": live,

	"trusted-proxies": live, "proxy-protocol": live, "forwarded-header": live,

	"allow-anonymous": live, "password-file": live, "scram-file": live, "acl": live,
	"auth": live, "jwt-keys": live, "jwt-secret": live, "jwt-jwks-url": live, "jwt-jwks-ca": live, "jwt-jwks-refresh": live,
	"jwt-issuer": live, "jwt-audience": live, "jwt-clock-skew": live, "jwt-require-exp": live, "jwt-username-claim": live,
	"jwt-client-id-claim": live, "jwt-publish-claim": live, "jwt-subscribe-claim": live, "jwt-from": live,
	"auth-http-url": live, "auth-http-ca": live, "auth-http-token-file": live, "auth-http-timeout": live,
	"auth-http-concurrency": live, "auth-http-cache": live, "auth-http-cache-refused": live, "auth-http-cache-size": live,

	"max-keepalive": live, "receive-maximum": live, "max-packet-size": live, "topic-alias-maximum": live,
	"max-qos": live, "retain-available": live, "max-session-expiry": live, "server-reference": live,

	"max-connections": live, "max-sessions": live, "connect-timeout": live, "max-connect-size": live,
	"max-inflight": live, "max-queued-messages": live, "max-queued-bytes": live, "queue-full": live,
	"max-subscriptions": live, "max-topic-levels": live, "max-topic-length": live, "max-user-properties": live,
	"max-memory": live, "max-address-connections": live, "max-address-rate": live, "max-loop-lag": live,
	"max-publish-rate": live, "max-publish-bytes": live, "max-retained-messages": live, "max-retained-bytes": live,
	"ban-auth-failures": live, "ban-connects": live, "ban-window": live, "ban-time": live, "ban-by": live,
	"write-queue-bytes": live, "write-stall": live, "strict": live,

	"data": restart, "sync": restart, "min-free": live,

	"loops": restart, "io-uring": restart,
	"health": live, "sys-interval": live, "drain": live, "log-level": live, "log-format": live,
}

// reloading is what a reload does with a key.
type reloading string

const (
	live    reloading = "live"
	restart reloading = "restart"
)

// reloader applies a new configuration to the running broker. It belongs to the
// goroutine that serves.
type reloader struct {
	env     *environment
	log     *slog.Logger
	running *configuration // what is in force
	flags   []*kong.Flag   // those of running
	parts   []reloadPart
	undo    []func()             // of what parts have prepared in the reload that is under way
	read    map[namedFile]digest // of the files when they were read last
	manager *manager             // told of reloads; nil without one
}

// reloadPart is what takes some of the keys.
type reloadPart struct {
	keys    []string
	prepare prepare
}

// prepare reads and checks all that next, a valid configuration, means for a
// part, files included, and changes nothing but what it says with onFault how to
// undo. apply, which is nil if there is
// nothing to do, puts it in force and cannot fail; it is called only if every
// part is prepared. It is called at every reload, whether a key has changed or
// not: what stands in a file may have.
type prepare func(next *configuration) (apply func(), err error)

// live registers a part for keys, which reloads must say are live.
func (r *reloader) live(p prepare, keys ...string) {
	for _, key := range keys {
		if reloads[key] != live {
			panic("reload: the key " + key + " is not declared live")
		}
	}
	r.parts = append(r.parts, reloadPart{keys, p})
}

// onFault has undo called if the reload that is being prepared comes to nothing:
// the last one first.
func (r *reloader) onFault(undo func()) { r.undo = append(r.undo, undo) }

// complete checks that there is a part for every live key.
func (r *reloader) complete() {
	for key, what := range reloads {
		if what == live && !slices.ContainsFunc(r.parts, func(p reloadPart) bool { return slices.Contains(p.keys, key) }) {
			panic("reload: nobody applies the live key " + key)
		}
	}
}

// reload reads the configuration anew and applies it. One with a fault changes
// nothing; every fault is logged. Values are not: some are nobody's business.
func (r *reloader) reload() {
	next, flags, err := reread(r.env)
	var apply []func()
	var faults []string
	if err != nil {
		faults = faultsOf(err)
	} else {
		for _, p := range r.parts {
			a, err := p.prepare(next)
			if err != nil {
				faults = append(faults, faultsOf(err)...)
			}
			if a != nil {
				apply = append(apply, a)
			}
		}
	}
	undo := r.undo
	r.undo = nil
	if len(faults) > 0 {
		for _, u := range slices.Backward(undo) {
			u()
		}
		for _, f := range faults {
			r.log.Error("fault in the new configuration", "fault", f)
		}
		r.log.Error("not reloaded: the configuration of before stays in force", "faults", len(faults))
		return
	}
	files := digests(next)
	listeners := sameListeners(r.running.Listeners, next.Listeners)
	for _, a := range apply {
		a()
	}
	changed, waiting := r.adopt(next, flags)
	if !listeners {
		changed = append([]string{"listeners"}, changed...)
	}
	if len(waiting) > 0 {
		r.log.Warn("changed, but only a restart puts it in force", "keys", strings.Join(waiting, " "))
	}
	anew := differing(r.read, files)
	r.read = files
	if len(changed)+len(anew) == 0 {
		changed = []string{"nothing"}
	}
	var args []any
	for _, a := range []struct {
		name string
		keys []string
	}{{"changed", changed}, {"read-again", anew}} { // the second: of files with other contents
		if len(a.keys) > 0 {
			args = append(args, a.name, strings.Join(a.keys, " "))
		}
	}
	r.log.Info("reloaded", args...)
}

// adopt makes the live values of next those of the running configuration. It
// returns the keys of which the value is new and, apart, those that wait for a
// restart.
func (r *reloader) adopt(next *configuration, flags []*kong.Flag) (changed, waiting []string) {
	for i, f := range r.flags {
		if notInFile(f.Name) || reflect.DeepEqual(f.Target.Interface(), flags[i].Target.Interface()) {
			continue
		}
		if reloads[f.Name] == live {
			f.Target.Set(flags[i].Target)
			changed = append(changed, f.Name)
		} else {
			waiting = append(waiting, f.Name)
		}
	}
	return changed, waiting
}

// reread makes the configuration that serve would have if it was started now:
// from the same command line, the environment, and the file as it is.
func reread(env *environment) (*configuration, []*kong.Flag, error) {
	var said bytes.Buffer
	again := &environment{ctx: env.ctx, args: env.args, stdin: env.stdin, stdout: &said, stderr: &said}
	var c commands
	parsed, err := newParser(&c, again, kong.Exit(func(int) {})).Parse(joinNegative(env.args))
	if err != nil {
		return nil, nil, err
	}
	if err := c.Serve.finish(); err != nil {
		return nil, nil, err
	}
	return &c.Serve.configuration, serveFlags(parsed), nil
}

// faultsOf are the faults of an error that may hold several, one on a line.
func faultsOf(err error) []string { return strings.Split(err.Error(), "\n") }

// waitReload reloads at each hang-up until ctx ends.
func (r *reloader) waitReload(ctx context.Context) {
	for {
		select {
		case <-r.env.hangup:
			r.manager.reloading()
			r.reload()
			r.manager.ready()
		case <-ctx.Done():
			return
		}
	}
}

// logger is where the broker's log goes. A reload changes its level and its form.
func (r *reloader) logger() *slog.Logger {
	level := new(slog.LevelVar)
	asJSON := new(atomic.Bool)
	set := func(c *configuration) {
		var l slog.Level
		_ = l.UnmarshalText([]byte(c.LogLevel)) // the flag allows only its names
		level.Set(l)
		asJSON.Store(c.LogFormat == "json")
	}
	set(r.running)
	r.live(func(next *configuration) (func(), error) { return func() { set(next) }, nil }, "log-level", "log-format")
	o := &slog.HandlerOptions{Level: level}
	out := &lineWriter{w: r.env.stderr}
	return slog.New(&logHandler{text: slog.NewTextHandler(out, o), json: slog.NewJSONHandler(out, o), asJSON: asJSON})
}

// logHandler writes records in one of two forms, as is asked for at the time.
type logHandler struct {
	text, json slog.Handler
	asJSON     *atomic.Bool
}

func (h *logHandler) form() slog.Handler {
	if h.asJSON.Load() {
		return h.json
	}
	return h.text
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.form().Enabled(ctx, l) }

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error { return h.form().Handle(ctx, r) }

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{h.text.WithAttrs(attrs), h.json.WithAttrs(attrs), h.asJSON}
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.text.WithGroup(name), h.json.WithGroup(name), h.asJSON}
}

// lineWriter has one line after the other written, whichever handler it is from.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer // guarded by mu
}

func (l *lineWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// newReloader is for a configuration that is about to be served, which flags
// point into.
func newReloader(env *environment, c *configuration, flags []*kong.Flag) *reloader {
	r := &reloader{env: env, running: c, flags: flags, read: digests(c)}
	r.log = r.logger()
	// What is read when it is needed needs nobody to apply it.
	r.live(func(*configuration) (func(), error) { return nil, nil }, "drain")
	return r
}
