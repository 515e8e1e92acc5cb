package clients

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// text is a message that a test can tell from others by what it says.
func text(topic string, qos byte, format string, args ...any) message {
	return message{Topic: topic, QoS: qos, Payload: fmt.Appendf(nil, format, args...)}
}

func TestClients_EachQoSComesAtTheLowerOfPublishedAndGranted(t *testing.T) { // [MQTT-3.8.4-8]
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		subscriber, _ := k.dial(t, setup{})
		publisher, _ := k.dial(t, setup{})
		for granted := range byte(3) {
			mustSubscribe(t, subscriber, subscription{Filter: fmt.Sprintf("%s/%d/+", in, granted), QoS: granted})
			for sent := range byte(3) {
				topic := fmt.Sprintf("%s/%d/%d", in, granted, sent)
				mustPublish(t, publisher, text(topic, sent, "%d", sent))
				m := subscriber.inbox().take(t, 1)[0]
				if m.Topic != topic || m.QoS != min(sent, granted) || string(m.Payload) != fmt.Sprint(sent) || m.Retain || m.Duplicate {
					t.Errorf("published at QoS %d to a subscription of QoS %d, came %+v", sent, granted, m)
				}
			}
		}
		if more := subscriber.inbox().all(); len(more) > 0 {
			t.Errorf("came in addition: %v", more)
		}
	})
}

func TestClients_PayloadsAndNamesComeUnchanged(t *testing.T) {
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	payloads := [][]byte{{}, binary, bytes.Repeat(binary, 400), []byte("Grüße, 世界 🙂")}
	eachKind(t, func(t *testing.T, k kind) {
		topic := room(t) + "/größe/🌡 °C//"
		c, _ := k.dial(t, setup{})
		mustSubscribe(t, c, subscription{Filter: topic, QoS: 2})
		for i, payload := range payloads {
			qos := byte(i % 3)
			mustPublish(t, c, message{Topic: topic, QoS: qos, Payload: payload})
			m := c.inbox().take(t, 1)[0]
			if m.Topic != topic || !bytes.Equal(m.Payload, payload) {
				t.Errorf("payload %d at QoS %d came as %v", i, qos, m)
			}
		}
	})
}

func TestClients_OrderIsKeptWithinAQoS(t *testing.T) { // [MQTT-4.6.0-5]
	const n = 60
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		subscriber, _ := k.dial(t, setup{})
		mustSubscribe(t, subscriber, subscription{Filter: in + "/#", QoS: 2})
		var publishing sync.WaitGroup
		for qos := range byte(3) {
			publisher, _ := k.dial(t, setup{})
			publishing.Go(func() {
				for i := range n / 3 {
					if err := publisher.publish(text(in+"/x", qos, "%d", i)); err != nil {
						t.Errorf("publish %d at QoS %d: %v", i, qos, err)
						return
					}
				}
			})
		}
		publishing.Wait()
		var next [3]int
		for _, m := range subscriber.inbox().take(t, n) {
			if string(m.Payload) != fmt.Sprint(next[m.QoS]) {
				t.Fatalf("message %d of QoS %d says %s", next[m.QoS], m.QoS, m.Payload)
			}
			next[m.QoS]++
		}
	})
}

func TestClients_UnsubscribeStopsMessages(t *testing.T) { // [MQTT-3.10.4-2]
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		c, _ := k.dial(t, setup{})
		mustSubscribe(t, c, subscription{Filter: in + "/a", QoS: 1})
		mustSubscribe(t, c, subscription{Filter: in + "/b", QoS: 1})
		if err := c.unsubscribe(in + "/a"); err != nil {
			t.Fatal(err)
		}
		mustPublish(t, c, text(in+"/a", 1, "gone"), text(in+"/b", 1, "stays"))
		if got := payloads(c.inbox().take(t, 1)); got != "stays" {
			t.Errorf("came %q", got)
		}
	})
}

