package codec

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
)

// maxUpgrade bounds the answer to an upgrade request.
const maxUpgrade = 16 << 10

// AppendUpgrade appends the HTTP request that opens a WebSocket. key is the
// Sec-WebSocket-Key; extra holds further complete header lines, CRLF included.
func AppendUpgrade(dst []byte, host, path, key, extra string) []byte {
	return fmt.Appendf(dst, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n%s\r\n",
		path, host, key, extra)
}

// Accept is the Sec-WebSocket-Accept that belongs to key (RFC 6455 §4.2.2).
func Accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// ReadUpgrade reads the server's answer from b: n is its length, or 0 if it is
// not whole yet. accept is what Accept gave for the request's key.
func ReadUpgrade(b []byte, accept string) (n int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > maxUpgrade {
			return 0, Error("answer to the upgrade is too long")
		}
		return 0, nil
	}
	head := b[:end]
	status, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 101")) {
		return 0, Error(fmt.Sprintf("upgrade refused: %.80s", status))
	}
	accepted, protocol := false, false
	for len(rest) > 0 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Sec-WebSocket-Accept")):
			accepted = string(value) == accept
		case bytes.EqualFold(name, []byte("Sec-WebSocket-Protocol")):
			protocol = string(value) == "mqtt"
		}
	}
	if !accepted {
		return 0, Error("upgrade with a wrong Sec-WebSocket-Accept")
	}
	if !protocol {
		return 0, Error("upgrade without the sub-protocol mqtt")
	}
	return end + 4, nil
}
