package attacks

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"hashplus/bench/codec"
)

// attackerOrders is what an attacker is told when it starts.
type attackerOrders struct {
	Attack   string // its name in the list
	TCP, WS  string // addresses of the broker
	TLS      string
	For      time.Duration
	Index    int // of this process, of Of
	Of       int
	Patience time.Duration // how long to wait at the end for what is still to be told
}

// report is what it did and what it was told.
type report struct {
	Did  map[string]int
	Told map[string]int
}

// attacker is the state of such a process. Its methods may be called from any
// goroutine.
type attacker struct {
	// Immutable.
	attackerOrders
	end   time.Time
	hopes []string // what it must be told: of attack

	next atomic.Uint32 // of source addresses

	mu   sync.Mutex
	did  map[string]int // guarded by mu
	told map[string]int // guarded by mu
}

// beAttacker is an attacker's process.
func beAttacker(text []byte) error {
	a := &attacker{did: map[string]int{}, told: map[string]int{}}
	if err := json.Unmarshal(text, &a.attackerOrders); err != nil {
		return err
	}
	a.end = time.Now().Add(a.For)
	for _, attack := range slices.Concat(attacks, tlsAttacks) {
		if attack.name == a.Attack {
			a.hopes = attack.told
			attack.do(a)
			a.mu.Lock()
			defer a.mu.Unlock()
			return json.NewEncoder(os.Stdout).Encode(report{a.did, a.told})
		}
	}
	return fmt.Errorf("there is no attack %q", a.Attack)
}

// over tells that the attack's time is up.
func (a *attacker) over() bool { return !time.Now().Before(a.end) }

// done is over where what there is to be told, told, needs much to be done first:
// a slow machine gets more time for it.
func (a *attacker) done() bool {
	if !a.over() || time.Since(a.end) > a.Patience {
		return a.over()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, what := range a.hopes {
		if a.told[what] == 0 {
			return false
		}
	}
	return true
}

func (a *attacker) count(what string, n int) {
	a.mu.Lock()
	a.did[what] += n
	a.mu.Unlock()
}

func (a *attacker) hear(what string) {
	if what == "" {
		return
	}
	a.mu.Lock()
	a.told[what]++
	a.mu.Unlock()
}

// parallel runs f n times at once, of all processes together.
func (a *attacker) parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := a.Index; i < n; i += a.Of {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// repeat has n goroutines do f until the time is up.
func (a *attacker) repeat(n int, f func(i int)) {
	a.parallel(n, func(i int) {
		for !a.over() {
			f(i)
		}
	})
}

// victim is one connection to the broker. One goroutine writes, one reads.
type victim struct {
	net.Conn
	a      *attacker
	in     *bufio.Reader
	frames *codec.Deframer // nil on TCP
	closed int             // code of the close frame, or 0
	bytes  []byte          // of MQTT that were not looked at yet
}

// dial opens a connection from an address of the attackers' own. It is nil if
// that fails.
func (a *attacker) dial(address string) *victim {
	n := a.next.Add(1)
	from := &net.TCPAddr{IP: net.IPv4(127, byte(66+a.Index), byte(n>>8), byte(1+n%250))}
	d := net.Dialer{LocalAddr: from, Timeout: 5 * time.Second, Control: portLater}
	conn, err := d.Dial("tcp4", address)
	if err != nil {
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			a.hear("connection refused")
		case errors.Is(err, os.ErrDeadlineExceeded):
			a.hear("no connection within 5 s")
		default:
			a.hear("no connection")
		}
		time.Sleep(20 * time.Millisecond)
		return nil
	}
	a.count("connections", 1)
	return &victim{Conn: conn, a: a, in: bufio.NewReaderSize(conn, 4<<10)}
}

// portLater has the port chosen at connect, so that an address serves as many
// connections as there are ports.
func portLater(_, _ string, c syscall.RawConn) error {
	const bindAddressNoPort = 24
	return c.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, bindAddressNoPort, 1) // it is only of use
	})
}

const handshake = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n"

// upgrade opens a WebSocket, or nil; extra are lines of the request.
func (a *attacker) upgrade(extra string) *victim {
	v := a.dial(a.WS)
	if v == nil {
		return nil
	}
	v.put([]byte(handshake + extra + "\r\n"))
	_ = v.SetReadDeadline(time.Now().Add(10 * time.Second)) // on a socket that is open
	answer, err := http.ReadResponse(v.in, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		if err != nil {
			a.hear(ending(err))
		} else {
			a.hear(fmt.Sprint("HTTP ", answer.StatusCode))
		}
		v.drop()
		return nil
	}
	v.frames = new(codec.Deframer)
	return v
}