func TestClients_RetainedComesToANewSubscriberUntilCleared(t *testing.T) { // [MQTT-3.3.1-5], [MQTT-3.3.1-6]
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		publisher, _ := k.dial(t, setup{})
		live, _ := k.dial(t, setup{})
		mustSubscribe(t, live, subscription{Filter: in + "/#", QoS: 2})
		for qos := range byte(3) {
			m := text(fmt.Sprintf("%s/%d", in, qos), qos, "old")
			m.Retain = true
			mustPublish(t, publisher, m)
			m.Payload = []byte("new")
			mustPublish(t, publisher, m)
		}
		for _, m := range live.inbox().take(t, 6) {
			if m.Retain {
				t.Errorf("came live with the retain flag: %v", m)
			}
		}
		late, _ := k.dial(t, setup{})
		mustSubscribe(t, late, subscription{Filter: in + "/+", QoS: 2})
		got := late.inbox().take(t, 3)
		slices.SortFunc(got, func(a, b message) int { return strings.Compare(a.Topic, b.Topic) })
		for qos, m := range got {
			if m.Topic != fmt.Sprintf("%s/%d", in, qos) || m.QoS != byte(qos) || !m.Retain || string(m.Payload) != "new" {
				t.Errorf("retained at QoS %d, came %+v", qos, m)
			}
		}
		for qos := range byte(3) {
			mustPublish(t, publisher, message{Topic: fmt.Sprintf("%s/%d", in, qos), QoS: qos, Retain: true})
		}
		live.inbox().take(t, 3) // the clears are in force when they have come
		after, _ := k.dial(t, setup{})
		mustSubscribe(t, after, subscription{Filter: in + "/#", QoS: 2})
		mustPublish(t, publisher, text(in+"/end", 1, "end"))
		if got := after.inbox().take(t, 1)[0]; string(got.Payload) != "end" {
			t.Errorf("after the clear came %v", got)
		}
	})
}

func TestClients_WillComesWhenTheConnectionIsCut(t *testing.T) { // [MQTT-3.1.2-8]
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		watcher, _ := k.dial(t, setup{})
		mustSubscribe(t, watcher, subscription{Filter: in + "/#", QoS: 2})
		g := newGate(t, k.url())
		will := text(in+"/will", 1, "gone")
		will.Retain = true
		if k.version == v5 {
			will.Properties = &properties{ContentType: "text/plain", User: [][2]string{{"b", "1"}, {"a", "2"}}}
		}
		k.dial(t, setup{URL: g.url, Will: &will})
		g.cut()
		m := watcher.inbox().take(t, 1)[0]
		if m.Topic != will.Topic || m.QoS != 1 || string(m.Payload) != "gone" {
			t.Errorf("the will came as %+v", m)
		}
		if k.version == v5 {
			// autopaho sends no will properties but the user's.
			if m.Properties.ContentType != "text/plain" && k.name != "autopaho" || !slices.Equal(m.Properties.User, will.Properties.User) {
				t.Errorf("the will came with %+v", m.Properties)
			}
		}
		late, _ := k.dial(t, setup{})
		mustSubscribe(t, late, subscription{Filter: in + "/will", QoS: 0})
		if m := late.inbox().take(t, 1)[0]; !m.Retain || string(m.Payload) != "gone" {
			t.Errorf("the retained will came as %+v", m)
		}
		mustPublish(t, watcher, message{Topic: in + "/will", Retain: true, QoS: 1})
	})
}

func TestClients_WillIsDroppedAtDisconnect(t *testing.T) { // [MQTT-3.14.4-3]
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		watcher, _ := k.dial(t, setup{})
		mustSubscribe(t, watcher, subscription{Filter: in + "/#", QoS: 1})
		will := text(in+"/will", 1, "gone")
		leaver, _ := k.dial(t, setup{Will: &will})
		mustDisconnect(t, leaver)
		time.Sleep(200 * time.Millisecond) // nothing tells when the server has seen it
		mustPublish(t, watcher, text(in+"/end", 1, "end"))
		if got := payloads(watcher.inbox().take(t, 1)); got != "end" {
			t.Errorf("came %q", got)
		}
	})
}

// offline publishes n messages of QoS 1 and 2 in turn, numbered from first.
func offline(t *testing.T, publisher client, topic string, first, n int) {
	t.Helper()
	for i := first; i < first+n; i++ {
		mustPublish(t, publisher, text(topic, byte(1+i%2), "%d", i))
	}
}

