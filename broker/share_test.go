package broker

import (
	"fmt"
	"strings"
	"testing"

	"hashplus/broker/wire"
)

// groupOn returns a share filter for filter whose group lives on the given
// loop.
func (s *sim) groupOn(loop int, filter string) string {
	for i := 0; ; i++ {
		k := groupKey{fmt.Sprint("g", i), filter}
		if s.b.groupHome(k).id == loop {
			return "$share/" + k.name + "/" + filter
		}
	}
}

// group returns the only share group, or nil.
func (s *sim) group() (g *shareGroup) {
	for _, l := range s.b.loops {
		for _, o := range l.groups {
			g = o
		}
	}
	return g
}

// member joins a client to a share group: its session is on the given loop.
func (s *sim) member(loop int, name, share string, qos byte, expiry uint32, more ...func(*wire.Connect)) *simConn {
	c := s.join(0, s.idOn(loop, name), wire.V5, expiry, more...)
	c.sub(wire.V5, wire.Subscription{Filter: share, QoS: qos})
	return c
}

func receiveMaximum(n uint16) func(*wire.Connect) {
	return func(p *wire.Connect) { p.ReceiveMaximum = n }
}

// pubs publishes payloads from to to to topic at qos, each acknowledged as far
// as its QoS asks for.
func (c *simConn) pubs(topic string, qos byte, from, to int) {
	for i := from; i <= to; i++ {
		c.feed(pub(wire.V5, topic, fmt.Sprint(i), qos, uint16(i)))
		if qos == 2 {
			c.feed(ackOf(wire.PUBREL, wire.V5, uint16(i), 0))
		}
	}
	c.s.run()
}

// everyHome runs f with the group's home on each of three loops.
func everyHome(f func(home int)) {
	for home := range 3 {
		f(home)
	}
}

// Wherever the group and its members live, the members take turns and each
// gets its part in order.
func TestShare_MembersTakeTurns(t *testing.T) {
	everyHome(func(home int) {
		s := newSim(t, 3, Options{})
		share := s.groupOn(home, "q")
		var members []*simConn
		for i := range 4 {
			members = append(members, s.member(i%3, fmt.Sprint("m", i), share, 1, 0))
		}
		p := s.join(0, s.idOn(1, "p"), wire.V5, 0)
		p.pubs("q", 1, 1, 40)
		for i, m := range members {
			list := m.publishes(wire.V5)
			if len(list) != 10 {
				t.Errorf("home %d: member %d got %d of 40", home, i, len(list))
			}
			for j := 1; j < len(list); j++ {
				if list[j].pub.PacketID != list[j-1].pub.PacketID+1 || len(list[j].pub.Payload) < len(list[j-1].pub.Payload) {
					t.Errorf("home %d: member %d got %s", home, i, payloads(list))
				}
			}
		}
	})
}

func TestShare_OfflineAndFullMembersArePassedOver(t *testing.T) {
	everyHome(func(home int) {
		s := newSim(t, 3, Options{})
		share := s.groupOn(home, "q")
		away := s.member(0, "away", share, 1, 600)
		away.cut()
		full := s.member(1, "full", share, 1, 0, receiveMaximum(2))
		free := s.member(2, "free", share, 1, 0)
		s.join(0, "p", wire.V5, 0).pubs("q", 1, 1, 20)
		got := len(full.publishes(wire.V5))
		if got != 2 {
			t.Errorf("home %d: the full member got %d", home, got)
		}
		if n := len(free.publishes(wire.V5)); got+n != 20 {
			t.Errorf("home %d: the members got %d and %d of 20", home, got, n)
		}
	})
}

// When nobody is online the messages wait for a member whose session outlives
// its connection, and come in order.
func TestShare_QueuedWhileNobodyIsOnline(t *testing.T) {
	everyHome(func(home int) {
		s := newSim(t, 3, Options{})
		share := s.groupOn(home, "q")
		id := s.idOn(2, "m")
		m := s.member(2, "m", share, 1, 600)
		m.cut()
		p := s.join(0, "p", wire.V5, 0)
		p.pubs("q", 1, 1, 10)
		p.pubs("q", 0, 11, 11) // is not kept
		if n := s.b.Stats().Queued; n != 10 {
			t.Errorf("home %d: %d are queued", home, n)
		}
		m = s.join(0, id, wire.V5, 600, receiveMaximum(3))
		var seen []string
		for list := m.publishes(wire.V5); len(list) > 0; list = m.publishes(wire.V5) {
			if len(list) > 3 {
				t.Errorf("home %d: %d in flight", home, len(list))
			}
			seen = append(seen, payloads(list))
			m.ack(wire.V5, list)
		}
		if got := strings.Join(seen, " "); got != "1 2 3 4 5 6 7 8 9 10" {
			t.Errorf("home %d: got %s", home, got)
		}
		if n := s.b.Stats().Queued; n != 0 {
			t.Errorf("home %d: %d are left in the queue", home, n)
		}
	})
}

