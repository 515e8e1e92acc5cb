package transport

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"reflect"
	"unsafe"
)

// A tls.Conn keeps the buffers of its handshake for as long as it lives, and
// grows the one for input to the largest record that ever came: about 4 KiB of an
// idle connection, or 17. Nothing of it is needed between two records, so the
// loop's own buffer is put in their place while records are read, and what only
// the handshake needs is dropped after it. crypto/tls has no call for that; the
// fields are found by name and type, and where a version of Go has others,
// connections just stay larger. TestTLS_KnowsTheLayoutOfConn tells of it.

// tlsLayout is where the fields of tls.Conn are that this file touches.
type tlsLayout struct {
	rawInput, hand            uintptr
	certificates, chains, ekm uintptr
	resumption, ocsp          uintptr
	known                     bool // all of them were found
}

// layout never changes.
var layout = findLayout()

func findLayout() (l tlsLayout) {
	t := reflect.TypeFor[tls.Conn]()
	l.known = true
	at := func(name string, want reflect.Type) uintptr {
		f, ok := t.FieldByName(name)
		if !ok || f.Type != want {
			l.known = false
			return 0
		}
		return f.Offset
	}
	l.rawInput = at("rawInput", reflect.TypeFor[bytes.Buffer]())
	l.hand = at("hand", reflect.TypeFor[bytes.Buffer]())
	l.certificates = at("peerCertificates", reflect.TypeFor[[]*x509.Certificate]())
	l.chains = at("verifiedChains", reflect.TypeFor[[][]*x509.Certificate]())
	l.ekm = at("ekm", reflect.TypeFor[func(string, []byte, int) ([]byte, error)]())
	l.resumption = at("resumptionSecret", reflect.TypeFor[[]byte]())
	l.ocsp = at("ocspResponse", reflect.TypeFor[[]byte]())
	return l
}

// field is the field of c at an offset of layout.
func field[T any](c *tls.Conn, offset uintptr) *T {
	return (*T)(unsafe.Add(unsafe.Pointer(c), offset))
}

// trimTLS drops what c needed for its handshake, which is over. Nobody else uses c.
func trimTLS(c *tls.Conn) {
	if !layout.known {
		return
	}
	for _, offset := range []uintptr{layout.rawInput, layout.hand} {
		if b := field[bytes.Buffer](c, offset); b.Len() == 0 {
			*b = bytes.Buffer{}
		}
	}
	*field[[]*x509.Certificate](c, layout.certificates) = nil
	*field[[][]*x509.Certificate](c, layout.chains) = nil
	*field[func(string, []byte, int) ([]byte, error)](c, layout.ekm) = nil
	*field[[]byte](c, layout.resumption) = nil
	*field[[]byte](c, layout.ocsp) = nil
}

// lend gives c the buffer b for records that it reads.
func lend(c *tls.Conn, b *bytes.Buffer) {
	if !layout.known {
		return
	}
	if own := field[bytes.Buffer](c, layout.rawInput); own.Len() == 0 {
		*own, *b = *b, bytes.Buffer{}
	}
}

// giveBack takes the buffer that was lent, unless c holds something in it.
func giveBack(c *tls.Conn, b *bytes.Buffer) {
	if !layout.known {
		return
	}
	if own := field[bytes.Buffer](c, layout.rawInput); own.Len() == 0 {
		own.Reset()
		*b, *own = *own, bytes.Buffer{}
	}
	// A message of the handshake that came after it, a key update.
	if hand := field[bytes.Buffer](c, layout.hand); hand.Len() == 0 {
		*hand = bytes.Buffer{}
	}
}

// allRead reports whether c has nothing that another Read would look at. Without
// the layout nobody knows.
func allRead(c *tls.Conn) bool {
	return layout.known && field[bytes.Buffer](c, layout.rawInput).Len() == 0
}