// inTurn checks that messages first to first+n-1 came once each, those of each
// QoS in order. Between the two QoS there is no order to check: libraries hand
// a QoS 2 message over at PUBREL or at PUBLISH.
func inTurn(t *testing.T, got []message, first int) {
	t.Helper()
	for _, qos := range []byte{1, 2} {
		next := first + (first+int(qos)+1)%2
		for _, m := range got {
			if m.QoS != qos {
				continue
			}
			if string(m.Payload) != fmt.Sprint(next) {
				t.Fatalf("message %d of QoS %d is missing or out of turn in: %s", next, qos, payloads(got))
			}
			next += 2
		}
	}
}

// takeNew takes n messages that are not in seen. Libraries hand a message over
// before they acknowledge it, and may leave in between: the broker then rightly
// sends it again, ahead of all that is new.
func takeNew(t *testing.T, c client, n int, seen []message) []message {
	t.Helper()
	for {
		first := c.inbox().take(t, 1)
		if !slices.ContainsFunc(seen, func(m message) bool { return string(m.Payload) == string(first[0].Payload) }) {
			return append(first, c.inbox().take(t, n-1)...)
		}
	}
}

func TestClients_QueuedMessagesComeInOrderAfterReconnect(t *testing.T) { // [MQTT-4.4.0-1], [MQTT-3.1.2-4], [MQTT-3.1.2-5]
	const n = 20
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		publisher, _ := k.dial(t, setup{})
		g := newGate(t, k.url())
		id := room(t)
		mobile, up := k.dial(t, setup{URL: g.url, ClientID: id, Keep: true})
		if up.Session != nil && *up.Session {
			t.Error("session present at the first connect")
		}
		mustSubscribe(t, mobile, subscription{Filter: in + "/#", QoS: 2})

		// The library connects again on its own.
		g.cut()
		mobile.inbox().awaitDown(t, 1)
		offline(t, publisher, in+"/x", 0, n)
		g.open()
		seen := mobile.inbox().take(t, n)
		inTurn(t, seen, 0)
		mobile.inbox().awaitUp(t, 1)
		mustPublish(t, publisher, text(in+"/x", 2, "live"))
		live := mobile.inbox().take(t, 1)
		if got := payloads(live); got != "live" {
			t.Errorf("after the queue came %q", got)
		}
		seen = append(seen, live...)

		// It leaves in good order, and another process takes the session up.
		mustDisconnect(t, mobile)
		offline(t, publisher, in+"/x", n, n)
		again, up := k.dial(t, setup{ClientID: id, Keep: true})
		if up.Session != nil && !*up.Session {
			t.Error("no session present at the second connect")
		}
		inTurn(t, takeNew(t, again, n, seen), n)

		// A new session knows nothing of the old one.
		mustDisconnect(t, again)
		offline(t, publisher, in+"/x", 2*n, 2)
		clean, up := k.dial(t, setup{ClientID: id})
		if up.Session != nil && *up.Session {
			t.Error("session present after a clean start")
		}
		mustSubscribe(t, clean, subscription{Filter: in + "/end", QoS: 1})
		mustPublish(t, publisher, text(in+"/x", 1, "x"), text(in+"/end", 1, "end"))
		if got := payloads(clean.inbox().take(t, 1)); got != "end" {
			t.Errorf("after a clean start came %q", got)
		}
	})
}

func TestClients_TakeOverEndsTheOldConnection(t *testing.T) { // [MQTT-3.1.4-3]
	eachKind(t, func(t *testing.T, k kind) {
		in, id := room(t), room(t)
		g := newGate(t, k.url())
		old, _ := k.dial(t, setup{URL: g.url, ClientID: id, Keep: true})
		mustSubscribe(t, old, subscription{Filter: in, QoS: 1})
		g.close() // it must not take the session back
		young, up := k.dial(t, setup{ClientID: id, Keep: true})
		if up.Session != nil && !*up.Session {
			t.Error("no session present at the take-over")
		}
		old.inbox().awaitDown(t, 1)
		mustPublish(t, young, text(in, 1, "mine"))
		if got := payloads(young.inbox().take(t, 1)); got != "mine" {
			t.Errorf("came %q", got)
		}
		if got := old.inbox().all(); len(got) > 0 {
			t.Errorf("came to the old connection: %v", got)
		}
	})
}

