package limits

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gobwas/ws"
)

// webSocket is the client's end of a WebSocket as a stream of bytes: each Write
// is one binary frame. Pings are left unanswered unless pongs is set. One goroutine.
type webSocket struct {
	net.Conn
	in     *bufio.Reader
	header http.Header // of the answer to the upgrade request
	left   int64       // of the current data frame
	pongs  bool        // answer pings
}

// closeFrame is the server's close frame.
type closeFrame struct {
	code   ws.StatusCode
	reason string
}

func (f closeFrame) Error() string { return fmt.Sprintf("close frame %d %q", f.code, f.reason) }

// handshake is a complete upgrade request; extra are header lines.
func handshake(host, extra string) string {
	return "GET /mqtt HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
		"Sec-WebSocket-Protocol: mqtt\r\n" + extra + "\r\n"
}

// upgrade opens a WebSocket; extra are lines of the request's header.
func (s *server) upgrade(extra string) *webSocket {
	s.t.Helper()
	conn := open(s.t, s.ws)
	if _, err := io.WriteString(conn, handshake(s.ws, extra)); err != nil {
		s.t.Fatal(err)
	}
	w := &webSocket{Conn: conn}
	if err := w.begin(); err != nil {
		s.t.Fatal(err)
	}
	return w
}

// begin reads the answer to the upgrade request.
func (w *webSocket) begin() error {
	if err := w.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	w.in = bufio.NewReader(w.Conn)
	answer, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("upgrade: %s", answer.Status)
	}
	w.header = answer.Header
	return nil
}

// Write sends p in one frame.
func (w *webSocket) Write(p []byte) (int, error) {
	if err := w.frame(ws.NewBinaryFrame(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// frame sends one frame, masked.
func (w *webSocket) frame(f ws.Frame) error {
	_, err := w.Conn.Write(masked(f))
	return err
}

func masked(f ws.Frame) []byte {
	b, err := ws.CompileFrame(ws.MaskFrameWith(f, [4]byte{1, 2, 3, 4}))
	if err != nil {
		panic(err) // memory can be written to
	}
	return b
}

func maskedPacket(p []byte) []byte { return masked(ws.NewBinaryFrame(p)) }

// Read returns payload of data frames. A close frame is the end.
func (w *webSocket) Read(p []byte) (int, error) {
	for w.left == 0 {
		h, payload, err := w.next()
		if err != nil {
			return 0, err
		}
		switch h.OpCode {
		case ws.OpBinary, ws.OpContinuation:
			w.left = h.Length
		case ws.OpPing:
			if w.pongs {
				if err := w.frame(ws.NewPongFrame(payload)); err != nil {
					return 0, err
				}
			}
		case ws.OpClose:
			f := closeFrame{code: ws.StatusNoStatusRcvd}
			if len(payload) >= 2 {
				f.code, f.reason = ws.StatusCode(binary.BigEndian.Uint16(payload)), string(payload[2:])
			}
			return 0, f
		}
	}
	n, err := w.in.Read(p[:min(int64(len(p)), w.left)])
	w.left -= int64(n)
	return n, err
}

// next reads a frame header and, of a control frame, the payload.
func (w *webSocket) next() (h ws.Header, payload []byte, err error) {
	h, err = ws.ReadHeader(w.in)
	if err == nil && h.OpCode.IsControl() {
		payload = make([]byte, h.Length)
		_, err = io.ReadFull(w.in, payload)
	}
	return h, payload, err
}

// exchange sends bytes to the WebSocket port and returns the answer.
func (s *server) exchange(request string) (status int, header http.Header, body string) {
	s.t.Helper()
	conn := open(s.t, s.ws)
	if _, err := io.WriteString(conn, request); err != nil {
		s.t.Fatal(err)
	}
	return s.response(conn)
}

// response reads one HTTP response and then the end of the connection, unless
// it was upgraded.
func (s *server) response(conn net.Conn) (status int, header http.Header, body string) {
	s.t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		s.t.Fatalf("no HTTP response: %v", err)
	}
	if answer.StatusCode == http.StatusSwitchingProtocols {
		return answer.StatusCode, answer.Header, ""
	}
	var text strings.Builder
	if _, err := io.Copy(&text, answer.Body); err != nil {
		s.t.Fatalf("the body of %s: %v", answer.Status, err)
	}
	if _, err := in.ReadByte(); err != io.EOF {
		s.t.Errorf("after %s: %v instead of the end of the connection", answer.Status, err)
	}
	return answer.StatusCode, answer.Header, text.String()
}
