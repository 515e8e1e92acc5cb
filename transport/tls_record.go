package transport

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
)

// What the records of TLS look like from outside (RFC 8446 section 5.1): a type,
// a version, a length of two bytes, and so many bytes.
const (
	recordHeader = 5
	// maxRecord is the largest record that crypto/tls takes: 1.2 allows a
	// ciphertext 2,048 bytes longer than its plaintext.
	maxRecord = recordHeader + maxPlaintext + 2048

	maxPlaintext = 16 << 10

	recordFirst     = 20 // types: change_cipher_spec, alert, handshake, application_data
	recordHandshake = 22
	recordLast      = 23
)

var (
	errNotTLS     = errors.New("not TLS: the first bytes are no handshake")
	errPlainHTTP  = errors.New("not TLS: plain HTTP was sent to a port with TLS")
	errNoRecord   = errors.New("transport: what should be a TLS record is none")
	errLongRecord = errors.New("transport: a TLS record is longer than allowed")
)

// plainHTTP is what one gets who speaks HTTP where TLS is expected.
const plainHTTP = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n" +
	"Content-Length: 41\r\n\r\nThis port speaks TLS: use wss:// or https\n"

// wholeRecords is the length of the complete records at the front of b. With an
// error b goes on with what cannot be a record.
func wholeRecords(b []byte) (n int, err error) {
	for len(b)-n >= recordHeader {
		if kind := b[n]; kind < recordFirst || kind > recordLast || b[n+1] != tls.VersionTLS10>>8 {
			return n, errNoRecord
		}
		size := recordHeader + int(binary.BigEndian.Uint16(b[n+3:]))
		if size > maxRecord {
			return n, errLongRecord
		}
		if len(b)-n < size {
			break
		}
		n += size
	}
	return n, nil
}

// checkHello looks whether b, the first bytes of a connection, can be the
// beginning of a handshake, so that nothing is spent on one that is not.
func checkHello(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if b[0] != recordHandshake || len(b) > 1 && b[1] != tls.VersionTLS10>>8 {
		if b[0] >= 'A' && b[0] <= 'Z' {
			return errPlainHTTP
		}
		return errNotTLS
	}
	_, err := wholeRecords(b)
	return err
}