func TestClients_RequestIsAnswered(t *testing.T) { // [MQTT-4.10]
	const n = 10
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		service, _ := k.dial(t, setup{})
		mustSubscribe(t, service, subscription{Filter: in + "/request", QoS: 1})
		answered := make(chan error, 1)
		go func() {
			for range n {
				if err := service.inbox().wait(func() bool { return len(service.inbox().messages) > 0 }); err != nil {
					answered <- err
					return
				}
				for _, m := range service.inbox().all() {
					if err := service.publish(reply(k, m)); err != nil {
						answered <- err
						return
					}
				}
			}
			answered <- nil
		}()
		requester, _ := k.dial(t, setup{})
		mustSubscribe(t, requester, subscription{Filter: in + "/reply", QoS: 1})
		for i := range n {
			m := text(in+"/request", 1, "%s/reply|%d", in, i) // 3.x has no Response Topic: in the payload
			if k.version == v5 {
				m = text(in+"/request", 1, "%d", i)
				m.Properties = &properties{ResponseTopic: in + "/reply", Correlation: fmt.Appendf(nil, "c%d", i)}
			}
			mustPublish(t, requester, m)
			got := requester.inbox().take(t, 1)[0]
			if string(got.Payload) != fmt.Sprintf("re %d", i) {
				t.Fatalf("request %d was answered with %v", i, got)
			}
			if k.version == v5 && string(got.Properties.Correlation) != fmt.Sprintf("c%d", i) {
				t.Fatalf("request %d was answered with correlation %q", i, got.Properties.Correlation)
			}
		}
		if err := <-answered; err != nil {
			t.Errorf("the service: %v", err)
		}
	})
}

// reply is what the service of a request/reply test answers to m.
func reply(k kind, m message) message {
	if k.version == v5 {
		r := text(m.Properties.ResponseTopic, 1, "re %s", m.Payload)
		r.Properties = &properties{Correlation: m.Properties.Correlation}
		return r
	}
	to, body, _ := strings.Cut(string(m.Payload), "|")
	return text(to, 1, "re %s", body)
}

func TestClients_ShareGroupGetsEachMessageOnce(t *testing.T) { // [MQTT-4.8.2-4]
	const n = 30
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		var members []client
		for range 2 {
			c, _ := k.dial(t, setup{})
			mustSubscribe(t, c, subscription{Filter: "$share/g" + in + "/" + in + "/#", QoS: 1})
			members = append(members, c)
		}
		plain, _ := k.dial(t, setup{})
		mustSubscribe(t, plain, subscription{Filter: in + "/#", QoS: 1})
		for i := range n {
			mustPublish(t, plain, text(in+"/x", byte(i%2), "%d", i))
		}
		plain.inbox().take(t, n)
		a, b := members[0].inbox(), members[1].inbox()
		var got []message
		deadline := time.Now().Add(patience)
		for len(got) < n && time.Now().Before(deadline) {
			got = append(append(got, a.all()...), b.all()...)
			time.Sleep(10 * time.Millisecond)
		}
		seen := map[string]int{}
		for _, m := range got {
			seen[string(m.Payload)]++
		}
		if len(got) != n || len(seen) != n {
			t.Errorf("%d messages came to the group, %d different ones, of %d", len(got), len(seen), n)
		}
	})
}

func TestClients_PingsKeepAnIdleConnection(t *testing.T) { // [MQTT-3.12.4-1]
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		// Libraries are late, paho for Go by up to a quarter.
		idle, _ := k.dial(t, setup{KeepAlive: 6})
		mustSubscribe(t, idle, subscription{Filter: in, QoS: 1})
		time.Sleep(10 * time.Second) // a server would end it after 9 s without a packet
		other, _ := k.dial(t, setup{})
		mustPublish(t, other, text(in, 1, "still there"))
		idle.inbox().take(t, 1)
		if idle.inbox().lost() > 0 {
			t.Error("the connection was lost")
		}
	})
}

