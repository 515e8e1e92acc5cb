package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hashplus/broker"
	"hashplus/broker/wire"
	"hashplus/transport"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// serve runs a broker on loops of a real transport until the test ends.
func serve(t testing.TB, loops int) *broker.Broker {
	t.Helper()
	return serveWith(t, loops, broker.Options{Logger: quiet, SysInterval: -1})
}

// serveWith is serve with options.
func serveWith(t testing.TB, loops int, o broker.Options) *broker.Broker {
	t.Helper()
	b, err := broker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server, err := transport.New(transport.Options{Loops: loops, Logger: quiet}, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := b.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return b
}

// each runs f on brokers with 1, 2 and 3 loops.
func each(t *testing.T, f func(t *testing.T, b *broker.Broker)) {
	for loops := 1; loops <= 3; loops++ {
		t.Run(fmt.Sprint(loops, " loops"), func(t *testing.T) { f(t, serve(t, loops)) })
	}
}

// inbox collects what a subscription is called with.
type inbox struct {
	mu   sync.Mutex
	list []broker.Message
}

func (i *inbox) take(m broker.Message) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.list = append(i.list, m)
}

// wait returns the payloads once there are n messages, or fails the test.
func (i *inbox) wait(t *testing.T, n int) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		i.mu.Lock()
		got := len(i.list)
		var all []string
		for _, m := range i.list {
			all = append(all, string(m.Payload))
		}
		i.mu.Unlock()
		if got >= n {
			return strings.Join(all, " ")
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d messages came", got, n)
		}
	}
}

func subscribe(t *testing.T, b *broker.Broker, filter string, qos byte, handle func(broker.Message)) *broker.Subscription {
	t.Helper()
	u, err := b.Subscribe(filter, qos, handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

func publish(t *testing.T, b *broker.Broker, m broker.Message) {
	t.Helper()
	for {
		err := b.Publish(m)
		if err == nil {
			return
		}
		if !errors.Is(err, broker.ErrOverloaded) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestPublish_ReachesSubscribersInOrderWithAllItHas(t *testing.T) {
	each(t, func(t *testing.T, b *broker.Broker) {
		var in inbox
		subscribe(t, b, "a/+", 1, in.take)
		m := broker.Message{Topic: "a/b", QoS: 2, Retain: true, PassProperties: wire.PassProperties{
			ContentType: "text/plain", PayloadIsText: true, HasExpiry: true, Expiry: 60,
			UserProperties: []wire.UserProperty{{Key: "k", Value: "1"}, {Key: "k", Value: "2"}}}}
		var want []string
		for i := range 100 {
			m.Payload = fmt.Append(m.Payload[:0], i) // its memory may be used again
			publish(t, b, m)
			want = append(want, fmt.Sprint(i))
		}
		if got := in.wait(t, 100); got != strings.Join(want, " ") {
			t.Errorf("got %s", got)
		}
		got := in.list[0]
		if got.QoS != 1 || got.Retain || got.ContentType != "text/plain" || !got.PayloadIsText || !got.HasExpiry ||
			fmt.Sprint(got.UserProperties) != "[{k 1} {k 2}]" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestPublish_RefusesWhatIsNotValid(t *testing.T) {
	b := serve(t, 1)
	for _, m := range []broker.Message{
		{Topic: ""}, {Topic: "a/+"}, {Topic: "$SYS/x"}, {Topic: "$share/g/x"}, {Topic: "a", QoS: 3},
		{Topic: "a", Payload: make([]byte, 2<<20)},
		{Topic: "a", Payload: []byte{0xFF}, PassProperties: wire.PassProperties{PayloadIsText: true}},
		{Topic: "a", PassProperties: wire.PassProperties{ResponseTopic: "b/#"}},
		{Topic: "a\xFF"},
		{Topic: "a", PassProperties: wire.PassProperties{ResponseTopic: "b\xFF"}},
		{Topic: "a", PassProperties: wire.PassProperties{ContentType: "\xFF"}},
		{Topic: "a", PassProperties: wire.PassProperties{ContentType: "a\x00"}},
		{Topic: "a", PassProperties: wire.PassProperties{UserProperties: []wire.UserProperty{{Key: "k", Value: "\xFF"}}}},
	} {
		if err := b.Publish(m); err == nil {
			t.Errorf("%+v was taken", m)
		}
	}
	for _, filter := range []string{"", "a/#/b", "$share/g", "$share//a"} {
		if u, err := b.Subscribe(filter, 0, func(broker.Message) {}); err == nil {
			t.Errorf("filter %q was taken", filter)
			u.Close()
		}
	}
}

func TestSubscribe_GetsRetainedMessages(t *testing.T) {
	each(t, func(t *testing.T, b *broker.Broker) {
		const names = 10_000 // more than may wait for a subscriber
		for i := range names {
			publish(t, b, broker.Message{Topic: fmt.Sprint("r/", i), Payload: []byte("x"), Retain: true})
		}
		// What is published after the subscription comes live, and is dropped
		// where it finds no room.
		for end := time.Now().Add(time.Minute); b.Stats().Retained < names; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d are retained", b.Stats().Retained)
			}
		}
		var in inbox
		u := subscribe(t, b, "r/#", 0, in.take)
		in.wait(t, names)
		seen := map[string]bool{}
		for _, m := range in.list {
			seen[m.Topic] = true
		}
		if len(seen) != names || u.Dropped() != 0 {
			t.Errorf("%d of %d names came, %d were dropped", len(seen), names, u.Dropped())
		}
	})
}

// Members of a share group get each message once, and one that is slow holds
// up its own part only until it has room again.
func TestSubscribe_Shared(t *testing.T) {
	each(t, func(t *testing.T, b *broker.Broker) {
		var quick, slow inbox
		open := make(chan struct{})
		subscribe(t, b, "$share/g/q", 1, quick.take)
		subscribe(t, b, "$share/g/q", 1, func(m broker.Message) { <-open; slow.take(m) })
		const messages = 12_000 // the group keeps 10,000 beside those that its members have
		for i := range messages {
			publish(t, b, broker.Message{Topic: "q", Payload: fmt.Append(nil, i), QoS: 1})
		}
		quick.wait(t, messages-4096-1000)
		close(open)
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			quick.mu.Lock()
			slow.mu.Lock()
			n := len(quick.list) + len(slow.list)
			slow.mu.Unlock()
			quick.mu.Unlock()
			if n == messages {
				break
			}
			if n > messages || time.Now().After(end) {
				t.Fatalf("%d of %d came; %+v", n, messages, b.Stats().Dropped)
			}
		}
	})
}

// One slow subscriber that is alone in its group: what waits in the group comes
// when there is room, and none is lost.
func TestSubscribe_SharedQueueIsDrained(t *testing.T) {
	each(t, func(t *testing.T, b *broker.Broker) {
		var in inbox
		open := make(chan struct{})
		subscribe(t, b, "$share/g/q", 1, func(m broker.Message) { <-open; in.take(m) })
		const messages = 10_000
		for i := range messages {
			publish(t, b, broker.Message{Topic: "q", Payload: fmt.Append(nil, i), QoS: 1})
		}
		close(open)
		in.wait(t, messages)
	})
}

func TestSubscribe_SlowHandlerLosesAndCounts(t *testing.T) {
	b := serve(t, 2)
	open := make(chan struct{})
	var in inbox
	began := make(chan struct{}, 1)
	u := subscribe(t, b, "q", 0, func(m broker.Message) {
		select {
		case began <- struct{}{}:
		default:
		}
		<-open
		in.take(m)
	})
	const messages = 6000
	for i := range messages {
		if i == 1 {
			<-began // with the first, beside which 4,096 may wait
		}
		publish(t, b, broker.Message{Topic: "q", Payload: fmt.Append(nil, i)})
	}
	for end := time.Now().Add(time.Minute); u.Dropped() < messages-4096-1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d are counted as dropped", u.Dropped())
		}
	}
	close(open)
	in.wait(t, messages-int(u.Dropped()))
	if n := b.Stats().Dropped[broker.DropOverloaded.String()]; n != u.Dropped() {
		t.Errorf("the broker counts %d, the subscription %d", n, u.Dropped())
	}
}

// After Close, which a handler may call, no other call begins.
func TestSubscription_CloseFromItsHandler(t *testing.T) {
	each(t, func(t *testing.T, b *broker.Broker) {
		var in inbox
		var u *broker.Subscription
		ready, got := make(chan struct{}), make(chan struct{})
		u = subscribe(t, b, "q", 0, func(m broker.Message) {
			<-ready
			in.take(m)
			u.Close()
			close(got)
		})
		for range 10 {
			publish(t, b, broker.Message{Topic: "q"})
		}
		close(ready)
		<-got
		for end := time.Now().Add(time.Minute); b.Stats().Subscriptions > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the subscription is still there")
			}
		}
		if got := len(strings.Fields(in.wait(t, 1) + "x")); got != 1 {
			t.Errorf("%d calls began after Close", got-1)
		}
	})
}

