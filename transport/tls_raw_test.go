package transport

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hashplus/transport/link"
)

// rawClient speaks TLS 1.3 record by record, once crypto/tls has made the
// handshake: it says what crypto/tls never would.
type rawClient struct {
	t   testing.TB
	nc  net.Conn
	out rawKeys
	in  rawKeys
}

// rawKeys are those of one direction (RFC 8446 section 7.3).
type rawKeys struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func (k *rawKeys) use(secret []byte) {
	block, _ := aes.NewCipher(expand(secret, "key", 16))
	k.secret, k.iv, k.seq = secret, expand(secret, "iv", 12), 0
	k.aead, _ = cipher.NewGCM(block)
}

func (k *rawKeys) update() { k.use(expand(k.secret, "traffic upd", sha256.Size)) }

func (k *rawKeys) nonce() []byte {
	n := bytes.Clone(k.iv)
	for i := range 8 {
		n[4+i] ^= byte(k.seq >> (56 - 8*i))
	}
	k.seq++
	return n
}

// expand is HKDF-Expand-Label.
func expand(secret []byte, label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(6+len(label)))
	info = append(info, "tls13 "+label...)
	b, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
	if err != nil {
		panic(err)
	}
	return b
}

// Content types and handshake messages.
const (
	rawAlert, rawHandshake, rawData = 21, 22, 23
	keyUpdateQuiet                  = "\x18\x00\x00\x01\x00"
	keyUpdateAsks                   = "\x18\x00\x00\x01\x01"
)

func rawTLS(t testing.TB, address string) *rawClient {
	t.Helper()
	var keys bytes.Buffer
	c := clientConfig()
	c.MinVersion, c.KeyLogWriter = tls.VersionTLS13, &keys
	nc := dialURL(t, address)
	tc := overTLS(t, nc, c).(*tls.Conn)
	if suite := tc.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("%s is preferred on this machine", tls.CipherSuiteName(suite))
	}
	r := &rawClient{t: t, nc: nc}
	for line := range strings.Lines(keys.String()) {
		f := strings.Fields(line)
		secret, _ := hex.DecodeString(f[2])
		switch f[0] {
		case "CLIENT_TRAFFIC_SECRET_0":
			r.out.use(secret)
		case "SERVER_TRAFFIC_SECRET_0":
			r.in.use(secret)
		}
	}
	return r
}

// seal is one record.
func (r *rawClient) seal(kind byte, p string) []byte {
	n := len(p) + 1 + 16
	header := []byte{rawData, 3, 3, byte(n >> 8), byte(n)}
	return r.out.aead.Seal(header, r.out.nonce(), append([]byte(p), kind), header[:5:5])
}

func (r *rawClient) write(records ...[]byte) {
	r.t.Helper()
	if _, err := r.nc.Write(bytes.Join(records, nil)); err != nil {
		r.t.Fatal(err)
	}
}

