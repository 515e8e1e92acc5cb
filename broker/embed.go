package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"hashplus/broker/wire"
	"hashplus/topic"
)

// Errors of the in-process calls.
var (
	// ErrOverloaded is returned by Publish and Request when as many messages
	// as may wait are on their way into the loops.
	ErrOverloaded = errors.New("broker: too many messages on their way")
	// ErrNoSubscriber is returned by Request when nobody is subscribed to the
	// topic: there is nobody to wait for.
	ErrNoSubscriber = errors.New("broker: no subscriber to the request's topic")
)

// publishCredit is the number of in-process publishes that may wait for a loop.
const publishCredit = 8192

// Message is an application message, as in-process callers see it.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	wire.PassProperties
}

func (m *Message) check(o *Options) error {
	if err := topic.CheckName(m.Topic); err != nil {
		return fmt.Errorf("broker: topic %q: %w", m.Topic, err)
	}
	switch {
	case !utf8.ValidString(m.Topic):
		return fmt.Errorf("broker: topic %q is not UTF-8", m.Topic)
	case reserved(m.Topic):
		return fmt.Errorf("broker: topic %q is the server's own", m.Topic)
	case m.QoS > 2:
		return fmt.Errorf("broker: QoS is %d; allowed are 0, 1 and 2", m.QoS)
	case len(m.Payload) > o.MaximumPacketSize:
		return fmt.Errorf("broker: payload of %d bytes; %d are allowed", len(m.Payload), o.MaximumPacketSize)
	case m.PayloadIsText && !utf8.Valid(m.Payload):
		return fmt.Errorf("broker: the payload is to be text and is not UTF-8")
	}
	if err := m.Check(); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	return nil
}

// message makes a routable copy of m, whose deadline counts from 0.
func (m *Message) message() *message {
	props, at := m.Append(nil)
	out := message{topic: []byte(m.Topic), payload: m.Payload, props: props, expiryAt: at, qos: m.QoS, retain: m.Retain}
	if at >= 0 {
		out.deadline = int64(m.Expiry) * second
	}
	return out.keep()
}

// Publish publishes m as a client would, without asking the Authorizer. It
// returns once the message is on its way: messages that one goroutine publishes
// to one topic keep their order. m's memory may be used again when it returns.
// It never blocks; ErrOverloaded means that m was not taken.
func (b *Broker) Publish(m Message) error {
	return b.publish(m, nil)
}

// publish is Publish; routed, if not nil, is called on a loop and told whether
// there was a subscription.
func (b *Broker) publish(m Message, routed func(matched bool)) error {
	if err := m.check(&b.options().Options); err != nil {
		return err
	}
	if !b.running.Load() {
		return ErrClosed
	}
	if b.congested() != nil {
		return ErrOverloaded
	}
	if b.credit.Add(1) > publishCredit {
		b.credit.Add(-1)
		return ErrOverloaded
	}
	l := b.home(m.Topic)
	msg := m.message()
	size := msg.size()
	l.inbox.pending.Add(int64(size)) // large messages are bounded by their bytes
	ok := l.call(func(l *loop) {
		b.credit.Add(-1)
		if msg.expiryAt >= 0 {
			msg.deadline += l.now()
		}
		matched := l.publish(msg)
		l.took(l, size)
		if routed != nil {
			routed(matched)
		}
	})
	if !ok {
		b.credit.Add(-1)
		l.inbox.pending.Add(-int64(size))
		return ErrClosed
	}
	return nil
}

// Subscription is an in-process subscription.
type Subscription struct {
	b       *Broker
	s       *session
	handle  func(Message)
	dropped atomic.Int64

	mu      sync.Mutex
	queue   []Message
	taken   int // messages of the batch that run is at, not handled yet
	closed  bool
	starved bool // was asked for room when there was none
	wake    chan struct{}
}

// subscriptionQueue is the number of messages that wait for an in-process
// subscriber.
const subscriptionQueue = 4096

// Subscribe calls handle, on a goroutine of the subscription's own, for each
// message that matches filter, which may be `$share/{group}/{filter}`, and for
// the retained ones, unless it is shared. When handle is slower than the
// messages, live ones that find 4,096 others waiting are dropped and counted;
// retained ones, and those of a share group, wait. The subscription is in
// effect when Subscribe returns. The Authorizer is not asked.
func (b *Broker) Subscribe(filter string, qos byte, handle func(Message)) (*Subscription, error) {
	group, name, shared, err := topic.ParseShare(filter)
	if !shared {
		group, name = "", filter
	}
	if err == nil {
		err = topic.CheckFilter(name)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("broker: filter %q: %w", filter, err)
	case qos > 2:
		return nil, fmt.Errorf("broker: QoS is %d; allowed are 0, 1 and 2", qos)
	case !b.running.Load():
		return nil, ErrClosed
	}
	u := &Subscription{b: b, handle: handle, wake: make(chan struct{}, 1)}
	id := "$in-process/" + token()
	l := b.home(id)
	ready := make(chan struct{})
	ok := l.call(func(l *loop) {
		u.s = &session{id: id, origin: b.origin(id), loop: l, sink: u, traffic: &l.idle}
		sub := &subscription{filter: filter, topic: name, qos: qos}
		u.s.put(nil, sub, group, func() { close(ready) })
		if group == "" {
			u.s.begin(sub)
			close(ready)
		}
	})
	if !ok {
		return nil, ErrClosed
	}
	for {
		select {
		case <-ready:
			go u.run()
			return u, nil
		case <-time.After(time.Second):
			// A loop that stops drops what was posted to it.
			if !l.call(func(*loop) {}) {
				return nil, ErrClosed
			}
		}
	}
}

// accept implements sink.
func (u *Subscription) accept(m *message, qos byte, retain bool) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed || u.taken+len(u.queue) >= subscriptionQueue {
		u.dropped.Add(1)
		return false
	}
	u.queue = append(u.queue, Message{
		Topic: string(m.topic), Payload: append([]byte(nil), m.payload...), QoS: qos, Retain: retain,
		PassProperties: wire.ReadPassProperties(m.props),
	})
	select {
	case u.wake <- struct{}{}:
	default:
	}
	return true
}

// room implements sink.
func (u *Subscription) room() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return 0
	}
	free := subscriptionQueue - u.taken - len(u.queue)
	if free <= 0 {
		u.starved = true // until take: what was refused waits, however much room there is meanwhile
	}
	return free
}

func (u *Subscription) run() {
	for range u.wake {
		for batch := u.take(); len(batch) > 0; batch = u.take() {
			for _, m := range batch {
				if !u.next() {
					return
				}
				u.handle(m)
			}
		}
	}
}

// take empties the queue.
func (u *Subscription) take() []Message {
	u.mu.Lock()
	batch, starved := u.queue, u.starved
	u.queue, u.taken, u.starved = nil, len(u.queue), false
	u.mu.Unlock()
	if starved {
		u.s.loop.call(func(*loop) {
			u.s.roomChanged()
			u.s.wantReplay()
		})
	}
	return batch
}

// next reports whether one more message may be handled.
func (u *Subscription) next() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.taken--
	return !u.closed
}

// Dropped is the number of messages that handle was too slow for.
func (u *Subscription) Dropped() int64 { return u.dropped.Load() }

// Close ends the subscription. A call of handle that is under way may still
// be; no other begins. It may be called from handle.
func (u *Subscription) Close() {
	u.mu.Lock()
	was := u.closed
	u.closed = true
	u.mu.Unlock()
	if was {
		return
	}
	close(u.wake)
	u.s.loop.call(func(*loop) { u.s.end() })
}

// requester matches replies to requests.
type requester struct {
	mu      sync.Mutex
	sub     *Subscription
	prefix  string
	next    uint64
	waiting map[string]chan Message // by reply topic
}

// Request publishes m with a Response Topic of its own and Correlation Data,
// and returns the first message that comes back there. A version 5 responder
// answers to the Response Topic; an older one must learn it from the payload.
// It fails at once with ErrNoSubscriber if nobody is subscribed to the topic,
// and otherwise with ctx.
func (b *Broker) Request(ctx context.Context, m Message) (Message, error) {
	r := &b.requests
	reply, err := r.open(b)
	if err != nil {
		return Message{}, err
	}
	answer := make(chan Message, 1)
	failed := make(chan error, 1)
	r.mu.Lock()
	r.waiting[reply] = answer
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.waiting, reply)
		r.mu.Unlock()
	}()
	m.ResponseTopic = reply
	if m.CorrelationData == nil {
		m.CorrelationData = []byte(reply[len(reply)-8:])
	}
	err = b.publish(m, func(matched bool) {
		if !matched {
			failed <- ErrNoSubscriber
		}
	})
	if err != nil {
		return Message{}, err
	}
	select {
	case a := <-answer:
		return a, nil
	case err := <-failed:
		return Message{}, err
	case <-ctx.Done():
		return Message{}, ctx.Err()
	}
}

// open returns a reply topic that was not used before.
func (r *requester) open(b *Broker) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sub == nil {
		r.prefix = replyRoot + token() + "/"
		r.waiting = make(map[string]chan Message)
		sub, err := b.Subscribe(r.prefix+"#", 1, r.arrived)
		if err != nil {
			return "", err
		}
		r.sub = sub
	}
	r.next++
	return fmt.Sprintf("%s%08x", r.prefix, r.next), nil
}

func (r *requester) arrived(m Message) {
	r.mu.Lock()
	c := r.waiting[m.Topic]
	delete(r.waiting, m.Topic)
	r.mu.Unlock()
	if c != nil {
		c <- m
	}
}

func (r *requester) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sub != nil {
		r.sub.Close()
		r.sub = nil
	}
}