// A member that subscribes again, as clients do after a reconnect, loses
// nothing of what waits for it.
func TestShare_SubscribingAgainKeepsTheQueue(t *testing.T) { // [MQTT-3.8.4-4]
	everyHome(func(home int) {
		s := newSim(t, 3, Options{})
		share := s.groupOn(home, "q")
		m := s.member(1, "m", share, 2, 600, receiveMaximum(1))
		p := s.join(0, "p", wire.V5, 0)
		p.pubs("q", 1, 1, 3)
		first := m.publishes(wire.V5)
		m.sub(wire.V5, wire.Subscription{Filter: share, QoS: 1})
		m.ack(wire.V5, first)
		second := m.publishes(wire.V5)
		m.ack(wire.V5, second)
		if got := payloads(first) + payloads(second) + payloads(m.publishes(wire.V5)); got != "123" {
			t.Errorf("home %d: got %s, want 123", home, got)
		}
		if n := s.b.Stats().Subscriptions; n != 1 {
			t.Errorf("home %d: %d subscriptions are counted", home, n)
		}
	})
}

// What a member has not acknowledged when its session ends goes to the others,
// in order; what it has got at QoS 2 is dropped and counted.
func TestShare_SessionEndGivesBack(t *testing.T) { // [MQTT-4.8.2-5]
	everyHome(func(home int) {
		for _, clean := range []bool{true, false} {
			seen := &events{}
			s := newSim(t, 3, Options{Observer: seen})
			share := s.groupOn(home, "q")
			m := s.member(0, "m", share, 2, 600)
			p := s.join(0, "p", wire.V5, 0)
			p.pubs("q", 1, 1, 3)
			p.pubs("q", 2, 4, 4)
			p.pubs("q", 1, 5, 6)
			list := m.publishes(wire.V5)
			m.ack(wire.V5, list[1:2])
			other := s.member(1, "other", share, 2, 0)
			if got := other.publishes(wire.V5); len(got) != 0 {
				t.Errorf("home %d: the other got %q while the first had its session", home, payloads(got))
			}
			d := wire.Disconnect{HasSessionExpiry: true}
			if clean {
				m.send(d.Append(nil))
			} else {
				m.cut()
				s.advance(601)
			}
			if got := payloads(other.publishes(wire.V5)); got != "1 3 5 6" {
				t.Errorf("home %d: the other got %q, want 1 3 5 6", home, got)
			}
			if got := fmt.Sprint(seen.lost); got != fmt.Sprintf("[%s q shared-session-ended]", s.idOn(0, "m")) {
				t.Errorf("home %d: dropped: %s", home, got)
			}
		}
	})
}

// A QoS 2 message that was sent stays with its member as long as the session.
func TestShare_QoS2StaysWithItsMember(t *testing.T) { // [MQTT-4.8.2-4]
	everyHome(func(home int) {
		s := newSim(t, 3, Options{})
		share := s.groupOn(home, "q")
		id := s.idOn(0, "m")
		m := s.member(0, "m", share, 2, 600)
		s.join(0, "p", wire.V5, 0).pubs("q", 2, 1, 1)
		m.cut()
		other := s.member(1, "other", share, 2, 0)
		if got := other.publishes(wire.V5); len(got) != 0 {
			t.Errorf("home %d: the other got %q", home, payloads(got))
		}
		m = s.join(0, id, wire.V5, 600)
		if got := m.publishes(wire.V5); len(got) != 1 || !got[0].pub.Dup {
			t.Errorf("home %d: the member got %d", home, len(got))
		}
	})
}