// either opens a connection for MQTT over TCP or, if i is odd, WebSocket, or nil.
func (a *attacker) either(i int) *victim {
	if i%2 == 0 {
		return a.dial(a.TCP)
	}
	return a.upgrade("")
}

// login is either for a connection that is let in.
func (a *attacker) login(i int, id string) *victim {
	v := a.either(i)
	if v == nil {
		return nil
	}
	v.send(connect(id))
	p, err := v.packet(10 * time.Second)
	switch {
	case err != nil:
		a.hear(v.ending(err))
	case p.Type == codec.CONNACK && p.Body[1] == 0:
		return v
	case p.Type == codec.CONNACK:
		a.hear(fmt.Sprintf("CONNACK 0x%02X", p.Body[1]))
	}
	v.drop()
	return nil
}

func connect(id string) []byte {
	return codec.AppendConnect(nil, &codec.Connect{Version: codec.V5, ClientID: id, KeepAlive: 600})
}

// put writes bytes as they are, and reports whether they were taken.
func (v *victim) put(b []byte) bool {
	_ = v.SetWriteDeadline(time.Now().Add(5 * time.Second)) // on a socket that is open
	_, err := v.Write(b)
	return err == nil
}

// send writes MQTT bytes, over WebSocket in one frame.
func (v *victim) send(b []byte) bool {
	if v.frames != nil {
		b = codec.AppendFrame(nil, codec.OpBinary, rand.Uint32(), b)
	}
	return v.put(b)
}

// packet reads the next packet, whose body is valid until the next call.
func (v *victim) packet(within time.Duration) (codec.Packet, error) {
	_ = v.SetReadDeadline(time.Now().Add(within)) // on a socket that is open
	for {
		p, n, err := codec.Split(v.bytes)
		if err != nil || n > 0 {
			v.bytes = v.bytes[n:]
			return p, err
		}
		if v.closed != 0 {
			return p, io.EOF
		}
		have := len(v.bytes)
		buf := append(make([]byte, 0, have+32<<10), v.bytes...)
		if n, err = v.in.Read(buf[have:cap(buf)]); err != nil {
			return p, err
		}
		v.bytes = buf[:have+n]
		if v.frames != nil {
			end, err := v.frames.Deframe(v.bytes, have, have, v.control)
			if err != nil {
				return p, err
			}
			v.bytes = v.bytes[:end]
		}
	}
}

func (v *victim) control(op byte, payload []byte) error {
	if op == codec.OpClose {
		v.closed = 1005
		if len(payload) >= 2 {
			v.closed = int(binary.BigEndian.Uint16(payload))
		}
	}
	return nil
}

// hearOut reads to the end of the connection, for at most d, and notes what the
// client was told.
func (v *victim) hearOut(d time.Duration) {
	said, last := "", time.Now().Add(d)
	for {
		p, err := v.packet(time.Until(last))
		switch {
		case err != nil:
			how := v.ending(err)
			if said != "" && strings.HasPrefix(how, "end of") {
				how = ""
			}
			v.a.hear(strings.TrimSuffix(strings.TrimSpace(said+" "+how), "+"))
			return
		case p.Type == codec.DISCONNECT && len(p.Body) > 0:
			said = fmt.Sprintf("DISCONNECT 0x%02X", p.Body[0])
		case p.Type == codec.CONNACK && len(p.Body) > 1 && p.Body[1] != 0:
			said = fmt.Sprintf("CONNACK 0x%02X", p.Body[1])
		}
	}
}

func (v *victim) ending(err error) string {
	if v.closed != 0 {
		return fmt.Sprint("close ", v.closed)
	}
	return ending(err)
}

func ending(err error) string {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "end of the connection"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "nothing: still connected"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return "reset"
	}
	return "other"
}

// drop closes the connection by a reset, which leaves no port behind.
func (v *victim) drop() {
	_ = v.Conn.(*net.TCPConn).SetLinger(0) // it may be closed
	_ = v.Close()
}

func varint(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

// packet is a control packet.
func packet(first byte, body ...[]byte) []byte {
	n := 0
	for _, b := range body {
		n += len(b)
	}
	p := varint([]byte{first}, n)
	for _, b := range body {
		p = append(p, b...)
	}
	return p
}

// text is a string with its length.
func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }
