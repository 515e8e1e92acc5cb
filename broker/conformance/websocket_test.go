package conformance

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// wsConn is the client's end of a WebSocket connection, as plain as can be
// (RFC 6455). Read returns the payload of binary frames, Write sends one.
type wsConn struct {
	t      testing.TB
	conn   net.Conn
	in     *bufio.Reader
	answer *http.Response

	left      int // payload bytes of the frame being read
	closeCode int // of the close frame that came, once Read has failed
}

// WebSocket opcodes.
const (
	opContinuation byte = 0
	opText         byte = 1
	opBinary       byte = 2
	opClose        byte = 8
	opPing         byte = 9
	opPong         byte = 10
)

// upgrade opens a WebSocket connection, offering sub-protocols.
func upgrade(t testing.TB, s *server, protocols string) *wsConn {
	t.Helper()
	if s.ws == "" {
		t.Skip("no WebSocket listener given")
	}
	conn, err := net.DialTimeout("tcp", s.ws, patience)
	if err != nil {
		t.Fatal(err)
	}
	w := &wsConn{t: t, conn: conn, in: bufio.NewReader(conn)}
	t.Cleanup(func() { _ = conn.Close() })
	req := "GET /mqtt HTTP/1.1\r\nHost: " + s.ws + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	if protocols != "" {
		req += "Sec-WebSocket-Protocol: " + protocols + "\r\n"
	}
	if _, err := io.WriteString(conn, req+"\r\n"); err != nil {
		t.Fatal(err)
	}
	if w.answer, err = http.ReadResponse(w.in, nil); err != nil {
		t.Fatal(err)
	}
	if w.answer.StatusCode != http.StatusSwitchingProtocols ||
		w.answer.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("upgrade: %v", w.answer)
	}
	return w
}

// frame writes one masked frame.
func (w *wsConn) frame(op byte, fin bool, payload []byte) error {
	b := []byte{op}
	if fin {
		b[0] |= 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := []byte{0x12, 0x34, 0x56, 0x78}
	b = append(b, mask...)
	for i, c := range payload {
		b = append(b, c^mask[i&3])
	}
	_, err := w.conn.Write(b)
	return err
}

func (w *wsConn) Write(p []byte) (int, error) { return len(p), w.frame(opBinary, true, p) }
func (w *wsConn) Close() error                { return w.conn.Close() }

func (w *wsConn) Read(p []byte) (int, error) {
	for w.left == 0 {
		var h [2]byte
		if _, err := io.ReadFull(w.in, h[:]); err != nil {
			return 0, err
		}
		n := int(h[1])
		if h[0]&0x70 != 0 || n >= 0x80 {
			w.t.Errorf("frame header %x", h)
		}
		var ext [8]byte
		switch n {
		case 126:
			if _, err := io.ReadFull(w.in, ext[6:]); err != nil {
				return 0, err
			}
			n = int(binary.BigEndian.Uint64(ext[:]))
		case 127:
			if _, err := io.ReadFull(w.in, ext[:]); err != nil {
				return 0, err
			}
			n = int(binary.BigEndian.Uint64(ext[:]))
		}
		switch op := h[0] & 15; op {
		case opBinary, opContinuation:
			w.left = n
		default:
			payload := make([]byte, n)
			if _, err := io.ReadFull(w.in, payload); err != nil {
				return 0, err
			}
			switch {
			case op == opPing:
				if err := w.frame(opPong, true, payload); err != nil {
					return 0, err
				}
			case op == opClose:
				if n >= 2 {
					w.closeCode = int(binary.BigEndian.Uint16(payload))
				}
				_ = w.frame(opClose, true, payload[:min(n, 2)]) // it may be gone already
				return 0, io.EOF
			case op != opPong:
				w.t.Errorf("a frame with opcode %d", op)
			}
		}
	}
	n, err := w.in.Read(p[:min(len(p), w.left)])
	w.left -= n
	return n, err
}

// dialWS opens a WebSocket connection for MQTT.
func dialWS(t testing.TB, s *server, v byte) (*client, *wsConn) {
	t.Helper()
	w := upgrade(t, s, "mqtt")
	return open(t, w, v), w
}

func TestWebSocket_CarriesMQTT(t *testing.T) { // [MQTT-6.0.0-1] [MQTT3-6.0.0-1] [MQTT-4.2.0-1]
	t.Parallel()
	s := startBroker(t, "")
	over(t, []byte{v31, v311, v5}, func(t *testing.T, v byte) {
		c, _ := dialWS(t, s, v)
		c.join()
		c.listen(2, c.id)
		for qos := range byte(3) {
			c.post(publish{topic: c.id, payload: "x", qos: qos}) // frames of other kinds fail in Read
			c.take(c.id, "x")
		}
		join(t, s, v).post(publish{topic: c.id, payload: strings.Repeat("x", 70_000), qos: 1})
		c.take(c.id, strings.Repeat("x", 70_000))
		c.leave()
	})
}

func TestWebSocket_TextFrameEndsTheConnection(t *testing.T) { // [MQTT-6.0.0-1] [MQTT3-6.0.0-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, w := dialWS(t, s, v)
		if err := w.frame(opText, true, request(v).bytes()); err != nil {
			t.Fatal(err)
		}
		c.ended()

		c, w = dialWS(t, s, v)
		c.join()
		if err := w.frame(opText, true, pingreq); err != nil {
			t.Fatal(err)
		}
		for p := c.arrive(); p != nil; p = c.arrive() {
			if p.typ != tDISCONNECT {
				t.Errorf("%v", p)
			}
		}
		if w.closeCode != 1003 && w.closeCode != 0 {
			t.Errorf("close code %d", w.closeCode)
		}
	})
}