func TestShare_RefusedMessageIsDropped(t *testing.T) { // [MQTT-4.8.2-6]
	everyHome(func(home int) {
		s := newSim(t, 3, Options{})
		share := s.groupOn(home, "q")
		m := s.member(0, "m", share, 2, 600, receiveMaximum(1))
		p := s.join(0, "p", wire.V5, 0)
		p.pubs("q", 1, 1, 1)
		p.pubs("q", 2, 2, 3)
		m.send(ackOf(wire.PUBACK, wire.V5, 1, wire.UnspecifiedError))
		m.send(ackOf(wire.PUBREC, wire.V5, 2, wire.UnspecifiedError))
		if got := payloads(m.publishes(wire.V5)); got != "1 2 3" {
			t.Errorf("home %d: the member got %q", home, got)
		}
		m.send(ackOf(wire.PUBREC, wire.V5, 3, 0))
		m.send(ackOf(wire.PUBCOMP, wire.V5, 3, 0))
		m.cut()
		other := s.member(1, "other", share, 2, 0)
		s.advance(601)
		if got := other.publishes(wire.V5); len(got) != 0 {
			t.Errorf("home %d: the other got %q", home, payloads(got))
		}
	})
}

// A member that leaves while a message is on its way to it between two loops
// loses it to another.
func TestShare_MessageInFlightBetweenLoopsIsNotLost(t *testing.T) {
	for _, how := range []string{"cut", "end", "unsubscribe"} {
		s := newSim(t, 3, Options{})
		share := s.groupOn(0, "q")
		m := s.member(1, "m", share, 1, map[string]uint32{"cut": 600}[how])
		p := s.join(0, s.idOn(0, "p"), wire.V5, 0)
		p.stream.Data(pub(wire.V5, "q", "x", 1, 1)) // the handover is in loop 1's mailbox now
		other := "other"
		switch how {
		case "unsubscribe":
			u := wire.Unsubscribe{PacketID: 9, Filters: []string{share}}
			m.stream.Data(u.Append(nil, wire.V5))
		default:
			m.end(nil)
		}
		o := s.join(2, s.idOn(2, other), wire.V5, 0)
		o.sub(wire.V5, wire.Subscription{Filter: share, QoS: 1})
		s.run()
		got := payloads(o.publishes(wire.V5))
		lost := s.b.Stats().Dropped[DropSharedNoMember.String()]
		// Once the last member has left there is no group: the message may go
		// with it, but then it is counted.
		if got != "x" && !(got == "" && lost == 1 && how != "cut") {
			t.Errorf("%s: the other got %q, %d are counted as dropped", how, got, lost)
		}
	}
}

// Several groups on other loops hand over to one member more than it has room
// for: nothing is lost, nothing comes twice, and the order of a group holds
// for what waits.
func TestShare_MemberOfManyGroups(t *testing.T) {
	s := newSim(t, 3, Options{})
	m := s.join(0, s.idOn(0, "m"), wire.V5, 600, receiveMaximum(3))
	for i := range 9 {
		m.sub(wire.V5, wire.Subscription{Filter: s.groupOn(i%3, fmt.Sprint("q", i)), QoS: 1})
	}
	p := s.join(0, "p", wire.V5, 0)
	for i := 1; i <= 20; i++ {
		for q := range 9 {
			p.feed(pub(wire.V5, fmt.Sprint("q", q), fmt.Sprint(i), 1, 1))
		}
	}
	s.run()
	count := map[string]int{}
	for list := m.publishes(wire.V5); len(list) > 0; list = m.publishes(wire.V5) {
		if len(list) > 3 {
			t.Fatalf("%d in flight", len(list))
		}
		for _, g := range list {
			count[string(g.pub.Topic)+" "+string(g.pub.Payload)]++
		}
		m.ack(wire.V5, list)
	}
	if len(count) != 180 {
		t.Errorf("%d messages came, want 180", len(count))
	}
	for what, n := range count {
		if n != 1 {
			t.Errorf("%s came %d times", what, n)
		}
	}
}