// record reads one.
func (r *rawClient) record() (kind byte, p []byte, err error) {
	r.nc.SetReadDeadline(time.Now().Add(time.Minute))
	header := make([]byte, recordHeader)
	if _, err := io.ReadFull(r.nc, header); err != nil {
		return 0, nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(r.nc, b); err != nil {
		return 0, nil, err
	}
	b, err = r.in.aead.Open(b[:0], r.in.nonce(), b, header)
	if err != nil {
		return 0, nil, err
	}
	b = bytes.TrimRight(b, "\x00")
	return b[len(b)-1], b[:len(b)-1], nil
}

// expect reads data until want has come. It follows key updates, and returns how
// many there were.
func (r *rawClient) expect(want string) (updates int) {
	r.t.Helper()
	var got []byte
	for len(got) < len(want) {
		kind, p, err := r.record()
		switch {
		case err != nil:
			r.t.Fatalf("after %q: %v", got, err)
		case kind == rawData:
			got = append(got, p...)
		case kind == rawHandshake && p[0] == 24:
			updates++
			r.in.update()
		case kind == rawHandshake && p[0] == 4: // a session ticket
		default:
			r.t.Fatalf("content type %d: %q", kind, p)
		}
	}
	if string(got) != want {
		r.t.Fatalf("got %q, want %q", got, want)
	}
	return updates
}

func TestTLS_KeysAreRenewed(t *testing.T) {
	h := newScripted()
	s := start(t, Options{}, h)
	r := rawTLS(t, listenTLS(t, s, Listener{}))
	say := func(text string) []byte { return r.seal(rawData, text) }
	r.write(say("one"))
	r.expect("one")

	// The peer has new keys, with data in front and behind in one segment.
	before, update := say("two"), r.seal(rawHandshake, keyUpdateQuiet)
	r.out.update()
	r.write(before, update, say("three"))
	if n := r.expect("twothree"); n != 0 {
		t.Errorf("%d updates of the server's keys, which nobody asked for", n)
	}

	// It asks for ours.
	update = r.seal(rawHandshake, keyUpdateAsks)
	r.out.update()
	r.write(update, say("four"))
	if n := r.expect("four"); n != 1 {
		t.Errorf("%d updates of the server's keys", n)
	}

	// The message is spread over two records, and these over segments.
	first, second := r.seal(rawHandshake, keyUpdateAsks[:2]), r.seal(rawHandshake, keyUpdateAsks[2:])
	r.out.update()
	for _, b := range append(append(first, second...), say("five")...) {
		r.write([]byte{b})
	}
	if n := r.expect("five"); n != 1 {
		t.Errorf("%d updates of the server's keys", n)
	}

	// An answer without data behind it leaves as well, also after a move.
	update = r.seal(rawHandshake, keyUpdateAsks)
	r.out.update()
	st := next(t, h)
	do(t, st.conn.Loop(), func() { st.conn.Move(1 - st.conn.Loop().ID()) })
	r.write(update)
	if kind, p, err := r.record(); err != nil || kind != rawHandshake || p[0] != 24 {
		t.Errorf("%d %q %v", kind, p, err)
	}
	r.in.update()
	r.write(say("six"))
	r.expect("six")
}

func TestTLS_GoodbyesAreSaidAndHeard(t *testing.T) {
	const closeNotify = "\x01\x00"
	t.Run("the peer's", func(t *testing.T) {
		h := newScripted()
		s := start(t, Options{}, h)
		r := rawTLS(t, listenTLS(t, s, Listener{}))
		// What was asked before is answered behind it: only one direction ends.
		r.write(r.seal(rawData, "last words"), r.seal(rawAlert, closeNotify))
		r.expect("last words")
		if kind, p, err := r.record(); err != nil || kind != rawAlert || string(p) != closeNotify {
			t.Errorf("%d %q %v", kind, p, err)
		}
		if _, _, err := r.record(); err != io.EOF {
			t.Errorf("then %v", err)
		}
		if err := next(t, h).wait(t); err != nil {
			t.Errorf("cause %v", err)
		}
	})
	t.Run("ours", func(t *testing.T) {
		h := newScripted()
		s := start(t, Options{DrainTimeout: 100 * time.Millisecond}, h)
		r := rawTLS(t, listenTLS(t, s, Listener{}))
		r.write(r.seal(rawData, "hello"))
		r.expect("hello")
		st := next(t, h)
		do(t, st.conn.Loop(), func() {
			send(st.conn, []byte("bye"))
			st.conn.Close(link.CloseNormal, "")
		})
		r.expect("bye")
		if kind, p, err := r.record(); err != nil || kind != rawAlert || string(p) != closeNotify {
			t.Errorf("%d %q %v", kind, p, err)
		}
		if _, _, err := r.record(); err != io.EOF {
			t.Errorf("then %v", err)
		}
	})
	t.Run("in the middle of a record", func(t *testing.T) {
		h := newScripted()
		s := start(t, Options{}, h)
		r := rawTLS(t, listenTLS(t, s, Listener{}))
		r.write(r.seal(rawData, "hello"), r.seal(rawData, "cut off")[:9])
		r.expect("hello")
		r.nc.Close()
		if err := next(t, h).wait(t); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cause %v", err)
		}
	})
}

func TestTLS_UselessRecordsAreBounded(t *testing.T) {
	for name, records := range map[string]func(r *rawClient) []byte{
		"empty data": func(r *rawClient) []byte { return r.seal(rawData, "") },
		"key updates": func(r *rawClient) []byte {
			b := r.seal(rawHandshake, keyUpdateQuiet)
			r.out.update()
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newScripted()
			s := start(t, Options{}, h)
			r := rawTLS(t, listenTLS(t, s, Listener{}))
			for range 15 {
				r.write(records(r))
			}
			r.write(r.seal(rawData, "fine"))
			r.expect("fine")
			for range 20 {
				if _, err := r.nc.Write(records(r)); err != nil {
					break
				}
			}
			if err := next(t, h).wait(t); err == nil {
				t.Error("ended in order")
			}
		})
	}
}

