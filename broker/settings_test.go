package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hashplus/broker/wire"
)

// setOptions puts o in force.
func (s *sim) setOptions(o Options) {
	s.t.Helper()
	if err := s.b.SetOptions(o); err != nil {
		s.t.Fatal(err)
	}
	s.run()
}

// What a client was told at CONNECT holds as long as its connection; the next one
// is told something else.
func TestSetOptions_AConnectionKeepsWhatItWasTold(t *testing.T) {
	one := byte(1)
	o := Options{MaximumPacketSize: 200, TopicAliasMaximum: 1, MaximumQoS: &one, RetainUnavailable: true, ReceiveMaximum: 3, MaxKeepAlive: 60}
	s := newSim(t, 2, Options{})
	old := s.join(0, "old", wire.V5, 60)
	s.setOptions(o)
	if id, reason := s.b.options().MaximumQoS, old; *id != 1 || reason.gone {
		t.Fatal("not in force")
	}
	big := strings.Repeat("x", 300)
	old.send(retained(wire.V5, "q", big, 2, 1))
	if list := old.take(); len(list) != 1 || list[0].h.Type != wire.PUBREC {
		t.Errorf("what it was told it may do gets %v", list)
	}
	for name, packet := range map[string][]byte{
		"size": pub(wire.V5, "q", big, 1, 1), "QoS": pub(wire.V5, "q", "x", 2, 1), "retain": retained(wire.V5, "q", "x", 1, 1),
	} {
		c := s.dial(0)
		p := wire.Connect{Version: wire.V5, ClientID: "new", CleanStart: true, ReceiveMaximum: 10, KeepAlive: 100}
		c.send(p.Append(nil))
		reason, body := c.connack()
		if reason != wire.Success || !strings.Contains(string(body), "\x24\x01") || !strings.Contains(string(body), "\x25\x00") ||
			!strings.Contains(string(body), "\x21\x00\x03") || !strings.Contains(string(body), "\x27\x00\x00\x00\xc8") || !strings.Contains(string(body), "\x13\x00\x3c") {
			t.Errorf("CONNACK % x does not say what is in force", body)
		}
		c.send(packet)
		if !c.gone {
			t.Errorf("%s: it may do what it was told it may not", name)
		}
	}
	old.cut()
	again := s.join(0, "old", wire.V5, 60)
	again.send(pub(wire.V5, "q", "x", 2, 2))
	if !again.gone {
		t.Error("another connection of the client is held to what the first one was told")
	}
}

// Limits that nobody is told of hold at once.
func TestSetOptions_LimitsHoldAtOnce(t *testing.T) {
	s := newSim(t, 1, Options{})
	c := s.join(0, "c", wire.V5, 600)
	c.sub(wire.V5, wire.Subscription{Filter: "q/+", QoS: 1})
	s.setOptions(Options{MaxSubscriptions: 1, MaxTopicLevels: 2, MaxQueuedMessages: 2, MaxSessions: 2, ServerReference: "other", SysInterval: -1})
	p := wire.Subscribe{PacketID: 2, Filters: []wire.Subscription{{Filter: "r"}, {Filter: "a/b/c"}}}
	c.send(p.Append(nil, wire.V5))
	if list := c.take(); len(list) != 1 || list[0].body[3] != byte(wire.QuotaExceeded) || list[0].body[4] != byte(wire.TopicFilterInvalid) {
		t.Errorf("SUBACK %v", list)
	}
	c.cut()
	publisher := s.join(0, "p", wire.V5, 0)
	publisher.pubs("q/x", 1, 1, 5)
	if got := payloads(s.join(0, "c", wire.V5, 600).publishes(wire.V5)); got != "1 2" {
		t.Errorf("the queue held %q", got)
	}
	d := s.dial(0)
	d.send((&wire.Connect{Version: wire.V5, ClientID: "third", CleanStart: true}).Append(nil))
	if reason, _ := d.connack(); reason != wire.QuotaExceeded {
		t.Errorf("one session too many: %v", reason)
	}
	publisher.send(pub(wire.V5, "a/b/c", "x", 1, 9))
	if !publisher.gone {
		t.Error("a topic of too many levels is taken")
	}
}

func TestSetOptions_SysComesAndGoes(t *testing.T) {
	s := newSim(t, 1, Options{})
	c := s.join(0, "c", wire.V5, 0)
	c.sub(wire.V5, wire.Subscription{Filter: "$SYS/broker/uptime"})
	heard := func() int { s.advance(35); return len(c.publishes(wire.V5)) }
	if n := heard(); n != 0 {
		t.Fatalf("%d rounds", n)
	}
	s.setOptions(Options{SysInterval: 10 * time.Second})
	if n := heard(); n != 4 {
		t.Errorf("%d rounds in 35 s, want 4", n)
	}
	s.setOptions(Options{SysInterval: -1})
	if n := heard(); n != 0 {
		t.Errorf("%d rounds after the end", n)
	}
}

// What is out of range changes nothing.
func TestSetOptions_RefusesWhatNewRefuses(t *testing.T) {
	s := newSim(t, 1, Options{MaxInflight: 7})
	err := s.b.SetOptions(Options{MaxInflight: 70000, MaxQueuedBytes: 1})
	if got := fmt.Sprint(err); !strings.Contains(got, "MaxInflight") || !strings.Contains(got, "MaxQueuedBytes") || s.b.options().MaxInflight != 7 {
		t.Errorf("%v, %d", err, s.b.options().MaxInflight)
	}
}
