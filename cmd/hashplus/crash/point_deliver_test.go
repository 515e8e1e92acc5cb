package crash

import (
	"fmt"
	"testing"

	"hashplus/broker/wire"
)

// The crash points of the way out.

func TestOutgoingQoS2_IsSentAgainWithItsIdentifier(t *testing.T) { // [MQTT-4.4.0-1] [MQTT-3.3.1-1]
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("a/b", 2))
		pub.renew()
		pub.post(2, "a/b", "once")
		first := sub.message("once", 2)
		b.crash()
		sub.resume()
		again := sub.message("once", 2)
		if again.id != first.id || !again.publish.Dup {
			t.Errorf("sent again as %v, first as %v", again, first)
		}
		b.crash() // once more
		sub.resume()
		again = sub.message("once", 2)
		if again.id != first.id || !again.publish.Dup {
			t.Errorf("sent a third time as %v, first as %v", again, first)
		}
		sub.finish(again)
		sub.nothing()
	})
}

func TestPUBREL_IsSentAgainAndNotPUBLISH(t *testing.T) { // [MQTT-4.3.3-6] [MQTT-4.4.0-1]
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("a/b", 2))
		pub.renew()
		pub.post(2, "a/b", "once")
		p := sub.message("once", 2)
		sub.send(appendAck(nil, wire.PUBREC, p.id))
		sub.answer(wire.PUBREL, p.id)
		b.crash()
		sub.resume()
		sub.answer(wire.PUBREL, p.id)
		b.crash()
		sub.resume()
		sub.answer(wire.PUBREL, p.id)
		sub.send(appendAck(nil, wire.PUBCOMP, p.id))
		sub.nothing()
	})
}

// Messages in several states at once come back each in its own, in their order.
func TestWindow_ComesBackAsItWas(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("a/b", 2))
		pub.renew()
		var ids []uint16
		for i := range 6 {
			pub.post(2, "a/b", fmt.Sprint(i))
			ids = append(ids, sub.message(fmt.Sprint(i), 2).id)
		}
		for i := range 3 { // the first is completed, the next two are released
			sub.send(appendAck(nil, wire.PUBREC, ids[i]))
			sub.answer(wire.PUBREL, ids[i])
		}
		b.crash()
		sub.resume()
		for i := range 3 {
			sub.answer(wire.PUBREL, ids[i])
		}
		for i := 3; i < 6; i++ {
			p := sub.message(fmt.Sprint(i), 2)
			if p.id != ids[i] || !p.publish.Dup {
				t.Errorf("%v in place of identifier %d", p, ids[i])
			}
			sub.send(appendAck(nil, wire.PUBREC, p.id))
		}
		for i := 3; i < 6; i++ {
			sub.answer(wire.PUBREL, ids[i])
		}
		for _, id := range ids {
			sub.send(appendAck(nil, wire.PUBCOMP, id))
		}
		sub.nothing()
		// A new message gets an identifier that is free.
		pub.resume()
		pub.post(2, "a/b", "after")
		sub.take("after", 2)
		sub.nothing()
	})
}

// The messages that wait behind a window of one leave one by one after a crash.
func TestWindow_OfOneGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	sub, pub := b.client(v5, "sub"), b.client(v5, "pub")
	sub.renew(window(1))
	sub.subscribe(filter("a/b", 2))
	pub.renew()
	for i := range 8 {
		pub.post(byte(1+i%2), "a/b", fmt.Sprint(i))
	}
	for n := range 8 {
		sub.collect(n + 1)
		b.crash()
		sub.resume(window(1))
	}
	if got := fmt.Sprint(sub.got); got != "[0 1 2 3 4 5 6 7]" {
		t.Errorf("they came as %v", got)
	}
}

// A message that waits in a share group whose members are all away waits there
// after a crash.
func TestShareGroup_KeepsWhatNoMemberHas(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	one, two, pub := b.client(v5, "one"), b.client(v5, "two"), b.client(v5, "pub")
	for _, m := range []*client{one, two} {
		m.renew()
		m.subscribe(filter("$share/crew/job/+", 2))
		m.leave()
	}
	pub.renew()
	for i := range 10 {
		pub.post(2, "job/x", fmt.Sprint(i))
	}
	b.crash()
	got := map[string]int{}
	one.resume()
	two.resume()
	for len(got) < 10 && !b.late() {
		for _, m := range []*client{one, two} {
			for p, err := m.conn.next(deadline(100)); err == nil; p, err = m.conn.next(deadline(100)) {
				switch p.typ {
				case wire.PUBLISH:
					got[string(p.publish.Payload)]++
					m.send(appendAck(nil, wire.PUBREC, p.id))
				case wire.PUBREL:
					m.send(appendAck(nil, wire.PUBCOMP, p.id))
				default:
					t.Fatal(p)
				}
			}
		}
	}
	for i := range 10 {
		if n := got[fmt.Sprint(i)]; n != 1 {
			t.Errorf("message %d came %d times", i, n)
		}
	}
}

// What queues for an absent client is delivered with what its publisher set.
func TestQueue_KeepsProperties(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	sub, pub := b.client(v5, "sub"), b.client(v5, "pub")
	sub.renew()
	sub.ask(77, filter("p/#", 2))
	sub.leave()
	pub.renew()
	set := wire.PassProperties{
		PayloadIsText: true, ContentType: "text/plain", ResponseTopic: "answer/here", CorrelationData: []byte{0, 1, 2},
		UserProperties: []wire.UserProperty{{Key: "k", Value: "v"}, {Key: "k", Value: "w"}},
	}
	props, _ := set.Append(nil)
	pub.postAs(wire.Outgoing{QoS: 2, Props: props}, "p/q", "text")
	b.crash()
	sub.resume()
	p := sub.take("text", 2)
	if got := wire.ReadPassProperties(p.publish.Props); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", set) {
		t.Errorf("properties %+v, set were %+v", got, set)
	}
	if len(p.subIDs) != 1 || p.subIDs[0] != 77 {
		t.Errorf("subscription identifiers %v, not 77", p.subIDs)
	}
	if string(p.publish.Topic) != "p/q" {
		t.Error(p)
	}
}
