package crash

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ledger is what happened in a run, to be judged at its end.
type ledger struct {
	run      uint32 // in every payload
	clock    atomic.Int64
	activity atomic.Int64 // when something was delivered or acknowledged last, in ns

	streams   []*stream
	receivers []*receiver

	mu       sync.Mutex
	broken   int      // rules of the protocol that the broker did not keep
	sessions int      // that the broker did not have any more
	notes    []string // of the first faults of each kind
}

// stream is what one publisher sends with one topic and QoS, numbered from 0.
type stream struct {
	topic string
	qos   byte

	mu   sync.Mutex
	sent []sending // by number
	told []event   // what its publisher did, for the report of a fault
}

// event is a step of a publisher with one message.
type event struct {
	number, life, connection int
	what                     string
}

func (s *stream) tell(number int, c *conn, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, event{number, c.life, c.serial, what})
}

// story is what happened to the messages from a number on.
func (s *stream) story(from, to int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, e := range s.told {
		if e.number >= from && e.number <= to {
			fmt.Fprintf(&b, "; %d: %s, life %d connection %d", e.number, e.what, e.life, e.connection)
		}
	}
	return b.String()
}

// sending is a message as its publisher knows it.
type sending struct {
	at    int64 // on the ledger's clock, before the first byte left
	times int   // that it was sent
	acked bool  // PUBACK or PUBREC came
}

// receiver is what gets each message of the streams that it wants: a subscriber,
// or a share group.
type receiver struct {
	name  string
	wants func(s *stream) bool
	qos   byte // granted
	group bool // its order is not judged: a message may go to one member after a later one went to another

	mu    sync.Mutex
	since int64 // on the ledger's clock, when its subscription was acknowledged; 0 before
	got   []receipts
}

// receipts are the messages of one stream that a receiver got.
type receipts struct {
	times []uint8 // by number
	life  []int16 // of the broker, at the last receipt
	next  int     // one past the highest number
	late  int     // first receipts after that of a higher number
}

func (l *ledger) fault(counter *int, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if *counter++; *counter <= 5 {
		l.notes = append(l.notes, fmt.Sprintf(format, args...))
	}
}

func (l *ledger) moved() { l.activity.Store(time.Now().UnixNano()) }

const stampSize = 12

// payload is a message's identity, and size bytes in all.
func (l *ledger) payload(stream, number, size int) []byte {
	b := make([]byte, max(size, stampSize))
	binary.BigEndian.PutUint32(b, l.run)
	binary.BigEndian.PutUint32(b[4:], uint32(stream))
	binary.BigEndian.PutUint32(b[8:], uint32(number))
	for i := stampSize; i < len(b); i++ {
		b[i] = byte(number + i)
	}
	return b
}

// open reads a payload.
func (l *ledger) open(b []byte) (stream, number int, ok bool) {
	if len(b) < stampSize || binary.BigEndian.Uint32(b) != l.run {
		return 0, 0, false
	}
	stream, number = int(binary.BigEndian.Uint32(b[4:])), int(binary.BigEndian.Uint32(b[8:]))
	for i := stampSize; i < len(b); i++ {
		if b[i] != byte(number+i) {
			return 0, 0, false
		}
	}
	return stream, number, stream < len(l.streams)
}

// begin adds a message to s and returns its number.
func (l *ledger) begin(s *stream) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, sending{at: l.clock.Add(1), times: 1})
	return len(s.sent) - 1
}

func (s *stream) again(number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[number].times++
}

func (s *stream) acked(number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[number].acked = true
}

// begun is when a message was sent first, on the ledger's clock.
func (s *stream) begun(number int) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent[number].at
}

func (s *stream) sentTimes(number int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if number >= len(s.sent) {
		return 0
	}
	return s.sent[number].times
}