func TestClients_PropertiesComeUnchanged(t *testing.T) { // [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20]
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		c, _ := k.dial(t, setup{})
		mustSubscribe(t, c, subscription{Filter: in, QoS: 2, Identifier: 456789})
		for qos := range byte(3) {
			m := text(in, qos, "{}")
			m.Properties = &properties{
				ResponseTopic: in + "/re", Correlation: []byte{0, 1, 254, 255}, ContentType: "application/json", UTF8: true,
				Expiry: 3600, User: [][2]string{{"z", "1"}, {"a", "2"}, {"z ", "3"}},
			}
			mustPublish(t, c, m)
			got := c.inbox().take(t, 1)[0].Properties
			if got == nil || got.ResponseTopic != m.Properties.ResponseTopic || !bytes.Equal(got.Correlation, m.Properties.Correlation) ||
				got.ContentType != m.Properties.ContentType || !got.UTF8 || got.Expiry == 0 || got.Expiry > 3600 ||
				!slices.Equal(got.User, m.Properties.User) || !slices.Equal(got.Subscriptions, []int{456789}) {
				t.Errorf("at QoS %d came %+v", qos, got)
			}
		}
	}, speaks5)
}

func TestClients_NoLocalKeepsOwnMessagesAway(t *testing.T) { // [MQTT-3.8.3-3]
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		c, _ := k.dial(t, setup{})
		other, _ := k.dial(t, setup{})
		mustSubscribe(t, c, subscription{Filter: in, QoS: 1, NoLocal: true})
		mustPublish(t, c, text(in, 1, "own"))
		mustPublish(t, other, text(in, 1, "other's"))
		if got := payloads(c.inbox().take(t, 1)); got != "other's" {
			t.Errorf("came %q", got)
		}
	}, speaks5)
}

func TestClients_TopicAliasesStandForNames(t *testing.T) { // [MQTT-3.3.2-12]
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		c, _ := k.dial(t, setup{Aliases: 3})
		mustSubscribe(t, c, subscription{Filter: in + "/+", QoS: 2})
		for i := range 20 { // more names than aliases, each used often
			topic := fmt.Sprintf("%s/%d", in, i%5)
			// Not at QoS 2: MQTT.js 5.16 then hands over the empty name that was sent.
			mustPublish(t, c, text(topic, byte(i%2), "%d", i))
			if m := c.inbox().take(t, 1)[0]; m.Topic != topic || string(m.Payload) != fmt.Sprint(i) {
				t.Fatalf("published %d to %s, came %v", i, topic, m)
			}
		}
	}, speaks5, func(k kind) bool { return strings.HasPrefix(k.name, "MQTT.js") })
}

func TestClients_ReplyPrefixIsTheClientsOwn(t *testing.T) {
	needHashplus(t)
	eachKind(t, func(t *testing.T, k kind) {
		requester, up := k.dial(t, setup{ResponseInformation: true})
		if up.ResponseInformation == "" {
			t.Fatal("CONNACK has no Response Information")
		}
		topic := strings.TrimSuffix(up.ResponseInformation, "/") + "/1"
		mustSubscribe(t, requester, subscription{Filter: topic, QoS: 1})
		service, _ := k.dial(t, setup{})
		if code, err := service.subscribe(subscription{Filter: topic, QoS: 1}); err == nil && code < 0x80 {
			t.Errorf("another client may subscribe to %s", topic)
		}
		mustPublish(t, service, text(topic, 1, "answer"))
		if got := payloads(requester.inbox().take(t, 1)); got != "answer" {
			t.Errorf("came %q", got)
		}
	}, speaks5)
}

func TestClients_BroadcastComesToEveryKindAtOnce(t *testing.T) {
	t.Parallel()
	const each = 5
	in := room(t)
	var all []client
	for _, l := range libraries() {
		for _, scheme := range l.schemes {
			for _, version := range l.versions {
				c, _ := kind{l, version, scheme}.dial(t, setup{})
				mustSubscribe(t, c, subscription{Filter: in + "/sensor/#", QoS: byte(len(all) % 3)})
				all = append(all, c)
			}
		}
	}
	var publishing sync.WaitGroup
	for i, c := range all {
		publishing.Go(func() {
			for j := range each {
				if err := c.publish(text(fmt.Sprintf("%s/sensor/%d", in, i), byte(i%3), "%d", j)); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			}
		})
	}
	publishing.Wait()
	for i, c := range all {
		next := map[string]int{}
		for _, m := range c.inbox().take(t, each*len(all)) {
			if string(m.Payload) != fmt.Sprint(next[m.Topic]) {
				t.Fatalf("client %d got message %s of %s when %d was due", i, m.Payload, m.Topic, next[m.Topic])
			}
			next[m.Topic]++
		}
		if more := c.inbox().all(); len(more) > 0 {
			t.Errorf("client %d got in addition: %v", i, more)
		}
	}
}
