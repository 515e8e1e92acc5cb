package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"
)

// health answers probes over HTTP: /livez as long as the process works at all,
// /readyz with 200 only while the broker does all that it promises, else with 503
// and the reason. It has a listener of its own, so that no client's port says
// anything about the inside, and answers before the broker has recovered. Its
// methods but set belong to the goroutine that serves.
type health struct {
	address string
	server  *http.Server // nil: nobody is answered
	log     *slog.Logger
	check   atomic.Pointer[func() error]
}

var (
	errStarting = errors.New("starting")
	errDraining = errors.New("draining")
)

// startHealth listens on address; with "" there is nothing to answer.
func startHealth(address string, log *slog.Logger) (*health, error) {
	h := &health{log: log}
	h.set(func() error { return errStarting })
	l, err := h.listen(address)
	if err == nil {
		h.answer(address, l)
	}
	return h, err
}

// listen returns nil for "".
func (h *health) listen(address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("health: cannot listen on %s: %w", address, err)
	}
	return l, nil
}

// answer answers on l, which may be nil, from now on.
func (h *health) answer(address string, l net.Listener) {
	h.address = address
	if l == nil {
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if err := (*h.check.Load())(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	server := &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	h.server = server
	go func() { _ = server.Serve(l) }() // it ends with close
	h.log.Info("health probes are answered", "url", fmt.Sprintf("http://%s/readyz", l.Addr()))
}

// liveHealth has reloads move it to another address.
func (r *reloader) liveHealth(h *health) {
	r.live(func(next *configuration) (func(), error) {
		if next.Health == h.address {
			return nil, nil
		}
		l, err := h.listen(next.Health)
		if errors.Is(err, syscall.EADDRINUSE) && samePort(h.address, next.Health) { // by ourselves, perhaps
			old := h.address
			h.close()
			r.onFault(func() {
				l, err := h.listen(old)
				if err != nil {
					r.log.Error("health probes are not answered any more", "cause", err)
				}
				h.answer(old, l)
			})
			l, err = h.listen(next.Health)
		}
		if err != nil {
			return nil, err
		}
		if l != nil {
			r.onFault(func() { _ = l.Close() }) // nobody was answered
		}
		return func() {
			h.close()
			h.answer(next.Health, l)
		}, nil
	}, "health")
}

// set has check, which any goroutine may call, say whether the broker is ready.
func (h *health) set(check func() error) { h.check.Store(&check) }

// close stops answering.
func (h *health) close() {
	if h.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = h.server.Shutdown(ctx) // what is still asked gets no answer
		h.server = nil
	}
}
