package broker

import (
	"strings"
	"testing"

	"hashplus/broker/wire"
)

// replyPrefixOf asks for the reply prefix of c as any version can: it
// subscribes to $reply/self.
func replyPrefixOf(c *simConn, v wire.Version) string {
	c.s.t.Helper()
	c.sub(v, wire.Subscription{Filter: replySelf})
	list := c.publishes(v)
	if len(list) != 1 || string(list[0].pub.Topic) != replySelf {
		c.s.t.Fatalf("subscribing to %s brought %q", replySelf, payloads(list))
	}
	return string(list[0].pub.Payload)
}

// granted reports the reason that SUBACK has for a filter.
func granted(c *simConn, v wire.Version, filter string) wire.ReasonCode {
	c.s.t.Helper()
	p := wire.Subscribe{PacketID: 3, Filters: []wire.Subscription{{Filter: filter, QoS: 1}}}
	c.send(p.Append(nil, v))
	for _, g := range c.take() {
		if g.h.Type == wire.SUBACK {
			return wire.ReasonCode(g.body[len(g.body)-1])
		}
	}
	c.s.t.Fatal("no SUBACK")
	return 0
}

func TestReply_PrefixIsTheClientsOwn(t *testing.T) { // [MQTT-3.1.2-28]
	everyLoops(func(loops int) {
		for _, v := range []wire.Version{wire.V31, wire.V311, wire.V5} {
			// An Authorizer that knows nothing of reply prefixes does not
			// stand in their way.
			az := &testAuthorizer{
				publish:   func(_ *Identity, topic string) bool { return topic == "ask" },
				subscribe: func(_ *Identity, filter string) bool { return filter == "ask" },
				receive:   func(_ *Identity, topic string) bool { return topic == "ask" },
			}
			s := newSim(t, loops, Options{Authorizer: az})
			asker, other := s.join(0, "asker", v, 60), s.join(0, "other", v, 0)
			prefix := replyPrefixOf(asker, v)
			if again := replyPrefixOf(asker, v); again != prefix {
				t.Errorf("%v: the prefix changed from %s to %s", v, prefix, again)
			}
			if theirs := replyPrefixOf(other, v); theirs == prefix || !strings.HasPrefix(theirs, replyRoot) {
				t.Errorf("%v: another client has %s", v, theirs)
			}
			if got := granted(asker, v, prefix+"#"); got != 1 {
				t.Errorf("%v: its own prefix: %v", v, got)
			}
			for _, filter := range []string{prefix + "#", prefix + "x", "$reply/#", "$reply/+/x", "$reply", "$share/g/" + prefix + "#"} {
				if got := granted(other, v, filter); got < 0x80 {
					t.Errorf("%v: another client may subscribe to %s", v, filter)
				}
			}
			other.send(pub(v, prefix+"x", "answer", 1, 1))
			answer := asker.publishes(v)
			if got := payloads(answer); got != "answer" {
				t.Errorf("%v: the asker got %q", v, got)
			}
			asker.ack(v, answer)
			asker.cut()
			other.send(pub(v, prefix+"x", "late answer", 1, 2))
			asker = s.join(0, "asker", v, 60)
			if got := payloads(asker.publishes(v)); got != "late answer" {
				t.Errorf("%v: the asker got %q when it was back", v, got)
			}
			if again := replyPrefixOf(asker, v); again != prefix {
				t.Errorf("%v: the session's prefix changed from %s to %s", v, prefix, again)
			}
		}
	})
}

// Nobody can pose as the server on $reply/self, and a wildcard sees no replies.
func TestReply_StaysPrivate(t *testing.T) { // [MQTT-4.7.2-1]
	s := newSim(t, 2, Options{})
	c, spy := s.join(0, "c", wire.V5, 0), s.join(0, "spy", wire.V5, 0)
	spy.sub(wire.V5, wire.Subscription{Filter: "#", QoS: 1}, wire.Subscription{Filter: "+/+/+", QoS: 1})
	prefix := replyPrefixOf(c, wire.V5)
	spy.send(pub(wire.V5, replySelf, "$reply/spy/", 0, 0))
	if got := c.publishes(wire.V5); len(got) != 0 {
		t.Errorf("the client was told %q by another", payloads(got))
	}
	c.send(pub(wire.V5, prefix+"x", "secret", 0, 0))
	if got := spy.publishes(wire.V5); len(got) != 0 {
		t.Errorf("the spy got %q", payloads(got))
	}
}

// A client that asks for Response Information gets the prefix in CONNACK, and
// no other does.
func TestReply_ResponseInformation(t *testing.T) { // [MQTT-3.1.2-28]
	s := newSim(t, 1, Options{})
	for _, ask := range []bool{true, false} {
		c := s.dial(0)
		p := wire.Connect{Version: wire.V5, ClientID: "c", CleanStart: true, RequestResponse: ask, ReceiveMaximum: 10}
		c.send(p.Append(nil))
		_, body := c.connack()
		if got := strings.Contains(string(body), replyRoot); got != ask {
			t.Errorf("asked: %v, told: %v", ask, got)
		}
	}
}
