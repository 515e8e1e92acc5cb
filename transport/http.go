package transport

import (
	"errors"
	"net"
	"net/http"
	"time"

	"hashplus/transport/ws"
)

// HTTPHandler returns a handler that upgrades requests to WebSocket connections
// of s, as l describes them, for mounting in the mux of an HTTP server that is
// there already. l.Network is "ws", also if left empty; l.Addr is not used. The
// connections are served as by ServeConn.
func (s *Server) HTTPHandler(l Listener) (http.Handler, error) {
	if l.Network == "" {
		l.Network = "ws"
	}
	if l.Name == "" {
		l.Name = "http"
	}
	if l.secured() {
		return nil, errors.New("transport: an HTTP handler's TLS is its server's: say ws")
	}
	h := &httpHandler{server: s}
	for i, at := range []net.Addr{nil, &net.TCPAddr{IP: net.IPv6loopback}} {
		e, err := s.newEndpoint(l, at)
		if err != nil {
			return nil, err
		}
		if e.upgrader == nil {
			return nil, errors.New("transport: an HTTP handler is for network ws")
		}
		e.transport = "http"
		h.endpoints[i] = e
	}
	return h, nil
}

// httpHandler upgrades what net/http has parsed.
type httpHandler struct {
	server    *Server
	endpoints [2]*endpoint // the second for requests on a loopback address
}

func (h *httpHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	e := h.endpoints[0]
	if isLoopback(at) {
		e = h.endpoints[1]
	}
	// Refused here, a request leaves the HTTP server's connection in order.
	block := ws.AppendRequest(nil, r)
	if _, _, err := e.upgrader.Upgrade(nil, block); err != nil {
		refuseHTTP(w, err)
		return
	}
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this server's connections cannot be upgraded", http.StatusHTTPVersionNotSupported)
		return
	}
	early := block
	if n := rw.Reader.Buffered(); n > 0 {
		frames, _ := rw.Reader.Peek(n) // no more than is there, so it cannot fail
		early = append(early, frames...)
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		_ = nc.Close()
		return
	}
	if err := h.server.serveStream(e, nc, early); err != nil {
		h.server.logRefused(e, remoteAddr(nc), err)
	}
}

// refuseHTTP answers with err, which Upgrade returned.
func refuseHTTP(w http.ResponseWriter, err error) {
	var r *ws.Refusal
	if !errors.As(err, &r) {
		r = &ws.Refusal{Status: http.StatusBadRequest, Reason: err.Error()}
	}
	switch r.Status {
	case http.StatusUpgradeRequired:
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Sec-WebSocket-Version", "13")
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodGet)
	}
	http.Error(w, r.Reason, r.Status)
}
