package broker

import (
	"fmt"
	"testing"
	"time"

	"hashplus/broker/wire"
)

// sysOf returns what $SYS/broker says now.
func sysOf(s *sim) map[string]string {
	s.t.Helper()
	c := s.join(0, "reader", wire.V5, 0)
	c.sub(wire.V5, wire.Subscription{Filter: "$SYS/#"})
	values := map[string]string{}
	for _, g := range c.publishes(wire.V5) {
		values[string(g.pub.Topic)[len("$SYS/broker/"):]] = string(g.pub.Payload)
	}
	c.cut()
	return values
}

func TestSys_SaysHowTheBrokerIs(t *testing.T) {
	everyLoops(func(loops int) {
		s := newSim(t, loops, Options{SysInterval: 10 * time.Second, Version: "1.2.3"})
		a, b := s.join(0, "a", wire.V5, 0), s.join(0, "b", wire.V5, 60)
		a.sub(wire.V5, wire.Subscription{Filter: "q"}, wire.Subscription{Filter: "$share/g/q"})
		b.sub(wire.V5, wire.Subscription{Filter: "q", QoS: 1})
		b.cut()
		a.send(retained(wire.V5, "q", "x", 1, 1))
		a.send([]byte{byte(wire.PINGREQ) << 4, 0})
		s.advance(10.5)
		got := sysOf(s)
		for name, want := range map[string]string{
			"version": "1.2.3", "uptime": "10", "clients/connected": "1", "clients/disconnected": "1", "clients/total": "2",
			"subscriptions/count": "3", "messages/queued": "1", "messages/received": "6",
			"publish/messages/received": "1", "publish/messages/sent": "2", "publish/messages/dropped": "0",
		} {
			if got[name] != want {
				t.Errorf("%d loops: %s is %q, want %q", loops, name, got[name], want)
			}
		}
		for name, value := range got {
			if name != "version" && value == "" {
				t.Errorf("%s is empty", name)
			}
			if fmt.Sprint(name) == "bytes/sent" && value == "0" {
				t.Error("nothing was sent, it says")
			}
		}
	})
}

// Its topics are there for who asks, but no wildcard at the first level meets
// them, and clients may not write there.
func TestSys_IsApart(t *testing.T) { // [MQTT-4.7.2-1]
	s := newSim(t, 2, Options{SysInterval: time.Second})
	c := s.join(0, "c", wire.V5, 0)
	c.sub(wire.V5, wire.Subscription{Filter: "#"}, wire.Subscription{Filter: "+/broker/#"}, wire.Subscription{Filter: "$share/g/#"})
	s.advance(3)
	if got := c.publishes(wire.V5); len(got) != 0 {
		t.Errorf("got %d of its topics", len(got))
	}
	c.send(pub(wire.V5, "$SYS/broker/version", "mine", 1, 1))
	if list := c.take(); len(list) != 1 || list[0].h.Type != wire.PUBACK || wire.ReasonCode(list[0].body[2]) != wire.NotAuthorized {
		t.Errorf("publishing there got %v", list)
	}
	c.sub(wire.V5, wire.Subscription{Filter: "$SYS/broker/version", QoS: 1})
	if got := payloads(c.publishes(wire.V5)); got != "hashplus" {
		t.Errorf("the version is %q", got)
	}
	if len(sysOf(s)) < 20 {
		t.Error("values are missing")
	}
}

// What has not changed is not published again.
func TestSys_PublishesChangesOnly(t *testing.T) {
	s := newSim(t, 1, Options{SysInterval: time.Second})
	c := s.join(0, "c", wire.V5, 0)
	c.sub(wire.V5, wire.Subscription{Filter: "$SYS/broker/clients/#"}, wire.Subscription{Filter: "$SYS/broker/uptime"})
	c.publishes(wire.V5)
	s.advance(5)
	clients, uptime := 0, 0
	for _, g := range c.publishes(wire.V5) {
		if string(g.pub.Topic) == "$SYS/broker/uptime" {
			uptime++
		} else {
			clients++
		}
	}
	if clients > 3 || uptime != 5 {
		t.Errorf("%d times about clients, %d times about uptime", clients, uptime)
	}
}
