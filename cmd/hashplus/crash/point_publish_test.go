package crash

import (
	"fmt"
	"testing"

	"hashplus/broker/wire"
)

// The crash points of the way in: each test kills the broker right after it has
// read the bytes of one answer.

func TestPUBACK_MessageIsThereAfterACrash(t *testing.T) { // [MQTT-4.3.2-2] [MQTT-4.1.0-1]
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("a/+", 2))
		sub.leave()
		pub.renew()
		for i := range 5 {
			pub.put(wire.Outgoing{QoS: 1}, "a/b", fmt.Sprint("message ", i))
		}
		for i := range 5 {
			pub.answer(wire.PUBACK, uint16(i+1))
		}
		b.crash()
		sub.resume()
		for i := range 5 {
			sub.take(fmt.Sprint("message ", i), 1)
		}
		sub.nothing()
	})
}

// The publisher is not durable: the promise does not hang on its session.
func TestPUBACK_OfAClientWithoutASession(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("a/b", 1))
		sub.leave()
		pub.renew(clean, expiry(0))
		pub.post(1, "a/b", "kept")
		b.crash()
		sub.resume()
		sub.take("kept", 1)
		sub.nothing()
	})
}

func TestPUBACK_MessageForSubscriberThatIsOnline(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("a/b", 1))
		pub.renew()
		pub.post(1, "a/b", "never acknowledged")
		sub.message("never acknowledged", 1)
		b.crash()
		sub.resume()
		sub.take("never acknowledged", 1)
		sub.nothing()
	})
}

func TestPUBREC_MessageIsThereOnceAfterACrash(t *testing.T) { // [MQTT-4.3.3-10]
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("a/b", 2))
		sub.leave()
		pub.renew()
		id := pub.put(wire.Outgoing{QoS: 2}, "a/b", "once")
		pub.answer(wire.PUBREC, id)
		b.crash()
		// The publisher can't know that PUBREC was not lost.
		pub.resume()
		pub.put(wire.Outgoing{QoS: 2, Dup: true, PacketID: id}, "a/b", "once")
		pub.answer(wire.PUBREC, id)
		b.crash()
		pub.resume()
		pub.put(wire.Outgoing{QoS: 2, Dup: true, PacketID: id}, "a/b", "once")
		pub.answer(wire.PUBREC, id)
		pub.send(appendAck(nil, wire.PUBREL, id))
		pub.answer(wire.PUBCOMP, id)
		sub.resume()
		sub.take("once", 2)
		sub.nothing()
	})
}

func TestPUBREC_ReleaseAfterACrash(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("a/b", 2))
		sub.leave()
		pub.renew()
		id := pub.put(wire.Outgoing{QoS: 2}, "a/b", "once")
		pub.answer(wire.PUBREC, id)
		b.crash()
		pub.resume()
		pub.send(appendAck(nil, wire.PUBREL, id))
		pub.answer(wire.PUBCOMP, id)
		sub.resume()
		sub.take("once", 2)
		sub.nothing()
	})
}

// A message that had no receiver when it was published is a message that was
// received all the same: it does not reach who subscribes later.
func TestPUBREC_IdentifierIsKeptWithoutAReceiver(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		pub.renew()
		id := pub.put(wire.Outgoing{QoS: 2}, "a/b", "for nobody")
		pub.answer(wire.PUBREC, id)
		b.crash()
		sub.renew()
		sub.subscribe(filter("a/b", 2))
		pub.resume()
		pub.put(wire.Outgoing{QoS: 2, Dup: true, PacketID: id}, "a/b", "for nobody")
		pub.answer(wire.PUBREC, id)
		sub.nothing()
	})
}

// After PUBCOMP the identifier is free: what comes with it is a new message.
func TestPUBCOMP_IdentifierIsFreeAfterACrash(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("a/b", 2))
		sub.leave()
		pub.renew()
		pub.postAs(wire.Outgoing{QoS: 2, PacketID: 7}, "a/b", "first")
		b.crash()
		pub.resume()
		pub.postAs(wire.Outgoing{QoS: 2, PacketID: 7}, "a/b", "second")
		b.crash()
		// PUBREL again, as if PUBCOMP had been lost.
		pub.resume()
		pub.send(appendAck(nil, wire.PUBREL, 7))
		if a := pub.expect(wire.PUBCOMP); a.id != 7 || a.reason != wire.Success && a.reason != wire.PacketIdentifierNotFound {
			t.Error(a)
		}
		sub.resume()
		sub.take("first", 2)
		sub.take("second", 2)
		sub.nothing()
	})
}

// A queue keeps its order across restarts, those that end in order and those
// that do not, and so does what is on the way.
func TestQueue_KeepsItsOrder(t *testing.T) { // [MQTT-4.6.0-6]
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("#", 2))
		sub.leave()
		n := 0
		qos := func(i int) byte { return byte(1 + i%3/2) } // 1 1 2
		fill := func(k int) {
			pub.connect()
			for range k {
				pub.post(qos(n), "order", fmt.Sprint(n))
				n++
			}
		}
		fill(60)
		b.crash()
		fill(60)
		b.restart()
		fill(60)
		b.crash()
		sub.resume(window(10))
		sub.collect(50)
		b.crash()
		fill(20)
		sub.resume(window(10))
		sub.collect(120)
		b.crash()
		sub.resume(window(10))
		sub.collect(n)
		for i, m := range sub.got {
			if m != fmt.Sprint(i) {
				t.Fatalf("message %s came where %d should: %v", m, i, sub.got)
			}
		}
	})
}