// QoS 0 for a slow member goes to another; with none it is dropped and
// counted, and the loops come to rest.
func TestShare_QoS0OfASlowMember(t *testing.T) {
	everyHome(func(home int) {
		s := newSim(t, 3, Options{WriteQueueBytes: 4096})
		share := s.groupOn(home, "q")
		m := s.member(1, "m", share, 0, 0)
		m.deaf = true
		p := s.join(0, "p", wire.V5, 0)
		big := strings.Repeat("x", 1000)
		for range 10 {
			p.send(pub(wire.V5, "q", big, 0, 0))
		}
		if n := s.b.Stats().Dropped[DropSharedNoMember.String()]; n < 4 || n > 6 {
			t.Errorf("home %d: %d are counted as dropped", home, n)
		}
		other := s.member(2, "other", share, 0, 0)
		for range 10 {
			p.send(pub(wire.V5, "q", big, 0, 0))
		}
		if n := len(other.publishes(wire.V5)); n != 10 {
			t.Errorf("home %d: the other member got %d of 10", home, n)
		}
		m.deaf = false
		m.wake()
		s.run()
		m.out = nil
		for range 10 {
			p.send(pub(wire.V5, "q", big, 0, 0))
		}
		if n := len(m.publishes(wire.V5)); n < 4 {
			t.Errorf("home %d: the member that reads again got %d of 10", home, n)
		}
	})
}

// A message that a member may not have goes to one that may, and holds up
// nobody when there is none.
func TestShare_AuthorizerIsAskedForEachMember(t *testing.T) {
	everyHome(func(home int) {
		az := &testAuthorizer{receive: func(id *Identity, topic string) bool {
			return topic != "q/secret" || strings.HasPrefix(id.ClientID, "boss")
		}}
		s := newSim(t, 3, Options{Authorizer: az})
		share := s.groupOn(home, "q/#")
		m := s.member(0, "m", share, 1, 0)
		p := s.join(0, "p", wire.V5, 0)
		p.send(pub(wire.V5, "q/secret", "s1", 1, 1))
		p.send(pub(wire.V5, "q/open", "o1", 1, 2))
		if got := payloads(m.publishes(wire.V5)); got != "o1" {
			t.Errorf("home %d: the member got %q, want o1", home, got)
		}
		boss := s.member(1, "boss", share, 1, 0, receiveMaximum(1))
		p.send(pub(wire.V5, "q/secret", "s2", 1, 3))
		p.send(pub(wire.V5, "q/secret", "s3", 1, 4)) // the boss is full: it waits
		p.send(pub(wire.V5, "q/open", "o2", 1, 5))   // behind it, to keep the order
		if got := payloads(boss.publishes(wire.V5)); got != "s2" {
			t.Errorf("home %d: the boss got %q, want s2", home, got)
		}
		boss.cut()
		if got := payloads(m.publishes(wire.V5)); got != "o2" {
			t.Errorf("home %d: the member got %q after the boss left, want o2", home, got)
		}
		if n := s.b.Stats().Queued; n != 0 {
			t.Errorf("home %d: %d still wait", home, n)
		}
	})
}

// A message that is too large for its member takes none of its room.
func TestShare_TooLargeForAMember(t *testing.T) { // [MQTT-3.1.2-25]
	everyHome(func(home int) {
		s := newSim(t, 3, Options{})
		share := s.groupOn(home, "q")
		m := s.member(0, "m", share, 1, 0, func(p *wire.Connect) { p.ReceiveMaximum, p.MaximumPacketSize = 1, 100 })
		p := s.join(0, "p", wire.V5, 0)
		for i := range 4 {
			p.send(pub(wire.V5, "q", strings.Repeat("x", 200), 1, uint16(i+1)))
		}
		p.send(pub(wire.V5, "q", "small", 1, 9))
		if got := payloads(m.publishes(wire.V5)); got != "small" {
			t.Errorf("home %d: got %q", home, got)
		}
		if n := s.b.Stats().Dropped[DropTooLarge.String()]; n != 4 {
			t.Errorf("home %d: %d are counted as too large", home, n)
		}
	})
}

// The last member that leaves takes the group and its queue along, counted.
func TestShare_LastMemberEndsTheGroup(t *testing.T) {
	everyHome(func(home int) {
		s := newSim(t, 3, Options{})
		share := s.groupOn(home, "q")
		m := s.member(1, "m", share, 1, 5)
		m.cut()
		s.join(0, "p", wire.V5, 0).pubs("q", 1, 1, 3)
		s.advance(6)
		if s.group() != nil || s.b.index.Len() != 0 {
			t.Errorf("home %d: the group or its filter is still there", home)
		}
		st := s.b.Stats()
		if st.Dropped[DropSharedNoMember.String()] != 3 || st.Queued != 0 || st.Subscriptions != 0 {
			t.Errorf("home %d: %+v", home, st)
		}
	})
}