// A peer that asks for new keys again and again and takes no answer must not
// make the server keep the answers.
func TestTLS_AnswersThatNobodyTakesAreBounded(t *testing.T) {
	h := newScripted()
	var most atomic.Int64
	h.open = func(c link.Conn) link.Stream {
		s := h.newStream(c)
		s.data = func(b []byte) int {
			if b[0] == 'F' {
				send(c, make([]byte, 8<<20)) // fills the socket
			}
			if tls := c.(*conn).sock.tls; tls != nil {
				most.Store(max(most.Load(), int64(len(tls.out))))
			}
			return len(b)
		}
		return s
	}
	s := start(t, Options{}, h)
	r := rawTLS(t, listenTLS(t, s, Listener{}))
	st := func() *stream { r.write(r.seal(rawData, "F")); return next(t, h) }()
	if st.conn.(*conn).sock.pipe != nil {
		t.Skip("goroutines wait for the peer")
	}
	w := bufio.NewWriter(r.nc)
	ended := false
	for range 100_000 {
		b := r.seal(rawHandshake, keyUpdateAsks)
		r.out.update()
		_, err := w.Write(append(b, r.seal(rawData, "x")...))
		if err != nil {
			ended = true
			break
		}
	}
	if err := st.wait(t); !errors.Is(err, errAnswers) && !ended {
		t.Errorf("cause %v", err)
	}
	if n := most.Load(); n > 2*maxAnswers {
		t.Errorf("%d bytes of answers were kept", n)
	}
}

// The bytes of a conversation may be cut anywhere, and the connection may move.
func FuzzTLS_CutAnywhere(f *testing.F) {
	f.Add([]byte{1}, uint16(0))
	f.Add([]byte{5, 1, 4, 16}, uint16(3))
	f.Add([]byte{255, 0, 21, 22, 23}, uint16(40000))
	h := newScripted()
	h.opened = make(chan *stream, 1)
	h.open = func(c link.Conn) link.Stream {
		s := &stream{conn: c, closed: make(chan struct{})}
		n := 0
		s.data = func(b []byte) int {
			send(c, b)
			if n += len(b); n%3 == 0 {
				c.Move(1 - c.Loop().ID())
			}
			return len(b)
		}
		return s
	}
	s := start(f, Options{}, h)
	address := listenTLS(f, s, Listener{})
	f.Fuzz(func(t *testing.T, cuts []byte, size uint16) {
		if len(cuts) > 64 {
			t.Skip()
		}
		nc := dialURL(t, address)
		tc := overTLS(t, &cutConn{Conn: nc, cuts: cuts}, clientConfig())
		for _, n := range []int{1, int(size), len(cuts)} {
			sent := noise(n)
			go tc.Write(sent)
			if !bytes.Equal(readFull(t, tc, n), sent) {
				t.Fatal("the echo differs")
			}
		}
		nc.Close()
	})
}

// cutConn cuts what is written after so many bytes, again and again, and then as
// it comes. A cut of 0 waits a moment.
type cutConn struct {
	net.Conn
	cuts []byte
}

func (c *cutConn) Write(b []byte) (int, error) {
	total := len(b)
	for len(b) > 0 && len(c.cuts) > 0 {
		n := min(len(b), int(c.cuts[0]))
		c.cuts = c.cuts[1:]
		if n == 0 {
			time.Sleep(time.Millisecond)
			continue
		}
		if _, err := c.Conn.Write(b[:n]); err != nil {
			return 0, err
		}
		b = b[n:]
	}
	_, err := c.Conn.Write(b)
	return total, err
}

// Every boundary of a whole conversation is cut once.
func TestTLS_EveryBoundaryCanBeCut(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := start(t, Options{}, newScripted())
		address := listenTLS(t, s, Listener{})
		c := clientConfig()
		c.MinVersion, c.MaxVersion = version, version
		c.CurvePreferences = []tls.CurveID{tls.X25519} // a shorter first message
		step := 1
		if raceEnabled {
			step = 7
		}
		for at := 1; at < 700; at += step {
			oneCut := &oneCutConn{Conn: dialURL(t, address), at: at}
			tc := overTLS(t, oneCut, c)
			if _, err := fmt.Fprintf(tc, "hello %3d", at); err != nil {
				t.Fatal(err)
			}
			if b := readFull(t, tc, 9); string(b) != fmt.Sprintf("hello %3d", at) {
				t.Fatalf("cut at %d: %q", at, b)
			}
			oneCut.Close()
			if at > oneCut.written {
				break
			}
		}
	}
}

// oneCutConn cuts the stream of all that is written at one place, and waits
// there until what came before was likely read.
type oneCutConn struct {
	net.Conn
	at, written int
}

func (c *oneCutConn) Write(b []byte) (int, error) {
	cut := c.at - c.written
	c.written += len(b)
	if cut <= 0 || cut >= len(b) {
		return c.Conn.Write(b)
	}
	if _, err := c.Conn.Write(b[:cut]); err != nil {
		return 0, err
	}
	time.Sleep(200 * time.Microsecond)
	_, err := c.Conn.Write(b[cut:])
	return len(b), err
}