// receive notes a message that a client takes as a new one. At QoS 1 a second
// one is a fault if neither its publisher nor a crash of the broker explains it,
// and it does not say that it is one.
func (l *ledger) receive(r *receiver, payload []byte, topic string, qos byte, dup bool, life int) {
	l.moved()
	si, number, ok := l.open(payload)
	if !ok {
		l.fault(&l.broken, "%s: a message on %s that nobody sent: % x", r.name, topic, payload[:min(len(payload), 40)])
		return
	}
	s := l.streams[si]
	sent := s.sentTimes(number)
	switch {
	case sent == 0:
		l.fault(&l.broken, "%s: number %d of stream %d was never sent", r.name, number, si)
		return
	case topic != s.topic || !r.wants(s):
		l.fault(&l.broken, "%s: number %d of %s came on %s", r.name, number, s.topic, topic)
	case qos != min(s.qos, r.qos):
		l.fault(&l.broken, "%s: number %d of %s, QoS %d, came at QoS %d", r.name, number, s.topic, s.qos, qos)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.got == nil {
		r.got = make([]receipts, len(l.streams))
	}
	g := &r.got[si]
	for len(g.times) <= number {
		g.times = append(g.times, make([]uint8, len(g.times)+64)...)
		g.life = append(g.life, make([]int16, len(g.life)+64)...)
	}
	if g.times[number] < 255 {
		g.times[number]++
	}
	first := g.times[number] == 1
	// What was first sent before the subscription stood may have missed it then
	// and come with a later sending.
	if first && number < g.next && r.since > 0 && s.begun(number) > r.since {
		if g.late++; !r.group && g.late <= 2 {
			l.note("%s: number %d of %s (QoS %d; it was sent %d times) after %d (%d times), dup %v, broker life %d%s", r.name, number, s.topic, s.qos, sent, g.next-1, s.sentTimes(g.next-1), dup, life, s.story(number-1, g.next-1))
		}
	}
	if !first && qos == 2 {
		l.note("%s: number %d of %s, QoS 2, came %d times; broker life %d, before %d; it was sent %d times%s", r.name, number, s.topic, g.times[number], life, g.life[number], sent, s.story(number, number))
	}
	if !first && qos == 1 && !dup && sent == 1 && g.life[number] == int16(life) && !r.group {
		l.fault(&l.broken, "%s: number %d of %s came again without DUP, in one life of the broker", r.name, number, s.topic)
	}
	g.life[number] = int16(life)
	g.next = max(g.next, number+1)
}

// note keeps a line for the report, up to some.
func (l *ledger) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.notes) < 60 {
		l.notes = append(l.notes, fmt.Sprintf(format, args...))
	}
}

// report has the columns by which brokers are compared, counted in pairs of an
// acknowledged message and a receiver.
type report struct {
	messages   int // published
	acked      int // pairs that were promised
	lost       int // of these
	twice      int // QoS 2 messages that came more than once, a pair each
	disordered int // first receipts after a later one of the same publisher and topic
	again      int // QoS 1 messages that came more than once; allowed
	sessions   int // that the broker had forgotten
	broken     int // other rules broken
}

func (r report) String() string {
	return fmt.Sprintf("%d messages; pairs acked %d, lost %d, QoS 2 twice %d, out of order %d; sessions lost %d, rules broken %d; QoS 1 again %d",
		r.messages, r.acked, r.lost, r.twice, r.disordered, r.sessions, r.broken, r.again)
}

// clean reports whether every promise was kept.
func (r report) clean() bool {
	return r.lost+r.twice+r.disordered+r.sessions+r.broken == 0
}

// judge compares what was promised with what came.
func (l *ledger) judge() (sum report) {
	for si, s := range l.streams {
		s.mu.Lock()
		sum.messages += len(s.sent)
		for _, r := range l.receivers {
			if r.wants(s) {
				l.compare(&sum, s, si, r)
			}
		}
		s.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	sum.broken, sum.sessions = l.broken, l.sessions
	return sum
}

func (l *ledger) compare(sum *report, s *stream, si int, r *receiver) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var g receipts
	if r.got != nil {
		g = r.got[si]
	}
	if !r.group {
		sum.disordered += g.late
	}
	qos := min(s.qos, r.qos)
	for number, m := range s.sent {
		times := 0
		if number < len(g.times) {
			times = int(g.times[number])
		}
		if m.acked && r.since > 0 && m.at > r.since {
			sum.acked++
			if times == 0 {
				if sum.lost++; sum.lost <= 10 {
					l.note("%s: number %d of %s (QoS %d; %d sent) is lost", r.name, number, s.topic, s.qos, len(s.sent))
				}
			}
		}
		switch {
		case times < 2:
		case qos == 2:
			sum.twice++
		default:
			sum.again++
		}
	}
}