func TestRequest_GetsItsReply(t *testing.T) {
	each(t, func(t *testing.T, b *broker.Broker) {
		subscribe(t, b, "add", 1, func(m broker.Message) {
			answer := broker.Message{Topic: m.ResponseTopic, Payload: append(m.Payload, '!'), QoS: 1,
				PassProperties: wire.PassProperties{CorrelationData: m.CorrelationData}}
			if err := b.Publish(answer); err != nil {
				t.Error(err)
			}
		})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				want := fmt.Sprint(i, "!")
				got, err := b.Request(ctx, broker.Message{Topic: "add", Payload: fmt.Append(nil, i), QoS: 1,
					PassProperties: wire.PassProperties{CorrelationData: []byte{byte(i)}}})
				if err != nil || string(got.Payload) != want || string(got.CorrelationData) != string([]byte{byte(i)}) {
					t.Errorf("request %d: %q, %v", i, got.Payload, err)
				}
			})
		}
		all.Wait()
	})
}

func TestRequest_FailsWithoutSubscriberAndWithItsContext(t *testing.T) {
	each(t, func(t *testing.T, b *broker.Broker) {
		if _, err := b.Request(context.Background(), broker.Message{Topic: "nobody"}); !errors.Is(err, broker.ErrNoSubscriber) {
			t.Errorf("nobody there: %v", err)
		}
		subscribe(t, b, "mute", 0, func(broker.Message) {})
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if _, err := b.Request(ctx, broker.Message{Topic: "mute"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no answer: %v", err)
		}
	})
}

func TestEmbed_NotRunning(t *testing.T) {
	b, err := broker.New(broker.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(broker.Message{Topic: "a"}); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Publish: %v", err)
	}
	if _, err := b.Subscribe("a", 0, nil); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Subscribe: %v", err)
	}
	if _, err := b.Request(context.Background(), broker.Message{Topic: "a"}); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Request: %v", err)
	}
}

func TestEmbed_AfterShutdown(t *testing.T) {
	b, err := broker.New(broker.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	server, err := transport.New(transport.Options{Loops: 2, Logger: quiet}, b)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := server.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(broker.Message{Topic: "a"}); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Publish: %v", err)
	}
	if _, err := b.Subscribe("a", 0, nil); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Subscribe: %v", err)
	}
}

// Publishers on several loops that flood one subscriber are paused and go on,
// for ever if need be: none stays paused, and nothing is lost.
func TestPublish_FloodFromManyLoopsComesThrough(t *testing.T) {
	b, err := broker.New(broker.Options{Logger: quiet, SysInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	server, err := transport.New(transport.Options{Loops: 3, Logger: quiet}, b)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	defer server.Shutdown(ctx)
	url, err := server.Listen(transport.Listener{Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	const publishers, messages, size = 6, 300, 50_000
	var in atomic.Int64
	u, err := b.Subscribe("q", 0, func(broker.Message) { in.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	o := wire.Outgoing{Version: wire.V311, Topic: []byte("q"), Payload: make([]byte, size), ExpiryAt: -1}
	packet := make([]byte, o.Size())
	o.Put(packet)
	for i := range publishers {
		conn, err := net.Dial("tcp", url[strings.Index(url, "://")+3:])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			p := wire.Connect{Version: wire.V311, ClientID: fmt.Sprint("p", i), CleanStart: true}
			if _, err := conn.Write(p.Append(nil)); err != nil {
				t.Error(err)
			}
			for range messages {
				if _, err := conn.Write(packet); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	for in.Load() < publishers*messages {
		if ctx.Err() != nil {
			t.Fatalf("%d of %d came", in.Load(), publishers*messages)
		}
		time.Sleep(time.Millisecond)
	}
}

// Wildcards reach no more of $SYS from within the process than over a connection.
func TestSubscribe_WildcardsGetNothingOfSys(t *testing.T) { // [MQTT-4.7.2-1]
	b := serveWith(t, 2, broker.Options{Logger: quiet, SysInterval: 10 * time.Millisecond})
	var sys, wild inbox
	for filter, to := range map[string]*inbox{"$SYS/broker/uptime": &sys, "#": &wild, "+/#": &wild, "+/broker/uptime": &wild, "$share/g/#": &wild, "$share/g/+/broker/#": &wild} {
		s, err := b.Subscribe(filter, 1, to.take)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	sys.wait(t, 2)
	if err := b.Publish(broker.Message{Topic: "plain", Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if got := wild.wait(t, 3); got != "x x x" {
		t.Errorf("wildcards got %q", got)
	}
}