func TestWebSocket_PacketsNeedNotMatchFrames(t *testing.T) { // [MQTT-6.0.0-2] [MQTT3-6.0.0-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for name, send := range map[string]func(w *wsConn, all []byte) error{
			"all in one frame": func(w *wsConn, all []byte) error { return w.frame(opBinary, true, all) },
			"a byte a frame": func(w *wsConn, all []byte) error {
				for i := range all {
					if err := w.frame(opBinary, true, all[i:i+1]); err != nil {
						return err
					}
				}
				return nil
			},
			"split across": func(w *wsConn, all []byte) error {
				for i := 0; i < len(all); i += 7 {
					if err := w.frame(opBinary, true, all[i:min(i+7, len(all))]); err != nil {
						return err
					}
				}
				return nil
			},
			"fragments with a ping between": func(w *wsConn, all []byte) error {
				op := opBinary
				for i := 0; i < len(all); i += 5 {
					if err := w.frame(op, i+5 >= len(all), all[i:min(i+5, len(all))]); err != nil {
						return err
					}
					op = opContinuation
					if err := w.frame(opPing, true, []byte("p")); err != nil {
						return err
					}
				}
				return nil
			},
			"empty frames between": func(w *wsConn, all []byte) error {
				for i := 0; i < len(all); i += 9 {
					if err := w.frame(opBinary, true, nil); err != nil {
						return err
					}
					if err := w.frame(opBinary, true, all[i:min(i+9, len(all))]); err != nil {
						return err
					}
				}
				return nil
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c, w := dialWS(t, s, v)
				topic := unique()
				all := cat(request(v).bytes(), subscribe(v, 1, nil, sub{topic, 1}),
					(&publish{topic: topic, payload: "x", qos: 1, id: 2}).bytes(v), pingreq)
				if err := send(w, all); err != nil {
					t.Fatal(err)
				}
				c.expect(tCONNACK)
				c.await(tSUBACK)
				c.acked(tPUBACK, 2)
				c.message(topic, "x")
				c.await(tPINGRESP)
			})
		}
	})
}

func TestWebSocket_SubProtocolIsMqtt(t *testing.T) { // [MQTT-6.0.0-4] [MQTT3-6.0.0-4] [MQTT-6.0.0-3] [MQTT3-6.0.0-3]
	t.Parallel()
	s := startBroker(t, "")
	for _, offer := range []string{"mqtt", "chat, mqtt", "mqtt,mqttv3.1", "a,mqtt , b"} {
		if w := upgrade(t, s, offer); w.answer.Header.Get("Sec-WebSocket-Protocol") != "mqtt" {
			t.Errorf("%q: %v", offer, w.answer.Header)
		}
	}
}

func TestWebSocket_EndsAfterDisconnect(t *testing.T) { // [MQTT-3.14.4-2]
	t.Parallel()
	s := startBroker(t, "")
	c, w := dialWS(t, s, v5)
	c.join()
	join(t, s, v5, named(c.id))
	c.ejected(0x8e)
	if w.closeCode == 0 {
		t.Error("no close frame")
	}
}

func TestWebSocket_EndSendsTheWill(t *testing.T) { // [MQTT-3.1.2-8] [MQTT3-3.1.2-8]
	t.Parallel()
	s := startBroker(t, "")
	for _, closing := range []bool{true, false} {
		topic := unique()
		watch := join(t, s, v5)
		watch.listen(0, topic)
		c, w := dialWS(t, s, v5)
		c.join(leaving(will{topic: topic, payload: "will"}))
		if closing { // a close frame without DISCONNECT is no DISCONNECT
			if err := w.frame(opClose, true, []byte{0x03, 0xe8}); err != nil {
				t.Fatal(err)
			}
		} else {
			c.drop()
		}
		watch.willed()
	}
}

func TestWebSocket_BigPacketInManyFrames(t *testing.T) { // [MQTT-6.0.0-2] [MQTT3-6.0.0-2]
	t.Parallel()
	s := startBroker(t, "")
	c, w := dialWS(t, s, v5)
	c.join()
	c.listen(0, c.id)
	payload := string(bytes.Repeat([]byte("0123456789abcdef"), 20_000))
	p := (&publish{topic: c.id, payload: payload}).bytes(v5)
	for i := 0; i < len(p); i += 3000 {
		if err := w.frame(opBinary, true, p[i:min(i+3000, len(p))]); err != nil {
			t.Fatal(fmt.Errorf("frame at %d: %w", i, err))
		}
	}
	c.message(c.id, payload)
}
