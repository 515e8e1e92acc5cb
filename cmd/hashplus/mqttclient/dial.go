package mqttclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// dial opens the network connection of o.URL: socket, TLS, WebSocket upgrade.
// Its errors are *Error.
func dial(ctx context.Context, o *Options) (*packetConn, error) {
	u := *o.URL
	u.User = nil // the MQTT layer's, never a proxy's or a log's
	where := shown(&u)
	var d net.Dialer
	var c net.Conn
	var err error
	switch u.Scheme {
	case "unix":
		c, err = d.DialContext(ctx, "unix", u.Path)
	case "mqtt":
		c, err = d.DialContext(ctx, "tcp", u.Host)
	case "mqtts":
		td := tls.Dialer{NetDialer: &d, Config: o.TLS}
		c, err = td.DialContext(ctx, "tcp", u.Host)
	case "ws", "wss":
		return dialWebSocket(ctx, o, u.String(), where)
	default:
		return nil, fmt.Errorf("scheme %q is not supported", u.Scheme)
	}
	if err != nil {
		return nil, dialError(where, err)
	}
	return newPacketConn(c), nil
}

// shown is u as it may be printed: its user and its query can hold secrets.
func shown(u *url.URL) string {
	v := *u
	v.User, v.RawQuery, v.ForceQuery = nil, "", false
	return v.String()
}

// dialWebSocket connects to to, which errors call where.
func dialWebSocket(ctx context.Context, o *Options, to, where string) (*packetConn, error) {
	d := websocket.Dialer{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: o.TLS,
		Subprotocols:    []string{"mqtt"},
	}
	if o.Version == V31 {
		d.Subprotocols = []string{"mqttv3.1", "mqtt"}
	}
	c, resp, err := d.DialContext(ctx, to, o.Header)
	if err != nil {
		if resp == nil {
			return nil, dialError(where, err)
		}
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // only for the message
		text := fmt.Sprintf("%s refused the WebSocket upgrade: HTTP %s", where, resp.Status)
		if line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n"); line != "" && !strings.HasPrefix(line, "<") {
			text += ": " + line
		}
		// A 4xx is about the request, which will not change; but 408 and 429 pass.
		fatal := resp.StatusCode >= 400 && resp.StatusCode < 500 &&
			resp.StatusCode != http.StatusRequestTimeout && resp.StatusCode != http.StatusTooManyRequests
		return nil, &Error{Stage: Dialing, Text: text, Fatal: fatal}
	}
	return newPacketConn(&frameConn{Conn: c}), nil
}

// packetConn gathers what is written between Lock and Unlock into one Write, so
// that a control packet, which the library writes in several pieces, some of
// them empty, leaves as one segment or one WebSocket message. Concurrent Writes
// outside Lock are serialised.
type packetConn struct {
	net.Conn
	mu     sync.Mutex // a whole packet
	out    sync.Mutex // guards the rest
	gather bool
	buf    []byte

	once   sync.Once
	closed chan struct{} // closed by Close
}

func newPacketConn(c net.Conn) *packetConn {
	return &packetConn{Conn: c, closed: make(chan struct{})}
}

// Close closes the connection and tells those who wait on closed.
func (c *packetConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) })
	return err
}

// Lock begins a packet. It waits for the packet of another goroutine.
func (c *packetConn) Lock() {
	c.mu.Lock()
	c.out.Lock()
	c.gather = true
	c.out.Unlock()
}

// Unlock writes the packet. A failure closes the connection, which its reader
// then reports.
func (c *packetConn) Unlock() {
	c.out.Lock()
	b := c.buf
	c.gather = false
	if len(b) > 0 {
		if _, err := c.Conn.Write(b); err != nil {
			_ = c.Close() // the reader reports the loss
		}
	}
	if cap(b) > 64<<10 {
		b = nil
	}
	c.buf = b[:0]
	c.out.Unlock()
	c.mu.Unlock()
}

func (c *packetConn) Write(p []byte) (int, error) {
	c.out.Lock()
	defer c.out.Unlock()
	if c.gather {
		c.buf = append(c.buf, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// frameConn is a WebSocket connection as a stream of bytes: each Write is one
// binary message, boundaries of what is read are dropped ([MQTT-6.0.0-1], -2).
type frameConn struct {
	*websocket.Conn
	r io.Reader // of the message being read, or nil
}

func (c *frameConn) Read(p []byte) (int, error) {
	for {
		if c.r == nil {
			kind, r, err := c.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, fmt.Errorf("the server sent a text message, MQTT needs binary ones")
			}
			c.r = r
		}
		n, err := c.r.Read(p)
		if err == io.EOF {
			c.r, err = nil, nil
			if n == 0 {
				continue
			}
		}
		return n, err
	}
}

func (c *frameConn) Write(p []byte) (int, error) {
	if err := c.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetDeadline is for reading and writing.
func (c *frameConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// Close says goodbye (RFC 6455 section 5.5.1) and closes the socket without waiting
// for the answer: the MQTT DISCONNECT before it has said all.
func (c *frameConn) Close() error {
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = c.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second)) // the peer may be gone
	return c.Conn.Close()
}
